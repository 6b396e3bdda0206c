use crate::common::adapted::*;
use crate::common::adapters::{assert_gradients, objective};
use crate::common::lora::*;
use crate::common::{EXACT, assert_close, dot, numbers, vector};
use candle_align::parameter_efficient::{
    Adapter, DoraLinear, LinearAdapter, LoraBias, LoraConfig, LoraInit, Scaling,
};
use candle_core::{DType, IndexOp, Tensor};
use candle_nn::{Linear, Module};
use rand::Rng;

/// W₀ + s · B A in plain numbers.
fn v(s: f64) -> [[f64; 4]; 3] {
    [0, 1, 2]
        .map(|o| [0, 1, 2, 3].map(|i| WEIGHT[o][i] + s * (B[o][0] * A[0][i] + B[o][1] * A[1][i])))
}

fn norm(row: &[f64]) -> f64 {
    dot(row, row).sqrt()
}

#[test]
fn the_output_is_the_scaled_direction() {
    for (scaling, s) in [
        (Scaling::Rank, 3.0 / 2.0),
        (Scaling::RankSqrt, 3.0 / 2f64.sqrt()),
    ] {
        let layer = dora(
            &LoraConfig {
                scaling,
                ..config()
            },
            DType::F64,
        );
        assert_eq!(layer.scale(), s);
        let norms = v(s).map(|row| norm(&row));
        assert_close(&numbers(&layer.norm().unwrap()), &norms, EXACT, "n");
        let y = layer.forward(&tensor(&X)).unwrap();
        let want: Vec<f64> = X
            .iter()
            .flat_map(|x| {
                (0..3)
                    .map(|o| MAGNITUDE[o] / norms[o] * dot(&v(s)[o], x) + BIAS[o])
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_close(&numbers(&y), &want, EXACT, "h");
        // the merged rows are as long as m says
        let merged = layer.merged_linear().unwrap();
        let want: Vec<f64> = (0..3)
            .flat_map(|o| v(s)[o].map(|w| MAGNITUDE[o] / norms[o] * w))
            .collect();
        assert_close(&numbers(merged.weight()), &want, EXACT, "W");
        let lengths = merged
            .weight()
            .sqr()
            .unwrap()
            .sum(1)
            .unwrap()
            .sqrt()
            .unwrap();
        assert_close(&numbers(&lengths), &MAGNITUDE, EXACT, "‖W‖");
        assert_eq!(numbers(merged.bias().unwrap()), BIAS);
    }
}

#[test]
fn m_starts_as_the_lengths_of_the_rows_and_a_as_in_lora() {
    for init in [LoraInit::KaimingUniform, LoraInit::Gaussian] {
        let config = LoraConfig { init, ..config() };
        let layer = DoraLinear::new(&base(DType::F64), &config, &mut rng(7)).unwrap();
        let lengths = WEIGHT.map(|row| norm(&row));
        assert_close(&numbers(layer.magnitude()), &lengths, EXACT, "m");
        assert_eq!(numbers(layer.a()), numbers(start(&config, DType::F64).a()));
        assert_eq!(numbers(layer.b()), [0.0; 6]);
    }
}

#[test]
fn dropout_acts_on_the_change_alone() {
    let p = 0.4;
    let layer = dora(
        &LoraConfig {
            dropout: p,
            ..config()
        },
        DType::F64,
    );
    let (mut once, mut again) = (rng(5), rng(5));
    let y = layer.forward_train(&tensor(&X), &mut once).unwrap();
    let want: Vec<f64> = X
        .iter()
        .flat_map(|x| {
            let kept = x.map(|x| match again.random_bool(p) {
                true => 0.0,
                false => x / (1.0 - p),
            });
            assert_ne!(kept, *x);
            let row = |o: usize| {
                let (factor, ba) = (
                    MAGNITUDE[o] / norm(&v(S)[o]),
                    dot(&v(S)[o], &kept) - dot(&WEIGHT[o], &kept),
                );
                dot(&WEIGHT[o], x) + BIAS[o] + (factor - 1.0) * dot(&WEIGHT[o], &kept) + factor * ba
            };
            [row(0), row(1), row(2)]
        })
        .collect();
    assert_close(&numbers(&y), &want, EXACT, "h");
}

#[test]
fn a_trained_bias_stands_in_place_of_the_base_layers() {
    let config = LoraConfig {
        bias: LoraBias::Base,
        dropout: 0.4,
        ..config()
    };
    let base = base(DType::F64);
    let layer = dora(&config, DType::F64);
    let vars = layer.trainable("q");
    let names: Vec<&str> = vars.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "q.base_layer.bias",
            "q.lora_A.weight",
            "q.lora_B.weight",
            "q.lora_magnitude_vector"
        ]
    );
    let bias = &vars[0].1;
    assert_eq!(numbers(bias), BIAS);
    let plain = LoraConfig {
        bias: LoraBias::Frozen,
        ..config
    };
    let frozen = dora(&plain, DType::F64);
    let moved = [0.25, -1.5, 3.0];
    set(bias, vector(&moved));
    // m and n do not touch it
    let added = |h: &Tensor| -> Vec<f64> {
        let each = numbers(h).into_iter().enumerate();
        each.map(|(i, h)| h - BIAS[i % 3] + moved[i % 3]).collect()
    };
    let x = tensor(&X);
    let h = layer.forward(&x).unwrap();
    let want = added(&frozen.forward(&x).unwrap());
    assert_close(&numbers(&h), &want, EXACT, "h");
    let dropped = |layer: &DoraLinear| layer.forward_train(&x, &mut rng(5)).unwrap();
    let want = added(&dropped(&frozen));
    assert_close(&numbers(&dropped(&layer)), &want, EXACT, "dropout");
    let merged = layer.merged_linear().unwrap();
    assert_eq!(numbers(merged.bias().unwrap()), moved);
    // ∂L/∂b = Σ ∂L/∂h
    let grads = h.sum_all().unwrap().backward().unwrap();
    assert_eq!(numbers(grads.get(bias).unwrap()), [X.len() as f64; 3]);
    // the base keeps its own
    let mut off = layer.clone();
    off.set_enabled(false);
    let (off, want) = (off.forward(&x).unwrap(), base.forward(&x).unwrap());
    assert_eq!(bits(&off), bits(&want));
}

#[test]
fn gradients_are_central_differences_with_the_norm_held_still() {
    let rank_stabilized = LoraConfig {
        scaling: Scaling::RankSqrt,
        ..config()
    };
    let starting = DoraLinear::new(&base(DType::F64), &rank_stabilized, &mut rng(7)).unwrap();
    for layer in [dora(&rank_stabilized, DType::F64), starting] {
        for shape in [&[2, 4][..], &[2, 3, 4]] {
            let x = var(&irregular(shape));
            let still = layer.norm().unwrap();
            // the same equation, written out, with n as it is now
            let written = || {
                let change = layer.b().matmul(layer.a()).unwrap();
                let v = (tensor(&WEIGHT) + (change * layer.scale()).unwrap()).unwrap();
                let factor = (layer.magnitude().as_tensor() / &still).unwrap();
                let v = v.broadcast_mul(&factor.unsqueeze(1).unwrap()).unwrap();
                let h = x.broadcast_matmul(&v.t().unwrap()).unwrap();
                objective(&h.broadcast_add(&vector(&BIAS)).unwrap())
            };
            let mut vars = layer.trainable("");
            vars.push(("x".to_string(), x.clone()));
            assert_gradients("written out", &vars, written);
            let want = written().backward().unwrap();
            let got = objective(&layer.forward(&x).unwrap()).backward().unwrap();
            for (name, var) in &vars {
                let (got, want) = (got.get(var).unwrap(), want.get(var).unwrap());
                let size = numbers(want).iter().fold(1.0f64, |m, w| m.max(w.abs()));
                assert_close(&numbers(got), &numbers(want), EXACT * size, name);
            }
            // m and x do not move the norm: there it is the whole difference
            let direct = [
                ("m".to_string(), layer.magnitude().clone()),
                ("x".to_string(), x.clone()),
            ];
            assert_gradients("m and x", &direct, || {
                objective(&layer.forward(&x).unwrap())
            });
        }
    }
}

#[test]
fn gradients_with_dropout_are_central_differences_where_the_norm_stays() {
    let config = LoraConfig {
        dropout: 0.3,
        ..config()
    };
    let layer = dora(&config, DType::F64);
    let x = var(&irregular(&[2, 3, 4]));
    let vars = [
        ("m".to_string(), layer.magnitude().clone()),
        ("x".to_string(), x.clone()),
    ];
    assert_gradients("dropout", &vars, || {
        objective(&layer.forward_train(&x, &mut rng(3)).unwrap())
    });
}

#[test]
fn the_norm_gets_no_gradient() {
    // V moves along itself: with n in the graph, ∂h/∂B would have no part along the row's direction
    let layer = dora(&config(), DType::F64);
    let h = layer.forward(&tensor(&X)).unwrap();
    let got = h.sum_all().unwrap().backward().unwrap();
    let got = numbers(got.get(layer.b()).unwrap());
    let n = v(S).map(|row| norm(&row));
    // ∂L/∂B = s · m/n · Σ (A x)
    let ax = |r: usize| X.iter().map(|x| dot(&A[r], x)).sum::<f64>();
    let want: Vec<f64> = (0..3)
        .flat_map(|o| [0, 1].map(|r| S * MAGNITUDE[o] / n[o] * ax(r)))
        .collect();
    assert_close(&got, &want, EXACT, "B");
}

/// A layer whose second row is zero.
fn with_a_row_of_zeros(config: &LoraConfig) -> DoraLinear {
    let mut rows = WEIGHT;
    rows[1] = [0.0; 4];
    let base = Linear::new(tensor(&rows), Some(vector(&BIAS)));
    DoraLinear::new(&base, config, &mut rng(7)).unwrap()
}

#[test]
fn a_row_of_zeros_is_defined_and_can_grow() {
    let layer = with_a_row_of_zeros(&config());
    set(layer.a(), tensor(&A));
    assert_eq!(numbers(layer.magnitude())[1], 0.0);
    let x = var(&tensor(&X));
    let y = layer.forward(&x).unwrap();
    assert_eq!(bits(&y), bits(&layer.base().forward(&x).unwrap()));
    let merged = layer.merged_linear().unwrap();
    assert_eq!(numbers(&merged.weight().i(1).unwrap()), [0.0; 4]);

    // the factor is 1: B's gradient is LoRA's, and m gets none
    let grads = y.sum_all().unwrap().backward().unwrap();
    let all = |var| numbers(grads.get(var).unwrap());
    let ax = |r: usize| X.iter().map(|x| dot(&A[r], x)).sum::<f64>();
    let b = all(layer.b());
    assert_close(&b[2..4], &[S * ax(0), S * ax(1)], EXACT, "B");
    assert_eq!(all(layer.magnitude())[1], 0.0);
    let finite = |t: &Tensor| numbers(t).iter().all(|g| g.is_finite());
    assert!(finite(grads.get(layer.a()).unwrap()) && finite(grads.get(&x).unwrap()));

    // once B has moved there is a direction, and m grows along it from 0
    set(layer.b(), tensor(&B));
    let change = [0, 1, 2, 3].map(|i| S * (B[1][0] * A[0][i] + B[1][1] * A[1][i]));
    let y = layer.forward(&x).unwrap();
    assert_close(
        &numbers(&y.i((.., 1)).unwrap()),
        &[BIAS[1]; 2],
        EXACT,
        "m = 0",
    );
    let grads = y.sum_all().unwrap().backward().unwrap();
    let got = numbers(grads.get(layer.magnitude()).unwrap())[1];
    let want = X.iter().map(|x| dot(&change, x)).sum::<f64>() / norm(&change);
    assert_close(&[got], &[want], EXACT, "∂L/∂m");
}
