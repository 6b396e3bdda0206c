//! GSPO and LUSPO: the ratio of whole answers, normalized by length (2025, after the survey).
//!
//! In one sentence: the reward is of the answer, so the ratio and its clip are of the answer too.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ, log π_old | `new`, `old` | `[batch, time]` |
//! | sᵢ(θ), or sᵢₜ(θ) of GSPO-token | [`GspoForm`] | `[batch, time]` |
//! | Âᵢ | `advantages` | `[batch]`; `[batch, time]` for GSPO-token |
//!
//! Read next: [`crate::online::ratio`], [`crate::online::policy_gradient::gmpo`].

use super::super::ppo::PolicyLoss;
use super::super::ratio::RatioLevel;
use super::grpo::{GrpoConfig, surrogate};
use crate::error::{Error, Result};
use crate::log_probs::TokenLogProbs;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Through what the gradient flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GspoForm {
    /// Through the ratio of the answer.
    #[default]
    Sequence,
    /// Through each token's own log-probability, so that advantages may differ within an answer.
    Token,
}

/// Settings of [`gspo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GspoConfig {
    /// ε of the lower bound, > 0. Default 3·10⁻⁴, the paper's §5.1: two orders below that of tokens, because a mean over
    /// an answer moves less than a token.
    pub clip: f64,
    /// ε of the upper bound, > 0. Default 4·10⁻⁴, the paper's §5.1.
    pub clip_high: f64,
    /// Default [`GspoForm::Sequence`].
    pub form: GspoForm,
}

impl Default for GspoConfig {
    fn default() -> Self {
        Self {
            clip: 3e-4,
            clip_high: 4e-4,
            form: GspoForm::Sequence,
        }
    }
}

impl GspoConfig {
    /// LUSPO's clip: ε of 2·10⁻³ and 2.5·10⁻³. Its loss is reduced by
    /// [`Reduction::SequenceMean`](crate::Reduction), which multiplies an answer's loss by its length.
    pub fn luspo() -> Self {
        Self {
            clip: 2e-3,
            clip_high: 2.5e-3,
            form: GspoForm::Sequence,
        }
    }
}

/// The loss of each answer, at each of its tokens.
///
/// # Equation
/// ```text
/// s = ( π_θ(y│x) / π_old(y│x) )^{1/│y│} = e^{ mean of log-ratios }
/// l = −min( s Â, clip(s, 1 − ε, 1 + ε_high) Â )
/// GSPO   (1/G) Σᵢ lᵢ             MeanOfSequenceMeans
/// LUSPO  (1/G) Σᵢ │yᵢ│ lᵢ        SequenceMean
/// ```
/// # Shapes
/// `new`, `old` `[batch, time]`; `advantages` `[batch]`, or `[batch, time]` in the token form. The results are
/// `[batch, time]` with the mask of `new`: all tokens of an answer hold its loss. `old` and `advantages` get no gradient.
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] if shapes or types differ;
/// [`Error::Argument`] for advantages of tokens in the sequence form;
/// [`Error::Parameter`] unless both ε are finite and > 0.
/// # Properties
/// * It is [`grpo_loss`](super::grpo_loss) at [`RatioLevel::SequenceMean`].
/// * All tokens of an answer have the same slope, −s Â/│y│ under [`MeanOfSequenceMeans`](crate::Reduction), and all are
///   clipped or none.
/// * With one advantage per answer the token form has the same value and gradient.
/// * Answers of one token: GRPO.
/// * A token mean weighs the answers by their lengths and is not GSPO (trl#3823).
/// # Departures
/// None from the equations. verl stops log s at 10; here s follows its tangent beyond e²⁰.
/// # Examples
/// ```
/// use candle_align::online::policy_gradient::{GspoConfig, gspo_loss};
/// use candle_align::{Reduction, TokenLogProbs};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let new = TokenLogProbs::new(&Tensor::new(&[[-0.5f64, -1.2]], &Device::Cpu)?, &mask)?;
/// let old = Tensor::new(&[[-0.9f64, -1.0]], &Device::Cpu)?;
/// let advantages = Tensor::new(&[-1.0f64], &Device::Cpu)?;
///
/// let out = gspo_loss(&new, &old, &advantages, &GspoConfig::default())?;
/// let loss = out.loss.reduce(Reduction::MeanOfSequenceMeans)?.to_scalar::<f64>()?;
/// assert!((loss - 0.1f64.exp()).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The clip fraction. The paper reports that GSPO clips two orders more tokens than GRPO and learns more per answer.
/// # Source
/// Zheng et al. 2025, arXiv:2507.18071, eq. 5 to 7 and 13 to 14; LUSPO: arXiv:2602.05261; huggingface/trl,
/// `trainer/grpo_trainer.py` of release 1.16.0 (`importance_sampling_level="sequence"`, `loss_type="luspo"`).
#[doc(alias = "GSPO")]
#[doc(alias = "GSPO-token")]
#[doc(alias = "LUSPO")]
pub fn gspo_loss(
    new: &TokenLogProbs,
    old: &Tensor,
    advantages: &Tensor,
    config: &GspoConfig,
) -> Result<PolicyLoss> {
    let function = "gspo_loss";
    let level = match config.form {
        GspoForm::Token => RatioLevel::TokenOfSequenceMean,
        GspoForm::Sequence => {
            of_answers(function, advantages)?;
            RatioLevel::SequenceMean
        }
    };
    let config = GrpoConfig {
        clip: config.clip,
        clip_high: Some(config.clip_high),
        delta: None,
        level,
    };
    surrogate(function, new, old, advantages, &config)
}

/// Requires one advantage for each answer.
pub(super) fn of_answers(function: &'static str, advantages: &Tensor) -> Result<()> {
    match advantages.rank() {
        2 => Err(Error::argument(
            function,
            "advantages",
            "is [batch, time]; a loss of whole answers takes one advantage for each, [batch]",
        )),
        _ => Ok(()),
    }
}
