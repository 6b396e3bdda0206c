//! e^x for x ≤ 0 in single precision, written so that the compiler vectorizes it.
//!
//! Relative error at most [`RELATIVE_ERROR`] on [−87, 0]; below −87.7 the result is 0 (the true
//! value is below 10⁻³⁸). NaN stays NaN.

use crate::simd::Fused;

/// The documented bound: two units in the last place. Measured: 8.3e-8.
#[cfg(test)]
const RELATIVE_ERROR: f64 = 1.2e-7;

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// 1.5 · 2²³: adding it rounds to an integer, which is then in the low bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts; the first has few bits, so that its products are exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Rounds to 2⁻¹²⁷, whose exponent field is 0: e^x is 0 from here down.
const LOWEST: f32 = -88.0;
/// (eʳ − 1 − r) / r² on |r| ≤ ln 2 / 2, with the least maximal relative error of eʳ (3.1e-9).
const POLYNOMIAL: [f32; 5] = [
    0.499_999_94,
    0.166_665_2,
    0.041_668_393,
    0.008_368_781,
    0.001_381_446_5,
];

/// e^x for x ≤ 0.
#[inline(always)]
pub(crate) fn exp(fused: Fused, x: f32) -> f32 {
    // a comparison, not f32::max: that would turn NaN into a number
    let x = if x < LOWEST { LOWEST } else { x };
    // x = n ln 2 + r
    let shifted = fused.multiply_add(x, LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fused.multiply_add(n, -LN2_HIGH, x);
    let r = fused.multiply_add(n, -LN2_LOW, r);
    // eʳ = 1 + (r + r² · polynomial)
    let [a, b, c, d, e] = POLYNOMIAL;
    let p = fused.multiply_add(e, r, d);
    let p = fused.multiply_add(p, r, c);
    let p = fused.multiply_add(p, r, b);
    let p = fused.multiply_add(p, r, a);
    let p = fused.multiply_add(p, r * r, r) + 1.0;
    // 2ⁿ: n + 127 is shifted into the exponent field, and the bits above it are dropped
    f32::from_bits(shifted.to_bits().wrapping_add(127) << 23) * p
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(fused: Fused) -> f64 {
        (0..=1_000_000)
            .map(|i| -87.0 * i as f32 / 1e6)
            .map(|x| (exp(fused, x) as f64 / (x as f64).exp() - 1.0).abs())
            .fold(0.0, f64::max)
    }

    #[test]
    fn the_error_is_within_its_bound() {
        for fused in Fused::BOTH {
            let worst = worst(fused);
            assert!(worst < RELATIVE_ERROR, "{fused:?}: {worst}");
        }
    }

    #[test]
    fn ends_and_nan() {
        for fused in Fused::BOTH {
            let value = |x| exp(fused, x);
            assert_eq!(value(0.0), 1.0);
            assert_eq!(value(-0.0), 1.0);
            assert_eq!(value(-88.0), 0.0);
            assert_eq!(value(-1e30), 0.0);
            assert_eq!(value(f32::NEG_INFINITY), 0.0);
            assert!(value(f32::NAN).is_nan());
        }
    }
}
