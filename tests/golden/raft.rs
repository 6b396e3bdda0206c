//! RAFT against the paper's selections in scalars, and sampling against Transformers.

use super::EXACT;
use super::reader::each;
use candle_align::online::raft::{best_of_k, kl_adjusted_rewards, top_share};
use candle_align::{RaftConfig, Result, SamplingConfig, SftConfig, TokenLogProbs, sft_loss};
use candle_core::{D, Device, Tensor};

fn numbers(rows: &[usize]) -> Result<Tensor> {
    let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    Ok(Tensor::new(rows.as_slice(), &Device::Cpu)?)
}

#[test]
fn raft() {
    each("raft", |case| {
        let (values, tokens) = (case.var("values")?, case.mask("tokens")?);
        let (rewards, mask) = (case.input("rewards")?, case.mask("mask")?);
        let sums = |values: &Tensor| -> Result<Tensor> {
            let sums = TokenLogProbs::new(values, &tokens)?.sum()?;
            Ok(sums.reshape(rewards.shape())?)
        };
        let config = RaftConfig {
            beta: case.number("beta"),
        };
        let (policy, reference) = (sums(&values)?, sums(&case.input("reference")?)?);
        let ranked = kl_adjusted_rewards(&rewards, &policy, &reference, &config)?;
        case.check("adjusted", &ranked, EXACT)?;

        let top = top_share(&ranked, Some(&mask), case.number("share"))?;
        case.check("top", &numbers(&top)?, 0.0)?;
        let best = numbers(&best_of_k(&ranked, Some(&mask))?)?;
        case.check("best", &best, 0.0)?;

        let kept = TokenLogProbs::new(
            &values.index_select(&best, 0)?,
            &tokens.index_select(&best, 0)?,
        )?;
        let loss = sft_loss(&kept, None, &SftConfig::default())?;
        let loss = loss.loss.sum(D::Minus1)?;
        case.check("loss", &loss, EXACT)?;
        case.check_gradient("values", &loss, &values, EXACT)
    });
}

#[test]
fn sampling() {
    each("sampling", |case| {
        let config = SamplingConfig {
            temperature: case.number("temperature"),
            top_k: case.optional("top_k").map(|k| k as usize),
            top_p: case.number("top_p"),
            ..Default::default()
        };
        let probabilities = config.probabilities(&case.input("logits")?)?;
        case.check("probabilities", &probabilities, EXACT)
    });
}
