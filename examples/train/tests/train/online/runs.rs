//! Whole runs: rewards rise, stopped runs go on, files can be read.

use super::super::whole_runs::{ada_lora, golden, keys, lora};
use super::{copy, lines, quiet, tiny, whole};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use train::checkpoint::settings::{Learned, Settings};
use train::checkpoint::summary::Outcome;

const ALL: [Learned; 5] = [
    Learned::Grpo,
    Learned::Rloo,
    Learned::Ppo,
    Learned::Raft,
    Learned::OnlineDpo,
];

/// The bytes of all results that do not depend on time or place.
fn results(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for name in ["metrics.jsonl", "samples.jsonl", "curves.svg"] {
        all.insert(name.to_string(), fs::read(out.join(name)).unwrap());
    }
    for folder in ["adapter", "model", "value", "checkpoints/step-000006"] {
        for entry in fs::read_dir(out.join(folder)).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_file() && name != "state.json" {
                all.insert(format!("{folder}/{name}"), fs::read(&path).unwrap());
            }
        }
    }
    all
}

fn same(a: &Path, b: &Path, what: &str) {
    let (a, b) = (results(a), results(b));
    assert_eq!(
        a.keys().collect::<Vec<_>>(),
        b.keys().collect::<Vec<_>>(),
        "{what}"
    );
    for (name, bytes) in &a {
        assert!(*bytes == b[name], "{what}: {name} differs");
    }
}

#[test]
fn a_run_has_its_results() {
    for objective in ALL {
        let dir = tempfile::tempdir().unwrap();
        let mut sets = vec!["fit.max_tokens=20"];
        // as many rounds as steps, as the others have
        if objective == Learned::Ppo {
            sets.push("online.ppo.num_ppo_epochs=1");
        }
        let mut settings = tiny(objective, dir.path(), &sets);
        settings.adapter = keys(json!({"r": 2, "lora_alpha": 4}));
        let summary = whole(&settings);
        let out = dir.path();
        assert_eq!((summary.train_prompts, summary.held_out_prompts), (9, 3));
        assert_eq!(summary.answers_per_step, 8);
        for file in [
            "config.json",
            "curves.svg",
            "summary.json",
            "adapter/adapter_model.safetensors",
        ] {
            assert!(out.join(file).exists(), "{objective}: {file}");
        }
        assert_eq!(Settings::read(&out.join("config.json")).unwrap(), settings);
        let metrics = lines(out, "metrics.jsonl");
        let of = |split: &str| metrics.iter().filter(|line| line["split"] == split).count();
        assert_eq!((of("train"), of("held_out")), (6, 3), "{objective}");
        for line in &metrics {
            let reward = line["reward"].as_f64().unwrap();
            let one = line["rewards"]["length"].as_f64().unwrap();
            assert!((reward - one).abs() < 1e-12, "{line}");
            if line["split"] == "train" {
                let loss = line["loss"].as_f64();
                assert!(loss.is_some_and(f64::is_finite), "{objective}: {line}");
            } else {
                assert!(line["reward_error"].as_f64().is_some(), "{line}");
            }
        }
        // 6 steps of 8 answers (9 prompts: one is left out of each epoch), 3 evaluations of 3
        let samples = lines(out, "samples.jsonl");
        let drawn = samples.iter().filter(|line| line["split"] == "train");
        let rounds = 6 * 2 * 4;
        assert_eq!(drawn.count(), rounds, "{objective}");
        assert_eq!(samples.len(), rounds + 9, "{objective}");
        for line in samples.iter().filter(|line| line["split"] == "train") {
            let prompt = line["prompt"].as_str().unwrap();
            assert!(prompt.starts_with('t'), "{line}");
            let role = line.get("role").is_some();
            let advantage = line.get("advantage").is_some();
            let by_advantage = matches!(objective, Learned::Grpo | Learned::Rloo | Learned::Ppo);
            assert_eq!(advantage, by_advantage, "{line}");
            assert!(!(role && by_advantage), "{line}");
        }
        let times = lines(out, "times.jsonl");
        assert_eq!(times.len(), 6);
        for part in ["generation", "scoring", "update"] {
            assert!(
                times
                    .iter()
                    .all(|line| line[part].as_f64().is_some_and(|t| t >= 0.0))
            );
        }
        let shown = summary.to_string();
        for part in [
            "s to draw",
            "s to score",
            "s to learn",
            "held out",
            "first and last quarter",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
    }
}

#[test]
fn the_reward_rises() {
    for objective in ALL {
        let dir = tempfile::tempdir().unwrap();
        let mut sets = vec![
            "held_out=0",
            "fit.max_steps=30",
            "fit.batch=48",
            "fit.learning_rate=0.02",
            "fit.lr_scheduler_type=constant",
            r#"online.rewards=[{"contains": {"text": "t7"}}]"#,
        ];
        if objective == Learned::Ppo {
            sets.push("online.ppo.num_ppo_epochs=2");
        }
        let summary = whole(&tiny(objective, dir.path(), &sets));
        let [first, last] = summary.drawn.unwrap();
        assert!(last > first + 0.2, "{objective}: {first} → {last}");
    }
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bytes() {
    let cases: [(Learned, &[&str], bool); 7] = [
        (Learned::Grpo, &["online.beta=0.1"], true),
        (
            Learned::Grpo,
            &["online.num_iterations=2", "save_every=2"],
            false,
        ),
        (Learned::Rloo, &["online.sample_batch=3"], true),
        (Learned::Raft, &[], false),
        (Learned::Ppo, &["online.ppo.num_ppo_epochs=2"], true),
        (
            Learned::Ppo,
            &[
                "online.ppo.num_ppo_epochs=1",
                "online.ppo.num_mini_batches=2",
            ],
            false,
        ),
        (Learned::OnlineDpo, &["online.num_generations_eval=2"], true),
    ];
    for (objective, sets, adapted) in cases {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str| {
            let mut settings = tiny(objective, &dir.path().join(name), sets);
            settings.adapter = adapted.then(lora).flatten();
            settings
        };
        let what = format!("{objective} {sets:?}");
        whole(&of("whole"));
        for stop in [1, 3, 5] {
            let name = format!("stopped {stop}");
            let at = match quiet(&of(&name), false, stop).unwrap() {
                Outcome::Stopped { step, of: 6, .. } => Some(step),
                // in the last round, which is finished
                Outcome::Online(_) => None,
                other => panic!("{other}"),
            };
            let rounds = of("").steps_per_round() == 2;
            match (rounds, stop) {
                (true, 5) => assert_eq!(at, None, "{what}"),
                (true, _) => assert_eq!(at, Some(stop + 1), "{what}"),
                _ => assert_eq!(at, Some(stop), "{what}"),
            }
            if let Some(at) = at {
                // what a run that was killed later would have left
                for file in ["metrics.jsonl", "samples.jsonl", "times.jsonl"] {
                    let path = dir.path().join(&name).join(file);
                    let next = format!(r#"{{"split": "train", "step": {}}}"#, at + 1);
                    let text = fs::read_to_string(&path).unwrap();
                    fs::write(&path, format!("{text}{next}\n{{\"split\": \"tr")).unwrap();
                }
                let Outcome::Online(summary) = quiet(&of(&name), true, 0).unwrap() else {
                    panic!("{what}");
                };
                assert_eq!(summary.resumed_at, at);
            }
            assert_eq!(lines(&dir.path().join(&name), "times.jsonl").len(), 6);
            same(&dir.path().join("whole"), &dir.path().join(&name), &what);
        }
    }
}

#[test]
fn a_run_does_not_go_on_with_other_rewards_or_answers() {
    let dir = tempfile::tempdir().unwrap();
    let given = dir.path().join("given.jsonl");
    let line = json!({"completions": [[5, 2], [6, 7, 2], [8, 2], [9, 9, 9, 9, 9, 9]]}).to_string();
    fs::write(&given, format!("{line}\n").repeat(12)).unwrap();
    let file = format!("online.completions_file={}", given.display());
    let out = dir.path().join("out");
    let settings = tiny(Learned::Grpo, &out, &[&file]);
    assert!(matches!(
        quiet(&settings, false, 2).unwrap(),
        Outcome::Stopped { .. }
    ));
    let mut other = settings.clone();
    other = other
        .with(r#"online.rewards=[{"length": {"target": 4}}]"#)
        .unwrap();
    let error = quiet(&other, true, 0).unwrap_err().to_string();
    assert!(error.contains("`online.rewards` is"), "{error}");
    let text = fs::read_to_string(&given).unwrap();
    fs::write(&given, text.replace("[5,2]", "[4,2]")).unwrap();
    let error = quiet(&settings, true, 0).unwrap_err().to_string();
    assert!(
        error.contains("`completions_file` is not the file"),
        "{error}"
    );
}

#[test]
fn a_run_does_not_go_on_where_answers_end_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    copy(&golden("model"), &folder);
    let set = format!("model={}", folder.display());
    let settings = tiny(Learned::Grpo, &dir.path().join("out"), &[&set]);
    quiet(&settings, false, 2).unwrap();
    let path = folder.join("generation_config.json");
    fs::write(&path, r#"{"eos_token_id": [2, 7]}"#).unwrap();
    let error = quiet(&settings, true, 0).unwrap_err().to_string();
    assert!(error.contains("the rows are not those"), "{error}");
}

#[test]
fn files_for_people_may_be_gone() {
    let dir = tempfile::tempdir().unwrap();
    let settings = tiny(Learned::Grpo, dir.path(), &[]);
    quiet(&settings, false, 2).unwrap();
    for name in ["samples.jsonl", "times.jsonl"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    quiet(&settings, true, 0).unwrap();
    assert_eq!(lines(dir.path(), "times.jsonl").len(), 4);
}

#[test]
fn given_answers_are_taken_in_order_and_must_fit() {
    let dir = tempfile::tempdir().unwrap();
    let given = dir.path().join("given.jsonl");
    let run = |name: &str, lines: &[serde_json::Value]| {
        let lines: Vec<String> = lines
            .iter()
            .map(|one| json!({ "completions": one }).to_string() + "\n")
            .collect();
        fs::write(&given, lines.concat()).unwrap();
        let file = format!("online.completions_file={}", given.display());
        let sets = [
            "online.num_generations=2",
            "fit.batch=4",
            "fit.max_steps=2",
            "held_out=0",
            &file,
        ];
        let out = dir.path().join(name);
        quiet(&tiny(Learned::Grpo, &out, &sets), false, 0)
            .map(|_| super::lines(&out, "samples.jsonl"))
            .map_err(|error| error.to_string())
    };
    let text = |n: usize| json!([format!("t{n}"), [n, n + 1]]);
    let rows: Vec<_> = (10..14).map(text).collect();
    let samples = run("whole", &rows).unwrap();
    let said: Vec<&str> = samples
        .iter()
        .map(|line| line["completion"].as_str().unwrap())
        .collect();
    assert_eq!(
        said,
        [
            "t10", "t10 t11", "t11", "t11 t12", "t12", "t12 t13", "t13", "t13 t14"
        ]
    );
    // a text has an end, ids have one if it is there
    let cut: Vec<bool> = samples
        .iter()
        .map(|line| line["truncated"].as_bool().unwrap())
        .collect();
    assert_eq!(cut, [false, true, false, true, false, true, false, true]);
    let short = run("short", &rows[..3]).unwrap_err();
    assert!(
        short.contains("given.jsonl: has 3 lines, and the run asks 4 prompts"),
        "{short}"
    );
    // before anything is learned
    assert!(!dir.path().join("short/metrics.jsonl").exists());
    for (name, bad, part) in [
        (
            "one",
            json!([[5]]),
            "has 1 `completions`, and `online.num_generations` is 2",
        ),
        (
            "long",
            json!([[5], [5, 5, 5, 5, 5, 5, 5]]),
            "completion of 7 tokens",
        ),
        ("empty", json!([[5], []]), "completion of 0 tokens"),
        (
            "unknown",
            json!([[5], [99]]),
            "has the token 99, which the model lacks",
        ),
        (
            "fraction",
            json!([[5], [1.5]]),
            "neither texts nor lists of ids",
        ),
        ("number", json!([[5], 6]), "neither texts nor lists of ids"),
        (
            "behind",
            json!([[5], [2, 7, 8]]),
            "has a completion with 2 tokens behind its end",
        ),
    ] {
        let mut rows = rows.clone();
        rows[1] = bad;
        let error = run(name, &rows).unwrap_err();
        assert!(
            error.contains("given.jsonl:2: ") && error.contains(part),
            "{error}"
        );
    }
}

#[test]
fn a_step_that_teaches_nothing_moves_nothing() {
    // all rewards are equal: no best answer stands out, no advantage, no pair
    for objective in [Learned::Grpo, Learned::OnlineDpo] {
        let dir = tempfile::tempdir().unwrap();
        let sets = [
            "held_out=0",
            r#"online.rewards=[{"contains": {"text": "no such text"}}]"#,
        ];
        whole(&tiny(objective, dir.path(), &sets));
        for line in lines(dir.path(), "metrics.jsonl") {
            assert_eq!(line["equal_groups"], 1.0, "{line}");
            assert_eq!(line["grad_norm"], 0.0, "{objective}: {line}");
        }
    }
}

/// Answers to 12 prompts: 4 to each, all alike for the first two prompts.
fn alike_at_first(path: &Path) {
    let line = |n: usize| match n < 2 {
        true => json!([[5, 2], [5, 2], [5, 2], [5, 2]]),
        false => json!([[5, 2], [6, 7, 2], [8, 2], [9, 9, 9, 9]]),
    };
    let lines = (0..12).map(|n| json!({"completions": line(n)}).to_string() + "\n");
    fs::write(path, lines.collect::<String>()).unwrap();
}

#[test]
fn a_step_that_teaches_nothing_leaves_the_ranks_of_adalora_alone() {
    // all alike: no pair
    let none = r#"online.rewards=[{"contains": {"text": "no such text"}}]"#;
    let dir = tempfile::tempdir().unwrap();
    let given = dir.path().join("given.jsonl");
    let file = format!("online.completions_file={}", given.display());
    let cut = json!({"completions": [[5], [6], [7], [8]]}).to_string() + "\n";
    let sequential = "fit.order=sequential";
    let (masked, held) = ("online.mask_truncated_completions=true", "held_out=0");
    for (name, objective, sets, answers) in [
        ("alike", Learned::OnlineDpo, vec![held, none], None),
        (
            "cut off",
            Learned::Raft,
            vec![held, masked, &file],
            Some(cut.repeat(12)),
        ),
        (
            "at first",
            Learned::OnlineDpo,
            vec![held, sequential, &file],
            None,
        ),
    ] {
        alike_at_first(&given);
        if let Some(answers) = answers {
            fs::write(&given, answers).unwrap();
        }
        let out = dir.path().join(name);
        let mut settings = tiny(objective, &out, &sets);
        settings.adapter = ada_lora();
        whole(&settings);
        for line in lines(&out, "metrics.jsonl") {
            let taught = name == "at first" && line["step"] != 1;
            let norm = line["grad_norm"].as_f64().unwrap();
            assert_eq!(norm > 0.0, taught, "{name}: {line}");
            assert_eq!(line.get("penalty").is_some(), taught, "{name}: {line}");
            assert!(line["learning_rate"].as_f64().unwrap() > 0.0, "{line}");
        }
    }
}
