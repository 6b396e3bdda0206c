//! Runs of TRL's GRPO and RLOO, step for step, with the answers given: `tests/golden/trl_online_runs.py` wrote what
//! they logged.

use super::super::trl::near;
use super::super::whole_runs::golden;
use super::{lines, whole};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use train::checkpoint::order::Order;
use train::checkpoint::settings::{Learned, Settings};

#[derive(Deserialize)]
struct Runs {
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    name: String,
    trainer: String,
    adapter: bool,
    settings: Map<String, Value>,
    final_norm: f64,
    steps: Vec<HashMap<String, f64>>,
}

/// TRL's settings here; every one is used.
fn settings(run: &Run, out: &Path) -> Settings {
    let mut settings = Settings {
        model: golden("model"),
        objective: match run.trainer.as_str() {
            "grpo" => Learned::Grpo,
            _ => Learned::Rloo,
        },
        data: golden("prompts.jsonl"),
        out: Some(out.to_path_buf()),
        adapter_dir: run.adapter.then(|| golden("adapter")),
        held_out: 0.0,
        ..Settings::default()
    };
    settings.fit.order = Order::Sequential;
    let mut set = |key: &str, value: &Value| {
        let old = std::mem::take(&mut settings);
        settings = old.with(&format!("{key}={value}")).unwrap();
    };
    for (name, value) in &run.settings {
        let place = match name.as_str() {
            "per_device_train_batch_size" => "fit.batch".to_string(),
            "gradient_accumulation_steps" => "fit.accumulation".to_string(),
            "max_steps" | "learning_rate" | "lr_scheduler_type" | "warmup_steps"
            | "weight_decay" | "max_grad_norm" => format!("fit.{name}"),
            // the order of the file, as above
            "shuffle_dataset" => continue,
            "seed" => "seed".to_string(),
            "logging_steps" => continue,
            _ => format!("online.{name}"),
        };
        set(&place, value);
    }
    let rewards = r#"[{"length": {"target": 4}}, {"contains": {"text": "t7"}}]"#;
    set("online.rewards", &serde_json::from_str(rewards).unwrap());
    let given = golden("completions.jsonl").display().to_string();
    set("online.completions_file", &given.into());
    settings
}

fn compare(run: &Run, ours: &Value, theirs: &HashMap<String, f64>) {
    let step = &ours["step"];
    let number = |key: &str| ours[key].as_f64();
    let check = |what: &str, ours: Option<f64>, key: &str, more: f64| {
        let Some(theirs) = theirs.get(key) else {
            return;
        };
        let ours = ours.unwrap_or_else(|| panic!("{}, step {step}: no {what}", run.name));
        near(
            &format!("{}, step {step}: {what}", run.name),
            ours,
            *theirs,
            more,
        );
    };
    // a loss is a small difference of large terms, whose advantages sum to 0
    check("loss", number("loss"), "loss", 2e-6);
    check("gradient norm", number("grad_norm"), "grad_norm", 1e-6);
    check("rate", number("learning_rate"), "learning_rate", 1e-12);
    check("reward", number("reward"), "reward", 1e-7);
    check("deviation", number("reward_std"), "reward_std", 1e-7);
    let each = &ours["rewards"];
    let of = |name: &str| each[name].as_f64();
    check("length", of("length"), "rewards/length/mean", 1e-7);
    check("contains", of("contains"), "rewards/contains/mean", 1e-7);
    check("size", number("length"), "completions/mean_length", 1e-6);
    check(
        "cut off",
        number("truncated"),
        "completions/clipped_ratio",
        1e-7,
    );
    // of the sum of rewards; RLOO counts after its KL, and GDPO other groups
    if run.trainer == "grpo"
        && run.name != "gdpo"
        && run.settings.get("scale_rewards") != Some(&"batch".into())
    {
        check(
            "equal groups",
            number("equal_groups"),
            "frac_reward_zero_std",
            1e-7,
        );
    }
    if run.trainer == "rloo" {
        check("KL", number("kl"), "kl", 2e-6);
    }
}

#[test]
fn every_step_on_given_answers_is_that_of_trl() {
    let text = fs::read_to_string(golden("online.json")).unwrap();
    let runs: Runs = serde_json::from_str(&text).unwrap();
    assert_eq!(runs.runs.len(), 19);
    let dir = tempfile::tempdir().unwrap();
    let mut kept = 0;
    for run in &runs.runs {
        let out = dir.path().join(&run.name);
        whole(&settings(run, &out));
        let ours = lines(&out, "metrics.jsonl");
        assert_eq!((ours.len(), run.steps.len()), (10, 10), "{}", run.name);
        for (ours, theirs) in ours.iter().zip(&run.steps) {
            compare(run, ours, theirs);
        }
        let trained = out.join("checkpoints/step-000010/trained.safetensors");
        let ours = candle_core::safetensors::load(trained, &Device::Cpu).unwrap();
        let square = |weight: &Tensor| number(&weight.sqr().unwrap().sum_all().unwrap());
        let norm = ours.values().map(square).sum::<f64>().sqrt();
        near(&format!("{}: weights", run.name), norm, run.final_norm, 0.0);
        let file = golden(&format!("online_{}.safetensors", run.name));
        if file.exists() {
            weights(&run.name, &ours, &file);
            kept += 1;
        }
    }
    assert_eq!(kept, 5);
}

fn number(t: &Tensor) -> f64 {
    t.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap()
}

fn weights(run: &str, ours: &HashMap<String, Tensor>, file: &Path) {
    let theirs = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    assert_eq!(ours.len(), theirs.len(), "{run}");
    for (name, theirs) in &theirs {
        let name = name
            .replace("base_model.model.", "")
            .replace(".default.", ".");
        let largest =
            |t: &Tensor| number(&t.abs().unwrap().flatten_all().unwrap().max_all().unwrap());
        let far = largest(&(&ours[&name] - theirs).unwrap());
        let bound = 1e-4 * largest(theirs);
        assert!(far <= bound, "{run}: {name} is {far:e} off");
    }
}
