//! PPO: a step by hand, its parts, what it refuses.

use super::super::trl::near;
use super::super::whole_runs::{ada_lora, keys};
use super::{lines, refused, tiny, whole};
use candle_align::decoder::Decoder;
use candle_align::ops::Segments;
use candle_align::peft::TaskType;
use candle_core::{DType, Device, Var};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use train::checkpoint::load;
use train::checkpoint::online::ppo::critic::Critic;
use train::checkpoint::online::ppo::lesson::mini_batch;
use train::checkpoint::online::prompts::prepare;
use train::checkpoint::order::Order;
use train::checkpoint::settings::{Learned, Settings};

/// The answers to each prompt, the same for all: the last one has no end.
fn answers() -> [Vec<u32>; 4] {
    [
        vec![5, 2],
        vec![6, 7, 8, 2],
        vec![8, 9, 2],
        vec![9, 9, 9, 9, 9, 9],
    ]
}

/// Four steps: two rounds of two epochs.
fn by_hand(out: &Path, steps: usize) -> Settings {
    let given = out.join("given.jsonl");
    let line = json!({ "completions": answers() }).to_string();
    fs::write(&given, format!("{line}\n").repeat(4)).unwrap();
    let file = format!("online.completions_file={}", given.display());
    let steps_set = format!("fit.max_steps={steps}");
    let sets = [
        "held_out=0",
        "fit.lr_scheduler_type=constant",
        "online.beta=0.3",
        "online.epsilon=0.01",
        "online.ppo.num_ppo_epochs=2",
        "online.ppo.gamma=0.9",
        "online.ppo.lam=0.8",
        "online.ppo.vf_coef=0.7",
        "online.ppo.cliprange_value=0.05",
        "online.ppo.whiten_rewards=true",
        "online.ppo.missing_eos_penalty=0.5",
        &file,
        &steps_set,
    ];
    let mut settings = tiny(Learned::Ppo, &out.join(format!("{steps}")), &sets);
    settings.fit.order = Order::Sequential;
    settings.adapter = keys(json!({"r": 2, "lora_alpha": 4}));
    settings
}

/// The log-probability of each token of an answer, from the logits, with one row at a time.
pub fn log_probs(model: &Decoder, prompt: &[u32], answer: &[u32]) -> Vec<f64> {
    at_temperature(model, prompt, answer, 1.0)
}

pub fn at_temperature(
    model: &Decoder,
    prompt: &[u32],
    answer: &[u32],
    temperature: f64,
) -> Vec<f64> {
    let tokens = [prompt, answer].concat();
    let (segments, tokens) = Segments::from_tokens(&[tokens]).unwrap();
    let hidden = model.hidden(&tokens, &segments).unwrap();
    let logits = model.logits(&hidden).unwrap().to_dtype(DType::F64).unwrap();
    let logits = logits.to_vec2::<f64>().unwrap();
    let of = |(at, id): (usize, &u32)| {
        let row = &logits[prompt.len() - 1 + at];
        let sum: f64 = row.iter().map(|x| (x / temperature).exp()).sum();
        row[*id as usize] / temperature - sum.ln()
    };
    answer.iter().enumerate().map(of).collect()
}

struct Policy {
    decoder: Decoder,
    critic: Critic,
}

impl Policy {
    /// The models after so many steps.
    fn after(out: &Path, steps: usize) -> Self {
        let settings = by_hand(out, steps.max(1));
        let (decoder, _) = load::start(&settings).unwrap();
        let critic = Critic::of(&settings, &decoder).unwrap().unwrap();
        if steps > 0 {
            whole(&settings);
            let path = out.join(format!(
                "{steps}/checkpoints/step-{steps:06}/trained.safetensors"
            ));
            let trained = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
            let vars: Vec<(String, Var)> = [decoder.vars(), critic.vars()].concat();
            assert_eq!(vars.len(), trained.len());
            for (name, var) in vars {
                var.set(&trained[&name]).unwrap();
            }
        }
        Self { decoder, critic }
    }

    /// V before each token: the score of the text up to it, by a classifier with the weights of the value model.
    fn values(&self, prompt: &[u32], answer: &[u32]) -> Vec<f64> {
        let mut config = self.decoder.adapter_config("default").unwrap().clone();
        config.task = Some(TaskType::SequenceClassification);
        let rng = &mut StdRng::seed_from_u64(0);
        let mut model = self.decoder.clone().into_classifier(1, rng).unwrap();
        model.add_adapter("other", &config, rng).unwrap();
        let weights: BTreeMap<String, Var> = self.critic.vars().into_iter().collect();
        assert_eq!(weights.len(), model.vars().len());
        for (name, var) in model.vars() {
            var.set(weights[&format!("value.{name}")].as_tensor())
                .unwrap();
        }
        let before = (0..answer.len()).map(|t| {
            let text = [prompt, &answer[..t]].concat();
            let (segments, tokens) = Segments::from_tokens(&[text]).unwrap();
            let hidden = model.hidden(&tokens, &segments).unwrap();
            let score = model.scores(&hidden, &tokens, &segments).unwrap();
            f64::from(score.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0])
        });
        before.collect()
    }
}

fn mean(all: &[f64]) -> f64 {
    all.iter().sum::<f64>() / all.len() as f64
}

fn deviation(all: &[f64]) -> f64 {
    let mu = mean(all);
    let squares: Vec<f64> = all.iter().map(|x| (x - mu).powi(2)).collect();
    (mean(&squares) + 1e-8).sqrt()
}

/// The fourth step is the second on its answers, and the policy is no longer the reference: every term counts.
#[test]
fn a_step_is_the_equations_with_its_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    let (start, old, new) = (
        Policy::after(out, 0),
        Policy::after(out, 2),
        Policy::after(out, 3),
    );
    let settings = by_hand(out, 4);
    whole(&settings);
    let log = lines(&out.join("4"), "metrics.jsonl");
    let prompts = prepare(&settings, &start.decoder, Default::default())
        .unwrap()
        .train;

    // the second round asks the third and the fourth prompt
    let rows: Vec<(&[u32], Vec<u32>)> = prompts[2..4]
        .iter()
        .flat_map(|prompt| answers().map(|answer| (prompt.ids.as_slice(), answer)))
        .collect();
    let of = |policy: &Policy| -> Vec<Vec<f64>> {
        rows.iter()
            .map(|(x, y)| log_probs(&policy.decoder, x, y))
            .collect()
    };
    let values = |policy: &Policy| -> Vec<Vec<f64>> {
        rows.iter().map(|(x, y)| policy.values(x, y)).collect()
    };
    let (log_ref, log_old, log_new) = (of(&start), of(&old), of(&new));
    let (v_old, v_new) = (values(&old), values(&new));

    // rₜ = −β (log π − log π_ref) + r [t is the last], whitened with its mean
    let mut rewards: Vec<Vec<f64>> = Vec::new();
    let mut kl = 0.0;
    for (row, (_, answer)) in rows.iter().enumerate() {
        let ended = answer.last() == Some(&2);
        let length = answer.len() as f64 - f64::from(ended);
        let score = 1.0 - (length - 3.0).abs() / 3.0 - if ended { 0.0 } else { 0.5 };
        let k: Vec<f64> = log_old[row]
            .iter()
            .zip(&log_ref[row])
            .map(|(a, b)| a - b)
            .collect();
        kl += k.iter().sum::<f64>();
        let mut r: Vec<f64> = k.iter().map(|k| -0.3 * k).collect();
        *r.last_mut().unwrap() += score;
        rewards.push(r);
    }
    let all = rewards.concat();
    let (mu, s) = (mean(&all), deviation(&all));
    rewards
        .iter_mut()
        .flatten()
        .for_each(|r| *r = (*r - mu) / s + mu);

    // Âₜ = δₜ + γλ Âₜ₊₁, δₜ = rₜ + γ Vₜ₊₁ − Vₜ;  R̂ₜ = Âₜ + Vₜ
    let (mut advantages, mut returns) = (Vec::new(), Vec::new());
    for (r, v) in rewards.iter().zip(&v_old) {
        let mut a = vec![0.0; r.len()];
        let (mut next_a, mut next_v) = (0.0, 0.0);
        for t in (0..r.len()).rev() {
            a[t] = r[t] + 0.9 * next_v - v[t] + 0.9 * 0.8 * next_a;
            (next_a, next_v) = (a[t], v[t]);
        }
        returns.push(a.iter().zip(v).map(|(a, v)| a + v).collect::<Vec<f64>>());
        advantages.push(a);
    }
    let all = advantages.concat();
    let (mu, s) = (mean(&all), deviation(&all));

    let (mut policy, mut value, mut clipped) = (Vec::new(), Vec::new(), 0.0);
    for row in 0..rows.len() {
        for t in 0..advantages[row].len() {
            let a = (advantages[row][t] - mu) / s;
            let ratio = (log_new[row][t] - log_old[row][t]).exp();
            policy.push((-a * ratio).max(-a * ratio.clamp(0.99, 1.01)));
            let stopped = a > 0.0 && ratio > 1.01 || a < 0.0 && ratio < 0.99;
            clipped += f64::from(u8::from(stopped));
            let (v, v_old, r) = (v_new[row][t], v_old[row][t], returns[row][t]);
            let near = v_old + (v - v_old).clamp(-0.05, 0.05);
            value.push(0.5 * (v - r).powi(2).max((near - r).powi(2)));
        }
    }
    let (policy, value, tokens) = (mean(&policy), mean(&value), policy.len() as f64);
    assert!(clipped > 0.0 && clipped < tokens, "{clipped} of {tokens}");
    let line = &log[3];
    let number = |name: &str| line[name].as_f64().unwrap();
    near("value loss", number("value_loss"), value, 1e-6);
    near("loss", number("loss"), policy + 0.7 * value, 1e-6);
    near("KL", number("kl"), kl / tokens, 1e-6);
    near("clipped", number("clipped"), clipped / tokens, 1e-9);
    assert!(number("kl").abs() > 1e-4, "{line}");
    // the first step on a round has a ratio of 1, which nothing clips
    assert_eq!(log[2]["clipped"], 0.0);
    assert_eq!(log[0]["kl"], 0.0);
}

#[test]
fn every_epoch_takes_each_answer_once_in_an_order_of_its_own() {
    let sets = [
        "online.ppo.num_ppo_epochs=2",
        "online.ppo.num_mini_batches=3",
    ];
    let settings = tiny(Learned::Ppo, Path::new(""), &sets);
    let units: Vec<Vec<usize>> = (0..8).map(|at| vec![at]).collect();
    assert_eq!(settings.steps_per_round(), 6);
    let epoch = |first: usize| -> Vec<Vec<Vec<usize>>> {
        (first..first + 3)
            .map(|step| mini_batch(&settings, &units, step))
            .collect()
    };
    let epochs: Vec<_> = [0, 3, 6].map(epoch).into();
    for parts in &epochs {
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 2]);
        let all: BTreeSet<Vec<usize>> = parts.concat().into_iter().collect();
        assert_eq!(all.len(), 8);
    }
    assert_ne!(epochs[0], epochs[1]);
    assert_ne!(epochs[0], epochs[2]);
    // answers may be fewer than parts
    assert_eq!(
        (0..3)
            .map(|step| mini_batch(&settings, &units[..1], step).len())
            .sum::<usize>(),
        1
    );
    assert!(mini_batch(&settings, &[], 0).is_empty());
}

#[test]
fn micro_batches_of_a_step_are_one_batch() {
    let run = |sets: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let all = [
            "held_out=0",
            "online.ppo.num_mini_batches=2",
            "fit.max_steps=8",
        ];
        let sets: Vec<&str> = all.iter().chain(sets).copied().collect();
        let mut settings = tiny(Learned::Ppo, dir.path(), &sets);
        settings.adapter = keys(json!({"r": 2, "lora_alpha": 4}));
        let summary = whole(&settings);
        assert_eq!(summary.answers_per_step, 8);
        // two rounds of sixteen answers
        assert_eq!(lines(dir.path(), "samples.jsonl").len(), 16);
        lines(dir.path(), "metrics.jsonl")
    };
    let one = run(&[]);
    for sets in [
        &["fit.batch=2", "fit.accumulation=4"][..],
        &["fit.max_tokens=15"],
    ] {
        for (a, b) in one.iter().zip(run(sets)) {
            for name in ["loss", "value_loss", "grad_norm"] {
                let (a, b) = (a[name].as_f64().unwrap(), b[name].as_f64().unwrap());
                near(&format!("{sets:?}: {name}"), b, a, 1e-5);
            }
        }
    }
}

#[test]
fn the_value_model_is_written_as_a_reward_model() {
    for adapted in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = tiny(Learned::Ppo, &dir.path().join("first"), &[]);
        settings.adapter = adapted.then(|| keys(json!({"r": 2}))).flatten();
        whole(&settings);
        let folder = dir.path().join("first/value");
        assert_eq!(folder.join("adapter_config.json").exists(), adapted);
        // and another run can read it as one
        let reward = json!([{ "reward_model": { "folder": folder } }]);
        let set = format!("online.rewards={reward}");
        whole(&tiny(Learned::Grpo, &dir.path().join("second"), &[&set]));
    }
}

#[test]
fn answers_that_are_masked_or_not_judged_teach_no_value() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, sets: &[&str]| {
        let settings = by_hand(dir.path(), 1);
        let out = Some(dir.path().join(name));
        let settings = Settings { out, ..settings };
        let settings = sets
            .iter()
            .fold(settings, |settings, set| settings.with(set).unwrap());
        whole(&settings);
        lines(&dir.path().join(name), "metrics.jsonl").remove(0)
    };
    let all = run("all", &[]);
    let ended = run("ended", &["online.mask_truncated_completions=true"]);
    assert_eq!(
        (all["learned"].as_u64(), ended["learned"].as_u64()),
        (Some(8), Some(6))
    );
    assert_ne!(all["value_loss"], ended["value_loss"]);
    // the penalty is for answers without an end alone
    let free = [
        "online.mask_truncated_completions=true",
        "online.ppo.missing_eos_penalty=null",
    ];
    assert_eq!(run("free", &free)["value_loss"], ended["value_loss"]);
    assert_ne!(
        run("none", &["online.ppo.missing_eos_penalty=null"])["value_loss"],
        all["value_loss"]
    );
}

#[test]
fn settings_out_of_range_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (set, part) in [
        (
            "online.ppo.num_ppo_epochs=0",
            "`online.ppo.num_ppo_epochs` must be at least 1, got 0",
        ),
        (
            "online.ppo.num_mini_batches=0",
            "`online.ppo.num_mini_batches` must be at least 1, got 0",
        ),
        (
            "online.ppo.vf_coef=-1",
            "`online.ppo.vf_coef` must be finite and >= 0, got -1",
        ),
        (
            "online.ppo.cliprange_value=0",
            "`online.ppo.cliprange_value` must be finite and > 0, got 0",
        ),
        (
            "online.ppo.gamma=1.1",
            "`online.ppo.gamma` must be in [0, 1], got 1.1",
        ),
        (
            "online.ppo.lam=-0.1",
            "`online.ppo.lam` must be in [0, 1], got -0.1",
        ),
        (
            "online.ppo.missing_eos_penalty=-2",
            "`online.ppo.missing_eos_penalty` must be finite and >= 0, got -2",
        ),
        (
            "online.num_iterations=2",
            "`online.num_iterations` is not read by `ppo`",
        ),
        ("online.delta=2", "`online.delta` is not read by `ppo`"),
        (
            "online.loss_type=grpo",
            "`online.loss_type` is not read by `ppo`",
        ),
        (
            "online.num_generations=0",
            "`online.num_generations` must be at least 1, got 0",
        ),
        (
            "online.num_generations=3",
            "times `online.ppo.num_mini_batches` is 8 answers a round",
        ),
        ("online.epsilon=1", "clip"),
    ] {
        let error = refused(&tiny(Learned::Ppo, &dir.path().join(set), &[set]));
        assert!(error.contains(part), "{set}: {error}");
    }
    let mut pruned = tiny(Learned::Ppo, &dir.path().join("pruned"), &[]);
    pruned.adapter = ada_lora();
    let error = refused(&pruned);
    assert!(
        error.contains("it must be one of LORA, IA3, VERA"),
        "{error}"
    );
    let error = refused(&tiny(Learned::Grpo, dir.path(), &["online.ppo.lam=0.9"]));
    assert!(
        error.contains("`online.ppo` is not read by `grpo`"),
        "{error}"
    );
}
