//! Rows that hold +∞: the limit as that logit grows beyond all others.
//!
//! That symbol is certain, every finite one is impossible, and the gradient is onehot − p as always.
//! If several logits are +∞, none is the largest, and the row is NaN. −∞ needs no special case, since
//! e^{−∞} = 0. Such a row is recognized by its maximum, so other rows cost nothing more.

use super::element::Element;
use super::row::Row;
use super::single::Slot;
use super::slopes::Slopes;
use crate::simd::Width;

/// The value of a finite logit relative to +∞: small enough for e^z = 0 in every type.
const FAR: f64 = -1e4;

/// Replaces the row by its limit, relative to its +∞.
fn limit<T: Element>(row: &mut [T]) {
    let infinite = |x: &T| x.to_f64() == f64::INFINITY;
    let alone = row.iter().filter(|x| infinite(x)).count() == 1;
    for x in row {
        let z = x.to_f64();
        if z == f64::INFINITY {
            *x = T::from_f64(if alone { 0.0 } else { f64::NAN });
        } else if z.is_finite() {
            *x = T::from_f64(FAR);
        }
    }
}

/// [`Element::statistics`], also for a row that holds +∞.
pub(super) fn statistics<T: Element>(width: Width, row: &[T], full: bool) -> Row {
    let stats = T::statistics(width, row, full);
    if stats.max < f64::INFINITY {
        return stats;
    }
    let mut seen = row.to_vec();
    limit(&mut seen);
    let mut stats = T::statistics(width, &seen, full);
    stats.max = f64::INFINITY;
    if row.iter().any(|x| x.to_f64().is_finite()) {
        stats.total = f64::NEG_INFINITY;
    }
    stats
}

/// [`Element::gradient`], also for a row that holds +∞.
pub(super) fn gradient<T: Element, O: Slot<T>>(
    width: Width,
    row: &[T],
    stats: &Row,
    slopes: &Slopes,
    target: usize,
    out: &mut [O],
) {
    if stats.max < f64::INFINITY {
        return T::gradient(width, row, stats, slopes, Some(target), out);
    }
    let mut seen = row.to_vec();
    limit(&mut seen);
    let stats = Row { max: 0.0, ..*stats };
    T::gradient(width, &seen, &stats, slopes, Some(target), out);
}

/// [`Element::gradient_in_place`], also for a part of a row that holds +∞ in that part or elsewhere.
pub(super) fn gradient_in_place<T: Element>(
    width: Width,
    row: &mut [T],
    stats: &Row,
    slopes: &Slopes,
    target: Option<usize>,
) {
    if stats.max < f64::INFINITY {
        return T::gradient_in_place(width, row, stats, slopes, target);
    }
    limit(row);
    let stats = Row { max: 0.0, ..*stats };
    T::gradient_in_place(width, row, &stats, slopes, target);
}
