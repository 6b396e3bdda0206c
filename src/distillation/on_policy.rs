//! On-policy distillation: the teacher's opinion of each sampled token, as an advantage.
//!
//! In one sentence: a token is worth what the teacher's log-probability of it exceeds the student's.
//!
//! | symbol | here | shape |
//! |---|---|---|
//! | log q(yₜ│x, y₍<t₎) | `student`, of the policy that wrote the answers | `[batch, time]` |
//! | log p(yₜ│x, y₍<t₎) | `teacher` | `[batch, time]` |
//! | γ | [`ReverseKlConfig::discount`] | number |
//! | Âₜ | the result | `[batch, time]` |
//!
//! Read next: [`ppo_policy_loss`](crate::ppo_policy_loss), which takes the advantages;
//! [`minillm`](super::minillm), which takes the expectation over the token itself.

use crate::error::{Result, require};
use crate::log_probs::TokenLogProbs;
use crate::math::to_host;
use crate::shape::Axes;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

/// Which tokens an action answers for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credit {
    /// The token itself and the later ones.
    #[default]
    FromToken,
    /// The later ones, where another term has the token itself.
    AfterToken,
}

/// Settings of [`reverse_kl_advantages`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReverseKlConfig {
    /// γ in [0, 1]. Default 0, the value of the report on on-policy distillation: a token answers for
    /// itself alone. MiniLLM's is 1.
    pub discount: f64,
    /// Whether the sum is divided by Σ γⁱ of its terms. Default false; MiniLLM does so.
    pub length_normalization: bool,
    /// Default [`Credit::FromToken`].
    pub credit: Credit,
}

/// The advantage of each sampled token under the reverse KL divergence to a teacher.
///
/// # Equation
/// ```text
/// rₜ = log p(yₜ│x, y₍<t₎) − log q(yₜ│x, y₍<t₎)
/// Âₜ = Σ_{i≥t} γ^{i−t} rᵢ                                   Credit::FromToken
/// Âₜ = Σ_{i>t} γ^{i−t−1} rᵢ                                 Credit::AfterToken
/// ```
/// With [`ReverseKlConfig::length_normalization`] each is divided by the same sum over ones; after the
/// last token it is 0.
/// # Shapes
/// `student` `[batch, time]` with the mask of the answers; `teacher` `[batch, time]` in the same type. The
/// result is `[batch, time]`, 0 where the mask does not count. It is a constant: neither argument gets a
/// gradient. It runs on the host.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) unless `teacher` fits the student's values,
/// [`Error::Parameter`](crate::Error::Parameter) unless γ is in [0, 1].
/// # Properties
/// * With γ = 1 and no normalization, Σₜ Âₜ ∇ log q(yₜ) is on average −∇KL(q‖p) over whole answers.
/// * With γ = 0 it is on average the sum of −∇KL(q(·│x, y₍<t₎)‖p(·│x, y₍<t₎)) over positions. That lacks the
///   effect of a token on the divergences after it, and has less variance.
/// * The advantage depends on the token that was drawn. A number that does not, such as the divergence at
///   the position over any set of symbols, has on average no gradient as an advantage.
/// * Positions that do not count may be anywhere; they add no term and no discount.
/// # Departures
/// * The student's log-probability is detached. Without that, −Âₜ log q(yₜ) as a loss has another gradient.
/// * From MiniLLM in TRL 1.14.2: it detaches nothing, counts padding, and without length normalization
///   weighs the later rewards by γⁱ instead of γ^{i−t}.
/// * MiniLLM's authors' code whitens the advantages: [`whiten`](crate::math::whiten).
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::distillation::on_policy::{ReverseKlConfig, reverse_kl_advantages};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1, 0]], &Device::Cpu)?;
/// let student = TokenLogProbs::new(&Tensor::new(&[[-1.0f64, -2.0, 0.0]], &Device::Cpu)?, &mask)?;
/// let teacher = Tensor::new(&[[-0.5f64, -2.25, f64::NAN]], &Device::Cpu)?;
///
/// let each = reverse_kl_advantages(&student, &teacher, &ReverseKlConfig::default())?;
/// assert_eq!(each.to_vec2::<f64>()?, [[0.5, -0.25, 0.0]]);
/// let config = ReverseKlConfig { discount: 1.0, ..Default::default() };
/// let sums = reverse_kl_advantages(&student, &teacher, &config)?;
/// assert_eq!(sums.to_vec2::<f64>()?, [[0.25, -0.25, 0.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The mean of −r over sampled tokens is an estimate of the reverse KL per token: it should fall, and is
/// not clearly negative unless the answers come from another policy.
/// # Try
/// * Use the divergence over the top k as an advantage and watch the mean gradient. Solution:
///   `tests/identities/slips_distillation.rs::a_divergence_as_an_advantage_has_no_mean_gradient`.
/// # Source
/// Agarwal et al. 2023, arXiv:2306.13649v3, and Gu et al. 2023, arXiv:2306.08543v4, section 2.2, for whole
/// answers; γ = 0 with an importance ratio: Lu et al. 2025, "On-Policy Distillation" (a web page,
/// thinkingmachines.ai/blog/on-policy-distillation).
#[doc(alias = "on-policy distillation")]
#[doc(alias = "OPD")]
#[doc(alias = "reverse KL")]
pub fn reverse_kl_advantages(
    student: &TokenLogProbs,
    teacher: &Tensor,
    config: &ReverseKlConfig,
) -> Result<Tensor> {
    let function = "reverse_kl_advantages";
    let gamma = config.discount;
    let inside = (0.0..=1.0).contains(&gamma);
    require(inside, function, "discount", "in [0, 1]", gamma)?;
    let mut axes = Axes::new(function);
    let values = axes.float("student", student.values(), &["batch", "time"])?;
    let teacher = axes.float("teacher", teacher, &["batch", "time"])?;
    let host =
        |x: &Tensor| to_host::<f64>(&x.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?);
    let (log_q, log_p) = (host(&values)?, host(&teacher)?);
    let counts = to_host::<u8>(student.mask())?;

    let time = values.dim(1)?;
    let mut advantages = vec![0.0; counts.len()];
    for row in 0..values.dim(0)? {
        // Σ γ^{i−t} rᵢ and Σ γ^{i−t} over the tokens from the next one on
        let (mut later, mut ones) = (0.0, 0.0);
        for at in (row * time..(row + 1) * time).rev() {
            if counts[at] == 0 {
                continue;
            }
            let reward = log_p[at] - log_q[at];
            // a later reward without weight is left out, even one of −∞
            let rest = if gamma == 0.0 { 0.0 } else { gamma * later };
            let (sum, count) = match config.credit {
                Credit::FromToken => (reward + rest, 1.0 + gamma * ones),
                Credit::AfterToken => (later, ones),
            };
            advantages[at] = match config.length_normalization && count > 0.0 {
                true => sum / count,
                false => sum,
            };
            (later, ones) = (reward + rest, 1.0 + gamma * ones);
        }
    }
    let advantages = Tensor::from_vec(advantages, values.shape(), &Device::Cpu)?;
    Ok(advantages
        .to_dtype(values.dtype())?
        .to_device(values.device())?)
}
