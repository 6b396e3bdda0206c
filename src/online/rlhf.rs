//! Reinforcement learning from human feedback: the loss of a minibatch, and the loop around it
//! (survey §3.1).
//!
//! In one sentence: draw answers, score them, turn the scores less the KL into advantages, and take a
//! few clipped steps with the policy and the critic before drawing again.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ(yₜ│x, y₍<t₎), V_θ(sₜ) | `new`, `values` | `[batch, time]` |
//! | log π_old, V_old, Âₜ, R̂ₜ | [`Experience`] | `[batch, time]` |
//! | c_V | [`RlhfConfig::value_weight`] | number |
//! | c_H, Hₜ | [`RlhfConfig::entropy`], [`RlhfLoss::entropy`] | number, `[batch, time]` |
//! | L | [`RlhfLoss::loss`], reduced by the caller | scalar |
//!
//! # The loop
//!
//! | step | who | what is easy to get wrong |
//! |---|---|---|
//! | answers, log π_old, log π_ref, V_old | the caller, [`sample`](crate::sample) | the same temperature for drawing and for log-probabilities; dropout off; the mask tells padding from the end token |
//! | scores | the caller, [`RewardHead`](crate::online::reward_head::RewardHead) | read at the last token; normalized on answers of the reference ([`RewardNormalization`](crate::online::reward_head::RewardNormalization)) |
//! | rewards, advantages | [`Rollout::experience`](crate::Rollout::experience) | see the comments there |
//! | minibatches | [`Experience::minibatches`] | a new order in every epoch; none dropped |
//! | log π_θ, V_θ of a minibatch | the caller | the same code as for π_old |
//! | the loss | [`rlhf_loss`], [`ptx_loss`](crate::ptx_loss) beside it for PPO-ptx | see the comments there |
//! | one number | [`TokenLoss::reduce`] | the divisor: see *Properties* of [`rlhf_loss`] |
//! | the update | the caller, [`AdamW`](crate::training::AdamW) | after every minibatch, not after every epoch |
//! | β of the next batch | [`KlController`](crate::online::controller::KlController), from [`Experience::mean_kl`] | once per batch, in nats per answer |
//!
//! Values in the papers and the authors' code: InstructGPT has 512 answers, 8 minibatches and one epoch;
//! lm-human-preferences has 64 answers, one minibatch and 4 epochs.
//!
//! # What the KL estimators do
//!
//! With x = log π_ref − log π at a draw from π there are three estimates of KL(π‖π_ref). Each has one
//! effect as a loss ([`kl_loss`](crate::kl_loss), where its slope matters) and another as a reward
//! ([`ShapedRewardsConfig`](crate::ShapedRewardsConfig), where its value matters, times ∇ log π):
//!
//! | | as a loss | training ends at | as a reward | training ends at |
//! |---|---|---|---|---|
//! | k₁ = −x | E∇ = 0 | the best answer alone | ∇KL(π‖π_ref) | π* ∝ π_ref e^{r/β} |
//! | k₂ = x²/2 | ∇KL(π‖π_ref) | π* | no gradient of a KL | some answers at 0, even at a large β |
//! | k₃ = eˣ − 1 − x | ∇KL(π_ref‖π) | πᵢ = β π_ref,ᵢ / (λ − rᵢ) | ∇KL(π‖π_ref) − ∇KL(π_ref‖π) | some answers at 0, even at a large β |
//!
//! * k₃ as a loss is the other direction. It leads to the maximum of E r − β KL(π_ref‖π), which is a
//!   polynomial in the rewards where π* is an exponential. Four answers with π_ref = (0.4, 0.3, 0.2, 0.1), rewards
//!   (0, 1, ½, 2) and β = ½ give (0.097, 0.140, 0.064, 0.700) instead of (0.046, 0.257, 0.063, 0.633).
//! * k₂ and k₃ as rewards do not hold the policy near the reference, where both are x²/2 and their pull is
//!   of second order. Where an answer has become rarer than in the reference, they grow, charge it for
//!   being rare, and make it rarer. On the same four answers, at β = 2, k₂ ends at (0, 0.647, 0, 0.353).
//! * k₁ clamped at 0 from below charges an answer for being more likely than in the reference and pays
//!   nothing for being less likely. It fills up to a level c: π = π_ref e^{(r − c)/β} where r > c, 0 where
//!   r < c, and the rest where r = c. On the same four answers, at β = ½, it ends at (0, 0.261, 0, 0.739).
//! * The loss of one token sees the KL of that token, not of the tokens that follow from it. With k₂ as a
//!   loss per token, training ends where π(a│s) ∝ π_ref(a│s) e^{Q(s, a)/β}, with Q the plain expected score
//!   of that policy, and not at π*. In a reward there is no such gap, because the advantages sum the KL of
//!   later tokens.
//!
//! # What whitening does to β
//!
//! * **The mean of advantages.** Subtracting a constant does not change the expected gradient. Subtracting
//!   the mean of n answers, the answer itself included, multiplies it by 1 − 1/n: a half for two.
//! * **The deviation of advantages**, KL in the reward. Every advantage is multiplied by one number, so
//!   β keeps its meaning and π* stays the fixed point. But near π* all advantages are small, and so is
//!   their deviation. Their quotient is not small, so the step keeps its length. With a learning rate that
//!   does not fall, training ends in a walk around π* as wide as the rate, not at π*.
//! * **The deviation of scores**, KL outside the reward. The price of a nat is β·s, with s the deviation
//!   of the score under the current policy. The fixed point is π ∝ π_ref e^{r/(βs)} with its own s.
//!   Ten times the rewards change nothing. As the policy sharpens, s falls, and the price falls with it. On
//!   the four answers there are two such points, which meet in a fold at β = 0.7704 (s = 0.526). At β = 1
//!   one has s = 0.709, and training converges to it. The other has s = 0.248 and gives the best answer
//!   0.944, and training moves away from it. A policy sharper than the second point ends at the best answer
//!   alone, in spite of the KL. Below the fold every policy does.
//! * **The deviation of rewards**, KL in the reward. Score and KL are divided by the same number, so β keeps
//!   its meaning. But [`Whiten::KeepMean`](crate::math::Whiten::KeepMean) adds μ(1 − 1/s) to every token,
//!   which rewards or penalizes length ([`Rollout::experience`](crate::Rollout::experience)).
//! * **Scores of 0 and 1**, whitened within the answers to one prompt. The gradient is that of
//!   2 arcsin √p, with p the probability of success. Rare successes and rare failures weigh more.
//!
//! Read next: [`crate::online::rollout`], where advantages come from; [`crate::online::ppo`], the two
//! clipped losses; [`crate::ranking::dpo`], the same optimum without drawing answers.

use super::auxiliary::{EntropyConfig, entropy_loss};
use super::ppo::{PolicyLoss, PolicyMetrics, PpoConfig, PpoValueConfig};
use super::ppo::{ppo_policy_loss, ppo_value_loss};
use super::rollout::{Experience, ExperienceConfig};
use crate::error::{Error, Result, non_negative};
use crate::log_probs::TokenLogProbs;
use crate::math::{masked, weighted};
use crate::outputs::TokenLoss;
use crate::reduction::Reduction;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of one training step: of [`Rollout::experience`](crate::Rollout::experience) and of
/// [`rlhf_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RlhfConfig {
    /// From scores to advantages.
    pub experience: ExperienceConfig,
    /// The policy's clipped loss.
    pub policy: PpoConfig,
    /// The critic's clipped loss.
    pub value: PpoValueConfig,
    /// c_V ≥ 0. Default 0.1, the value of lm-human-preferences. At 0 the critic gets no gradient.
    pub value_weight: f64,
    /// The entropy bonus. Default none, as in the papers on language models.
    pub entropy: Option<EntropyConfig>,
}

impl Default for RlhfConfig {
    fn default() -> Self {
        Self {
            experience: ExperienceConfig::default(),
            policy: PpoConfig::default(),
            value: PpoValueConfig::default(),
            value_weight: 0.1,
            entropy: None,
        }
    }
}

/// What [`rlhf_loss`] returns.
#[derive(Clone, Debug)]
pub struct RlhfLoss {
    /// The sum of all parts, of each token.
    pub loss: TokenLoss,
    /// The policy's part, with its ratios.
    pub policy: PolicyLoss,
    /// The critic's part, before its weight.
    pub value: TokenLoss,
    /// Hₜ `[batch, time]`, detached, if `new` was computed with [`Statistics::entropy`](crate::Statistics).
    pub entropy: Option<Tensor>,
}

/// Means over the counted tokens of a minibatch: detached scalars.
#[derive(Clone, Debug)]
pub struct RlhfMetrics {
    /// All parts together.
    pub loss: Tensor,
    /// The policy's part. With advantages of mean 0 it is 0 on the whole batch before the first step,
    /// however much there is to learn.
    pub policy_loss: Tensor,
    /// The critic's part, before its weight.
    pub value_loss: Tensor,
    /// The mean entropy, where it was computed.
    pub entropy: Option<Tensor>,
    /// Ratio, clip fraction, and KL(π_old‖π_θ).
    pub policy: PolicyMetrics,
}

impl RlhfLoss {
    /// The means over the tokens that count, or 0 if none does.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn metrics(&self) -> Result<RlhfMetrics> {
        // padding is left out: it would pull each mean towards 0 by the share of padding
        let mean = |x: &Tensor| Reduction::TokenMean.apply(&x.detach(), &self.loss.mask);
        Ok(RlhfMetrics {
            loss: mean(&self.loss.loss)?,
            policy_loss: mean(&self.policy.loss.loss)?,
            value_loss: mean(&self.value.loss)?,
            entropy: self.entropy.as_ref().map(mean).transpose()?,
            policy: self.policy.metrics()?,
        })
    }
}

/// The loss of each token of a minibatch: policy, critic and entropy.
///
/// # Equation
/// ```text
/// ρₜ = π_θ(yₜ│x, y₍<t₎) / π_old(yₜ│x, y₍<t₎)
/// lₜ = max( −Âₜ ρₜ, −Âₜ · clip(ρₜ, 1 − ε, 1 + ε) )
///    + c_V · ½ · max( (Vₜ − R̂ₜ)², (V_clip − R̂ₜ)² )
///    − c_H · Hₜ
/// ```
/// The three lines are [`ppo_policy_loss`],
/// [`ppo_value_loss`] and [`entropy_loss`].
/// # Shapes
/// `new`, `values` and everything in `experience` are `[batch, time]`. So are the losses, with the mask of
/// the experience. If the experience counts a token and the mask of `new` does not, that token has no
/// log-probability. Its loss is NaN rather than a number that looks right.
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] if the shapes or types differ; [`Error::Parameter`] unless
/// c_V is finite and not negative, and for the settings of the parts;
/// [`Error::Argument`] if an entropy bonus is set and `new` was
/// computed without [`Statistics::entropy`](crate::Statistics).
/// # Properties
/// * At ρ = 1, the first step on a rollout, ∂lₜ/∂ log π_θ(yₜ) = −Âₜ. Without whitening, with
///   γ = λ = 1 and V = 0, Âₜ is the score less β times the log-ratio of token t and all later ones. The
///   expected gradient is then that of −E r + β KL(π‖π_ref).
/// * Minibatches whose gradients are added up before a step are equivalent to one batch, if each is
///   divided by the count of all: `loss.reduce(reduction.over(count))`. With a step after each minibatch,
///   as in PPO, [`Reduction::TokenMean`] gives a token more weight the fewer tokens its minibatch has. A
///   fixed [`Reduction::SumOver`] does not.
/// * Steps on fresh draws without advantage whitening lead to π* ∝ π_ref · e^{r/β}.
/// * The gradient in the values is c_V times that of the critic's loss alone. The gradient in the
///   log-probabilities does not depend on the values of the minibatch.
/// # Departures
/// None from the authors' loss, except for padding, which it does not handle, and for what the pages of
/// the parts list. Advantages are computed once per rollout, not here
/// ([`Rollout::experience`](crate::Rollout::experience)). The survey describes the step in words.
/// # Examples
/// The whole loop, on answers of two tokens over three symbols, whose best policy is known:
/// ```
/// use candle_align::online::controller::KlController;
/// use candle_align::*;
/// use candle_core::{DType, Device, Tensor, Var};
/// use candle_nn::ops::log_softmax;
/// use rand::{Rng, SeedableRng, rngs::StdRng};
///
/// let cpu = &Device::Cpu;
/// let mut rng = StdRng::seed_from_u64(5);
/// let (batch, beta) = (256, 0.5);
/// let worth = [[0.0f64, 1.0, 0.5], [0.3, 0.0, 1.2]]; // of symbol v at position t
/// let start = Tensor::new(&[[1.0f64, 0.0, 0.5], [0.0, 0.5, -1.0]], cpu)?;
/// let (policy, critic) = (Var::from_tensor(&start)?, Var::zeros((1, 2), DType::F64, cpu)?);
/// let log_probs = |logits: &Tensor, tokens: &Tensor| {
///     let rows = logits.broadcast_left(tokens.dim(0)?)?;
///     TokenLogProbs::aligned(&rows, tokens, &tokens.ones_like()?.to_dtype(DType::U8)?, Statistics::default())
/// };
/// let mut config = RlhfConfig::default();
/// config.experience.reward_whitening = None;
/// config.experience.rewards.beta = beta;
/// let mut controller = KlController::Fixed { beta };
///
/// for _ in 0..60 {
///     // draw, and measure
///     let p = log_softmax(&policy, 1)?.exp()?.to_vec2::<f64>()?;
///     let (mut drawn, mut scores) = (Vec::new(), Vec::new());
///     for _ in 0..batch {
///         let answer = [0, 1].map(|t| {
///             let u: f64 = rng.random();
///             if u < p[t][0] { 0 } else if u < p[t][0] + p[t][1] { 1 } else { 2 }
///         });
///         scores.push(worth[0][answer[0]] + worth[1][answer[1]]);
///         drawn.extend(answer.map(|v| v as u32));
///     }
///     let tokens = Tensor::from_vec(drawn, (batch, 2), cpu)?;
///     let rollout = Rollout {
///         old: log_probs(&policy, &tokens)?.detach(),
///         reference: log_probs(&start, &tokens)?.values().clone(),
///         values: critic.broadcast_as((batch, 2))?.detach(),
///         scores: Tensor::from_vec(scores, batch, cpu)?,
///         ended: None,
///     };
///     // once per batch
///     config.experience.rewards.beta = controller.beta();
///     let experience = rollout.experience(&config.experience)?;
///     for _epoch in 0..2 {
///         for rows in experience.minibatches(64, &mut rng)? {
///             // the policy as it is now, on the same rows
///             let minibatch = experience.rows(&rows)?;
///             let new = log_probs(&policy, &tokens.index_select(&rows, 0)?)?;
///             let values = critic.broadcast_as((rows.elem_count(), 2))?;
///             let out = rlhf_loss(&new, &values, &minibatch, &config)?;
///             let grads = out.loss.reduce(Reduction::TokenMean)?.backward()?;
///             for (var, rate) in [(&policy, 0.15), (&critic, 10.0)] {
///                 var.set(&(var.as_tensor() - (grads.get(var).unwrap() * rate)?)?)?;
///             }
///         }
///     }
///     controller = controller.update(experience.mean_kl()?, experience.len())?;
/// }
///
/// // π* ∝ π_ref · e^{r/β}, position by position as the scores add up
/// let best = log_softmax(&(start + (Tensor::new(&worth, cpu)? / beta)?)?, 1)?.exp()?;
/// let reached = log_softmax(&policy, 1)?.exp()?;
/// let gap = (reached - best)?.abs()?.max_all()?.to_scalar::<f64>()?;
/// assert!(gap < 0.05, "{gap}");
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// [`RlhfLoss::metrics`], with the mean score and [`Experience::mean_kl`] of each rollout:
/// * Score and KL show progress; `policy_loss` does not. A score that rises with a KL that runs away is
///   reward hacking: read some answers, raise β, or stop earlier.
/// * In the first minibatch `policy.ratio` is 1 and `policy.clip_fraction` is 0. Otherwise π_old and π_θ
///   were computed in different ways.
/// * `entropy` that falls to 0 means that the policy repeats one answer.
/// * `value_loss` above half the variance of the returns means that the critic is worse than a constant.
/// # Try
/// * Change where the estimate of the KL enters, and predict the policy at the end. Solution:
///   `cargo run --example rlhf`.
/// * Leave advantage whitening on and keep the learning rate fixed. How far from π* does training end?
///   Solution: `tests/optimum/rollout.rs::whitened_advantages_walk_around_the_optimum_as_far_as_the_rate_is_large`.
/// # Source
/// Ouyang et al. 2022, arXiv:2203.02155v1, eq. 2 and appendix C.4; Schulman et al. 2017,
/// arXiv:1707.06347v2, eq. 9; authors' code openai/lm-human-preferences, `train_policy.py`,
/// `PPOTrainer.loss`.
///
/// [`Error::Shape`]: crate::Error::Shape
/// [`Error::DType`]: crate::Error::DType
/// [`Error::Parameter`]: crate::Error::Parameter
/// [`Error::Argument`]: crate::Error::Argument
#[doc(alias = "RLHF")]
#[doc(alias = "PPO")]
pub fn rlhf_loss(
    new: &TokenLogProbs,
    values: &Tensor,
    experience: &Experience,
    config: &RlhfConfig,
) -> Result<RlhfLoss> {
    let function = "rlhf_loss";
    non_negative(function, "value_weight", config.value_weight)?;
    let mut axes = Axes::new(function);
    axes.float("new", new.values(), &["batch", "time"])?;
    let values = axes.float("values", values, &["batch", "time"])?;
    for (name, x) in [
        ("experience.old", &experience.old),
        ("experience.old_values", &experience.old_values),
        ("experience.advantages", &experience.advantages),
        ("experience.returns", &experience.returns),
    ] {
        axes.float(name, x, &["batch", "time"])?;
    }
    let mask = &axes.mask("experience.mask", &experience.mask, &["batch", "time"])?;
    if config.entropy.is_some() && new.entropy().is_none() {
        let problem = "was computed without Statistics::entropy, which entropy needs";
        return Err(Error::argument(function, "new", problem));
    }

    // log π_θ, under the rollout's mask: no token may drop out of the loss but stay in its divisor
    let none = new.values().zeros_like()?.affine(0.0, f64::NAN)?;
    let of_rollout = new.mask().where_cond(new.values(), &none)?;
    let of_rollout = TokenLogProbs::new(&of_rollout, mask)?;

    // max( −Âρ, −Â clip(ρ) ): the ratio of each token, never of the sum over an answer
    let policy = ppo_policy_loss(
        &of_rollout,
        &experience.old,
        &experience.advantages,
        &config.policy,
    )?;

    // + c_V · ½ max( (V − R̂)², (V_clip − R̂)² ): R̂ is that of the rollout in every epoch
    let value = ppo_value_loss(
        &values,
        &experience.old_values,
        &experience.returns,
        mask,
        &config.value,
    )?;
    let mut loss = (&policy.loss.loss + weighted(&value.loss, config.value_weight)?)?;

    // − c_H · Hₜ
    if let Some(config) = &config.entropy {
        loss = (loss + masked(&entropy_loss(new, config)?.loss, mask)?)?;
    }
    let entropy = new.entropy().map(|h| masked(&h.detach(), mask));
    Ok(RlhfLoss {
        loss: TokenLoss {
            loss,
            mask: mask.clone(),
        },
        policy,
        value,
        entropy: entropy.transpose()?,
    })
}
