//! Entropy-adaptive fine-tuning: supervised fine-tuning that spares what the policy is sure of (after the
//! survey).
//!
//! In one sentence: each token's cross-entropy times the entropy of the policy's prediction there, so a
//! token that contradicts a confident policy changes it little.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | H̃ₜ, of the top K symbols | from `logits` and [`EaftConfig::k`] | `[batch, time]` |
//! | its normalizer | [`EaftConfig::scale`] | number |
//! | α | [`EaftConfig::power`] | number |
//!
//! Read next: [`dft`](super::dft), which weighs by the token's own probability.

use crate::error::{Error, Result, positive, require};
use crate::log_probs::TokenLogProbs;
use crate::math::{masked, to_host};
use crate::outputs::TokenLoss;
use crate::shape::{Axes, fits_trained};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of [`eaft_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EaftConfig {
    /// K ≥ 1: the entropy is that of the K likeliest symbols, renormalized. Default 20, the value of the
    /// authors' code. From the size of the vocabulary on it is the whole entropy.
    pub k: usize,
    /// What the entropy is divided by, finite and > 0. Default 3, the value of the authors' code: nearly
    /// ln 20, the largest entropy of 20 symbols. Axolotl does not divide: 1.
    pub scale: f64,
    /// α > 0. Default 1.
    #[doc(alias = "alpha")]
    pub power: f64,
}

impl Default for EaftConfig {
    fn default() -> Self {
        Self {
            k: 20,
            scale: 3.0,
            power: 1.0,
        }
    }
}

/// The cross-entropy of each demonstrated token, times a power of the prediction's entropy.
///
/// # Equation
/// ```text
/// p̂ᵥ = e^{zᵥ} / Σ_{top K} e^z          Hₜ = −Σ_{top K} p̂ᵥ log p̂ᵥ
/// lₜ = −sg( (Hₜ / scale)^α ) · log P(yₜ│x, y₍<t₎)
/// ```
/// # Shapes
/// `log_probs` `[batch, time]`, and the `logits` that they were computed from: `[batch, time, vocabulary]`, or
/// with one more position, which predicts nothing. The result is `[batch, time]` with the mask of
/// `log_probs`. The entropy gets no gradient. The logits of counted positions are read to the host.
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] if the logits do not fit; [`Error::Parameter`] unless K ≥ 1,
/// scale > 0 and α > 0.
/// # Properties
/// * The gradient with respect to each counted log-probability is minus the weight.
/// * Where the policy is certain the weight is 0, right or wrong. Where all top K symbols are equally
///   likely it is (ln K / scale)^α.
/// * The same for α → 0 is [`sft_loss`](crate::sft_loss).
/// * Data of several answers to one prompt are learned as they are: the weight is one number per prompt and
///   prefix, so it changes how fast a distribution is learned, not which.
/// # Departures
/// * LLaMA-Factory divides by 3, axolotl does not. Their losses differ by 3^α; [`EaftConfig::scale`] says
///   which.
/// * Both add 10⁻¹⁰ inside the logarithm, which changes the entropy by up to 2·10⁻⁹. Here 0 log 0 = 0.
/// # Examples
/// ```
/// use candle_align::sft::eaft::{EaftConfig, eaft_loss};
/// use candle_align::{Statistics, TokenLogProbs};
/// use candle_core::{Device, Tensor};
///
/// // two symbols, equally likely: H = ln 2
/// let logits = Tensor::new(&[[[0.0f64, 0.0]]], &Device::Cpu)?;
/// let (target, mask) = (Tensor::new(&[[1u32]], &Device::Cpu)?, Tensor::new(&[[1u8]], &Device::Cpu)?);
/// let log_probs = TokenLogProbs::aligned(&logits, &target, &mask, Statistics::default())?;
///
/// let loss = eaft_loss(&log_probs, &logits, &EaftConfig::default())?;
/// let ln2 = 2.0f64.ln();
/// assert!((loss.loss.to_vec2::<f64>()?[0][0] - ln2 / 3.0 * ln2).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The mean weight over counted tokens: it is by how much the learning rate is lowered on average.
/// # Try
/// * Train on data with shares 0.5, 0.3 and 0.2. Does the weight change the optimum? Solution:
///   `tests/optimum/sft_since.rs::a_weight_by_entropy_keeps_the_optimum`.
/// # Source
/// Diao et al. 2026, arXiv:2601.02151; authors' code in hiyouga/LLaMA-Factory, `trainer_utils.py`.
#[doc(alias = "EAFT")]
#[doc(alias = "entropy-adaptive fine-tuning")]
pub fn eaft_loss(
    log_probs: &TokenLogProbs,
    logits: &Tensor,
    config: &EaftConfig,
) -> Result<TokenLoss> {
    let function = "eaft_loss";
    require(config.k >= 1, function, "k", ">= 1", config.k)?;
    positive(function, "scale", config.scale)?;
    positive(function, "power", config.power)?;
    let mut axes = Axes::new(function);
    let values = axes.float("log_probs", log_probs.values(), &["batch", "time"])?;
    let logits = at_the_positions(&mut axes, logits, values.dim(1)?)?;
    fits_trained(function, "logits", &logits, (values.dtype(), "`log_probs`"))?;

    // sg( (H / scale)^α )
    let entropy = top_entropy(&logits, log_probs.mask(), config.k)?;
    let weight = entropy
        .iter()
        .map(|h| (h / config.scale).powf(config.power));
    let weight = Tensor::from_vec(weight.collect::<Vec<f64>>(), values.shape(), &Device::Cpu)?;
    let weight = weight
        .to_dtype(values.dtype())?
        .to_device(values.device())?;
    // a weight of 0 leaves a token out, even one of −∞
    let loss = (weight.neg()? * masked(&values, &weight.ne(0.0)?)?)?;
    Ok(TokenLoss {
        loss: masked(&loss, log_probs.mask())?,
        mask: log_probs.mask().clone(),
    })
}

/// The logits of the positions that predict the tokens.
fn at_the_positions(axes: &mut Axes, logits: &Tensor, time: usize) -> Result<Tensor> {
    let longer = logits.rank() == 3 && logits.dims()[1] == time + 1;
    let logits = match longer {
        true => logits.narrow(1, 0, time)?,
        false => logits.clone(),
    };
    let logits = axes.axes("logits", &logits, &["batch", "time", "vocabulary"])?;
    match logits.dim(2)? {
        0 => Err(Error::argument(
            axes.function(),
            "logits",
            "has a vocabulary of 0",
        )),
        _ => Ok(logits.detach()),
    }
}

/// Logits read to the host at a time.
const HELD: usize = 1 << 22;

/// The entropy of each counted position's top k symbols, renormalized; 0 elsewhere.
fn top_entropy(logits: &Tensor, mask: &Tensor, k: usize) -> Result<Vec<f64>> {
    let (batch, time, vocabulary) = logits.dims3()?;
    let counts = to_host::<u8>(mask)?;
    let mut entropy = vec![0.0; batch * time];
    let counted: Vec<usize> = (0..counts.len()).filter(|&i| counts[i] != 0).collect();
    if counted.is_empty() {
        return Ok(entropy);
    }
    let flat = logits.reshape((batch * time, vocabulary))?;
    for rows in counted.chunks((HELD / vocabulary).max(1)) {
        let index: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        let index = Tensor::new(index, flat.device())?;
        let part = flat.index_select(&index, 0)?.to_device(&Device::Cpu)?;
        let part = part.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        for (&row, mut z) in rows.iter().zip(part) {
            if k < z.len() {
                z.select_nth_unstable_by(k, |a, b| b.total_cmp(a));
                z.truncate(k);
            }
            entropy[row] = entropy_of(&z);
        }
    }
    Ok(entropy)
}

/// H of softmax(z), with 0 log 0 = 0 and the limit where one logit is +∞.
fn entropy_of(z: &[f64]) -> f64 {
    let max = z
        .iter()
        .fold(f64::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    if max == f64::INFINITY {
        let alone = z.iter().filter(|x| **x == max).count() == 1;
        return if alone { 0.0 } else { f64::NAN };
    }
    let (mut sum, mut weighted) = (0.0, 0.0);
    for x in z {
        let d = x - max;
        let e = d.exp();
        sum += e;
        if e != 0.0 {
            weighted += d * e;
        }
    }
    sum.ln() - weighted / sum
}
