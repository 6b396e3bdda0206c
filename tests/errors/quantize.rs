use crate::common::lora::irregular;
use crate::common::quantized::{quantized, vector32};
use crate::common::{says, vector};
use candle_align::parameter_efficient::{BlockScale, Nf4Linear, Nf4Tensor};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module};
use std::collections::HashMap;

#[test]
fn what_cannot_be_quantized_is_named() {
    let quantize = |x: &Tensor| Nf4Tensor::quantize(x, BlockScale::Double);
    says(
        quantize(&Tensor::zeros((3, 0), DType::F32, &Device::Cpu).unwrap()),
        "Nf4Tensor::quantize: `tensor` has no elements",
    );
    says(
        quantize(&Tensor::new(&[1u32], &Device::Cpu).unwrap()),
        "Nf4Tensor::quantize: `tensor` is u32, expected f32, f64, bf16 or f16",
    );
    for (bad, text) in [
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
    ] {
        // in the first block, in another task's share, in a ragged end; the first of two is named
        for at in [0, 5, 63, 64, 16_384 + 77, 40_002] {
            let mut x = vec![0.5; 40_003];
            x[at] = bad;
            x[40_002] = bad;
            let problem = format!("holds {text} at flat position {at}; it must be finite in f32");
            let message = format!("Nf4Tensor::quantize: `tensor` {problem}");
            says(quantize(&vector32(&x)), &message);
            says(quantize(&vector(&x)), &message);
        }
        for dtype in [DType::BF16, DType::F16] {
            let x = vector(&[1.0, bad]).to_dtype(dtype).unwrap();
            says(
                quantize(&x),
                &format!(
                    "Nf4Tensor::quantize: `tensor` holds {text} at flat position 1; it must be finite in f32"
                ),
            );
        }
    }
    says(
        quantize(&vector(&[1.0, -2.0, 1e39])),
        "Nf4Tensor::quantize: `tensor` holds 1000000000000000000000000000000000000000 at flat \
         position 2; it must be finite in f32",
    );
}

#[test]
fn a_layer_names_what_does_not_fit() {
    let weight = irregular(&[3, 4]).to_dtype(DType::F32).unwrap();
    let quantize = |weight: &Tensor, bias: Option<Tensor>| {
        Nf4Linear::quantize(&Linear::new(weight.clone(), bias), BlockScale::Double)
    };
    says(
        quantize(&vector(&[1.0]), None),
        "Nf4Linear::quantize: `base.weight` has shape [1], expected [out, in]",
    );
    says(
        quantize(&vector(&[f64::NAN]).unsqueeze(0).unwrap(), None),
        "Nf4Linear::quantize: `base.weight` holds NaN at flat position 0; it must be finite in f32",
    );
    says(
        quantize(&weight, Some(vector32(&[1.0]))),
        "Nf4Linear::quantize: `base.bias` has shape [1], expected [out=3 (from `base.weight`)]",
    );
    let new = |dtype, bias: Tensor| {
        let weight = quantized(&weight.to_dtype(dtype).unwrap(), BlockScale::Single);
        Nf4Linear::new(weight, Some(bias))
    };
    says(
        new(DType::F32, vector32(&[1.0; 12]).reshape((3, 4)).unwrap()),
        "Nf4Linear::new: `bias` has shape [3, 4], expected [out=3 (from `weight`)]",
    );
    says(
        new(DType::BF16, vector(&[1.0; 3])),
        "Nf4Linear::new: `bias` is f64, expected f32, bf16 or f16 (from `weight`)",
    );
    says(
        new(DType::F64, vector32(&[1.0; 3])),
        "Nf4Linear::new: `bias` is f32, expected f64 (from `weight`)",
    );
    says(
        Nf4Linear::new(quantized(&irregular(&[2, 3, 4]), BlockScale::Single), None),
        "Nf4Linear::new: `weight` has shape [2, 3, 4], expected [out, in]",
    );

    let layer = quantize(&weight, None).unwrap();
    for shape in [&[2, 3][..], &[4, 3], &[]] {
        let x = irregular(shape).to_dtype(DType::F32).unwrap();
        says(
            layer.forward(&x),
            &format!(
                "Nf4Linear::forward: `x` has shape {shape:?}, expected [.., in=4 (from `weight`)]"
            ),
        );
    }
    says(
        layer.forward(&irregular(&[2, 4])),
        "Nf4Linear::forward: `x` is f64, expected f32, bf16 or f16 (from `weight`)",
    );
    let wide = quantize(&irregular(&[3, 4]), None).unwrap();
    says(
        wide.forward(&irregular(&[2, 4]).to_dtype(DType::F32).unwrap()),
        "Nf4Linear::forward: `x` is f32, expected f64 (from `weight`)",
    );
}

const STATE: &str = "w.quant_state.bitsandbytes__nf4";

fn dictionary(scale: BlockScale) -> HashMap<String, Tensor> {
    let x = irregular(&[5, 27]).to_dtype(DType::F32).unwrap();
    quantized(&x, scale).to_state_dict("w").unwrap()
}

/// The message for a dictionary with one tensor replaced, or without it.
#[track_caller]
fn with(scale: BlockScale, name: &str, tensor: Option<Tensor>, message: &str) {
    let mut tensors = dictionary(scale);
    match tensor {
        Some(tensor) => tensors.insert(name.to_string(), tensor),
        None => tensors.remove(name),
    };
    says(
        Nf4Tensor::from_state_dict(&tensors, "w"),
        &format!("Nf4Tensor::from_state_dict: {message}"),
    );
}

#[test]
fn a_tensor_that_is_missing_or_unknown_is_named() {
    for (scale, names) in [
        (
            BlockScale::Single,
            &["w", STATE, "w.quant_map", "w.absmax"][..],
        ),
        (
            BlockScale::Double,
            &[
                "w",
                STATE,
                "w.quant_map",
                "w.absmax",
                "w.nested_absmax",
                "w.nested_quant_map",
            ],
        ),
    ] {
        for name in names {
            with(scale, name, None, &format!("`{name}` is missing"));
        }
    }
    // one of the two is enough to expect the other
    with(
        BlockScale::Single,
        "w.nested_absmax",
        Some(vector32(&[1.0])),
        &format!("`{STATE}` lacks nested_blocksize"),
    );
    with(
        BlockScale::Single,
        "w.nested_quant_map",
        Some(vector32(&[1.0])),
        &format!("`{STATE}` lacks nested_blocksize"),
    );
    with(
        BlockScale::Double,
        "w.SCB",
        Some(vector32(&[1.0])),
        "`w.SCB` is no part of a weight in NF4",
    );
    with(
        BlockScale::Single,
        "w.quant_state.bitsandbytes__fp4",
        Some(vector32(&[1.0])),
        "`w.quant_state.bitsandbytes__fp4` is no part of a weight in NF4",
    );
    says(
        Nf4Linear::from_state_dict(&dictionary(BlockScale::Single), "m.q"),
        "Nf4Linear::from_state_dict: `m.q.weight.quant_state.bitsandbytes__nf4` is missing",
    );
}

#[test]
fn a_tensor_of_another_form_is_named() {
    let bytes = |n: usize| Tensor::zeros(n, DType::U8, &Device::Cpu).unwrap();
    let floats = |n: usize| Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
    let double = BlockScale::Double;
    for (name, tensor, message) in [
        ("w", floats(68), "`w` is f32, expected u8"),
        (
            "w",
            bytes(67),
            "`w` has shape [67], expected [68 bytes of two indices]",
        ),
        (
            "w",
            bytes(68).reshape((2, 34)).unwrap(),
            "`w` has shape [2, 34], expected [68 bytes of two indices]",
        ),
        ("w.absmax", floats(3), "`w.absmax` is f32, expected u8"),
        (
            "w.absmax",
            bytes(4),
            "`w.absmax` has shape [4], expected [3 indices of scales]",
        ),
        (
            "w.quant_map",
            floats(15),
            "`w.quant_map` has shape [15], expected [16 values of NF4]",
        ),
        (
            "w.nested_absmax",
            floats(2),
            "`w.nested_absmax` has shape [2], expected [1 scales of scales]",
        ),
        (
            "w.nested_absmax",
            bytes(1),
            "`w.nested_absmax` is u8, expected f32",
        ),
        (
            "w.nested_quant_map",
            floats(255),
            "`w.nested_quant_map` has shape [255], expected [256 values of the dynamic map]",
        ),
        (STATE, floats(9), &format!("`{STATE}` is f32, expected u8")),
        (
            STATE,
            bytes(8).reshape((2, 4)).unwrap(),
            &format!("`{STATE}` has shape [2, 4], expected [bytes]"),
        ),
    ] {
        with(double, name, Some(tensor), message);
    }
    with(
        BlockScale::Single,
        "w.absmax",
        Some(floats(2)),
        "`w.absmax` has shape [2], expected [3 scales of blocks]",
    );
}

#[test]
fn numbers_that_cannot_be_are_named() {
    with(
        BlockScale::Single,
        "w.absmax",
        Some(vector32(&[1.0, f64::NAN, 1.0])),
        "`w.absmax` holds NaN at position 1; it must be finite",
    );
    with(
        BlockScale::Double,
        "w.nested_absmax",
        Some(vector32(&[f64::INFINITY])),
        "`w.nested_absmax` holds inf at position 0; it must be finite",
    );
    let mut map = candle_align::parameter_efficient::NF4;
    map[3] = 0.0625;
    with(
        BlockScale::Double,
        "w.quant_map",
        Some(Tensor::new(&map, &Device::Cpu).unwrap()),
        "`w.quant_map` holds 0.0625 at position 3, where NF4 has -0.3949175",
    );
}

#[test]
fn a_state_of_other_settings_is_named() {
    let state = |text: &str| Some(Tensor::new(text.as_bytes(), &Device::Cpu).unwrap());
    let single = |text: &str, rest: &str| {
        with(
            BlockScale::Single,
            STATE,
            state(text),
            &format!("`{STATE}` {rest}"),
        )
    };
    let plain = r#""blocksize":64,"dtype":"float32","shape":[5,27]}"#;
    single(
        &format!(r#"{{"quant_type":"fp4",{plain}"#),
        "has quant_type fp4; only nf4 is read",
    );
    single(
        r#"{"quant_type":"nf4","blocksize":128,"dtype":"float32","shape":[5,27]}"#,
        "has blocksize 128; only 64 is read",
    );
    single(
        r#"{"quant_type":"nf4","blocksize":64,"dtype":"float64","shape":[5,27]}"#,
        "has dtype float64; only float32, bfloat16 or float16 is read",
    );
    single(
        r#"{"quant_type":"nf4","blocksize":64,"dtype":"float32","shape":[5,0]}"#,
        "has shape [5, 0], which holds no elements",
    );
    single(
        r#"{"quant_type":"nf4","blocksize":64,"dtype":"float32","shape":[4294967296,4294967296]}"#,
        "has shape [4294967296, 4294967296], whose elements cannot be counted",
    );
    single(
        "{",
        "holds no quantization state: EOF while parsing an object at line 1 column 1",
    );
    single(
        r#"{"quant_type":"nf4","blocksize":64,"dtype":"float32","shape":[5,27],"more":1}"#,
        "holds no quantization state: unknown field `more`, expected one of `quant_type`, \
         `blocksize`, `dtype`, `shape`, `nested_blocksize`, `nested_dtype`, `nested_offset` at \
         line 1 column 74",
    );

    let double = |nested: &str, rest: &str| {
        let text = format!(
            r#"{{"quant_type":"nf4",{}{nested}}}"#,
            plain.trim_end_matches('}')
        );
        with(
            BlockScale::Double,
            STATE,
            state(&text),
            &format!("`{STATE}` {rest}"),
        )
    };
    double("", "lacks nested_blocksize");
    double(
        r#","nested_blocksize":128"#,
        "has nested_blocksize 128; only 256 is read",
    );
    double(r#","nested_blocksize":256"#, "lacks nested_dtype");
    double(
        r#","nested_blocksize":256,"nested_dtype":"float16""#,
        "has nested_dtype float16; only float32 is read",
    );
    let known = r#","nested_blocksize":256,"nested_dtype":"float32""#;
    double(known, "lacks nested_offset");
    double(
        &format!(r#"{known},"nested_offset":1e39"#),
        "has nested_offset inf; only a finite f32 is read",
    );
}

#[test]
fn a_layer_of_the_dictionary_is_checked_like_any_other() {
    let rename = |tensors: HashMap<String, Tensor>| -> HashMap<String, Tensor> {
        let name = |name: String| name.replacen('w', "q.weight", 1);
        tensors.into_iter().map(|(n, t)| (name(n), t)).collect()
    };
    let mut tensors = rename(dictionary(BlockScale::Double));
    tensors.insert("q.bias".into(), vector32(&[1.0]));
    says(
        Nf4Linear::from_state_dict(&tensors, "q"),
        "Nf4Linear::from_state_dict: `q.bias` has shape [1], expected [out=5 (from `q.weight`)]",
    );
    tensors.insert("q.bias".into(), vector(&[1.0; 5]));
    says(
        Nf4Linear::from_state_dict(&tensors, "q"),
        "Nf4Linear::from_state_dict: `q.bias` is f64, expected f32, bf16 or f16 (from `q.weight`)",
    );
    let flat = quantized(&vector32(&[1.0, 2.0]), BlockScale::Single);
    let tensors = flat.to_state_dict("q.weight").unwrap();
    says(
        Nf4Linear::from_state_dict(&tensors, "q"),
        "Nf4Linear::from_state_dict: `q.weight` has shape [2], expected [out, in]",
    );
    says(
        quantized(&vector(&[1.0, 2.0]), BlockScale::Single).to_state_dict("w"),
        "Nf4Tensor::to_state_dict: `self` is f64, expected f32, bf16 or f16",
    );
}
