//! Generalized knowledge distillation: learn a teacher's whole next-token distributions, on any answers.
//!
//! In one sentence: the divergence between teacher and student at every answer token, on given answers or
//! on the student's own.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | p_S, p_T | `student`, `teacher`: logits, or hidden states and their output layers | `[batch, time, vocabulary]` |
//! | D | [`DivergenceConfig::direction`] | – |
//! | L_y, the mean over an answer's tokens | [`Reduction`](crate::Reduction) | scalar |
//! | λ, the share of own answers | which rows the caller passes | – |
//!
//! Read next: [`divergence`](mod@super::divergence), the number behind it; [`on_policy`](super::on_policy), which
//! needs the teacher's probability of the sampled token alone.

use super::divergence::{DivergenceConfig, checked_hidden, checked_logits, counted};
use super::{tiles, whole};
use crate::error::{Error, Result};
use crate::known::readable;
use crate::log_probs::OutputHead;
use crate::outputs::TokenLoss;
use crate::shape::Axes;
use candle_core::Tensor;

/// The divergence from the teacher at each predicted token: position t predicts token t + 1.
///
/// # Equation
/// ```text
/// lₜ = D( p_T(·│x, y₍<t₎) ‖ p_S(·│x, y₍<t₎) )      where the mask counts token t
/// ```
/// D is that of [`divergence`](super::divergence::divergence).
/// # Shapes
/// `student` and `teacher` `[batch, time, vocabulary]`; `mask` u8 `[batch, time]` belongs to the tokens, as
/// in [`TokenLogProbs::next_token`](crate::TokenLogProbs::next_token): set it on the answer and its end. The
/// mask of the first token is never read. The result is `[batch, time − 1]`.
/// # Errors
/// As [`divergence`](super::divergence::divergence); [`Error::Argument`] for fewer than two positions.
/// # Properties
/// * The answers' tokens enter only through what the models predict after them. So answers may be the
///   data's (supervised distillation), the teacher's (as in sequence-level distillation) or the student's
///   own (on-policy). No gradient goes through the choice of the tokens.
/// * On own answers, with [`Direction::Reverse`](super::divergence::Direction), the expectation of Σₜ lₜ is
///   KL(π_S‖π_T) over whole answers. The expected gradient is not its gradient: it lacks the effect of a
///   token on the divergences after it, which [`reverse_kl_advantages`](super::on_policy::reverse_kl_advantages)
///   with discount 1 has.
/// * On the teacher's answers, with forward, the expectation is KL(π_T‖π_S), and so is its gradient.
/// * If the student can express the teacher, both are least exactly where they agree, in every direction.
/// # Departures
/// | TRL 1.16 | here |
/// |---|---|
/// | `GKDTrainer.generalized_jsd_loss(beta=0)` | `Direction::Forward` |
/// | `beta=1` | `Direction::Reverse` |
/// | `0 < beta < 1` | `Direction::JensenShannon { weight: beta }` |
/// | `temperature` | [`DivergenceConfig::temperature`]; its trainer does not pass it, so it is 1 there |
/// | `reduction="batchmean"` | [`Reduction::TokenMean`](crate::Reduction::TokenMean) |
/// | `num_items_in_batch` | [`Reduction::SumOver`](crate::Reduction::SumOver) |
/// | `reduction="mean"` | `TokenMean` over the vocabulary's size: TRL takes the mean over symbols too |
///
/// The paper takes the mean of each answer first:
/// [`Reduction::MeanOfSequenceMeans`](crate::Reduction::MeanOfSequenceMeans). Its reward for RL fine-tuning
/// is a term of the caller's.
/// # Examples
/// ```
/// use candle_align::Reduction;
/// use candle_align::distillation::divergence::DivergenceConfig;
/// use candle_align::distillation::gkd::gkd_loss;
/// use candle_core::{DType, Device, Tensor, Var};
///
/// // a prompt of one token and an answer of two; 4 symbols
/// let student = Var::zeros((1, 3, 4), DType::F64, &Device::Cpu)?;
/// let teacher = Tensor::new(&[[[9.0f64, 0.0, 0.0, 0.0], [0.0; 4], [5.0, 0.0, 0.0, 0.0]]], &Device::Cpu)?;
/// let answer = Tensor::new(&[[0u8, 1, 1]], &Device::Cpu)?;
///
/// let loss = gkd_loss(&student, &teacher, &answer, &DivergenceConfig::default())?;
/// // position 0 predicts the first answer token; position 1 agrees; position 2 predicts nothing
/// let each = loss.loss.to_vec2::<f64>()?;
/// assert!(each[0][0] > 0.3 && each[0][1].abs() < 1e-15 && each[0].len() == 2);
/// let mean = loss.reduce(Reduction::TokenMean)?.to_scalar::<f64>()?;
/// assert!((mean - each[0][0] / 2.0).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The loss on own answers beside that on the data's. If the first is much larger, the student drifts to
///   where it has not learned the teacher: raise the share of own answers.
/// * The share of positions whose loss is near 0. Where most are, the mean hides the few that matter.
/// # Try
/// * Take beta = 0.001 and beta = 0 in TRL, and here. Solution:
///   `tests/identities/slips_distillation.rs::gkd_jumps_between_its_ends_and_what_is_beside_them`.
/// # Source
/// Agarwal et al. 2023, arXiv:2306.13649v3, algorithm 1 and eq. 1; TRL 1.16, `gkd_trainer.py`,
/// `compute_loss`.
#[doc(alias = "GKD")]
#[doc(alias = "knowledge distillation")]
#[doc(alias = "generalized_jsd_loss")]
pub fn gkd_loss(
    student: &Tensor,
    teacher: &Tensor,
    mask: &Tensor,
    config: &DivergenceConfig,
) -> Result<TokenLoss> {
    let function = "gkd_loss";
    let mut axes = Axes::new(function);
    let (student, teacher) = checked_logits(&mut axes, student, teacher)?;
    let (mask, counts) = ahead(&mut axes, mask)?;
    let loss = whole::divergence(&student, &teacher, counts, config.plan(function)?)?;
    predicted(&loss, mask)
}

/// As [`gkd_loss`], from hidden states and output layers, as
/// [`divergence_from_hidden`](super::divergence::divergence_from_hidden).
///
/// # Errors
/// As [`gkd_loss`].
pub fn gkd_loss_from_hidden(
    student: (&Tensor, &OutputHead),
    teacher: (&Tensor, &OutputHead),
    mask: &Tensor,
    config: &DivergenceConfig,
) -> Result<TokenLoss> {
    let function = "gkd_loss_from_hidden";
    let mut axes = Axes::new(function);
    let (student, teacher) = checked_hidden(&mut axes, student, teacher)?;
    let (mask, counts) = ahead(&mut axes, mask)?;
    let plan = config.plan(function)?;
    let (student, teacher) = ((&student.0, student.1), (&teacher.0, teacher.1));
    predicted(&tiles::divergence(student, teacher, &counts, plan)?, mask)
}

/// The mask of the predicted tokens, and the positions that predict a token that counts.
fn ahead(axes: &mut Axes, mask: &Tensor) -> Result<(Tensor, Vec<bool>)> {
    let mask = axes.mask("mask", mask, &["batch", "time"])?;
    let (batch, time) = mask.dims2()?;
    if time < 2 {
        let problem =
            format!("has {time} position(s); the first predicts the second, so two are needed");
        return Err(Error::argument(axes.function(), "mask", problem));
    }
    let rest = readable(&mask.narrow(1, 1, time - 1)?)?;
    let of_tokens = counted(&rest)?;
    let mut counts = vec![false; batch * time];
    for (row, of_tokens) in counts.chunks_mut(time).zip(of_tokens.chunks(time - 1)) {
        row[..time - 1].copy_from_slice(of_tokens);
    }
    Ok((rest, counts))
}

/// Without the last position, which predicts nothing.
fn predicted(loss: &Tensor, mask: Tensor) -> Result<TokenLoss> {
    let loss = readable(&loss.narrow(1, 0, mask.dim(1)?)?)?;
    Ok(TokenLoss { loss, mask })
}
