//! A row's two passes in double precision: plain loops, one number at a time.

use super::element::Element;
use super::row::Row;
use super::single::Slot;
use super::slopes::Slopes;
use crate::simd::Width;

impl Element for f64 {
    fn statistics(_: Width, row: &[Self], _full: bool) -> Row {
        let max = row
            .iter()
            .fold(f64::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        let mut out = Row {
            max,
            ..Row::default()
        };
        for &x in row {
            let d = x - max;
            let e = d.exp();
            out.sum += e;
            out.squares += e * e;
            if d > f64::NEG_INFINITY {
                out.weighted += d * e;
                out.total += d;
                out.count += 1.0;
            }
        }
        out
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn from_f64(x: f64) -> Self {
        x
    }
    fn gradient<O: Slot<Self>>(
        _: Width,
        row: &[Self],
        stats: &Row,
        slopes: &Slopes,
        target: Option<usize>,
        out: &mut [O],
    ) {
        for (v, (o, &x)) in out.iter_mut().zip(row).enumerate() {
            let d = x - stats.max;
            let e = d.exp();
            let (d, even) = if d > f64::NEG_INFINITY {
                (d, slopes.even)
            } else {
                (0.0, 0.0)
            };
            let of_p = (slopes.plain + slopes.entropy * d) / stats.sum + slopes.squares * e;
            let onehot = if Some(v) == target {
                slopes.onehot
            } else {
                0.0
            };
            o.put(of_p * e + even + onehot);
        }
    }
}
