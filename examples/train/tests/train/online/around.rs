//! What GRPO's terms are multiplied by, the entropy bonus, and prompts that make room for others.

use super::super::trl::near;
use super::ppo::log_probs;
use super::{lines, quiet, refused, tiny, whole};
use candle_align::decoder::{Decoder, Load};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use train::checkpoint::online::prompts::prepare;
use train::checkpoint::order::Order;
use train::checkpoint::settings::{Learned, Settings};
use train::checkpoint::summary::Outcome;

const ANSWERS: [&[u32]; 4] = [&[5, 2], &[6, 7, 8, 2], &[8, 9, 2], &[9, 9, 9, 9, 9, 9]];

/// By the program that drew them: far above and far below the model's, which are near −3.3; one is unknown.
fn sampled() -> Vec<Vec<Option<f64>>> {
    let below = |n: usize| vec![Some(-4.5); n];
    let mut third = vec![Some(-3.4), None, Some(-3.2)];
    third.truncate(ANSWERS[2].len());
    vec![
        vec![Some(-0.5), Some(-3.3)],
        below(4),
        third,
        vec![Some(-1.0); 6],
    ]
}

/// One step on given answers to two prompts.
fn given(out: &Path, name: &str, log_probs: Option<Value>, sets: &[&str]) -> Settings {
    let path = out.join(format!("{name}.jsonl"));
    let mut line = json!({ "completions": ANSWERS });
    if let Some(log_probs) = log_probs {
        line["log_probs"] = log_probs;
    }
    fs::write(&path, format!("{line}\n").repeat(2)).unwrap();
    let file = format!("online.completions_file={}", path.display());
    let all = ["held_out=0", "fit.max_steps=1", &file];
    let sets: Vec<&str> = all.iter().chain(sets).copied().collect();
    let mut settings = tiny(Learned::Grpo, &out.join(name), &sets);
    settings.fit.order = Order::Sequential;
    settings
}

/// The loss of the first step, where every ratio is 1: −Σ w A / tokens, with these factors of the tokens.
fn by_hand(
    settings: &Settings,
    mut factor: impl FnMut(f64, &[f64], &[Option<f64>]) -> Vec<f64>,
) -> f64 {
    let model = Decoder::load(&settings.model, &Load::default()).unwrap();
    let prompts = prepare(settings, &model, Default::default()).unwrap().train;
    let samples = lines(settings.out.as_ref().unwrap(), "samples.jsonl");
    assert_eq!(samples.len(), 8);
    let (mut sum, mut tokens) = (0.0, 0.0);
    for (at, sample) in samples.iter().enumerate() {
        let (prompt, answer) = (&prompts[at / 4], ANSWERS[at % 4]);
        let old = log_probs(&model, &prompt.ids, answer);
        let advantage = sample["advantage"].as_f64().unwrap();
        let factors = factor(advantage, &old, &sampled()[at % 4]);
        sum -= advantage * factors.iter().sum::<f64>();
        tokens += answer.len() as f64;
    }
    sum / tokens
}

#[test]
fn the_weights_of_the_sampler_are_those_of_the_four_modes() {
    let dir = tempfile::tempdir().unwrap();
    let differences = |old: &[f64], sampler: &[Option<f64>]| -> Vec<f64> {
        let both = old.iter().zip(sampler);
        both.map(|(old, s)| s.map_or(0.0, |s| old - s)).collect()
    };
    for (mode, sequence, mask) in [
        ("token_truncate", false, false),
        ("token_mask", false, true),
        ("sequence_truncate", true, false),
        ("sequence_mask", true, true),
    ] {
        let sets = [
            format!("online.importance_sampling_mode={mode}"),
            "online.importance_sampling_clip_max=2.5".to_string(),
            "online.importance_sampling_clip_min=0.5".to_string(),
        ];
        let sets = sets.each_ref().map(String::as_str);
        let settings = given(dir.path(), mode, Some(json!(sampled())), &sets);
        whole(&settings);
        let mut bounds = BTreeSet::new();
        let want = by_hand(&settings, |_, old, sampler| {
            let d = differences(old, sampler);
            let sum: f64 = d.iter().sum();
            let mut weight = |d: &f64| {
                let w = if sequence { sum.exp() } else { d.exp() };
                let held = w.clamp(0.5, 2.5);
                bounds.insert(u8::from(w > 2.5) + 2 * u8::from(w < 0.5));
                match (held == w, mask) {
                    (false, true) => 0.0,
                    _ => held,
                }
            };
            d.iter().map(&mut weight).collect()
        });
        assert_eq!(
            bounds.len(),
            3,
            "{mode}: both bounds are passed, and neither"
        );
        let log = lines(&dir.path().join(mode), "metrics.jsonl");
        near(mode, log[0]["loss"].as_f64().unwrap(), want, 1e-6);
    }
}

#[test]
fn stale_bad_answers_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["online.off_policy_mask_threshold=0.5"];
    let settings = given(dir.path(), "stale", Some(json!(sampled())), &sets);
    whole(&settings);
    let mut dropped = 0;
    let want = by_hand(&settings, |advantage, old, sampler| {
        let moved = old
            .iter()
            .zip(sampler)
            .map(|(old, s)| s.map_or(0.0, |s| s - old));
        let moved = moved.sum::<f64>() / old.len() as f64;
        let keep = advantage >= 0.0 || moved <= 0.5;
        dropped += usize::from(!keep);
        vec![f64::from(u8::from(keep)); old.len()]
    });
    assert!((1..8).contains(&dropped), "{dropped}");
    let log = lines(&dir.path().join("stale"), "metrics.jsonl");
    near("loss", log[0]["loss"].as_f64().unwrap(), want, 1e-6);
}

#[test]
fn at_temperature_1_the_sampler_is_the_policy() {
    let run = |sets: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let sets: Vec<&str> = ["held_out=0"].iter().chain(sets).copied().collect();
        whole(&tiny(Learned::Grpo, dir.path(), &sets));
        lines(dir.path(), "metrics.jsonl")
    };
    let plain = run(&[]);
    let weighted = run(&["online.importance_sampling_mode=sequence_mask"]);
    for (a, b) in plain.iter().zip(&weighted) {
        let of = |line: &Value| line["grad_norm"].as_f64().unwrap();
        near("gradient norm", of(b), of(a), 1e-5);
    }
    let warm = "online.temperature=2";
    let other = run(&[warm, "online.importance_sampling_mode=token_truncate"]);
    assert_ne!(run(&[warm])[0]["grad_norm"], other[0]["grad_norm"]);
}

#[test]
fn entropy_is_counted_over_the_step_whatever_its_micro_batches() {
    let run = |sets: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let all = [
            "held_out=0",
            "online.top_entropy_quantile=0.3",
            "online.entropy_coef=0.5",
        ];
        let sets: Vec<&str> = all.iter().chain(sets).copied().collect();
        whole(&tiny(Learned::Grpo, dir.path(), &sets));
        lines(dir.path(), "metrics.jsonl")
    };
    let one = run(&[]);
    for sets in [
        &["fit.batch=2", "fit.accumulation=4"][..],
        &["fit.max_tokens=15"],
    ] {
        for (a, b) in one.iter().zip(run(sets)) {
            for name in ["loss", "grad_norm", "entropy"] {
                let (a, b) = (a[name].as_f64().unwrap(), b[name].as_f64().unwrap());
                near(&format!("{sets:?}: {name}"), b, a, 1e-5);
            }
        }
    }
    // of the tokens of high entropy, which is more than the mean of all
    let all = run(&["online.top_entropy_quantile=1"]);
    let entropy = |lines: &[Value]| lines[0]["entropy"].as_f64().unwrap();
    assert!(entropy(&one) > entropy(&all) && entropy(&all) > 1.0);
}

#[test]
fn prompts_that_teach_nothing_make_room_for_others() {
    let run = |name: &Path, most: usize, stop: usize, resume: bool| {
        let batches = format!("online.max_num_gen_batches={most}");
        let sets = [
            "held_out=0",
            r#"online.rewards=[{"contains": {"text": "t7"}}]"#,
            &batches,
        ];
        let settings = tiny(Learned::Grpo, name, &sets);
        quiet(&settings, resume, stop).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| dir.path().join(name);
    run(&of("one"), 1, 0, false);
    run(&of("five"), 5, 0, false);
    let (one, five) = (
        lines(&of("one"), "metrics.jsonl"),
        lines(&of("five"), "metrics.jsonl"),
    );
    let equal = |lines: &[Value]| -> f64 {
        lines
            .iter()
            .map(|line| line["equal_groups"].as_f64().unwrap())
            .sum()
    };
    assert!(
        equal(&five) < equal(&one),
        "{} {}",
        equal(&five),
        equal(&one)
    );
    let replaced: u64 = five
        .iter()
        .map(|line| line["replaced"].as_u64().unwrap())
        .sum();
    assert!(replaced > 0);
    assert!(one.iter().all(|line| line["replaced"].is_null()));
    for (line, all) in five.iter().zip(1..) {
        // what still teaches nothing is no row of the loss
        let groups = 2.0 * (1.0 - line["equal_groups"].as_f64().unwrap());
        assert_eq!(line["learned"].as_f64().unwrap(), 4.0 * groups, "{line}");
        let samples = lines(&of("five"), "samples.jsonl");
        let step = samples.iter().filter(|said| said["step"] == all);
        let prompts: Vec<u64> = step.map(|said| said["line"].as_u64().unwrap()).collect();
        assert_eq!(prompts.len(), 8);
        assert_eq!(
            prompts.iter().collect::<BTreeSet<_>>().len(),
            2,
            "{prompts:?}"
        );
    }
    // and a stopped run goes on with the same prompts
    assert!(matches!(
        run(&of("stopped"), 5, 3, false),
        Outcome::Stopped { step: 3, .. }
    ));
    run(&of("stopped"), 5, 0, true);
    let samples = |name: &str| fs::read(of(name).join("samples.jsonl")).unwrap();
    assert!(samples("stopped") == samples("five"));
}

#[test]
fn factors_out_of_range_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refuse = |at: usize, objective: Learned, sets: &[&str], part: &str| {
        let error = refused(&tiny(objective, &dir.path().join(format!("{at}")), sets));
        assert!(error.contains(part), "{sets:?}: {error}");
    };
    let grpo: [(&[&str], &str); 11] = [
        (
            &["online.top_entropy_quantile=0"],
            "`online.top_entropy_quantile` must be in (0, 1], got 0",
        ),
        (
            &["online.top_entropy_quantile=1.5"],
            "must be in (0, 1], got 1.5",
        ),
        (
            &["online.entropy_coef=-1"],
            "`online.entropy_coef` must be finite and >= 0, got -1",
        ),
        (
            &["online.max_num_gen_batches=0"],
            "`online.max_num_gen_batches` must be at least 1, got 0",
        ),
        (
            &[
                "online.importance_sampling_mode=token_mask",
                "online.importance_sampling_clip_min=-1",
            ],
            "`online.importance_sampling_clip_min` must be finite and >= 0, got -1",
        ),
        (
            &[
                "online.importance_sampling_mode=token_mask",
                "online.importance_sampling_clip_max=0",
            ],
            "`online.importance_sampling_clip_max` must be finite, > 0",
        ),
        (
            &[
                "online.importance_sampling_mode=token_mask",
                "online.importance_sampling_clip_min=4",
            ],
            "not below `online.importance_sampling_clip_min`, 4, got 3",
        ),
        (
            &["online.importance_sampling_clip_max=2"],
            "`online.importance_sampling_clip_max` is not read",
        ),
        (
            &["online.importance_sampling_clip_min=2"],
            "`online.importance_sampling_clip_min` is not read",
        ),
        (
            &[
                "online.loss_type=vespo",
                "online.importance_sampling_mode=sequence_mask",
            ],
            "must be `token_truncate` or `token_mask` for `vespo`",
        ),
        (
            &[r#"online.rewards=[{"overlong": {"limit": 3, "buffer": 4}}]"#],
            "`overlong.buffer` must be from 1 to `overlong.limit`, 3, got 4",
        ),
    ];
    for (at, (sets, part)) in grpo.iter().enumerate() {
        refuse(at, Learned::Grpo, sets, part);
    }
    for set in [
        "online.top_entropy_quantile=0.5",
        "online.entropy_coef=0.1",
        "online.off_policy_mask_threshold=0.5",
        "online.importance_sampling_mode=token_mask",
        "online.max_num_gen_batches=2",
    ] {
        let name = set.split('=').next().unwrap();
        refuse(
            20,
            Learned::Rloo,
            &[set],
            &format!("`{name}` is not read by `rloo`"),
        );
    }
    // numbers that do not belong to the answers
    let mode = ["online.importance_sampling_mode=token_mask"];
    let mut short = json!(sampled());
    short[1].as_array_mut().unwrap().pop();
    let mut positive = json!(sampled());
    positive[0][0] = json!(0.5);
    for (name, log_probs, part) in [
        (
            "none",
            None,
            "none.jsonl:1: has no `log_probs` beside its `completions`, which",
        ),
        (
            "few",
            Some(json!([[-1.0]])),
            "has 1 lists of `log_probs` of 4 `completions`",
        ),
        (
            "short",
            Some(short),
            "has 3 `log_probs` of a completion of 4 tokens",
        ),
        ("positive", Some(positive), "has `log_probs` above 0"),
    ] {
        let error = refused(&given(dir.path(), name, log_probs, &mode));
        assert!(error.contains(part), "{name}: {error}");
    }
    let settings = given(
        dir.path(),
        "redraw",
        None,
        &["online.max_num_gen_batches=2"],
    );
    assert!(refused(&settings).contains("`online.max_num_gen_batches` is not read"));
}
