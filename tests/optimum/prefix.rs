//! A frozen attention layer that is to say what none of its values says.

use crate::common::adapters::{descend, disturb};
use crate::common::lora::rng;
use crate::common::numbers;
use candle_align::{
    PrefixConfig, PrefixEncoder, PrefixShape, Reparametrisation, prefix_attention, prefix_mixing,
};
use candle_core::{D, DType, Device, Tensor};

/// What gradient descent reaches of a smooth optimum in f64.
const REACHED: f64 = 1e-9;

const SHAPE: PrefixShape = PrefixShape {
    layers: 1,
    heads: 1,
    head_dim: 2,
};

fn encoder(length: usize, reparametrisation: Reparametrisation) -> PrefixEncoder {
    let config = PrefixConfig {
        length,
        reparametrisation,
    };
    PrefixEncoder::new(SHAPE, &config, DType::F64, &Device::Cpu, &mut rng(5)).unwrap()
}

/// Two queries, three keys, values in the unit square.
fn content() -> (Tensor, Tensor, Tensor) {
    let at = |data: &[f64], n: usize| Tensor::from_slice(data, (1, 1, n, 2), &Device::Cpu).unwrap();
    (
        at(&[1.0, 0.2, -0.3, 1.1], 2),
        at(&[0.4, -1.0, 0.9, 0.5, -0.7, 0.3], 3),
        at(&[0.1, 0.9, 0.8, 0.2, 0.5, 0.5], 3),
    )
}

fn output(encoder: &PrefixEncoder) -> Tensor {
    let (q, k, v) = content();
    match &encoder.layers().unwrap()[0] {
        Some(prefix) => prefix_attention(&q, &k, &v, prefix, None).unwrap(),
        None => {
            let scores = (q.matmul(&k.t().unwrap()).unwrap() / 2f64.sqrt()).unwrap();
            candle_nn::ops::softmax(&scores, D::Minus1)
                .unwrap()
                .matmul(&v)
                .unwrap()
        }
    }
}

/// Each query wants another point outside the unit square: the layer alone mixes its values and
/// stays inside, whatever it attends to.
#[test]
fn a_prefix_adds_what_a_frozen_layer_cannot_say() {
    let target = Tensor::new(&[[[[3.0f64, -1.0], [-2.0, 2.5]]]], &Device::Cpu).unwrap();
    for form in [
        Reparametrisation::Direct,
        Reparametrisation::Mlp { inner: 6 },
    ] {
        let mut encoder = encoder(2, form);
        if encoder.is_plain() {
            disturb(&encoder.trainable(""));
        }
        let loss = |encoder: &PrefixEncoder| {
            let error = (output(encoder) - &target).unwrap();
            error.sqr().unwrap().sum_all().unwrap()
        };
        descend(&encoder.trainable(""), 0.05, 1500, || loss(&encoder));
        let left = numbers(&loss(&encoder))[0];
        assert!(left < REACHED * REACHED, "{form:?}: {left}");
        // the network is dropped, and nothing changes
        let plain = encoder.finish().unwrap();
        assert_eq!(numbers(&output(&plain)), numbers(&output(&encoder)));
        encoder.set_enabled(false);
        let inside = numbers(&output(&encoder));
        assert!(inside.iter().all(|x| (0.0..=1.0).contains(x)), "{inside:?}");
    }
}

/// Asked for the layer's own output, a prefix learns to be ignored: λΔh → λh.
#[test]
fn a_prefix_can_learn_to_leave_the_layer_alone() {
    let mut encoder = encoder(1, Reparametrisation::Direct);
    encoder.set_enabled(false);
    let own = output(&encoder);
    encoder.set_enabled(true);
    let start = numbers(
        &(output(&encoder) - &own)
            .unwrap()
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap(),
    )[0];
    descend(&encoder.trainable(""), 0.5, 4000, || {
        (output(&encoder) - &own)
            .unwrap()
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap()
    });
    let left = numbers(
        &(output(&encoder) - &own)
            .unwrap()
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap(),
    )[0];
    assert!(left < 1e-3 * start, "{left} of {start}");
    let (q, k, v) = content();
    let prefix = encoder.layers().unwrap().remove(0).unwrap();
    let mixture = prefix_mixing(&q, &k, &v, &prefix, None).unwrap();
    assert!(numbers(&mixture.gate().unwrap()).iter().all(|l| *l < 1.0));
}
