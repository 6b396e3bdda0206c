//! What a pass over a row leaves for its gradient.

use super::block::{Side, largest, scaled, total};
use super::number::{BLOCK, Number, Reader};
use crate::distillation::direction::Direction;
use crate::simd::Fused;

/// The symbols that stand alone, and the slope of the others.
#[derive(Clone, Debug)]
pub(super) struct Top {
    /// In ascending order.
    pub(super) symbols: Vec<u32>,
    /// The student's distribution over the others alone.
    pub(super) others: Side,
    /// The slope that the others share, each as its part of their probability.
    pub(super) slope: f64,
}

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
