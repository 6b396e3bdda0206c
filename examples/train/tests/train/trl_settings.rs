//! Runs of TRL's supervised trainer with other arguments of Transformers, from the rows of a file:
//! `tests/golden/trl_settings_runs.py` wrote what they logged.

use super::online;
use super::trl::near;
use super::whole_runs::{ada_lora, completions, golden, lora, quiet, same, tiny, whole};
use candle_align::decoder::{Decoder, Load};
use candle_core::DType;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use train::checkpoint::order::Order;
use train::checkpoint::settings::{FreshAdapter, Learned, Settings};
use train::checkpoint::summary::Outcome;

#[derive(Deserialize)]
struct Runs {
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    name: String,
    settings: BTreeMap<String, Value>,
    final_norm: f64,
    steps: Vec<HashMap<String, f64>>,
}

/// TRL's settings here; every one is used.
fn settings(run: &Run, out: &Path) -> Settings {
    let mut settings = Settings {
        model: golden("model"),
        objective: Learned::Sft,
        data: completions(out),
        out: Some(out.to_path_buf()),
        held_out: 0.0,
        ..Settings::default()
    };
    if run.settings["train_sampling_strategy"] == "sequential" {
        settings.fit.order = Order::Sequential;
    }
    for (name, value) in &run.settings {
        let place = match name.as_str() {
            "per_device_train_batch_size" => "fit.batch".to_string(),
            "gradient_accumulation_steps" => "fit.accumulation".to_string(),
            "max_length" => name.clone(),
            // TRL's word for none
            "max_steps" if *value == -1 => continue,
            // as it is here, and the seed of every order is 42
            "seed" if *value == 42 => continue,
            "train_sampling_strategy" | "logging_steps" => continue,
            _ => format!("fit.{name}"),
        };
        settings = settings.with(&format!("{place}={value}")).unwrap();
    }
    settings
}

#[test]
fn every_step_is_that_of_trl() {
    let text = fs::read_to_string(golden("settings.json")).unwrap();
    let runs: Runs = serde_json::from_str(&text).unwrap();
    assert_eq!(runs.runs.len(), 4);
    for run in &runs.runs {
        let dir = tempfile::tempdir().unwrap();
        whole(&settings(run, dir.path()));
        let lines = online::lines(dir.path(), "metrics.jsonl");
        assert_eq!(lines.len(), run.steps.len(), "{}", run.name);
        for (ours, theirs) in lines.iter().zip(&run.steps) {
            let what = |what| format!("{}, step {}: {what}", run.name, ours["step"]);
            let number = |key: &str| ours[key].as_f64().unwrap();
            near(&what("loss"), number("loss"), theirs["loss"], 0.0);
            let (rate, norm) = ("learning_rate", "grad_norm");
            near(&what(norm), number(norm), theirs[norm], 0.0);
            assert!(
                (number(rate) - theirs[rate]).abs() < 1e-12,
                "{}",
                what(rate)
            );
        }
        let load = Load {
            trained: true,
            ..Load::default()
        };
        let decoder = Decoder::load(dir.path().join("model"), &load).unwrap();
        let square = |(_, var): &(String, candle_core::Var)| {
            let of = var.to_dtype(DType::F64).unwrap().sqr().unwrap();
            of.sum_all().unwrap().to_scalar::<f64>().unwrap()
        };
        let norm = decoder.vars().iter().map(square).sum::<f64>().sqrt();
        near(&format!("{}: weights", run.name), norm, run.final_norm, 0.0);
    }
}

fn with(settings: Settings, sets: &[&str]) -> Settings {
    sets.iter()
        .fold(settings, |settings, set| settings.with(set).unwrap())
}

fn refused(settings: &Settings) -> String {
    match quiet(settings, false, 0) {
        Err(error) => error.to_string(),
        Ok(outcome) => panic!("{outcome}"),
    }
}

/// 9 rows in micro-batches of 2 are 5 steps an epoch: 1.7 epochs are 9 steps.
#[test]
fn a_run_of_epochs_is_that_of_its_steps_and_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let of = |name: &str, adapter: Option<FreshAdapter>| tiny(Learned::Sft, adapter, &at(name));
    let epochs = |name: &str| {
        let sets = ["fit.max_steps=null", "fit.num_train_epochs=1.7"];
        with(of(name, lora()), &sets)
    };
    let summary = whole(&of("steps", lora()));
    assert_eq!((summary.train_rows, summary.steps), (9, 9));
    whole(&epochs("epochs"));
    same(&at("steps"), &at("epochs"), "epochs");

    let stopped = quiet(&epochs("stopped"), false, 6).unwrap();
    assert!(matches!(stopped, Outcome::Stopped { step: 6, of: 9, .. }));
    let mut other = epochs("stopped");
    other.fit.num_train_epochs = Some(2.0);
    let problem = quiet(&other, true, 0).err().unwrap().to_string();
    assert!(
        problem.contains("`fit.max_steps` is 10, and was 9 until step 6"),
        "{problem}"
    );
    let Outcome::Done(summary) = quiet(&epochs("stopped"), true, 0).unwrap() else {
        panic!("not done");
    };
    assert_eq!(summary.resumed_at, 6);
    same(&at("steps"), &at("stopped"), "stopped");
    // what it wrote starts the same run
    let written = Settings::read(&at("stopped").join("config.json")).unwrap();
    assert_eq!(written.fit.max_steps, Some(9));
    written.check().unwrap();

    // 4 steps an epoch
    let sets = [
        "fit.max_steps=null",
        "fit.num_train_epochs=1.7",
        "fit.dataloader_drop_last=true",
    ];
    let dropped = whole(&with(of("dropped", None), &sets));
    assert_eq!(dropped.steps, 7);
}

/// 9 prompts, two a round, four steps on the answers of a round.
#[test]
fn an_epoch_of_drawn_answers_is_all_steps_on_all_prompts() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["fit.max_steps=null", "online.num_iterations=4"];
    let mut settings = online::tiny(Learned::Grpo, dir.path(), &sets);
    settings.fit.num_train_epochs = Some(0.45);
    let summary = online::whole(&settings);
    // 0.45 of 16: the ninth prompt is left out, as by TRL's sampler
    assert_eq!((summary.train_prompts, summary.steps), (9, 8));
    let none = dir.path().join("none");
    let refused = |sets: &[&str]| online::refused(&online::tiny(Learned::Grpo, &none, sets));
    let problem = refused(&["fit.batch=40"]);
    assert!(
        problem.contains("a step takes 10 prompts, and there are 9"),
        "{problem}"
    );
    let problem = refused(&["fit.dataloader_drop_last=true"]);
    assert!(
        problem.contains("`fit.dataloader_drop_last` is for rows"),
        "{problem}"
    );
}

#[test]
fn wrong_settings_of_the_steps_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let says = |sets: &[&str], text: &str| {
        let problem = refused(&with(tiny(Learned::Sft, None, dir.path()), sets));
        assert!(problem.contains(text), "{problem}");
    };
    says(
        &["fit.num_train_epochs=2"],
        "`fit.max_steps` is 9 and `fit.num_train_epochs` 2: give one of them, and null for the other",
    );
    let null = "fit.max_steps=null";
    for wrong in ["0", "-1"] {
        says(
            &[null, &format!("fit.num_train_epochs={wrong}")],
            &format!("`fit.num_train_epochs` must be finite and > 0, got {wrong}"),
        );
    }
    says(
        &[null, "fit.num_train_epochs=1e300"],
        "`fit.num_train_epochs` must be > 0 and make less than 2^53 steps, got 1000",
    );
    says(
        &["fit.dataloader_drop_last=true", "fit.batch=10"],
        "`fit.dataloader_drop_last` leaves nothing to train on: there are 9 rows, and a micro-batch",
    );
    says(
        &["fit.adam_beta1=1"],
        "`fit.adam_beta1` must be in [0, 1), got 1",
    );
    says(
        &["fit.adam_beta2=-0.1"],
        "`fit.adam_beta2` must be in [0, 1), got -0.1",
    );
    says(
        &["fit.adam_epsilon=0"],
        "`fit.adam_epsilon` must be finite and > 0, got 0",
    );
    says(
        &[r#"fit.lr_scheduler_kwargs={"power": 2}"#],
        "`fit.lr_scheduler_kwargs` of `linear`: unknown field `power`",
    );
    // before the model is read, against the objective's own rate
    let mut least = with(
        tiny(Learned::Sft, None, dir.path()),
        &[
            "fit.learning_rate=null",
            "fit.lr_scheduler_type=cosine_with_min_lr",
            r#"fit.lr_scheduler_kwargs={"min_lr": 0.5}"#,
        ],
    );
    least.model = "nowhere".into();
    assert!(refused(&least).starts_with("`min_lr` of `fit.lr_scheduler_kwargs` must be"));
    // what Transformers has and a run here cannot follow
    let refused_type = tiny(Learned::Sft, None, dir.path()).with("fit.lr_scheduler_type=greedy");
    let problem = refused_type.unwrap_err().to_string();
    assert!(
        problem.contains("unknown variant `greedy`, expected one of `linear`, `cosine`"),
        "{problem}"
    );
    // AdaLoRA plans its pruning before the rows are read
    let sets = [null, "fit.num_train_epochs=1"];
    let planned = with(tiny(Learned::Sft, ada_lora(), dir.path()), &sets);
    assert!(refused(&planned).contains("give `fit.max_steps` in its place"));
    let told = ["fit.num_train_epochs=1.7", null, "adapter.total_step=9"];
    let told = with(tiny(Learned::Sft, ada_lora(), dir.path()), &told);
    assert_eq!(whole(&told).steps, 9);
}
