//! Runs of TRL's trainers for the objectives since the survey, step for step and from the rows of a file:
//! `tests/golden/trl_since_runs.py` wrote what they logged.

use super::trl::{DEFAULT, Run, Runs, final_weights, fit, golden, near};
use candle_align::decoder::{Decoder, Load};
use candle_align::peft::Strictness;
use candle_core::DType;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use train::checkpoint::fit::{Fitting, Logged};
use train::checkpoint::objective::Reference;
use train::checkpoint::prepare::prepare;
use train::checkpoint::settings::Settings;

/// A run, our name of its objective, and its settings here.
const RUNS: [(&str, &str, &[&str]); 35] = [
    ("ipo", "ipo", &["since.ipo.log_ratio=mean"]),
    (
        "ipo_other",
        "ipo",
        &["since.ipo.log_ratio=mean", "since.ipo.beta=0.5"],
    ),
    ("kto", "kto", &[]),
    (
        "kto_pairs",
        "kto",
        &[r#"since.kto={"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.5}"#],
    ),
    (
        "simpo",
        "simpo",
        &[r#"since.simpo={"beta": 2, "margin": {"gamma": 0.5}}"#],
    ),
    (
        "simpo_cpo",
        "simpo",
        &[r#"since.simpo={"beta": 0.1, "margin": {"gamma": 0.5}, "cpo_alpha": 1}"#],
    ),
    (
        "orpo",
        "orpo",
        &[r#"since.orpo={"likelihood": "micro_batch", "covers": "prompt_and_answer"}"#],
    ),
    (
        "orpo_other",
        "orpo",
        &[
            r#"since.orpo={"lambda": 0.5, "likelihood": "micro_batch", "covers": "prompt_and_answer"}"#,
        ],
    ),
    ("robust", "robust_dpo", &["since.robust_dpo.flip_rate=0.2"]),
    ("apo_zero", "apo_zero", &[]),
    ("hinge", "hinge_dpo", &["since.hinge_dpo.beta=1"]),
    ("nca", "nca_pair", &[]),
    (
        "apo_zero_unpaired",
        "apo_zero_unpaired",
        &["since.apo_zero_unpaired.undesirable_weight=2"],
    ),
    ("apo_down", "apo_down", &[]),
    ("exo", "exo_pair", &[]),
    ("bco_pair", "bco_pair", &[]),
    ("aot", "aot", &["since.aot.label_smoothing=0.1"]),
    ("aot_unpaired", "aot_unpaired", &[]),
    ("discopop", "discopop", &[]),
    (
        "norm",
        "length_normalized_dpo",
        &["since.length_normalized_dpo.beta=0.5"],
    ),
    (
        "f_dpo",
        "f_dpo",
        &[r#"since.f_dpo={"beta": 0.2, "divergence": "jensen_shannon"}"#],
    ),
    (
        "hinge_forward",
        "hinge_dpo",
        &["since.divergence=forward_kl"],
    ),
    ("ld", "ld_dpo", &["since.ld_dpo.alpha=0.3"]),
    ("wpo", "wpo", &[]),
    (
        "rpo",
        "rpo",
        &[r#"since.rpo={"alpha": 0.5, "likelihood": "micro_batch"}"#],
    ),
    (
        "cpo",
        "cpo",
        &[r#"since.cpo={"label_smoothing": 0.1, "likelihood": "micro_batch"}"#],
    ),
    (
        "alpha_po",
        "alpha_po",
        &[r#"since.alpha_po.margin={"gamma": 0.5}"#],
    ),
    ("dft", "sft", &["sft_form=dft"]),
    (
        "tpo",
        "tpo",
        &[r#"since.tpo={"likelihood": "micro_batch"}"#],
    ),
    (
        "tpo_other",
        "tpo",
        &[
            r#"since.tpo={"beta": 0.1, "alpha": 0.5, "label_smoothing": 0.1, "likelihood": "micro_batch"}"#,
        ],
    ),
    (
        "tpo_l",
        "tpo",
        &[
            r#"since.tpo={"beta": 2, "alpha": 0.3, "margin": {"gamma": 0.5}, "log_prob": "mean", "likelihood": "micro_batch"}"#,
        ],
    ),
    ("gkd", "gkd", &[]),
    (
        "gkd_share",
        "gkd",
        &[r#"since.gkd.direction={"jensen_shannon": {"weight": 0.1}}"#],
    ),
    ("gkd_forward", "gkd", &["since.gkd.direction=forward"]),
    ("gkd_reverse", "gkd", &["since.gkd.direction=reverse"]),
];

/// The rows that TRL's trainer was given.
fn rows(run: &str, dir: &Path) -> PathBuf {
    match run {
        "kto" | "apo_zero_unpaired" => golden().join("labeled.jsonl"),
        "tpo" | "tpo_other" | "tpo_l" => golden().join("triples.jsonl"),
        _ if run == "dft" || run.starts_with("gkd") => {
            let text = fs::read_to_string(golden().join("rows.jsonl")).unwrap();
            let row = |line: &str| {
                let row: Value = serde_json::from_str(line).unwrap();
                json!({"prompt": row["prompt"], "completion": row["chosen"]}).to_string() + "\n"
            };
            let path = dir.join("completions.jsonl");
            fs::write(&path, text.lines().map(row).collect::<String>()).unwrap();
            path
        }
        _ => golden().join("rows.jsonl"),
    }
}

fn compare(run: &Run, ours: &Logged, theirs: &HashMap<String, f64>) {
    let named = |what: &str| format!("{}, step {}: {what}", run.name, ours.step);
    near(&named("loss"), ours.loss, theirs["loss"], 0.0);
    let of = (ours.grad_norm, theirs["grad_norm"]);
    near(&named("gradient norm"), of.0, of.1, 0.0);
    let of = (ours.learning_rate, theirs["learning_rate"]);
    near(&named("learning rate"), of.0, of.1, 1e-12);
    // rewards are small differences of large sums
    let sums =
        ["logps/chosen", "logps/rejected"].map(|key| theirs.get(key).map_or(0.0, |x| x.abs()));
    let more = 1e-6 * run.settings.beta.unwrap_or(1.0) * (sums[0] + sums[1]);
    // TRL multiplies the means of ORPO by β
    let unit = match run.name.starts_with("orpo") {
        true => run.settings.beta.unwrap(),
        false => 1.0,
    };
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    if let Some(rewards) = ours.rewards {
        let all = [rewards.chosen, rewards.rejected, rewards.margin];
        found.extend(all.map(|reward| Some(unit * reward)));
        found.push(Some(rewards.accuracy));
        expected.extend(["chosen", "rejected", "margins", "accuracies"]);
    } else if let Some(labels) = ours.labels {
        found.extend([labels.chosen, labels.rejected, labels.margin]);
        expected.extend(["chosen", "rejected", "margins"]);
        // a log-ratio, without β
        let more = 1e-6 * (sums[0] + sums[1]);
        near(&named("baseline"), labels.baseline, theirs["kl"], more);
    } else {
        assert!(run.name == "dft" || run.name.starts_with("gkd"));
    }
    for (key, found) in expected.iter().zip(found) {
        let theirs = theirs.get(&format!("rewards/{key}"));
        assert_eq!(found.is_some(), theirs.is_some(), "{}", named(key));
        if let (Some(found), Some(theirs)) = (found, theirs) {
            near(&named(key), found, *theirs, more);
        }
    }
}

#[test]
fn every_step_of_the_objectives_since_is_that_of_trl() {
    let text = fs::read_to_string(golden().join("since.json")).unwrap();
    let runs: Runs = serde_json::from_str(&text).unwrap();
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(runs.runs.len(), RUNS.len());
    let mut kept = 0;
    for (run, (name, objective, sets)) in runs.runs.iter().zip(RUNS) {
        assert_eq!(run.name, name);
        let folder = golden().join(&run.checkpoint);
        let mut settings = Settings {
            model: folder.clone(),
            data: rows(name, dir.path()),
            max_length: Some(run.settings.max_length),
            held_out: 0.0,
            fit: fit(&run.settings),
            ..Settings::default()
        };
        let first = format!("objective={objective}");
        for set in [first.as_str()].iter().chain(sets) {
            settings = settings.with(set).unwrap();
        }
        let teacher = (objective == "gkd").then(|| golden().join("model_trap"));
        settings.teacher = teacher.clone();
        settings.check().unwrap();
        let load = Load {
            trained: !run.adapter,
            ..Load::default()
        };
        let mut decoder = Decoder::load(&folder, &load).unwrap();
        let mut reference = Reference::AdapterOff;
        match run.adapter {
            true => {
                let start = golden().join("adapter");
                let left_out = decoder.load_adapter(DEFAULT, start, Strictness::Strict);
                assert!(left_out.unwrap().is_empty());
            }
            false => {
                let frozen = Decoder::load(&folder, &Load::default()).unwrap();
                reference = Reference::Frozen(Box::new(frozen));
            }
        }
        if let Some(teacher) = teacher {
            let frozen = Decoder::load(&teacher, &Load::default()).unwrap();
            reference = Reference::Frozen(Box::new(frozen));
        }
        let rows = prepare(&settings, &decoder, Default::default()).unwrap();
        let mut fitting = Fitting::new(&decoder, &rows.train, reference, &settings.fit).unwrap();
        let mut steps = run.steps.iter();
        fitting
            .run(&mut decoder, 0, |line| {
                compare(run, line, steps.next().unwrap());
                Ok(())
            })
            .unwrap();
        assert_eq!(steps.count(), 0, "{name}");
        let square = |(_, var): &(String, candle_core::Var)| {
            let sum = var.sqr().unwrap().sum_all().unwrap();
            sum.to_dtype(DType::F64)
                .unwrap()
                .to_scalar::<f64>()
                .unwrap()
        };
        let norm = decoder.vars().iter().map(square).sum::<f64>().sqrt();
        near(&format!("{name}: weights"), norm, run.final_norm, 0.0);
        let file = format!("since_{name}");
        if golden().join(format!("{file}.safetensors")).exists() {
            final_weights(&file, &decoder);
            kept += 1;
        }
    }
    assert_eq!(kept, 12);
}
