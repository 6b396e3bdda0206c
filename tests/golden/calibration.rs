//! BRIO and expected risk: candidates beside a reference answer, from its logits.

use super::EXACT;
use super::ranking::candidates;
use super::reader::{Case, each};
use candle_align::ranking::ReferenceTokens;
use candle_align::ranking::brio::BrioPairs;
use candle_align::{
    BrioConfig, ExpectedRiskConfig, ListLoss, Result, SftConfig, Statistics, TokenLogProbs,
    TokenLoss, brio_loss, expected_risk_loss, sft_loss,
};
use candle_core::Var;

/// The cross-entropy of the reference answers, and the logits that it comes from.
fn reference(case: &Case) -> Result<Option<(Var, TokenLoss)>> {
    if !case.has("logits") {
        return Ok(None);
    }
    let logits = case.var("logits")?;
    let statistics = Statistics {
        vocabulary_mean: true,
        ..Default::default()
    };
    let (targets, counts) = (case.index("targets")?, case.mask("reference")?);
    let log_probs = TokenLogProbs::aligned(&logits, &targets, &counts, statistics)?;
    let config = SftConfig {
        label_smoothing: case.number("label_smoothing"),
    };
    let loss = sft_loss(&log_probs, None, &config)?;
    Ok(Some((logits, loss)))
}

fn tokens(case: &Case) -> ReferenceTokens {
    match case.word("tokens") {
        "sum" => ReferenceTokens::Sum,
        "mean" => ReferenceTokens::Mean,
        other => panic!("{}: {other}", case.name),
    }
}

fn check(case: &Case, out: &ListLoss, values: &Var, logits: Option<&Var>) -> Result<()> {
    case.check("loss", &out.loss, EXACT)?;
    case.check("ranking", &out.ranking, EXACT)?;
    case.check("sft", &out.sft, EXACT)?;
    case.check_gradient("values", &out.loss, values, EXACT)?;
    match logits {
        Some(logits) => case.check_gradient("logits", &out.loss, logits, EXACT),
        None => Ok(()),
    }
}

#[test]
fn brio() {
    each("brio", |case| {
        let (values, candidates) = candidates(case)?;
        let reference = reference(case)?;
        let config = BrioConfig {
            margin: case.number("lambda"),
            rank_weight: case.number("gamma"),
            length_power: case.number("alpha"),
            pairs: match case.word("pairs") {
                "sum" => BrioPairs::Sum,
                "mean_per_distance" => BrioPairs::MeanPerDistance,
                other => panic!("{}: {other}", case.name),
            },
            reference: tokens(case),
        };
        let out = brio_loss(&candidates, reference.as_ref().map(|r| &r.1), &config)?;
        check(case, &out, &values, reference.as_ref().map(|r| &r.0))
    });
}

#[test]
fn expected_risk() {
    each("expected_risk", |case| {
        let (values, candidates) = candidates(case)?;
        let reference = reference(case)?;
        let config = ExpectedRiskConfig {
            length_power: case.number("power"),
            token_weight: case.number("alpha"),
            reference: tokens(case),
        };
        let out = expected_risk_loss(&candidates, reference.as_ref().map(|r| &r.1), &config)?;
        check(case, &out, &values, reference.as_ref().map(|r| &r.0))
    });
}
