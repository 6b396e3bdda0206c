//! The cost of parameter-efficient training: a step of the same decoder in full, under LoRA, under
//! QLoRA and with a prompt; and the time to merge, quantize and dequantize weights, against copying the
//! same memory.
//!
//! ```text
//! cargo bench --bench adapters
//! cargo bench --bench adapters -- --only step --rounds 3
//! ```
//! Groups: `step` (80 million parameters, 4 rows of 256 tokens, AdamW, two threads) and `weights` (one
//! matrix [4096, 4096]; `forward` is empty). Memory is the peak resident set of the process above
//! its resident set before the first repetition (Linux): gradients, activations and moments, not the weights.

#[allow(dead_code)]
mod harness;

use candle_align::parameter_efficient::{
    Adapter, BlockScale, LinearAdapter, LoraConfig, LoraLinear, Nf4Tensor, PromptConfig,
    QloraLinear,
};
use candle_align::training::{AdamW, AdamWConfig, ParameterGroup};
use candle_align::{OutputHead, Result, Statistics, TokenLogProbs};
use candle_core::{DType, Var};
use candle_nn::Linear;
use harness::{Group, Measured, compare, decoder, measure, numbers, targets};
use rand::SeedableRng;
use rand::rngs::StdRng;
use support::adapters::{AdapterSettings, adapt};
use support::transformer::Transformer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const GROUPS: [Group; 2] = [
    (
        "step",
        &["full", "LoRA rank 8", "QLoRA rank 8", "prompt of 20"],
        &[],
    ),
    (
        "weights",
        &[
            "copy f32",
            "LoRA merge f32",
            "NF4 quantize f32",
            "NF4 dequantize f32",
            "copy bf16",
            "NF4 dequantize bf16",
        ],
        &[],
    ),
];

fn step(name: &str) -> Result<Measured> {
    let base = decoder()?;
    let mut rng = StdRng::seed_from_u64(0);
    let lora = LoraConfig {
        rank: 8,
        alpha: 16.0,
        ..Default::default()
    };
    let adapted = |config| {
        let adapted = adapt(&base, &config, &mut StdRng::seed_from_u64(0))?;
        let vars = adapted.vars();
        Ok::<_, candle_align::Error>((adapted.model, vars))
    };
    let (model, vars): (Transformer, Vec<(String, Var)>) = match name {
        "full" => (base.trainable()?, Vec::new()),
        "LoRA rank 8" => adapted(AdapterSettings::Lora(lora.into()))?,
        "QLoRA rank 8" => {
            let mut vars = Vec::new();
            let model = base.map_linears(|name, weight| {
                let linear = Linear::new(weight, None);
                let layer = QloraLinear::new(&linear, BlockScale::Double, &lora, &mut rng)?;
                vars.extend(layer.trainable(name));
                Ok(Box::new(layer))
            })?;
            (model, vars)
        }
        _ => adapted(AdapterSettings::Prompt(PromptConfig {
            length: 20,
            ..Default::default()
        }))?,
    };
    // the output layer is applied through `from_hidden`, and trained only in full training
    let (head, vars) = match name == "full" {
        true => {
            let vars = model.vars();
            let head = vars.iter().find(|(name, _)| name == "head.weight");
            let head = head.map(|(_, var)| var.as_tensor().clone());
            (head.unwrap_or(numbers(&[49152, 576], 0.02)), vars)
        }
        false => (numbers(&[49152, 576], 0.02), vars),
    };
    let head = OutputHead::new(&head, None)?;
    drop(base);
    let trained: usize = vars.iter().map(|(_, var)| var.elem_count()).sum();
    eprintln!("{name}: {trained} trained");
    let tokens = targets(4 * 256, 49152).reshape((4, 256))?;
    let mask = tokens.ones_like()?.to_dtype(DType::U8)?;
    let groups = vec![ParameterGroup::new(vars, 0.0)];
    let mut optimizer = AdamW::new(groups, AdamWConfig::default())?;
    measure(
        || {
            let hidden = model.hidden(&tokens)?;
            let log_probs =
                TokenLogProbs::from_hidden(&hidden, &head, &tokens, &mask, Statistics::default())?;
            Ok(log_probs.sum()?.mean_all()?.neg()?)
        },
        |loss| optimizer.step(&loss.backward()?),
    )
}

fn weights(name: &str) -> Result<Measured> {
    let dtype = match name.ends_with("bf16") {
        true => DType::BF16,
        false => DType::F32,
    };
    let weight = numbers(&[4096, 4096], 2.0).to_dtype(dtype)?;
    let of = |mut work: Box<dyn FnMut() -> Result<()>>| measure(|| Ok(()), |()| work());
    match name.split_once(' ').map_or(name, |(first, _)| first) {
        "copy" => of(Box::new(move || {
            std::hint::black_box(weight.copy()?);
            Ok(())
        })),
        "LoRA" => {
            let config = LoraConfig {
                rank: 8,
                ..Default::default()
            };
            let mut rng = StdRng::seed_from_u64(0);
            let layer = LoraLinear::new(&Linear::new(weight, None), &config, &mut rng)?;
            layer.b().set(&numbers(&[4096, 8], 0.1))?;
            of(Box::new(move || {
                std::hint::black_box(layer.merged_linear()?);
                Ok(())
            }))
        }
        _ => {
            let quantized = Nf4Tensor::quantize(&weight, BlockScale::Double)?;
            match name.contains("dequantize") {
                true => of(Box::new(move || {
                    std::hint::black_box(quantized.dequantize()?);
                    Ok(())
                })),
                false => of(Box::new(move || {
                    std::hint::black_box(Nf4Tensor::quantize(&weight, BlockScale::Double)?);
                    Ok(())
                })),
            }
        }
    }
}

fn variant(group: &str, name: &str) -> Result<Measured> {
    match group {
        "step" => step(name),
        _ => weights(name),
    }
}

fn main() {
    let results = compare(&GROUPS, variant);
    println!("\n| ratio | time | extra memory |\n|---|---|---|");
    for (name, base) in [
        ("step LoRA rank 8", "step full"),
        ("step QLoRA rank 8", "step full"),
        ("step prompt of 20", "step full"),
        ("weights LoRA merge f32", "weights copy f32"),
        ("weights NF4 quantize f32", "weights copy f32"),
        ("weights NF4 dequantize f32", "weights copy f32"),
        ("weights NF4 dequantize bf16", "weights copy bf16"),
    ] {
        if let (Some(a), Some(b)) = (results.get(name), results.get(base)) {
            println!("| {name} / {base} | {:.2} | {:.2} |", a.1 / b.1, a.2 / b.2);
        }
    }
}
