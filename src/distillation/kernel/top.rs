//! The k likeliest symbols one by one, and all others as one.

use super::Plan;
use super::block::{Side, gradient, largest, log_p, scaled, sums, total};
use super::number::{BLOCK, Number, Reader};
use super::row::{Row, value_and_mean};
use crate::distillation::divergence::{ChosenBy, Direction, TopK};
use crate::simd::Fused;

/// The symbols that stand alone, and the slope of the others.
#[derive(Clone, Debug)]
pub(super) struct Top {
    /// In ascending order.
    symbols: Vec<u32>,
    /// log Σ q of the others.
    log_others: f64,
    /// The slope that the others share, each as its part of their probability.
    slope: f64,
}

/// The symbols that the choice names, in ascending order. Of equal ones the first is taken.
pub(in crate::distillation) fn choose<W: Copy + Into<f64>>(
    student: &[W],
    teacher: &[W],
    top: TopK,
) -> Vec<u32> {
    let of = |row: &[W]| {
        let mut symbols: Vec<u32> = (0..row.len() as u32).collect();
        let z = |v: u32| -> f64 { row[v as usize].into() };
        if top.k < symbols.len() {
            symbols.select_nth_unstable_by(top.k, |&a, &b| {
                z(b).total_cmp(&z(a)).then_with(|| a.cmp(&b))
            });
            symbols.truncate(top.k);
        }
        symbols
    };
    let mut symbols = match top.of {
        ChosenBy::Student => of(student),
        ChosenBy::Teacher => of(teacher),
        ChosenBy::Either => [of(student), of(teacher)].concat(),
    };
    symbols.sort_unstable();
    symbols.dedup();
    symbols
}

/// The row's state from both whole rows.
pub(super) fn forward<W: Number>(
    fused: Fused,
    plan: &Plan,
    top: TopK,
    read: (&Reader<W>, &Reader<W>),
    (from, len): (usize, usize),
    (student, teacher): (Side, Side),
) -> Row {
    let whole = |read: &Reader<W>, side: &Side| {
        let mut row = vec![W::default(); len];
        read(from, &mut row);
        scaled(&mut row, plan.scale);
        log_p(side, &mut row);
        row
    };
    let (mut s, mut t) = (whole(read.0, &student), whole(read.1, &teacher));
    let symbols = choose(&s, &t, top);
    let taken = |row: &mut [W]| -> Vec<f64> {
        let take = |&v: &u32| std::mem::replace(&mut row[v as usize], W::IMPOSSIBLE).into();
        symbols.iter().map(take).collect()
    };
    let (mut each_s, mut each_t) = (taken(&mut s), taken(&mut t));
    let (others_s, others_t) = (log_sum(fused, &s), log_sum(fused, &t));
    each_s.push(others_s);
    each_t.push(others_t);
    let sums = sums(fused, plan.direction, &each_s, &each_t);
    let (value, mean) = value_and_mean(plan.direction, sums);
    let mut slope = [others_s];
    gradient(fused, plan.direction, mean, 1.0, &mut slope, &[others_t]);
    Row {
        student,
        teacher,
        value,
        mean,
        top: Some(Box::new(Top {
            symbols,
            log_others: others_s,
            slope: slope[0],
        })),
    }
}

/// log Σ e^x, relative to the largest, so that it does not vanish where every e^x does.
#[inline(always)]
fn log_sum<W: Number>(fused: Fused, row: &[W]) -> f64 {
    let max = largest(row);
    if max == W::IMPOSSIBLE {
        // none is left, or NaN
        let sum: f64 = row.iter().map(|&x| W::exp(fused, x).into()).sum();
        return sum.ln();
    }
    let blocks = row.chunks(BLOCK);
    let sum: f64 = blocks
        .map(|block| total(block, |x| W::exp(fused, x - max)))
        .sum();
    max.into() + sum.ln()
}

impl Top {
    /// As [`gradient`], for the symbols from `at` on.
    #[inline(always)]
    pub(super) fn gradient<W: Number>(
        &self,
        fused: Fused,
        (direction, mean, grad): (Direction, f64, f64),
        s: &mut [W],
        t: &[W],
        at: usize,
    ) {
        let first = self.symbols.partition_point(|&v| (v as usize) < at);
        let inside = self.symbols[first..].iter().map(|&v| v as usize - at);
        let inside = inside.take_while(|&v| v < s.len());
        let each = inside.map(|v| {
            let mut one = [s[v].into()];
            gradient(fused, direction, mean, grad, &mut one, &[t[v].into()]);
            (v, one[0])
        });
        let each: Vec<(usize, f64)> = each.collect();
        // where the others are impossible, e^x is 0 relative to anything
        let all = match self.log_others == f64::NEG_INFINITY {
            true => W::default(),
            false => W::nearest(self.log_others),
        };
        let slope = W::nearest(grad * self.slope);
        for s in s.iter_mut() {
            let part = W::exp(fused, *s - all);
            *s = if part == W::default() {
                part
            } else {
                slope * part
            };
        }
        for (v, slope) in each {
            s[v] = W::nearest(slope);
        }
    }
}
