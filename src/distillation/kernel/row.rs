//! The two passes over a row: its divergence, and the gradient of the student's logits.

use super::Plan;
use super::block::{Side, gradient, largest, log_p, scaled, sums, total};
use super::number::{BLOCK, Number, Reader};
use super::top::{self, Top};
use crate::distillation::divergence::Direction;
use crate::simd::Fused;

/// What the gradient of a row is computed from.
#[derive(Clone, Debug, Default)]
pub(in crate::distillation) struct Row {
    pub(super) student: Side,
    pub(super) teacher: Side,
    /// The divergence.
    pub(in crate::distillation) value: f64,
    /// The mean over the student's symbols of the logarithm that their slopes hold.
    pub(super) mean: f64,
    pub(super) top: Option<Box<Top>>,
}

/// The divergence and the mean, from the sums.
pub(super) fn value_and_mean(direction: Direction, (a, b): (f64, f64)) -> (f64, f64) {
    match direction {
        Direction::Forward => (a, 0.0),
        Direction::Reverse => (a, a),
        Direction::JensenShannon { weight } => ((1.0 - weight) * a + weight * b, a),
    }
}

/// Reads a row once.
#[inline(always)]
pub(super) fn side<W: Number>(
    fused: Fused,
    read: &Reader<W>,
    (from, len): (usize, usize),
    scale: f64,
) -> Side {
    let mut buffer = [W::default(); BLOCK];
    let (mut max, mut sum, mut certain) = (f64::NEG_INFINITY, 0f64, 0);
    for at in (0..len).step_by(BLOCK) {
        let block = &mut buffer[..BLOCK.min(len - at)];
        read(from + at, block);
        scaled(block, scale);
        let highest: f64 = largest(block).into();
        if highest == f64::INFINITY || max == f64::INFINITY || highest == f64::NEG_INFINITY {
            let z = || block.iter().map(|&x| -> f64 { x.into() });
            certain += z().filter(|z| *z == f64::INFINITY).count();
            max = max.max(highest);
            if z().any(f64::is_nan) {
                sum = f64::NAN;
            }
            continue;
        }
        if highest > max {
            sum *= (max - highest).exp();
            max = highest;
        }
        let below = W::nearest(max);
        sum += total(block, |x| W::exp(fused, x - below));
    }
    let log_sum = match certain {
        0 => sum.ln(),
        // the limit as one logit grows beyond all others
        1 if !sum.is_nan() => 0.0,
        _ => f64::NAN,
    };
    Side { max, log_sum }
}

/// The divergence of one row, and what its gradient needs.
#[inline(always)]
pub(super) fn forward<W: Number>(
    fused: Fused,
    plan: &Plan,
    read: (&Reader<W>, &Reader<W>),
    span: (usize, usize),
) -> Row {
    let student = side(fused, read.0, span, plan.scale);
    let teacher = side(fused, read.1, span, plan.scale);
    if let Some(top) = plan.top {
        return top::forward(fused, plan, top, read, span, (student, teacher));
    }
    let (mut s, mut t) = ([W::default(); BLOCK], [W::default(); BLOCK]);
    let (from, len) = span;
    let (mut a, mut b) = (0.0, 0.0);
    for at in (0..len).step_by(BLOCK) {
        let n = BLOCK.min(len - at);
        for (read, side, block) in [
            (read.0, &student, &mut s[..n]),
            (read.1, &teacher, &mut t[..n]),
        ] {
            read(from + at, block);
            scaled(block, plan.scale);
            log_p(side, block);
        }
        let more = sums(fused, plan.direction, &s[..n], &t[..n]);
        (a, b) = (a + more.0, b + more.1);
    }
    let (value, mean) = value_and_mean(plan.direction, (a, b));
    Row {
        student,
        teacher,
        value,
        mean,
        top: None,
    }
}

impl Row {
    /// From two blocks of logits, from symbol `at` on, to the student's gradient times `grad`, written over
    /// the student's.
    #[inline(always)]
    pub(super) fn gradient<W: Number>(
        &self,
        fused: Fused,
        plan: &Plan,
        grad: f64,
        s: &mut [W],
        t: &mut [W],
        at: usize,
    ) {
        scaled(s, plan.scale);
        scaled(t, plan.scale);
        let grad = grad * plan.scale;
        if let Some(top) = &self.top {
            let models = (&self.student, &self.teacher);
            let of = (plan.direction, self.mean, grad);
            return top.gradient(fused, models, of, s, t, at);
        }
        log_p(&self.student, s);
        log_p(&self.teacher, t);
        gradient(fused, plan.direction, self.mean, grad, s, t);
    }
}
