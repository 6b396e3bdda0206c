//! The columns of the result, and the coefficients of a row's gradient from that of its columns.

use super::row::Row;
use crate::log_probs::statistics::Statistics;

/// The columns of the result, in their order.
pub(in crate::log_probs) fn columns(ask: Statistics) -> usize {
    1 + ask.entropy as usize + ask.vocabulary_mean as usize + ask.log_collision as usize
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

/// Those of a row, from the gradient of its columns.
pub(super) fn slopes(ask: Statistics, stats: &Row, grad: &[f64]) -> Slopes {
    let mut grad = grad.iter().copied();
    let mut next = || grad.next().unwrap_or(0.0);
    // log p_c = z_c − lse
    let chosen = next();
    let mut slopes = Slopes {
        onehot: chosen,
        plain: -chosen,
        ..Slopes::default()
    };
    // dH/dz = −p (log p + H)
    if ask.entropy {
        let g = next();
        slopes.entropy = -g;
        slopes.plain += g * (stats.log_sum() - stats.entropy());
    }
    // d mean/dz = 1/V − p
    if ask.vocabulary_mean {
        let g = next();
        slopes.even = g / stats.count;
        slopes.plain -= g;
    }
    // d log Σp²/dz = 2 (p² / Σp² − p)
    if ask.log_collision {
        let g = next();
        slopes.squares = 2.0 * g / stats.squares;
        slopes.plain -= 2.0 * g;
    }
    slopes
}
