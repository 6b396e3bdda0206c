//! The objectives since the survey.

use super::super::{Input, Row, constant, trained};
use candle_align::math::softplus;
use candle_align::ranking::{FDivergence, LogRatios};
use candle_align::{Pair, Result, TokenLogProbs, TokenLoss};
use candle_core::{DType, Tensor};

mod lists;
mod margin;
mod own_answers;
mod reference;
mod reference_free;
mod reward_models;
mod unpaired;

pub fn rows() -> Vec<Row> {
    let mut rows = reference::rows();
    rows.extend(lists::rows());
    rows.extend(lists::of_the_batch());
    rows.extend(margin::rows());
    rows.extend(reference_free::rows());
    rows.extend(unpaired::rows());
    rows.extend(own_answers::rows());
    rows.extend(own_answers::surrogates());
    rows.extend(reward_models::rows());
    rows
}

fn row(name: &'static str, inputs: Vec<Input>, loss: fn(&[Tensor]) -> Result<Tensor>) -> Row {
    Row {
        name,
        inputs,
        loss,
        independent: true,
    }
}

fn pair(chosen: &Tensor, rejected: &Tensor) -> Pair<Tensor> {
    Pair {
        chosen: chosen.clone(),
        rejected: rejected.clone(),
    }
}

/// Log-ratios of 0.4 and −0.5, 0.3 and 0.1, −2 and 0.5.
fn moved() -> Vec<Input> {
    vec![
        trained("policy.chosen", &[3], &[-2.7, -2.7, -8.0]),
        trained("policy.rejected", &[3], &[-4.5, -4.8, -5.0]),
        constant("reference.chosen", &[3], &[-3.1, -3.0, -6.0]),
        constant("reference.rejected", &[3], &[-4.0, -4.9, -5.5]),
    ]
}

/// Policy and reference agree.
fn start() -> Vec<Input> {
    let mut inputs = moved();
    for i in 0..2 {
        inputs[i + 2].data = inputs[i].data.clone();
    }
    inputs
}

/// [`moved`] and two more numbers for each answer.
fn with(name: [&'static str; 2], chosen: [f64; 3], rejected: [f64; 3]) -> Vec<Input> {
    let mut inputs = moved();
    inputs.push(constant(name[0], &[3], &chosen));
    inputs.push(constant(name[1], &[3], &rejected));
    inputs
}

fn ratios(x: &[Tensor]) -> Result<LogRatios> {
    LogRatios::sums(&pair(&x[0], &x[1]), &pair(&x[2], &x[3]))
}

/// x where |x| is small, and within ±20: exponentials of it stay in range.
fn inside(x: &Tensor) -> Result<Tensor> {
    Ok(((x / 20.0)?.tanh()? * 20.0)?)
}

fn scored(x: &[Tensor], divergence: FDivergence) -> Result<LogRatios> {
    let x: Vec<Tensor> = x[..4].iter().map(inside).collect::<Result<_>>()?;
    ratios(&x)?.scored(divergence)
}

/// A log-probability below 0, whatever x.
fn below(x: &Tensor) -> Result<Tensor> {
    Ok((softplus(x)?.neg()? - 0.05)?)
}

fn means() -> Vec<Input> {
    vec![
        trained("means.chosen", &[3], &[-0.7, 0.4, 2.0]),
        trained("means.rejected", &[3], &[0.3, -0.6, 2.5]),
    ]
}

/// A mask that no law empties, because the rest of the loss would remain.
fn as_mask(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::U32 => Ok(x.to_dtype(DType::U8)?),
        _ => Ok(x.clone()),
    }
}

/// The likelihood terms of three answers of one token.
fn token_losses(name: &'static str) -> Input {
    trained(name, &[3], &[0.7, 1.1, 0.2])
}

fn token_loss(loss: &Tensor) -> Result<TokenLoss> {
    let loss = loss.unsqueeze(1)?;
    Ok(TokenLoss {
        mask: Tensor::ones(loss.shape(), DType::U8, loss.device())?,
        loss,
    })
}

/// Log-probabilities of two answers' tokens and their masks.
fn tokens(values: &Tensor, mask: &Tensor) -> Result<TokenLogProbs> {
    TokenLogProbs::new(values, &as_mask(mask)?)
}
