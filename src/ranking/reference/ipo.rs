//! IPO: a squared loss that stops at a fixed margin (2023, after the survey).
//!
//! In one sentence: instead of pushing the margin up for ever, as DPO does on labels without noise, ask
//! for one fixed margin, 1/(2β).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios`] | `[batch]` |
//! | τ | [`IpoConfig::beta`] | number |
//!
//! Read next: [`crate::ranking::dpo`], [`sppo`](super::sppo) (the same square for each answer alone).

use super::LogRatios;
use crate::error::{Result, positive};
use crate::outputs::PreferenceLoss;
use serde::{Deserialize, Serialize};

/// Settings of [`ipo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IpoConfig {
    /// β > 0, called τ in the paper: the margin asked for is 1/(2β) nats. Default 0.1, the value of DPO
    /// and of TRL; the paper leaves it free.
    #[doc(alias = "tau")]
    pub beta: f64,
}

impl Default for IpoConfig {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = ( ρ_w − ρ_l − 1/(2β) )²
/// ```
/// # Shapes
/// `ratios` holds `[batch]`: sums, scores of another divergence, or means per token. The loss and the
/// rewards β · ρ are `[batch]`. Over sums this is the paper's loss. Over means ([`LogRatios::per_token`])
/// it is the loss of TRL, which asks for 1/(2β) nats per token.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0.
/// # Properties
/// * ∂L/∂ρ_w = 2(ρ_w − ρ_l − 1/(2β)) = −∂L/∂ρ_l, which is −1/β at the first step. The slope is 0 at the
///   margin asked for and turns round beyond it.
/// * If all pairs of answers are compared equally often, the optimum is log(π/π_ref) = w̄ᵢ/β + c, where
///   w̄ᵢ is the share of the answers that i beats (itself by half). It depends on the labels only through
///   win rates and is finite even for labels without noise.
/// * The slope grows with the distance: one outlier pulls without a bound, where DPO's slope is at most β.
/// # Departures
/// * Sums and means are both in use. The authors told the maintainers of TRL (trl#1677) that their results
///   are with means, although π(y│x) in the paper is a product over tokens. TRL's DPO trainer, HALOs and
///   LLaMA-Factory divide by lengths; TRL's online trainer and OpenRLHF do not. Here the caller says
///   which.
/// * HALOs counts as length the tokens whose log-ratio is not 0, so that its first step is 0/0.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{IpoConfig, LogRatios, ipo_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let out = ipo_loss(&ratios, &IpoConfig { beta: 0.5 })?;
/// assert!((out.loss.to_vec1::<f64>()?[0] - (0.1f64 - 1.0).powi(2)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the mean of `ratios.scores().margin()`, in nats: it should settle near 1/(2β), or below it
///   where labels disagree.
/// * A loss of 1/(4β²) at the first step is right, 25 for β = 0.1: it says nothing about the model.
/// # Try
/// * Label every pair of four answers without noise. Where does the policy stop? Solution:
///   `tests/optimum/since.rs::ipo_learns_win_rates_even_from_labels_without_noise`.
/// # Source
/// Azar et al. 2023, arXiv:2310.12036v2, eq. 17; lengths: huggingface/trl, `trainer/dpo_trainer.py` of
/// release 1.16.0.
#[doc(alias = "identity preference optimization")]
pub fn ipo_loss(ratios: &LogRatios, config: &IpoConfig) -> Result<PreferenceLoss> {
    positive("ipo_loss", "beta", config.beta)?;

    // ( ρ_w − ρ_l − 1/(2β) )²
    let short = (ratios.scores().margin()? - 0.5 / config.beta)?;
    PreferenceLoss::new(short.sqr()?, &ratios.rewards(config.beta)?)
}
