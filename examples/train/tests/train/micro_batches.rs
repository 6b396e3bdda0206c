//! Rows that go through the model in parts: loss and gradient are those of the whole micro-batch.

use super::whole_runs::{lora, quiet, tiny, whole};
use serde_json::Value;
use std::fs;
use std::path::Path;
use train::checkpoint::settings::{Learned, Settings};

/// The lines of the training steps.
pub fn lines(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|line: &Value| line["split"] == "train")
        .collect()
}

/// The same numbers in both, to `bound` of them and beyond that `bound`.
pub fn near(ours: &[Value], theirs: &[Value], bound: f64, what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (ours, theirs) in ours.iter().zip(theirs) {
        let (ours, theirs) = (ours.as_object().unwrap(), theirs.as_object().unwrap());
        assert!(ours.keys().eq(theirs.keys()), "{what}");
        for (name, number) in ours.iter().filter(|(_, value)| value.is_number()) {
            let (a, b) = (number.as_f64().unwrap(), theirs[name].as_f64().unwrap());
            let far = (a - b).abs();
            assert!(
                far <= bound * (1.0 + b.abs()),
                "{what}: {name} {a} against {b}"
            );
        }
    }
}

/// Micro-batches of four rows, two in a step; nine rows, so that the last step of an epoch is smaller, and so
/// is its micro-batch.
fn accumulated(objective: Learned, out: &Path) -> Settings {
    let mut settings = tiny(objective, None, out);
    settings.fit.batch = 4;
    settings.fit.accumulation = 2;
    settings.fit.max_steps = Some(6);
    settings.fit.learning_rate = Some(1e-3);
    settings.held_out = 0.2;
    settings.save_every = 0;
    settings.dpo.beta = 1.0;
    settings.reward.centering = 0.3;
    settings
}

#[test]
fn parts_of_a_micro_batch_have_the_loss_and_gradient_of_the_whole() {
    for (objective, weights) in [
        (Learned::Sft, [1.0, 0.0]),
        (Learned::Reward, [1.0, 0.0]),
        (Learned::Dpo, [1.0, 0.0]),
        (Learned::Dpo, [0.5, 2.0]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let run = |name: &str, max_tokens: Option<usize>| {
            let out = dir.path().join(name);
            let mut settings = accumulated(objective, &out);
            settings.fit.max_tokens = max_tokens;
            settings.dpo.loss_weights = weights;
            (whole(&settings), lines(&out))
        };
        let (summary, expected) = run("whole", None);
        assert_eq!((expected.len(), summary.long_rows), (6, 0));
        for most in [1, 30, 45, 100_000] {
            let what = format!("{objective} {weights:?}, {most} tokens");
            let (summary, found) = run(&most.to_string(), Some(most));
            near(&found, &expected, 2e-5, &what);
            let long = match most {
                1 => summary.train_rows,
                _ => 0,
            };
            assert_eq!(summary.long_rows, long, "{what}");
        }
        // one part is the micro-batch itself
        assert_eq!(run("one", Some(100_000)).1, expected, "{objective}");
    }
}

/// With dropout too, a run in parts goes on to the same numbers.
#[test]
fn a_run_in_parts_goes_on_to_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| {
        let mut settings = tiny(Learned::Sft, lora(), &dir.path().join(name));
        settings.fit.max_tokens = Some(20);
        settings.fit.batch = 3;
        settings
    };
    whole(&of("whole"));
    quiet(&of("stopped"), false, 5).unwrap();
    quiet(&of("stopped"), true, 0).unwrap();
    super::whole_runs::same(
        &dir.path().join("whole"),
        &dir.path().join("stopped"),
        "parts",
    );
}

/// KTO's baseline, BCO's mean and TRL's token means are of more than one part.
#[test]
fn parts_have_the_loss_of_the_whole_where_it_needs_more_than_its_answers() {
    for (objective, set) in [
        (Learned::Kto, "since.kto.beta=1"),
        (Learned::Bco, "since.bco.beta=1"),
        (
            Learned::Rpo,
            r#"since.rpo={"beta": 1, "likelihood": "micro_batch"}"#,
        ),
        (
            Learned::Orpo,
            r#"since.orpo={"lambda": 1, "likelihood": "micro_batch", "covers": "prompt_and_answer"}"#,
        ),
        (Learned::Tdpo2, "since.tdpo2.beta=1"),
        (Learned::LdDpo, "since.ld_dpo.beta=1"),
        (Learned::Wpo, "since.wpo.beta=1"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let run = |name: &str, max_tokens: Option<usize>| {
            let out = dir.path().join(name);
            let mut settings = accumulated(objective, &out).with(set).unwrap();
            settings.fit.max_tokens = max_tokens;
            whole(&settings);
            lines(&out)
        };
        let expected = run("whole", None);
        for most in [1, 30] {
            let what = format!("{objective}, {most} tokens");
            near(&run(&most.to_string(), Some(most)), &expected, 2e-5, &what);
        }
    }
}
