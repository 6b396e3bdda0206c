use crate::common::words::{END, bytes, learned, text, words};
use crate::common::{EXACT, assert_close, bits, matrix, numbers};
use candle_align::language::LearnedAnswers;
use candle_align::language::chain_of_hindsight::{
    HindsightFeedback, HindsightFormat, HindsightOrder, HindsightPair, hindsight_prompt,
    hindsight_sequence,
};
use candle_align::{HindsightConfig, Reduction, Sequence, TokenLogProbs, chain_of_hindsight_loss};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeSet;

const PAIR: HindsightPair = HindsightPair {
    prompt: "x",
    good: "yes",
    bad: "no",
};

fn feedback() -> HindsightFeedback {
    HindsightFeedback {
        good: "(good)".into(),
        bad: "(bad)".into(),
    }
}

fn write(order: HindsightOrder, learned: LearnedAnswers) -> Sequence {
    let format = HindsightFormat {
        feedback: feedback(),
        order,
        learned,
    };
    hindsight_sequence(&bytes, &PAIR, &format, END).unwrap()
}

#[test]
fn both_answers_are_learned_behind_their_feedback() {
    let sequence = write(HindsightOrder::GoodThenBad, LearnedAnswers::Every);
    assert_eq!(text(&sequence), "x(good)yes$(bad)no$");
    assert_eq!(learned(&sequence), "_______yes$_____no$");
    let sequence = write(HindsightOrder::BadThenGood, LearnedAnswers::Every);
    assert_eq!(text(&sequence), "x(bad)no$(good)yes$");
    assert_eq!(learned(&sequence), "______no$______yes$");
}

#[test]
fn or_the_last_alone() {
    let sequence = write(HindsightOrder::GoodThenBad, LearnedAnswers::Last);
    assert_eq!(text(&sequence), "x(good)yes$(bad)no$");
    assert_eq!(learned(&sequence), "________________no$");
    let sequence = write(HindsightOrder::BadThenGood, LearnedAnswers::Last);
    assert_eq!(learned(&sequence), "_______________yes$");
}

#[test]
fn or_one_answer_stands_alone() {
    for which in [LearnedAnswers::Every, LearnedAnswers::Last] {
        let good = write(HindsightOrder::GoodOnly, which);
        assert_eq!(
            (text(&good), learned(&good)),
            ("x(good)yes$".into(), "_______yes$".into())
        );
        let bad = write(HindsightOrder::BadOnly, which);
        assert_eq!(
            (text(&bad), learned(&bad)),
            ("x(bad)no$".into(), "______no$".into())
        );
    }
}

#[test]
fn the_prompt_to_sample_from_asks_for_a_good_answer() {
    let prompt = hindsight_prompt(&bytes, "x", &feedback()).unwrap();
    assert_eq!(words(&prompt), "x(good)");
}

#[test]
fn every_wording_is_drawn_and_none_is_empty_or_twice() {
    let all = HindsightFeedback::all();
    let mut rng = StdRng::seed_from_u64(3);
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let drawn = HindsightFeedback::draw(&mut rng);
        assert!(all.contains(&drawn));
        seen.insert(drawn.good);
    }
    assert_eq!(seen.len(), all.len());
    let different: BTreeSet<_> = all.iter().flat_map(|f| [&f.good, &f.bad]).collect();
    assert_eq!(different.len(), 2 * all.len());
    assert!(different.iter().all(|f| !f.trim().is_empty()));
    // the same seed, the same words
    let again = |seed| HindsightFeedback::draw(&mut StdRng::seed_from_u64(seed));
    assert_eq!(again(5), again(5));
}

fn texts() -> (TokenLogProbs, TokenLogProbs) {
    let hindsight = matrix(&[&[-9.0, -0.5, -1.0], &[-2.0, -9.0, -9.0]]);
    let mask = bits(&[&[0, 1, 1], &[1, 0, 0]]);
    let book = matrix(&[&[-3.0, -4.0, -0.25, -1.0]]);
    (
        TokenLogProbs::new(&hindsight, &mask).unwrap(),
        TokenLogProbs::new(&book, &bits(&[&[1, 1, 1, 0]])).unwrap(),
    )
}

#[test]
fn each_batch_is_reduced_over_its_own_tokens() {
    let (hindsight, book) = texts();
    let config = HindsightConfig {
        pretraining_weight: Some(0.3),
    };
    let out = chain_of_hindsight_loss(&hindsight, Some(&book), &config).unwrap();
    let answers = [0.0, 0.5, 1.0, 2.0, 0.0, 0.0];
    assert_close(&numbers(&out.hindsight.loss), &answers, EXACT, "answers");
    let pretraining = out.pretraining.as_ref().unwrap();
    let weighted = [0.3 * 3.0, 0.3 * 4.0, 0.3 * 0.25, 0.0];
    assert_close(&numbers(&pretraining.loss), &weighted, EXACT, "text");
    for (reduction, want) in [
        (Reduction::Sum, 3.5 + 0.3 * 7.25),
        (Reduction::TokenMean, 3.5 / 3.0 + 0.3 * 7.25 / 3.0),
        (Reduction::SequenceMean, 3.5 / 2.0 + 0.3 * 7.25),
    ] {
        let got = numbers(&out.reduce(reduction).unwrap());
        assert_close(&got, &[want], EXACT, &format!("{reduction:?}"));
    }
}

#[test]
fn the_papers_weight_is_three_halves() {
    let (hindsight, book) = texts();
    let out = chain_of_hindsight_loss(&hindsight, Some(&book), &HindsightConfig::default());
    let sum = numbers(&out.unwrap().reduce(Reduction::Sum).unwrap());
    assert_close(&sum, &[3.5 + 1.5 * 7.25], EXACT, "sum");
}

#[test]
fn without_text_the_default_is_the_answers_alone() {
    let (hindsight, _) = texts();
    let out = chain_of_hindsight_loss(&hindsight, None, &HindsightConfig::default()).unwrap();
    assert!(out.pretraining.is_none());
    assert_eq!(numbers(&out.reduce(Reduction::Sum).unwrap()), [3.5]);
}

#[test]
fn text_of_no_weight_is_left_out_whatever_it_holds() {
    let (hindsight, _) = texts();
    let impossible = matrix(&[&[f64::NEG_INFINITY, -1.0]]);
    let impossible = TokenLogProbs::new(&impossible, &bits(&[&[1, 1]])).unwrap();
    let config = HindsightConfig {
        pretraining_weight: Some(0.0),
    };
    let out = chain_of_hindsight_loss(&hindsight, Some(&impossible), &config).unwrap();
    assert!(out.pretraining.is_none());
    assert_eq!(numbers(&out.reduce(Reduction::Sum).unwrap()), [3.5]);
}
