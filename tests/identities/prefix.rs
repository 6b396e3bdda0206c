use crate::common::lora::{bits, irregular, rng, var};
use crate::common::{EXACT, assert_close, numbers};
use candle_align::parameter_efficient::{
    PrefixConfig, PrefixEncoder, PrefixLayer, PrefixShape, Reparametrization, prefix_attention,
    prefix_mixing,
};
use candle_core::{D, DType, Device, Tensor};

/// What is exact but for the last bits of numbers about 1.
const ROUNDING: f64 = 2e-15;

const SHAPE: PrefixShape = PrefixShape {
    layers: 3,
    heads: 2,
    head_dim: 4,
};

struct Case {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prefix: PrefixLayer,
    visible: Tensor,
}

/// 2 rows, 4 query heads over 2 key heads, 3 queries, 3 keys, causal; a prefix of 2.
fn case() -> Case {
    let at = |shape: &[usize], by: f64| (irregular(shape) * by).unwrap();
    let causal: Vec<u8> = (0..9).map(|i| u8::from(i % 3 <= i / 3)).collect();
    Case {
        q: at(&[2, 4, 3, 4], 1.3),
        k: at(&[2, 2, 3, 4], 0.9),
        v: at(&[2, 2, 3, 4], -1.1),
        prefix: PrefixLayer {
            key: at(&[2, 2, 4], -0.8),
            value: at(&[2, 2, 4], 1.7),
        },
        visible: Tensor::from_vec(causal, (3, 3), &Device::Cpu).unwrap(),
    }
}

impl Case {
    fn attention(&self, prefix: &PrefixLayer) -> Vec<f64> {
        let out = prefix_attention(&self.q, &self.k, &self.v, prefix, Some(&self.visible));
        numbers(&out.unwrap())
    }

    /// Attention without any prefix: each key head repeated for its queries, softmax by candle.
    fn plain(&self) -> Vec<f64> {
        let wide = |x: &Tensor| {
            let x = x.unsqueeze(2).unwrap().repeat((1, 1, 2, 1, 1)).unwrap();
            x.reshape((2, 4, 3, 4)).unwrap()
        };
        let scores = (self.q.matmul(&wide(&self.k).t().unwrap()).unwrap() / 2.0).unwrap();
        let hidden = (scores.zeros_like().unwrap() - 1e30).unwrap();
        let visible = self.visible.broadcast_as(scores.shape()).unwrap();
        let scores = visible.where_cond(&scores, &hidden).unwrap();
        let weights = candle_nn::ops::softmax(&scores, D::Minus1).unwrap();
        numbers(&weights.matmul(&wide(&self.v)).unwrap())
    }
}

/// He et al., eq. 7 and 8: to rounding, for every head and query.
#[test]
fn a_prefix_is_gated_mixing() {
    let case = case();
    let mixture =
        prefix_mixing(&case.q, &case.k, &case.v, &case.prefix, Some(&case.visible)).unwrap();
    let output = numbers(&mixture.output().unwrap());
    assert_close(&output, &case.attention(&case.prefix), ROUNDING, "head");
    assert_close(&numbers(mixture.content()), &case.plain(), ROUNDING, "h");

    // (1 − λ)·h + λ·Δh in plain numbers
    let gate = numbers(&mixture.gate().unwrap());
    assert_eq!(gate.len(), 2 * 4 * 3);
    assert!(gate.iter().all(|l| 0.0 < *l && *l < 1.0));
    let (h, delta) = (numbers(mixture.content()), numbers(mixture.prefix()));
    let want: Vec<f64> = (0..h.len())
        .map(|i| (1.0 - gate[i / 4]) * h[i] + gate[i / 4] * delta[i])
        .collect();
    assert_close(&output, &want, ROUNDING, "mixture");
}

/// Δh is a network of two layers with the activation softmax: W₁ = P_k, W₂ = P_v.
#[test]
fn the_change_of_a_prefix_is_an_adapter_with_softmax() {
    let case = case();
    let mixture = prefix_mixing(&case.q, &case.k, &case.v, &case.prefix, None).unwrap();
    for head in 0..4 {
        let q = case.q.narrow(1, head, 1).unwrap().reshape((6, 4)).unwrap();
        let (w1, w2) = (
            case.prefix.key.get(head / 2).unwrap(),
            case.prefix.value.get(head / 2).unwrap(),
        );
        let inner = (q.matmul(&w1.t().unwrap()).unwrap() / 2.0).unwrap();
        let want = candle_nn::ops::softmax(&inner, 1)
            .unwrap()
            .matmul(&w2)
            .unwrap();
        let got = mixture.prefix().narrow(1, head, 1).unwrap();
        assert_close(&numbers(&got), &numbers(&want), ROUNDING, "Δh");
    }
}

/// With values that are the unit vectors, the output is the weights.
#[test]
fn a_prefix_never_reorders_what_the_layer_attends_to() {
    let mut case = case();
    let unit = Tensor::eye(4, DType::F64, &Device::Cpu).unwrap();
    let content = unit.narrow(0, 0, 3).unwrap();
    case.v = content
        .broadcast_as((2, 2, 3, 4))
        .unwrap()
        .contiguous()
        .unwrap();
    // the prefix says only the fourth
    let own = unit.narrow(0, 3, 1).unwrap();
    case.prefix.value = own.broadcast_as((2, 2, 4)).unwrap().contiguous().unwrap();
    let (with, without) = (case.attention(&case.prefix), case.plain());
    for (with, without) in with.chunks(4).zip(without.chunks(4)) {
        assert!(with[3] > 0.0 && without[3] == 0.0);
        let left: f64 = with[..3].iter().sum();
        assert!((left + with[3] - 1.0).abs() < ROUNDING);
        for (a, b) in with[..3].iter().zip(without) {
            assert!((a / left - b).abs() < ROUNDING, "{with:?} {without:?}");
        }
    }
}

#[test]
fn keys_far_away_are_neutral_and_keys_of_zero_are_not() {
    let mut case = case();
    // every score of the content is moderate; the queries' first number is 1
    let one = case.q.narrow(3, 0, 1).unwrap().ones_like().unwrap();
    let rest = case.q.narrow(3, 1, 3).unwrap();
    case.q = Tensor::cat(&[&one, &rest], 3).unwrap();
    let keys = |score: f64| {
        // q·k/√4 = score
        let first = Tensor::full(2.0 * score, (2, 2, 1), &Device::Cpu).unwrap();
        let others = Tensor::zeros((2, 2, 3), DType::F64, &Device::Cpu).unwrap();
        Tensor::cat(&[&first, &others], 2).unwrap()
    };
    let value = case.prefix.value.clone();
    let at = |score: f64| {
        let key = keys(score);
        case.attention(&PrefixLayer {
            key,
            value: value.clone(),
        })
    };
    let plain = case.plain();
    let away = |score: f64| -> f64 {
        at(score)
            .iter()
            .zip(&plain)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max)
    };
    assert!(away(-30.0) < 1e-12, "{}", away(-30.0));
    assert!(away(-50.0) < ROUNDING, "{}", away(-50.0));
    assert!(away(-1e4) < ROUNDING);
    assert!(away(0.0) > 0.1);

    // λ = p / (p + Σ e^{qk})
    let prefix = PrefixLayer {
        key: keys(0.0),
        value: value.clone(),
    };
    let gate = numbers(
        &prefix_mixing(&case.q, &case.k, &case.v, &prefix, None)
            .unwrap()
            .gate()
            .unwrap(),
    );
    let (q, k) = (numbers(&case.q), numbers(&case.k));
    let mut want = Vec::new();
    for (b, h, t) in (0..24).map(|i| (i / 12, i / 3 % 4, i % 3)) {
        let query = &q[((b * 4 + h) * 3 + t) * 4..][..4];
        let total: f64 = (0..3)
            .map(|j| {
                let key = &k[((b * 2 + h / 2) * 3 + j) * 4..][..4];
                let dot: f64 = query.iter().zip(key).map(|(q, k)| q * k).sum();
                (dot / 2.0).exp()
            })
            .sum();
        want.push(2.0 / (2.0 + total));
    }
    assert_close(&gate, &want, ROUNDING, "gate");
}

#[test]
fn a_query_without_content_is_answered_by_the_prefix_alone() {
    let mut case = case();
    case.visible = case.visible.zeros_like().unwrap();
    let mixture =
        prefix_mixing(&case.q, &case.k, &case.v, &case.prefix, Some(&case.visible)).unwrap();
    assert_eq!(numbers(&mixture.gate().unwrap()), [1.0; 24]);
    let alone = numbers(mixture.prefix());
    assert_close(&case.attention(&case.prefix), &alone, ROUNDING, "attention");
    assert_eq!(numbers(&mixture.output().unwrap()), alone);
}

#[test]
fn the_order_of_a_prefix_makes_no_difference() {
    let case = case();
    let turned = |x: &Tensor| {
        let order = Tensor::new(&[1u32, 0], &Device::Cpu).unwrap();
        x.index_select(&order, 1).unwrap()
    };
    let other = PrefixLayer {
        key: turned(&case.prefix.key),
        value: turned(&case.prefix.value),
    };
    let want = case.attention(&case.prefix);
    assert_close(&case.attention(&other), &want, ROUNDING, "order");
    // a key against another value is another prefix
    let mixed = PrefixLayer {
        key: other.key,
        value: case.prefix.value.clone(),
    };
    let far = case
        .attention(&mixed)
        .iter()
        .zip(&want)
        .any(|(a, b)| (a - b).abs() > 0.01);
    assert!(far);
}

fn encoder(reparametrization: Reparametrization) -> PrefixEncoder {
    let config = PrefixConfig {
        length: 5,
        reparametrization,
    };
    PrefixEncoder::new(SHAPE, &config, DType::F32, &Device::Cpu, &mut rng(5)).unwrap()
}

#[test]
fn without_its_network_a_prefix_is_the_same_to_the_bit() {
    let d = SHAPE.width();
    for form in [
        Reparametrization::Mlp { inner: 7 },
        Reparametrization::Direct,
    ] {
        let trained = encoder(form);
        let plain = trained.finish().unwrap();
        assert!(plain.is_plain());
        assert_eq!(plain.length(), 5);
        assert_eq!(plain.shape(), SHAPE);
        assert_eq!(plain.parameters(), 2 * 3 * 5 * d);
        for (a, b) in trained
            .layers()
            .unwrap()
            .iter()
            .zip(plain.layers().unwrap())
        {
            let (a, b) = (a.as_ref().unwrap(), b.unwrap());
            assert_eq!(bits(&a.key), bits(&b.key));
            assert_eq!(bits(&a.value), bits(&b.value));
        }
        // it is another variable from then on
        let vars = plain.trainable("p");
        assert_eq!(vars.len(), 1);
        let before = bits(&trained.values().unwrap());
        vars[0].1.set(&vars[0].1.zeros_like().unwrap()).unwrap();
        assert_eq!(bits(&trained.values().unwrap()), before);
        // and a file of it is it
        let again = PrefixEncoder::from_values(SHAPE, &trained.values().unwrap()).unwrap();
        assert_eq!(bits(&again.values().unwrap()), before);
    }
    let mlp = encoder(Reparametrization::Mlp { inner: 7 });
    assert!(!mlp.is_plain());
    assert_eq!(mlp.parameters(), 5 * d + 7 * (d + 1) + 2 * 3 * d * (7 + 1));
}

#[test]
fn disabled_no_layer_has_a_prefix() {
    let mut encoder = encoder(Reparametrization::Direct);
    assert!(encoder.is_enabled());
    encoder.set_enabled(false);
    assert!(!encoder.is_enabled());
    assert!(encoder.layers().unwrap().iter().all(Option::is_none));
    assert_eq!(encoder.layers().unwrap().len(), 3);
    assert!(!encoder.finish().unwrap().is_enabled());
    encoder.set_enabled(true);
    assert!(encoder.layers().unwrap().iter().all(Option::is_some));
}

#[test]
fn every_number_of_a_prefix_learns() {
    let case = case();
    for form in [
        Reparametrization::Mlp { inner: 7 },
        Reparametrization::Direct,
    ] {
        let encoder = encoder(form);
        let clone = encoder.clone();
        let (q, k, v) = (var(&case.q), var(&case.k), var(&case.v));
        let single = |x: &Tensor| x.to_dtype(DType::F32).unwrap();
        let outputs: Vec<Tensor> = clone
            .layers()
            .unwrap()
            .iter()
            .map(|l| {
                prefix_attention(
                    &single(&q),
                    &single(&k),
                    &single(&v),
                    l.as_ref().unwrap(),
                    None,
                )
            })
            .collect::<Result<_, _>>()
            .unwrap();
        let loss = Tensor::stack(&outputs, 0)
            .unwrap()
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap();
        let grads = loss.backward().unwrap();
        let coverage =
            candle_align::training::grad_coverage(&encoder.trainable("p"), &grads).unwrap();
        assert!(coverage.is_complete(), "{coverage}");
        for (name, var) in encoder.trainable("p") {
            let grad = numbers(grads.get(&var).unwrap());
            assert!(grad.iter().all(|g| *g != 0.0), "{name}");
        }
    }
}

#[test]
fn a_mixture_is_stable_where_a_share_vanishes() {
    let mut case = case();
    // scores of thousands, of both signs
    case.prefix.key = (case.prefix.key * 5e3).unwrap();
    let mixture =
        prefix_mixing(&case.q, &case.k, &case.v, &case.prefix, Some(&case.visible)).unwrap();
    let want = case.attention(&case.prefix);
    assert_close(
        &numbers(&mixture.output().unwrap()),
        &want,
        EXACT,
        "mixture",
    );
    let gate = numbers(&mixture.gate().unwrap());
    assert!(
        gate.contains(&1.0) || gate.iter().any(|g| *g < 1e-30),
        "{gate:?}"
    );
}
