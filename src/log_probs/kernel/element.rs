//! A row's two passes for each type of logit.

use super::blocks;
use super::row::Row;
use super::single::BLOCK;
use super::single::{Single, Slot};
use super::slopes::Slopes;
use crate::simd::Width;

/// A logit's type: its rows' statistics and gradients.
pub(super) trait Element: Copy + Send + Sync + Default + Slot<Self> + 'static {
    /// The statistics of a row; `full` asks for more than the maximum and the sum.
    fn statistics(width: Width, row: &[Self], full: bool) -> Row;
    /// One logit as f64.
    fn to_f64(self) -> f64;
    /// The nearest number of this type.
    fn from_f64(x: f64) -> Self;
    /// The gradient of a row or of a part of it. All of `out` is written. The target is given if it is in
    /// that part.
    fn gradient<O: Slot<Self>>(
        width: Width,
        row: &[Self],
        stats: &Row,
        slopes: &Slopes,
        target: Option<usize>,
        out: &mut [O],
    );

    /// The gradient of a row, written over the row itself. A target past its end has no effect.
    fn gradient_in_place(
        width: Width,
        row: &mut [Self],
        stats: &Row,
        slopes: &Slopes,
        target: Option<usize>,
    ) {
        let mut old = [Self::default(); BLOCK];
        for (i, block) in row.chunks_mut(BLOCK).enumerate() {
            let old = &mut old[..block.len()];
            old.copy_from_slice(block);
            let target = target
                .and_then(|target| target.checked_sub(i * BLOCK))
                .filter(|at| *at < old.len());
            Self::gradient(width, old, stats, slopes, target, block);
        }
    }
}

impl<T: Single> Element for T {
    fn statistics(width: Width, row: &[Self], full: bool) -> Row {
        width.run(
            #[inline(always)]
            |fused| blocks::statistics(fused, row, full),
        )
    }
    fn to_f64(self) -> f64 {
        self.into()
    }
    fn from_f64(x: f64) -> Self {
        T::round(x as f32)
    }
    fn gradient<O: Slot<Self>>(
        width: Width,
        row: &[Self],
        stats: &Row,
        slopes: &Slopes,
        target: Option<usize>,
        out: &mut [O],
    ) {
        width.run(
            #[inline(always)]
            |fused| blocks::gradient(fused, row, stats, slopes, target, out),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of 2000 terms in single precision, rounded in another order.
    const SINGLE: f64 = 1e-5;

    #[test]
    fn every_width_gives_the_same_numbers() {
        let mut row: Vec<f32> = (0..2047).map(|i| (i as f32 * 0.7).sin() * 9.0).collect();
        row[1500] = f32::NEG_INFINITY;
        let slopes = Slopes {
            onehot: 0.7,
            even: 0.01,
            plain: -0.7,
            entropy: 0.3,
            squares: 0.2,
        };
        let all = |width| {
            let stats = f32::statistics(width, &row, true);
            let mut out = vec![0f32; row.len()];
            f32::gradient(width, &row, &stats, &slopes, Some(1030), &mut out);
            let mut numbers = vec![stats.max, stats.sum, stats.weighted];
            numbers.extend([stats.squares, stats.total / 1e3, stats.count]);
            numbers.extend(out.iter().map(|&x| x as f64));
            numbers
        };
        let plain = all(Width::all()[0]);
        for width in Width::all() {
            for (a, b) in all(width).iter().zip(&plain) {
                let near = (a - b).abs() <= SINGLE * b.abs().max(1.0);
                assert!(near, "{width:?}: {a} against {b}");
            }
        }
    }

    #[test]
    fn in_its_own_place_a_row_gets_the_same_gradient() {
        let row: Vec<f32> = (0..2500).map(|i| (i as f32 * 0.7).sin() * 9.0).collect();
        let slopes = Slopes {
            onehot: 0.7,
            plain: -0.7,
            ..Slopes::default()
        };
        let width = Width::widest();
        let stats = f32::statistics(width, &row, false);
        // within a block, on both sides of its end, last, and past the end
        for target in [3, BLOCK - 1, BLOCK, 2499, 2500] {
            let inside = Some(target).filter(|at| *at < row.len());
            let mut want = vec![0f32; row.len()];
            f32::gradient(width, &row, &stats, &slopes, inside, &mut want);
            let mut place = row.clone();
            f32::gradient_in_place(width, &mut place, &stats, &slopes, Some(target));
            assert_eq!(place, want, "target {target}");
        }
    }
}
