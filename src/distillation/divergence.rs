//! How far two models' predictions are apart at each position, over the whole vocabulary.
//!
//! In one sentence: one divergence per position between the teacher's distribution and the student's,
//! computed without storing a probability.
//!
//! | symbol | here | shape |
//! |---|---|---|
//! | q, the student's distribution | `student`: logits, or hidden states and their [`OutputHead`] | `[batch, time, vocabulary]` |
//! | p, the teacher's distribution | `teacher`, the same | `[batch, time, vocabulary]` |
//! | forward, reverse, mixed | [`Direction`] | – |
//! | τ | [`DivergenceConfig::temperature`] | number |
//! | the k likeliest symbols | [`TopK`] | – |
//!
//! Read next: [`gkd`](super::gkd), which trains on this; [`minillm`](super::minillm) and
//! [`on_policy`](super::on_policy), which see it through sampled tokens.

pub use super::direction::{ChosenBy, Direction, TopK};

use super::kernel::Plan;
use super::{tiles, whole};
use crate::error::{Error, Result, positive, require};
use crate::log_probs::OutputHead;
use crate::math::to_host;
use crate::outputs::TokenLoss;
use crate::shape::Axes;
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of [`divergence`] and [`gkd_loss`](super::gkd::gkd_loss).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DivergenceConfig {
    /// Default Jensen–Shannon with w = ½, the default of TRL's GKD trainer. The paper compares
    /// w = 0.1, 0.5, 0.9 and both KL divergences.
    #[doc(alias = "beta")]
    pub direction: Direction,
    /// τ > 0, which divides both models' logits. Default 1.
    pub temperature: f64,
    /// Default none: every symbol counts alone.
    pub top_k: Option<TopK>,
}

impl Default for DivergenceConfig {
    fn default() -> Self {
        Self {
            direction: Direction::JensenShannon { weight: 0.5 },
            temperature: 1.0,
            top_k: None,
        }
    }
}

impl DivergenceConfig {
    /// The checked settings, as the kernel takes them.
    pub(super) fn plan(&self, function: &'static str) -> Result<Plan> {
        positive(function, "temperature", self.temperature)?;
        if let Direction::JensenShannon { weight } = self.direction {
            let inside = weight > 0.0 && weight < 1.0;
            let expected = "in (0, 1); its ends are the directions forward and reverse";
            require(inside, function, "direction.weight", expected, weight)?;
        }
        if let Some(top) = self.top_k {
            require(top.k >= 1, function, "top_k.k", ">= 1", top.k)?;
        }
        Ok(Plan {
            direction: self.direction,
            scale: 1.0 / self.temperature,
            top: self.top_k,
        })
    }
}

/// The divergence between teacher and student at each position.
///
/// # Equation
/// ```text
/// q = softmax(student / τ)        p = softmax(teacher / τ)
/// forward          D = Σᵥ pᵥ log(pᵥ/qᵥ)
/// reverse          D = Σᵥ qᵥ log(qᵥ/pᵥ)
/// Jensen–Shannon   D = w Σᵥ pᵥ log(pᵥ/mᵥ) + (1 − w) Σᵥ qᵥ log(qᵥ/mᵥ),    m = (1 − w) q + w p
/// ```
/// With [`DivergenceConfig::top_k`] the sums run over the chosen symbols and one more, whose probability
/// is the sum over all others.
/// # Shapes
/// `student` and `teacher` `[batch, time, vocabulary]` in f32, bf16 or f16, computed in f32, or both in
/// f64; `mask` u8 `[batch, time]`, at the position of the logits. The result is `[batch, time]` with that
/// mask. The teacher gets no gradient.
/// # Errors
/// [`Error::Shape`], [`Error::DType`] as above; [`Error::Parameter`] unless τ > 0, w in (0, 1) and k ≥ 1;
/// [`Error::Argument`] for a vocabulary of 0.
/// # Properties
/// * D ≥ 0, up to rounding, and D = 0 where the two agree. Jensen–Shannon is at most
///   −w log w − (1 − w) log(1 − w).
/// * The slope in a logit of the student is, over τ: q − p forward; q (log(q/p) − D) reverse;
///   (1 − w) q (log(q/m) − Σ q log(q/m)) for Jensen–Shannon.
/// * Jensen–Shannon over w tends to forward as w → 0, and over 1 − w to reverse as w → 1. Without that
///   division it tends to 0, so a learning rate that fits w = ½ is far too small at w = 0.001.
/// * The temperature flattens both distributions. As it grows, τ² D tends to a finite number, and so does
///   τ² times the gradient. No factor τ² is applied: a loss that is mixed with others at τ ≠ 1 is
///   multiplied by it.
/// * The divergence over the top k never exceeds the full one, and equals it for k = vocabulary. It is 0
///   where the chosen probabilities agree, whatever the others are.
/// * A symbol that both find impossible (−∞) adds nothing. If only the teacher finds it possible, forward
///   is +∞ with a finite slope. If only the student does, reverse is +∞ with infinite slopes.
///   Jensen–Shannon stays finite.
/// # Departures
/// * From TRL's `generalized_jsd_loss(beta)`: its beta is w inside (0, 1), forward at exactly 0 and
///   reverse at exactly 1. Those two are limits of D/w and D/(1 − w), not of D, so its loss jumps; here they
///   are other directions, and w = 0 or 1 is an error.
/// * From TRL's and verl's top-k forms: the probability of the others is summed, not computed as
///   1 − Σ chosen and clamped at 10⁻⁷, and there is no form that drops them. Without them, the reverse
///   divergence is least where the student leaves the chosen symbols.
/// # Examples
/// ```
/// use candle_align::Reduction;
/// use candle_align::distillation::divergence::{Direction, DivergenceConfig, divergence};
/// use candle_core::{Device, Tensor, Var};
///
/// let student = Var::new(&[[[0.0f64, 0.0]]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[[3.0f64.ln(), 0.0]]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8]], &Device::Cpu)?;
///
/// let config = DivergenceConfig { direction: Direction::Forward, ..Default::default() };
/// let loss = divergence(&student, &teacher, &mask, &config)?.reduce(Reduction::Sum)?;
/// // ¾ log(¾ / ½) + ¼ log(¼ / ½)
/// let want = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
/// assert!((loss.to_scalar::<f64>()? - want).abs() < 1e-15);
/// // q − p
/// let grads = loss.backward()?;
/// let slopes = grads.get(&student).unwrap().to_vec3::<f64>()?;
/// assert!((slopes[0][0][0] + 0.25).abs() < 1e-15 && (slopes[0][0][1] - 0.25).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The mean per position on held-out text, beside the teacher's entropy. A forward divergence that stops
///   falling far above 0 shows what the student cannot express.
/// * Both directions, whichever is trained. A small reverse divergence beside a large forward one means
///   that the student has dropped some of what the teacher says.
/// # Try
/// * Fit one student to a teacher with two modes, once in each direction. Solution:
///   `tests/optimum/distillation.rs::reverse_seeks_a_mode_and_forward_covers_both`.
/// # Source
/// Agarwal et al. 2023, arXiv:2306.13649v3, eq. 1; TRL 1.16, `gkd_trainer.py`, `generalized_jsd_loss`. The
/// temperature: Hinton et al. 2015, arXiv:1503.02531v1, section 2. The tail of the top k: Hübotter et al.
/// 2026, arXiv:2601.20802.
///
/// [`Error::Shape`]: crate::Error::Shape
/// [`Error::DType`]: crate::Error::DType
/// [`Error::Parameter`]: crate::Error::Parameter
/// [`Error::Argument`]: crate::Error::Argument
#[doc(alias = "KL divergence")]
#[doc(alias = "Jensen-Shannon divergence")]
#[doc(alias = "knowledge distillation")]
pub fn divergence(
    student: &Tensor,
    teacher: &Tensor,
    mask: &Tensor,
    config: &DivergenceConfig,
) -> Result<TokenLoss> {
    let function = "divergence";
    let mut axes = Axes::new(function);
    let logits = checked_logits(&mut axes, student, teacher)?;
    let mask = axes.mask("mask", mask, &["batch", "time"])?;
    let counts = counted(&mask)?;
    let loss = whole::divergence(&logits.0, &logits.1, counts, config.plan(function)?)?;
    Ok(TokenLoss { loss, mask })
}

/// As [`divergence`], from hidden states and output layers, without ever storing all logits of either model.
///
/// Each model is a pair of its hidden states `[batch, time, dim]` and its output layer. The two widths may
/// differ. Neither pass holds more than one chunk of logits of each, and positions that do not count are
/// never computed. If the student's matrix and bias are frozen, the gradient of its hidden states is
/// computed in the forward pass. Otherwise the backward pass computes each chunk's logits again. Products
/// are in f64 for f64 hidden states of both and in f32 otherwise; the weights are converted to that type.
///
/// # Errors
/// As [`divergence`].
#[doc(alias = "fused linear JSD")]
pub fn divergence_from_hidden(
    student: (&Tensor, &OutputHead),
    teacher: (&Tensor, &OutputHead),
    mask: &Tensor,
    config: &DivergenceConfig,
) -> Result<TokenLoss> {
    let function = "divergence_from_hidden";
    let mut axes = Axes::new(function);
    let (student, teacher) = checked_hidden(&mut axes, student, teacher)?;
    let mask = axes.mask("mask", mask, &["batch", "time"])?;
    let counts = counted(&mask)?;
    let plan = config.plan(function)?;
    let loss = tiles::divergence(
        (&student.0, student.1),
        (&teacher.0, teacher.1),
        &counts,
        plan,
    )?;
    Ok(TokenLoss { loss, mask })
}

/// The positions of a mask that count, row by row.
pub(super) fn counted(mask: &Tensor) -> Result<Vec<bool>> {
    Ok(to_host::<u8>(mask)?.into_iter().map(|m| m != 0).collect())
}

/// Both sets of logits; an error unless they are of one shape and of types that are computed alike.
pub(super) fn checked_logits(
    axes: &mut Axes,
    student: &Tensor,
    teacher: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let shape = ["batch", "time", "vocabulary"];
    let student = axes.axes("student", student, &shape)?;
    let teacher = axes.axes("teacher", teacher, &shape)?;
    alike(axes.function(), ["student", "teacher"], &student, &teacher)?;
    some_symbols(axes.function(), "student", student.dim(2)?)?;
    Ok((student, teacher))
}

type Model<'a> = (Tensor, &'a OutputHead);

/// Both sets of hidden states, with their output layers of one vocabulary.
pub(super) fn checked_hidden<'a>(
    axes: &mut Axes,
    student: (&Tensor, &'a OutputHead),
    teacher: (&Tensor, &'a OutputHead),
) -> Result<(Model<'a>, Model<'a>)> {
    let function = axes.function();
    let hidden = axes.axes("student.hidden", student.0, &["batch", "time", "dim"])?;
    axes.axes("student.head", student.1.weight(), &["vocabulary", "dim"])?;
    let of = ["batch", "time", "teacher dim"];
    let other = axes.axes("teacher.hidden", teacher.0, &of)?;
    let of = ["vocabulary", "teacher dim"];
    axes.axes("teacher.head", teacher.1.weight(), &of)?;
    alike(
        function,
        ["student.hidden", "teacher.hidden"],
        &hidden,
        &other,
    )?;
    some_symbols(function, "student.head", student.1.weight().dim(0)?)?;
    Ok(((hidden, student.1), (other, teacher.1)))
}

fn alike(
    function: &'static str,
    names: [&'static str; 2],
    student: &Tensor,
    teacher: &Tensor,
) -> Result<()> {
    let single = |x: &Tensor| matches!(x.dtype(), DType::F32 | DType::BF16 | DType::F16);
    let (found, other) = (student.dtype(), teacher.dtype());
    if !single(student) && found != DType::F64 {
        return Err(Error::dtype(
            function,
            names[0],
            found,
            "f32, f64, bf16 or f16",
        ));
    }
    if single(student) && single(teacher) || found == other {
        return Ok(());
    }
    let expected = match found {
        DType::F64 => format!("f64 (from `{}`)", names[0]),
        _ => format!("f32, bf16 or f16 (from `{}`)", names[0]),
    };
    Err(Error::dtype(function, names[1], other, expected))
}

fn some_symbols(function: &'static str, argument: &str, vocabulary: usize) -> Result<()> {
    match vocabulary {
        0 => Err(Error::argument(function, argument, "has a vocabulary of 0")),
        _ => Ok(()),
    }
}
