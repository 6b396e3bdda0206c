//! ORPO: fine-tuning and preferences in one step, by odds (2024, after the survey).
//!
//! In one sentence: supervised fine-tuning on the chosen answers, plus a logistic loss on the ratio of the
//! odds of both answers, without a reference.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | P_θ(y│x) = exp( (1/│y│) log π_θ(y│x) ) | `means` | `[batch]` |
//! | L_SFT | `chosen`, from [`sft_loss`](crate::sft_loss) | `[batch, time]` |
//! | λ | [`OrpoConfig::lambda`] | number |
//!
//! Read next: [`cpo`](super::cpo), [`simpo`](super::simpo).

use crate::error::{Result, non_negative};
use crate::log_probs::Pair;
use crate::math::{log1mexp, of_two, softplus, weighted};
use crate::outputs::{PreferenceLoss, TokenLoss};
use crate::ranking::{ReferenceTokens, answer_nll};
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// The loss of each pair by the odds of its answers, without the likelihood term.
///
/// # Equation
/// ```text
/// L = −log σ( log odds(y_w) − log odds(y_l) ),        odds(y) = P(y)/(1 − P(y)),  P(y) = e^l̄
/// ```
/// # Shapes
/// `means` `[batch]`: means of token log-probabilities
/// ([`TokenLogProbs::mean`](crate::TokenLogProbs::mean)). They are at most 0. The loss is `[batch]`; the
/// rewards beside it are the means.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless
/// both are f32 or f64 alike. A mean above 0 is no log-probability and gives NaN.
/// # Properties
/// * Equal means have the loss ln 2.
/// * ∂L/∂l̄_w = −1/( 1 − P_w + (P_w/P_l)(1 − P_l) ): it tends to −odds(y_l) as P_w → 1, where the odds
///   themselves are infinite.
/// * A chosen mean of 0 costs 0 with that slope. A rejected mean of 0 costs +∞. If both are 0 there is no
///   ratio of odds: NaN.
/// # Departures
/// None from the paper. TRL 1.16 divides two branches of log(1 − e^l̄) in f32 and has a NaN gradient where
/// a mean rounds to 0; LLaMA-Factory and Liger compute log(1 − e^l̄) with `log1p(−exp)`, which is −∞ there
/// (trl#2564). Here value and slope are closed forms.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{odds_ratio_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let means = Pair { chosen: at(-0.8)?, rejected: at(-1.5)? };
/// let out = odds_ratio_loss(&means)?;
/// let odds = |mean: f64| mean.exp() / (1.0 - mean.exp());
/// let want = (1.0 + odds(-1.5) / odds(-0.8)).ln();
/// assert!((out.loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the mean of log odds beside the means: odds of answers with low means are nearly the
///   probabilities themselves, and the loss is then SimPO's with β = 1 and γ = 0.
/// # Try
/// * Let a mean go to 0. Solution:
///   `tests/values/slips.rs::a_certain_answer_has_a_finite_slope_under_odds`.
/// # Source
/// Hong et al. 2024, arXiv:2403.07691.
#[doc(alias = "ORPO")]
#[doc(alias = "odds ratio")]
pub fn odds_ratio_loss(means: &Pair<Tensor>) -> Result<PreferenceLoss> {
    let means = Axes::new("odds_ratio_loss").pair("means", means)?;
    let plain = means.detach();

    // log( 1 + odds(y_l)/odds(y_w) )
    let rest_of_chosen = log1mexp(&plain.chosen)?;
    let rest_of_rejected = log1mexp(&plain.rejected)?;
    let behind = ((plain.margin()?.neg()? + &rest_of_chosen)? - &rest_of_rejected)?;
    let value = softplus(&behind)?;

    // D = 1 − P_w + (P_w/P_l)(1 − P_l), with slopes −1/D and (1 − P_w)/( (1 − P_l) D )
    let (rest_of_chosen, rest_of_rejected) = (rest_of_chosen.exp()?, rest_of_rejected.exp()?);
    let total = (&rest_of_chosen + (plain.margin()?.exp()? * &rest_of_rejected)?)?;
    let up = total.recip()?.neg()?;
    let down = ((rest_of_chosen / rest_of_rejected)? * up.neg()?)?;
    let loss = of_two(value, (&means.chosen, up), (&means.rejected, down))?;
    PreferenceLoss::new(loss, &means)
}

/// Settings of [`orpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OrpoConfig {
    /// λ ≥ 0, the weight of the odds. Default 0.1, TRL's `beta`.
    #[doc(alias = "beta")]
    pub lambda: f64,
    /// Whether the likelihood term of a pair is a sum over the tokens that count or their mean. Default
    /// the mean, as the odds are of means.
    pub tokens: ReferenceTokens,
}

impl Default for OrpoConfig {
    fn default() -> Self {
        Self {
            lambda: 0.1,
            tokens: ReferenceTokens::Mean,
        }
    }
}

/// The loss of each pair: likelihood and odds.
///
/// # Equation
/// ```text
/// L = NLL(y_w) + λ · ( −log σ( log odds(y_w) − log odds(y_l) ) )
/// ```
/// # Shapes
/// `means` `[batch]`: means of token log-probabilities
/// ([`TokenLogProbs::mean`](crate::TokenLogProbs::mean)). `chosen` is the loss of each token `[batch,
/// time]`, over the answer alone or over prompt and answer, by its mask. The loss is `[batch]`; the
/// rewards beside it are the means.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless λ ≥ 0, [`Error::Shape`](crate::Error::Shape) if
/// sizes differ, [`Error::DType`](crate::Error::DType) unless all are f32 or all are f64.
/// # Properties
/// * λ = 0 is supervised fine-tuning on the chosen answers.
/// * Equal means add λ ln 2.
/// # Departures
/// TRL 1.16 takes the likelihood over prompt and answer, as the mean over all tokens of the batch;
/// LLaMA-Factory over the answer. The mask of `chosen` says which. For the mean over the batch add
/// [`sft_loss`](crate::sft_loss) under [`Reduction::TokenMean`](crate::Reduction::TokenMean) to λ times
/// the mean of [`odds_ratio_loss`].
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{OrpoConfig, orpo_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// use candle_align::{SftConfig, TokenLogProbs, sft_loss};
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let tokens = TokenLogProbs::new(&Tensor::new(&[[-1.0f64, -0.5]], &Device::Cpu)?, &mask)?;
/// let chosen = sft_loss(&tokens, None, &SftConfig::default())?;
/// let means = Pair { chosen: tokens.mean()?, rejected: at(-0.75)? };
/// let out = orpo_loss(&means, &chosen, &OrpoConfig::default())?;
/// assert!((out.loss.to_vec1::<f64>()?[0] - (0.75 + 0.1 * 2f64.ln())).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Log the likelihood and the odds apart: with λ = 0.1 the first dominates by far.
/// # Try
/// * Predict the loss of two answers with equal means. Solution:
///   `tests/values/since.rs::equal_means_have_equal_odds`.
/// # Source
/// Hong et al. 2024, arXiv:2403.07691; huggingface/trl, `experimental/orpo` of release 1.16.0.
#[doc(alias = "odds ratio preference optimization")]
pub fn orpo_loss(
    means: &Pair<Tensor>,
    chosen: &TokenLoss,
    config: &OrpoConfig,
) -> Result<PreferenceLoss> {
    let function = "orpo_loss";
    non_negative(function, "lambda", config.lambda)?;
    let means = Axes::new(function).pair("means", means)?;

    // λ · ( −log σ( … ) )
    let odds = weighted(&odds_ratio_loss(&means)?.loss, config.lambda)?;
    // NLL(y_w)
    let nll = answer_nll(function, &odds, ("chosen", chosen), config.tokens)?;
    PreferenceLoss::new((nll + odds)?, &means)
}
