use crate::common::policy::distance;
use crate::common::table::learn;
use candle_align::language::revision::{Attempt, RevisionTemplate, Verdict};
use candle_align::{Result, Sequence, SftConfig, sft_loss};

/// What gradient descent reaches where the objective is smooth and strictly convex.
const REACHED: f64 = 1e-9;
const END: u32 = 4;

fn encode(text: &str) -> Result<Vec<u32>> {
    let symbol = |c: char| "ab+-$?".find(c).expect("a symbol") as u32;
    Ok(text.chars().map(symbol).collect())
}

#[test]
fn a_model_of_chains_answers_as_the_last_answers_of_the_data() {
    // the first answer is right (b) in 40 %; a wrong one is seen to be wrong in 75 %, and then
    // repaired in 90 %; a right one is never doubted
    let template = RevisionTemplate {
        feedback: String::new(),
        revision: String::new(),
    };
    let write = |attempts: &[(&str, &str)]| -> Result<Sequence> {
        let attempts: Vec<Attempt> = attempts
            .iter()
            .map(|&(answer, feedback)| Attempt {
                answer,
                feedback,
                verdict: match feedback {
                    "+" => Verdict::Stop,
                    _ => Verdict::Revise,
                },
            })
            .collect();
        template.sequence(&encode, "?", &attempts, END)
    };
    let chains: [(&[(&str, &str)], f64); 4] = [
        (&[("b", "+")], 0.4),
        (&[("a", "+")], 0.6 * 0.25),
        (&[("a", "-"), ("a", "+")], 0.6 * 0.75 * 0.1),
        (&[("a", "-"), ("b", "+")], 0.6 * 0.75 * 0.9),
    ];
    let sequences: Vec<Sequence> = chains.iter().map(|c| write(c.0).unwrap()).collect();
    let shares = chains.map(|c| c.1);
    let table = learn(&sequences, &shares, 6, (2.0, 400), |log_probs| {
        Ok(sft_loss(log_probs, None, &SftConfig::default())?.loss)
    });
    let after = |beginning: &str| &table[&encode(beginning).unwrap()];
    assert!(distance(&after("?")[..2], &[0.6, 0.4]) < REACHED);
    assert!(distance(&after("?a")[2..4], &[0.25, 0.75]) < REACHED);
    assert!(distance(&after("?a-")[..2], &[0.1, 0.9]) < REACHED);
    // one pass: right at once, or wrong, found out and repaired
    let right = after("?")[1] + after("?")[0] * after("?a")[3] * after("?a-")[1];
    assert!(
        (right - (0.4 + 0.6 * 0.75 * 0.9)).abs() < REACHED,
        "{right}"
    );
}
