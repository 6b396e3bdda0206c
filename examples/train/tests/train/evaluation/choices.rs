//! Multiple choice: the four scores, and what is before a choice.

use super::{Case, bytes, last, load, numbers, whole};
use crate::objectives::{CHAT, golden, model, near};
use candle_align::decoder::Decoder;
use candle_align::peft::{AdapterMethod, LoraFile};
use candle_core::Tensor;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use std::fs;
use tempfile::TempDir;

/// Questions whose choices have different lengths; two bytes for one letter in the last.
const ROWS: &str = r#"{"question": "What is up?", "choices": ["the sky", "a", "mud and rain"], "answer": 0}
{"query": "1+1", "choices": {"text": ["two", "12"], "label": ["A", "B"]}, "gold": "A"}
{"goal": "Peel it.", "sol1": "With a knife, slowly", "sol2": "Don't", "label": 0}
{"ctx": "She said", "endings": ["so", "é à la carte", "that", "nothing of it"], "label": "3"}
"#;

/// The same in full: question, choices, the right one.
const QUESTIONS: [(&str, &[&str], usize); 4] = [
    ("What is up?", &["the sky", "a", "mud and rain"], 0),
    ("1+1", &["two", "12"], 0),
    ("Peel it.", &["With a knife, slowly", "Don't"], 0),
    (
        "She said",
        &["so", "é à la carte", "that", "nothing of it"],
        3,
    ),
];

/// The four scores of each choice, from whole logits.
fn scores(
    decoder: &Decoder,
    before: &[u32],
    alone: &[u32],
    choices: &[Vec<u32>],
    bytes: &[usize],
) -> [Vec<f64>; 4] {
    let after = |before: &[u32], choice: &[u32]| {
        let log_probs = whole(decoder, &[before, choice].concat());
        last(&log_probs, choice.len())
    };
    let sum: Vec<f64> = choices.iter().map(|choice| after(before, choice)).collect();
    let per = |count: &dyn Fn(usize) -> usize| -> Vec<f64> {
        let each = sum.iter().enumerate();
        each.map(|(at, sum)| sum / count(at) as f64).collect()
    };
    let tokens = per(&|at| choices[at].len());
    let bytes = per(&|at| bytes[at]);
    let less = sum.iter().zip(choices);
    let less = less.map(|(sum, choice)| sum - after(alone, choice));
    let less = less.collect();
    [sum, tokens, bytes, less]
}

const NAMES: [&str; 4] = ["sum", "per_token", "per_byte", "unconditional"];

fn best(scores: &[f64]) -> usize {
    (0..scores.len())
        .max_by(|a, b| scores[*a].total_cmp(&scores[*b]))
        .unwrap()
}

/// A run of [`ROWS`] whose questions have these prompts, beside the same from whole logits.
fn compare(
    case: &Case,
    decoder: &Decoder,
    prompt: &dyn Fn(usize) -> String,
    alone: &str,
    blank: &str,
) {
    let (all, rows) = case.written();
    assert_eq!(rows.len(), 4);
    let mut right = [0.0; 4];
    for (at, (row, (_, choices, answer))) in rows.iter().zip(QUESTIONS).enumerate() {
        let tokens: Vec<Vec<u32>> = choices
            .iter()
            .map(|choice| bytes(&format!("{blank}{choice}")))
            .collect();
        let lengths: Vec<usize> = choices.iter().map(|choice| choice.len()).collect();
        let (before, alone) = (bytes_and_marks(&prompt(at)), bytes_and_marks(alone));
        let expected = scores(decoder, &before, &alone, &tokens, &lengths);
        assert_eq!(row["line"], at + 1);
        assert_eq!(row["answer"], answer);
        for ((name, of), right) in NAMES.iter().zip(&expected).zip(&mut right) {
            let found = numbers(&row["scores"][name]);
            assert_eq!(found.len(), of.len());
            for ((found, of), sum) in found.iter().zip(of).zip(&expected[0]) {
                // a difference is as exact as its terms
                let size = match *name {
                    "unconditional" => sum.abs().max(1.0),
                    _ => 1.0,
                };
                near(
                    &format!("{name} of line {}", at + 1),
                    found / size,
                    of / size,
                );
            }
            assert_eq!(row["chosen"][name], best(of), "{name}");
            *right += f64::from(best(of) == answer);
        }
        let counts: Vec<usize> = tokens.iter().map(Vec::len).collect();
        assert_eq!(row["tokens"], Value::from(counts));
        assert_eq!(row["bytes"], Value::from(lengths));
    }
    let figures = &all["multiple_choice"];
    for (name, right) in NAMES.iter().zip(right) {
        let share = right / 4.0;
        let found = &figures["scores"][name];
        near(name, found["accuracy"].as_f64().unwrap(), share);
        // s/√n of four zeros and ones
        let error = (share * (1.0 - share) / 3.0f64).sqrt();
        near(name, found["error"].as_f64().unwrap(), error);
        let taken = QUESTIONS.iter().zip(&rows).map(|((_, choices, _), row)| {
            let taken = row["chosen"][name].as_u64().unwrap();
            choices[taken as usize].len() as f64
        });
        near(
            name,
            found["chosen_bytes"].as_f64().unwrap(),
            taken.sum::<f64>() / 4.0,
        );
    }
    near(
        "chance",
        figures["chance"].as_f64().unwrap(),
        (1.0 / 3.0 + 0.5 + 0.5 + 0.25) / 4.0,
    );
    near(
        "right",
        figures["right_bytes"].as_f64().unwrap(),
        (7.0 + 3.0 + 20.0 + 13.0) / 4.0,
    );
}

/// Bytes, and the two marks of turns.
fn bytes_and_marks(text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    for part in text.split_inclusive("<|im_start|>") {
        let (part, start) = match part.strip_suffix("<|im_start|>") {
            Some(part) => (part, true),
            None => (part, false),
        };
        for (at, part) in part.split("<|im_end|>").enumerate() {
            ids.extend((at > 0).then_some(257));
            ids.extend(bytes(part));
        }
        ids.extend(start.then_some(256));
    }
    ids
}

#[test]
fn every_score_is_that_of_whole_logits_in_plain_text() {
    let case = Case::new("multiple_choice", ROWS, &[]);
    let prompt = |at: usize| match at {
        3 => "She said".to_string(),
        at => format!("Question: {}\nAnswer:", QUESTIONS[at].0),
    };
    compare(&case, &case.decoder(), &prompt, "Answer:", " ");
    assert_eq!(case.written().0["chat_template"], Value::Null);
}

#[test]
fn every_score_is_that_of_whole_logits_under_a_chat_template() {
    let turn = |said: &str| format!("<|im_start|>user\n{said}<|im_end|>\n<|im_start|>assistant\n");
    let case = Case::on(model(2, Some(CHAT)), "multiple_choice", ROWS, &[]);
    let prompt = |at: usize| turn(QUESTIONS[at].0);
    compare(&case, &case.decoder(), &prompt, &turn("Answer:"), "");
    let name = case.model.path().join("chat_template.jinja");
    assert_eq!(
        case.written().0["chat_template"],
        name.display().to_string()
    );

    // off, with prompts of one's own
    let sets = [
        "chat=false",
        r#"multiple_choice.prompt="{{Q}} {question} ->\n""#,
        "multiple_choice.without_question=->",
    ];
    let case = Case::on(model(2, Some(CHAT)), "multiple_choice", ROWS, &sets);
    let decoder = case.decoder();
    let (_, rows) = case.written();
    let (_, choices, _) = QUESTIONS[1];
    let after = |prompt: &str, choice: &str| {
        let log_probs = whole(&decoder, &bytes(&format!("{prompt}{choice}")));
        last(&log_probs, choice.len())
    };
    for (at, choice) in choices.iter().enumerate() {
        // no second blank after the line end
        let sum = after("{Q} 1+1 ->\n", choice);
        near("own prompt", numbers(&rows[1]["scores"]["sum"])[at], sum);
        let less = after("{Q} 1+1 ->\n", choice) - after("->", &format!(" {choice}"));
        let expected = less;
        near(
            "own words",
            numbers(&rows[1]["scores"]["unconditional"])[at],
            expected,
        );
    }
}

#[test]
fn how_many_tokens_go_through_the_model_at_a_time_changes_nothing() {
    let rows = |most: &str| Case::new("multiple_choice", ROWS, &[most]).written().1;
    let (one, all) = (rows("max_tokens=1"), rows("max_tokens=100000"));
    for (one, all) in one.iter().zip(&all) {
        for name in NAMES {
            let both = numbers(&one["scores"][name]).into_iter();
            for (one, all) in both.zip(numbers(&all["scores"][name])) {
                near(name, one, all);
            }
        }
    }
}

#[test]
fn an_adapter_is_evaluated_with_its_model() {
    let folder = model(3, None);
    let mut adapted = load(folder.path());
    let text = r#"{"rank": 2, "alpha": 4.0, "targets": {"target_modules": "all-linear"}}"#;
    let lora = AdapterMethod::Lora(LoraFile {
        model: serde_json::from_str(text).unwrap(),
        ..LoraFile::default()
    });
    let mut rng = StdRng::seed_from_u64(4);
    adapted
        .add_adapter("default", &lora.into(), &mut rng)
        .unwrap();
    for (at, (_, var)) in adapted.vars().iter().enumerate() {
        let numbers = (0..var.elem_count()).map(|i| 0.4 * ((i + 5 * at) as f32).sin());
        let values = Tensor::from_vec(numbers.collect(), var.shape(), var.device());
        var.set(&values.unwrap()).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    adapted.save_adapter("default", dir.path()).unwrap();

    let set = format!("adapter_dir={}", dir.path().display());
    let case = Case::on(folder, "multiple_choice", ROWS, &[&set]);
    let prompt = |at: usize| match at {
        3 => "She said".to_string(),
        at => format!("Question: {}\nAnswer:", QUESTIONS[at].0),
    };
    let merged = adapted.merge_adapter("default").unwrap();
    compare(&case, &merged, &prompt, "Answer:", " ");

    // a base of another name is said in the report
    let notice = || case.run().unwrap().to_string().contains("  notice    ");
    assert!(!notice());
    let path = dir.path().join("adapter_config.json");
    let config = fs::read_to_string(&path).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["base_model_name_or_path"] = "org/Other-1B".into();
    fs::write(&path, config.to_string()).unwrap();
    assert!(notice());
}

/// A model of 40 words with the tokenizer of a golden folder.
fn of_words(tokenizer: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = golden("../../tests/golden/checkpoints/llama");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(from.join(file), folder.path().join(file)).unwrap();
    }
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let from = golden("tests/golden").join(tokenizer).join(file);
        fs::copy(from, folder.path().join(file)).unwrap();
    }
    folder
}

const WORDS: &str = r#"{"question": "t8 t9", "choices": ["t10", "t11 t12 t13"], "answer": "B"}"#;
const BEGIN: u32 = 1;

/// The four scores of both choices of [`WORDS`] after these ids.
fn of_ids(case: &Case, before: &[u32], alone: &[u32]) {
    let choices = [vec![10], vec![11, 12, 13]];
    let expected = scores(&case.decoder(), before, alone, &choices, &[3, 11]);
    let (_, rows) = case.written();
    for (name, expected) in NAMES.iter().zip(expected) {
        for (found, expected) in numbers(&rows[0]["scores"][name]).iter().zip(expected) {
            near(name, *found, expected);
        }
    }
}

#[test]
fn the_begin_token_of_a_tokenizer_is_before_both_prompts() {
    let sets = [
        "multiple_choice.prompt=t5 {question} t6",
        "multiple_choice.without_question=t6",
    ];
    let case = Case::on(of_words("begun"), "multiple_choice", WORDS, &sets);
    of_ids(&case, &[BEGIN, 5, 8, 9, 6], &[BEGIN, 6]);
    // the same without it in the tokenizer
    let case = Case::on(of_words("words"), "multiple_choice", WORDS, &sets);
    of_ids(&case, &[5, 8, 9, 6], &[6]);
}

#[test]
fn a_choice_with_nothing_before_it_follows_the_begin_token() {
    let sets = [
        "multiple_choice.prompt=t5 {question}",
        "multiple_choice.without_question=",
    ];
    // the first token of a row is never predicted: without one before it a choice would lose its first word
    for tokenizer in ["words", "begun"] {
        let case = Case::on(of_words(tokenizer), "multiple_choice", WORDS, &sets);
        let begun: &[u32] = if tokenizer == "begun" { &[BEGIN] } else { &[] };
        of_ids(&case, &[begun, &[5, 8, 9]].concat(), &[BEGIN]);
    }
}

#[test]
fn a_choice_that_merges_with_the_end_of_its_prompt_counts_from_where_they_differ() {
    let folder = of_words("words");
    let template = folder.path().join("chat_template.jinja");
    fs::write(template, "{{ messages[0].content }} t1").unwrap();
    // "t8 t1" with "0" is t8, t10
    let row = r#"{"question": "t8", "choices": ["0", "1 t5"], "answer": 0}"#;
    let set = "multiple_choice.without_question=t9";
    let case = Case::on(folder, "multiple_choice", row, &[set]);
    let choices = [vec![10], vec![11, 5]];
    let expected = scores(&case.decoder(), &[8], &[9], &choices, &[1, 4]);
    let (all, rows) = case.written();
    for (name, expected) in NAMES.iter().zip(expected) {
        for (found, expected) in numbers(&rows[0]["scores"][name]).iter().zip(expected) {
            near(name, *found, expected);
        }
    }
    assert_eq!(all["rows"]["moved_answers"], 1);
}
