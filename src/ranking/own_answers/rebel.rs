//! REBEL: regress the difference of rewards on the difference of log-ratios (2024, after the survey).
//!
//! In one sentence: a step of reinforcement learning as least squares: the log-ratio to the previous
//! iterate of one answer over another should be η times their difference in reward.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_t) of y, y′ | [`LogRatios`], with the previous iterate as reference | `[batch]` |
//! | r(x, y), r(x, y′) | `rewards` | `[batch]` |
//! | η | [`RebelConfig::eta`] | number |
//!
//! Read next: [`ipo`](crate::ranking::reference::ipo) (a constant in place of the rewards).

use crate::error::{Result, positive};
use crate::log_probs::Pair;
use crate::outputs::PreferenceLoss;
use crate::ranking::LogRatios;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`rebel_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RebelConfig {
    /// η > 0, the size of the step. Default 1, the authors' value for small batches.
    pub eta: f64,
}

impl Default for RebelConfig {
    fn default() -> Self {
        Self { eta: 1.0 }
    }
}

/// The loss of each pair of answers.
///
/// # Equation
/// ```text
/// L = ( ρ_y − ρ_{y′} − η·( r(y) − r(y′) ) )²
/// ```
/// # Shapes
/// `ratios` of [`LogRatios::sums`](crate::ranking::LogRatios::sums). `rewards` `[batch]`, constants. Which
/// of the two answers is called chosen does not matter. The loss is `[batch]`; the rewards beside it are
/// ρ/η.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless η > 0, [`Error::Shape`](crate::Error::Shape) if
/// sizes differ, [`Error::DType`](crate::Error::DType) unless all are f32 or all are f64.
/// # Properties
/// * Solved exactly on pairs that connect all answers it is the mirror step π_{t+1} ∝ π_t · e^{η r}; t
///   steps from π_ref are π_ref · e^{tη r}.
/// * With rewards 1/(2βη) apart it is [`ipo_loss`](crate::ranking::ipo_loss).
/// * Exchanging the two answers changes nothing.
/// # Departures
/// The paper divides by η inside the square: its loss is this one over η², with the same minimum. The
/// authors' code divides logits by a temperature first, which is the caller's choice here.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{LogRatios, RebelConfig, rebel_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let rewards = Pair { chosen: at(1.0)?, rejected: at(0.5)? };
/// let out = rebel_loss(&ratios, &rewards, &RebelConfig { eta: 2.0 })?;
/// assert!((out.loss.to_vec1::<f64>()?[0] - (0.1 - 2.0 * 0.5f64).powi(2)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the residual in nats, √L, against η times the spread of rewards: at the start they are equal,
///   solved it is near 0.
/// # Try
/// * Solve one step on four answers. Solution: `tests/optimum/since.rs::rebel_is_the_mirror_step`.
/// # Source
/// Gao et al. 2024, arXiv:2404.16767; authors' code ZhaolinGao/REBEL.
#[doc(alias = "regression to relative rewards")]
pub fn rebel_loss(
    ratios: &LogRatios,
    rewards: &Pair<Tensor>,
    config: &RebelConfig,
) -> Result<PreferenceLoss> {
    let function = "rebel_loss";
    positive(function, "eta", config.eta)?;
    let mut axes = Axes::new(function);
    axes.pair("ratios", ratios.scores())?;
    let rewards = axes.pair("rewards", rewards)?.detach();

    // ( ρ_y − ρ_{y′} − η·( r(y) − r(y′) ) )²
    let aim = (rewards.margin()? * config.eta)?;
    let missed = (ratios.scores().margin()? - aim)?;
    PreferenceLoss::new(missed.sqr()?, &ratios.rewards(1.0 / config.eta)?)
}
