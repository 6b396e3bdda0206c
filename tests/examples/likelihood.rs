#[path = "../../examples/likelihood.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod example;

use crate::assert_header_shows;
use example::{QUESTIONS, SENTENCE, random};

/// The most that a logit can be: the last norm gives a vector of length √d, and the output layer is the embedding.
fn bound(vocabulary: usize) -> f64 {
    let decoder = random(vocabulary).unwrap();
    let state = decoder.state_dict();
    let table = &state["model.embed_tokens.weight"];
    let rows = table.to_vec2::<f32>().unwrap();
    let length = |row: &Vec<f32>| row.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
    let longest = rows.iter().map(length).fold(0.0, f64::max);
    (rows[0].len() as f64).sqrt() * longest
}

#[test]
fn a_model_that_knows_nothing_takes_what_is_short() {
    let report = example::run(None).unwrap();
    // log P of any word is within 2B of −ln V
    let (uniform, spread) = (
        (report.vocabulary as f64).ln(),
        2.0 * bound(report.vocabulary),
    );
    let within = |found: f64, expected: f64| {
        assert!((found - expected).abs() <= spread, "{found} {expected}");
    };

    // n + 1 words cost more than n of them: (n + 1)(ln V − 2B) > n (ln V + 2B) for n = 1, 2
    assert!(uniform > 5.0 * spread, "{uniform} {spread}");
    assert_eq!(report.taken[0], [0; 9], "the sum");
    // bytes per word: a lead of more than the noise decides
    for (at, (question, choices, _)) in QUESTIONS.iter().enumerate() {
        let rate = |choice: &str| choice.len() as f64 / choice.split(' ').count() as f64;
        let taken = rate(choices[report.taken[2][at]]);
        let most = choices
            .iter()
            .map(|choice| rate(choice))
            .fold(0.0, f64::max);
        let lowest = (uniform - spread) / (uniform + spread);
        assert!(taken >= most * lowest, "{question}: {taken} {most}");
    }
    // what is left of the others is noise, and noise takes long choices too
    for taken in [&report.taken[1], &report.taken[3]] {
        assert!(taken.iter().any(|choice| *choice > 0), "{taken:?}");
    }

    for score in &report.gpt_scores {
        within(*score, -uniform);
    }
    for (score, mass) in report.g_eval.iter().zip(&report.mass) {
        // weights between e^−B and e^B move the mean of 1 to 5 by at most 2 (e^B − e^−B)/(e^B + e^−B)
        let most = 2.0 * (spread / 2.0).tanh();
        assert!((score - 3.0).abs() <= most, "{score}");
        within((mass / 5.0).ln(), -uniform);
    }
    assert!(SENTENCE.split(' ').count() > 3);
    assert_header_shows(
        include_str!("../../examples/likelihood.rs"),
        &report.table(),
    );
}

#[test]
fn a_vocabulary_without_a_word_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = r#"{"model": {"vocab": {"Ġa": 0}}}"#;
    std::fs::write(folder.path().join("tokenizer.json"), file).unwrap();
    let error = example::run(Some(folder.path())).err().unwrap().to_string();
    assert_eq!(error, "the vocabulary has no token for `.` alone");
}
