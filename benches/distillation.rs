//! Time and memory of the divergence between teacher and student, forward and backward, against candle's own
//! operations and, with `--python`, against PyTorch's composed form: each variant in its own process, medians
//! and ratios of one run.
//!
//! ```text
//! cargo bench --bench distillation                                 # everything against candle
//! cargo bench --bench distillation -- --only divergence            # one group
//! cargo bench --bench distillation -- --python venv/bin/python     # and against PyTorch
//! ```
//! Groups: `divergence`, from logits [2048, 32000]; `distilled`, from hidden states [2048, 576] and matrices
//! [49152, 576] of both models. PyTorch computes what TRL's `generalized_jsd_loss` does, without labels.

#[allow(dead_code)]
mod harness;

use candle_align::distillation::divergence::{
    Direction, DivergenceConfig, divergence, divergence_from_hidden,
};
use candle_align::{OutputHead, Result};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::ops::log_softmax;
use harness::{Group, Measured, compare, measure, numbers};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is compared, by group.
const GROUPS: [Group; 2] = [
    (
        "divergence",
        &[
            "forward ours",
            "reverse ours",
            "mixed ours",
            "forward candle",
        ],
        &["forward", "reverse", "mixed"],
    ),
    (
        "distilled",
        &[
            "frozen forward ours",
            "frozen mixed ours",
            "trained forward ours",
            "trained mixed ours",
        ],
        &[
            "frozen forward",
            "frozen mixed",
            "trained forward",
            "trained mixed",
        ],
    ),
];

fn config(name: &str) -> DivergenceConfig {
    let direction = match name {
        _ if name.contains("forward") => Direction::Forward,
        _ if name.contains("reverse") => Direction::Reverse,
        _ => Direction::JensenShannon { weight: 0.5 },
    };
    DivergenceConfig {
        direction,
        ..Default::default()
    }
}

fn backward(loss: Tensor) -> Result<()> {
    loss.backward()?;
    Ok(())
}

fn logits(name: &str) -> Result<Measured> {
    let (rows, vocabulary) = (2048, 32000);
    let student = Var::from_tensor(&numbers(&[1, rows, vocabulary], 16.0))?;
    let teacher = (numbers(&[1, rows, vocabulary], 16.0) * -0.5)?;
    let mask = Tensor::ones((1, rows), DType::U8, &Device::Cpu)?;
    let config = config(name);
    if name.ends_with("ours") {
        return measure(
            || {
                Ok(divergence(&student, &teacher, &mask, &config)?
                    .loss
                    .sum_all()?)
            },
            backward,
        );
    }
    measure(
        || {
            let (log_q, log_p) = (log_softmax(&student, 2)?, log_softmax(&teacher, 2)?);
            Ok((log_p.exp()? * (log_p - log_q)?)?.sum_all()?)
        },
        backward,
    )
}

fn hidden(name: &str) -> Result<Measured> {
    let (rows, dim, vocabulary) = (2048, 576, 49152);
    let hidden = Var::from_tensor(&numbers(&[1, rows, dim], 2.0))?;
    let weight = Var::from_tensor(&numbers(&[vocabulary, dim], 0.1))?;
    let weight = match name.starts_with("trained") {
        true => weight.as_tensor().clone(),
        false => weight.as_detached_tensor(),
    };
    let other = (numbers(&[1, rows, dim], 2.0) * -0.5)?;
    let student = OutputHead::new(&weight, None)?;
    let teacher = OutputHead::new(&numbers(&[vocabulary, dim], 0.1), None)?;
    let mask = Tensor::ones((1, rows), DType::U8, &Device::Cpu)?;
    let config = config(name);
    measure(
        || {
            let (student, teacher) = ((&*hidden, &student), (&other, &teacher));
            Ok(divergence_from_hidden(student, teacher, &mask, &config)?
                .loss
                .sum_all()?)
        },
        backward,
    )
}

fn variant(group: &str, name: &str) -> Result<Measured> {
    match group {
        "divergence" => logits(name),
        _ => hidden(name),
    }
}

fn main() {
    let results = compare(&GROUPS, variant);
    println!("\n| ratio | time | extra memory |\n|---|---|---|");
    let ratio = |of: &str, over: &str| {
        if let (Some(a), Some(b)) = (results.get(of), results.get(over)) {
            println!("| {of} / {over} | {:.2} | {:.2} |", a.1 / b.1, a.2 / b.2);
        }
    };
    ratio("divergence forward ours", "divergence forward candle");
    for (group, names, torch) in GROUPS {
        for (ours, torch) in names.iter().zip(torch) {
            ratio(
                &format!("{group} {ours}"),
                &format!("{group} torch {torch}"),
            );
        }
    }
}
