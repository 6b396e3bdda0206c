//! MiniLLM: the reverse KL divergence of whole answers, with the variance of single tokens taken out.
//!
//! In one sentence: the divergence at each position exactly, the effect on later positions by sampling, and
//! answers from a mixture with the teacher.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | (∇L)_Single | `single_step`: [`divergence`](super::divergence::divergence), reverse | `[batch, time]` |
//! | R^Norm_{t+1} | `advantages`: [`reverse_kl_advantages`](super::on_policy::reverse_kl_advantages) after the token | `[batch, time]` |
//! | w_t | `weights`: [`teacher_mixed_weights`] | `[batch, time]` |
//! | p̃ | [`teacher_mixed_log_probs`] | `[…, vocabulary]` |
//! | α | the share of the teacher in p̃; the paper's is 0.2 | number |
//!
//! Read next: [`gkd`](super::gkd), which leaves the later positions out.

use crate::error::{Result, require};
use crate::log_probs::TokenLogProbs;
use crate::math::{log_softmax, masked};
use crate::outputs::TokenLoss;
use crate::shape::Axes;
use candle_core::Tensor;

/// MiniLLM's gradient, as a loss per token.
///
/// # Equation
/// ```text
/// lₜ = wₜ · [ KL( q(·│x, y₍<t₎) ‖ p(·│x, y₍<t₎) ) − Âₜ · log q(yₜ│x, y₍<t₎) ]
/// ```
/// with w and Â constant. Its gradient is the paper's, without the term on pre-training text; its value is no
/// objective.
/// # Shapes
/// `policy` and `single_step` `[batch, time]` with one mask; `advantages` and, if given, `weights`
/// `[batch, time]`. All in one type. Advantages and weights get no gradient.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if they differ.
/// # Properties
/// * With advantages after the token, discount 1, no length normalization, no weights, and answers of the
///   student's own, the expected gradient is that of KL(π_S‖π_T) over whole answers.
/// * `single_step` is the expectation over yₜ of what [`Credit::FromToken`](super::on_policy::Credit) adds
///   for the token itself, so the noise of that part is gone. With advantages from the token on, that part
///   counts twice.
/// * Without advantages (all 0) and weights it is [`gkd_loss`](super::gkd::gkd_loss), reverse.
/// * A position counts if both masks count it; a weight of 0 leaves a position out.
/// # Departures
/// * The paper's gradient holds R from the next token on; the authors' code (LMOps, `losses.py`) and TRL
///   1.14.2 sum from the token itself and add the single step as well.
///   [`Credit`](super::on_policy::Credit) chooses.
/// * The paper divides R by one less than the number of its terms; here it is their number.
/// * The authors clip the ratio to the policy that wrote the answers, times w. For several updates per
///   batch, pass the advantages to [`ppo_policy_loss`](crate::ppo_policy_loss) and add the single step.
/// # Examples
/// ```
/// use candle_align::distillation::minillm::minillm_loss;
/// use candle_align::{TokenLogProbs, TokenLoss};
/// use candle_core::{Device, Tensor};
///
/// let of = |x: [f64; 2]| Tensor::new(&[x], &Device::Cpu);
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let policy = TokenLogProbs::new(&of([-1.0, -2.0])?, &mask)?;
/// let single_step = TokenLoss { loss: of([0.5, 0.25])?, mask };
///
/// let loss = minillm_loss(&policy, &single_step, &of([0.5, 0.0])?, Some(&of([1.0, 2.0])?))?;
/// // 1 · (0.5 + 0.5 · 1) and 2 · (0.25 + 0 · 2)
/// assert_eq!(loss.loss.to_vec2::<f64>()?, [[1.0, 0.5]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The largest weight: it is at most 1/(1 − α), and a batch of small ones means that the teacher wrote most
/// of the tokens.
/// # Try
/// * Enumerate all answers of two tokens and compare the expected gradient with that of the divergence.
///   Solution: `tests/identities/distillation.rs::minillm_is_the_gradient_of_the_divergence_of_answers`.
/// # Source
/// Gu et al. 2023, arXiv:2306.08543v4, section 2.2; authors' code microsoft/LMOps, `minillm/losses.py`.
#[doc(alias = "MiniLLM")]
#[doc(alias = "single-step decomposition")]
pub fn minillm_loss(
    policy: &TokenLogProbs,
    single_step: &TokenLoss,
    advantages: &Tensor,
    weights: Option<&Tensor>,
) -> Result<TokenLoss> {
    let mut axes = Axes::new("minillm_loss");
    let shape = ["batch", "time"];
    let log_q = axes.float("policy", policy.values(), &shape)?;
    let step = axes.float("single_step.loss", &single_step.loss, &shape)?;
    let of_step = axes.mask("single_step.mask", &single_step.mask, &shape)?;
    let advantages = axes.float("advantages", advantages, &shape)?.detach();
    let mask = policy.mask().ne(0u8)?.mul(&of_step.ne(0u8)?)?;
    let weights = match weights {
        Some(weights) => axes.float("weights", weights, &shape)?.detach(),
        None => log_q.ones_like()?.detach(),
    };
    // a weight of 0 leaves a position out, whatever is there
    let weights = masked(&weights, &mask)?;
    let counts = weights.ne(0.0)?;

    // an advantage of 0 needs no log-probability, even one of −∞
    let advantages = masked(&advantages, &counts)?;
    let later = (&advantages * masked(&log_q, &advantages.ne(0.0)?)?)?;
    Ok(TokenLoss {
        loss: ((masked(&step, &counts)? - later)? * weights)?,
        mask,
    })
}

/// wₜ = q(yₜ) / ( (1 − α) q(yₜ) + α p(yₜ) ) of tokens that were drawn from the mixture: constants
/// `[batch, time]`, 0 where the mask does not count.
///
/// It is at most 1/(1 − α). The product over all earlier tokens, which would be exact, is left out, as in
/// the paper.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) unless `teacher` fits the policy's values,
/// [`Error::Parameter`](crate::Error::Parameter) unless α is in [0, 1).
pub fn teacher_mixed_weights(
    policy: &TokenLogProbs,
    teacher: &Tensor,
    alpha: f64,
) -> Result<Tensor> {
    let function = "teacher_mixed_weights";
    in_unit(function, alpha)?;
    let mut axes = Axes::new(function);
    let log_q = axes
        .float("policy", policy.values(), &["batch", "time"])?
        .detach();
    let log_p = axes.float("teacher", teacher, &["batch", "time"])?.detach();
    let ratio = masked(&(log_p - log_q)?, policy.mask())?.exp()?;
    let weights = match alpha == 0.0 {
        true => ratio.ones_like()?,
        false => ((ratio * alpha)? + (1.0 - alpha))?.recip()?,
    };
    masked(&weights, policy.mask())
}

/// log( (1 − α) q + α p ), from which teacher-mixed answers are drawn: `[batch, vocabulary]`, from the logits
/// of both at one position.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if the two differ,
/// [`Error::Parameter`](crate::Error::Parameter) unless α is in [0, 1).
pub fn teacher_mixed_log_probs(student: &Tensor, teacher: &Tensor, alpha: f64) -> Result<Tensor> {
    let function = "teacher_mixed_log_probs";
    in_unit(function, alpha)?;
    let mut axes = Axes::new(function);
    let student = axes.float("student", student, &["batch", "vocabulary"])?;
    let teacher = axes.float("teacher", teacher, &["batch", "vocabulary"])?;
    let of = |x: &Tensor| {
        log_softmax(&x.detach(), None)?
            .exp()
            .map_err(crate::error::Error::from)
    };
    Ok((((of(&student)? * (1.0 - alpha))? + (of(&teacher)? * alpha)?)?).log()?)
}

fn in_unit(function: &'static str, alpha: f64) -> Result<()> {
    let inside = (0.0..1.0).contains(&alpha);
    require(inside, function, "alpha", "in [0, 1)", alpha)
}
