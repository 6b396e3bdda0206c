//! The k likeliest symbols one by one, and all others as one.

use super::Plan;
use super::block::{Side, gradient, log_p, scaled, sums};
use super::number::{Number, Reader};
use super::parts::{Row, Top, side, value_and_mean};
use crate::distillation::direction::{ChosenBy, Direction, TopK};
use crate::simd::Fused;

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
    let whole = |read: &Reader<W>| {
        let mut row = vec![W::default(); len];
        read(from, &mut row);
        scaled(&mut row, plan.scale);
        row
    };
    let (mut s, mut t) = (whole(read.0), whole(read.1));
    let symbols = choose(&s, &t, top);
    // their log-probabilities, and the distribution over the others
    let split = |row: &mut [W], of: &Side| -> (Vec<f64>, Side) {
        let take = |&v: &u32| std::mem::replace(&mut row[v as usize], W::IMPOSSIBLE);
        let mut each: Vec<W> = symbols.iter().map(take).collect();
        log_p(of, &mut each);
        let read: Reader<W> =
            Box::new(|from, out| out.copy_from_slice(&row[from..from + out.len()]));
        let others = side(fused, &read, (0, len), 1.0);
        let mut each: Vec<f64> = each.into_iter().map(W::into).collect();
        each.push(log_mass(&others, of));
        (each, others)
    };
    let (each_s, others) = split(&mut s, &student);
    let (each_t, _) = split(&mut t, &teacher);
    let (terms_s, terms_t) = (&mut each_s.clone(), &mut each_t.clone());
    let sums = sums(fused, plan.direction, terms_s, terms_t);
    let (value, mean) = value_and_mean(plan.direction, sums);
    let mut slope = each_s[symbols.len()..].to_vec();
    let last = &each_t[symbols.len()..];
    gradient(fused, plan.direction, mean, 1.0, &mut slope, last);
    Row {
        student,
        teacher,
        value,
        mean,
        top: Some(Box::new(Top {
            symbols,
            others,
            slope: slope.iter().sum(),
        })),
    }
}

/// log of the probability of some symbols together, from the distribution over them and that over all.
fn log_mass(some: &Side, all: &Side) -> f64 {
    let below = match (some.max == all.max, some.max == f64::NEG_INFINITY) {
        // also where both are +∞
        (true, _) => 0.0,
        // −∞, or NaN if one of them is
        (false, true) => return some.log_sum,
        (false, false) => some.max - all.max,
    };
    below + some.log_sum - all.log_sum
}

impl Top {
    /// As [`gradient`], from logits, for the symbols from `at` on.
    #[inline(always)]
    pub(super) fn gradient<W: Number>(
        &self,
        fused: Fused,
        (student, teacher): (&Side, &Side),
        (direction, mean, grad): (Direction, f64, f64),
        s: &mut [W],
        t: &[W],
        at: usize,
    ) {
        let first = self.symbols.partition_point(|&v| (v as usize) < at);
        let inside = self.symbols[first..].iter().map(|&v| v as usize - at);
        let inside = inside.take_while(|&v| v < s.len());
        let each = inside.map(|v| {
            let (mut z_s, mut z_t) = ([s[v]], [t[v]]);
            log_p(student, &mut z_s);
            log_p(teacher, &mut z_t);
            let mut one = [z_s[0].into()];
            gradient(fused, direction, mean, grad, &mut one, &[z_t[0].into()]);
            (v, one[0])
        });
        let each: Vec<(usize, f64)> = each.collect();
        // each other one has its part of the slope that they share
        log_p(&self.others, s);
        let slope = W::nearest(grad * self.slope);
        let none = self.others.max == f64::NEG_INFINITY;
        for s in s.iter_mut() {
            let part = if none {
                W::default()
            } else {
                W::exp(fused, *s)
            };
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
