use crate::common::adapters::{assert_gradients, disturb, objective};
use crate::common::lora::{irregular, rng, var};
use crate::common::{EXACT, assert_close, numbers};
use candle_align::parameter_efficient::{
    PrefixConfig, PrefixEncoder, PrefixLayer, PrefixShape, Reparametrization, prefix_attention,
    prefix_mixing,
};
use candle_core::{DType, Device, Tensor, Var};

/// Two layers of two key heads of width 3.
const SHAPE: PrefixShape = PrefixShape {
    layers: 2,
    heads: 2,
    head_dim: 3,
};

fn encoder(length: usize, reparametrization: Reparametrization) -> PrefixEncoder {
    let config = PrefixConfig {
        length,
        reparametrization,
    };
    PrefixEncoder::new(SHAPE, &config, DType::F64, &Device::Cpu, &mut rng(5)).unwrap()
}

#[test]
fn the_settings_are_the_papers() {
    let config = PrefixConfig::default();
    assert_eq!(config.length, 10);
    let inner = 512;
    assert_eq!(config.reparametrization, Reparametrization::Mlp { inner });
    let json = r#"{"length":3,"reparametrization":"direct"}"#;
    let read: PrefixConfig = serde_json::from_str(json).unwrap();
    assert_eq!(read.reparametrization, Reparametrization::Direct);
    assert_eq!(serde_json::to_string(&read).unwrap(), json);
    assert!(serde_json::from_str::<PrefixConfig>(r#"{"len":3}"#).is_err());
}

/// Row i: layer by layer, key then value, head by head.
#[test]
fn a_row_holds_layers_keys_and_values_heads_in_this_order() {
    let values = irregular(&[4, 2 * 2 * 6]);
    let encoder = PrefixEncoder::from_values(SHAPE, &values).unwrap();
    let p = |i: usize, l: usize, kv: usize, h: usize, d: usize| {
        let column = ((2 * l + kv) * 2 + h) * 3 + d;
        (1.7 * (24 * i + column) as f64 + 0.3).sin()
    };
    for (l, layer) in encoder.layers().unwrap().into_iter().enumerate() {
        let layer = layer.unwrap();
        for (kv, found) in [layer.key, layer.value].into_iter().enumerate() {
            assert_eq!(found.dims(), [2, 4, 3]);
            let want: Vec<f64> = (0..2)
                .flat_map(|h| (0..4).flat_map(move |i| (0..3).map(move |d| p(i, l, kv, h, d))))
                .collect();
            assert_close(&numbers(&found), &want, EXACT, "layer");
        }
    }
    assert_eq!(encoder.length(), 4);
    assert_eq!(encoder.parameters(), 2 * 2 * 4 * 6);
}

#[test]
fn the_network_is_linear_tanh_linear() {
    let encoder = encoder(3, Reparametrization::Mlp { inner: 4 });
    disturb(&encoder.trainable(""));
    let vars = encoder.trainable("prefix");
    let names: Vec<&str> = vars.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "prefix.embedding.weight",
            "prefix.transform.0.bias",
            "prefix.transform.0.weight",
            "prefix.transform.2.bias",
            "prefix.transform.2.weight",
        ]
    );
    let shapes: Vec<&[usize]> = vars.iter().map(|(_, var)| var.dims()).collect();
    assert_eq!(shapes, [&[3, 6][..], &[4], &[4, 6], &[24], &[24, 4]]);
    let [p, b1, w1, b2, w2]: [Vec<f64>; 5] = std::array::from_fn(|i| numbers(&vars[i].1));
    let mut want = Vec::new();
    for row in p.chunks(6) {
        let inner: Vec<f64> = (0..4)
            .map(|j| b1[j] + (0..6).map(|d| w1[6 * j + d] * row[d]).sum::<f64>())
            .map(f64::tanh)
            .collect();
        want.extend((0..24).map(|o| b2[o] + (0..4).map(|j| w2[4 * o + j] * inner[j]).sum::<f64>()));
    }
    assert_close(&numbers(&encoder.values().unwrap()), &want, EXACT, "P");
    let d = 6;
    assert_eq!(
        encoder.parameters(),
        3 * d + 4 * (d + 1) + 2 * 2 * d * (4 + 1)
    );
}

#[test]
fn the_start_has_the_widths_of_the_page() {
    let wide = PrefixShape {
        layers: 4,
        heads: 5,
        head_dim: 10,
    };
    let config = PrefixConfig {
        length: 20,
        reparametrization: Reparametrization::Direct,
    };
    let plain = PrefixEncoder::new(wide, &config, DType::F32, &Device::Cpu, &mut rng(1)).unwrap();
    let values = numbers(&plain.values().unwrap());
    let n = values.len() as f64;
    assert_eq!(n, 20.0 * 400.0);
    let square = values.iter().map(|x| x * x).sum::<f64>() / n;
    // the standard deviation of the mean square of 8,000 normal numbers is 0.016
    assert!((square - 1.0).abs() < 0.07, "{square}");
    let config = PrefixConfig {
        length: 20,
        reparametrization: Reparametrization::Mlp { inner: 100 },
    };
    let mlp = PrefixEncoder::new(wide, &config, DType::F32, &Device::Cpu, &mut rng(1)).unwrap();
    for (name, inputs) in [("transform.0", 50.0f64), ("transform.2", 100.0)] {
        for (found, var) in mlp.trainable("") {
            if found.starts_with(name) {
                let largest = numbers(&var).iter().fold(0.0f64, |a, b| a.max(b.abs()));
                let bound = 1.0 / inputs.sqrt();
                assert!(
                    largest <= bound * 1.0001 && largest > 0.9 * bound,
                    "{found}"
                );
            }
        }
    }
}

/// Queries, keys, values, prefix: 4 query heads over 2 key heads of width 3; 2 rows of 3 queries
/// and 4 keys, a prefix of 2.
struct Inputs {
    q: Var,
    k: Var,
    v: Var,
    prefix: [Var; 2],
}

impl Inputs {
    fn new() -> Self {
        let shifted = |shape: &[usize], by: f64| var(&(irregular(shape) * by).unwrap());
        Self {
            q: shifted(&[2, 4, 3, 3], 1.3),
            k: shifted(&[2, 2, 4, 3], 0.9),
            v: shifted(&[2, 2, 4, 3], -1.1),
            prefix: [shifted(&[2, 2, 3], -0.8), shifted(&[2, 2, 3], 1.7)],
        }
    }

    fn layer(&self) -> PrefixLayer {
        PrefixLayer {
            key: self.prefix[0].as_tensor().clone(),
            value: self.prefix[1].as_tensor().clone(),
        }
    }

    fn vars(&self) -> Vec<(String, Var)> {
        let [key, value] = &self.prefix;
        [
            ("q", &self.q),
            ("k", &self.k),
            ("v", &self.v),
            ("P_k", key),
            ("P_v", value),
        ]
        .map(|(name, var)| (name.to_string(), var.clone()))
        .to_vec()
    }

    /// Sums in plain numbers; `sees(b, t, j)` for content keys.
    fn by_hand(&self, sees: impl Fn(usize, usize, usize) -> bool) -> Vec<f64> {
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|x| numbers(x));
        let [pk, pv] = [0, 1].map(|i| numbers(&self.prefix[i]));
        let mut out = Vec::new();
        for b in 0..2 {
            for h in 0..4 {
                let g = h / 2; // two query heads to a key head
                for t in 0..3 {
                    let query = &q[((b * 4 + h) * 3 + t) * 3..][..3];
                    let mut terms: Vec<(f64, &[f64])> = Vec::new();
                    let mut add = |key: &[f64], value| {
                        let dot: f64 = query.iter().zip(key).map(|(a, b)| a * b).sum();
                        terms.push(((dot / 3f64.sqrt()).exp(), value));
                    };
                    for i in 0..2 {
                        add(&pk[(g * 2 + i) * 3..][..3], &pv[(g * 2 + i) * 3..][..3]);
                    }
                    for j in (0..4).filter(|&j| sees(b, t, j)) {
                        let at = ((b * 2 + g) * 4 + j) * 3;
                        add(&k[at..][..3], &v[at..][..3]);
                    }
                    let total: f64 = terms.iter().map(|(w, _)| w).sum();
                    for d in 0..3 {
                        out.push(terms.iter().map(|(w, v)| w * v[d]).sum::<f64>() / total);
                    }
                }
            }
        }
        out
    }
}

fn visible(rows: &[[u8; 4]], shape: &[usize]) -> Tensor {
    Tensor::from_vec(rows.concat(), shape, &Device::Cpu).unwrap()
}

#[test]
fn attention_with_a_prefix_is_the_sum_over_both_kinds_of_keys() {
    let x = Inputs::new();
    let causal = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]];
    let own = [[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]; // one query sees no content
    let both = [causal, own].concat();
    for (mask, want) in [
        (None, x.by_hand(|_, _, _| true)),
        (
            Some(visible(&causal, &[3, 4])),
            x.by_hand(|_, t, j| causal[t][j] == 1),
        ),
        (
            Some(visible(&both, &[2, 3, 4])),
            x.by_hand(|b, t, j| both[3 * b + t][j] == 1),
        ),
    ] {
        let got = prefix_attention(&x.q, &x.k, &x.v, &x.layer(), mask.as_ref()).unwrap();
        assert_eq!(got.dims(), [2, 4, 3, 3]);
        assert_close(&numbers(&got), &want, EXACT, "attention");
        let mixture = prefix_mixing(&x.q, &x.k, &x.v, &x.layer(), mask.as_ref()).unwrap();
        assert_close(
            &numbers(&mixture.output().unwrap()),
            &want,
            EXACT,
            "mixture",
        );
    }
}

#[test]
fn gradients_are_central_differences() {
    let x = Inputs::new();
    let mask = visible(&[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], &[3, 4]);
    for mask in [None, Some(&mask)] {
        assert_gradients("attention", &x.vars(), || {
            objective(&prefix_attention(&x.q, &x.k, &x.v, &x.layer(), mask).unwrap())
        });
        assert_gradients("mixture", &x.vars(), || {
            let mixture = prefix_mixing(&x.q, &x.k, &x.v, &x.layer(), mask).unwrap();
            objective(&mixture.output().unwrap())
        });
    }
    for form in [
        Reparametrization::Direct,
        Reparametrization::Mlp { inner: 4 },
    ] {
        let encoder = encoder(2, form);
        assert_gradients("encoder", &encoder.trainable(""), || {
            let layers = encoder.layers().unwrap();
            let outputs: Vec<Tensor> = layers
                .iter()
                .map(|layer| {
                    let layer = layer.as_ref().unwrap();
                    prefix_attention(&x.q, &x.k, &x.v, layer, None).unwrap()
                })
                .collect();
            objective(&Tensor::stack(&outputs, 0).unwrap())
        });
    }
}

#[test]
fn stored_keys_and_values_are_copied() {
    let stored = var(&irregular(&[4, 24]));
    let encoder = PrefixEncoder::from_values(SHAPE, &stored).unwrap();
    stored.set(&stored.zeros_like().unwrap()).unwrap();
    let found = numbers(&encoder.values().unwrap());
    assert_eq!(found, numbers(&irregular(&[4, 24])));
    let (name, _) = &encoder.trainable("")[0];
    assert_eq!(name, "prompt_embeddings");
}
