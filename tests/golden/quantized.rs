//! NF4, against bitsandbytes: everything to the bit, except what a sum's order decides. QLoRA, against
//! PEFT over it.

use super::EXACT;
use super::adapters::config;
use super::reader::{Case, each};
use candle_align::Result;
use candle_align::parameter_efficient::{Adapter, BlockScale, Nf4Linear, Nf4Tensor, QloraLinear};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Linear, Module};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashMap;

/// Two products in f32, of sums of twenty numbers about 1.
const SINGLE: f64 = 2e-6;
/// Four products in f32, one after the other, the last one summed over rows.
const SINGLE_GRADIENT: f64 = 1e-5;

#[test]
fn quantized() {
    each("quantized", |case| match case.word("kind") {
        "tensor" => tensor(case, case.input("x")?, 1),
        "counted" => tensor(case, counted(64 * 258 + 1)?, 97),
        "linear" => linear(case),
        other => panic!("{}: {other}", case.name),
    });
}

/// Numbers by a formula in integers, in blocks of different magnitudes.
fn counted(n: u64) -> Result<Tensor> {
    let number = |i: u64| {
        let share = ((7919 * i + 31 * i * i) % 2003) as f64 - 1001.0;
        share / 256.0 * (1 + (37 * (i / 64)) % 101) as f64 / 64.0
    };
    let numbers: Vec<f64> = (0..n).map(number).collect();
    Ok(Tensor::new(numbers, &Device::Cpu)?)
}

fn every(values: &[f32], step: usize) -> Vec<f32> {
    values.iter().step_by(step).copied().collect()
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor
        .flatten_all()?
        .to_dtype(DType::F32)?
        .to_vec1::<f32>()?)
}

/// `step`: which of the bytes are stored.
fn tensor(case: &Case, x: Tensor, step: usize) -> Result<()> {
    let x = x.to_dtype(match case.word("dtype") {
        "float32" => DType::F32,
        "bfloat16" => DType::BF16,
        "float16" => DType::F16,
        other => panic!("{}: {other}", case.name),
    })?;
    let single = Nf4Tensor::quantize(&x, BlockScale::Single)?;
    let double = Nf4Tensor::quantize(&x, BlockScale::Double)?;
    assert_eq!(single.packed(), double.packed());

    let bytes: Vec<f32> = single.packed().iter().map(|x| f32::from(*x)).collect();
    case.check_single("packed", &every(&bytes, step));
    case.check_single("sum_of_packed", &[bytes.iter().sum()]);
    case.check_single("absmax", &floats(&single.to_state_dict("w")?["w.absmax"])?);
    let stored = double.to_state_dict("w")?;
    case.check_single("indices", &floats(&stored["w.absmax"])?);
    case.check_single("nested_absmax", &floats(&stored["w.nested_absmax"])?);
    let json = stored["w.quant_state.bitsandbytes__nf4"].to_vec1::<u8>()?;
    let state: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let offset = state["nested_offset"].as_f64().expect("a number");
    case.check_single("offset", &[offset as f32]);

    let step = case.number("every") as usize;
    let values = |q: &Nf4Tensor| -> Result<Vec<f32>> {
        let y = q.dequantize()?;
        assert_eq!((y.dims(), y.dtype()), (x.dims(), x.dtype()));
        Ok(every(&floats(&y)?, step))
    };
    case.check_single("single", &values(&single)?);
    case.check_single("double", &values(&double)?);
    Ok(())
}

/// What bitsandbytes saved of a layer, under the name `model.q`.
fn state_dict(case: &Case) -> Result<HashMap<String, Tensor>> {
    let mut tensors = HashMap::new();
    for name in case.below("state ") {
        let dtype = match name {
            "weight" | "weight.quant_state.bitsandbytes__nf4" => DType::U8,
            "weight.absmax" if case.flag("double") => DType::U8,
            _ => DType::F32,
        };
        let tensor = case.typed(&format!("state {name}"), dtype)?;
        tensors.insert(format!("model.q.{name}"), tensor);
    }
    Ok(tensors)
}

fn linear(case: &Case) -> Result<()> {
    let tensors = state_dict(case)?;
    let layer = Nf4Linear::from_state_dict(&tensors, "model.q")?;
    assert_eq!(layer.bias().is_some(), case.flag("bias"));
    case.check_single("weight", &floats(&layer.weight().dequantize()?)?);

    // its own quantization of the weight is the one that was stored
    let scale = layer.weight().block_scale();
    let again = Nf4Tensor::quantize(&case.typed("original", DType::F32)?, scale)?;
    assert_eq!(again.packed(), layer.weight().packed());
    assert_eq!(
        floats(&again.dequantize()?)?,
        floats(&layer.weight().dequantize()?)?
    );

    // written again, it is the same dictionary; of the JSON, the same content
    let written = layer.to_state_dict("model.q")?;
    assert_eq!(written.len(), tensors.len());
    for (name, tensor) in &tensors {
        let found = &written[name];
        if name.ends_with("nf4") {
            let json = |t: &Tensor| -> Result<serde_json::Value> {
                Ok(serde_json::from_slice(&t.to_vec1::<u8>()?).expect("JSON"))
            };
            assert_eq!(json(found)?, json(tensor)?);
            continue;
        }
        assert_eq!(
            (found.dims(), found.dtype()),
            (tensor.dims(), tensor.dtype())
        );
        assert_eq!(floats(found)?, floats(tensor)?, "{name}");
    }

    let x = Var::from_tensor(&case.typed("x", DType::F32)?)?;
    let y = layer.forward(&x)?;
    case.check("y", &y, SINGLE)?;
    let loss = (&y * case.typed("upstream", DType::F32)?)?;
    case.check("loss", &loss.sum_all()?, 10.0 * SINGLE)?;
    case.check_gradient("x", &loss, &x, SINGLE)
}

#[test]
fn qlora() {
    each("qlora", |case| {
        let (config, mut rng) = (config(case), StdRng::seed_from_u64(0));
        let (layer, dtype, tolerance, of_gradients) = match case.word("kind") {
            "peft" => {
                let base = Nf4Linear::from_state_dict(&state_dict(case)?, "model.q")?;
                let layer = QloraLinear::over(base, &config, &mut rng)?;
                (layer, DType::F32, SINGLE, SINGLE_GRADIENT)
            }
            _ => {
                let base = Linear::new(case.input("weight")?, Some(case.input("bias")?));
                let scale = match case.flag("double") {
                    true => BlockScale::Double,
                    false => BlockScale::Single,
                };
                let layer = QloraLinear::new(&base, scale, &config, &mut rng)?;
                let dequantized = layer.base().weight().dequantize()?;
                case.check("dequantised", &dequantized, EXACT)?;
                (layer, DType::F64, EXACT, EXACT)
            }
        };
        let vars = layer.trainable("");
        let vars: Vec<(&str, &Var)> = vars
            .iter()
            .map(|(name, var)| match name.as_str() {
                "lora_A.weight" => ("a", var),
                "lora_B.weight" => ("b", var),
                _ => ("trained_bias", var),
            })
            .collect();
        assert_eq!(vars.len(), 2 + usize::from(case.has("trained_bias")));
        for (name, var) in &vars {
            var.set(&case.typed(name, dtype)?)?;
        }
        let x = Var::from_tensor(&case.typed("x", dtype)?)?;
        let y = layer.forward(&x)?;
        case.check("y", &y, tolerance)?;
        if case.gives("delta") {
            case.check("delta", &layer.delta()?, tolerance)?;
        }
        let loss = (&y * case.typed("upstream", dtype)?)?;
        case.check("loss", &loss.sum_all()?, 10.0 * tolerance)?;
        for (name, var) in vars {
            case.check_gradient(name, &loss, var, of_gradients)?;
        }
        case.check_gradient("x", &loss, &x, of_gradients)
    });
}
