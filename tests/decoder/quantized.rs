//! QLoRA on the decoder: linear maps in four bits, LoRA over them.

use super::{adapted, apart, expected, folder, load, logits, lora, rows, tensors, with_tensors};
use candle_align::decoder::{Decoder, Load, Save};
use candle_align::ops::Segments;
use candle_align::parameter_efficient::{BlockScale, Ia3ForModel, Nf4Tensor};
use candle_align::peft::{AdapterMethod, AnyAdapter, Ia3File, PeftConfig, Strictness};
use candle_core::{DType, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;

const SCALES: [BlockScale; 2] = [BlockScale::Single, BlockScale::Double];

fn quantized(name: &str, scale: BlockScale) -> Decoder {
    let load = Load {
        nf4: Some(scale),
        ..Load::default()
    };
    Decoder::load(folder(name), &load).unwrap()
}

/// The checkpoint with what four bits leave of the matrices that are quantized.
fn rounded(name: &str, scale: BlockScale) -> TempDir {
    with_tensors(name, |tensors| {
        for (name, tensor) in tensors.iter_mut() {
            if name.ends_with("proj.weight") {
                let wide = tensor.to_dtype(DType::F32).unwrap();
                let four_bits = Nf4Tensor::quantize(&wide, scale).unwrap();
                *tensor = four_bits.dequantize().unwrap();
            }
        }
    })
}

fn gradients(model: &Decoder, rows: &[Vec<u32>]) -> Vec<(String, Tensor)> {
    let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
    let segments = Segments::from_lengths(&lengths).unwrap();
    let hidden = model.hidden_train(&rows.concat(), &segments, 0).unwrap();
    let weights: Vec<f32> = (0..hidden.elem_count()).map(|i| (i as f32).sin()).collect();
    let weights = Tensor::from_vec(weights, hidden.shape(), hidden.device()).unwrap();
    let loss = (hidden * weights).unwrap().sum_all().unwrap();
    let found = loss.backward().unwrap();
    let of = model.vars().into_iter();
    of.map(|(name, var)| (name, found.get(&var).unwrap().clone()))
        .collect()
}

#[test]
fn it_is_the_decoder_of_the_dequantized_weights() {
    for name in ["llama", "qwen2", "phi3", "gemma2"] {
        for scale in SCALES {
            let rows = rows(&expected(name));
            let whole = rounded(name, scale);
            let whole = Decoder::load(whole.path(), &Load::default()).unwrap();
            let plain = logits(&quantized(name, scale), &rows);
            assert!(apart(&plain, &logits(&load(name, false).unwrap(), &rows)) > 0.01);
            let off = apart(&plain, &logits(&whole, &rows));
            assert!(off < 1e-5, "{name} {scale:?}: {off:e}");

            let config = lora(r#""all-linear""#);
            let mut model = adapted(quantized(name, scale), &config);
            let mut layers = model.adapter_layers("default").unwrap().into_values();
            assert!(layers.all(|layer| matches!(layer, AnyAdapter::Qlora(_))));
            let whole = adapted(whole, &config);
            let off = apart(&logits(&model, &rows), &logits(&whole, &rows));
            assert!(off < 2e-5, "{name} {scale:?}: {off:e}");
            for recompute in [false, true] {
                model.set_recompute(recompute);
                let (ours, theirs) = (gradients(&model, &rows), gradients(&whole, &rows));
                assert_eq!(ours.len(), theirs.len());
                for ((name, ours), (other, theirs)) in ours.iter().zip(&theirs) {
                    assert_eq!(name, other);
                    let size = apart(theirs, &theirs.zeros_like().unwrap());
                    let off = apart(ours, theirs) / size;
                    assert!(off < 2e-5, "{name}: {off:e}");
                }
            }
        }
    }
}

#[test]
fn embedding_norms_biases_and_output_layer_are_not_quantized() {
    let (model, whole) = (
        quantized("qwen2", BlockScale::Single),
        load("qwen2", false).unwrap(),
    );
    let (found, all) = (model.state_dict(), whole.state_dict());
    for (name, tensor) in &all {
        match name.ends_with("proj.weight") {
            true => assert!(!found.contains_key(name), "{name}"),
            false => assert_eq!(apart(tensor, &found[name]), 0.0, "{name}"),
        }
    }
    // quantized from the type that is asked for
    let half = Load {
        dtype: DType::BF16,
        nf4: Some(BlockScale::Single),
        ..Load::default()
    };
    let model = Decoder::load(folder("llama"), &half).unwrap();
    let rows = rows(&expected("llama"));
    let from_half = logits(&model, &rows);
    assert_eq!(from_half.dtype(), DType::F32);
    let from_single = logits(&quantized("llama", BlockScale::Single), &rows);
    let off = apart(&from_half, &from_single);
    assert!(off > 0.0 && off < 1.0, "{off}");
}

#[test]
fn its_adapter_is_an_ordinary_lora_in_the_file() {
    let (out, rows) = (tempfile::tempdir().unwrap(), rows(&expected("llama")));
    let model = adapted(
        quantized("llama", BlockScale::Single),
        &lora(r#""all-linear""#),
    );
    let at = out.path().join("adapter");
    model.save_adapter("default", &at).unwrap();
    let mut again = quantized("llama", BlockScale::Single);
    again.load_adapter("a", &at, Strictness::Strict).unwrap();
    assert_eq!(apart(&logits(&again, &rows), &logits(&model, &rows)), 0.0);
    // over the whole weights it is another model, but it goes there
    let mut whole = load("llama", false).unwrap();
    whole.load_adapter("a", &at, Strictness::Strict).unwrap();
    assert!(apart(&logits(&whole, &rows), &logits(&model, &rows)) > 0.01);
}

#[test]
fn merged_it_is_a_whole_model_that_computes_what_was_trained() {
    let out = tempfile::tempdir().unwrap();
    for (name, targets) in [("llama", r#""all-linear""#), ("qwen2", r#"["q_proj"]"#)] {
        let rows = rows(&expected(name));
        let model = adapted(quantized(name, BlockScale::Double), &lora(targets));
        let before = logits(&model, &rows);
        let merged = model.merge_adapter("default").unwrap();
        let off = apart(&logits(&merged, &rows), &before);
        assert!(off < 3e-5, "{name}: {off:e}");
        let at = out.path().join(name);
        merged.save(&at, &Save::default()).unwrap();
        assert_eq!(tensors(&at).len(), tensors(&folder(name)).len());
        let again = Decoder::load(&at, &Load::default()).unwrap();
        assert_eq!(apart(&logits(&again, &rows), &logits(&merged, &rows)), 0.0);
    }
}

#[test]
fn what_four_bits_do_not_allow_is_named() {
    let load = Load {
        nf4: Some(BlockScale::Single),
        trained: true,
        ..Load::default()
    };
    let error = Decoder::load(folder("llama"), &load).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Decoder::load: `load.nf4` quantizes weights, which are then frozen: load with `trained` = false and add an \
         adapter"
    );
    let mut model = quantized("llama", BlockScale::Single);
    let out = tempfile::tempdir().unwrap();
    let error = model
        .save(out.path().join("model"), &Save::default())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Decoder::save: `self` holds weights in four bits, which a folder for Transformers does not: merge an \
         adapter first, which dequantizes them, or save the adapter alone"
    );
    assert!(!out.path().join("model").exists());
    let mut rng = StdRng::seed_from_u64(0);
    let mut dora = lora(r#"["q_proj"]"#);
    if let AdapterMethod::Lora(file) = &mut dora.method {
        file.dora = true;
    }
    let text = r#"{"targets": {"target_modules": ["k_proj"]}}"#;
    let ia3 = Ia3File {
        model: serde_json::from_str::<Ia3ForModel>(text).unwrap(),
        ..Ia3File::default()
    };
    let ia3: PeftConfig = AdapterMethod::Ia3(ia3).into();
    for (config, path) in [(dora, "q_proj"), (ia3, "k_proj")] {
        let error = model.add_adapter("new", &config, &mut rng).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "Decoder::add_adapter: `config` chooses `model.layers.0.self_attn.{path}`, which is in four bits: \
                 only LoRA goes over it"
            )
        );
    }
    assert!(model.adapters().is_empty());
}
