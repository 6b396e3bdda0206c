//! Answers with a label: their rows, KTO's baseline, BCO's running mean.

use super::{CHAT, Case, LISTS, SOLUTIONS, alone, model, near, number};
use candle_align::decoder::{Decoder, Load};
use train::checkpoint::fit::{Fitting, Logged};
use train::checkpoint::objective::unpaired::Unpaired;
use train::checkpoint::objective::{Objective, Reference, Text};

const LABELED: &str = r#"{"prompt": "One", "completion": " two", "label": true}
{"prompt": "A, ", "completion": "b, c", "label": false}
{"prompt": "1, 2", "completion": ", 3", "label": true}
{"prompt": "Up", "completion": "?", "label": false}
"#;

fn unpaired(case: &Case) -> Unpaired {
    match case.objective() {
        Objective::Unpaired(all) => all,
        _ => panic!("not unpaired"),
    }
}

/// What each row says, and its label.
fn said(case: &Case) -> Vec<(String, bool)> {
    let all = unpaired(case).rows.into_iter();
    all.map(|row| (case.said(&row.text), row.desirable))
        .collect()
}

fn frozen() -> Decoder {
    let other = model(2, Some(CHAT));
    Decoder::load(other.path(), &Load::default()).unwrap()
}

#[test]
fn rows_with_a_label_are_read_as_texts_or_messages() {
    let expected = |text: &str, label| (text.to_string(), label);
    assert_eq!(
        said(&Case::new("kto", LABELED, &[]))[..2],
        [
            expected("One[ two<|im_end|>]", true),
            expected("A, [b, c<|im_end|>]", false)
        ]
    );
    let chat = r#"{"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "c"}], "label": false}"#;
    let turns = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[c<|im_end|>\n]";
    assert_eq!(said(&Case::new("bco", chat, &[])), [expected(turns, false)]);
}

/// As `unpair_preference_dataset` has it: all chosen answers, then all rejected ones.
#[test]
fn a_pair_gives_a_desirable_row_and_an_undesirable_one() {
    let pairs = r#"{"prompt": "a", "chosen": "b", "rejected": "c"}
{"prompt": "d", "chosen": "e", "rejected": "f"}"#;
    let found = said(&Case::new("kto", pairs, &[]));
    let of = |text: &str, label| (format!("{text}<|im_end|>]"), label);
    let expected = [
        of("a[b", true),
        of("d[e", true),
        of("a[c", false),
        of("d[f", false),
    ];
    assert_eq!(found, expected);
    let implicit = r#"{"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]}"#;
    let asked = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[";
    let found = said(&Case::new("apo_zero_unpaired", implicit, &[]));
    let expected = [("b", true), ("c", false)]
        .map(|(answer, label)| (format!("{asked}{answer}<|im_end|>\n]"), label));
    assert_eq!(found, expected);
}

#[test]
fn other_files_give_each_answer_with_its_class() {
    let found = said(&Case::new("kto", SOLUTIONS, &[]));
    let labels: Vec<bool> = found.iter().map(|(_, label)| *label).collect();
    let right = [
        true, false, true, false, true, true, false, true, false, false,
    ];
    assert_eq!(labels, right);
    // the best answers to a prompt, and the others
    let found = said(&Case::new("kto", LISTS, &[]));
    let good = found.iter().filter(|(_, label)| *label);
    assert_eq!((found.len(), good.count()), (9, 3));
    assert!(found[1].1 && found[1].0.contains("[An apple.<"));
}

/// Σ log π of an answer after a prompt.
fn sum(decoder: &Decoder, prompt: &[u32], answer: &[u32]) -> f64 {
    alone(decoder, &Text::answer(prompt, answer)).0
}

/// z₀ of a batch: its prompts, each with the answer of the row before.
fn baseline(all: &Unpaired, batch: &[usize], policy: &Decoder, reference: &Decoder) -> f64 {
    let mut z = 0.0;
    for (at, row) in batch.iter().enumerate() {
        let before = batch[(at + batch.len() - 1) % batch.len()];
        let (prompt, answer) = (&all.rows[*row].prompt, &all.rows[before].answer);
        z += sum(policy, prompt, answer) - sum(reference, prompt, answer);
    }
    (z / batch.len() as f64).max(0.0)
}

#[test]
fn kto_is_around_the_baseline_of_its_micro_batch() {
    let sets = [r#"since.kto={"beta": 0.2, "desirable_weight": 1.5, "undesirable_weight": 0.75}"#];
    let case = Case::new("kto", LABELED, &sets);
    let all = unpaired(&case);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let mut baselines = Vec::new();
    for swapped in [false, true] {
        let (policy, reference) = match swapped {
            false => (case.decoder(), frozen()),
            true => (frozen(), case.decoder()),
        };
        let window = [vec![0, 1, 2], vec![3]];
        let mut expected = 0.0;
        for batch in &window {
            let z = baseline(&all, batch, &policy, &reference);
            baselines.push(z);
            let each = batch.iter().map(|row| {
                let row = &all.rows[*row];
                let of = |decoder: &Decoder| sum(decoder, &row.prompt, &row.answer);
                let above = 0.2 * (of(&policy) - of(&reference) - z);
                match row.desirable {
                    true => 1.5 * sigmoid(-above),
                    false => 0.75 * sigmoid(above),
                }
            });
            expected += each.sum::<f64>() / batch.len() as f64 / 2.0;
        }
        let reference = Reference::Frozen(Box::new(reference));
        let objective = case.objective();
        let found: f64 = window
            .iter()
            .map(|rows| {
                let loss = objective.loss(&policy, &reference, rows, &window, None);
                number(&loss.unwrap().loss)
            })
            .sum();
        near("kto", found, expected);
    }
    // the baseline is cut at 0, and not always
    assert!(baselines.contains(&0.0) && baselines.iter().any(|z| *z > 0.1));
}

#[test]
fn a_prompt_with_another_rows_answer_is_cut_like_a_row() {
    let case = Case::new("kto", LABELED, &["max_length=6"]);
    let all = unpaired(&case);
    let found: Vec<String> = all
        .mismatched(&[1, 2])
        .iter()
        .map(|text| case.said(text))
        .collect();
    assert_eq!(found, ["A, [, 3]", "1, 2[b,]"]);
}

fn run(case: &Case, batch: usize, accumulation: usize) -> Vec<Logged> {
    let mut decoder = case.decoder();
    let reference = Reference::Frozen(Box::new(case.decoder()));
    let mut settings = case.settings.fit.clone();
    (settings.batch, settings.accumulation) = (batch, accumulation);
    settings.max_steps = Some(4);
    let objective = case.objective();
    let mut fitting = Fitting::new(&decoder, &objective, reference, &settings).unwrap();
    let mut lines = Vec::new();
    fitting
        .run(&mut decoder, 0, |line| {
            lines.push(line.clone());
            Ok(())
        })
        .unwrap();
    assert_eq!(fitting.shift().count, 16);
    lines
}

/// δ is the mean reward of all answers of the steps before: micro-batches are one batch.
#[test]
fn bco_is_around_the_mean_reward_of_the_steps_before() {
    let case = Case::new("bco", LABELED, &["since.bco.beta=0.5"]);
    let lines = run(&case, 4, 1);
    let mut seen = Vec::new();
    for line in &lines {
        let labels = line.labels.unwrap();
        let mean = seen.iter().sum::<f64>() / seen.len().max(1) as f64;
        near("δ", labels.baseline, mean);
        // two answers of each label
        seen.push((labels.chosen.unwrap() + labels.rejected.unwrap()) / 2.0);
    }
    assert!(lines[3].labels.unwrap().baseline.abs() > 1e-3);
    near("the first loss", lines[0].loss, 2f64.ln());
    for (one, other) in lines.iter().zip(run(&case, 1, 4)) {
        near("loss", other.loss, one.loss);
        near("norm", other.grad_norm, one.grad_norm);
        near(
            "δ",
            other.labels.unwrap().baseline,
            one.labels.unwrap().baseline,
        );
    }
}
