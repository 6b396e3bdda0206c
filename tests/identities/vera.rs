use crate::common::adapted::*;
use crate::common::lora::*;
use crate::common::{EXACT, assert_close, numbers, vector};
use candle_align::parameter_efficient::{LoraConfig, VeraLinear, VeraProjections};
use candle_core::DType;
use candle_nn::Module;

#[test]
fn it_is_lora_with_scaled_projections_and_scale_one() {
    let layer = vera(&vera_config(), DType::F64);
    let config = LoraConfig {
        alpha: 2.0,
        ..config()
    };
    let lora = start(&config, DType::F64);
    assert_eq!(lora.scale(), 1.0);
    lora.a().set(&tensor(&A)).unwrap();
    let b = [0, 1, 2].map(|o| [0, 1].map(|r| LAMBDA_B[o] * B[o][r] * LAMBDA[r]));
    lora.b().set(&tensor(&b)).unwrap();
    let x = tensor(&X);
    let (got, want) = (layer.forward(&x).unwrap(), lora.forward(&x).unwrap());
    assert_close(&numbers(&got), &numbers(&want), EXACT, "h");
    let (got, want) = (layer.delta().unwrap(), lora.delta().unwrap());
    assert_close(&numbers(&got), &numbers(&want), EXACT, "delta");
}

#[test]
fn a_factor_moves_freely_between_the_two_vectors() {
    let layer = vera(&vera_config(), DType::F64);
    let before = numbers(&layer.forward(&tensor(&X)).unwrap());
    set(layer.lambda_d(), vector(&LAMBDA.map(|d| 4.0 * d)));
    set(layer.lambda_b(), vector(&LAMBDA_B.map(|b| b / 4.0)));
    let after = numbers(&layer.forward(&tensor(&X)).unwrap());
    assert_close(&after, &before, EXACT, "h");
}

#[test]
fn what_a_layer_does_not_use_of_the_projections_does_not_count() {
    let layer = vera(&vera_config(), DType::F64);
    let exact = VeraProjections::from_tensors(tensor(&A), tensor(&B)).unwrap();
    let other = VeraLinear::new(&base(DType::F64), &exact, &vera_config()).unwrap();
    set(other.lambda_d(), vector(&LAMBDA));
    set(other.lambda_b(), vector(&LAMBDA_B));
    let x = tensor(&X);
    assert_eq!(
        bits(&layer.forward(&x).unwrap()),
        bits(&other.forward(&x).unwrap())
    );
}

#[test]
fn projections_are_constants_even_where_they_were_variables() {
    let (a, b) = (var(&tensor(&A)), var(&tensor(&B)));
    let shared = VeraProjections::from_tensors(a.as_tensor().clone(), b.as_tensor().clone());
    let layer = VeraLinear::new(&base(DType::F64), &shared.unwrap(), &vera_config()).unwrap();
    set(layer.lambda_b(), vector(&LAMBDA_B));
    let grads = layer.forward(&tensor(&X)).unwrap().backward().unwrap();
    assert!(grads.get(&a).is_none() && grads.get(&b).is_none());
    assert!(grads.get(layer.lambda_d()).is_some());
}
