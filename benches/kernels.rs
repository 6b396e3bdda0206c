//! Time and memory of the operations under every objective, against candle's own operations and, with
//! `--python`, against PyTorch's: each variant in its own process, medians and ratios of one run.
//!
//! ```text
//! cargo bench --bench kernels                                 # everything against candle
//! cargo bench --bench kernels -- --only adamw                 # one group
//! cargo bench --bench kernels -- --python venv/bin/python     # and against PyTorch
//! cargo bench --bench kernels -- --rounds 3                   # the median of three runs of each
//! ```
//! Groups: `log_probs`, `hidden`, `adamw`, `lora`. Memory is the peak resident set of the process
//! above its resident set before the first repetition (Linux). PyTorch runs `benches/compare_torch.py`
//! (`pip install torch==2.15.0`) on the same shapes, under glibc's allocator with and without huge
//! pages; the better of the two counts.

mod harness;

use candle_align::log_probs::selective_log_softmax_with_gradient;
use candle_align::parameter_efficient::{Adapter, LoraConfig, LoraLinear};
use candle_align::training::{self, AdamWConfig, ParameterGroup};
use candle_align::{OutputHead, Result, Statistics, TokenLogProbs};
use candle_core::{DType, Module, Tensor, Var};
use candle_nn::Linear;
use harness::{Group, Measured, Numbers, compare, decoder, measure, numbers, targets};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rayon::prelude::*;
use std::collections::BTreeMap;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is compared, by group.
const GROUPS: [Group; 4] = [
    (
        "log_probs",
        &[
            "2048x32000 ours",
            "2048x32000 candle cross_entropy",
            "512x151936 ours",
            "512x151936 candle cross_entropy",
            "2048x32000 streaming bound",
            "2048x32000 ours, gradient handed over",
            "512x151936 streaming bound",
            "512x151936 ours, gradient handed over",
        ],
        &[
            "2048x32000 cross_entropy",
            "2048x32000 gather - logsumexp",
            "512x151936 cross_entropy",
            "512x151936 gather - logsumexp",
        ],
    ),
    (
        "hidden",
        &[
            "frozen ours",
            "frozen candle plain",
            "trained ours",
            "trained candle plain",
        ],
        &["frozen plain", "trained plain"],
    ),
    ("adamw", &["80M ours", "80M candle"], &["80M fused"]),
    (
        "lora",
        &["rank 8 frozen linear", "rank 8 ordinary linear"],
        &[],
    ),
];

fn log_probs(name: &str) -> Result<Measured> {
    let (rows, vocabulary) = match name.starts_with("2048") {
        true => (2048, 32000),
        false => (512, 151_936),
    };
    let targets = targets(rows, vocabulary);
    let mask = targets.ones_like()?.to_dtype(DType::U8)?;
    let logits = numbers(&[1, rows, vocabulary], 16.0);
    let kind = name.split_once(' ').map_or("", |(_, kind)| kind);
    match kind {
        "ours" => {
            let logits = Var::from_tensor(&logits)?;
            measure(
                || TokenLogProbs::aligned(&logits, &targets, &mask, Statistics::default())?.sum(),
                |sum| {
                    sum.backward()?;
                    Ok(())
                },
            )
        }
        "ours, gradient handed over" => measure(
            || Ok(()),
            |()| {
                selective_log_softmax_with_gradient(&logits, &targets, &mask)?;
                Ok(())
            },
        ),
        "candle cross_entropy" => {
            let (logits, targets) = (Var::from_tensor(&logits.squeeze(0)?)?, targets.squeeze(0)?);
            measure(
                || Ok(candle_nn::loss::cross_entropy(&logits, &targets)?),
                |loss| {
                    loss.backward()?;
                    Ok(())
                },
            )
        }
        // read once, then read once and write once, over the same memory
        _ => {
            let data = logits.flatten_all()?.to_vec1::<f32>()?;
            let mut out = vec![0f32; data.len()];
            measure(
                || {
                    let sum: f32 = data.par_chunks(1 << 16).map(lanes_sum).sum();
                    Ok(std::hint::black_box(sum))
                },
                |_| {
                    out.par_chunks_mut(1 << 16)
                        .zip(data.par_chunks(1 << 16))
                        .for_each(|(o, x)| {
                            for (o, x) in o.iter_mut().zip(x) {
                                *o = x * 0.5;
                            }
                        });
                    std::hint::black_box(&out);
                    Ok(())
                },
            )
        }
    }
}

fn lanes_sum(chunk: &[f32]) -> f32 {
    let mut lanes = [0f32; 32];
    for part in chunk.chunks_exact(32) {
        for (lane, x) in lanes.iter_mut().zip(part) {
            *lane += x;
        }
    }
    lanes.iter().sum()
}

fn hidden(name: &str) -> Result<Measured> {
    let (rows, dim, vocabulary) = (2048, 576, 49152);
    // one more position, because nothing predicts the first position of a row
    let hidden = Var::from_tensor(&numbers(&[1, rows + 1, dim], 2.0))?;
    let weight = numbers(&[vocabulary, dim], 0.1);
    let trained = match name.starts_with("trained") {
        true => Some(Var::from_tensor(&weight)?),
        false => None,
    };
    let weight = trained.as_ref().map_or(weight, |w| w.as_tensor().clone());
    let tokens = targets(rows + 1, vocabulary);
    let mask = tokens.ones_like()?.to_dtype(DType::U8)?;
    if name.ends_with("ours") {
        let head = OutputHead::new(&weight, None)?;
        return measure(
            || {
                TokenLogProbs::from_hidden(&hidden, &head, &tokens, &mask, Statistics::default())?
                    .sum()
            },
            |sum| {
                sum.backward()?;
                Ok(())
            },
        );
    }
    let chosen = tokens.narrow(1, 1, rows)?.reshape((rows, 1))?;
    measure(
        || {
            let logits = hidden
                .narrow(1, 0, rows)?
                .squeeze(0)?
                .matmul(&weight.t()?)?;
            let log_p = candle_nn::ops::log_softmax(&logits, 1)?;
            Ok(log_p.gather(&chosen, 1)?.sum_all()?)
        },
        |sum| {
            sum.backward()?;
            Ok(())
        },
    )
}

/// LoRA written with ordinary layers: the base weight is a constant of the graph.
struct OrdinaryLora {
    base: Linear,
    a: Linear,
    b: Linear,
}

impl Module for OrdinaryLora {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.base.forward(x)? + self.b.forward(&self.a.forward(x)?)?
    }
}

fn lora(name: &str) -> Result<Measured> {
    let base = decoder()?;
    let ordinary = name.ends_with("ordinary linear");
    let config = LoraConfig {
        rank: 8,
        alpha: 8.0,
        ..Default::default()
    };
    let mut rng = StdRng::seed_from_u64(0);
    let mut vars: Vec<(String, Var)> = Vec::new();
    let model = base.map_linears(|name, weight| {
        let linear = Linear::new(weight, None);
        let lora = LoraLinear::new(&linear, &config, &mut rng)?;
        vars.extend(lora.trainable(name));
        Ok(match ordinary {
            true => Box::new(OrdinaryLora {
                base: linear,
                a: Linear::new(lora.a().as_tensor().clone(), None),
                b: Linear::new(lora.b().as_tensor().clone(), None),
            }),
            false => Box::new(lora),
        })
    })?;
    let head = OutputHead::new(&numbers(&[49152, 576], 0.02), None)?;
    drop(base);
    let tokens = targets(4 * 256, 49152).reshape((4, 256))?;
    let mask = tokens.ones_like()?.to_dtype(DType::U8)?;
    let groups = vec![ParameterGroup::new(vars, 0.0)];
    let mut optimizer = training::AdamW::new(groups, AdamWConfig::default())?;
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

/// One variant.
fn variant(group: &str, name: &str) -> Result<Measured> {
    match group {
        "log_probs" => log_probs(name),
        "hidden" => hidden(name),
        "adamw" => harness::adamw::step(name),
        _ => lora(name),
    }
}

fn main() {
    ratios(&compare(&GROUPS, variant));
}

/// The ratios of the table: numerator and denominator.
fn ratios(results: &BTreeMap<String, Numbers>) {
    println!("\n| ratio | time | extra memory |\n|---|---|---|");
    let pairs = [
        (
            "log_probs 2048x32000 candle cross_entropy",
            "log_probs 2048x32000 ours",
        ),
        (
            "log_probs 512x151936 candle cross_entropy",
            "log_probs 512x151936 ours",
        ),
        (
            "log_probs torch 2048x32000 cross_entropy",
            "log_probs 2048x32000 ours",
        ),
        (
            "log_probs torch 2048x32000 gather - logsumexp",
            "log_probs 2048x32000 ours",
        ),
        (
            "log_probs torch 512x151936 cross_entropy",
            "log_probs 512x151936 ours",
        ),
        (
            "log_probs torch 512x151936 gather - logsumexp",
            "log_probs 512x151936 ours",
        ),
        (
            "log_probs 2048x32000 streaming bound",
            "log_probs 2048x32000 ours, gradient handed over",
        ),
        (
            "log_probs 512x151936 streaming bound",
            "log_probs 512x151936 ours, gradient handed over",
        ),
        ("hidden frozen candle plain", "hidden frozen ours"),
        ("hidden torch frozen plain", "hidden frozen ours"),
        ("hidden trained candle plain", "hidden trained ours"),
        ("hidden torch trained plain", "hidden trained ours"),
        ("adamw 80M candle", "adamw 80M ours"),
        ("adamw torch 80M fused", "adamw 80M ours"),
        ("lora rank 8 ordinary linear", "lora rank 8 frozen linear"),
    ];
    for (other, ours) in pairs {
        if let (Some(a), Some(b)) = (results.get(other), results.get(ours)) {
            println!("| {other} / ours | {:.2} | {:.2} |", a.1 / b.1, a.2 / b.2);
        }
    }
    for (what, other, ours) in [
        (
            "forward of ours / reading once, [2048, 32000]",
            "log_probs 2048x32000 streaming bound",
            "log_probs 2048x32000 ours",
        ),
        (
            "forward of ours / reading once, [512, 151936]",
            "log_probs 512x151936 streaming bound",
            "log_probs 512x151936 ours",
        ),
    ] {
        if let (Some(a), Some(b)) = (results.get(other), results.get(ours)) {
            println!("| {what}: share of the bound | {:.2} | |", a.0 / b.0);
        }
    }
    if let (Some(a), Some(b)) = (
        results.get("lora rank 8 ordinary linear"),
        results.get("lora rank 8 frozen linear"),
    ) {
        println!(
            "| backward and step, frozen / ordinary linear | {:.2} | |",
            (b.1 - b.0) / (a.1 - a.0)
        );
    }
}
