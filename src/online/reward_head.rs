//! The head of a reward model: one number from the last token of an answer (survey §3.1).
//!
//! In one sentence: a linear map of the hidden state at the last real token, followed by a gain and a
//! bias that give the scores a fixed scale.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | the transformer's last hidden state | `hidden` | `[batch, time, dim]` |
//! | r_θ(x, y), the scalar head at the last token | [`RewardHead::forward`] | `[batch]` |
//! | gain · r + bias | [`RewardNormalization`] | as the scores |
//!
//! Read next: [`super::reward_model`] (the losses on these scores).

use crate::error::{Error, Result, positive, require};
use crate::known::readable;
use crate::math::to_host;
use crate::shape::{Axes, at_most};
use candle_core::{DType, Device, Tensor, Var};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// A scalar linear head, read at the last real token of each row.
///
/// ```text
/// r(x, y) = w · h_T + b        T is the last position that the mask counts
/// ```
/// The mask is the attention mask: 1 on the prompt, the answer and its end token, 0 on padding on
/// either side. Only position T enters the score. The other positions get no gradient and may hold
/// anything, even NaN.
///
/// The score is computed in f32, or in f64 if the hidden states or the head are f64. In bf16, two
/// answers whose scores differ by less than one step would tie.
///
/// ```
/// use candle_align::online::reward_head::RewardHead;
/// use candle_core::{DType, Device, Tensor};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let mut rng = StdRng::seed_from_u64(1);
/// let head = RewardHead::new(4, &mut rng, DType::F32, &Device::Cpu)?;
/// // two answers of three and two tokens, one padded on the right
/// let hidden = Tensor::rand(0f32, 1.0, (2, 3, 4), &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 1, 1], [1, 1, 0]], &Device::Cpu)?;
/// let scores = head.forward(&hidden, &mask)?;
/// assert_eq!(scores.dims(), [2]);
/// # Ok::<(), candle_align::Error>(())
/// ```
#[doc(alias = "value head")]
#[doc(alias = "score head")]
#[derive(Clone, Debug)]
pub struct RewardHead {
    weight: Var,
    bias: Option<Var>,
}

impl RewardHead {
    /// A new head without a bias. Its weights are drawn from a normal distribution with mean 0 and
    /// variance 1/(dim + 1), so that hidden states of size √dim get scores of size 1.
    ///
    /// Stiennon et al. 2020 (arXiv:2009.01325v3) give N(0, 1/(d_model + 1)), read here as a variance.
    /// There is no bias because no comparison can teach it: every loss of
    /// [`reward_model`](super::reward_model) without centering gives it a gradient of 0.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless 1 ≤ `dim` ≤ 2²⁰; [`Error::DType`] unless `dtype` is f32 or f64.
    pub fn new(dim: usize, rng: &mut impl Rng, dtype: DType, device: &Device) -> Result<Self> {
        let function = "RewardHead::new";
        require(dim >= 1, function, "dim", "at least 1", dim)?;
        at_most(function, "dim", dim)?;
        require_float(function, "dtype", dtype)?;
        // w ~ N(0, 1/(dim + 1))
        let deviation = 1.0 / ((dim + 1) as f64).sqrt();
        let weight: Vec<f64> = (0..dim)
            .map(|_| {
                let normal: f64 = StandardNormal.sample(rng);
                normal * deviation
            })
            .collect();
        let weight = Tensor::from_vec(weight, (1, dim), device)?.to_dtype(dtype)?;
        Ok(Self {
            weight: Var::from_tensor(&weight)?,
            bias: None,
        })
    }

    /// The same head with a bias that starts at 0.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn with_bias(self) -> Result<Self> {
        let bias = Tensor::zeros(1, self.weight.dtype(), self.weight.device())?;
        Ok(Self {
            weight: self.weight,
            bias: Some(Var::from_tensor(&bias)?),
        })
    }

    /// A head from saved tensors, copied: `weight` `[1, dim]`, `bias` `[1]`.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::DType`] unless the shapes are these and both types are f32, or both
    /// f64.
    pub fn from_tensors(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let function = "RewardHead::from_tensors";
        let mut axes = Axes::new(function);
        require_one(function, "weight", weight, &["1", "dim"])?;
        axes.float("weight", weight, &["1", "dim"])?;
        let bias = match bias {
            Some(bias) => {
                require_one(function, "bias", bias, &["1"])?;
                axes.float("bias", bias, &["1"])?;
                Some(Var::from_tensor(&bias.copy()?)?)
            }
            None => None,
        };
        Ok(Self {
            weight: Var::from_tensor(&weight.copy()?)?,
            bias,
        })
    }

    /// The score of each row.
    ///
    /// # Shapes
    /// `hidden` `[batch, time, dim]` in f32, f64, bf16 or f16; `mask` `[batch, time]` in u8. The
    /// scores are `[batch]`, in the order of the rows. Split them with
    /// [`Pair::from_rows`](crate::Pair::from_rows), or reshape them to `[prompts, k]`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`] as above; [`Error::Argument`] that names the first row
    /// whose mask counts nothing. Such a row has no token to read a score from, and any made-up number
    /// would be compared with real scores. The mask is read to the host for this check.
    pub fn forward(&self, hidden: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let function = "RewardHead::forward";
        let mut axes = Axes::new(function);
        axes.axes("weight", &self.weight, &["1", "dim"])?;
        let hidden = axes.axes("hidden", hidden, &["batch", "time", "dim"])?;
        let mask = axes.mask("mask", mask, &["batch", "time"])?;
        if !hidden.dtype().is_float() {
            return Err(Error::DType {
                function,
                argument: "hidden".to_string(),
                found: hidden.dtype().as_str(),
                expected: "f32, f64, bf16 or f16".to_string(),
            });
        }
        let (batch, time, dim) = hidden.dims3()?;

        // h_T, as rows of a [batch · time, dim] matrix
        let last = last_positions(function, &mask)?;
        let rows: Vec<u32> = (0..batch)
            .zip(last)
            .map(|(row, last)| (row * time + last) as u32)
            .collect();
        let rows = Tensor::from_vec(rows, batch, hidden.device())?;
        let last = hidden
            .reshape((batch * time, dim))?
            .index_select(&rows, 0)?;

        // w · h_T + b
        let dtype = match (hidden.dtype(), self.weight.dtype()) {
            (DType::F64, _) | (_, DType::F64) => DType::F64,
            _ => DType::F32,
        };
        let weight = self.weight.to_dtype(dtype)?;
        let scores = last.to_dtype(dtype)?.matmul(&weight.t()?)?.squeeze(1)?;
        match &self.bias {
            Some(bias) => Ok(scores.broadcast_add(&bias.to_dtype(dtype)?)?),
            None => Ok(scores),
        }
    }

    /// w `[1, dim]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// b `[1]`, if the head has one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref().map(|bias| bias.as_tensor())
    }

    /// The variables to train, sorted by name: `reward_head.bias` if there is one, and
    /// `reward_head.weight`.
    pub fn trainable(&self) -> Vec<(String, Var)> {
        let bias = self.bias.as_ref().map(|bias| ("bias", bias));
        bias.into_iter()
            .chain([("weight", &self.weight)])
            .map(|(name, var)| (format!("reward_head.{name}"), var.clone()))
            .collect()
    }
}

/// The last position of each row that the mask counts.
fn last_positions(function: &'static str, mask: &Tensor) -> Result<Vec<usize>> {
    let (batch, time) = mask.dims2()?;
    let counts = to_host::<u8>(mask)?;
    (0..batch)
        .map(|row| {
            counts[row * time..(row + 1) * time]
                .iter()
                .rposition(|c| *c != 0)
                .ok_or_else(|| {
                    Error::argument(
                        function,
                        "mask",
                        format!(
                            "counts no token in row {row}; its score has no position to be read at"
                        ),
                    )
                })
        })
        .collect()
}

/// Requires these axes; the first must have size 1.
fn require_one(
    function: &'static str,
    argument: &str,
    tensor: &Tensor,
    axes: &[&str],
) -> Result<()> {
    if tensor.rank() == axes.len() && tensor.dims()[0] == 1 {
        return Ok(());
    }
    Err(Error::Shape {
        function,
        argument: argument.to_string(),
        shape: tensor.dims().to_vec(),
        expected: axes.join(", "),
    })
}

fn require_float(function: &'static str, argument: &str, dtype: DType) -> Result<()> {
    match dtype {
        DType::F32 | DType::F64 => Ok(()),
        other => Err(Error::DType {
            function,
            argument: argument.to_string(),
            found: other.as_str(),
            expected: "f32 or f64".to_string(),
        }),
    }
}

/// A fixed scale for the scores of a trained reward model: gain · r + bias.
///
/// Comparisons determine a reward only up to a constant, and say nothing about the scores of a policy's
/// own answers. A KL penalty and a value function need a known mean. They also need a known spread, so
/// that β means the same from one reward model to the next. Fit the scale once, on the raw scores of
/// reference answers, and keep it fixed. No comparison changes, because the gain is positive.
///
/// | fit | what is fitted | from |
/// |---|---|---|
/// | [`RewardNormalization::zero_mean`] | bias alone, on demonstrations | InstructGPT, arXiv:2203.02155v1, §3.5 |
/// | [`RewardNormalization::zero_mean_unit_variance`] | gain and bias, on samples of the policy before training | Ziegler et al. 2019, arXiv:1909.08593v2 |
///
/// ```
/// use candle_align::online::reward_head::RewardNormalization;
/// use candle_core::{Device, Tensor};
///
/// let demonstrations = Tensor::new(&[1.0f64, 4.0, 7.0], &Device::Cpu)?;
/// let scale = RewardNormalization::zero_mean(&demonstrations)?;
/// assert_eq!(scale, RewardNormalization { gain: 1.0, bias: -4.0 });
/// assert_eq!(scale.apply(&demonstrations)?.to_vec1::<f64>()?, [-3.0, 0.0, 3.0]);
/// # Ok::<(), candle_align::Error>(())
/// ```
#[doc(alias = "reward normalization")]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardNormalization {
    /// Finite and > 0.
    pub gain: f64,
    /// Finite.
    pub bias: f64,
}

impl RewardNormalization {
    /// The bias that gives these scores mean 0; the gain is 1.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `scores` is `[batch]`, [`Error::DType`] unless f32 or f64,
    /// [`Error::Argument`] if it is empty or holds a number that is not finite.
    pub fn zero_mean(scores: &Tensor) -> Result<Self> {
        let scores = finite_scores("RewardNormalization::zero_mean", scores)?;
        Ok(Self {
            gain: 1.0,
            bias: -mean(&scores),
        })
    }

    /// The gain and the bias that give these scores mean 0 and variance 1.
    ///
    /// ```text
    /// gain = 1/√( (1/n) Σ (r − r̄)² )        bias = −gain · r̄
    /// ```
    /// # Errors
    /// As [`RewardNormalization::zero_mean`]; [`Error::Argument`] if all scores are equal.
    pub fn zero_mean_unit_variance(scores: &Tensor) -> Result<Self> {
        let function = "RewardNormalization::zero_mean_unit_variance";
        let scores = finite_scores(function, scores)?;
        if scores.iter().all(|score| *score == scores[0]) {
            return Err(Error::argument(
                function,
                "scores",
                format!("holds {} alone; equal scores have no spread", scores[0]),
            ));
        }
        let center = mean(&scores);
        let squares: Vec<f64> = scores.iter().map(|r| (r - center).powi(2)).collect();
        let gain = 1.0 / mean(&squares).sqrt();
        Ok(Self {
            gain,
            bias: -gain * center,
        })
    }

    /// gain · r + bias, elementwise, of f32 or f64 scores of any shape.
    ///
    /// # Errors
    /// [`Error::DType`] for another type; [`Error::Parameter`] unless the gain is finite and > 0 and
    /// the bias finite.
    pub fn apply(&self, scores: &Tensor) -> Result<Tensor> {
        let function = "RewardNormalization::apply";
        positive(function, "gain", self.gain)?;
        require(self.bias.is_finite(), function, "bias", "finite", self.bias)?;
        require_float(function, "scores", scores.dtype())?;
        Ok(readable(scores)?.affine(self.gain, self.bias)?)
    }
}

/// The scores on the host in f64.
fn finite_scores(function: &'static str, scores: &Tensor) -> Result<Vec<f64>> {
    let scores = Axes::new(function).float("scores", scores, &["batch"])?;
    let scores = scores.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    if scores.is_empty() {
        return Err(Error::argument(function, "scores", "is empty"));
    }
    match scores.iter().position(|score| !score.is_finite()) {
        None => Ok(scores),
        Some(at) => Err(Error::argument(
            function,
            "scores",
            format!("holds {} at position {at}; it must be finite", scores[at]),
        )),
    }
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}
