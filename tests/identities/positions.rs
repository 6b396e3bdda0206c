//! Where tokens stand behind a prefix or a prompt, in a layer whose queries and keys are turned by their
//! positions.

use crate::common::lora::{irregular, rng};
use crate::common::{EXACT, assert_close, numbers};
use candle_align::parameter_efficient::{
    PrefixConfig, PrefixEncoder, PrefixLayer, PrefixShape, PromptEmbedding, Reparametrization,
    prefix_attention,
};
use candle_core::{D, DType, Device, Tensor};

/// 2 query heads over 1 of keys, of width 4; 5 tokens, of which the first 2 become a prefix.
const HEADS: usize = 2;
const WIDTH: usize = 4;
const TOKENS: usize = 5;
const AHEAD: usize = 2;

/// `x` `[1, heads, time, 4]`, each pair (i, i + 2) turned by position · 10⁻ⁱ.
fn turned(x: &Tensor, first: usize) -> Tensor {
    let (_, heads, time, _) = x.dims4().unwrap();
    let rows = x.flatten_to(2).unwrap().to_vec2::<f64>().unwrap();
    let out: Vec<f64> = rows
        .iter()
        .enumerate()
        .flat_map(|(row, x)| {
            let position = (first + row % time) as f64;
            let at = |i: usize| (position * 10f64.powi(-(i as i32))).sin_cos();
            let half = |i: usize| {
                let (sin, cos) = at(i);
                (x[i] * cos - x[i + 2] * sin, x[i + 2] * cos + x[i] * sin)
            };
            let (a, b) = (half(0), half(1));
            [a.0, b.0, a.1, b.1]
        })
        .collect();
    Tensor::from_vec(out, (1, heads, time, WIDTH), &Device::Cpu).unwrap()
}

/// The queries, keys and values of the tokens, before positions.
fn tokens() -> (Tensor, Tensor, Tensor) {
    let q = irregular(&[1, HEADS, TOKENS, WIDTH]);
    let k = (irregular(&[1, 1, TOKENS, WIDTH]) * 1.7).unwrap();
    let v = (irregular(&[1, 1, TOKENS, WIDTH]) * -0.6).unwrap();
    (q, k, v)
}

fn causal(queries: usize, keys: usize) -> Tensor {
    let ahead = keys - queries;
    let seen = (0..queries * keys).map(|i| u8::from(i % keys <= i / keys + ahead));
    Tensor::from_vec(seen.collect(), (queries, keys), &Device::Cpu).unwrap()
}

/// Causal attention over all tokens, positions from 0: what the last of them get.
fn in_full() -> Vec<f64> {
    let (q, k, v) = tokens();
    let (q, k) = (turned(&q, 0), turned(&k, 0));
    let both = |x: &Tensor| x.repeat((1, HEADS, 1, 1)).unwrap();
    let scores = (q.matmul(&both(&k).t().unwrap()).unwrap() / 2.0).unwrap();
    let seen = causal(TOKENS, TOKENS).broadcast_as(scores.shape()).unwrap();
    let hidden = (scores.zeros_like().unwrap() - 1e30).unwrap();
    let scores = seen.where_cond(&scores, &hidden).unwrap();
    let weights = candle_nn::ops::softmax(&scores, D::Minus1).unwrap();
    let out = weights.matmul(&both(&v)).unwrap();
    numbers(&out.narrow(2, AHEAD, TOKENS - AHEAD).unwrap())
}

/// The model's own keys and values of the first tokens, as what a file would hold.
fn prefix() -> PrefixEncoder {
    let (_, k, v) = tokens();
    let first = |x: &Tensor| {
        x.narrow(2, 0, AHEAD)
            .unwrap()
            .reshape((AHEAD, WIDTH))
            .unwrap()
    };
    let values = Tensor::cat(&[&first(&turned(&k, 0)), &first(&v)], 1).unwrap();
    let shape = PrefixShape {
        layers: 1,
        heads: 1,
        head_dim: WIDTH,
    };
    PrefixEncoder::from_values(shape, &values).unwrap()
}

/// The rest of the tokens behind that prefix, from this position on.
fn behind(layer: &PrefixLayer, first: usize) -> Vec<f64> {
    let (q, k, v) = tokens();
    let rest = |x: &Tensor| {
        x.narrow(2, AHEAD, TOKENS - AHEAD)
            .unwrap()
            .contiguous()
            .unwrap()
    };
    let (q, k) = (turned(&rest(&q), first), turned(&rest(&k), first));
    let seen = causal(TOKENS - AHEAD, TOKENS - AHEAD);
    numbers(&prefix_attention(&q, &k, &rest(&v), layer, Some(&seen)).unwrap())
}

#[test]
fn the_keys_of_tokens_as_a_prefix_are_those_tokens_in_front() {
    let prefix = prefix();
    let layer = prefix.layers().unwrap().remove(0).unwrap();
    assert_eq!(prefix.virtual_positions(), AHEAD);
    let got = behind(&layer, prefix.virtual_positions());
    assert_close(&got, &in_full(), EXACT, "behind a prefix");
    // positions that start at 0 say something else
    let wrong = behind(&layer, 0);
    let far = wrong
        .iter()
        .zip(in_full())
        .any(|(a, b)| (a - b).abs() > 0.01);
    assert!(far, "{wrong:?}");
}

#[test]
fn only_a_prefix_that_is_there_takes_positions() {
    let shape = PrefixShape {
        layers: 2,
        heads: 1,
        head_dim: 3,
    };
    for reparametrization in [
        Reparametrization::Direct,
        Reparametrization::Mlp { inner: 4 },
    ] {
        let config = PrefixConfig {
            length: 7,
            reparametrization,
        };
        let device = &Device::Cpu;
        let mut prefix =
            PrefixEncoder::new(shape, &config, DType::F64, device, &mut rng(1)).unwrap();
        assert_eq!(prefix.virtual_positions(), 7);
        assert_eq!(prefix.finish().unwrap().virtual_positions(), 7);
        prefix.set_enabled(false);
        assert_eq!(prefix.virtual_positions(), 0);
        assert!(prefix.layers().unwrap().iter().all(Option::is_none));
        // p is what it was
        assert_eq!(prefix.length(), 7);
    }
    // a prompt says it by the same name
    let mut prompt = PromptEmbedding::from_values(&irregular(&[3, 4])).unwrap();
    assert_eq!(prompt.virtual_positions(), 3);
    prompt.set_enabled(false);
    assert_eq!(prompt.virtual_positions(), 0);
}
