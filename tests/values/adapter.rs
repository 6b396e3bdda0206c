use crate::common::adapters::{assert_gradients, disturb, objective};
use crate::common::lora::{irregular, rng, tensor, var};
use crate::common::{EXACT, assert_close, numbers, sigma, vector};
use candle_align::parameter_efficient::{
    Activation, BottleneckAdapter, BottleneckConfig, FrozenLinear, Insertion, MamConfig,
    PrefixConfig, Reparametrization,
};
use candle_core::{DType, Device, Tensor};
use candle_nn::Module;

const ACTIVATIONS: [Activation; 4] = [
    Activation::Linear,
    Activation::Relu,
    Activation::Gelu,
    Activation::Swish,
];

/// 4 inputs, 3 outputs (3 if sequential), width 2, s = 1.5.
fn adapter(activation: Activation, insertion: Insertion, bias: bool) -> BottleneckAdapter {
    let config = BottleneckConfig {
        width: 2,
        activation,
        scale: 1.5,
        insertion,
        bias,
    };
    let inputs = match insertion {
        Insertion::Sequential => 3,
        Insertion::Parallel => 4,
    };
    BottleneckAdapter::new(inputs, 3, &config, DType::F64, &Device::Cpu, &mut rng(8)).unwrap()
}

#[test]
fn the_settings_are_the_papers() {
    let config = BottleneckConfig::default();
    assert_eq!((config.width, config.scale, config.bias), (64, 1.0, true));
    assert_eq!(config.activation, Activation::Relu);
    assert_eq!(config.insertion, Insertion::Sequential);
    let mam = MamConfig::default();
    let prefix = PrefixConfig {
        length: 30,
        reparametrization: Reparametrization::Mlp { inner: 512 },
    };
    assert_eq!(mam.prefix, prefix);
    assert_eq!((mam.adapter.width, mam.adapter.scale), (512, 4.0));
    assert_eq!(mam.adapter.insertion, Insertion::Parallel);
    assert!(!mam.adapter.bias);
    let json =
        r#"{"width":2,"activation":"swish","scale":4.0,"insertion":"parallel","bias":false}"#;
    let read: BottleneckConfig = serde_json::from_str(json).unwrap();
    assert_eq!(read.activation, Activation::Swish);
    assert_eq!(serde_json::to_string(&read).unwrap(), json);
    assert!(serde_json::from_str::<MamConfig>(r#"{"r":3}"#).is_err());
}

/// Φ(x) by Simpson's rule from 0.
fn normal(x: f64) -> f64 {
    let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let (n, h) = (2000, x / 2000.0);
    let inner = (1..n).map(|i| density(h * i as f64) * if i % 2 == 1 { 4.0 } else { 2.0 });
    0.5 + (density(0.0) + density(x) + inner.sum::<f64>()) * h / 3.0
}

fn by_hand(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Linear => x,
        Activation::Relu => x.max(0.0),
        Activation::Gelu => x * normal(x),
        Activation::Swish => x * sigma(x),
    }
}

#[test]
fn activations_have_their_values_and_slopes() {
    let points = [-3.0, -1.0, -0.2, 0.3, 1.0, 2.5];
    for activation in ACTIVATIONS {
        let x = var(&vector(&points));
        let want: Vec<f64> = points.iter().map(|&x| by_hand(activation, x)).collect();
        let found = numbers(&activation.apply(&x).unwrap());
        assert_close(&found, &want, EXACT, "f");
        assert_gradients("f", &[(format!("{activation:?}"), x.clone())], || {
            objective(&activation.apply(&x).unwrap())
        });
    }
}

#[test]
fn slopes_at_zero() {
    for (activation, slope) in [
        (Activation::Linear, 1.0),
        (Activation::Relu, 0.0),
        (Activation::Gelu, 0.5),
        (Activation::Swish, 0.5),
    ] {
        let x = var(&vector(&[0.0]));
        let grads = activation.apply(&x).unwrap().backward().unwrap();
        let found = numbers(grads.get(&x).unwrap());
        assert_close(&found, &[slope], EXACT, "slope");
        let far = var(&vector(&[-1e4, 1e4]).to_dtype(DType::F32).unwrap());
        let y = activation.apply(&far).unwrap();
        let grads = y.sum_all().unwrap().backward().unwrap();
        for number in [numbers(&y), numbers(grads.get(&far).unwrap())].concat() {
            assert!(number.is_finite(), "{activation:?}");
        }
    }
}

#[test]
fn the_output_is_h_plus_the_scaled_network() {
    for activation in ACTIVATIONS {
        for insertion in [Insertion::Sequential, Insertion::Parallel] {
            for bias in [true, false] {
                let adapter = adapter(activation, insertion, bias);
                let vars = adapter.trainable("layer");
                disturb(&vars);
                let get = |name: &str| {
                    let found = vars.iter().find(|(n, _)| *n == format!("layer.{name}"));
                    found.map(|(_, var)| numbers(var))
                };
                let inputs = adapter.down().dims()[1];
                let (x, h) = (irregular(&[2, 5, inputs]), irregular(&[2, 5, 3]));
                let read = match insertion {
                    Insertion::Sequential => numbers(&h),
                    Insertion::Parallel => numbers(&x),
                };
                let (down, up) = (
                    get("down_proj.weight").unwrap(),
                    get("up_proj.weight").unwrap(),
                );
                let b_down = get("down_proj.bias").unwrap_or(vec![0.0; 2]);
                let b_up = get("up_proj.bias").unwrap_or(vec![0.0; 3]);
                let mut want = Vec::new();
                for (row, h) in read.chunks(inputs).zip(numbers(&h).chunks(3)) {
                    let inner: Vec<f64> = (0..2)
                        .map(|j| {
                            let dot: f64 = (0..inputs).map(|i| down[inputs * j + i] * row[i]).sum();
                            by_hand(activation, dot + b_down[j])
                        })
                        .collect();
                    want.extend((0..3).map(|o| {
                        let dot: f64 = (0..2).map(|j| up[2 * o + j] * inner[j]).sum();
                        h[o] + 1.5 * (dot + b_up[o])
                    }));
                }
                let got = adapter.insert(&x, &h).unwrap();
                assert_eq!(got.dims(), [2, 5, 3]);
                assert_close(&numbers(&got), &want, EXACT, "h");
                let sides = inputs + 3;
                let biases = if bias { 2 + 3 } else { 0 };
                assert_eq!(adapter.parameters(), 2 * sides + biases);
            }
        }
    }
}

#[test]
fn names_are_sorted() {
    let adapter = adapter(Activation::Relu, Insertion::Parallel, true);
    let names: Vec<String> = adapter.trainable("").into_iter().map(|(n, _)| n).collect();
    assert_eq!(
        names,
        [
            "down_proj.bias",
            "down_proj.weight",
            "up_proj.bias",
            "up_proj.weight"
        ]
    );
    assert_eq!(adapter.scale(), 1.5);
    assert_eq!(adapter.insertion(), Insertion::Parallel);
}

#[test]
fn the_first_map_starts_uniform() {
    let config = BottleneckConfig {
        width: 300,
        ..Default::default()
    };
    let cpu = Device::Cpu;
    let adapter = BottleneckAdapter::new(16, 16, &config, DType::F32, &cpu, &mut rng(1)).unwrap();
    let down = numbers(adapter.down());
    let largest = down.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    assert!(largest <= 0.25 && largest > 0.249, "{largest}");
    let square = down.iter().map(|x| x * x).sum::<f64>() / down.len() as f64;
    assert!((square - 0.0625 / 3.0).abs() < 0.002, "{square}");
}

#[test]
fn gradients_are_central_differences() {
    for activation in ACTIVATIONS {
        for insertion in [Insertion::Sequential, Insertion::Parallel] {
            let adapter = adapter(activation, insertion, true);
            for at_start in [true, false] {
                if !at_start {
                    disturb(&adapter.trainable(""));
                }
                let x = var(&irregular(&[5, adapter.down().dims()[1]]));
                let h = var(&irregular(&[5, 3]));
                let mut vars = adapter.trainable("");
                vars.push(("h".to_string(), h.clone()));
                if insertion == Insertion::Parallel {
                    vars.push(("x".to_string(), x.clone()));
                }
                assert_gradients(&format!("{activation:?} {insertion:?}"), &vars, || {
                    objective(&adapter.insert(&x, &h).unwrap())
                });
            }
        }
    }
}

#[test]
fn half_types_are_rounded_once() {
    let config = BottleneckConfig {
        width: 2,
        ..Default::default()
    };
    let adapter =
        BottleneckAdapter::new(3, 3, &config, DType::F32, &Device::Cpu, &mut rng(8)).unwrap();
    disturb(&adapter.trainable(""));
    for half in [DType::BF16, DType::F16] {
        let h = irregular(&[2, 3]).to_dtype(half).unwrap();
        let got = adapter.insert(&h, &h).unwrap();
        assert_eq!(got.dtype(), half);
        let wide = h.to_dtype(DType::F32).unwrap();
        let want = adapter
            .insert(&wide, &wide)
            .unwrap()
            .to_dtype(half)
            .unwrap();
        assert_eq!(numbers(&got), numbers(&want));
    }
}

#[test]
fn around_a_layer_it_is_a_layer() {
    let weight = tensor(&[
        [0.5, -1.0, 0.25, 2.0],
        [-0.75, 0.3, 1.1, -0.2],
        [0.9, 0.4, -1.3, 0.6],
    ]);
    let linear = FrozenLinear::new(weight, None).unwrap();
    let adapter = adapter(Activation::Swish, Insertion::Parallel, true);
    disturb(&adapter.trainable(""));
    let x = irregular(&[2, 4]);
    let want = adapter.insert(&x, &linear.forward(&x).unwrap()).unwrap();
    let layer = adapter.around(linear);
    assert_eq!(numbers(&layer.forward(&x).unwrap()), numbers(&want));
    assert_ne!(numbers(&layer.layer.forward(&x).unwrap()), numbers(&want));
    let none = Tensor::zeros((0, 4), DType::F64, &Device::Cpu).unwrap();
    assert_eq!(layer.forward(&none).unwrap().dims(), [0, 3]);
}
