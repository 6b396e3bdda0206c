use super::EXACT;
use super::reader::{Case, each};
use candle_align::language::conditional_sft::ClassWeighting;
use candle_align::{
    CRlftConfig, HindsightConfig, Reduction, Result, TokenLogProbs, c_rlft_loss,
    chain_of_hindsight_loss,
};

#[test]
fn objectives_over_written_feedback() {
    each("language", |case| match case.word("objective") {
        "c_rlft" => c_rlft(case),
        _ => hindsight(case),
    });
}

fn c_rlft(case: &Case) -> Result<()> {
    let logits = case.var("logits")?;
    let (tokens, mask) = (case.index("tokens")?, case.mask("mask")?);
    let log_probs = TokenLogProbs::next_token(&logits, &tokens, &mask)?;
    let weighting = match case.optional("beta") {
        Some(beta) => ClassWeighting::Exponential { beta },
        None => ClassWeighting::Linear,
    };
    let rewards = case.input("rewards")?;
    let out = c_rlft_loss(&log_probs, &rewards, &CRlftConfig { weighting })?;
    let reduction = match case.word("divisor") {
        "token_weight" => Reduction::SumOver {
            count: out.token_weight()?,
        },
        "sequence_weight" => Reduction::SequenceMeansOver {
            count: out.sequence_weight()?,
        },
        _ => Reduction::SequenceMean,
    };
    let loss = out.tokens.reduce(reduction)?;
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("logits", &loss, &logits, EXACT)
}

fn hindsight(case: &Case) -> Result<()> {
    let logits = case.var("logits")?;
    let (tokens, mask) = (case.index("tokens")?, case.mask("mask")?);
    let hindsight = TokenLogProbs::next_token(&logits, &tokens, &mask)?;
    let reduction = match case.word("reduction") {
        "sum" => Reduction::Sum,
        "token_mean" => Reduction::TokenMean,
        _ => Reduction::SequenceMean,
    };
    let Some(pretraining_weight) = case.optional("weight") else {
        let out = chain_of_hindsight_loss(&hindsight, None, &HindsightConfig::default())?;
        let loss = out.reduce(reduction)?;
        case.check("loss", &loss, EXACT)?;
        return case.check_gradient("logits", &loss, &logits, EXACT);
    };
    let text_logits = case.var("text_logits")?;
    let words = case.index("text_tokens")?;
    let every = words.ones_like()?.to_dtype(candle_core::DType::U8)?;
    let text = TokenLogProbs::next_token(&text_logits, &words, &every)?;
    let config = HindsightConfig {
        pretraining_weight: Some(pretraining_weight),
    };
    let out = chain_of_hindsight_loss(&hindsight, Some(&text), &config)?;
    let loss = out.reduce(reduction)?;
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("logits", &loss, &logits, EXACT)?;
    case.check_gradient("text_logits", &loss, &text_logits, EXACT)
}
