//! Numbers that are none, and numbers that a type cannot hold: refused by the name of their tensor.

use super::adapter_folder::{folder, tensor, tensors};
use crate::common::adapters::golden;
use crate::common::says;
use candle_align::parameter_efficient::{
    BlockScale, LoraConfig, LoraForModel, LoraLinear, Nf4Linear, PrefixEncoder, PrefixShape,
    PromptEmbedding, TargetModules, Targets,
};
use candle_align::peft::{
    AdapterFile, AdapterMethod, AnyAdapter, LoraFile, ModelAdapters, PeftConfig, PrefixFile,
    PromptFile, Strictness,
};
use candle_core::{DType, Device, Tensor};
use candle_nn::Linear;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashMap;
use std::fs;

const LORA: &str = r#"{"peft_type": "LORA", "r": 2, "target_modules": ["q"]}"#;
const A: &str = "base_model.model.m.0.q.lora_A.weight";
const B: &str = "base_model.model.m.0.q.lora_B.weight";

fn base() -> HashMap<String, Tensor> {
    tensors(&[("m.0.q.weight", &[2, 3]), ("up.weight", &[4, 3])])
}

/// The tensor with this number at a flat position.
fn with(tensor: &Tensor, at: usize, number: f32) -> Tensor {
    let mut values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values[at] = number;
    Tensor::from_vec(values, tensor.shape(), &Device::Cpu).unwrap()
}

fn numbers() -> HashMap<String, Tensor> {
    tensors(&[(A, &[2, 3]), (B, &[2, 2])])
}

#[test]
fn a_number_that_is_none_is_refused_at_the_door() {
    for (number, word) in [
        (f32::NAN, "NaN"),
        (f32::INFINITY, "inf"),
        (f32::NEG_INFINITY, "-inf"),
    ] {
        let mut tensors = numbers();
        tensors.insert(B.to_string(), with(&tensors[B], 3, number));
        let folder = folder(LORA, &tensors);
        let path = folder.path().display();
        says(
            AdapterFile::read(folder.path(), Strictness::Strict),
            &format!(
                "AdapterFile::read: `{path}/adapter_model.safetensors` holds `{B}`, with {word} at flat position 3"
            ),
        );
        let note = format!("holds `{B}`, with {word} at flat position 3");
        let file = AdapterFile::read(folder.path(), Strictness::Lenient).unwrap();
        assert_eq!(file.left_out(), [note.as_str()]);
        let problem = format!("`adapter_model.safetensors` {note}");
        says(
            file.layers(&base(), Strictness::Strict),
            &format!("AdapterFile::layers: {problem}"),
        );
        says(file.baked(), &format!("AdapterFile::baked: {problem}"));
        let out = tempfile::tempdir().unwrap();
        says(
            file.write(out.path()),
            &format!("AdapterFile::write: {problem}"),
        );
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
        let layers = file.layers(&base(), Strictness::Lenient).unwrap();
        assert_eq!(layers.left_out, [note.as_str()]);
        says(
            AdapterFile::from_layers(file.config().clone(), &layers),
            &format!("AdapterFile::from_layers: `layers` {note}"),
        );
        // the merge names the module; 0 · ∞ is NaN
        let error = file.merged(&base(), Strictness::Lenient).unwrap_err();
        let start = "AdapterFile::merged: `m.0.q.weight` would hold ";
        assert!(error.to_string().starts_with(start), "{error}");
    }
}

/// It is beyond no type, in which it is none either.
#[test]
fn a_number_that_is_none_is_one_problem_in_a_file_of_a_wider_type() {
    for (number, word) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let mut tensors = numbers();
        tensors.insert(B.to_string(), with(&tensors[B], 3, number));
        for tensor in tensors.values_mut() {
            *tensor = tensor.to_dtype(DType::F64).unwrap();
        }
        let folder = folder(LORA, &tensors);
        let file = AdapterFile::read(folder.path(), Strictness::Lenient).unwrap();
        let layers = file.layers(&base(), Strictness::Lenient).unwrap();
        let note = format!("holds `{B}`, with {word} at flat position 3");
        assert_eq!(layers.left_out, [note]);
        assert!(layers.layers.contains_key("m.0.q"));
    }
}

/// Each tensor of each method, in PEFT's own files.
#[test]
fn every_tensor_of_every_method_is_looked_at() {
    for name in [
        "lora",
        "lora_embedding",
        "lora_bias_all",
        "lora_modules_to_save",
        "dora",
        "adalora",
        "ia3",
        "vera",
        "lora_tokens",
        "prompt",
        "prefix",
    ] {
        let file = AdapterFile::read(golden(name), Strictness::Strict).unwrap();
        let config = fs::read_to_string(golden(name).join("adapter_config.json")).unwrap();
        for (tensor, value) in file.tensors() {
            if value.elem_count() == 0 {
                continue;
            }
            let mut tensors: HashMap<String, Tensor> = file.tensors().clone().into_iter().collect();
            tensors.insert(
                tensor.clone(),
                with(value, value.elem_count() - 1, f32::NAN),
            );
            let folder = folder(&config, &tensors);
            let error = AdapterFile::read(folder.path(), Strictness::Strict)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(&format!("holds `{tensor}`, with NaN at flat position")),
                "{error}"
            );
            let file = AdapterFile::read(folder.path(), Strictness::Lenient).unwrap();
            if ["prompt", "prefix"].contains(&name) {
                let error = [file.prompt().err(), file.prefix().err()];
                let error = error[usize::from(name == "prefix")]
                    .as_ref()
                    .unwrap()
                    .to_string();
                assert!(
                    error.contains("holds `prompt_embeddings`, with NaN"),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn vectors_that_are_not_finite_make_no_file() {
    let values = with(&tensor(&[2, 4]), 5, f32::NAN);
    let prompt = PromptEmbedding::from_values(&values).unwrap();
    let config = PeftConfig::from(AdapterMethod::Prompt(PromptFile {
        length: 2,
        dim: 4,
        layers: None,
        heads: None,
    }));
    says(
        AdapterFile::from_prompt(config, &prompt),
        "AdapterFile::from_prompt: `prompt` holds `prompt_embeddings`, with NaN at flat position 5",
    );
    let shape = PrefixShape {
        layers: 1,
        heads: 2,
        head_dim: 1,
    };
    let prefix = PrefixEncoder::from_values(shape, &values).unwrap();
    let config = PeftConfig::from(AdapterMethod::Prefix(PrefixFile { length: 2, shape }));
    says(
        AdapterFile::from_prefix(config, &prefix),
        "AdapterFile::from_prefix: `prefix` holds `prompt_embeddings`, with NaN at flat position 5",
    );
}

fn trained(alpha: f64, dtype: DType, b: f64) -> AdapterFile {
    let one = LoraConfig {
        rank: 1,
        alpha,
        ..Default::default()
    };
    let model = LoraForModel {
        targets: Targets {
            target_modules: TargetModules::Names(vec!["q".to_string()]),
            ..Default::default()
        },
        ..one.clone().into()
    };
    let method = AdapterMethod::Lora(LoraFile {
        model,
        ..Default::default()
    });
    let layer = LoraLinear::new(
        &Linear::new(tensor(&[2, 3]), None),
        &one,
        &mut StdRng::seed_from_u64(0),
    )
    .unwrap();
    layer
        .b()
        .set(&Tensor::full(b as f32, (2, 1), &Device::Cpu).unwrap())
        .unwrap();
    let layers = ModelAdapters {
        layers: [("m.0.q".to_string(), AnyAdapter::Lora(layer))].into(),
        ..Default::default()
    };
    let file = AdapterFile::from_layers(PeftConfig::from(method), &layers).unwrap();
    let folder = tempfile::tempdir().unwrap();
    file.write(folder.path()).unwrap();
    let tensors: HashMap<String, Tensor> = file
        .tensors()
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.to_dtype(dtype).unwrap()))
        .collect();
    candle_core::safetensors::save(&tensors, folder.path().join("adapter_model.safetensors"))
        .unwrap();
    AdapterFile::read(folder.path(), Strictness::Strict).unwrap()
}

#[test]
fn a_scale_that_a_type_cannot_hold_is_not_baked() {
    for (alpha, dtype, b, problem) in [
        (
            1e308,
            DType::F32,
            0.5,
            "would hold inf at flat position 0: 1e308 · B is beyond f32",
        ),
        (
            1e308,
            DType::F64,
            1e3,
            "would hold inf at flat position 0: 1e308 · B is beyond f64",
        ),
        (
            1e5,
            DType::F16,
            1.0,
            "would hold inf at flat position 0: 100000 · B is beyond f16",
        ),
        (
            1e38,
            DType::BF16,
            -5.0,
            "would hold -inf at flat position 0: 1e38 · B is beyond bf16",
        ),
        (
            1e-300,
            DType::F32,
            1.0,
            "would be all zeros: 1e-300 · B is below f32",
        ),
        (
            1e-9,
            DType::F16,
            1.0,
            "would be all zeros: 0.000000001 · B is below f16",
        ),
    ] {
        let error = trained(alpha, dtype, b).baked().unwrap_err().to_string();
        let problem = problem
            .replace("1e308", &1e308f64.to_string())
            .replace("1e38 ", &format!("{} ", 1e38f64))
            .replace("1e-300", &1e-300f64.to_string());
        assert_eq!(error, format!("AdapterFile::baked: `{B}` {problem}"));
    }
    // the scale alone may be more than the type holds
    let baked = trained(98304.0, DType::F16, 0.125).baked().unwrap();
    let b = baked.tensors()[B].to_dtype(DType::F32).unwrap();
    assert_eq!(b.to_vec2::<f32>().unwrap(), [[12288.0], [12288.0]]);
    // of doubles the product is one
    let baked = trained(1e300, DType::F64, 0.5).baked().unwrap();
    assert_eq!(
        baked.tensors()[B].to_vec2::<f64>().unwrap(),
        [[5e299], [5e299]]
    );
    // a B of zeros changes nothing, whatever the scale
    let baked = trained(1e30, DType::F32, 0.0).baked().unwrap();
    assert_eq!(baked.tensors()[B].to_vec2::<f32>().unwrap(), [[0.0], [0.0]]);
}

/// A file of a wider type over a base of a narrower one.
#[test]
fn a_number_beyond_the_type_in_which_it_is_used_is_named() {
    let problem = |name: &str, at: usize, kind: &str| {
        format!(
            "holds `{name}`, whose number at flat position {at} is beyond the range of {kind}, the type in which it is used"
        )
    };
    let refuses = |config: &str,
                   tensors: &HashMap<String, Tensor>,
                   base: &HashMap<String, Tensor>,
                   text: &str| {
        let folder = folder(config, tensors);
        let file = AdapterFile::read(folder.path(), Strictness::Strict).unwrap();
        says(
            file.layers(base, Strictness::Strict),
            &format!("AdapterFile::layers: `adapter_model.safetensors` {text}"),
        );
    };
    let huge = |name: &str, tensors: &HashMap<String, Tensor>, number: f64| {
        let mut wide: HashMap<String, Tensor> = tensors
            .iter()
            .map(|(name, t)| (name.clone(), t.to_dtype(DType::F64).unwrap()))
            .collect();
        let ones = wide[name].ones_like().unwrap();
        wide.insert(name.to_string(), (ones * number).unwrap());
        wide
    };
    // A and B in f64 over an f32 base
    refuses(
        LORA,
        &huge(B, &numbers(), 1e39),
        &base(),
        &problem(B, 0, "f32"),
    );
    let adalora =
        r#"{"peft_type": "ADALORA", "init_r": 2, "total_step": 9, "target_modules": ["q"]}"#;
    let lambda = "base_model.model.m.0.q.lora_E";
    let triplets = tensors(&[
        ("base_model.model.m.0.q.lora_A", &[2, 3]),
        ("base_model.model.m.0.q.lora_B", &[2, 2]),
        (lambda, &[2, 1]),
    ]);
    refuses(
        adalora,
        &huge(lambda, &triplets, -1e39),
        &base(),
        &problem(lambda, 0, "f32"),
    );
    // a module trained whole, and rows of a table, over a base in f16
    let half: HashMap<String, Tensor> = base()
        .into_iter()
        .map(|(name, t)| (name, t.to_dtype(DType::F16).unwrap()))
        .collect();
    let whole = LORA.replace("}", r#", "modules_to_save": ["up"]}"#);
    let saved = "base_model.model.up.weight";
    let mut tensors = numbers();
    tensors.insert(saved.to_string(), with(&tensor(&[4, 3]), 7, 1e5));
    refuses(&whole, &tensors, &half, &problem(saved, 7, "f16"));
    let rows = LORA.replace("}", r#", "trainable_token_indices": {"up": [2]}}"#);
    let delta = "base_model.model.up.token_adapter.trainable_tokens_delta";
    let mut tensors = numbers();
    tensors.insert(delta.to_string(), with(&tensor(&[1, 3]), 1, -1e5));
    refuses(&rows, &tensors, &half, &problem(delta, 1, "f16"));
    // a table that was saved beside its adapter
    let saved = "base_model.model.m.0.q.base_layer.weight";
    let mut tensors = numbers();
    tensors.insert(saved.to_string(), with(&tensor(&[2, 3]), 2, 1e5));
    refuses(LORA, &tensors, &half, &problem(saved, 2, "f16"));
    // of a lenient reader it is left out
    let folder = folder(LORA, &tensors);
    let file = AdapterFile::read(folder.path(), Strictness::Lenient).unwrap();
    let found = file.layers(&half, Strictness::Lenient).unwrap();
    assert_eq!(found.left_out, [problem(saved, 2, "f16")]);
    assert!(found.weights.is_empty());
}

/// A merge that would not be finite is refused by every layer, and the file says by which.
#[test]
fn a_merge_that_would_not_be_finite_names_the_module() {
    for (name, tensor, path) in [
        (
            "lora",
            "model.layers.1.v_proj.lora_B.weight",
            "model.layers.1.v_proj",
        ),
        (
            "lora_embedding",
            "model.embed_tokens.lora_embedding_B",
            "model.embed_tokens",
        ),
        (
            "dora",
            "model.layers.0.up_proj.lora_magnitude_vector",
            "model.layers.0.up_proj",
        ),
        (
            "adalora",
            "model.layers.1.q_proj.lora_E",
            "model.layers.1.q_proj",
        ),
        (
            "ia3",
            "model.layers.0.down_proj.ia3_l",
            "model.layers.0.down_proj",
        ),
        (
            "vera",
            "model.layers.1.down_proj.vera_lambda_b",
            "model.layers.1.down_proj",
        ),
        (
            "lora_bias_all",
            "model.layers.1.q_proj.base_layer.bias",
            "model.layers.1.q_proj",
        ),
    ] {
        let base =
            candle_core::safetensors::load(golden("stack.safetensors"), &Device::Cpu).unwrap();
        let file = AdapterFile::read(golden(name), Strictness::Strict).unwrap();
        let mut tensors: HashMap<String, Tensor> = file.tensors().clone().into_iter().collect();
        let tensor = format!("base_model.model.{tensor}");
        tensors.insert(tensor.clone(), with(&tensors[&tensor], 0, f32::NAN));
        let config = fs::read_to_string(golden(name).join("adapter_config.json")).unwrap();
        let folder = folder(&config, &tensors);
        let file = AdapterFile::read(folder.path(), Strictness::Lenient).unwrap();
        let error = file
            .merged(&base, Strictness::Lenient)
            .unwrap_err()
            .to_string();
        let start = format!("AdapterFile::merged: `{path}.");
        assert!(error.starts_with(&start), "{name}: {error}");
    }
}

/// A bias that is not trained may be beyond the type that a weight was quantized from.
#[test]
fn a_bias_that_a_merged_weight_cannot_stand_beside_is_named() {
    let weight = tensor(&[2, 64]).to_dtype(DType::F16).unwrap();
    let four = Nf4Linear::quantize(&Linear::new(weight, None), BlockScale::Single).unwrap();
    let mut base = four.to_state_dict("m.0.q").unwrap();
    base.insert("m.0.q.bias".to_string(), with(&tensor(&[2]), 1, 1e6));
    let config = LORA.replace("\"r\": 2", "\"r\": 1");
    let folder = folder(&config, &tensors(&[(A, &[1, 64]), (B, &[2, 1])]));
    let file = AdapterFile::read(folder.path(), Strictness::Strict).unwrap();
    says(
        file.merged(&base, Strictness::Strict),
        "AdapterFile::merged: `m.0.q.bias` would hold inf at flat position 1 after the merge",
    );
}
