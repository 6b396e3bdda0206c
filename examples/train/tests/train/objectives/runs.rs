//! Whole runs of every objective, and what is measured on held-out rows.

use super::{CHAT, Case, LISTS, SOLUTIONS, alone, model, near};
use candle_align::decoder::Decoder;
use candle_core::Tensor;
use clap::ValueEnum;
use indicatif::ProgressBar;
use serde_json::Value;
use std::fs;
use train::checkpoint::evaluate::scores;
use train::checkpoint::fit::Fitting;
use train::checkpoint::load::start;
use train::checkpoint::objective::{Objective, Reference};
use train::checkpoint::prepare::prepare;
use train::checkpoint::run::run;
use train::checkpoint::settings::Learned;
use train::world::single::Single;

const LORA: &str = r#"adapter={"r": 2, "lora_alpha": 4}"#;

/// Every objective with each of its losses.
pub(super) fn all() -> Vec<(String, Vec<&'static str>)> {
    let mut all = Vec::new();
    let all_rows = Learned::value_variants().iter();
    for objective in all_rows.filter(|objective| !objective.is_online()) {
        let forms: &[&[&str]] = match objective {
            Learned::Reward => &[
                &["reward_form=pairs"],
                &["reward_form=choose_best"],
                &["reward_form=plackett_luce"],
            ],
            Learned::Slic => &[
                &["slic_form=rank", "slic_kl_weight=0.5"],
                &["slic_form=margin"],
                &["slic_form=list"],
                &["slic_form=expected_reward"],
            ],
            Learned::Sft => &[&[], &["sft_form=dft"], &["sft_form=eaft", "eaft.k=3"]],
            Learned::Ipo => &[
                &["since.divergence=forward_kl"],
                &["since.ipo.log_ratio=mean"],
            ],
            Learned::Orpo => &[
                &[],
                &[r#"since.orpo={"likelihood": "micro_batch", "covers": "prompt_and_answer"}"#],
            ],
            Learned::Tpo => &[
                &[],
                &[
                    r#"since.tpo={"log_prob": "mean", "margin": {"gamma": 0.5}, "likelihood": "micro_batch"}"#,
                ],
            ],
            _ => &[&[]],
        };
        all.extend(
            forms
                .iter()
                .map(|form| (objective.to_string(), form.to_vec())),
        );
    }
    all
}

/// The rows that an objective can learn from.
pub(super) fn rows(objective: &str) -> &'static str {
    match objective {
        "self_debug" | "c_rlft" => SOLUTIONS,
        _ => LISTS,
    }
}

#[test]
fn every_objective_trains_in_full_and_under_lora() {
    assert_eq!(all().len(), 15 + 27 + 5 + 3 + 1 + 2 + 3 + 2 + 1 + 1 + 1);
    for (objective, sets) in all() {
        for adapter in [None, Some(LORA)] {
            let sets: Vec<&str> = sets.iter().copied().chain(adapter).collect();
            let case = Case::new(&objective, rows(&objective), &sets);
            let what = format!("{objective} {sets:?}");
            let (mut decoder, reference) = start(&case.settings).unwrap();
            let prepared = prepare(&case.settings, &decoder, Default::default()).unwrap();
            let copies = |decoder: &Decoder| -> Vec<(String, Tensor)> {
                let vars = decoder.vars().into_iter();
                vars.map(|(name, var)| (name, var.as_tensor().copy().unwrap()))
                    .collect()
            };
            let before = copies(&decoder);
            let mut fitting =
                Fitting::new(&decoder, &prepared.train, reference, &case.settings.fit).unwrap();
            let mut steps = 0;
            fitting
                .run(&mut decoder, 0, |line| {
                    assert!(
                        line.loss.is_finite() && line.grad_norm > 0.0,
                        "{what}: {line:?}"
                    );
                    steps += 1;
                    Ok(())
                })
                .unwrap();
            assert_eq!(steps, 3);
            for ((name, before), (_, after)) in before.iter().zip(&copies(&decoder)) {
                let moved = (before - after)
                    .unwrap()
                    .abs()
                    .unwrap()
                    .flatten_all()
                    .unwrap();
                let moved = moved.max_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(
                    moved > 0.0 && moved.is_finite(),
                    "{what}: {name} moved by {moved}"
                );
            }
        }
    }
}

#[test]
fn a_run_measures_what_orders_the_answers() {
    for (objective, mut sets) in all() {
        sets.extend(["held_out=0.5", "fit.accumulation=2", "recompute=true", LORA]);
        // a pair of the same prompt twice would be in one half
        let mut rows = rows(&objective).to_string();
        rows += &rows
            .replace("1+", "7+")
            .replace("Hi", "Ho")
            .replace("Say", "Tell me");
        let case = Case::new(&objective, &rows, &sets);
        run(&case.settings, false, &ProgressBar::hidden(), &|_| false)
            .unwrap_or_else(|error| panic!("{objective}: {error}"));
        let out = case.dir.path().join("out");
        let lines = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let held: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line["split"] == "held_out")
            .collect();
        assert!(held.len() >= 2, "{objective}");
        for line in held {
            let accuracy = line["accuracy"].as_f64().unwrap_or(-1.0);
            assert!((0.0..=1.0).contains(&accuracy), "{objective}: {line}");
            assert!(
                line["accuracy_error"].as_f64().is_some(),
                "{objective}: {line}"
            );
            assert!(
                line["loss"].as_f64().is_some_and(f64::is_finite),
                "{objective}"
            );
        }
        assert!(out.join("adapter/adapter_model.safetensors").exists());
        let curves = fs::read_to_string(out.join("curves.svg")).unwrap();
        assert!(curves.contains("pairs ordered right"), "{objective}");
    }
}

/// Sum and number of the covered tokens of an answer after `words`.
fn log_p(case: &Case, words: &str, answer: &str) -> (f64, f64) {
    let asked = format!("<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n{words}");
    let end = match words {
        "" => "<|im_end|>\n",
        _ => "<|im_end|>",
    };
    let answer = format!("{answer}{end}");
    alone(
        &case.decoder(),
        &case.text(&[(false, &asked), (true, &answer)]),
    )
}

fn per_token(case: &Case, answer: &str) -> f64 {
    let (sum, count) = log_p(case, "", answer);
    sum / count
}

fn sum(case: &Case, answer: &str) -> f64 {
    log_p(case, "", answer).0
}

fn by_class(case: &Case, answer: &str) -> f64 {
    log_p(case, "Good answer: ", answer).0 - log_p(case, "Bad answer: ", answer).0
}

fn by_feedback(case: &Case, answer: &str) -> f64 {
    let under = |words| log_p(case, words, answer).0;
    under("\nA good answer: ") - under("\nA poor answer: ")
}

/// The score that an objective gives an answer.
type Score = fn(&Case, &str) -> f64;

#[test]
fn held_out_accuracy_and_margin_are_those_of_the_score() {
    let held = r#"{"prompt": "Q", "answers": ["one", "three", "2 and 2"], "rewards": [2, 1, 0]}"#;
    let all: [(&str, &[&str], Score); 7] = [
        ("sft", &[], per_token),
        ("pro", &[], per_token),
        ("slic", &["slic_form=list"], sum),
        ("brio", &["brio.length_power=0"], sum),
        ("conditional_sft", &[], by_class),
        ("c_rlft", &[], by_class),
        ("chain_of_hindsight", &[], by_feedback),
    ];
    for (objective, sets, score) in all {
        let mut case = Case::new(objective, LISTS, sets);
        let file = case.dir.path().join("held_out.jsonl");
        fs::write(&file, held).unwrap();
        case.settings.held_out_file = Some(file);
        let prepared = case.prepared().unwrap();
        let decoder = case.decoder();
        let found = scores(
            &prepared.held_out.unwrap(),
            &decoder,
            &Reference::AdapterOff,
            &case.settings.fit,
            &Default::default(),
            &Single,
        );
        let found = found.unwrap();
        let [a, b, c] = ["one", "three", "2 and 2"].map(|answer| score(&case, answer));
        let pairs = [(a, b), (a, c), (b, c)];
        let right = pairs
            .iter()
            .filter(|(better, worse)| better > worse)
            .count();
        let margin: f64 = pairs.iter().map(|(better, worse)| better - worse).sum();
        near(objective, found.accuracy.unwrap(), right as f64 / 3.0);
        near(objective, found.margin.unwrap(), margin / 3.0);
        // one prompt says nothing about others
        assert_eq!(found.accuracy_error, None, "{objective}");
    }
}

#[test]
fn rows_with_a_label_train_both_classes() {
    let rows = r#"{"prompt": "a", "completion": "b", "label": true}
{"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "c"}], "label": false}
{"messages": [{"role": "user", "content": "d"}, {"role": "assistant", "content": "e"}], "label": true}"#;
    for objective in ["c_rlft", "conditional_sft", "sft"] {
        let case = Case::on(model(1, Some(CHAT)), objective, rows, &[]);
        let expected = if objective == "sft" { 2 } else { 3 };
        let prepared = case.prepared().unwrap();
        assert_eq!(prepared.train.len(), expected, "{objective}");
        if let Objective::Answers(answers) = &prepared.train {
            let rewards: Vec<f32> = answers.rows.iter().map(|answer| answer.reward).collect();
            assert_eq!(rewards, [1.0, 0.1, 1.0]);
        }
    }
}
