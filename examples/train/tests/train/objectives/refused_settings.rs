//! Settings that a loss refuses.

use super::Case;
use super::runs::{all, rows};
use indicatif::ProgressBar;
use serde_json::Value;
use train::checkpoint::run::run;

/// A reward model on pairs has another loss than on lists.
const PAIR: &str = r#"{"prompt": "One", "chosen": " two", "rejected": " 2"}"#;

/// The numbers in a part of the settings, each with its name.
fn numbers(name: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(name.to_string()),
        Value::Object(all) => all
            .iter()
            .for_each(|(key, value)| numbers(&format!("{name}.{key}"), value, found)),
        _ => {}
    }
}

/// A loss either takes a number, or the run ends by its name before anything is written.
#[test]
fn a_setting_that_a_loss_refuses_is_named_before_anything_is_written() {
    let mut refused = Vec::new();
    let each = all().into_iter().map(|(objective, sets)| {
        let rows = rows(&objective);
        (objective, sets, rows)
    });
    let on_pairs = ("reward".to_string(), Vec::new(), PAIR);
    for (objective, sets, rows) in each.chain([on_pairs]) {
        let sets: Vec<&str> = sets.iter().copied().chain(["fit.max_steps=1"]).collect();
        let case = Case::new(&objective, rows, &sets);
        let known = serde_json::to_value(&case.settings).unwrap();
        let mut own = Vec::new();
        let beside: &[&str] = match objective.as_str() {
            "sft" => &["eaft"],
            "reward" => &["ranked_reward"],
            "brio" | "expected_risk" | "conditional_sft" => &["sft"],
            _ => &[],
        };
        for place in [objective.as_str()].iter().chain(beside) {
            numbers(place, &known[place], &mut own);
        }
        let since = format!("since.{objective}");
        numbers(&since, &known["since"][&objective], &mut own);
        for name in own {
            // a number that is no value of the setting at all
            let Ok(settings) = case.settings.clone().with(&format!("{name}=-7")) else {
                continue;
            };
            let out = settings.out();
            match run(&settings, false, &ProgressBar::hidden(), &|_| false) {
                Ok(_) => std::fs::remove_dir_all(out).unwrap(),
                Err(error) => {
                    let error = error.to_string();
                    let what = format!("{objective} {name}: {error}");
                    assert!(error.starts_with(&format!("`{name}` ")), "{what}");
                    let written = ["config.json", "metrics.jsonl", "checkpoints/step-000001"];
                    for file in written {
                        assert!(!out.join(file).exists(), "{what}: {file}");
                    }
                    let must = error.starts_with(&format!("`{name}` must be "));
                    if must && error.ends_with("got -7") {
                        refused.push(name.clone());
                    }
                }
            }
        }
    }
    for name in [
        "dpo.beta",
        "sft.label_smoothing",
        "eaft.scale",
        "slic.delta",
        "reward.centering",
        "ranked_reward.margin",
        "c_rlft.loss.weighting.exponential.beta",
        "second_thoughts.insert",
        "since.kto.desirable_weight",
        "since.gkd.temperature",
        "since.wpo.beta",
        "since.rebel.eta",
    ] {
        assert!(refused.iter().any(|one| one == name), "{name}: {refused:?}");
    }
}
