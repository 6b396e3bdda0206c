use crate::common::adapted::*;
use crate::common::adapters::{assert_gradients, objective};
use crate::common::lora::*;
use crate::common::{EXACT, assert_close, dot, numbers};
use candle_align::parameter_efficient::{Adapter, VeraConfig, VeraLinear, VeraProjections};
use candle_core::{DType, Device};
use candle_nn::Module;
use rand::Rng;

/// W x + b + λ_b ⊙ B(λ_d ⊙ A x̃) in plain numbers.
fn by_hand(x: &[f64], dropped: &[f64]) -> Vec<f64> {
    (0..3)
        .map(|o| {
            let inner = |r: usize| B[o][r] * LAMBDA[r] * dot(&A[r], dropped);
            dot(&WEIGHT[o], x) + BIAS[o] + LAMBDA_B[o] * (inner(0) + inner(1))
        })
        .collect()
}

#[test]
fn the_output_is_the_base_plus_the_scaled_random_layer() {
    let layer = vera(&vera_config(), DType::F64);
    let y = layer.forward(&tensor(&X)).unwrap();
    let want: Vec<f64> = X.iter().flat_map(|x| by_hand(x, x)).collect();
    assert_close(&numbers(&y), &want, EXACT, "h");
    let want: Vec<f64> = (0..3)
        .flat_map(|o| (0..4).map(move |i| (o, i)))
        .map(|(o, i)| LAMBDA_B[o] * (0..2).map(|r| B[o][r] * LAMBDA[r] * A[r][i]).sum::<f64>())
        .collect();
    assert_close(&numbers(&layer.delta().unwrap()), &want, EXACT, "delta");
}

#[test]
fn dropout_acts_on_the_input_of_a() {
    let p = 0.4;
    let config = VeraConfig {
        dropout: p,
        ..vera_config()
    };
    let layer = vera(&config, DType::F64);
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
            by_hand(x, &kept)
        })
        .collect();
    assert_close(&numbers(&y), &want, EXACT, "h");
}

#[test]
fn gradients_are_central_differences() {
    for dropout in [0.0, 0.3] {
        let config = VeraConfig {
            dropout,
            ..vera_config()
        };
        let shared = shared(DType::F64);
        let start = VeraLinear::new(&base(DType::F64), &shared, &config).unwrap();
        for layer in [vera(&config, DType::F64), start] {
            for shape in [&[2, 4][..], &[2, 3, 4]] {
                let x = var(&irregular(shape));
                let mut vars = layer.trainable("");
                vars.push(("x".to_string(), x.clone()));
                assert_gradients(&format!("{dropout} {shape:?}"), &vars, || {
                    objective(&layer.forward_train(&x, &mut rng(3)).unwrap())
                });
            }
        }
    }
}

#[test]
fn at_its_start_only_lambda_b_moves() {
    let config = VeraConfig {
        d_initial: 0.25,
        ..vera_config()
    };
    let layer = VeraLinear::new(&base(DType::F64), &shared(DType::F64), &config).unwrap();
    assert_eq!(numbers(layer.lambda_d()), [0.25; 2]);
    assert_eq!(numbers(layer.lambda_b()), [0.0; 3]);
    let y = layer.forward(&tensor(&X)).unwrap();
    let grads = y.sqr().unwrap().backward().unwrap();
    assert_eq!(numbers(grads.get(layer.lambda_d()).unwrap()), [0.0; 2]);
    let b = numbers(grads.get(layer.lambda_b()).unwrap());
    assert!(b.iter().all(|g| *g != 0.0), "{b:?}");
    let default = VeraConfig::default();
    assert_eq!(
        (default.rank, default.d_initial, default.dropout),
        (256, 0.1, 0.0)
    );
    assert!(serde_json::from_str::<VeraConfig>(r#"{"r": 4}"#).is_err());
}

#[test]
fn projections_are_kaiming_uniform_with_gain_root_two() {
    let config = VeraConfig {
        rank: 50,
        ..Default::default()
    };
    let draw = |seed| {
        let mut rng = rng(seed);
        VeraProjections::new(&config, 400, 300, DType::F64, &Device::Cpu, &mut rng).unwrap()
    };
    let shared = draw(3);
    assert_eq!(
        (shared.a().dims(), shared.b().dims()),
        (&[50, 400][..], &[300, 50][..])
    );
    for (t, fan_in) in [(shared.a(), 400.0), (shared.b(), 50.0)] {
        let bound = (6.0f64 / fan_in).sqrt();
        let x = numbers(t);
        let n = x.len() as f64;
        let (mean, square) = (
            x.iter().sum::<f64>() / n,
            x.iter().map(|x| x * x).sum::<f64>() / n,
        );
        let variance = bound * bound / 3.0;
        assert!(mean.abs() < 4.0 * (variance / n).sqrt(), "{mean}");
        // the variance of u² for u ~ U(−b, b) is 4b⁴/45
        let error = 4.0 * (4.0 * bound.powi(4) / 45.0 / n).sqrt();
        assert!((square - variance).abs() < error, "{square}");
        let greatest = x.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        assert!(0.999 * bound < greatest && greatest <= bound);
    }
    assert_eq!(bits(draw(3).a()), bits(shared.a()));
    assert_ne!(bits(draw(4).b()), bits(shared.b()));
}
