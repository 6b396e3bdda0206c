//! The sixteen values of a weight, the 256 values of a block's scale, and how they are searched.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::sync::LazyLock;

/// The sixteen values of NF4, ascending; each is stored as its index, 0 to 15.
///
/// Quantiles of the normal distribution, eight above 0 and seven below, scaled so that the outermost are
/// ±1; and 0 itself.
pub const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Midpoints between neighbors: a number on a midpoint gets the lower value.
const MIDDLES: [f32; 15] = {
    let mut middles = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        middles[i] = (NF4[i] + NF4[i + 1]) / 2.0;
        i += 1;
    }
    middles
};

/// The two values of a byte: that of its high half, which comes first, and that of its low half.
pub(super) static PAIRS: [[f32; 2]; 256] = {
    let mut pairs = [[0.0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [NF4[byte >> 4], NF4[byte & 15]];
        byte += 1;
    }
    pairs
};

/// The smallest divisor: a block of zeros is divided by it.
const TINY: f32 = 1e-38;

/// Elements of a weight that share one scale.
pub(super) const BLOCK: usize = 64;
/// Scales that share one scale of their own.
pub(super) const NESTED_BLOCK: usize = 256;

/// An element type that can be quantized; every element is compared as f32.
pub(super) trait Element: Copy + Send + Sync + Into<f64> {
    /// Shortens `out` to the length of `block`.
    fn widen(block: &[Self], out: &mut [f32]);
}

impl Element for f32 {
    fn widen(block: &[Self], out: &mut [f32]) {
        out.copy_from_slice(block);
    }
}

impl Element for f64 {
    fn widen(block: &[Self], out: &mut [f32]) {
        out.iter_mut().zip(block).for_each(|(o, x)| *o = *x as f32);
    }
}

impl Element for bf16 {
    fn widen(block: &[Self], out: &mut [f32]) {
        block.convert_to_f32_slice(out);
    }
}

impl Element for f16 {
    fn widen(block: &[Self], out: &mut [f32]) {
        block.convert_to_f32_slice(out);
    }
}

/// Packs up to [`BLOCK`] elements, two to a byte, and returns their scale; `None` if one of them is
/// not finite in f32.
pub(super) fn pack<T: Element>(block: &[T], packed: &mut [u8]) -> Option<f32> {
    let mut x = [0f32; BLOCK];
    T::widen(block, &mut x[..block.len()]);
    // without their signs, the bits of floats are ordered as the floats are, with NaN above ∞
    let greatest = x
        .iter()
        .fold(0i32, |m, x| m.max((x.to_bits() & (u32::MAX >> 1)) as i32));
    let mut scale = f32::from_bits(greatest as u32);
    if !scale.is_finite() {
        return None;
    }

    // t = x / absmax
    if block.len() == BLOCK {
        let inverse = 1.0 / scale.max(TINY);
        x.iter_mut().for_each(|x| *x *= inverse);
    } else {
        // a partial block is divided, and its scale is never 0
        scale = scale.max(TINY);
        x.iter_mut().for_each(|x| *x /= scale);
    }
    // index = how many midpoints lie below t; past the block's end t is 0, which pads the last byte
    let mut index = [0i32; BLOCK];
    for middle in MIDDLES {
        for (index, x) in index.iter_mut().zip(&x) {
            *index += i32::from(*x > middle);
        }
    }
    for (byte, pair) in packed.iter_mut().zip(index.chunks_exact(2)) {
        *byte = (pair[0] << 4 | pair[1]) as u8;
    }
    Some(scale)
}

/// Writes the elements from position `at` on, at least one, all of one scale, each converted by
/// `finish`.
pub(super) fn unpack<O>(
    packed: &[u8],
    at: usize,
    scale: f32,
    out: &mut [O],
    finish: impl Fn(f32) -> O,
) {
    let (head, out) = out.split_at_mut(at % 2);
    let packed = &packed[at / 2..];
    for out in head.iter_mut() {
        *out = finish(PAIRS[packed[0] as usize][1] * scale);
    }
    let packed = &packed[head.len()..];
    let last = out.len() / 2;
    let mut pairs = out.chunks_exact_mut(2);
    for (pair, byte) in pairs.by_ref().zip(packed) {
        let [high, low] = PAIRS[*byte as usize];
        pair[0] = finish(high * scale);
        pair[1] = finish(low * scale);
    }
    if let [only] = pairs.into_remainder() {
        *only = finish(PAIRS[packed[last] as usize][0] * scale);
    }
}

/// The 256 values of the signed dynamic map, ascending.
///
/// Seven decades, each finer than the one below: decade i cuts [0.1, 1] into 2ⁱ equal parts and takes
/// their midpoints times 10^{i − 6}, with both signs; then 0 and 1, so that the ends are −0.993 and 1.
pub(super) static DYNAMIC: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let mut values = vec![0.0, 1.0];
    for decade in 0..7 {
        let parts = 1i32 << decade;
        let step = (1.0 - 0.1f32) / parts as f32;
        // one rounding each, the upper half counted from the top: the exact bits of the original's table
        let edge = |j: i32| match 2 * j <= parts {
            true => step.mul_add(j as f32, 0.1),
            false => (-step).mul_add((parts - j) as f32, 1.0),
        };
        let power = 10f64.powi(decade - 6) as f32;
        for j in 0..parts {
            let value = (edge(j) + edge(j + 1)) / 2.0 * power;
            values.extend([value, -value]);
        }
    }
    values.sort_by(f32::total_cmp);
    values
});

static DYNAMIC_MIDDLES: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let pairs = DYNAMIC.windows(2);
    pairs.map(|pair| (pair[0] + pair[1]) / 2.0).collect()
});

/// Packs up to [`NESTED_BLOCK`] numbers into a byte each and returns their scale.
pub(super) fn pack_scales(block: &[f32], packed: &mut [u8]) -> f32 {
    let mut scale = block.iter().fold(0f32, |m, x| m.max(x.abs()));
    let inverse = 1.0 / scale.max(TINY);
    let whole = block.len() == NESTED_BLOCK;
    if !whole {
        scale = scale.max(TINY);
    }
    for (byte, x) in packed.iter_mut().zip(block) {
        let t = if whole { x * inverse } else { x / scale };
        *byte = DYNAMIC_MIDDLES.partition_point(|middle| *middle < t) as u8;
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_way_between_two_scales_the_lower_is_taken() {
        // the largest value is 1, so each is compared unscaled
        let mut block = [0f32; NESTED_BLOCK];
        block[0] = 1.0;
        let mut packed = [0; NESTED_BLOCK];
        for (index, pair) in DYNAMIC.windows(2).enumerate() {
            block[1] = (pair[0] + pair[1]) / 2.0;
            assert_eq!(pack_scales(&block, &mut packed), 1.0);
            assert_eq!(packed[..2], [255, index as u8]);
        }
    }
}
