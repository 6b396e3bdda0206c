//! Rows that hold +∞: the limit as that logit grows beyond all others.
//!
//! Its symbol is certain, each other finite one is impossible, and the gradient is onehot − p as always.
//! Of several +∞ none is the largest: such a row is NaN. −∞ needs nothing of its own, since e^{−∞} = 0.
//! A row is known by its maximum, so that the others pay nothing for it.

use super::element::{Element, Width};
use super::row::{Row, Slopes, Slot};

/// Where a finite logit stands as seen from +∞: far enough for e^z = 0 in every type.
const FAR: f64 = -1e4;

/// The row about its +∞, as it looks in the limit.
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

/// [`Element::statistics`], also of a row that holds +∞.
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

/// [`Element::gradient`], also of a row that holds +∞.
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

/// [`Element::gradient_in_place`], also of a part of a row that holds +∞, there or elsewhere.
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
