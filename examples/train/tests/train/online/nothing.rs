//! Steps and parts of steps that have nothing to learn from.

use super::super::whole_runs::lora;
use super::{lines, tiny, whole};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use train::checkpoint::online::learned::{Part, units};
use train::checkpoint::online::rewards::Scored;
use train::checkpoint::online::rollout::Answer;
use train::checkpoint::order::Order;
use train::checkpoint::settings::{Learned, Settings};

fn numbers(out: &Path, name: &str) -> Vec<f64> {
    let steps = lines(out, "metrics.jsonl");
    let steps = steps.iter().filter_map(|line| line.get(name)?.as_f64());
    steps.collect()
}

/// Two models with the same weights have no KL and no gradient of it, to the last bit: AdamW would make a full step of a
/// rounding.
#[test]
fn the_kl_to_an_equal_model_teaches_nothing() {
    let many: [(&str, &[&str]); 4] = [
        ("micro-batches", &["fit.batch=4", "fit.accumulation=2"]),
        (
            "iterations",
            &[
                "fit.batch=4",
                "fit.accumulation=2",
                "online.num_iterations=2",
            ],
        ),
        ("parts", &["fit.max_tokens=40"]),
        ("masked", &["online.mask_truncated_completions=true"]),
    ];
    for (name, sets) in many {
        for adapted in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let own = [
                r#"online.rewards=[{"contains": {"text": "zzz"}}]"#,
                "online.beta=0.05",
                "held_out=0",
            ];
            let sets: Vec<&str> = own.iter().chain(sets).copied().collect();
            let mut settings = tiny(Learned::Grpo, dir.path(), &sets);
            settings.adapter = adapted.then(lora).flatten();
            whole(&settings);
            let (norms, kl) = (numbers(dir.path(), "grad_norm"), numbers(dir.path(), "kl"));
            assert_eq!(norms, [0.0; 6], "{name} {adapted}");
            // a step whose answers are all cut off has none
            assert!(
                !kl.is_empty() && kl.iter().all(|kl| *kl == 0.0),
                "{name}: {kl:?}"
            );
        }
    }
}

/// Answers to two prompts, of which some have no end.
fn given(out: &Path, cut: [bool; 4], sets: &[&str]) -> Settings {
    let answer = |(at, cut): (usize, bool)| {
        let end = if cut { 9 + at } else { 2 };
        [5 + at, 6, 7 + at, 8, 9, end]
    };
    let both = [&cut[..2], &cut[2..]];
    let line = |cut: &[bool]| {
        let answers: Vec<_> = cut.iter().copied().enumerate().map(answer).collect();
        json!({ "completions": answers }).to_string() + "\n"
    };
    let first: String = both.map(line).concat();
    let uncut: String = [&[false; 2][..]; 2].map(line).concat();
    let path = out.join("completions.jsonl");
    // the second of three steps has the answers that are asked for
    fs::write(&path, format!("{uncut}{first}{uncut}")).unwrap();
    let file = format!("online.completions_file={}", path.display());
    let own = [
        "held_out=0",
        "fit.max_steps=3",
        "fit.batch=2",
        "fit.accumulation=2",
        "online.num_generations=2",
        "online.mask_truncated_completions=true",
        r#"online.rewards=[{"contains": {"text": "t5"}}]"#,
        &file,
    ];
    let sets: Vec<&str> = own.iter().chain(sets).copied().collect();
    let mut settings = tiny(Learned::Grpo, &out.join("run"), &sets);
    settings.fit.order = Order::Sequential;
    settings
}

#[test]
fn a_micro_batch_of_cut_answers_adds_nothing() {
    for objective in [Learned::Grpo, Learned::Rloo] {
        // the first micro-batch of the run too
        for sets in [&[][..], &["fit.max_tokens=12"]] {
            let dir = tempfile::tempdir().unwrap();
            let mut settings = given(dir.path(), [true, true, false, false], sets);
            settings.objective = objective;
            let path = dir.path().join("completions.jsonl");
            let text = fs::read_to_string(&path).unwrap();
            let from: usize = text.lines().take(2).map(|line| line.len() + 1).sum();
            fs::write(&path, [&text[from..], &text[..from]].concat()).unwrap();
            whole(&settings);
            let norms = numbers(&dir.path().join("run"), "grad_norm");
            assert!(
                norms.len() == 3 && norms.iter().all(|norm| *norm > 0.0),
                "{norms:?}"
            );
        }
    }
}

/// Its gradient is 0 and not missing: AdamW's moments go on, as for a step whose answers all have one reward.
#[test]
fn a_step_of_cut_answers_moves_the_weights_by_what_it_remembers() {
    let run = |cut: [bool; 4], more: &str| {
        let dir = tempfile::tempdir().unwrap();
        let settings = given(dir.path(), cut, &[more]);
        whole(&settings);
        let out = dir.path().join("run");
        (numbers(&out, "grad_norm"), numbers(&out, "loss"))
    };
    let (norms, losses) = run([true; 4], "fit.weight_decay=0");
    assert_eq!((norms[1], losses[1]), (0.0, 0.0));
    // the same answers with ends, and a reward that tells none from another in the second step
    let dir = tempfile::tempdir().unwrap();
    let settings = given(dir.path(), [false; 4], &["fit.weight_decay=0"]);
    let path = dir.path().join("completions.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let equal = |line: &Value| {
        let one = &line["completions"][0];
        json!({ "completions": [one, one] })
    };
    let all = [
        &lines[0],
        &lines[1],
        &equal(&lines[2]),
        &equal(&lines[3]),
        &lines[4],
        &lines[5],
    ];
    fs::write(&path, all.map(|line| format!("{line}\n")).concat()).unwrap();
    whole(&settings);
    let equal = numbers(&dir.path().join("run"), "grad_norm");
    assert_eq!(equal[1], 0.0);
    assert!(equal[2] > 0.0 && equal[2] != equal[0]);
    assert_eq!((norms[0], norms[2]), (equal[0], equal[2]));
}

fn scored(each: &[&[Option<f64>]], weights: &[f64]) -> Vec<Scored> {
    let of = |each: &&[Option<f64>]| Scored {
        each: each.to_vec(),
        sum: each.iter().any(Option::is_some).then(|| {
            let both = each.iter().zip(weights);
            both.map(|(one, weight)| one.unwrap_or(0.0) * weight).sum()
        }),
    };
    each.iter().map(of).collect()
}

fn advantages(objective: Learned, sets: &[&str], rewards: &[Scored]) -> Vec<f64> {
    let settings = tiny(objective, Path::new("unused"), sets);
    let answer = |_| Answer {
        ids: vec![5, 2],
        ended: true,
        old: vec![-1.0, -1.0],
        ..Answer::default()
    };
    let answers: Vec<Answer> = (0..rewards.len()).map(answer).collect();
    let found = units(&settings, &answers, rewards, None).unwrap();
    let parts = found.parts.iter().map(|part| match part {
        Part::Advantage(advantage) => *advantage,
        other => panic!("{other:?}"),
    });
    parts.collect()
}

/// TRL's RLOO: (1 − 0)/(4 − 3) of one scored answer is 0/0, which leaves the mean and the deviation of the batch.
#[test]
fn an_answer_whose_siblings_nobody_judged_is_not_in_the_batch() {
    let one = |reward: Option<f64>| [reward];
    let rewards = [
        Some(1.0),
        Some(0.0),
        None,
        None,
        Some(5.0),
        None,
        None,
        None,
    ]
    .map(one);
    let rewards: Vec<&[Option<f64>]> = rewards.iter().map(|one| &one[..]).collect();
    let sets = ["online.normalize_advantages=true"];
    let found = advantages(Learned::Rloo, &sets, &scored(&rewards, &[1.0]));
    // 1 and −1, whose deviation over n − 1 is √2
    let whitened = 1.0 / (2f64.sqrt() + 1e-4);
    let expected = [whitened, -whitened, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }
}

/// TRL's `normalize_then_sum`: each reward over the answers that it judges, and the sum of what there is.
#[test]
fn a_reward_that_does_not_judge_an_answer_takes_nothing_from_the_others() {
    let rewards: [[Option<f64>; 2]; 8] = [
        [Some(1.0), None],
        [Some(0.0), Some(2.0)],
        [Some(3.0), Some(5.0)],
        [None, None],
        [None, Some(1.0)],
        [Some(2.0), Some(4.0)],
        [Some(2.5), None],
        [Some(0.5), Some(7.0)],
    ];
    let all: Vec<&[Option<f64>]> = rewards.iter().map(|one| &one[..]).collect();
    let sets = [
        r#"online.rewards=[{"length": {"target": 3}}, {"contains": {"text": "a"}}]"#,
        "online.multi_objective_aggregation=normalize_then_sum",
        "online.reward_weights=[1, 0.5]",
    ];
    let found = advantages(Learned::Grpo, &sets, &scored(&all, &[1.0, 0.5]));
    let normal = |all: &[Option<f64>]| -> Vec<Option<f64>> {
        let some: Vec<f64> = all.iter().copied().flatten().collect();
        let n = some.len() as f64;
        let mean = some.iter().sum::<f64>() / n;
        let squares: f64 = some.iter().map(|x| (x - mean).powi(2)).sum();
        let deviation = (squares / (n - 1.0)).sqrt() + 1e-4;
        all.iter()
            .map(|x| x.map(|x| (x - mean) / deviation))
            .collect()
    };
    let mut sums: Vec<Option<f64>> = vec![None; 8];
    for (k, weight) in [(0, 1.0), (1, 0.5)] {
        for group in 0..2 {
            let of: Vec<Option<f64>> = (0..4).map(|at| rewards[4 * group + at][k]).collect();
            for (at, one) in normal(&of).into_iter().enumerate() {
                if let Some(one) = one {
                    *sums[4 * group + at].get_or_insert(0.0) += weight * one;
                }
            }
        }
    }
    for (found, expected) in found.iter().zip(normal(&sums)) {
        assert!(
            (found - expected.unwrap_or(0.0)).abs() < 1e-12,
            "{found} {expected:?}"
        );
    }
}
