//! A decoder in four bits holds four bits.

use super::{SMALL, alone, measured};
use candle_align::decoder::{Decoder, Load};
use candle_align::parameter_efficient::BlockScale;
use candle_align::peft::{AdapterMethod, LoraFile, PeftConfig, Strictness};
use candle_core::{DType, Device, Tensor};
use rand::{SeedableRng, rngs::StdRng};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

const HIDDEN: usize = 256;
const INNER: usize = 384;
const LAYERS: usize = 2;

/// A checkpoint whose linear maps are most of it; the number of their weights.
fn checkpoint(folder: &Path) -> usize {
    let config = format!(
        r#"{{"model_type": "llama", "vocab_size": 8, "hidden_size": {HIDDEN}, "intermediate_size": {INNER},
            "num_hidden_layers": {LAYERS}, "num_attention_heads": 4, "num_key_value_heads": 4,
            "tie_word_embeddings": true}}"#
    );
    fs::write(folder.join("config.json"), config).unwrap();
    let ones = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
    let mut tensors = HashMap::from([
        ("model.embed_tokens.weight".to_string(), ones(&[8, HIDDEN])),
        ("model.norm.weight".to_string(), ones(&[HIDDEN])),
    ]);
    let mut weights = 0;
    for layer in 0..LAYERS {
        let name = |module: &str| format!("model.layers.{layer}.{module}.weight");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            tensors.insert(name(norm), ones(&[HIDDEN]));
        }
        for (map, outputs, inputs) in [
            ("self_attn.q_proj", HIDDEN, HIDDEN),
            ("self_attn.k_proj", HIDDEN, HIDDEN),
            ("self_attn.v_proj", HIDDEN, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HIDDEN),
            ("mlp.gate_proj", INNER, HIDDEN),
            ("mlp.up_proj", INNER, HIDDEN),
            ("mlp.down_proj", HIDDEN, INNER),
        ] {
            weights += outputs * inputs;
            tensors.insert(name(map), ones(&[outputs, inputs]));
        }
    }
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    weights
}

fn lora() -> PeftConfig {
    let text = r#"{"rank": 1, "targets": {"target_modules": "all-linear"}}"#;
    let model = serde_json::from_str(text).unwrap();
    let file = LoraFile {
        model,
        ..LoraFile::default()
    };
    AdapterMethod::Lora(file).into()
}

#[test]
fn quantized_weights_take_four_and_a_half_bits_and_adapters_share_them() {
    alone(quantized_weights);
}

fn quantized_weights() {
    let folder = tempfile::tempdir().unwrap();
    let weights = checkpoint(folder.path());
    let load = |nf4: Option<BlockScale>| {
        let load = Load {
            nf4,
            ..Load::default()
        };
        Decoder::load(folder.path(), &load).unwrap()
    };
    // tables are made before the count
    load(Some(BlockScale::Double));
    let (_whole, of_whole, _) = measured(|| load(None));
    for (scale, bits) in [(BlockScale::Single, 4.5), (BlockScale::Double, 4.127)] {
        let (mut model, held, _) = measured(|| load(Some(scale)));
        let expected = (weights as f64 * bits / 8.0) as usize;
        // beside the weights both hold the same
        let rest = of_whole - 4 * weights;
        println!("{scale:?}: {held} bytes for {weights} weights, {rest} beside");
        assert!((held - rest).abs_diff(expected) < SMALL, "{held}");

        let mut rng = StdRng::seed_from_u64(0);
        let (_, held, _) = measured(|| model.add_adapter("a", &lora(), &mut rng).unwrap());
        // a few numbers per row and column
        assert!(held < expected / 4, "{held}");
        let at = folder.path().join(format!("{scale:?}"));
        model.save_adapter("a", &at).unwrap();
        let (_, held, _) = measured(|| {
            let read = model.load_adapter("b", &at, Strictness::Strict);
            read.unwrap()
        });
        assert!(
            held < expected / 4,
            "a second adapter copies its base: {held}"
        );
    }
}
