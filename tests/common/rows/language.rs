use super::super::{Input, Row, constant, mask, trained};
use candle_align::language::conditional_sft::ClassWeighting;
use candle_align::{
    CRlftConfig, HindsightConfig, HindsightLoss, Result, TokenLogProbs, c_rlft_loss,
    chain_of_hindsight_loss,
};
use candle_core::{D, Tensor};

fn log_probs(first: &'static str, second: &'static str) -> Vec<Input> {
    #[rustfmt::skip]
    let values = [
        -0.3, -1.7, -0.9, -2.4,
        -3.1, -0.2, -1.1, -0.6,
        -0.8, -1.3, -2.2, -0.1,
    ];
    vec![
        trained(first, &[3, 4], &values),
        mask(second, &[3, 4], &[0, 1, 1, 1, 1, 0, 1, 0, 0, 1, 0, 0]),
    ]
}

fn classes(rewards: &[f64; 3]) -> Vec<Input> {
    let mut inputs = log_probs("values", "mask");
    inputs.push(constant("rewards", &[3], rewards));
    inputs
}

fn c_rlft(x: &[Tensor], weighting: ClassWeighting) -> Result<Tensor> {
    let log_probs = TokenLogProbs::new(&x[0], &x[1])?;
    let loss = c_rlft_loss(&log_probs, &x[2], &CRlftConfig { weighting })?;
    Ok(loss.tokens.loss.sum(D::Minus1)?)
}

/// The answers and the pretraining text are each a batch of its own: one of them at a time.
fn hindsight(x: &[Tensor], pretraining_weight: Option<f64>) -> Result<HindsightLoss> {
    let text = TokenLogProbs::new(&x[0], &x[1])?;
    let config = HindsightConfig { pretraining_weight };
    chain_of_hindsight_loss(&text, Some(&text), &config)
}

pub fn rows() -> Vec<Row> {
    let row = |name, inputs, loss| Row {
        name,
        inputs,
        loss,
        independent: true,
    };
    vec![
        row("c-rlft", classes(&[1.0, 0.1, 0.1]), |x| {
            c_rlft(x, CRlftConfig::default().weighting)
        }),
        row("c-rlft, beta 0.4", classes(&[1.0, 0.1, -0.5]), |x| {
            c_rlft(x, ClassWeighting::Exponential { beta: 0.4 })
        }),
        row("c-rlft, linear", classes(&[1.0, 0.1, 0.0]), |x| {
            c_rlft(x, ClassWeighting::Linear)
        }),
        row("hindsight, answers", log_probs("values", "mask"), |x| {
            Ok(hindsight(x, Some(0.0))?.hindsight.loss.sum(D::Minus1)?)
        }),
        row("hindsight, text", log_probs("values", "mask"), |x| {
            let text = hindsight(x, None)?.pretraining;
            Ok(text.expect("text").loss.sum(D::Minus1)?)
        }),
        row("hindsight, both", log_probs("values", "mask"), |x| {
            let both = hindsight(x, Some(0.3))?;
            let text = both.pretraining.expect("text").loss;
            Ok((both.hindsight.loss + text)?.sum(D::Minus1)?)
        }),
    ]
}
