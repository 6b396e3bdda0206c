//! One row of logits in single precision: its statistics in one pass, its gradient in another.
//!
//! A row is read once, block by block. Its sums are relative to the largest element so far. A block that
//! holds a larger one is summed again while it still is in the first-level cache. Within a block there are
//! [`LANES`] partial sums in single precision; from block to block the sums are in double precision. So a
//! long row loses no more accuracy than a short one, and the result does not depend on the number of
//! threads.

use super::row::Row;
use super::single::{BLOCK, Single, Slot};
use super::slopes::Slopes;
use crate::exp::exp;
use crate::simd::Fused;

/// Partial sums kept at a time.
const LANES: usize = 32;

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
fn block_sums<const FULL: bool>(fused: Fused, block: &[f32], max: f32) -> (Row, f32) {
    let mut highest = [f32::NEG_INFINITY; LANES];
    let (mut s, mut w, mut q) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
    let (mut v, mut c) = ([0f32; LANES], [0f32; LANES]);
    let mut take = |chunk: &[f32]| {
        for (i, &x) in chunk.iter().enumerate() {
            highest[i] = if x > highest[i] { x } else { highest[i] };
            let d = x - max;
            let e = exp(fused, d);
            s[i] += e;
            if FULL {
                let finite = d > f32::NEG_INFINITY;
                let d = if finite { d } else { 0.0 };
                w[i] = fused.multiply_add(d, e, w[i]);
                q[i] = fused.multiply_add(e, e, q[i]);
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
fn sums<T: Single, const FULL: bool>(fused: Fused, row: &[T]) -> Row {
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
        let (mut sums, highest) = block_sums::<FULL>(fused, block, max);
        if highest > max {
            row_sums.move_to(highest as f64, max as f64);
            max = highest;
            sums = block_sums::<FULL>(fused, block, max).0;
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
pub(super) fn gradient<T: Single, O: Slot<T>>(
    fused: Fused,
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
        plain * exp(fused, d)
    };
    let full = |x: f32| {
        let d = x - max;
        let e = exp(fused, d);
        let finite = d > f32::NEG_INFINITY;
        let d = if finite { d } else { 0.0 };
        let of_p = fused.multiply_add(weighted, d, fused.multiply_add(squares, e, plain));
        fused.multiply_add(of_p, e, if finite { even } else { 0.0 })
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
pub(super) fn statistics<T: Single>(fused: Fused, row: &[T], full: bool) -> Row {
    match full {
        true => sums::<T, true>(fused, row),
        false => sums::<T, false>(fused, row),
    }
}
