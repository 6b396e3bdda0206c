//! Time and peak memory of a decoder's steps and of sampling, beside TRL and Transformers on the same batches:
//! each variant in a process of its own, TRL before and after, means over the batches. The first step of every
//! process stands beside the mean: it also pays for the first touch of the memory that later steps use again.
//!
//! ```text
//! cargo bench --bench decoder -- --python venv/bin/python --model smollm2 --data hh.jsonl.gz --lists trees.jsonl.gz
//! cargo bench --bench decoder -- … --only dpo --steps 4 --rounds 2 --threads 1
//! ```
//! `compare_trl.py` says what the groups are (`dpo`, `sft`, `lists`, `sample`, `grpo`); it also makes the batches. `padded`
//! computes every row up to the longest one of its batch, `unpadded` its own tokens, and `shared` what rows have in
//! common at their start once. Memory is the peak resident set of the whole process (VmHWM), with loading.

#[allow(dead_code)] // the other benches use the rest
mod harness;

use candle_align::decoder::{Decoder, LanguageModel, Load, Mode};
use candle_align::online::group_advantages::{GrpoAdvantageConfig, grpo_advantages};
use candle_align::online::policy_gradient::{GrpoConfig, grpo_loss};
use candle_align::ops::Segments;
use candle_align::parameter_efficient::{LoraConfig, LoraForModel, TargetModules, Targets};
use candle_align::peft::{AdapterMethod, LoraFile};
use candle_align::training::{AdamW, AdamWConfig, GradAccumulator, ParameterGroup, clip_grad_norm};
use candle_align::{
    Candidates, DpoConfig, Pair, ProConfig, Reduction, Result, SamplingConfig, SftConfig,
    TokenLogProbs, dpo_loss, pro_loss, sft_loss,
};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use rand::{SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::process::Command;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A group, its variants, and whether Python runs it too.
const GROUPS: [(&str, &[&str], bool); 5] = [
    (
        "dpo",
        &[
            "padded",
            "unpadded",
            "shared",
            "shared recompute",
            "shared recompute bf16",
        ],
        true,
    ),
    ("sft", &["padded", "unpadded"], true),
    ("lists", &["padded", "unpadded", "shared"], false),
    ("sample", &["cache"], true),
    ("grpo", &["shared"], true),
];

/// A row of a batch: its tokens, and which of them the loss covers.
#[derive(Deserialize)]
struct Row {
    ids: Vec<u32>,
    learned: Vec<u8>,
}

/// What a process has to say: seconds and processor seconds of each step, the losses, the peak in MiB.
#[derive(Default, Deserialize, Serialize)]
struct Report {
    seconds: Vec<f64>,
    processor: Vec<f64>,
    losses: Vec<f64>,
    peak: f64,
}

/// Seconds of the processor that this process has used.
fn processor() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// The flat batch of a variant, and which tokens count, as padded rows.
fn layout(rows: &[Row], variant: &str) -> Result<(Segments, Vec<u32>, Tensor)> {
    let time = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
    let mut learned = Vec::with_capacity(rows.len() * time);
    for (number, row) in (1..).zip(rows) {
        learned.extend(&row.learned);
        learned.resize(number * time, 0);
    }
    let learned = Tensor::from_vec(learned, (rows.len(), time), &Device::Cpu)?;
    let ids = || rows.iter().map(|row| row.ids.clone());
    let (segments, tokens) = match variant.split(' ').next() {
        Some("shared") => Segments::from_tokens(&ids().collect::<Vec<_>>())?,
        Some("unpadded") => {
            let lengths: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
            (Segments::from_lengths(&lengths)?, ids().flatten().collect())
        }
        // behind its end nobody sees a token
        _ => {
            let padded = ids().flat_map(|mut ids| {
                ids.resize(time, 0);
                ids
            });
            let tokens = padded.collect();
            (Segments::from_lengths(&vec![time; rows.len()])?, tokens)
        }
    };
    Ok((segments, tokens, learned))
}

/// The loss of a group on one batch.
fn loss(decoder: &Decoder, group: &str, variant: &str, rows: &[Row], seed: u64) -> Result<Tensor> {
    let (segments, tokens, learned) = layout(rows, variant)?;
    let under =
        |mode| -> Result<TokenLogProbs> { decoder.log_probs(&tokens, &segments, &learned, mode) };
    let pair = |log_probs: TokenLogProbs| Pair::from_rows(&log_probs.sum()?);
    match group {
        "dpo" => {
            let reference = pair(under(Mode::Reference)?)?.detach();
            let policy = pair(under(Mode::Train { seed })?)?;
            let config = DpoConfig::default();
            Ok(dpo_loss(&policy, Some(&reference), &config)?
                .loss
                .mean_all()?)
        }
        "lists" => {
            let rewards: Vec<f32> = (0..rows.len()).map(|rank| -(rank as f32)).collect();
            let rewards = Tensor::from_vec(rewards, (1, rows.len()), &Device::Cpu)?;
            let log_probs = under(Mode::Train { seed })?;
            let lists = Candidates::from_token_log_probs(&log_probs, &rewards, None)?;
            Ok(pro_loss(&lists, &ProConfig::default())?.loss.mean_all()?)
        }
        _ => Ok(
            sft_loss(&under(Mode::Train { seed })?, None, &SftConfig::default())?
                .reduce(Reduction::TokenMean)?,
        ),
    }
}

/// The answers of a step of GRPO to each prompt, and their tokens.
const ANSWERS: usize = 8;
const TOKENS: usize = 64;

/// Draws answers and learns from them, the answers to one prompt at a time.
fn grpo(
    decoder: &Decoder,
    vars: &[(String, Var)],
    variant: &str,
    prompts: &[Row],
    seed: u64,
) -> Result<(f64, GradStore)> {
    let given: Vec<&[u32]> = prompts.iter().map(|row| row.ids.as_slice()).collect();
    let config = SamplingConfig {
        answers: ANSWERS,
        max_new_tokens: TOKENS,
        ..SamplingConfig::default()
    };
    let rng = &mut StdRng::seed_from_u64(seed);
    let samples = decoder.without_gradients().sample(&given, &config, rng)?;
    let even = |ids: &[u32]| ids.iter().filter(|id| *id % 2 == 0).count() as f32 / TOKENS as f32;
    let rewards: Vec<f32> = samples.rows.iter().map(|row| even(row.answer())).collect();
    let rewards = Tensor::from_vec(rewards, (prompts.len(), ANSWERS), &Device::Cpu)?;
    let advantages = grpo_advantages(&rewards, None, &GrpoAdvantageConfig::default())?;
    let (mut total, mut sum) = (GradAccumulator::new(), 0.0);
    for (number, (prompt, answers)) in prompts.iter().zip(samples.rows.chunks(ANSWERS)).enumerate()
    {
        let row = |answer: &[u32]| Row {
            ids: [&prompt.ids, answer].concat(),
            learned: [vec![0; prompt.ids.len()], vec![1; answer.len()]].concat(),
        };
        let rows: Vec<Row> = answers.iter().map(|one| row(one.answer())).collect();
        let (segments, tokens, learned) = layout(&rows, variant)?;
        let new = decoder.log_probs(&tokens, &segments, &learned, Mode::Train { seed })?;
        let before = vec![0.0; prompt.ids.len() - 1];
        let old = answers
            .iter()
            .flat_map(|one| before.iter().chain(&one.log_probs));
        let old: Vec<f64> = old.copied().collect();
        let old =
            Tensor::from_vec(old, new.values().shape(), &Device::Cpu)?.to_dtype(DType::F32)?;
        let advantages = advantages.get(number)?;
        let count = (prompts.len() * ANSWERS * TOKENS) as f64;
        let loss = grpo_loss(&new, &old, &advantages, &GrpoConfig::default())?.loss;
        let loss = loss.reduce(Reduction::SumOver { count })?;
        total.add(vars, &loss.backward()?)?;
        sum += f64::from(loss.to_scalar::<f32>()?);
    }
    Ok((sum, total.take()))
}

fn trained(model: &str, group: &str, variant: &str) -> Result<Decoder> {
    let load = Load {
        dtype: if variant.contains("bf16") {
            DType::BF16
        } else {
            DType::F32
        },
        trained: group == "sft",
        ..Load::default()
    };
    let mut decoder = Decoder::load(model, &load)?;
    decoder.set_recompute(variant.contains("recompute"));
    if group != "sft" {
        let targets = Targets {
            target_modules: TargetModules::AllLinear,
            ..Targets::default()
        };
        let config = LoraConfig {
            rank: 8,
            alpha: 16.0,
            ..LoraConfig::default()
        };
        let lora = LoraFile {
            model: LoraForModel {
                config,
                targets,
                ..LoraForModel::default()
            },
            ..LoraFile::default()
        };
        let mut rng = StdRng::seed_from_u64(0);
        decoder.add_adapter("default", &AdapterMethod::Lora(lora).into(), &mut rng)?;
    }
    Ok(decoder)
}

/// One variant, in this process.
fn run(
    model: &str,
    group: &str,
    variant: &str,
    batches: &[Vec<Row>],
    steps: usize,
) -> Result<Report> {
    let mut report = Report::default();
    let mut clock = |work: &mut dyn FnMut() -> Result<f64>| -> Result<()> {
        let (start, used) = (Instant::now(), processor());
        report.losses.push(work()?);
        report.seconds.push(start.elapsed().as_secs_f64());
        report.processor.push(processor() - used);
        Ok(())
    };
    if group == "sample" {
        let decoder = Decoder::load(model, &Load::default())?;
        let rows = &batches[0];
        let given = |row: &Row| row.learned.iter().filter(|learned| **learned == 0).count();
        let prompts: Vec<&[u32]> = rows.iter().map(|row| &row.ids[..given(row)]).collect();
        let config = SamplingConfig {
            top_k: Some(1),
            max_new_tokens: 64,
            ..SamplingConfig::default()
        };
        for _ in 0..steps {
            // the share of tokens that are those of Transformers
            clock(&mut || {
                let samples = decoder.sample(&prompts, &config, &mut StdRng::seed_from_u64(0))?;
                let pairs = samples.rows.iter().zip(rows);
                let equal = pairs.flat_map(|(sample, row)| {
                    let theirs = &row.ids[given(row)..];
                    sample.answer().iter().zip(theirs).map(|(a, b)| a == b)
                });
                Ok(equal.filter(|equal| *equal).count() as f64 / (64 * rows.len()) as f64)
            })?;
        }
    } else {
        let decoder = trained(model, group, variant)?;
        let vars: Vec<(String, Var)> = decoder.vars();
        let learning_rate = if group == "sft" { 1e-5 } else { 1e-4 };
        let config = AdamWConfig {
            learning_rate,
            ..AdamWConfig::default()
        };
        let mut optimizer = AdamW::new(vec![ParameterGroup::new(vars.clone(), 0.0)], config)?;
        for (seed, rows) in (0..).zip(batches) {
            clock(&mut || {
                let (loss, mut grads) = if group == "grpo" {
                    grpo(&decoder, &vars, variant, rows, seed)?
                } else {
                    let loss = loss(&decoder, group, variant, rows, seed)?;
                    (f64::from(loss.to_scalar::<f32>()?), loss.backward()?)
                };
                clip_grad_norm(&vars, &mut grads, 1.0)?;
                optimizer.step(&grads)?;
                Ok(loss)
            })?;
        }
    }
    report.peak = harness::status("VmHWM");
    Ok(report)
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

/// The last line of a process.
fn report(command: &mut Command) -> std::result::Result<Report, String> {
    let output = command.output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default())
        .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())
}

fn main() {
    let mut given: HashMap<String, String> = HashMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if let (Some(name), true) = (argument.strip_prefix("--"), argument != "--bench") {
            given.insert(name.to_string(), arguments.next().unwrap_or_default());
        }
    }
    let text = |name: &str| given.get(name).map(String::as_str);
    let number =
        |name: &str, default: usize| text(name).map_or(default, |n| n.parse().expect("a number"));
    let (steps, threads) = (number("steps", 8), number("threads", harness::THREADS));
    assert!(
        steps > 1,
        "--steps is at least 2: the first step stands apart"
    );
    let Some(model) = text("model") else {
        return eprintln!(
            "nothing is compared without --model DIR --python PYTHON --data FILE --lists FILE"
        );
    };
    if let (Some(group), Some(variant), Some(file)) =
        (text("group"), text("variant"), text("batches"))
    {
        let batches = std::fs::read(file).expect("the batches");
        let batches: Vec<Vec<Row>> = serde_json::from_slice(&batches).expect("rows");
        let report = run(model, group, variant, &batches, steps).expect("the variant runs");
        return println!("{}", serde_json::to_string(&report).expect("numbers"));
    }
    let folder = tempfile::tempdir().expect("a folder for the batches");
    let program = std::env::current_exe().expect("this program");
    println!(
        "| | first step | seconds, later steps | of the processor | peak MiB | loss, or equal tokens |\n|---|---|---|---|---|---|"
    );
    for (group, variants, theirs) in GROUPS {
        let data = text(if group == "lists" { "lists" } else { "data" });
        let (Some(data), true) = (data, text("only").is_none_or(|only| only == group)) else {
            continue;
        };
        let file = folder.path().join(group);
        let common = |command: &mut Command| {
            command.args(["--model", model, "--steps", &steps.to_string()]);
            command
                .args(["--threads", &threads.to_string(), "--batches"])
                .arg(&file);
        };
        let show = |name: &str, found: std::result::Result<Report, String>| match found {
            Ok(found) => println!(
                "| {group} {name} | {:.2} | {:.2} | {:.2} | {:.0} | {:.6} |",
                found.seconds[0],
                mean(&found.seconds[1..]),
                mean(&found.processor[1..]),
                found.peak,
                mean(&found.losses)
            ),
            Err(error) => eprintln!("{group} {name} failed: {error}"),
        };
        let python = || {
            let mut command = Command::new(text("python").unwrap_or("python"));
            command.arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/benches/compare_trl.py"
            ));
            common(command.args([group, "--data", data]));
            let found = report(&mut command);
            if theirs || found.is_err() {
                show("in Python", found);
            }
        };
        python();
        for _ in 0..number("rounds", 1) {
            for variant in variants {
                let mut command = Command::new(&program);
                common(command.args(["--group", group, "--variant", variant]));
                // a second thread of candle's own pool would spin beside rayon's
                command.env("RAYON_NUM_THREADS", threads.to_string());
                command.env("CANDLE_NUM_THREADS", "1");
                show(variant, report(&mut command));
            }
            if theirs {
                python();
            }
        }
    }
}
