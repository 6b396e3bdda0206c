//! Four-bit NormalFloat with double quantization: how QLoRA stores what it does not train (survey §3.3).
//!
//! In one sentence: for every 64 weights keep the largest magnitude, and for each weight only which of
//! sixteen quantiles of the normal distribution is nearest to its share of that magnitude.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | q_i, the data type NF4 | [`NF4`] | 16 numbers |
//! | W^NF4 | [`Nf4Tensor`] | any |
//! | c₂, the constants of a block | [`BlockScale::Single`], [`Nf4Scales`] | one f32 per 64 weights |
//! | c₂^FP8, c₁^FP32 | [`BlockScale::Double`] | a byte per 64 weights, an f32 per 16 384 |
//! | dequant(·, ·) | [`Nf4Tensor::dequantize`] | that of W |
//! | X · doubleDequant(…) | [`Nf4Linear`] | `[.., in]` to `[.., out]` |
//!
//! Read next: [`qlora`](crate::parameter_efficient::qlora), the adapter on top; [`frozen_linear`](crate::parameter_efficient::frozen_linear),
//! the same layer with its weight in 16 or 32 bits.

mod code;
mod linear;
mod product;
mod state_dict;

pub use code::NF4;
pub use linear::Nf4Linear;

use crate::error::{Error, Result};
use candle_core::{CpuStorage, DType, Device, Shape, Storage, Tensor};
use code::{BLOCK, DYNAMIC, Element, NESTED_BLOCK, pack, pack_scales, unpack};
use half::{bf16, f16};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// How the scale of each block of 64 weights is stored.
#[doc(alias = "double quantization")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockScale {
    /// An f32: 4 + 32/64 = 4.5 bits per weight.
    Single,
    /// A byte, quantized in blocks of 256 around the tensor's mean: 4 + 8/64 + 32/(64 · 256) =
    /// 4.127 bits per weight. The paper's (§3).
    #[default]
    Double,
}

/// A tensor with four bits per element.
///
/// # Equation
/// ```text
/// m = max |x|                                   over a block of 64, in row-major order
/// index = #{ i : (qᵢ + qᵢ₊₁)/2 < x/m }          the nearest qᵢ, the lower of two
/// x ≈ q_index · m                               Single
/// x ≈ q_index · (dⱼ · c₁ + μ)                   Double (eq. 6): μ the mean of all m, c₁ = max |m − μ|
///                                               over 256 of them, dⱼ of 256 values nearest (m − μ)/c₁
/// ```
/// # Shapes
/// Any shape with at least one element, in f32, f64, bf16 or f16. The last block may be shorter, and
/// rows do not start a new block. Two indices share a byte, the first in its high half; an odd number of
/// elements is padded with the index of 0.
///
/// | quantized from | compared as | dequantized to |
/// |---|---|---|
/// | f32 | f32 | f32: the product, rounded once |
/// | bf16, f16 | f32 | that product, rounded once more to bf16 or f16 |
/// | f64 | the nearest f32 | that product, widened |
/// # Errors
/// [`Error::Argument`] for a tensor without elements, or with one that is not finite in f32;
/// [`Error::DType`] for other types. From the state dict: [`Error::Argument`] naming the tensor that
/// is missing, unknown, or made with other settings than these; [`Error::Shape`] and
/// [`Error::DType`] for one of another form.
/// # Properties
/// * [`Nf4Tensor::bytes`] is ⌈n/2⌉ + 4⌈n/64⌉ for single scales, and ⌈n/2⌉ + ⌈n/64⌉ + 4⌈n/16384⌉ + 4
///   for double ones: in the limit 4.5 and 4.127 bits an element.
/// * With single scales no element changes by more than 0.152 of its block's largest magnitude (half
///   the widest gap), and that magnitude and 0 do not change. Elements of N(0, 1) change by 0.0728 on
///   average.
/// * Quantizing the dequantized tensor again changes no index.
/// * A positive factor multiplies the scales and changes no index, up to rounding.
/// * The error of a double scale is up to 0.7 % of c₁, not a fixed share of the scale itself: a block far
///   smaller than the tensor's others can come back with a scale several times too large, or of the wrong
///   sign. A block of zeros is still 0.
/// * The number of threads changes no bit.
/// * [`Nf4Tensor::packed`] and [`Nf4Tensor::scales`] are all that is stored: element i is NF4 at its
///   index, times m of block i/64.
/// # Departures
/// Eq. 4 as printed asks for the quantile at 0, which is −∞. The authors' code has quantiles of
/// evenly spaced probabilities between ½ and 0.9677083, eight steps on the positive side and seven
/// on the negative, and 0; those are [`NF4`]. The paper stores c₂ in an FP8; the code in a signed
/// dynamic type of 256 values, and so does this crate. The nearest value is decided as in bitsandbytes: x
/// is multiplied by 1/m in f32 in a full block and divided by m in a partial one. μ is summed in f64
/// and rounded, so that it can differ from bitsandbytes' in its last bit. The bytes of the indices
/// are those of bitsandbytes, and those of the scales are the result of its portable code. Its CPU kernels
/// (0.50) were observed to differ in two ways: they read a scale's index from a table of 65 536 steps and
/// took a neighbor for 1 scale in 600, and with AVX-512 they dequantize rows of 16, 32, 48, 80 or 96
/// elements with the scale of another block. bitsandbytes has no f64. This crate has no FP4, no other
/// block sizes and no packing into other types than u8.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{BlockScale, NF4, Nf4Tensor};
/// use candle_core::{Device, Tensor};
///
/// // shares of the largest: 0.25, −0.5, 1, 0.1, so the nearest are q₁₀, q₂, q₁₅, q₈
/// let x = Tensor::new(&[[0.5f32, -1.0], [2.0, 0.2]], &Device::Cpu)?;
/// let q = Nf4Tensor::quantize(&x, BlockScale::Single)?;
/// let want = [[NF4[10] * 2.0, NF4[2] * 2.0], [2.0, NF4[8] * 2.0]];
/// assert_eq!(q.dequantize()?.to_vec2::<f32>()?, want);
/// assert_eq!(q.bytes(), 4 / 2 + 4);
///
/// let x = Tensor::zeros((512, 512), candle_core::DType::BF16, &Device::Cpu)?;
/// let q = Nf4Tensor::quantize(&x, BlockScale::Double)?;
/// let blocks = 512.0 * 512.0 / 64.0;
/// let bits = 4.0 + 8.0 / 64.0 + 32.0 / (64.0 * 256.0) + 32.0 / (64.0 * blocks);
/// assert_eq!(q.bits_per_parameter(), bits); // 4.1271
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The mean |x − x̂| of each weight over its standard deviation: 0.073 for normally distributed
///   numbers. A much larger value points to outliers: one large element makes its whole block coarse.
/// * With double scales, the smallest blocks: their scales carry the largest relative errors.
/// # Try
/// * Measure what four bits cost on normally distributed numbers.
///   `tests/values/quantize.rs::normal_numbers_lose_what_is_published`
/// * Build a tensor that double scales damage.
///   `tests/identities/quantize.rs::a_double_scale_is_off_by_a_share_of_the_greatest_deviation_not_of_itself`
/// # Source
/// Dettmers et al. 2023, arXiv:2305.14314v1, eqs 1–4 and 6, §3; code bitsandbytes 0.50.2, whose
/// `quantize_4bit` and state dict the golden tests contain. The equations' numbers come from notes on the
/// paper, the rounding rules from running that package.
#[doc(alias = "NF4")]
#[doc(alias = "NormalFloat")]
#[doc(alias = "bitsandbytes")]
#[doc(alias = "4-bit quantization")]
#[derive(Clone)]
pub struct Nf4Tensor(Arc<Stored>);

struct Stored {
    packed: Vec<u8>,
    scales: Nf4Scales,
    shape: Shape,
    dtype: DType,
}

/// The stored scales of the blocks of a [`Nf4Tensor`].
#[derive(Clone, Debug, PartialEq)]
pub enum Nf4Scales {
    /// m, one per block.
    Single(Vec<f32>),
    /// m ≈ d_index · c₁ + μ.
    Double {
        /// An index into `map` per block.
        indices: Vec<u8>,
        /// c₁, one per [`Nf4Tensor::NESTED_BLOCK`] indices.
        nested: Vec<f32>,
        /// μ.
        offset: f32,
        /// d, the 256 values of the dynamic map, or those of the file that the tensor came from.
        map: Cow<'static, [f32]>,
    },
}

/// The fewest nested blocks that one task packs.
const FEW: usize = 64;

/// How many blocks one task processes.
const GROUP: usize = 256;

impl Nf4Tensor {
    /// Elements that share a scale, in row-major order; the last block may be shorter.
    pub const BLOCK: usize = BLOCK;
    /// How many scales share one scale of their own, where they are [double](Nf4Scales::Double).
    pub const NESTED_BLOCK: usize = NESTED_BLOCK;

    /// Quantizes a tensor, in parallel on rayon's threads.
    ///
    /// # Errors
    /// [`Error::Argument`] for a tensor without elements, or with one that is not finite in f32;
    /// [`Error::DType`] for a type other than f32, f64, bf16 and f16.
    pub fn quantize(tensor: &Tensor, scale: BlockScale) -> Result<Self> {
        Self::named("Nf4Tensor::quantize", "tensor", tensor, scale)
    }

    /// As `quantize`, for a `function` whose caller knows the tensor by another name.
    fn named(
        function: &'static str,
        argument: &str,
        tensor: &Tensor,
        scale: BlockScale,
    ) -> Result<Self> {
        if tensor.elem_count() == 0 {
            return Err(Error::argument(function, argument, "has no elements"));
        }
        let here = tensor.to_device(&Device::Cpu)?.contiguous()?;
        let (storage, layout) = here.storage_and_layout();
        let (start, end) = (
            layout.start_offset(),
            layout.start_offset() + here.elem_count(),
        );
        let blocks = match &*storage {
            Storage::Cpu(CpuStorage::F32(x)) => blocks(&x[start..end]),
            Storage::Cpu(CpuStorage::F64(x)) => blocks(&x[start..end]),
            Storage::Cpu(CpuStorage::BF16(x)) => blocks(&x[start..end]),
            Storage::Cpu(CpuStorage::F16(x)) => blocks(&x[start..end]),
            _ => {
                return Err(Error::dtype(
                    function,
                    argument,
                    tensor.dtype(),
                    "f32, f64, bf16 or f16",
                ));
            }
        };
        let (packed, scales) = blocks.map_err(|(at, x)| {
            let problem = format!("holds {x} at flat position {at}; it must be finite in f32");
            Error::argument(function, argument, problem)
        })?;
        Ok(Self(Arc::new(Stored {
            packed,
            scales: match scale {
                BlockScale::Single => Nf4Scales::Single(scales),
                BlockScale::Double => Nf4Scales::double(scales),
            },
            shape: tensor.shape().clone(),
            dtype: tensor.dtype(),
        })))
    }

    /// The tensor that the four bits represent, on the CPU, in the type it was quantized from.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn dequantize(&self) -> Result<Tensor> {
        let shape = &self.0.shape;
        let tensor = match self.0.dtype {
            DType::F64 => Tensor::from_vec(self.values(f64::from), shape, &Device::Cpu),
            DType::BF16 => Tensor::from_vec(self.values(bf16::from_f32), shape, &Device::Cpu),
            DType::F16 => Tensor::from_vec(self.values(f16::from_f32), shape, &Device::Cpu),
            _ => Tensor::from_vec(self.values(|x| x), shape, &Device::Cpu),
        };
        Ok(tensor?)
    }

    fn values<O: Clone + Default + Send>(&self, finish: impl Fn(f32) -> O + Copy + Sync) -> Vec<O> {
        let mut out = vec![O::default(); self.0.shape.elem_count()];
        out.par_chunks_mut(GROUP * BLOCK)
            .enumerate()
            .for_each(|(group, out)| self.fill(group * GROUP * BLOCK, out, finish));
        out
    }

    /// Writes the elements from flat position `at` on.
    fn fill<O>(&self, mut at: usize, mut out: &mut [O], finish: impl Fn(f32) -> O + Copy) {
        while !out.is_empty() {
            let left = BLOCK - at % BLOCK;
            let (block, rest) = out.split_at_mut(left.min(out.len()));
            unpack(
                &self.0.packed,
                at,
                self.0.scales.of(at / BLOCK),
                block,
                finish,
            );
            (at, out) = (at + left, rest);
        }
    }

    /// The shape it was quantized from.
    pub fn shape(&self) -> &Shape {
        &self.0.shape
    }

    /// The type it was quantized from, and is dequantized to.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// How its scales are stored.
    pub fn block_scale(&self) -> BlockScale {
        match self.0.scales {
            Nf4Scales::Single(_) => BlockScale::Single,
            Nf4Scales::Double { .. } => BlockScale::Double,
        }
    }

    /// The indices, two to a byte, the first in its high half: q_index · m is the element.
    pub fn packed(&self) -> &[u8] {
        &self.0.packed
    }

    /// The scales, one per [`Nf4Tensor::BLOCK`] elements.
    pub fn scales(&self) -> &Nf4Scales {
        &self.0.scales
    }

    /// The memory of indices and scales, in bytes.
    pub fn bytes(&self) -> usize {
        let scales = match &self.0.scales {
            Nf4Scales::Single(scales) => 4 * scales.len(),
            Nf4Scales::Double {
                indices, nested, ..
            } => indices.len() + 4 * nested.len() + 4,
        };
        self.0.packed.len() + scales
    }

    /// [`Nf4Tensor::bytes`] in bits, divided by the number of elements.
    pub fn bits_per_parameter(&self) -> f64 {
        8.0 * self.bytes() as f64 / self.0.shape.elem_count() as f64
    }
}

impl std::fmt::Debug for Nf4Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nf4Tensor")
            .field("shape", &self.0.shape)
            .field("dtype", &self.0.dtype)
            .field("scale", &self.block_scale())
            .finish_non_exhaustive()
    }
}

impl Nf4Scales {
    /// m of every block, as [`Nf4Tensor::dequantize`] uses it.
    pub fn values(&self) -> Vec<f32> {
        let blocks = match self {
            Self::Single(scales) => scales.len(),
            Self::Double { indices, .. } => indices.len(),
        };
        (0..blocks).map(|block| self.of(block)).collect()
    }

    /// c₂ minus its mean, in one byte each.
    fn double(scales: Vec<f32>) -> Self {
        // μ
        let sum: f64 = scales.iter().map(|x| f64::from(*x)).sum();
        let offset = (sum / scales.len() as f64) as f32;
        // (m − μ)/c₁
        let centered: Vec<f32> = scales.iter().map(|x| x - offset).collect();
        let mut indices = vec![0; scales.len()];
        let nested = centered
            .par_chunks(NESTED_BLOCK)
            .zip(indices.par_chunks_mut(NESTED_BLOCK))
            .with_min_len(FEW) // a kilobyte is not worth another thread
            .map(|(block, indices)| pack_scales(block, indices))
            .collect();
        Self::Double {
            indices,
            nested,
            offset,
            map: Cow::Borrowed(&DYNAMIC),
        }
    }

    /// The scale of a block.
    fn of(&self, block: usize) -> f32 {
        match self {
            Self::Single(scales) => scales[block],
            Self::Double {
                indices,
                nested,
                offset,
                map,
            } => map[indices[block] as usize] * nested[block / NESTED_BLOCK] + offset,
        }
    }
}

/// Indices and scales, or the first element that is not finite in f32 and its position.
fn blocks<T: Element>(x: &[T]) -> Result<(Vec<u8>, Vec<f32>), (usize, f64)> {
    let mut packed = vec![0; x.len().div_ceil(2)];
    let mut scales = vec![0.0; x.len().div_ceil(BLOCK)];
    let bad = packed
        .par_chunks_mut(GROUP * BLOCK / 2)
        .zip(scales.par_chunks_mut(GROUP))
        .zip(x.par_chunks(GROUP * BLOCK))
        .enumerate()
        .filter_map(|(group, ((packed, scales), x))| {
            let blocks = x.chunks(BLOCK).zip(packed.chunks_mut(BLOCK / 2));
            for ((block, packed), scale) in blocks.zip(scales) {
                match pack(block, packed) {
                    Some(found) => *scale = found,
                    None => return Some(group * GROUP * BLOCK),
                }
            }
            None
        })
        .min();
    let Some(from) = bad else {
        return Ok((packed, scales));
    };
    let values = x.iter().map(|x| (*x).into()).enumerate().skip(from);
    let mut bad = values.filter(|(_, x): &(usize, f64)| !(*x as f32).is_finite());
    Err(bad.next().unwrap_or((from, f64::NAN)))
}
