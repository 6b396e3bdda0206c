//! The types of tensors, the types that they are computed in, and the sums of a row.

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, WithDType, bail};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Partial sums of a row. Their number is fixed, so the width of the instructions changes no bit.
const LANES: usize = 32;
/// Elements that one set of partial sums covers.
const BLOCK: usize = 1024;

/// A type that is computed in.
pub(super) trait Wide:
    Copy
    + Default
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + 'static
{
    const ONE: Self;
    const LEAST: Self;
    fn of(x: f64) -> Self;
    fn double(self) -> f64;
    /// e^x for x ≤ 0.
    fn exp(self) -> Self;
}

impl Wide for f32 {
    const ONE: Self = 1.0;
    const LEAST: Self = f32::NEG_INFINITY;
    #[inline(always)]
    fn of(x: f64) -> Self {
        x as f32
    }
    #[inline(always)]
    fn double(self) -> f64 {
        self as f64
    }
    #[inline(always)]
    fn exp(self) -> Self {
        // product and sum are rounded apart, so that every processor gives the same bits
        crate::exp::exp(crate::simd::Fused::NEVER, self)
    }
}

impl Wide for f64 {
    const ONE: Self = 1.0;
    const LEAST: Self = f64::NEG_INFINITY;
    #[inline(always)]
    fn of(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn double(self) -> f64 {
        self
    }
    #[inline(always)]
    fn exp(self) -> Self {
        f64::exp(self)
    }
}

/// A tensor's type.
pub(super) trait Element: WithDType + Default {
    /// f64 for f64, f32 for the others.
    type Wide: Wide;
    /// The row, converted into `buffer` where that is needed.
    fn wide<'a>(row: &'a [Self], buffer: &'a mut Vec<Self::Wide>) -> &'a [Self::Wide];
    /// Lets `write` fill the row, by way of `buffer` where that is needed.
    fn fill(row: &mut [Self], buffer: &mut Vec<Self::Wide>, write: impl FnOnce(&mut [Self::Wide]));
}

macro_rules! wide_element {
    ($t:ty) => {
        impl Element for $t {
            type Wide = $t;
            #[inline(always)]
            fn wide<'a>(row: &'a [Self], _: &'a mut Vec<Self>) -> &'a [Self] {
                row
            }
            #[inline(always)]
            fn fill(row: &mut [Self], _: &mut Vec<Self>, write: impl FnOnce(&mut [Self])) {
                write(row)
            }
        }
    };
}
wide_element!(f32);
wide_element!(f64);

macro_rules! half_element {
    ($t:ty) => {
        impl Element for $t {
            type Wide = f32;
            #[inline(always)]
            fn wide<'a>(row: &'a [Self], buffer: &'a mut Vec<f32>) -> &'a [f32] {
                buffer.resize(row.len(), 0.0);
                row.convert_to_f32_slice(buffer);
                buffer
            }
            #[inline(always)]
            fn fill(row: &mut [Self], buffer: &mut Vec<f32>, write: impl FnOnce(&mut [f32])) {
                buffer.resize(row.len(), 0.0);
                write(buffer);
                row.convert_from_f32_slice(buffer);
            }
        }
    };
}
half_element!(bf16);
half_element!(f16);

/// Calls a function of one type parameter for the type of a tensor.
macro_rules! by_type {
    ($dtype:expr, $name:literal, $t:ident => $call:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $t = f32;
                $call
            }
            candle_core::DType::F64 => {
                type $t = f64;
                $call
            }
            candle_core::DType::BF16 => {
                type $t = half::bf16;
                $call
            }
            candle_core::DType::F16 => {
                type $t = half::f16;
                $call
            }
            other => candle_core::bail!(concat!("unsupported dtype for ", $name, " {:?}"), other),
        }
    };
}
pub(super) use by_type;

/// The arguments are of one floating-point type.
pub(super) fn same_type(name: &str, tensors: &[&Tensor]) -> Result<()> {
    let types: Vec<DType> = tensors.iter().map(|t| t.dtype()).collect();
    let float = matches!(types[0], DType::F32 | DType::F64 | DType::BF16 | DType::F16);
    if !float || types.iter().any(|dtype| *dtype != types[0]) {
        let list: Vec<String> = types.iter().map(|dtype| format!("{dtype:?}")).collect();
        bail!("unsupported dtype for {name} {}", list.join(" "));
    }
    Ok(())
}

/// As f32 if it is bf16 or f16.
pub(super) fn widened(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::BF16 | DType::F16 => x.to_dtype(DType::F32),
        _ => Ok(x.clone()),
    }
}

/// The same tensor, contiguous. The copy is part of the graph.
pub(super) fn dense(x: &Tensor) -> Result<Tensor> {
    let x = crate::known::readable(x).map_err(candle_core::Error::wrap)?;
    x.contiguous()
}

/// The elements of a contiguous tensor.
pub(super) fn elements<'a, T: Element>(
    storage: &'a CpuStorage,
    layout: &Layout,
) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("input has to be contiguous")
    };
    if start == end {
        return Ok(&[]);
    }
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// The same in a backward pass.
pub(super) fn of_tensor<'a, T: Element>(
    (storage, layout): &'a (impl std::ops::Deref<Target = Storage>, &'a Layout),
) -> Result<&'a [T]> {
    match &**storage {
        Storage::Cpu(storage) => elements(storage, layout),
        _ => bail!("a tensor has left the CPU"),
    }
}

/// The gradient of an argument, if it is part of a graph. Another one has no use for it, and candle would keep
/// it.
pub(super) fn gradient<T: Element>(of: Vec<T>, argument: &Tensor) -> Result<Option<Tensor>> {
    match argument.track_op() {
        true => Tensor::from_vec(of, argument.shape(), argument.device()).map(Some),
        false => Ok(None),
    }
}

/// The partial sums, or other results, as one.
#[inline(always)]
fn together<W: Wide>(mut lanes: [W; LANES], both: impl Fn(W, W) -> W) -> W {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] = both(lanes[i], lanes[i + width]);
        }
    }
    lanes[0]
}

/// Σ term(aᵢ, bᵢ).
#[allow(clippy::needless_range_loop)] // the compiler vectorizes loops over numbers, not over iterators
#[inline(always)]
pub(super) fn sum<W: Wide>(a: &[W], b: &[W], term: impl Fn(W, W) -> W) -> f64 {
    let mut sum = 0.0;
    for (a, b) in a.chunks(BLOCK).zip(b.chunks(BLOCK)) {
        let mut lanes = [W::default(); LANES];
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        for (a, b) in a.iter().zip(b) {
            // all terms before the first sum: the compiler vectorizes either loop, but not both as one
            let mut terms = [W::default(); LANES];
            for i in 0..LANES {
                terms[i] = term(a[i], b[i]);
            }
            for i in 0..LANES {
                lanes[i] = lanes[i] + terms[i];
            }
        }
        for ((lane, &a), &b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
            *lane = *lane + term(a, b);
        }
        sum += together(lanes, |a, b| a + b).double();
    }
    sum
}

/// The largest element that is not NaN, or −∞.
#[allow(clippy::needless_range_loop)] // the compiler vectorizes loops over numbers, not over iterators
#[inline(always)]
pub(super) fn largest<W: Wide>(x: &[W]) -> W {
    let more = |a: W, b: W| if b > a { b } else { a };
    let mut lanes = [W::LEAST; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = more(lanes[i], chunk[i]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = more(*lane, x);
    }
    together(lanes, more)
}
