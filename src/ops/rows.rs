//! Rows shared out among threads, and sums over rows that do not depend on their number.

use super::element::{Element, Wide};
use crate::simd::Width;
use rayon::prelude::*;
use std::ops::Range;

/// Up to this many elements no other thread is woken, because waking one takes longer.
const FEW: usize = 1 << 15;
/// Elements that a thread takes at a time, at least.
const TASK: usize = 1 << 13;
/// Tasks of one operation, at most, so that the partial sums stay few.
const TASKS: usize = 128;

/// Runs `task` over all rows, some at a time, each time with the same rows of the outputs, which are given
/// with the lengths of their rows. An output that is not wanted is empty.
///
/// The tasks depend on the shape alone, and their results come in the order of the rows.
pub(super) fn in_tasks<T: Send, R: Send, const K: usize>(
    rows: usize,
    width: usize,
    outputs: [(&mut [T], usize); K],
    task: impl Fn(Range<usize>, [&mut [T]; K]) -> R + Sync,
) -> Vec<R> {
    let each = (TASK / width.max(1)).max(rows.div_ceil(TASKS)).max(1);
    let mut outputs = outputs.map(|(out, width)| out.chunks_mut((each * width).max(1)));
    let mut parts = Vec::with_capacity(rows.div_ceil(each));
    for first in (0..rows).step_by(each) {
        let outputs = outputs.each_mut().map(|out| out.next().unwrap_or_default());
        parts.push((first..rows.min(first + each), outputs));
    }
    let few = rows * width <= FEW;
    let width = Width::widest();
    let run = |(rows, outputs)| {
        width.run(
            #[inline(always)]
            |_| task(rows, outputs),
        )
    };
    match few {
        true => parts.into_iter().map(run).collect(),
        false => parts.into_par_iter().map(run).collect(),
    }
}

/// The row with this number.
#[inline(always)]
pub(super) fn row<T>(data: &[T], width: usize, row: usize) -> &[T] {
    &data[row * width..(row + 1) * width]
}

/// Rows that are added in single precision before they enter the sum in double precision.
const NEAR: usize = 32;

/// Sums of columns over the rows of one task.
pub(super) struct Columns<W> {
    near: Vec<W>,
    rows: usize,
    sums: Vec<f64>,
}

impl<W: Wide> Columns<W> {
    /// For this many columns; 0 if the sums are not wanted.
    pub(super) fn new(columns: usize) -> Self {
        Self {
            near: vec![W::default(); columns],
            rows: 0,
            sums: vec![0.0; columns],
        }
    }

    /// Adds term(aᵢ, bᵢ) to column i.
    #[inline(always)]
    pub(super) fn add(&mut self, a: &[W], b: &[W], term: impl Fn(W, W) -> W) {
        for ((sum, &a), &b) in self.near.iter_mut().zip(a).zip(b) {
            *sum = *sum + term(a, b);
        }
        self.rows += 1;
        if self.rows == NEAR {
            self.flush();
        }
    }

    #[inline(always)]
    fn flush(&mut self) {
        self.rows = 0;
        for (sum, near) in self.sums.iter_mut().zip(&mut self.near) {
            *sum += near.double();
            *near = W::default();
        }
    }

    #[inline(always)]
    pub(super) fn finish(mut self) -> Vec<f64> {
        self.flush();
        self.sums
    }
}

/// The sums of all tasks, in their order.
pub(super) fn total<'a, T: Element>(
    columns: usize,
    tasks: impl Iterator<Item = &'a Vec<f64>>,
) -> Vec<T> {
    let mut total = vec![0.0; columns];
    for sums in tasks {
        for (total, sum) in total.iter_mut().zip(sums) {
            *total += sum;
        }
    }
    total.into_iter().map(T::from_f64).collect()
}
