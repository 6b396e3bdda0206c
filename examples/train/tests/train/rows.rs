//! Runs on files with rows that must not be learned, or not completely.

use crate::runs::{metrics, quiet, small};
use std::fs;
use std::path::Path;
use train::data::Reason;
use train::objectives::Objective;
use train::report::Summary;
use train::settings::Settings;

fn settings(objective: Objective, folder: &Path, rows: &str) -> Settings {
    let data = folder.join("rows.jsonl");
    fs::write(&data, rows).unwrap();
    let mut settings = small(objective, &folder.join("out"));
    settings.data = Some(data);
    (settings.steps, settings.sft_steps, settings.batch) = (2, 2, 4);
    settings
}

/// The numbers of a run, and its messages.
fn run(objective: Objective, rows: &str) -> (String, Summary) {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(objective, folder.path(), rows);
    let summary = quiet(&settings).unwrap();
    let all: Vec<String> = metrics(&settings.out())
        .iter()
        .map(|m| m.to_string())
        .collect();
    (all.join("\n"), summary)
}

fn refusal(objective: Objective, rows: &str, change: fn(&mut Settings)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(objective, folder.path(), rows);
    change(&mut settings);
    let message = quiet(&settings).unwrap_err().to_string();
    message.replace(&format!("{}/", folder.path().display()), "")
}

fn row(i: usize, label: bool) -> String {
    format!(r#"{{"prompt": "number {i}", "completion": "answer {i}", "label": {label}}}"#)
}

fn join(rows: impl Iterator<Item = String>) -> String {
    rows.collect::<Vec<_>>().join("\n")
}

// ms-swift#4535, trl#2248
#[test]
fn supervised_steps_learn_right_answers_alone() {
    let all = join((0..12).map(|i| row(i, i % 3 > 0)));
    let right = join((0..12).filter(|i| i % 3 > 0).map(|i| row(i, true)));
    let (with, summary) = run(Objective::Sft, &all);
    assert_eq!(with, run(Objective::Sft, &right).0);
    assert_eq!(summary.tally.left_out, [(Reason::Wrong, 4)].into());
    let text = summary.to_string();
    assert!(
        text.contains("4 left out (an answer marked wrong)"),
        "{text}"
    );
    // solutions have their own marks
    let solution = |i: usize, right: bool| {
        format!(
            r#"{{"question": "number {i}", "a": {{"solution": "answer {i}", "is_correct": {right}}}}}"#
        )
    };
    let all = join((0..12).map(|i| solution(i, i % 3 > 0)));
    assert_eq!(run(Objective::Sft, &all).0, with);
}

#[test]
fn classes_take_both_kinds_and_the_steps_before_them_the_right_ones() {
    let all = join((0..12).map(|i| row(i, i % 3 > 0)));
    for objective in [Objective::ConditionalSft, Objective::CRlft] {
        let (learned, summary) = run(objective, &all);
        assert_eq!(summary.tally.reasons(), "nothing left out");
        assert_eq!(summary.train_examples + summary.held_out_examples, 12);
        // nothing is compared
        assert_eq!((summary.after.accuracy, summary.baselines), (None, None));
        // the rows differ only in the label
        let flipped = join((0..12).map(|i| row(i, i % 3 == 0)));
        assert_ne!(learned, run(objective, &flipped).0);
    }
    let wrong = join((0..4).map(|i| row(i, false)));
    assert_eq!(
        refusal(Objective::CRlft, &wrong, |_| {}),
        "rows.jsonl: supervised steps learn good answers, and there is none to train on; use --sft-steps 0"
    );
}

#[test]
fn unpaired_rows_are_refused_by_what_compares_answers() {
    let all = join((0..4).map(|i| row(i, i % 2 > 0)));
    for objective in [
        Objective::Dpo,
        Objective::Reward,
        Objective::SelfDebug,
        Objective::Selfee,
    ] {
        let expected = format!(
            "rows.jsonl: {objective} compares answers to one prompt, and each row has one answer with a \
             `label` (unpaired: 4); sft learns those that are right, conditional_sft and c_rlft learn both \
             kinds, and so do kto, bco and apo_zero_unpaired with --model"
        );
        assert_eq!(refusal(objective, &all, |_| {}), expected);
    }
    let wrong = join((0..4).map(|i| row(i, false)));
    assert_eq!(
        refusal(Objective::Sft, &wrong, |_| {}),
        "rows.jsonl: sft learns good answers, and every row has a `label` that is false"
    );
    // among usable rows they are counted
    let pair = |i: usize| format!(r#"{{"prompt": "{i}", "chosen": "a", "rejected": "b"}}"#);
    let mixed = join((0..4).map(pair).chain((0..3).map(|i| row(i, true))));
    let (_, summary) = run(Objective::Dpo, &mixed);
    assert_eq!(summary.tally.left_out, [(Reason::Unpaired, 3)].into());
}

// unsloth-zoo#1110
#[test]
fn an_answer_that_has_begun_is_compared_and_not_written_around() {
    let row = |i: usize| {
        format!(
            r#"{{"prompt": [{{"role": "user", "content": "number {i}"}}, {{"role": "assistant", "content": "It is"}}],
            "chosen": " {i}", "rejected": " not {i}"}}"#
        )
        .replace('\n', " ")
    };
    let rows = join((0..6).map(row));
    let (_, summary) = run(Objective::Dpo, &rows);
    assert_eq!(summary.tally.reasons(), "nothing left out");
    for objective in [Objective::ConditionalSft, Objective::Selfee] {
        assert_eq!(
            refusal(objective, &rows, |_| {}),
            format!(
                "rows.jsonl: no row is left that {objective} can learn from: 6 left out (an answer that \
                 has begun in the prompt)"
            )
        );
    }
}

#[test]
fn prompts_are_counted_once_and_rows_beside_them() {
    let pair = |i: usize| {
        let answer = i / 2;
        format!(
            r#"{{"prompt": "{}", "chosen": "a {answer}", "rejected": "b"}}"#,
            i % 5
        )
    };
    let (_, summary) = run(Objective::Dpo, &join((0..10).map(pair)));
    assert_eq!((summary.train_prompts, summary.held_out_prompts), (4, 1));
    assert_eq!((summary.train_rows, summary.held_out_rows), (8, 2));
    let text = summary.to_string();
    let line = "4 prompts to train on (in 8 rows, 8 pairs), 1 held out (in 2 rows, 2 pairs)";
    assert!(text.contains(line), "{text}");
}

#[test]
fn huge_lists_are_drawn_from_and_counted() {
    let list = |i: usize| {
        let answers: Vec<String> = (0..3000).map(|j| format!(r#""{j}""#)).collect();
        let ranks: Vec<String> = (0..3000).map(|j| j.to_string()).collect();
        let (answers, ranks) = (answers.join(", "), ranks.join(", "));
        format!(r#"{{"prompt": "{i}", "answers": [{answers}], "ranks": [{ranks}]}}"#)
    };
    let rows = join((0..2).map(list));
    let pairs = 3000 * 2999 / 2;
    let small = |settings: &mut Settings| (settings.max_pairs, settings.max_answers) = (6, 5);
    for (objective, examples) in [
        (Objective::Dpo, 6),
        (Objective::Rrhf, 1),
        (Objective::Selfee, 5),
        (Objective::ChainOfHindsight, 12),
        (Objective::Sft, 1),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(objective, folder.path(), &rows);
        small(&mut settings);
        settings.max_len = 160;
        let summary = quiet(&settings).unwrap();
        assert_eq!(summary.train_examples, examples, "{objective}");
        let tally = &summary.tally;
        match objective {
            Objective::Dpo => assert_eq!(tally.pairs_left_out, 2 * (pairs - 6)),
            // ten pairs of five answers
            Objective::ChainOfHindsight => assert_eq!(tally.pairs_left_out, 2 * (10 - 6)),
            _ => assert_eq!(tally.pairs_left_out, 0),
        }
        let thinned = tally.answers_left_out.get(&Reason::TooMany);
        let expected = (objective != Objective::Dpo).then_some(2 * (3000 - 5));
        assert_eq!(thinned.copied(), expected, "{objective}");
        let text = summary.to_string();
        let said = match objective {
            Objective::Dpo => "8996988 pairs left out (more than `max_pairs` of a prompt)",
            _ => "5990 single answers left out (more answers than are compared at a time)",
        };
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn what_is_made_at_most_is_checked() {
    let rows = row(0, true);
    assert_eq!(
        refusal(Objective::Sft, &rows, |s| s.max_pairs = 0),
        "`max_pairs` must be finite and > 0, got 0"
    );
    assert_eq!(
        refusal(Objective::Sft, &rows, |s| s.max_answers = 1),
        "`max_answers` must be at least 2, got 1"
    );
}
