//! The two passes over a row: its divergence, and the gradient of the student's logits.

use super::Plan;
use super::block::{gradient, log_p, scaled, sums};
use super::number::{BLOCK, Number, Reader};
use super::parts::{Row, side, value_and_mean};
use super::top;
use crate::simd::Fused;

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
        let more = sums(fused, plan.direction, &mut s[..n], &mut t[..n]);
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
