//! One row of logits: its statistics in one pass, its gradient in another.
//!
//! A row is read once, block by block. Its sums are relative to the largest element so far. A block that
//! holds a larger one is summed again while it still is in the first-level cache. Within a block there are
//! [`LANES`] partial sums in single precision; from block to block the sums are in double precision. So a
//! long row loses no more accuracy than a short one, and the result does not depend on the number of
//! threads.

use crate::exp::{exp, multiply_add};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::mem::MaybeUninit;

/// Elements read at a time.
pub(super) const BLOCK: usize = 1024;
/// Partial sums kept at a time.
const LANES: usize = 32;

/// What determines a row's distribution: pᵥ = e^{zᵥ − max} / sum.
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
    /// Changes the sums from being relative to `old` to being relative to `max`.
    fn move_to(&mut self, max: f64, old: f64) {
        let by = old - max;
        let scale = by.exp();
        self.weighted = (self.weighted + by * self.sum) * scale;
        self.squares *= scale * scale;
        self.total += by * self.count;
        self.sum *= scale;
    }

    /// z − max − log Σ e^{z − max}, the log-probability of a symbol with logit z.
    pub(super) fn log_p(&self, z: f64) -> f64 {
        let below = match z == f64::INFINITY {
            // it is the maximum itself
            true => 0.0,
            false => z - self.max,
        };
        below - self.log_sum()
    }

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

/// The coefficients of the gradient of a row: dzᵥ = onehot·[v = target] + even·[zᵥ > −∞]
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
    /// Whether only p is needed, as it is without further statistics.
    pub(super) fn is_plain(&self) -> bool {
        self.even == 0.0 && self.entropy == 0.0 && self.squares == 0.0
    }
}

/// A place to write a number to: memory that already holds one, or uninitialized memory.
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
pub(super) trait Single: Copy + Default + Sized {
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

/// The largest element of a block, or −∞ if none is above that.
#[inline(always)]
fn largest(block: &[f32]) -> f32 {
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
    highest
        .iter()
        .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

/// What one block adds to a row, relative to a given maximum, and the block's own largest element.
#[inline(always)]
fn block_sums<const FMA: bool, const FULL: bool>(block: &[f32], max: f32) -> (Row, f32) {
    let mut highest = [f32::NEG_INFINITY; LANES];
    let (mut s, mut w, mut q) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
    let (mut v, mut c) = ([0f32; LANES], [0f32; LANES]);
    let mut take = |chunk: &[f32]| {
        for (i, &x) in chunk.iter().enumerate() {
            highest[i] = if x > highest[i] { x } else { highest[i] };
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
    let mut sums = Row {
        sum: total(&s),
        ..Row::default()
    };
    if FULL {
        sums.weighted = total(&w);
        sums.squares = total(&q);
        sums.total = total(&v);
        sums.count = total(&c);
    }
    let highest = highest
        .iter()
        .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    (sums, highest)
}

#[inline(always)]
fn statistics<T: Single, const FMA: bool, const FULL: bool>(row: &[T]) -> Row {
    let mut buffer = [0f32; BLOCK];
    let mut max = f32::NEG_INFINITY;
    let mut row_sums = Row::default();
    for block in row.chunks(BLOCK) {
        let block = T::widen(block, &mut buffer);
        if max == f32::NEG_INFINITY {
            max = largest(block);
        }
        if max == f32::NEG_INFINITY {
            // e^{−∞} adds nothing, whatever maximum follows; NaN stays NaN
            if block.iter().any(|x| x.is_nan()) {
                row_sums.sum = f64::NAN;
            }
            continue;
        }
        // relative to the maximum so far: the block's own is known only after reading it, and after the
        // first blocks it is seldom higher
        let (mut sums, highest) = block_sums::<FMA, FULL>(block, max);
        if highest > max {
            row_sums.move_to(highest as f64, max as f64);
            max = highest;
            sums = block_sums::<FMA, FULL>(block, max).0;
        }
        row_sums.sum += sums.sum;
        if FULL {
            row_sums.weighted += sums.weighted;
            row_sums.squares += sums.squares;
            row_sums.total += sums.total;
            row_sums.count += sums.count;
        }
    }
    row_sums.max = max as f64;
    row_sums
}

/// The gradient of a row or of a part of it.
#[inline(always)]
pub(super) fn gradient<T: Single, O: Slot<T>, const FMA: bool>(
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

/// The statistics of a row; `full` asks for more than the maximum and the sum.
#[inline(always)]
pub(super) fn either<T: Single, const FMA: bool>(row: &[T], full: bool) -> Row {
    match full {
        true => statistics::<T, FMA, true>(row),
        false => statistics::<T, FMA, false>(row),
    }
}
