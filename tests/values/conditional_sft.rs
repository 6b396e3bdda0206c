use crate::common::words::{END, bytes, learned, text, words};
use crate::common::{EXACT, assert_close, bits, matrix, numbers, vector};
use candle_align::language::LearnedAnswers;
use candle_align::language::conditional_sft::{ClassPrompt, ClassWeighting, Turn};
use candle_align::{CRlftConfig, ClassWeightedLoss, Reduction, TokenLogProbs, c_rlft_loss};
use candle_core::Var;

const TURNS: [Turn; 2] = [
    Turn {
        user: "a?",
        assistant: "b",
    },
    Turn {
        user: "c?",
        assistant: "de",
    },
];

#[test]
fn the_class_stands_in_the_prefix() {
    let good = ClassPrompt::prefix(ClassPrompt::GPT4);
    let bad = ClassPrompt::prefix(ClassPrompt::GPT3);
    let write = |prompt: &ClassPrompt| {
        prompt
            .sequence(&bytes, &TURNS[..1], END, LearnedAnswers::Every)
            .unwrap()
    };
    assert_eq!(text(&write(&good)), "User:a?$Assistant GPT4:b$");
    assert_eq!(text(&write(&bad)), "User:a?$Assistant GPT3:b$");
    assert_eq!(learned(&write(&good)), format!("{}b$", "_".repeat(23)));
}

#[test]
fn the_later_template_names_the_class_twice() {
    let prompt = ClassPrompt::openchat_v3("GPT4");
    let sequence = prompt
        .sequence(&bytes, &TURNS[..1], END, LearnedAnswers::Every)
        .unwrap();
    assert_eq!(text(&sequence), "GPT4 User:a?$GPT4 Assistant:b$");
    assert_eq!(prompt, ClassPrompt::openchat_v3(ClassPrompt::GPT4));
    assert_eq!(
        ClassPrompt::openchat_v3(ClassPrompt::GPT3).user,
        "GPT3 User:"
    );
}

#[test]
fn every_answer_or_the_last_is_learned() {
    let prompt = ClassPrompt {
        user: "U".into(),
        assistant: "A".into(),
    };
    let write = |learned| prompt.sequence(&bytes, &TURNS, END, learned).unwrap();
    let (every, last) = (write(LearnedAnswers::Every), write(LearnedAnswers::Last));
    assert_eq!(text(&every), "Ua?$Ab$Uc?$Ade$");
    assert_eq!(learned(&every), "_____b$_____de$");
    assert_eq!(text(&last), text(&every));
    assert_eq!(learned(&last), "____________de$");
}

#[test]
fn prefixes_may_be_empty() {
    let plain = ClassPrompt {
        user: String::new(),
        assistant: String::new(),
    };
    // the tokenizer is not asked about nothing
    let strict = |text: &str| match text.is_empty() {
        true => panic!("nothing to encode"),
        false => bytes(text),
    };
    let sequence = plain
        .sequence(&strict, &TURNS[..1], END, LearnedAnswers::Last)
        .unwrap();
    assert_eq!(learned(&sequence), "___b$");
    assert_eq!(words(&plain.prompt(&strict, "a?", END).unwrap()), "a?$");
}

fn log_probs() -> TokenLogProbs {
    let values = matrix(&[&[-0.5, -1.5, -9.0], &[-2.0, -0.25, -4.0], &[-7.0; 3]]);
    TokenLogProbs::new(&values, &bits(&[&[1, 1, 0], &[1, 1, 1], &[0, 0, 0]])).unwrap()
}

fn loss(rewards: &[f64; 3], weighting: ClassWeighting) -> ClassWeightedLoss {
    c_rlft_loss(&log_probs(), &vector(rewards), &CRlftConfig { weighting }).unwrap()
}

#[test]
fn the_weight_is_the_exponential_of_the_reward() {
    let out = loss(&[1.0, 0.1, 0.1], ClassWeighting::Exponential { beta: 0.4 });
    let (good, bad) = ((1.0f64 / 0.4).exp(), (0.1f64 / 0.4).exp());
    assert_close(&numbers(&out.weights), &[good, bad, bad], EXACT, "weights");
    let want = [
        0.5 * good,
        1.5 * good,
        0.0,
        2.0 * bad,
        0.25 * bad,
        4.0 * bad,
        0.0,
        0.0,
        0.0,
    ];
    assert_close(&numbers(&out.tokens.loss), &want, EXACT, "loss");
}

#[test]
fn by_default_the_exponent_is_the_reward() {
    let out = c_rlft_loss(
        &log_probs(),
        &vector(&[1.0, 0.1, -2.0]),
        &CRlftConfig::default(),
    );
    let want = [1.0f64.exp(), 0.1f64.exp(), (-2.0f64).exp()];
    assert_close(&numbers(&out.unwrap().weights), &want, EXACT, "weights");
}

#[test]
fn divided_by_the_sum_of_weights_over_tokens_or_over_turns() {
    let out = loss(&[1.0, 0.1, 0.1], ClassWeighting::Linear);
    assert_close(&numbers(&out.weights), &[1.0, 0.1, 0.1], EXACT, "weights");

    // two tokens of weight 1, three of 0.1; the last row counts nothing
    let tokens = out.token_weight().unwrap();
    assert_close(&[tokens], &[2.0 + 0.3], EXACT, "tokens");
    let mean = out.tokens.reduce(Reduction::SumOver { count: tokens });
    let want = (0.5 + 1.5 + 0.1 * (2.0 + 0.25 + 4.0)) / 2.3;
    assert_close(&numbers(&mean.unwrap()), &[want], EXACT, "per token");
    let mean = numbers(&out.token_mean().unwrap());
    assert_close(&mean, &[want], EXACT, "per token, in one call");

    let turns = out.sequence_weight().unwrap();
    assert_close(&[turns], &[1.1], EXACT, "turns");
    let mean = out
        .tokens
        .reduce(Reduction::SequenceMeansOver { count: turns });
    let want = ((0.5 + 1.5) / 2.0 + 0.1 * (2.0 + 0.25 + 4.0) / 3.0) / 1.1;
    assert_close(&numbers(&mean.unwrap()), &[want], EXACT, "per turn");
    let mean = numbers(&out.sequence_mean().unwrap());
    assert_close(&mean, &[want], EXACT, "per turn, in one call");
}

#[test]
fn nothing_that_counts_or_weighs_is_a_loss_of_nothing() {
    let means = |out: &ClassWeightedLoss| {
        let means = [out.token_mean().unwrap(), out.sequence_mean().unwrap()];
        means.map(|mean| numbers(&mean)[0])
    };
    let empty = TokenLogProbs::new(&matrix(&[&[f64::NAN, -1.0]]), &bits(&[&[0, 0]])).unwrap();
    let out = c_rlft_loss(&empty, &vector(&[1.0]), &CRlftConfig::default()).unwrap();
    assert_eq!(out.token_weight().unwrap(), 0.0);
    assert_eq!(means(&out), [0.0; 2]);
    assert_eq!(means(&loss(&[0.0; 3], ClassWeighting::Linear)), [0.0; 2]);
}

#[test]
fn a_negative_weight_makes_its_answers_less_likely() {
    let values = Var::from_tensor(&matrix(&[&[-0.5, -1.5]])).unwrap();
    let log_probs = TokenLogProbs::new(&values, &bits(&[&[1, 1]])).unwrap();
    let config = CRlftConfig {
        weighting: ClassWeighting::Linear,
    };
    let out = c_rlft_loss(&log_probs, &vector(&[-0.2]), &config).unwrap();
    let sum = out.tokens.reduce(Reduction::Sum).unwrap();
    assert_close(&numbers(&sum), &[-0.2 * 2.0], EXACT, "loss");
    let grads = sum.backward().unwrap();
    let gradient = numbers(grads.get(&values).unwrap());
    assert_close(&gradient, &[0.2, 0.2], EXACT, "downhill is down");
}

#[test]
fn a_row_without_tokens_adds_no_weight() {
    let out = loss(&[1.0, 0.5, f64::NAN], ClassWeighting::Linear);
    assert_eq!(out.token_weight().unwrap(), 2.0 + 1.5);
    assert_eq!(out.sequence_weight().unwrap(), 1.5);
}
