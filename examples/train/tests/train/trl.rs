//! Runs of TRL's own trainers, step for step: `tests/golden/trl_runs.py` wrote what they logged.

use candle_align::decoder::{Decoder, Load};
use candle_align::peft::Strictness;
use candle_align::{DpoConfig, PairwiseRewardConfig};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use train::checkpoint::fit::{Fit, Fitting, Logged};
use train::checkpoint::objective::pairs::Pair;
use train::checkpoint::objective::scored::Compared;
use train::checkpoint::objective::{Objective, Reference, Text};
use train::checkpoint::order::Order;
use train::checkpoint::schedule::Kind;

/// The end of a text.
const END: u32 = 2;
pub const DEFAULT: &str = "default";

#[derive(Deserialize)]
pub struct Runs {
    pub runs: Vec<Run>,
}

#[derive(Deserialize)]
pub struct Run {
    pub name: String,
    trainer: String,
    pub adapter: bool,
    pub checkpoint: String,
    interrupted_prompts: bool,
    pub settings: Settings,
    pub final_norm: f64,
    pub steps: Vec<HashMap<String, f64>>,
}

#[derive(Deserialize)]
pub struct Settings {
    per_device_train_batch_size: usize,
    gradient_accumulation_steps: usize,
    max_steps: usize,
    learning_rate: f64,
    lr_scheduler_type: Kind,
    warmup_steps: f64,
    weight_decay: f64,
    max_grad_norm: f64,
    seed: u64,
    train_sampling_strategy: String,
    pub max_length: usize,
    center_rewards_coefficient: Option<f64>,
    pub beta: Option<f64>,
    loss_weights: Option<[f64; 2]>,
}

#[derive(Deserialize)]
struct Row {
    prompt: String,
    chosen: String,
    rejected: String,
}

pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/trl")
}

/// The words of these checkpoints are their ids.
fn ids(text: &str) -> Vec<u32> {
    text.split_whitespace()
        .map(|word| word[1..].parse().unwrap())
        .collect()
}

fn rows(interrupted: bool) -> Vec<[Vec<u32>; 3]> {
    let text = std::fs::read_to_string(golden().join("rows.jsonl")).unwrap();
    let row = |line: &str| {
        let row: Row = serde_json::from_str(line).unwrap();
        let mut prompt = ids(&row.prompt);
        if interrupted {
            prompt.insert(1, END);
        }
        let ended = |text: &str| [ids(text), vec![END]].concat();
        [prompt, ended(&row.chosen), ended(&row.rejected)]
    };
    text.lines().map(row).collect()
}

/// The rows that TRL keeps, cut where it cuts.
fn objective(run: &Run) -> Objective {
    let most = run.settings.max_length;
    let rows = rows(run.interrupted_prompts).into_iter();
    match run.trainer.as_str() {
        "sft" => {
            let text = |[prompt, chosen, _]: [Vec<u32>; 3]| {
                let mut learned = [vec![false; prompt.len()], vec![true; chosen.len()]].concat();
                let mut ids = [prompt, chosen].concat();
                ids.truncate(most);
                learned.truncate(most);
                learned.contains(&true).then_some(Text { ids, learned })
            };
            Objective::sft(rows.filter_map(text).collect())
        }
        "reward" => {
            let pair = |[prompt, chosen, rejected]: [Vec<u32>; 3]| {
                let chosen = [prompt.clone(), chosen].concat();
                Compared::pair(chosen, [prompt, rejected].concat(), None)
            };
            let fits = |pair: &Compared| pair.texts.iter().all(|ids| ids.len() <= most);
            let config = PairwiseRewardConfig {
                centering: run.settings.center_rewards_coefficient.unwrap_or(0.0),
            };
            Objective::reward(rows.map(pair).filter(fits).collect(), config)
        }
        _ => {
            let pair = |[prompt, mut chosen, mut rejected]: [Vec<u32>; 3]| {
                let left = most.checked_sub(prompt.len()).filter(|left| *left > 0)?;
                chosen.truncate(left);
                rejected.truncate(left);
                Some(Pair {
                    chosen: Text::answer(&prompt, &chosen),
                    rejected: Text::answer(&prompt, &rejected),
                })
            };
            let config = DpoConfig {
                beta: run.settings.beta.unwrap(),
                ..Default::default()
            };
            let weights = run.settings.loss_weights.unwrap_or([1.0, 0.0]);
            Objective::dpo(rows.filter_map(pair).collect(), config, weights)
        }
    }
}

pub fn fit(settings: &Settings) -> Fit {
    Fit {
        max_steps: Some(settings.max_steps),
        batch: settings.per_device_train_batch_size,
        accumulation: settings.gradient_accumulation_steps,
        learning_rate: Some(settings.learning_rate),
        lr_scheduler_type: settings.lr_scheduler_type,
        warmup_steps: settings.warmup_steps,
        weight_decay: settings.weight_decay,
        max_grad_norm: settings.max_grad_norm,
        order: match settings.train_sampling_strategy.as_str() {
            "random" => Order::Random {
                seed: settings.seed,
            },
            _ => Order::Sequential,
        },
        seed: settings.seed,
        ..Fit::default()
    }
}

/// A number against TRL's, to 10⁻⁴ of it and beyond that `more`.
pub fn near(what: &str, ours: f64, theirs: f64, more: f64) {
    let bound = 1e-4 * theirs.abs() + more;
    assert!(
        (ours - theirs).abs() <= bound,
        "{what}: {ours} against {theirs}"
    );
}

fn compare(run: &Run, ours: &Logged, theirs: &HashMap<String, f64>) {
    let named = |what: &str| format!("{}, step {}: {what}", run.name, ours.step);
    near(&named("loss"), ours.loss, theirs["loss"], 0.0);
    near(
        &named("gradient norm"),
        ours.grad_norm,
        theirs["grad_norm"],
        0.0,
    );
    near(
        &named("learning rate"),
        ours.learning_rate,
        theirs["learning_rate"],
        1e-12,
    );
    let Some(rewards) = ours.rewards else {
        assert_eq!(run.trainer, "sft");
        return;
    };
    if run.trainer == "reward" {
        near(&named("margin"), rewards.margin, theirs["margin"], 1e-6);
        near(
            &named("accuracy"),
            rewards.accuracy,
            theirs["accuracy"],
            1e-6,
        );
        return;
    }
    // rewards are small differences of large sums
    let beta = run.settings.beta.unwrap();
    let sums = theirs["logps/chosen"].abs() + theirs["logps/rejected"].abs();
    let more = 1e-6 * beta * sums;
    near(
        &named("reward"),
        rewards.chosen,
        theirs["rewards/chosen"],
        more,
    );
    near(
        &named("other reward"),
        rewards.rejected,
        theirs["rewards/rejected"],
        more,
    );
    near(
        &named("margin"),
        rewards.margin,
        theirs["rewards/margins"],
        more,
    );
    near(
        &named("accuracy"),
        rewards.accuracy,
        theirs["rewards/accuracies"],
        1e-6,
    );
}

/// Our name of a trained tensor, from TRL's.
fn our_name(theirs: &str) -> String {
    let name = theirs
        .replace("base_model.model.", "")
        .replace(".default.", ".");
    match name.contains("modules_to_save") {
        true => "score.weight".to_string(),
        false => name.replace(".modules_to_save", ""),
    }
}

pub fn final_weights(name: &str, decoder: &Decoder) {
    let bytes = std::fs::read(golden().join(format!("{name}.safetensors"))).unwrap();
    let theirs = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
    let ours: HashMap<String, Tensor> = decoder
        .vars()
        .into_iter()
        .map(|(name, var)| (name, var.as_tensor().clone()))
        .collect();
    assert_eq!(ours.len(), theirs.len(), "{name}");
    let run = name;
    let number = |t: Tensor| t.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
    for (name, theirs) in &theirs {
        let ours = ours
            .get(&our_name(name))
            .unwrap_or_else(|| panic!("{run}: {name}"));
        let far = number(
            (ours - theirs)
                .unwrap()
                .abs()
                .unwrap()
                .flatten_all()
                .unwrap()
                .max_all()
                .unwrap(),
        );
        let largest = number(
            theirs
                .abs()
                .unwrap()
                .flatten_all()
                .unwrap()
                .max_all()
                .unwrap(),
        );
        assert!(
            far <= 1e-4 * largest,
            "{run}: {name} is {far:e} off of {largest}"
        );
    }
}

#[test]
fn every_step_is_that_of_trl() {
    let text = std::fs::read_to_string(golden().join("runs.json")).unwrap();
    let runs: Runs = serde_json::from_str(&text).unwrap();
    assert_eq!(runs.runs.len(), 13);
    for run in &runs.runs {
        let folder = golden().join(&run.checkpoint);
        let load = Load {
            trained: !run.adapter,
            ..Load::default()
        };
        let mut decoder = Decoder::load(&folder, &load).unwrap();
        if run.adapter {
            let start = match run.trainer.as_str() {
                "reward" => "reward_adapter",
                _ => "adapter",
            };
            let left_out = decoder
                .load_adapter(DEFAULT, golden().join(start), Strictness::Strict)
                .unwrap();
            assert!(left_out.is_empty());
        }
        let reference = match run.adapter {
            true => Reference::AdapterOff,
            false => {
                let frozen = Decoder::load(&folder, &Load::default()).unwrap();
                Reference::Frozen(Box::new(frozen))
            }
        };
        let objective = objective(run);
        let mut fitting =
            Fitting::new(&decoder, &objective, reference, &fit(&run.settings)).unwrap();
        let mut logged = Vec::new();
        fitting
            .run(&mut decoder, 0, |line| {
                logged.push(line.clone());
                Ok(())
            })
            .unwrap();
        assert_eq!(logged.len(), run.steps.len(), "{}", run.name);
        for (ours, theirs) in logged.iter().zip(&run.steps) {
            compare(run, ours, theirs);
        }
        final_weights(&run.name, &decoder);
    }
}
