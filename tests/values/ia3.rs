use crate::common::adapted::*;
use crate::common::adapters::{assert_gradients, objective};
use crate::common::lora::*;
use crate::common::{EXACT, assert_close, dot, numbers};
use candle_align::parameter_efficient::{
    Adapter, Ia3ForModel, Ia3Linear, Ia3Place, LinearAdapter, TargetModules, Targets,
};
use candle_core::DType;
use candle_nn::{Linear, Module};

#[test]
fn each_output_or_each_input_has_its_factor() {
    let outputs = ia3(Ia3Place::Output, DType::F64);
    let inputs = ia3(Ia3Place::Input, DType::F64);
    assert_eq!(outputs.scale().dims(), [3, 1]);
    assert_eq!(inputs.scale().dims(), [1, 4]);
    assert_eq!(outputs.place(), Ia3Place::Output);
    assert_eq!(inputs.place(), Ia3Place::Input);
    let (mut want_outputs, mut want_inputs) = (Vec::new(), Vec::new());
    for x in X {
        let scaled = [0, 1, 2, 3].map(|i| INPUT_SCALE[i] * x[i]);
        for o in 0..3 {
            want_outputs.push(OUTPUT_SCALE[o] * (dot(&WEIGHT[o], &x) + BIAS[o]));
            want_inputs.push(dot(&WEIGHT[o], &scaled) + BIAS[o]);
        }
    }
    let y = outputs.forward(&tensor(&X)).unwrap();
    assert_close(&numbers(&y), &want_outputs, EXACT, "output");
    let y = inputs.forward(&tensor(&X)).unwrap();
    assert_close(&numbers(&y), &want_inputs, EXACT, "input");
}

#[test]
fn factors_go_into_rows_and_bias_or_into_columns() {
    let merged = ia3(Ia3Place::Output, DType::F64).merged_linear().unwrap();
    let rows: Vec<f64> = (0..3)
        .flat_map(|o| WEIGHT[o].map(|w| OUTPUT_SCALE[o] * w))
        .collect();
    assert_close(&numbers(merged.weight()), &rows, EXACT, "rows");
    let bias = [0, 1, 2].map(|o| OUTPUT_SCALE[o] * BIAS[o]);
    assert_close(&numbers(merged.bias().unwrap()), &bias, EXACT, "bias");

    let merged = ia3(Ia3Place::Input, DType::F64).merged_linear().unwrap();
    let columns: Vec<f64> = (0..3)
        .flat_map(|o| [0, 1, 2, 3].map(|i| INPUT_SCALE[i] * WEIGHT[o][i]))
        .collect();
    assert_close(&numbers(merged.weight()), &columns, EXACT, "columns");
    assert_eq!(numbers(merged.bias().unwrap()), BIAS);
}

#[test]
fn gradients_are_central_differences() {
    for place in [Ia3Place::Output, Ia3Place::Input] {
        let start = Ia3Linear::new(&base(DType::F64), place).unwrap();
        let bare = Linear::new(tensor(&WEIGHT), None);
        let bare = Ia3Linear::new(&bare, place).unwrap();
        for layer in [ia3(place, DType::F64), start, bare] {
            for shape in [&[2, 4][..], &[2, 3, 4]] {
                let x = var(&irregular(shape));
                let mut vars = layer.trainable("");
                vars.push(("x".to_string(), x.clone()));
                assert_gradients(&format!("{place:?} {shape:?}"), &vars, || {
                    objective(&layer.forward(&x).unwrap())
                });
            }
        }
    }
}

#[test]
fn the_start_is_the_base_for_infinities_too() {
    for place in [Ia3Place::Output, Ia3Place::Input] {
        let layer = Ia3Linear::new(&base(DType::F64), place).unwrap();
        let x = tensor(&[[f64::INFINITY, 0.0, -0.0, 1.0]]);
        let (y, want) = (
            layer.forward(&x).unwrap(),
            layer.base().forward(&x).unwrap(),
        );
        assert_eq!(bits(&y), bits(&want));
        assert!(numbers(&y)[0].is_infinite());
    }
}

#[test]
fn a_path_gets_its_place() {
    let names =
        |names: &[&str]| TargetModules::Names(names.iter().map(|n| n.to_string()).collect());
    let config = Ia3ForModel {
        targets: Targets {
            target_modules: names(&["k_proj", "v_proj", "down_proj"]),
            ..Default::default()
        },
        feedforward_modules: names(&["down_proj"]),
    };
    let place = |path: &str| config.for_module(path).unwrap();
    assert_eq!(place("layers.0.k_proj"), Some(Ia3Place::Output));
    assert_eq!(place("layers.0.mlp.down_proj"), Some(Ia3Place::Input));
    assert_eq!(place("layers.0.q_proj"), None);
    // a name of a feed-forward module needs no dot before it; a target does
    assert_eq!(place("layers.0.mlp.xdown_proj"), None);
    let config = Ia3ForModel {
        feedforward_modules: TargetModules::Pattern(r".*\.mlp\..*".to_string()),
        ..config
    };
    let place = |path: &str| config.for_module(path).unwrap();
    assert_eq!(place("layers.0.mlp.down_proj"), Some(Ia3Place::Input));
    assert_eq!(place("down_proj"), Some(Ia3Place::Output));

    // of a whole model, in its order
    let paths = [
        "layers.0.mlp.down_proj",
        "layers.0.q_proj",
        "layers.0.v_proj",
        "layers.0.k_proj",
    ];
    let found = config.for_modules(&paths).unwrap();
    let want = [
        (paths[0], Ia3Place::Input),
        (paths[2], Ia3Place::Output),
        (paths[3], Ia3Place::Output),
    ];
    assert_eq!(found, want.map(|(path, place)| (path.to_string(), place)));

    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Ia3ForModel>(&json).unwrap(), config);
}
