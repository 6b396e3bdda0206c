use crate::common::policy::{REFERENCE, REWARDS, distance};
use crate::common::sigma;
use crate::common::table::{Table, learn};
use candle_align::language::LearnedAnswers;
use candle_align::language::chain_of_hindsight::{
    HindsightFeedback, HindsightFormat, HindsightOrder, HindsightPair, hindsight_prompt,
    hindsight_sequence,
};
use candle_align::{HindsightConfig, Result, Sequence, chain_of_hindsight_loss};

/// What gradient descent reaches where the objective is smooth and strictly convex.
const REACHED: f64 = 1e-9;
const END: u32 = 4;
const SYMBOLS: usize = 8;
const ANSWERS: [&str; 4] = ["a", "b", "c", "d"];

fn encode(text: &str) -> Result<Vec<u32>> {
    let symbol = |c: char| "abcd$?+-".find(c).expect("a symbol") as u32;
    Ok(text.chars().map(symbol).collect())
}

fn feedback() -> HindsightFeedback {
    HindsightFeedback {
        good: "+".into(),
        bad: "-".into(),
    }
}

/// Answer i preferred to answer j, for all (i, j), and how often that is seen: two draws of the
/// reference, i = j included, of which i wins with P(i over j).
fn comparisons(wins: impl Fn(usize, usize) -> f64) -> Vec<(usize, usize, f64)> {
    (0..16)
        .map(|pair| (pair / 4, pair % 4))
        .map(|(i, j)| (i, j, 2.0 * REFERENCE[i] * REFERENCE[j] * wins(i, j)))
        .collect()
}

fn bradley_terry(i: usize, j: usize) -> f64 {
    sigma(REWARDS[i] - REWARDS[j])
}

/// The answer of higher reward always wins.
fn certain(i: usize, j: usize) -> f64 {
    match REWARDS[i].total_cmp(&REWARDS[j]) {
        std::cmp::Ordering::Less => 0.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Greater => 1.0,
    }
}

/// A table learned from comparisons written in one order.
fn hindsight(
    order: HindsightOrder,
    learned: LearnedAnswers,
    wins: impl Fn(usize, usize) -> f64,
) -> Table {
    let seen: Vec<_> = comparisons(wins)
        .into_iter()
        .filter(|c| c.2 > 0.0)
        .collect();
    let format = HindsightFormat {
        feedback: feedback(),
        order,
        learned,
    };
    let write = |&(i, j, _): &(usize, usize, f64)| {
        let pair = HindsightPair {
            prompt: "?",
            good: ANSWERS[i],
            bad: ANSWERS[j],
        };
        hindsight_sequence(&encode, &pair, &format, END)
    };
    let sequences: Vec<Sequence> = seen
        .iter()
        .map(write)
        .collect::<Result<_>>()
        .expect("written");
    let shares: Vec<f64> = seen.iter().map(|c| c.2).collect();
    learn(&sequences, &shares, SYMBOLS, (2.0, 400), |log_probs| {
        let loss = chain_of_hindsight_loss(log_probs, None, &HindsightConfig::default())?;
        Ok(loss.hindsight.loss)
    })
}

/// P(answer│the prompt for a good one).
fn asked_for_good(table: &Table) -> Vec<f64> {
    let prompt = hindsight_prompt(&encode, "?", &feedback()).expect("a prompt");
    table[&prompt][..4].to_vec()
}

/// 2pᵢ Σⱼ pⱼ P(i over j).
fn winners(wins: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut total = vec![0.0; 4];
    comparisons(wins)
        .iter()
        .for_each(|&(i, _, share)| total[i] += share);
    total
}

#[test]
fn asked_for_a_good_answer_it_draws_from_the_winners() {
    let table = hindsight(
        HindsightOrder::GoodThenBad,
        LearnedAnswers::Every,
        bradley_terry,
    );
    let pi = asked_for_good(&table);
    assert!(distance(&pi, &winners(bradley_terry)) < REACHED, "{pi:?}");
    let known = [0.2944886819, 0.3562856638, 0.1921953943, 0.1570302601];
    assert!(distance(&pi, &known) < 1e-9, "{pi:?}");
    // a tilt of at most 2, a KL of at most log 2 − ½
    assert!((0..4).all(|i| pi[i] < 2.0 * REFERENCE[i]));
    let kl: f64 = (0..4).map(|i| pi[i] * (pi[i] / REFERENCE[i]).ln()).sum();
    assert!((kl - 0.0343).abs() < 5e-5 && kl < 2f64.ln() - 0.5, "{kl}");
    let reward: f64 = (0..4).map(|i| pi[i] * REWARDS[i]).sum();
    assert!((reward - 0.7664).abs() < 5e-5, "{reward}");
}

#[test]
fn without_noise_it_is_the_best_of_two() {
    let table = hindsight(HindsightOrder::GoodThenBad, LearnedAnswers::Every, certain);
    let pi = asked_for_good(&table);
    // (reward up to r)² − (reward below r)²; the rewards' order is a, c, b, d
    let best = [0.16, 0.81 - 0.36, 0.36 - 0.16, 1.0 - 0.81];
    assert!(distance(&pi, &best) < REACHED, "{pi:?}");
}

#[test]
fn each_answer_is_learned_given_what_stands_before_it() {
    let table = hindsight(
        HindsightOrder::GoodThenBad,
        LearnedAnswers::Every,
        bradley_terry,
    );
    for (i, answer) in ANSWERS.iter().enumerate() {
        // p(j│i) ∝ pⱼ P(i over j): the loser, given the winner
        let given: Vec<f64> = (0..4).map(|j| REFERENCE[j] * bradley_terry(i, j)).collect();
        let total: f64 = given.iter().sum();
        let want: Vec<f64> = given.iter().map(|g| g / total).collect();
        let prompt = encode(&format!("?+{answer}$-")).unwrap();
        let second = &table[&prompt][..4];
        assert!(distance(second, &want) < REACHED, "{second:?}");
    }
}

#[test]
fn bad_then_good_averages_to_the_same_law() {
    let table = hindsight(
        HindsightOrder::BadThenGood,
        LearnedAnswers::Every,
        bradley_terry,
    );
    let bad = &table[&encode("?-").unwrap()][..4];
    let mut pi = vec![0.0; 4];
    for (j, answer) in ANSWERS.iter().enumerate() {
        let good = &table[&encode(&format!("?-{answer}$+")).unwrap()];
        (0..4).for_each(|i| pi[i] += bad[j] * good[i]);
    }
    assert!(distance(&pi, &winners(bradley_terry)) < REACHED, "{pi:?}");
}

#[test]
fn what_is_not_learned_is_not_in_the_table() {
    let table = hindsight(
        HindsightOrder::BadThenGood,
        LearnedAnswers::Last,
        bradley_terry,
    );
    assert!(!table.contains_key(&encode("?-").unwrap()));
    // the last answer is the one that it was
    let both = hindsight(
        HindsightOrder::BadThenGood,
        LearnedAnswers::Every,
        bradley_terry,
    );
    for (beginning, last) in &table {
        assert!(distance(last, &both[beginning]) < REACHED);
    }
}
