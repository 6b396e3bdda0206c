//! The types of logits, and code compiled for each width of instructions.

use super::row::{BLOCK, Row, Single, Slopes, Slot, either, gradient};
use half::{bf16, f16};

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

/// Whether a product and a sum compile to one instruction without a check of the processor.
const PLAIN_FMA: bool = cfg!(target_feature = "fma") || cfg!(target_arch = "aarch64");

/// The widest instructions that this processor has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Width {
    /// The width that the program was compiled for.
    Plain,
    #[cfg(target_arch = "x86_64")]
    /// Eight numbers at a time.
    Avx2,
    #[cfg(target_arch = "x86_64")]
    /// Sixteen.
    Avx512,
}

impl Width {
    pub(super) fn widest() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("fma") {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") {
                return Self::Avx2;
            }
        }
        Self::Plain
    }
}

/// The same code compiled for one width.
#[cfg(target_arch = "x86_64")]
macro_rules! compiled {
    ($name:ident, $features:literal, $t:ty) => {
        mod $name {
            use super::*;

            #[target_feature(enable = $features)]
            pub(super) fn statistics(row: &[$t], full: bool) -> Row {
                either::<$t, true>(row, full)
            }

            #[target_feature(enable = $features)]
            pub(super) fn gradient<O: Slot<$t>>(
                row: &[$t],
                stats: &Row,
                slopes: &Slopes,
                target: Option<usize>,
                out: &mut [O],
            ) {
                super::gradient::<$t, O, true>(row, stats, slopes, target, out)
            }
        }
    };
}

/// The same code at every width, chosen when the program runs.
macro_rules! single_element {
    ($t:ty, $avx2:ident, $avx512:ident) => {
        #[cfg(target_arch = "x86_64")]
        compiled!($avx2, "avx2,fma", $t);
        #[cfg(target_arch = "x86_64")]
        compiled!($avx512, "avx512f,avx512dq,avx2,fma", $t);

        impl Element for $t {
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn from_f64(x: f64) -> Self {
                Single::round(x as f32)
            }
            fn statistics(width: Width, row: &[Self], full: bool) -> Row {
                match width {
                    // SAFETY: `Width::widest` found AVX-512 (F, DQ) and FMA; AVX2 comes with them.
                    #[cfg(target_arch = "x86_64")]
                    #[allow(unsafe_code)]
                    Width::Avx512 => unsafe { $avx512::statistics(row, full) },
                    // SAFETY: `Width::widest` found AVX2 and FMA.
                    #[cfg(target_arch = "x86_64")]
                    #[allow(unsafe_code)]
                    Width::Avx2 => unsafe { $avx2::statistics(row, full) },
                    Width::Plain => either::<$t, PLAIN_FMA>(row, full),
                }
            }
            fn gradient<O: Slot<Self>>(
                width: Width,
                row: &[Self],
                stats: &Row,
                slopes: &Slopes,
                target: Option<usize>,
                out: &mut [O],
            ) {
                match width {
                    // SAFETY: as in `statistics`.
                    #[cfg(target_arch = "x86_64")]
                    #[allow(unsafe_code)]
                    Width::Avx512 => unsafe { $avx512::gradient(row, stats, slopes, target, out) },
                    // SAFETY: as in `statistics`.
                    #[cfg(target_arch = "x86_64")]
                    #[allow(unsafe_code)]
                    Width::Avx2 => unsafe { $avx2::gradient(row, stats, slopes, target, out) },
                    Width::Plain => gradient::<$t, O, PLAIN_FMA>(row, stats, slopes, target, out),
                }
            }
        }
    };
}
single_element!(f32, avx2_f32, avx512_f32);
single_element!(bf16, avx2_bf16, avx512_bf16);
single_element!(f16, avx2_f16, avx512_f16);

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

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of 2000 terms in single precision, rounded in another order.
    const SINGLE: f64 = 1e-5;

    fn widths() -> Vec<Width> {
        let mut widths = vec![Width::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            let widest = Width::widest();
            widths.extend(
                [Width::Avx2, Width::Avx512]
                    .into_iter()
                    .filter(|&w| w == widest || (w == Width::Avx2 && widest == Width::Avx512)),
            );
        }
        widths
    }

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
        let plain = all(Width::Plain);
        for width in widths() {
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
