//! Short runs of a tiny model on the built-in rows.

use candle_align::language::conditional_sft::ClassWeighting;
use candle_align::online::reward_head::RewardHead;
use candle_core::Device;
use clap::{Parser, ValueEnum};
use flate2::Compression;
use flate2::write::GzEncoder;
use indicatif::ProgressBar;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use support::transformer::{Config, Transformer};
use train::Arguments;
use train::error::Result;
use train::objectives::{Objective, RewardForm, SlicForm};
use train::report::Summary;
use train::run::run;
use train::settings::Settings;

const RESULTS: [&str; 6] = [
    "config.json",
    "curves.svg",
    "metrics.jsonl",
    "model.json",
    "model.safetensors",
    "summary.json",
];

/// Takes seconds, even without optimization: width 16, about twenty steps.
pub fn small(objective: Objective, out: &Path) -> Settings {
    Settings {
        objective,
        out: Some(out.to_path_buf()),
        steps: 12,
        sft_steps: 8,
        batch: 8,
        micro_batch: 4,
        learning_rate: 5e-3,
        sft_learning_rate: 1e-2,
        width: 16,
        layers: 1,
        heads: 2,
        max_len: 96,
        ..Settings::default()
    }
}

pub fn quiet(settings: &Settings) -> Result<Summary> {
    run(settings, &ProgressBar::hidden())
}

pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// `metrics.jsonl`, parsed.
pub fn metrics(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Training losses of the objective's steps.
pub fn losses(metrics: &[Value], phase: &str) -> Vec<f64> {
    let own = metrics
        .iter()
        .filter(|m| m["phase"] == phase && m["split"] == "train");
    own.map(|m| m["loss"].as_f64().unwrap()).collect()
}

#[test]
fn every_objective_has_one_name_everywhere() {
    for &objective in Objective::value_variants() {
        let name = objective.to_string();
        let json = serde_json::to_value(objective).unwrap();
        assert_eq!(json, Value::String(name.clone()));
        for name in [name.clone(), name.replace('_', "-")] {
            let arguments = ["train", "--objective", name.as_str()];
            let parsed = Arguments::try_parse_from(arguments).unwrap();
            assert_eq!(parsed.settings().unwrap().objective, objective);
        }
    }
    // 15 of the survey; since then 27 over pairs, 5 over lists, 3 over answers with a label, 1 with a teacher, 5
    // that draw answers
    assert_eq!(Objective::value_variants().len(), 15 + 27 + 5 + 3 + 1 + 5);
}

/// A whole run: the loss falls, the files are written, and they can be read again.
fn whole_run(settings: Settings) -> Summary {
    let out = settings.out();
    let summary = quiet(&settings).unwrap();

    // the training loss falls, by thirds of the run
    let name = settings.objective.to_string();
    let metrics = metrics(&out);
    let own = losses(&metrics, &name);
    assert_eq!(own.len(), settings.steps);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let third = own.len() / 3;
    let (first, last) = (mean(&own[..third]), mean(&own[own.len() - third..]));
    assert!(last < first, "{name}: {first} → {last}: {own:?}");
    assert!(
        metrics
            .iter()
            .all(|m| m["loss"].as_f64().is_some_and(f64::is_finite))
    );

    // everything is there and can be read again
    let mut expected: Vec<&str> = RESULTS.to_vec();
    if settings.objective == Objective::Reward {
        expected.push("reward_head.safetensors");
    }
    expected.sort();
    assert_eq!(names(&out), expected);
    assert_eq!(Settings::read(&out.join("config.json")).unwrap(), settings);
    let config = fs::read_to_string(out.join("model.json")).unwrap();
    let config: Config = serde_json::from_str(&config).unwrap();
    Transformer::load(&config, out.join("model.safetensors")).unwrap();
    if settings.objective == Objective::Reward {
        let head = out.join("reward_head.safetensors");
        let head = candle_core::safetensors::load(head, &Device::Cpu).unwrap();
        RewardHead::from_tensors(&head["reward_head.weight"], None).unwrap();
    }
    let written = fs::read_to_string(out.join("summary.json")).unwrap();
    let written: Value = serde_json::from_str(&written).unwrap();
    let loss = written["after"]["loss"].as_f64().unwrap();
    assert!((loss - summary.after.loss).abs() < 1e-9 * loss.abs());
    assert_eq!(written["held_out_prompts"], 10);
    let svg = fs::read_to_string(out.join("curves.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    assert!(svg.contains("held out") && svg.contains("longer answer"));
    summary
}

#[test]
fn sft_learns_to_spell() {
    let out = tempfile::tempdir().unwrap();
    let summary = whole_run(small(Objective::Sft, out.path()));
    assert!(summary.after.loss < summary.before.loss, "{summary}");
    // it starts at the uniform model's loss, ln 259
    assert!((summary.before.loss - 259f64.ln()).abs() < 0.1, "{summary}");
}

#[test]
fn a_reward_model_comes_from_pairs() {
    let out = tempfile::tempdir().unwrap();
    let summary = whole_run(small(Objective::Reward, out.path()));
    assert_eq!(summary.before.best_log_prob, None);
}

#[test]
fn a_reward_model_comes_from_choices_and_from_rankings() {
    // on lists of two, all forms are the same, for the same seed
    let run = |form| {
        let out = tempfile::tempdir().unwrap();
        let mut settings = small(Objective::Reward, out.path());
        settings.reward_form = form;
        whole_run(settings)
    };
    let pairs = run(RewardForm::Pairs);
    for form in [RewardForm::ChooseBest, RewardForm::PlackettLuce] {
        let other = run(form);
        let (a, b) = (pairs.after, other.after);
        assert!((a.loss - b.loss).abs() < 1e-4, "{form:?}: {a:?} {b:?}");
        assert_eq!(pairs.held_out_examples, other.held_out_examples);
    }
}

#[test]
fn the_kl_of_slic_is_0_at_its_first_step_and_holds_back() {
    let run = |weight| {
        let out = tempfile::tempdir().unwrap();
        let mut settings = small(Objective::Slic, out.path());
        (settings.slic_sft_weight, settings.slic_kl_weight) = (0.0, weight);
        let summary = quiet(&settings).unwrap();
        let own = losses(&metrics(out.path()), "slic");
        (summary.before.loss, own[0], *own.last().unwrap())
    };
    let (free, held) = (run(0.0), run(50.0));
    assert_eq!((free.0, free.1), (held.0, held.1));
    assert!(free.2 < held.2, "{free:?} {held:?}");
}

#[test]
fn dpo_starts_where_policy_and_reference_agree() {
    let out = tempfile::tempdir().unwrap();
    let mut settings = small(Objective::Dpo, out.path());
    settings.dpo.beta = 0.5;
    let summary = whole_run(settings);
    // every margin is exactly 0: only ties, and a loss of ln 2
    assert_eq!(summary.before.accuracy, Some(0.5));
    assert!((summary.before.loss - 2f64.ln()).abs() < 1e-6, "{summary}");
    let pairs = summary.baselines.map(|baselines| baselines.pairs);
    assert_eq!(pairs, Some(summary.held_out_examples));
}

#[test]
fn pro_ranks_lists_of_two() {
    let out = tempfile::tempdir().unwrap();
    whole_run(small(Objective::Pro, out.path()));
}

#[test]
fn slic_in_its_four_forms() {
    for form in [
        SlicForm::Rank,
        SlicForm::Margin,
        SlicForm::List,
        SlicForm::ExpectedReward,
    ] {
        let out = tempfile::tempdir().unwrap();
        let mut settings = small(Objective::Slic, out.path());
        settings.slic_form = form;
        whole_run(settings);
    }
}

#[test]
fn rrhf_ranks_lists_of_two() {
    let out = tempfile::tempdir().unwrap();
    whole_run(small(Objective::Rrhf, out.path()));
}

#[test]
fn the_other_comparisons_of_lists() {
    for objective in [
        Objective::Brio,
        Objective::ExpectedRisk,
        Objective::StableAlignment,
    ] {
        let out = tempfile::tempdir().unwrap();
        let summary = whole_run(small(objective, out.path()));
        assert!(summary.before.best_log_prob.is_some());
        assert_eq!(summary.byte_frequencies, None);
    }
}

/// Fifty sums, each with two answers that differ in a digit, marked right and wrong.
pub fn sums(folder: &Path) -> PathBuf {
    let path = folder.join("sums.jsonl");
    let row = |i: usize| {
        let (a, b) = (i % 10, i / 10);
        let (right, wrong) = (a + b, a + b + 1);
        format!(
            r#"{{"question": "{a} and {b}?", "large": {{"is_correct": true, "solution": "It is {right}."}},
                "small": {{"is_correct": false, "solution": "It is {wrong}."}}}}"#
        )
        .replace('\n', " ")
    };
    fs::write(&path, (0..50).map(row).collect::<Vec<_>>().join("\n")).unwrap();
    path
}

#[test]
fn words_around_answers_are_learned_and_answers_are_scored_by_them() {
    for objective in [
        Objective::ConditionalSft,
        Objective::CRlft,
        Objective::ChainOfHindsight,
        Objective::SecondThoughts,
        Objective::Selfee,
        Objective::SelfDebug,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = small(objective, &dir.path().join("out"));
        settings.data = Some(sums(dir.path()));
        (settings.max_len, settings.language_learning_rate) = (160, 1e-2);
        let summary = whole_run(settings);
        assert!(summary.after.loss < summary.before.loss, "{summary}");

        // scores before and after, with baselines, on the held-out pairs
        assert_eq!(
            summary.baselines.map(|b| (b.pairs, b.prompts)),
            Some((10, 10))
        );
        assert!(summary.after.accuracy.is_some(), "{summary}");
        let conditioned = matches!(
            objective,
            Objective::ConditionalSft | Objective::CRlft | Objective::ChainOfHindsight
        );
        let after = &summary.after;
        assert_eq!(after.best_log_prob.is_some(), conditioned, "{summary}");
        assert_eq!(after.best_log_prob_bad_words.is_some(), conditioned);
        assert_eq!(
            summary.byte_frequencies.is_none(),
            objective == Objective::CRlft
        );
        let rates = metrics(&summary.out)
            .into_iter()
            .filter(|m| m["phase"] == *objective.to_string());
        let peak = rates
            .filter_map(|m| m["learning_rate"].as_f64())
            .fold(0.0, f64::max);
        assert_eq!(peak, 1e-2);
        let text = summary.to_string();
        assert!(text.contains("nats per token"), "{text}");
        assert_eq!(text.contains("after bad words"), conditioned, "{text}");
        assert!(text.contains(objective.score()), "{text}");
        // two texts per prompt; self-debug has only one
        let texts = match objective {
            Objective::SelfDebug => 40,
            _ => 80,
        };
        assert_eq!(summary.train_examples, texts, "{summary}");
    }
}

#[test]
fn the_good_class_is_told_from_the_bad_one() {
    // here the class predicts the answer for any prompt, which a few steps can show
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("rows.jsonl");
    let row =
        |i: usize| format!(r#"{{"prompt": "{i}", "chosen": "yes {i}", "rejected": "NO {i}"}}"#);
    fs::write(&data, (0..20).map(row).collect::<Vec<_>>().join("\n")).unwrap();
    for objective in [Objective::ConditionalSft, Objective::CRlft] {
        let mut settings = small(objective, &dir.path().join("out"));
        settings.data = Some(data.clone());
        (settings.steps, settings.language_learning_rate) = (40, 2e-2);
        let summary = quiet(&settings).unwrap();
        assert_eq!(summary.after.accuracy, Some(1.0), "{summary}");
        assert!(
            summary.after.best_log_prob > summary.after.best_log_prob_bad_words,
            "{summary}"
        );
    }
}

#[test]
fn the_past_is_hidden_from_hindsight_while_it_learns() {
    let first = |ratio: f64| {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = small(Objective::ChainOfHindsight, &dir.path().join("out"));
        settings.data = Some(sums(dir.path()));
        (settings.max_len, settings.steps, settings.sft_steps) = (160, 1, 4);
        let forgetful = &mut settings.chain_of_hindsight.forgetful;
        (forgetful.min_ratio, forgetful.max_ratio) = (ratio, ratio);
        let before = quiet(&settings).unwrap().before.loss;
        (
            before,
            losses(&metrics(&settings.out()), "chain_of_hindsight")[0],
        )
    };
    let (seen, hidden) = (first(0.0), first(0.9));
    // nothing of a held-out row is hidden
    assert_eq!(seen.0, hidden.0);
    assert_ne!(seen.1, hidden.1);
}

#[test]
fn the_same_seed_writes_the_same_metrics_and_another_does_not() {
    let text = |seed| {
        let out = tempfile::tempdir().unwrap();
        let mut settings = small(Objective::Dpo, out.path());
        (settings.seed, settings.steps, settings.sft_steps) = (seed, 4, 3);
        quiet(&settings).unwrap();
        fs::read_to_string(out.path().join("metrics.jsonl")).unwrap()
    };
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
}

#[test]
fn micro_batches_change_nothing_but_rounding() {
    // token means, pair means, list means; 7 does not divide 16
    for objective in [
        Objective::Sft,
        Objective::Dpo,
        Objective::Rrhf,
        Objective::Reward,
        Objective::Brio,
        Objective::CRlft,
    ] {
        let run = |micro_batch| {
            let out = tempfile::tempdir().unwrap();
            let mut settings = small(objective, out.path());
            (settings.batch, settings.micro_batch) = (16, micro_batch);
            (settings.steps, settings.sft_steps) = (3, 2);
            quiet(&settings).unwrap();
            losses(&metrics(out.path()), &objective.to_string())
        };
        let (whole, parts) = (run(16), run(7));
        for (a, b) in whole.iter().zip(&parts) {
            assert!(
                (a - b).abs() < 1e-3 * a.abs(),
                "{objective}: {whole:?} {parts:?}"
            );
        }
    }
}

#[test]
fn no_supervised_steps_are_allowed() {
    let out = tempfile::tempdir().unwrap();
    let mut settings = small(Objective::Dpo, out.path());
    (settings.sft_steps, settings.steps) = (0, 2);
    let summary = quiet(&settings).unwrap();
    assert_eq!(summary.sft_steps, 0);
    assert!(losses(&metrics(out.path()), "sft").is_empty());
}

#[test]
fn lists_become_pairs_for_dpo_and_stay_lists_for_a_reward_model() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("lists.jsonl.gz");
    let row = |i: usize| {
        format!(
            r#"{{"prompt": "number {i}", "answers": ["one", "two", "three"], "ranks": [0, 1, 1]}}"#
        )
    };
    let rows = (0..10).map(row).collect::<Vec<_>>().join("\n");
    let mut file = GzEncoder::new(fs::File::create(&data).unwrap(), Compression::fast());
    file.write_all(rows.as_bytes()).unwrap();
    file.finish().unwrap();
    let run = |objective| {
        let mut settings = small(objective, &dir.path().join("out"));
        settings.data = Some(data.clone());
        (settings.sft_steps, settings.steps) = (1, 2);
        quiet(&settings).unwrap()
    };
    let (dpo, reward) = (run(Objective::Dpo), run(Objective::Reward));
    assert_eq!((dpo.train_prompts, dpo.train_examples), (8, 16));
    assert_eq!((reward.train_prompts, reward.train_examples), (8, 8));
    // two pairs of each list differ in rank
    assert_eq!(
        reward.baselines.map(|b| (b.pairs, b.longer)),
        Some((4, 0.25))
    );
    assert_eq!(dpo.baselines, reward.baselines);
}

/// The message of a run that must fail without leaving files.
fn failure(rows: &str, objective: Objective, change: fn(&mut Settings)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("rows.jsonl");
    fs::write(&data, rows).unwrap();
    let mut settings = small(objective, &dir.path().join("out"));
    settings.data = Some(data);
    change(&mut settings);
    let message = quiet(&settings).unwrap_err().to_string();
    let left = fs::read_dir(dir.path().join("out")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "nothing may be written: {:?}", names(dir.path()));
    message.replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn an_objective_that_cannot_use_a_file_says_what_is_missing() {
    let keep = |_: &mut Settings| {};
    let single =
        "{\"question\": \"Q\", \"answer\": \"A\"}\n{\"question\": \"R\", \"answer\": \"B\"}";
    assert_eq!(
        failure(single, Objective::Dpo, keep),
        "rows.jsonl: dpo needs at least two answers to a prompt, and no row has a second one such \
         as `rejected` (prompt and completion: 2); use --objective sft"
    );
    let equal = r#"{"prompt": "Q", "answers": ["a", "b"], "rewards": [1, 1]}"#;
    assert_eq!(
        failure(equal, Objective::Rrhf, keep),
        "rows.jsonl: rrhf needs one answer that is better than another, and all rewards within a \
         row are equal (ranked list: 1)"
    );
    let pairs = "{\"prompt\": \"Q\", \"chosen\": \"a\", \"rejected\": \"b\"}\n\
                 {\"prompt\": \"R\", \"chosen\": \"a\", \"rejected\": \"b\"}";
    assert_eq!(
        failure(pairs, Objective::SelfDebug, keep),
        "rows.jsonl: self_debug needs answers marked right or wrong, and no row has an \
         `is_correct` (pair: 2)"
    );
    assert_eq!(
        failure(single, Objective::ChainOfHindsight, keep),
        "rows.jsonl: chain_of_hindsight needs at least two answers to a prompt, and no row has a \
         second one such as `rejected` (prompt and completion: 2); use --objective sft"
    );
    let alike = pairs.replace("\"b\"", "\"completely different\"");
    assert_eq!(
        failure(&alike, Objective::SecondThoughts, |s| s.max_len = 32),
        "rows.jsonl: second_thoughts writes no text of at most 32 tokens from 1 prompts; use a \
         larger --max-len"
    );
    assert_eq!(
        failure(equal, Objective::Sft, keep),
        "rows.jsonl: sft needs a best answer, and in no row is one answer better than another \
         (ranked list: 1)"
    );
    assert_eq!(
        failure(
            r#"{"prompt": "Q", "chosen": "", "rejected": "b"}"#,
            Objective::Dpo,
            keep
        ),
        "rows.jsonl: no row is left to learn from: 1 left out (an empty answer)"
    );
    assert_eq!(
        failure("[]\n{}", Objective::Dpo, |s| s.skip_bad_rows = true),
        "rows.jsonl: no row is left to learn from: 2 could not be read"
    );
    assert_eq!(
        failure(
            "{\"prompt\": \"Q\", \"chosen\": 1, \"rejected\": \"b\"}",
            Objective::Dpo,
            keep
        ),
        "rows.jsonl:1: `chosen` must be a text or a list of messages, found a number"
    );
}

#[test]
fn settings_out_of_range_are_named() {
    let rows = "{\"prompt\": \"Q\", \"chosen\": \"a\", \"rejected\": \"b\"}\n\
                {\"prompt\": \"R\", \"chosen\": \"a\", \"rejected\": \"b\"}";
    let check = |change: fn(&mut Settings), expected: &str| {
        assert_eq!(failure(rows, Objective::Dpo, change), expected);
    };
    check(|s| s.batch = 0, "`batch` must be finite and > 0, got 0");
    check(|s| s.max_len = 8, "`max_len` must be at least 32, got 8");
    check(|s| s.held_out = 1.0, "`held_out` must be in [0, 1), got 1");
    check(|s| s.warmup = -0.1, "`warmup` must be in [0, 1), got -0.1");
    check(
        |s| s.chain_of_hindsight.orders.clear(),
        "`chain_of_hindsight.orders` must not be empty",
    );
    check(
        |s| s.chain_of_hindsight.feedback.clear(),
        "`chain_of_hindsight.feedback` must not be empty",
    );
    check(
        |s| s.c_rlft.bad_reward = f64::NAN,
        "`c_rlft.bad_reward` must be finite, got NaN",
    );
    check(
        |s| s.slic_kl_weight = -1.0,
        "`slic_kl_weight` must be finite and >= 0, got -1",
    );
    check(
        |s| s.language_learning_rate = 0.0,
        "`language_learning_rate` must be finite and > 0, got 0",
    );
    // the library's own checks, with the step at which they failed
    check(
        |s| s.dpo.beta = 0.0,
        "dpo_loss: `beta` must be finite and > 0, got 0",
    );
    check(
        |s| s.sft.label_smoothing = 1.0,
        "sft step 1: sft_loss: `label_smoothing` must be in [0, 1), got 1",
    );
    check(
        |s| s.floor = 2.0,
        "Schedule::new: `floor` must be at most 1, got 2",
    );
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_before_any_step() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "kept").unwrap();
    let settings = small(Objective::Dpo, &file.join("out"));
    let start = format!("{}: cannot be written to: ", file.join("out").display());
    let message = quiet(&settings).unwrap_err().to_string();
    assert!(message.starts_with(&start), "{message}");
    assert_eq!(fs::read_to_string(file).unwrap(), "kept");
}

#[test]
fn settings_come_from_a_file_and_from_assignments() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("settings.json");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        Settings::read(&path).map_err(|error| error.to_string())
    };
    let found = read(r#"{"objective": "slic", "slic": {"delta": 2.0}, "steps": 7}"#).unwrap();
    assert_eq!(
        (found.objective, found.slic.delta, found.steps),
        (Objective::Slic, 2.0, 7)
    );
    assert_eq!(found.batch, Settings::default().batch);
    let unknown = read(r#"{"dpo": {"betta": 0.1}}"#).unwrap_err();
    assert!(
        unknown.contains("unknown field `betta`, expected `beta` or `label_smoothing`"),
        "{unknown}"
    );

    let with = |assignment: &str| {
        let changed = Settings::default().with(assignment);
        changed.map_err(|error| error.to_string())
    };
    assert_eq!(with("dpo.beta=0.5").unwrap().dpo.beta, 0.5);
    assert_eq!(with("slic_form=list").unwrap().slic_form, SlicForm::List);
    let form = with("reward_form=plackett_luce").unwrap().reward_form;
    assert_eq!(form, RewardForm::PlackettLuce);
    assert_eq!(
        with("data=a.jsonl").unwrap().data.as_deref(),
        Some(Path::new("a.jsonl"))
    );
    let words = with("classes.good.assistant=Well: ").unwrap();
    assert_eq!(words.classes.good.assistant, "Well: ");
    let weighting = with(r#"c_rlft.loss.weighting={"exponential": {"beta": 0.5}}"#).unwrap();
    assert_eq!(
        weighting.c_rlft.loss.weighting,
        ClassWeighting::Exponential { beta: 0.5 }
    );
    assert_eq!(with("brio.margin=0.5").unwrap().brio.margin, 0.5);
    assert_eq!(with("steps").unwrap_err(), "--set steps: must be KEY=VALUE");
    assert_eq!(
        with("dpo.gamma=1").unwrap_err(),
        "--set dpo.gamma=1: there is no setting `gamma`"
    );
    assert_eq!(
        with("steps=-1").unwrap_err(),
        "--set steps=-1: invalid value: integer `-1`, expected usize"
    );
}

#[test]
fn flags_go_over_the_file_and_assignments_over_flags() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("settings.json");
    fs::write(
        &path,
        r#"{"objective": "sft", "steps": 7, "batch": 5, "seed": 3}"#,
    )
    .unwrap();
    let flags = "--steps 8 --batch 6 --learning-rate 0.5 --set batch=9 --skip-bad-rows --ignore-field a --ignore-field b";
    let arguments = ["train", "--config", path.to_str().unwrap()];
    let arguments = arguments.into_iter().chain(flags.split(' '));
    let found = Arguments::try_parse_from(arguments)
        .unwrap()
        .settings()
        .unwrap();
    assert_eq!((found.seed, found.steps, found.batch), (3, 8, 9));
    assert_eq!(found.objective, Objective::Sft);
    // the learning rate of the objective that runs
    let default = Settings::default().learning_rate;
    assert_eq!(
        (found.sft_learning_rate, found.learning_rate),
        (0.5, default)
    );
    assert!(found.skip_bad_rows);
    assert_eq!(found.ignored_fields, ["a", "b"]);
}
