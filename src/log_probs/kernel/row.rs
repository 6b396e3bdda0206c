//! One row of logits: its statistics in one pass, its gradient in another.
//!
//! A row is read block by block; a block fits the first-level cache, so its maximum and its sums
//! cost one read of memory. Sums run over [`LANES`] partial sums in single precision within a block
//! and in double precision from block to block: the result does not depend on the row's length in
//! any way that single precision would show, nor on the number of threads.

use super::exp::{exp, multiply_add};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::mem::MaybeUninit;

/// Elements read at a time.
const BLOCK: usize = 1024;
/// Partial sums kept at a time.
const LANES: usize = 32;

/// What a row's distribution needs to be known: pᵥ = e^{zᵥ − max} / sum.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::log_probs) struct Row {
    /// The largest logit.
    pub(super) max: f64,
    /// Σ e^{z − max}.
    pub(super) sum: f64,
    /// Σ (z − max) e^{z − max}, over the logits that are not −∞.
    pub(super) weighted: f64,
    /// Σ e^{2(z − max)}.
    pub(super) squares: f64,
    /// Σ (z − max) over the logits that are not −∞, and how many those are.
    pub(super) total: f64,
    pub(super) count: f64,
}

impl Row {
    /// log Σ e^{z − max}.
    pub(super) fn log_sum(&self) -> f64 {
        self.sum.ln()
    }

    /// H = log Σ e^{z − max} − Σ p (z − max).
    pub(super) fn entropy(&self) -> f64 {
        self.log_sum() - self.weighted / self.sum
    }

    /// log Σ p².
    pub(super) fn log_collision(&self) -> f64 {
        self.squares.ln() - 2.0 * self.log_sum()
    }

    /// Mean of log p over the logits that are not −∞.
    pub(super) fn mean(&self) -> f64 {
        self.total / self.count - self.log_sum()
    }
}

/// What the gradient of a row is made of: dzᵥ = onehot·[v = target] + even·[zᵥ > −∞]
/// + pᵥ (plain + entropy·(zᵥ − max)) + squares·e^{2(zᵥ − max)}.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slopes {
    pub(super) onehot: f64,
    pub(super) even: f64,
    pub(super) plain: f64,
    pub(super) entropy: f64,
    pub(super) squares: f64,
}

impl Slopes {
    /// Whether p alone is needed, as without further statistics.
    pub(super) fn is_plain(&self) -> bool {
        self.even == 0.0 && self.entropy == 0.0 && self.squares == 0.0
    }
}

/// A logit's type: its rows' statistics and gradients.
pub(super) trait Element: Copy + Send + Sync + Default + Slot<Self> + 'static {
    /// The statistics of a row; `full` asks for more than the maximum and the sum.
    fn statistics(width: Width, row: &[Self], full: bool) -> Row;
    /// One logit as f64.
    fn to_f64(self) -> f64;
    /// The gradient of a row or of a part of it, written whole; the target if it is in that part.
    fn gradient<O: Slot<Self>>(
        width: Width,
        row: &[Self],
        stats: &Row,
        slopes: &Slopes,
        target: Option<usize>,
        out: &mut [O],
    );

    /// The gradient of a row in the row's own place.
    fn gradient_in_place(
        width: Width,
        row: &mut [Self],
        stats: &Row,
        slopes: &Slopes,
        target: Option<usize>,
    ) {
        let mut old = [Self::default(); BLOCK];
        for (i, block) in row.chunks_mut(BLOCK).enumerate() {
            let old = &mut old[..block.len()];
            old.copy_from_slice(block);
            let target = target
                .and_then(|target| target.checked_sub(i * BLOCK))
                .filter(|at| *at < old.len());
            Self::gradient(width, old, stats, slopes, target, block);
        }
    }
}

/// A place that a number is written to: memory that holds one already, or none yet.
pub(super) trait Slot<T> {
    fn put(&mut self, value: T);
}

impl<T> Slot<T> for MaybeUninit<T> {
    #[inline(always)]
    fn put(&mut self, value: T) {
        self.write(value);
    }
}

macro_rules! slot {
    ($($t:ty),*) => {$(
        impl Slot<$t> for $t {
            #[inline(always)]
            fn put(&mut self, value: $t) {
                *self = value;
            }
        }
    )*};
}
slot!(f32, f64, bf16, f16);

/// A type computed in single precision.
trait Single: Copy + Default + Sized {
    /// The block as f32: itself, or converted into `buffer`.
    fn widen<'a>(block: &'a [Self], buffer: &'a mut [f32; BLOCK]) -> &'a [f32];
    /// Writes `f(x)` for each x of the block.
    fn write<O: Slot<Self>>(block: &[f32], out: &mut [O], f: impl Fn(f32) -> f32);
    /// A number in this type.
    fn round(value: f32) -> Self;
}

impl Single for f32 {
    #[inline(always)]
    fn widen<'a>(block: &'a [Self], _: &'a mut [f32; BLOCK]) -> &'a [f32] {
        block
    }
    #[inline(always)]
    fn write<O: Slot<Self>>(block: &[f32], out: &mut [O], f: impl Fn(f32) -> f32) {
        for (o, &x) in out.iter_mut().zip(block) {
            o.put(f(x));
        }
    }
    #[inline(always)]
    fn round(value: f32) -> Self {
        value
    }
}

macro_rules! half_single {
    ($t:ty) => {
        impl Single for $t {
            #[inline(always)]
            fn widen<'a>(block: &'a [Self], buffer: &'a mut [f32; BLOCK]) -> &'a [f32] {
                let buffer = &mut buffer[..block.len()];
                block.convert_to_f32_slice(buffer);
                buffer
            }
            #[inline(always)]
            fn write<O: Slot<Self>>(block: &[f32], out: &mut [O], f: impl Fn(f32) -> f32) {
                let (mut wide, mut narrow) = ([0f32; BLOCK], [<$t>::ZERO; BLOCK]);
                let n = block.len();
                for (w, &x) in wide.iter_mut().zip(block) {
                    *w = f(x);
                }
                narrow[..n].convert_from_f32_slice(&wide[..n]);
                for (o, x) in out.iter_mut().zip(narrow) {
                    o.put(x);
                }
            }
            #[inline(always)]
            fn round(value: f32) -> Self {
                <$t>::from_f32(value)
            }
        }
    };
}
half_single!(bf16);
half_single!(f16);

/// Σ of the partial sums in double precision.
#[inline(always)]
fn total(lanes: &[f32; LANES]) -> f64 {
    lanes.iter().map(|&x| x as f64).sum()
}

#[inline(always)]
fn statistics<T: Single, const FMA: bool, const FULL: bool>(row: &[T]) -> Row {
    let mut buffer = [0f32; BLOCK];
    let mut max = f32::NEG_INFINITY;
    let (mut sum, mut weighted, mut squares, mut values, mut count) =
        (0f64, 0f64, 0f64, 0f64, 0f64);
    for block in row.chunks(BLOCK) {
        let block = T::widen(block, &mut buffer);

        let mut highest = [f32::NEG_INFINITY; LANES];
        let chunks = block.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (h, &x) in highest.iter_mut().zip(chunk) {
                *h = if x > *h { x } else { *h };
            }
        }
        for (h, &x) in highest.iter_mut().zip(rest) {
            *h = if x > *h { x } else { *h };
        }
        let block_max = highest
            .iter()
            .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        if block_max > max {
            // what was summed about the old maximum is moved to the new one
            if max > f32::NEG_INFINITY {
                let by = max as f64 - block_max as f64;
                let scale = by.exp();
                if FULL {
                    weighted = (weighted + by * sum) * scale;
                    squares *= scale * scale;
                    values += by * count;
                }
                sum *= scale;
            }
            max = block_max;
        }

        let (mut s, mut w, mut q) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
        let (mut v, mut c) = ([0f32; LANES], [0f32; LANES]);
        let mut take = |chunk: &[f32]| {
            for (i, &x) in chunk.iter().enumerate() {
                let d = x - max;
                let e = exp::<FMA>(d);
                s[i] += e;
                if FULL {
                    let finite = d > f32::NEG_INFINITY;
                    let d = if finite { d } else { 0.0 };
                    w[i] = multiply_add::<FMA>(d, e, w[i]);
                    q[i] = multiply_add::<FMA>(e, e, q[i]);
                    v[i] += d;
                    c[i] += if finite { 1.0 } else { 0.0 };
                }
            }
        };
        let chunks = block.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            take(chunk);
        }
        take(rest);
        sum += total(&s);
        if FULL {
            weighted += total(&w);
            squares += total(&q);
            values += total(&v);
            count += total(&c);
        }
    }
    Row {
        max: max as f64,
        sum,
        weighted,
        squares,
        total: values,
        count,
    }
}

#[inline(always)]
fn gradient<T: Single, O: Slot<T>, const FMA: bool>(
    row: &[T],
    stats: &Row,
    slopes: &Slopes,
    target: Option<usize>,
    out: &mut [O],
) {
    let mut buffer = [0f32; BLOCK];
    let max = stats.max as f32;
    let plain = (slopes.plain / stats.sum) as f32;
    let weighted = (slopes.entropy / stats.sum) as f32;
    let (even, squares) = (slopes.even as f32, slopes.squares as f32);
    let one = |x: f32| {
        let d = x - max;
        plain * exp::<FMA>(d)
    };
    let full = |x: f32| {
        let d = x - max;
        let e = exp::<FMA>(d);
        let finite = d > f32::NEG_INFINITY;
        let d = if finite { d } else { 0.0 };
        let of_p = multiply_add::<FMA>(weighted, d, multiply_add::<FMA>(squares, e, plain));
        multiply_add::<FMA>(of_p, e, if finite { even } else { 0.0 })
    };
    let is_plain = slopes.is_plain();
    for (block, out) in row.chunks(BLOCK).zip(out.chunks_mut(BLOCK)) {
        let block = T::widen(block, &mut buffer);
        match is_plain {
            true => T::write(block, out, one),
            false => T::write(block, out, full),
        }
    }
    if let Some(target) = target {
        let x = T::widen(&row[target..target + 1], &mut buffer)[0];
        let value = if is_plain { one(x) } else { full(x) };
        out[target].put(T::round(value + slopes.onehot as f32));
    }
}

#[inline(always)]
fn either<T: Single, const FMA: bool>(row: &[T], full: bool) -> Row {
    match full {
        true => statistics::<T, FMA, true>(row),
        false => statistics::<T, FMA, false>(row),
    }
}

/// Whether a product and a sum are one instruction without asking the processor.
const PLAIN_FMA: bool = cfg!(target_feature = "fma") || cfg!(target_arch = "aarch64");

/// The widest instructions that this processor has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Width {
    /// What the program was compiled for.
    Plain,
    #[cfg(target_arch = "x86_64")]
    /// Eight numbers at a time.
    Avx2,
    #[cfg(target_arch = "x86_64")]
    /// Sixteen.
    Avx512,
}

impl Width {
    pub(super) fn widest() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("fma") {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") {
                return Self::Avx2;
            }
        }
        Self::Plain
    }
}

/// The same code compiled for one width.
#[cfg(target_arch = "x86_64")]
macro_rules! compiled {
    ($name:ident, $features:literal, $t:ty) => {
        mod $name {
            use super::*;

            #[target_feature(enable = $features)]
            pub(super) fn statistics(row: &[$t], full: bool) -> Row {
                either::<$t, true>(row, full)
            }

            #[target_feature(enable = $features)]
            pub(super) fn gradient<O: Slot<$t>>(
                row: &[$t],
                stats: &Row,
                slopes: &Slopes,
                target: Option<usize>,
                out: &mut [O],
            ) {
                super::gradient::<$t, O, true>(row, stats, slopes, target, out)
            }
        }
    };
}

/// The same code at every width, chosen when the program runs.
macro_rules! single_element {
    ($t:ty, $avx2:ident, $avx512:ident) => {
        #[cfg(target_arch = "x86_64")]
        compiled!($avx2, "avx2,fma", $t);
        #[cfg(target_arch = "x86_64")]
        compiled!($avx512, "avx512f,avx512dq,avx2,fma", $t);

        impl Element for $t {
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn statistics(width: Width, row: &[Self], full: bool) -> Row {
                match width {
                    // SAFETY: `Width::widest` found AVX-512 (F, DQ) and FMA; AVX2 comes with them.
                    #[cfg(target_arch = "x86_64")]
                    #[allow(unsafe_code)]
                    Width::Avx512 => unsafe { $avx512::statistics(row, full) },
                    // SAFETY: `Width::widest` found AVX2 and FMA.
                    #[cfg(target_arch = "x86_64")]
                    #[allow(unsafe_code)]
                    Width::Avx2 => unsafe { $avx2::statistics(row, full) },
                    Width::Plain => either::<$t, PLAIN_FMA>(row, full),
                }
            }
            fn gradient<O: Slot<Self>>(
                width: Width,
                row: &[Self],
                stats: &Row,
                slopes: &Slopes,
                target: Option<usize>,
                out: &mut [O],
            ) {
                match width {
                    // SAFETY: as in `statistics`.
                    #[cfg(target_arch = "x86_64")]
                    #[allow(unsafe_code)]
                    Width::Avx512 => unsafe { $avx512::gradient(row, stats, slopes, target, out) },
                    // SAFETY: as in `statistics`.
                    #[cfg(target_arch = "x86_64")]
                    #[allow(unsafe_code)]
                    Width::Avx2 => unsafe { $avx2::gradient(row, stats, slopes, target, out) },
                    Width::Plain => gradient::<$t, O, PLAIN_FMA>(row, stats, slopes, target, out),
                }
            }
        }
    };
}
single_element!(f32, avx2_f32, avx512_f32);
single_element!(bf16, avx2_bf16, avx512_bf16);
single_element!(f16, avx2_f16, avx512_f16);

impl Element for f64 {
    fn statistics(_: Width, row: &[Self], _full: bool) -> Row {
        let max = row
            .iter()
            .fold(f64::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        let mut out = Row {
            max,
            ..Row::default()
        };
        for &x in row {
            let d = x - max;
            let e = d.exp();
            out.sum += e;
            out.squares += e * e;
            if d > f64::NEG_INFINITY {
                out.weighted += d * e;
                out.total += d;
                out.count += 1.0;
            }
        }
        out
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn gradient<O: Slot<Self>>(
        _: Width,
        row: &[Self],
        stats: &Row,
        slopes: &Slopes,
        target: Option<usize>,
        out: &mut [O],
    ) {
        for (v, (o, &x)) in out.iter_mut().zip(row).enumerate() {
            let d = x - stats.max;
            let e = d.exp();
            let (d, even) = if d > f64::NEG_INFINITY {
                (d, slopes.even)
            } else {
                (0.0, 0.0)
            };
            let of_p = (slopes.plain + slopes.entropy * d) / stats.sum + slopes.squares * e;
            let onehot = if Some(v) == target {
                slopes.onehot
            } else {
                0.0
            };
            o.put(of_p * e + even + onehot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of 2000 terms in single precision, in another order of roundings.
    const SINGLE: f64 = 1e-5;

    fn widths() -> Vec<Width> {
        let mut widths = vec![Width::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            let widest = Width::widest();
            widths.extend(
                [Width::Avx2, Width::Avx512]
                    .into_iter()
                    .filter(|&w| w == widest || (w == Width::Avx2 && widest == Width::Avx512)),
            );
        }
        widths
    }

    #[test]
    fn every_width_gives_the_same_numbers() {
        let mut row: Vec<f32> = (0..2047).map(|i| (i as f32 * 0.7).sin() * 9.0).collect();
        row[1500] = f32::NEG_INFINITY;
        let slopes = Slopes {
            onehot: 0.7,
            even: 0.01,
            plain: -0.7,
            entropy: 0.3,
            squares: 0.2,
        };
        let all = |width| {
            let stats = f32::statistics(width, &row, true);
            let mut out = vec![0f32; row.len()];
            f32::gradient(width, &row, &stats, &slopes, Some(1030), &mut out);
            let mut numbers = vec![stats.max, stats.sum, stats.weighted];
            numbers.extend([stats.squares, stats.total / 1e3, stats.count]);
            numbers.extend(out.iter().map(|&x| x as f64));
            numbers
        };
        let plain = all(Width::Plain);
        for width in widths() {
            for (a, b) in all(width).iter().zip(&plain) {
                let near = (a - b).abs() <= SINGLE * b.abs().max(1.0);
                assert!(near, "{width:?}: {a} against {b}");
            }
        }
    }
}
