//! Direct preference optimization: learn from pairs without a reward model (survey §3.2.1, Eq. 2).
//!
//! In one sentence: classify which answer was preferred, where an answer's score is how far the policy
//! has moved from the reference on it.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ(y_w│x), log π_θ(y_l│x) | `policy.chosen`, `policy.rejected`: sums over tokens | `[batch]` |
//! | log π_ref(y_w│x), log π_ref(y_l│x) | `reference.chosen`, `reference.rejected` | `[batch]` |
//! | β | [`DpoConfig::beta`] | number |
//! | r̂(x, y) | [`PreferenceLoss::rewards`] | `[batch]` |
//!
//! Read next: [`slic`](super::slic) (the same pairs under a hinge), [`pro`](super::pro) (more than two answers),
//! [`reward_model`](crate::online::reward_model) (the same loss on scores).

use crate::error::{Result, positive, require};
use crate::log_probs::Pair;
use crate::math::smoothed_logistic;
use crate::outputs::PreferenceLoss;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`dpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DpoConfig {
    /// β > 0, how strongly the policy is tied to the reference. Default 0.1, the paper's value for
    /// everything except summarization, where it is 0.5.
    #[doc(alias = "KL penalty")]
    #[doc(alias = "temperature")]
    pub beta: f64,
    /// ε in [0, ½): the share of labels assumed to be flipped. Default 0, the paper's loss. Above 0 it
    /// is the loss known as conservative DPO.
    #[doc(alias = "cDPO")]
    #[doc(alias = "conservative DPO")]
    pub label_smoothing: f64,
}

impl Default for DpoConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            label_smoothing: 0.0,
        }
    }
}

/// The loss of each pair, and the implicit rewards behind it.
///
/// # Equation
/// ```text
/// r̂(x, y) = β · ( log π_θ(y│x) − log π_ref(y│x) )
/// L = −(1 − ε) · log σ( r̂(x, y_w) − r̂(x, y_l) ) − ε · log σ( r̂(x, y_l) − r̂(x, y_w) )
/// ```
/// With ε = 0 this is the paper's eq. 7.
/// # Shapes
/// All inputs `[batch]`: sums of token log-probabilities ([`TokenLogProbs::sum`]). The loss and both
/// rewards are `[batch]`. `reference: None` is the reference-free form, log π_ref ≡ 0.
/// # Errors
/// [`Error::Shape`] if sizes differ, [`Error::DType`] unless all are f32 or f64 alike,
/// [`Error::Parameter`] unless β > 0 and 0 ≤ ε < ½. No value of a log-probability is an error.
/// # Properties
/// * At the first step policy and reference agree: L = ln 2 and ∂L/∂ log π_θ(y_w) = −β(½ − ε).
/// * ∂L/∂ log π_θ(y_w) = −∂L/∂ log π_θ(y_l): adding the same number to both log-probabilities of the
///   policy, or of the reference, changes nothing.
/// * β = 1 without a reference is
///   [`pairwise_reward_loss`](crate::pairwise_reward_loss) on the log-probabilities.
/// * With Bradley–Terry labels on pairs that connect all answers, the only optimum is
///   π* ∝ π_ref · e^{r/β}, that of reinforcement learning with a KL penalty. This does not hold for an
///   answer that is in no pair: it can lose mass although it is the best.
/// * Labels without noise have no optimum. Under N steps of gradient descent of size α, the loss of a
///   single pair falls towards 0 like 1/(2β²αN), and the KL to the reference grows towards
///   −log π_ref(best) for every β. With ε > 0 the margin stops at log((1 − ε)/ε) for every β.
/// * Means over tokens in place of sums tilt the optimum by length, π ∝ π_ref · e^{|y|(r + c)/β}: a
///   long answer gains where r + c > 0 and loses where r + c < 0.
/// * A chosen answer that the policy finds impossible (−∞) costs +∞ with the steepest slope there is,
///   −β(1 − ε). An impossible rejected one costs 0, or +∞ with ε > 0. If both are impossible there is no
///   margin: NaN.
/// # Departures
/// * None from the paper's eq. 7. The survey's Eq. 2 has neither the minus sign nor the expectation, so
///   as printed it is a quantity to maximize; it also writes π_SFT for π_ref.
/// * Label smoothing and the reference-free form are options of the authors' code; both are off by
///   default.
/// * Neither loss of TRL 1.16 equals this one for ε > 0. Its `sigmoid` silently ignores
///   `label_smoothing`. Its `robust` is \[−(1 − ε) log σ(z) + ε log σ(−z)\]/(1 − 2ε) of the same margin z:
///   the second term has the other sign.
/// # Examples
/// ```
/// use candle_align::{DpoConfig, Pair, dpo_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
///
/// let out = dpo_loss(&policy, Some(&reference), &DpoConfig { beta: 0.5, ..Default::default() })?;
/// // r̂_w = 0.5 · (−0.4), r̂_l = 0.5 · (−0.5): a margin of 0.05
/// let loss = out.loss.to_vec1::<f64>()?[0];
/// assert!((loss - (1.0 + (-0.05f64).exp()).ln()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch `out.rewards.accuracy()` and the mean of `out.rewards.margin()`. Where the policy starts as the
///   reference, the first step has accuracy ½ (every pair is a tie), margin 0 and loss ln 2; other values
///   mean that the reference is not the start.
/// * Watch both log-probabilities, not only their difference. If log π_θ(y_w) and log π_θ(y_l) fall while
///   the margin grows, mass is moving to answers that are in no pair.
/// * If the margin on training pairs keeps growing while accuracy on held-out pairs does not, labels
///   without noise are driving the policy away from the reference: stop earlier, or set ε > 0.
/// # Try
/// * Leave the best answer out of every pair and predict its probability after training. Solution:
///   `cargo run --example dpo`, and `tests/optimum/dpo.rs::an_answer_in_no_pair_loses_mass_although_it_is_the_best`.
/// * Train on a single pair with ε = 0.1. Where does the margin stop, and does β matter? Solution:
///   `tests/optimum/dpo.rs::smoothing_stops_the_margin_of_a_lone_pair_whatever_beta`.
/// # Source
/// Rafailov et al. 2023, arXiv:2305.18290v2, eq. 7; authors' code eric-mitchell/direct-preference-optimization,
/// `trainers.py`, `preference_loss`.
///
/// [`TokenLogProbs::sum`]: crate::TokenLogProbs::sum
/// [`Error::Shape`]: crate::Error::Shape
/// [`Error::DType`]: crate::Error::DType
/// [`Error::Parameter`]: crate::Error::Parameter
#[doc(alias = "direct preference optimization")]
#[doc(alias = "sigmoid loss")]
#[doc(alias = "implicit reward")]
pub fn dpo_loss(
    policy: &Pair<Tensor>,
    reference: Option<&Pair<Tensor>>,
    config: &DpoConfig,
) -> Result<PreferenceLoss> {
    let function = "dpo_loss";
    let (beta, epsilon) = (config.beta, config.label_smoothing);
    positive(function, "beta", beta)?;
    require(
        (0.0..0.5).contains(&epsilon),
        function,
        "label_smoothing",
        "in [0, 0.5)",
        epsilon,
    )?;
    let mut axes = Axes::new(function);
    let policy = axes.pair("policy", policy)?;

    // r̂(x, y) = β · ( log π_θ(y│x) − log π_ref(y│x) )
    let rewards = match reference {
        Some(reference) => {
            let reference = axes.pair("reference", reference)?.detach();
            Pair {
                chosen: ((policy.chosen - reference.chosen)? * beta)?,
                rejected: ((policy.rejected - reference.rejected)? * beta)?,
            }
        }
        None => Pair {
            chosen: (&policy.chosen * beta)?,
            rejected: (&policy.rejected * beta)?,
        },
    };
    let margin = rewards.margin()?;

    // −(1 − ε) · log σ( r̂_w − r̂_l ) − ε · log σ( r̂_l − r̂_w )
    PreferenceLoss::new(smoothed_logistic(&margin, epsilon)?, &rewards)
}
