//! A frozen attention layer that is to say what none of its values says.

use crate::common::adapters::descend;
use crate::common::lora::rng;
use crate::common::numbers;
use candle_align::parameter_efficient::{
    PrefixConfig, PrefixEncoder, PrefixShape, Reparametrization, prefix_attention, prefix_mixing,
};
use candle_core::{D, DType, Device, Tensor};

/// What gradient descent reaches of a smooth optimum in f64.
const REACHED: f64 = 1e-9;

const SHAPE: PrefixShape = PrefixShape {
    layers: 1,
    heads: 1,
    head_dim: 2,
};

fn encoder(length: usize, reparametrization: Reparametrization) -> PrefixEncoder {
    seeded(length, reparametrization, 5)
}

fn seeded(length: usize, reparametrization: Reparametrization, seed: u64) -> PrefixEncoder {
    let config = PrefixConfig {
        length,
        reparametrization,
    };
    PrefixEncoder::new(SHAPE, &config, DType::F64, &Device::Cpu, &mut rng(seed)).unwrap()
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
fn target() -> Tensor {
    Tensor::new(&[[[[3.0f64, -1.0], [-2.0, 2.5]]]], &Device::Cpu).unwrap()
}

fn loss(encoder: &PrefixEncoder) -> Tensor {
    let error = (output(encoder) - target()).unwrap();
    error.sqr().unwrap().sum_all().unwrap()
}

#[test]
fn a_prefix_adds_what_a_frozen_layer_cannot_say() {
    let network = Reparametrization::Mlp { inner: 6 };
    for (form, seed) in [
        (Reparametrization::Direct, 1),
        (Reparametrization::Direct, 5),
        (network, 0),
        (network, 1),
    ] {
        let mut encoder = seeded(2, form, seed);
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

/// Positions that share a network can fall together: then they answer one query, and leave the other
/// to the layer. From the same keys and values without the network, descent reaches the optimum.
#[test]
fn through_the_network_all_positions_can_become_one() {
    let encoder = encoder(2, Reparametrization::Mlp { inner: 6 });
    let plain = encoder.finish().unwrap();
    assert_eq!(numbers(&loss(&plain)), numbers(&loss(&encoder)));
    let mut own = plain.clone();
    own.set_enabled(false);
    let own = numbers(&output(&own));
    // what is left of the first query, whose target is (3, −1)
    let first = (3.0 - own[0]).powi(2) + (-1.0 - own[1]).powi(2);
    descend(&encoder.trainable(""), 0.05, 1500, || loss(&encoder));
    let left = numbers(&loss(&encoder))[0];
    assert!((left - first).abs() < 0.01, "{left} against {first}");
    // the two positions differ by less than 2 % of their numbers
    let values = numbers(&encoder.values().unwrap());
    for (one, other) in values[..4].iter().zip(&values[4..]) {
        assert!((one - other).abs() < 0.02 * one.abs(), "{values:?}");
    }

    descend(&plain.trainable(""), 0.05, 1500, || loss(&plain));
    let left = numbers(&loss(&plain))[0];
    assert!(left < REACHED * REACHED, "{left}");
}

/// Asked for the layer's own output, a prefix learns to be ignored: λΔh → λh.
#[test]
fn a_prefix_can_learn_to_leave_the_layer_alone() {
    let mut encoder = encoder(1, Reparametrization::Direct);
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
