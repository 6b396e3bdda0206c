use crate::common::lora::{TYPES, bits, irregular, var};
use crate::common::quantized::*;
use crate::common::{EXACT, GRADIENT, STEP, assert_close, numbers};
use candle_align::parameter_efficient::{
    BlockScale, FrozenLinear, NF4, Nf4Linear, Nf4Scales, Nf4Tensor,
};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Linear, Module};
use half::{bf16, f16};

/// q_i in f64.
fn q(i: usize) -> f64 {
    f64::from(NF4[i])
}

/// Φ(x) by its series about 0, which converges for every x.
fn normal_cdf(x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-18 {
        n += 2.0;
        term *= x * x / n;
        sum += term;
    }
    0.5 + (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum
}

/// Φ⁻¹(p) by bisection.
fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-5.0, 5.0);
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        match normal_cdf(middle) < p {
            true => low = middle,
            false => high = middle,
        }
    }
    (low + high) / 2.0
}

#[test]
fn the_code_book_is_made_of_normal_quantiles() {
    // probabilities evenly spaced between ½ and this, half way between 1 − 1/30 and 1 − 1/32
    let offset: f64 = 0.9677083;
    assert!((offset - (2.0 - 1.0 / 30.0 - 1.0 / 32.0) / 2.0).abs() < 1e-7);
    let share = |i: f64, n: f64| normal_quantile(offset + (0.5 - offset) * i / n);
    let top = share(0.0, 8.0);
    let mut want: Vec<f64> = (0..8).map(|i| share(f64::from(i), 8.0) / top).collect();
    want.push(0.0);
    want.extend((0..7).map(|i| -share(f64::from(i), 7.0) / top));
    want.sort_by(f64::total_cmp);
    let found: Vec<f64> = NF4.iter().map(|x| f64::from(*x)).collect();
    assert_close(&found, &want, 1e-6, "NF4");
    assert_eq!((NF4[0], NF4[7], NF4[15]), (-1.0, 0.0, 1.0));
}

#[test]
fn a_number_on_a_middle_goes_down_and_the_next_one_up() {
    for whole in [true, false] {
        let mut x = vec![1.0f32];
        let mut want = vec![15];
        for i in 0..15u8 {
            let middle = (NF4[i as usize] + NF4[i as usize + 1]) / 2.0;
            x.extend([middle.next_down(), middle, middle.next_up()]);
            want.extend([i, i, i + 1]);
        }
        if whole {
            x.resize(BLOCK, 0.0);
            want.resize(BLOCK, 7);
        }
        let q = quantized(&Tensor::new(x, &Device::Cpu).unwrap(), BlockScale::Single);
        assert_eq!(indices(&q, want.len()), want);
    }
}

#[test]
fn a_whole_block_is_multiplied_by_the_inverse_and_a_ragged_one_divided() {
    let (mut seen, mut state) = (0, 1u32);
    for _ in 0..2000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let scale = 1.0 + (state >> 8) as f32 / (1 << 24) as f32;
        let i = (state >> 4) as usize % 15;
        let middle = (NF4[i] + NF4[i + 1]) / 2.0;
        let near = middle * scale;
        for x in [near.next_down(), near, near.next_up()] {
            let (product, quotient) = (x * (1.0 / scale) > middle, x / scale > middle);
            if product == quotient {
                continue;
            }
            seen += 1;
            for (length, above) in [(BLOCK, product), (BLOCK - 1, quotient), (2, quotient)] {
                let mut block = vec![0.0; length];
                (block[0], block[1]) = (scale, x);
                let q = quantized(
                    &Tensor::new(block, &Device::Cpu).unwrap(),
                    BlockScale::Single,
                );
                assert_eq!(indices(&q, 2)[1] as usize, i + usize::from(above));
            }
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn two_indices_share_a_byte_the_first_in_its_high_half() {
    // shares of 4: 1, −1, 0.5, −0.1, 0.03; the byte of an odd last one is filled up with 7, for 0
    let x = vector32(&[4.0, -4.0, 2.0, -0.4, 0.12]);
    let nf4 = quantized(&x, BlockScale::Single);
    assert_eq!(nf4.packed(), [0xF0, 0xC6, 0x77]);
    let want = [4.0, -4.0, single(q(12) * 4.0), single(q(6) * 4.0), 0.0];
    assert_eq!(numbers(&nf4.dequantize().unwrap()), want);
    assert_eq!(nf4.bytes(), 3 + 4);
    // one number is its block's largest
    for x in [-0.3, 0.3] {
        let nf4 = quantized(&vector32(&[x]), BlockScale::Single);
        assert_eq!(nf4.packed(), [if x < 0.0 { 0x07 } else { 0xF7 }]);
        assert_eq!(numbers(&nf4.dequantize().unwrap()), [single(x)]);
    }
}

#[test]
fn a_block_is_sixty_four_elements_of_the_flat_tensor() {
    // 3 × 50: blocks end within rows; each has its own scale, the last one is ragged
    let mut x = vec![0.5; 150];
    (x[10], x[100], x[149]) = (-8.0, 16.0, 2.0);
    let got = numbers(&through(
        &vector32(&x).reshape((3, 50)).unwrap(),
        BlockScale::Single,
    ));
    // 1/16, 1/32, 1/4
    let want: Vec<f64> = (0..150)
        .map(|i| match i {
            10 => -8.0,
            100 => 16.0,
            149 => 2.0,
            0..64 => q(8) * 8.0,
            64..128 => q(7) * 16.0,
            _ => q(10) * 2.0,
        })
        .collect();
    assert_close(&got, &want, 1e-6, "x");
}

#[test]
fn blocks_do_not_see_each_other() {
    // more than one task's share of blocks, and a ragged end
    let n = 2 * 256 * BLOCK + 3 * BLOCK + 21;
    let x = uneven(&[n], DType::F32);
    let whole = numbers(&through(&x, BlockScale::Single));
    let mut parts = Vec::new();
    for start in (0..n).step_by(BLOCK) {
        let part = x.narrow(0, start, BLOCK.min(n - start)).unwrap();
        parts.extend(numbers(&through(&part, BlockScale::Single)));
    }
    assert_eq!(whole, parts);
}

#[test]
fn every_element_becomes_the_nearest_of_the_sixteen() {
    let x = uneven(&[41, 17], DType::F32);
    let (got, x) = (numbers(&through(&x, BlockScale::Single)), numbers(&x));
    for (got, x) in got.chunks(BLOCK).zip(x.chunks(BLOCK)) {
        let largest = x.iter().fold(0f64, |m, x| m.max(x.abs()));
        for (got, x) in got.iter().zip(x) {
            let error = |i: usize| (q(i) * largest - x).abs();
            let least = (0..16).map(error).fold(f64::MAX, f64::min);
            assert!(((got - x).abs() - least).abs() < 1e-6 * largest);
        }
    }
}

#[test]
fn the_types_round_as_the_page_says() {
    let x = uneven(&[5, 33], DType::F64);
    for dtype in TYPES {
        let typed = x.to_dtype(dtype).unwrap();
        let nf4 = quantized(&typed, BlockScale::Single);
        assert_eq!((nf4.dtype(), nf4.shape().dims()), (dtype, &[5, 33][..]));
        let got = nf4.dequantize().unwrap();
        assert_eq!((got.dtype(), got.dims()), (dtype, &[5, 33][..]));
        // compared as f32
        let wide = typed.to_dtype(DType::F32).unwrap();
        let reference = quantized(&wide, BlockScale::Single);
        assert_eq!(nf4.packed(), reference.packed());
        let products = numbers(&reference.dequantize().unwrap());
        let want: Vec<f64> = products
            .into_iter()
            .map(|x| match dtype {
                DType::BF16 => bf16::from_f32(x as f32).to_f64(),
                DType::F16 => f16::from_f32(x as f32).to_f64(),
                _ => x,
            })
            .collect();
        assert_eq!(numbers(&got), want, "{dtype:?}");
    }
}

#[test]
fn a_view_is_read_in_its_own_order() {
    let stored = irregular(&[6, 40]).to_dtype(DType::F32).unwrap();
    for view in [
        stored.t().unwrap(),
        stored.narrow(0, 2, 3).unwrap(),
        stored.narrow(1, 5, 7).unwrap(),
        stored
            .narrow(0, 1, 1)
            .unwrap()
            .broadcast_as((4, 40))
            .unwrap(),
    ] {
        let copy = Tensor::from_vec(
            view.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            view.shape(),
            &Device::Cpu,
        );
        let (got, want) = (
            through(&view, BlockScale::Double),
            through(&copy.unwrap(), BlockScale::Double),
        );
        assert_eq!(bits(&got), bits(&want));
    }
}

#[test]
fn double_scales_are_their_mean_and_a_share_of_the_greatest_deviation() {
    // scales 1 and 3: μ = 2, c₁ = 1, shares −1 and 1; the map begins at −(0.1 + 0.9 · 63.5/64)
    let mut x = vec![0.0; 2 * BLOCK];
    (x[3], x[70]) = (-1.0, 3.0);
    let got = numbers(&through(&vector32(&x), BlockScale::Double));
    let lowest = -(0.1 + 0.9 * 63.5 / 64.0);
    assert_close(&[got[3]], &[-(2.0 + lowest)], 1e-6, "the smaller");
    assert_close(&[got[70]], &[2.0 + 1.0], 1e-6, "the greater");
    let rest = got.iter().filter(|x| **x != 0.0).count();
    assert_eq!(rest, 2);

    // scales 1, 2, 2, 2, 3: 2 is the mean, and its share 0 is in the map
    let mut x = vec![0.0; 5 * BLOCK];
    for (block, scale) in [1.0, 2.0, 2.0, 2.0, 3.0].into_iter().enumerate() {
        x[block * BLOCK] = scale;
    }
    let got = numbers(&through(&vector32(&x), BlockScale::Double));
    assert_eq!((got[BLOCK], got[2 * BLOCK]), (2.0, 2.0));
    // scales 0, 0.6, 0.9, 2.5: μ = 1, c₁ = 1.5; −0.4/1.5 lies in decade 6 among parts of 0.9/64
    let mut x = vec![0.0; 4 * BLOCK];
    for (block, scale) in [0.0, 0.6, 0.9, 2.5].into_iter().enumerate() {
        x[block * BLOCK] = scale;
    }
    let got = numbers(&through(&vector32(&x), BlockScale::Double));
    let nearest = |share: f64, parts: f64, power: f64| {
        let part = ((share / power - 0.1) / 0.9 * parts).floor();
        power * (0.1 + 0.9 * (part + 0.5) / parts)
    };
    let second = 1.0 - 1.5 * nearest(0.4 / 1.5, 64.0, 1.0);
    let third = 1.0 - 1.5 * nearest(0.1 / 1.5, 32.0, 0.1);
    assert_close(&[got[BLOCK]], &[second], 1e-6, "0.6");
    assert_close(&[got[2 * BLOCK]], &[third], 1e-6, "0.9");
    assert_close(&[got[3 * BLOCK]], &[1.0 + 1.5], 1e-6, "2.5");
}

#[test]
fn a_deviation_is_a_share_of_the_greatest_among_256_scales() {
    // the first 256 deviate by 0.5 at most from the mean, the last 44 by up to 10
    let scale = |block: usize| match block {
        0..256 => 3.0 + 0.5 * (block as f64).sin(),
        _ => 3.0 + 10.0 * (block as f64).sin().abs(),
    };
    let mut x = vec![0.0; 300 * BLOCK];
    (0..300).for_each(|block| x[block * BLOCK] = scale(block));
    let got = numbers(&through(&vector32(&x), BlockScale::Double));
    let mean = (0..300).map(scale).sum::<f64>() / 300.0;
    for (from, to) in [(0, 256), (256, 300)] {
        let greatest = (from..to).fold(0f64, |m, b| m.max((scale(b) - mean).abs()));
        for block in from..to {
            let error = (got[block * BLOCK] - scale(block)).abs();
            assert!(error <= 0.9 / 128.0 * greatest + 1e-5, "{block}: {error}");
        }
    }
}

#[test]
fn memory_is_counted_to_the_byte() {
    for n in [1, 2, 63, 64, 65, 4096, 16_384, 16_385, 100_000] {
        let x = irregular(&[n]).to_dtype(DType::F32).unwrap();
        let blocks = n.div_ceil(64);
        let single = quantized(&x, BlockScale::Single);
        assert_eq!(single.bytes(), n.div_ceil(2) + 4 * blocks);
        let double = quantized(&x, BlockScale::Double);
        let bytes = n.div_ceil(2) + blocks + 4 * blocks.div_ceil(256) + 4;
        assert_eq!(double.bytes(), bytes);
        assert_eq!(double.bits_per_parameter(), 8.0 * bytes as f64 / n as f64);
        assert_eq!(single.block_scale(), BlockScale::Single);
        assert_eq!(double.block_scale(), BlockScale::Double);
    }
    let x = Tensor::ones((1024, 256), DType::BF16, &Device::Cpu).unwrap();
    assert_eq!(quantized(&x, BlockScale::Single).bits_per_parameter(), 4.5);
    let double = quantized(&x, BlockScale::Double).bits_per_parameter();
    assert_eq!(
        double,
        4.0 + 8.0 / 64.0 + 32.0 / (64.0 * 256.0) + 32.0 / 262_144.0
    );
    assert_eq!(format!("{double:.3}"), "4.127");
}

/// How many standard errors a mean may be off.
const SIGMAS: f64 = 4.0;

/// The mean over blocks, and its standard error.
fn of_blocks(values: &[f64]) -> (f64, f64) {
    let means: Vec<f64> = values
        .chunks(BLOCK)
        .map(|block| block.iter().sum::<f64>() / block.len() as f64)
        .collect();
    let n = means.len() as f64;
    let mean = means.iter().sum::<f64>() / n;
    let variance = means.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    (mean, (variance / n).sqrt())
}

#[test]
fn normal_numbers_lose_what_is_published() {
    // bitsandbytes' table of errors for NF4 in blocks of 64
    let (absolute, relative) = (0.072798, 0.203339);
    let x = normal(&[1 << 17], 3);
    for scale in SCALES {
        let (y, x) = (numbers(&through(&x, scale)), numbers(&x));
        let errors: Vec<f64> = x.iter().zip(&y).map(|(x, y)| (x - y).abs()).collect();
        let (mean, error) = of_blocks(&errors);
        assert!(error < 3e-4, "{error}");
        assert!((mean - absolute).abs() < SIGMAS * error, "{mean} ± {error}");
        let shares: Vec<f64> = errors.iter().zip(&x).map(|(e, x)| e / x.abs()).collect();
        let (mean, error) = of_blocks(&shares);
        assert!((mean - relative).abs() < SIGMAS * error, "{mean} ± {error}");
    }
}

#[test]
fn settings_have_their_names_in_json() {
    let json = |scale: BlockScale| serde_json::to_string(&scale).unwrap();
    assert_eq!(json(BlockScale::Single), "\"single\"");
    assert_eq!(json(BlockScale::default()), "\"double\"");
}

// ---- the layer

/// W of 7 × 13: blocks end within rows, rows begin at odd positions.
fn layer(dtype: DType, scale: BlockScale, bias: bool) -> (Nf4Linear, FrozenLinear) {
    let weight = uneven(&[7, 13], dtype);
    let bias = bias.then(|| irregular(&[7]).to_dtype(dtype).unwrap());
    let layer = Nf4Linear::quantize(&Linear::new(weight, bias.clone()), scale).unwrap();
    let same = FrozenLinear::new(layer.weight().dequantize().unwrap(), bias).unwrap();
    (layer, same)
}

#[test]
fn the_layer_is_a_frozen_one_over_the_dequantized_weight() {
    for scale in SCALES {
        for dtype in TYPES {
            for bias in [true, false] {
                let (layer, same) = layer(dtype, scale, bias);
                for shape in [&[13][..], &[1, 13], &[5, 13], &[2, 3, 13], &[2, 0, 13]] {
                    let wide = match dtype {
                        DType::F64 => DType::F64,
                        _ => DType::F32,
                    };
                    let (x, z) = (irregular(shape), irregular(shape));
                    let (x, z) = (
                        var(&x.to_dtype(wide).unwrap()),
                        var(&z.to_dtype(wide).unwrap()),
                    );
                    let (y, want) = (layer.forward(&x).unwrap(), same.forward(&z).unwrap());
                    assert_eq!((y.dims(), y.dtype()), (want.dims(), wide));
                    let close = if wide == DType::F64 { EXACT } else { 1e-4 };
                    assert_close(&numbers(&y), &numbers(&want), close, "y");
                    let (y, want) = (y.sqr().unwrap(), want.sqr().unwrap());
                    let (got, want) = (y.backward().unwrap(), want.backward().unwrap());
                    let (got, want) = (got.get(&x).unwrap(), want.get(&z).unwrap());
                    assert_eq!(got.dims(), shape);
                    let close = if wide == DType::F64 { 1e-9 } else { 1e-2 };
                    assert_close(&numbers(got), &numbers(want), close, "dx");
                }
            }
        }
    }
}

#[test]
fn half_inputs_are_widened_and_the_result_is_rounded_once() {
    for stored in [DType::F32, DType::BF16, DType::F16] {
        let (layer, _) = layer(stored, BlockScale::Double, true);
        for dtype in [DType::BF16, DType::F16] {
            let x = irregular(&[3, 13]).to_dtype(dtype).unwrap();
            let y = layer.forward(&x).unwrap();
            assert_eq!(y.dtype(), dtype);
            let wide = layer.forward(&x.to_dtype(DType::F32).unwrap()).unwrap();
            assert_eq!(bits(&y), bits(&wide.to_dtype(dtype).unwrap()));
        }
    }
}

#[test]
fn a_bias_may_have_another_type_than_the_weight() {
    let (layer, _) = layer(DType::BF16, BlockScale::Single, false);
    let bias = irregular(&[7]).to_dtype(DType::F32).unwrap();
    let biased = Nf4Linear::new(layer.weight().clone(), Some(bias.clone())).unwrap();
    let x = irregular(&[2, 13]).to_dtype(DType::F32).unwrap();
    let want = layer.forward(&x).unwrap().broadcast_add(&bias).unwrap();
    assert_eq!(bits(&biased.forward(&x).unwrap()), bits(&want));
    assert_eq!(biased.bytes(), layer.bytes() + 7 * 4);
    assert_eq!(layer.bytes(), layer.weight().bytes());
}

#[test]
fn inputs_come_in_any_memory_order() {
    let (layer, same) = layer(DType::F64, BlockScale::Double, true);
    let stored = var(&irregular(&[13, 4, 3]));
    for x in [
        stored.transpose(0, 2).unwrap(),
        stored.transpose(0, 2).unwrap().narrow(1, 1, 2).unwrap(),
        stored.permute((1, 2, 0)).unwrap(),
    ] {
        let (got, want) = (layer.forward(&x).unwrap(), same.forward(&x).unwrap());
        assert_close(&numbers(&got), &numbers(&want), EXACT, "y");
        // a gradient that is not contiguous either
        let loss = |y: Tensor| {
            y.transpose(0, 1)
                .unwrap()
                .sqr()
                .unwrap()
                .backward()
                .unwrap()
        };
        let (got, want) = (loss(got), loss(want));
        let (got, want) = (got.get(&stored).unwrap(), want.get(&stored).unwrap());
        assert_close(&numbers(got), &numbers(want), 1e-9, "dx");
    }
    // a gradient that begins within another
    let (x, z) = (var(&irregular(&[2, 13])), var(&irregular(&[2, 13])));
    let loss = |y: Tensor| {
        let y = Tensor::cat(&[&irregular(&[3, 7]), &y], 0).unwrap();
        y.sqr().unwrap().backward().unwrap()
    };
    let (got, want) = (
        loss(layer.forward(&x).unwrap()),
        loss(same.forward(&z).unwrap()),
    );
    let (got, want) = (got.get(&x).unwrap(), want.get(&z).unwrap());
    assert_close(&numbers(got), &numbers(want), 1e-9, "dx");
}

#[test]
fn the_input_gradient_is_a_central_difference() {
    let (layer, _) = layer(DType::F64, BlockScale::Double, true);
    let x = irregular(&[2, 13]);
    let loss = |x: &Tensor| {
        let y = layer.forward(x).unwrap();
        y.sqr().unwrap().sum_all().unwrap()
    };
    let at = var(&x);
    let grads = loss(&at).backward().unwrap();
    let grads = numbers(grads.get(&at).unwrap());
    let x = numbers(&x);
    for i in 0..x.len() {
        let value = |step: f64| {
            let mut x = x.clone();
            x[i] += step;
            numbers(&loss(&Tensor::from_vec(x, (2, 13), &Device::Cpu).unwrap()))[0]
        };
        let want = (value(STEP) - value(-STEP)) / (2.0 * STEP);
        let error = (grads[i] - want).abs() / want.abs().max(1.0);
        assert!(error < 10.0 * GRADIENT, "{i}: {} {want}", grads[i]);
    }
}

#[test]
fn a_large_weight_is_used_part_by_part() {
    // 2.6 million elements: three parts of at most 64 rows, three of at most 2²⁰/130 columns
    let (outputs, inputs) = (130, 20_001);
    let weight = normal(&[outputs, inputs], 5);
    let layer = Nf4Linear::quantize(&Linear::new(weight, None), BlockScale::Double).unwrap();
    let same = FrozenLinear::new(layer.weight().dequantize().unwrap(), None).unwrap();
    let x = Var::from_tensor(&normal(&[2, inputs], 6)).unwrap();
    let (got, want) = (layer.forward(&x).unwrap(), same.forward(&x).unwrap());
    // sums of 20 001 products about 1
    assert_close(&numbers(&got), &numbers(&want), 2e-3, "y");
    let (got, want) = (got.backward().unwrap(), want.backward().unwrap());
    let (got, want) = (got.get(&x).unwrap(), want.get(&x).unwrap());
    assert_close(&numbers(got), &numbers(want), 1e-4, "dx");
}

#[test]
fn nothing_of_a_four_bit_layer_stays_among_the_gradients() {
    let weight = var(&irregular(&[40, 30]));
    let bias = var(&irregular(&[40]));
    let base = Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone()));
    let layer = Nf4Linear::quantize(&base, BlockScale::Double).unwrap();
    assert!(!layer.bias().unwrap().track_op());
    let x = var(&irregular(&[2, 30]));
    let grads = layer
        .forward(&x)
        .unwrap()
        .sqr()
        .unwrap()
        .backward()
        .unwrap();
    assert!(grads.get(&weight).is_none() && grads.get(&bias).is_none());
    assert!(grads.get(&x).is_some());
    for id in grads.get_ids() {
        assert!(grads.get_id(*id).unwrap().elem_count() <= 2 * 40);
    }
    // the bias is shared, the weight is not
    weight.set(&weight.zeros_like().unwrap()).unwrap();
    assert!(
        numbers(&layer.weight().dequantize().unwrap())
            .iter()
            .any(|w| *w != 0.0)
    );
}

#[test]
fn a_seeded_tensor_is_quantized_alike_by_any_number_of_threads() {
    let x = uneven(&[700, 99], DType::F32);
    let pool = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let q = quantized(&x, BlockScale::Double);
            (q.packed().to_vec(), bits(&q.dequantize().unwrap()))
        })
    };
    let one = pool(1);
    assert_eq!(one, pool(3));
    assert_eq!(one.0.len(), 700 * 99 / 2);
}

/// Element i from what is shown: q_index · m of its block, the index in the high half first.
fn rebuilt(q: &Nf4Tensor) -> Vec<f32> {
    let scale = |block: usize| match q.scales() {
        Nf4Scales::Single(scales) => scales[block],
        Nf4Scales::Double {
            indices,
            nested,
            offset,
            map,
        } => map[indices[block] as usize] * nested[block / Nf4Tensor::NESTED_BLOCK] + offset,
    };
    (0..q.shape().elem_count())
        .map(|i| {
            let byte = q.packed()[i / 2];
            let index = [byte >> 4, byte & 15][i % 2];
            NF4[index as usize] * scale(i / Nf4Tensor::BLOCK)
        })
        .collect()
}

#[test]
fn all_parts_are_shown_and_make_the_tensor() {
    // 64·256 = 16 384 elements share a scale of scales
    for shape in [[3, 5], [64, 1], [128, 257], [1, 16_449]] {
        let x = irregular(&shape).to_dtype(DType::F32).unwrap();
        for scale in [BlockScale::Single, BlockScale::Double] {
            let q = Nf4Tensor::quantize(&x, scale).unwrap();
            let (n, blocks) = (shape[0] * shape[1], (shape[0] * shape[1]).div_ceil(64));
            let dequantized = q.dequantize().unwrap();
            let dequantized = dequantized.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(rebuilt(&q), dequantized, "{shape:?} {scale:?}");
            assert_eq!(q.scales().values().len(), blocks);
            // bytes as they are counted
            let bytes = match q.scales() {
                Nf4Scales::Single(scales) => 4 * scales.len(),
                Nf4Scales::Double {
                    indices,
                    nested,
                    map,
                    ..
                } => {
                    assert_eq!((indices.len(), map.len()), (blocks, 256));
                    assert_eq!(nested.len(), blocks.div_ceil(256));
                    indices.len() + 4 * nested.len() + 4
                }
            };
            assert_eq!(q.bytes(), q.packed().len() + bytes);
            assert_eq!(q.packed().len(), n.div_ceil(2));
            // and through bitsandbytes' tensors they are the same
            let state = q.to_state_dict("w").unwrap();
            let again = Nf4Tensor::from_state_dict(&state, "w").unwrap();
            assert_eq!(again.scales(), q.scales());
        }
    }
    // m is the largest magnitude of its block
    let x = Tensor::new(&[[0.5f32, -1.0], [2.0, 0.2]], &Device::Cpu).unwrap();
    let q = Nf4Tensor::quantize(&x, BlockScale::Single).unwrap();
    assert_eq!(q.scales(), &Nf4Scales::Single(vec![2.0]));
    assert_eq!(q.scales().values(), [2.0]);
    // two blocks of 1 and 3: μ = 2, c₁ = 1, d = −0.993 and 1
    let x = Tensor::cat(
        &[
            Tensor::ones(64, DType::F32, &Device::Cpu).unwrap(),
            Tensor::full(3f32, 64, &Device::Cpu).unwrap(),
        ],
        0,
    );
    let q = Nf4Tensor::quantize(&x.unwrap(), BlockScale::Double).unwrap();
    let Nf4Scales::Double {
        indices,
        nested,
        offset,
        map,
    } = q.scales()
    else {
        panic!("double");
    };
    assert_eq!((*offset, nested.as_slice()), (2.0, &[1.0][..]));
    assert_eq!(indices, &[0, 255]);
    assert_eq!(q.scales().values(), [map[0] + 2.0, map[255] + 2.0]);
    assert_eq!(map[255], 1.0);
}
