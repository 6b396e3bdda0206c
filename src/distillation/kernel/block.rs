//! What is computed from one block of two rows, while it is in the first-level cache.

use super::number::Number;
use crate::distillation::direction::Direction;
use crate::simd::Fused;

/// Partial sums kept at a time.
const LANES: usize = 16;

/// One model's distribution at a position: log p = (z − max) − log_sum.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Side {
    /// The largest logit, which may be +∞.
    pub(super) max: f64,
    /// log Σ e^{z − max}.
    pub(super) log_sum: f64,
}

/// z · scale for every logit.
#[inline(always)]
pub(super) fn scaled<W: Number>(block: &mut [W], scale: f64) {
    if scale != 1.0 {
        let scale = W::nearest(scale);
        for x in block {
            *x = *x * scale;
        }
    }
}

/// The largest element, or −∞ if none is above that; NaN is passed over.
#[inline(always)]
pub(super) fn largest<W: Number>(block: &[W]) -> W {
    let mut highest = [W::IMPOSSIBLE; LANES];
    let chunks = block.chunks_exact(LANES);
    let rest = chunks.remainder();
    let mut take = |chunk: &[W]| {
        for (h, &x) in highest.iter_mut().zip(chunk) {
            *h = if x > *h { x } else { *h };
        }
    };
    for chunk in chunks {
        take(chunk);
    }
    take(rest);
    let above = |a: W, &b: &W| if b > a { b } else { a };
    highest.iter().fold(W::IMPOSSIBLE, above)
}

/// Σ term over the block.
#[inline(always)]
pub(super) fn total<W: Number>(block: &[W], term: impl Fn(W) -> W) -> f64 {
    let mut lanes = [W::default(); LANES];
    let chunks = block.chunks_exact(LANES);
    let rest = chunks.remainder();
    let mut take = |chunk: &[W]| {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = *lane + term(x);
        }
    };
    for chunk in chunks {
        take(chunk);
    }
    take(rest);
    lanes.iter().map(|&x| x.into()).sum()
}

/// From logits to log-probabilities, in place.
#[inline(always)]
pub(super) fn log_p<W: Number>(side: &Side, block: &mut [W]) {
    let (max, log_sum) = (W::nearest(side.max), W::nearest(side.log_sum));
    if side.max == f64::INFINITY {
        // the symbol of +∞ is certain, and every other one is impossible
        for x in block {
            let z: f64 = (*x).into();
            let below = if z == f64::INFINITY {
                0.0
            } else {
                f64::NEG_INFINITY
            };
            *x = W::nearest(below) - log_sum;
        }
        return;
    }
    for x in block {
        *x = (*x - max) - log_sum;
    }
}

/// p · x, where 0 · x = 0 for every x.
#[inline(always)]
fn share<W: Number>(p: W, x: W) -> W {
    if p == W::default() { p } else { p * x }
}

/// (1 − w) q + w p, and at least the smallest normal number: below that, no term depends on it.
#[inline(always)]
fn mixture<W: Number>(fused: Fused, weights: (W, W), q: W, p: W) -> W {
    let m = fused.multiply_add(weights.0, q, weights.1 * p);
    if m < W::TINY { W::TINY } else { m }
}

#[inline(always)]
fn weights<W: Number>(weight: f64) -> (W, W) {
    (W::nearest(1.0 - weight), W::nearest(weight))
}

/// The sums of a block of log-probabilities of student and teacher: Σ p log(p/q) forward, Σ q log(q/p)
/// reverse, and Σ q log(q/m) and Σ p log(p/m) for a mixture m. The terms are written over the blocks, by
/// loops: a closure this large is compiled by itself, without the instructions of `fused`.
#[inline(always)]
pub(super) fn sums<W: Number>(
    fused: Fused,
    direction: Direction,
    s: &mut [W],
    t: &mut [W],
) -> (f64, f64) {
    match direction {
        Direction::Forward => {
            for (s, &mut t) in s.iter_mut().zip(t.iter_mut()) {
                *s = share(W::exp(fused, t), t - *s);
            }
        }
        Direction::Reverse => {
            for (s, &mut t) in s.iter_mut().zip(t.iter_mut()) {
                *s = share(W::exp(fused, *s), *s - t);
            }
        }
        Direction::JensenShannon { weight } => {
            let weights = weights(weight);
            for (s, t) in s.iter_mut().zip(t.iter_mut()) {
                let (q, p) = (W::exp(fused, *s), W::exp(fused, *t));
                let m = W::ln(fused, mixture(fused, weights, q, p));
                (*s, *t) = (share(q, *s - m), share(p, *t - m));
            }
            return (total(s, |x| x), total(t, |x| x));
        }
    }
    (total(s, |x| x), 0.0)
}

/// The gradient of a block of the student's logits from log-probabilities, times `grad`: written over the
/// student's.
#[inline(always)]
pub(super) fn gradient<W: Number>(
    fused: Fused,
    direction: Direction,
    mean: f64,
    grad: f64,
    s: &mut [W],
    t: &[W],
) {
    if mean == f64::INFINITY {
        return steepest(grad, s, t);
    }
    let (mean, g) = (W::nearest(mean), W::nearest(grad));
    match direction {
        Direction::Forward => {
            for (s, &t) in s.iter_mut().zip(t) {
                *s = g * (W::exp(fused, *s) - W::exp(fused, t));
            }
        }
        Direction::Reverse => {
            for (s, &t) in s.iter_mut().zip(t) {
                *s = share(W::exp(fused, *s), g * ((*s - t) - mean));
            }
        }
        Direction::JensenShannon { weight } => {
            let weights = weights(weight);
            let g = g * weights.0;
            for (s, &t) in s.iter_mut().zip(t) {
                let (q, p) = (W::exp(fused, *s), W::exp(fused, t));
                let m = W::ln(fused, mixture(fused, weights, q, p));
                *s = share(q, g * ((*s - m) - mean));
            }
        }
    }
}

/// Where the teacher finds impossible what the student does not, the reverse divergence is +∞. Its slope
/// is +∞ at those symbols and −∞ at the others that the student finds possible.
fn steepest<W: Number>(grad: f64, s: &mut [W], t: &[W]) {
    for (s, &t) in s.iter_mut().zip(t) {
        let slope = match (*s > W::IMPOSSIBLE, t > W::IMPOSSIBLE) {
            (false, _) => 0.0,
            (true, false) => f64::INFINITY,
            (true, true) => f64::NEG_INFINITY,
        };
        *s = W::nearest(if slope == 0.0 { 0.0 } else { grad * slope });
    }
}
