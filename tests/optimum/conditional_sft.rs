use crate::common::policy::{BETA, REFERENCE, REWARDS, distance, normalized, tilted};
use crate::common::table::{Table, learn};
use crate::common::vector;
use candle_align::language::LearnedAnswers;
use candle_align::language::conditional_sft::{ClassPrompt, ClassWeighting, Turn};
use candle_align::{
    CRlftConfig, Result, Sequence, SftConfig, TokenLogProbs, c_rlft_loss, sft_loss,
};
use candle_core::Tensor;

/// What gradient descent reaches where the objective is smooth and strictly convex.
const REACHED: f64 = 1e-9;
const END: u32 = 4;
const SYMBOLS: usize = 8;

/// Answers are `a` to `d`; the question, and a word for each class.
fn encode(text: &str) -> Result<Vec<u32>> {
    let symbol = |c: char| "abcd$?+-".find(c).expect("a symbol") as u32;
    Ok(text.chars().map(symbol).collect())
}

fn class(name: &str) -> ClassPrompt {
    ClassPrompt {
        user: String::new(),
        assistant: name.to_string(),
    }
}

/// The four answers of one class.
fn answers(class: &ClassPrompt) -> Vec<Sequence> {
    ["a", "b", "c", "d"]
        .iter()
        .map(|&assistant| {
            let turn = Turn {
                user: "?",
                assistant,
            };
            class.sequence(&encode, &[turn], END, LearnedAnswers::Every)
        })
        .collect::<Result<_>>()
        .expect("sequences")
}

/// P(answer│the prompt of a class).
fn of(table: &Table, class: &ClassPrompt) -> Vec<f64> {
    table[&class.prompt(&encode, "?", END).expect("a prompt")][..4].to_vec()
}

fn two_classes() -> (ClassPrompt, ClassPrompt, Vec<Sequence>) {
    let (good, bad) = (class("+"), class("-"));
    let sequences = [answers(&good), answers(&bad)].concat();
    (good, bad, sequences)
}

fn plain(log_probs: &TokenLogProbs) -> Result<Tensor> {
    Ok(sft_loss(log_probs, None, &SftConfig::default())?.loss)
}

/// The policies of both classes, learned from answers of the reference with P(good│answer) given.
fn labeled(label: &[f64; 4]) -> [Vec<f64>; 2] {
    let (good, bad, sequences) = two_classes();
    let shares: Vec<f64> = (0..8)
        .map(|i| REFERENCE[i % 4] * if i < 4 { label[i] } else { 1.0 - label[i % 4] })
        .collect();
    let table = learn(&sequences, &shares, SYMBOLS, (2.0, 400), plain);
    [of(&table, &good), of(&table, &bad)]
}

#[test]
fn each_class_learns_its_own_data_and_together_they_are_all_of_it() {
    let label = [0.2, 0.7, 0.5, 0.9];
    let [good, bad] = labeled(&label);
    // π(·│good) ∝ data · P(good│·)
    let joint: Vec<f64> = (0..4).map(|i| REFERENCE[i] * label[i]).collect();
    assert!(distance(&good, &normalized(&joint)) < REACHED, "{good:?}");
    let p_good: f64 = joint.iter().sum();
    let mixed: Vec<f64> = (0..4)
        .map(|i| p_good * good[i] + (1.0 - p_good) * bad[i])
        .collect();
    assert!(distance(&mixed, &REFERENCE) < REACHED, "{mixed:?}");
    // KL ≤ −log P(good)
    let kl: f64 = (0..4)
        .map(|i| good[i] * (good[i] / REFERENCE[i]).ln())
        .sum();
    assert!(kl > 0.01 && kl < -p_good.ln(), "{kl}");
}

#[test]
fn a_label_given_by_reward_makes_it_reinforcement_learning() {
    let label = REWARDS.map(|r| ((r - 2.0) / BETA).exp());
    let [good, _] = labeled(&label);
    let want = tilted(&REFERENCE, &REWARDS, BETA);
    assert!(distance(&good, &want) < REACHED, "{good:?}");
}

/// Two classes of data, their shares and their rewards.
const SHARES: [f64; 2] = [0.3, 0.7];
const DATA: [[f64; 4]; 2] = [[0.1, 0.5, 0.1, 0.3], [0.6, 0.1, 0.2, 0.1]];
const CLASS_REWARDS: [f64; 2] = [1.0, 0.1];

/// Trained by the weighted loss, on sequences of both classes in turn; the weights' mean is 1.
fn weighted(sequences: &[Sequence], steps: usize) -> Table {
    let shares: Vec<f64> = (0..8).map(|i| SHARES[i / 4] * DATA[i / 4][i % 4]).collect();
    let mean = 0.3 * (1.0 / BETA).exp() + 0.7 * (0.1 / BETA).exp();
    let rewards = CLASS_REWARDS.map(|r| r - BETA * mean.ln());
    let rewards: Vec<f64> = (0..8).map(|i| rewards[i / 4]).collect();
    let config = CRlftConfig {
        weighting: ClassWeighting::Exponential { beta: BETA },
    };
    learn(sequences, &shares, SYMBOLS, (2.0, steps), |log_probs| {
        Ok(c_rlft_loss(log_probs, &vector(&rewards), &config)?
            .tokens
            .loss)
    })
}

#[test]
fn conditioned_on_the_class_the_weights_cancel() {
    let (good, bad, sequences) = two_classes();
    let table = weighted(&sequences, 1200);
    for (class, data) in [(good, DATA[0]), (bad, DATA[1])] {
        let pi = of(&table, &class);
        assert!(distance(&pi, &data) < REACHED, "{pi:?}");
    }
}

#[test]
fn not_conditioned_the_classes_are_mixed_by_their_weights() {
    let same = class("");
    let table = weighted(&[answers(&same), answers(&same)].concat(), 300);
    // π ∝ Σ p(c) e^{r_c/β} π_c
    let mixed: Vec<f64> = (0..4)
        .map(|i| {
            let part = |c: usize| SHARES[c] * (CLASS_REWARDS[c] / BETA).exp() * DATA[c][i];
            part(0) + part(1)
        })
        .collect();
    let pi = of(&table, &same);
    assert!(distance(&pi, &normalized(&mixed)) < REACHED, "{pi:?}");
    // which is neither the better class nor the data as they are
    let known = [0.2391708623, 0.3886633101, 0.1278341725, 0.2443316551];
    assert!(distance(&pi, &known) < 1e-9, "{pi:?}");
}

/// Answers of one, two and three tokens beside their end, and how often each class gives them.
const OF_LENGTHS: [&str; 3] = ["a", "bc", "bdd"];
const BY_LENGTH: [[f64; 3]; 2] = [[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]];

/// Σ w·(mean CE) / Σ w, where the weight of a row holds how often it occurs; P(answer│class).
fn by_length(classes: [&ClassPrompt; 2]) -> [Vec<f64>; 2] {
    let sequence = |class: &ClassPrompt, assistant| {
        let turn = Turn {
            user: "?",
            assistant,
        };
        class.sequence(&encode, &[turn], END, LearnedAnswers::Every)
    };
    let sequences: Vec<Sequence> = (0..6)
        .map(|i| sequence(classes[i / 3], OF_LENGTHS[i % 3]))
        .collect::<Result<_>>()
        .expect("sequences");
    let often: Vec<f64> = (0..6)
        .map(|i| SHARES[i / 3] * BY_LENGTH[i / 3][i % 3])
        .collect();
    let weights: Vec<f64> = (0..6)
        .map(|i| often[i] * (CLASS_REWARDS[i / 3] / BETA).exp())
        .collect();
    let config = CRlftConfig {
        weighting: ClassWeighting::Linear,
    };
    let table = learn(&sequences, &often, SYMBOLS, (2.0, 800), |log_probs| {
        c_rlft_loss(log_probs, &vector(&weights), &config)?.sequence_mean()
    });
    let probability = |sequence: &Sequence| -> f64 {
        let tokens = sequence.tokens();
        let learned = (0..tokens.len()).filter(|&t| sequence.mask()[t] == 1);
        learned
            .map(|t| table[&tokens[..t]][tokens[t] as usize])
            .product()
    };
    let pi: Vec<f64> = sequences.iter().map(probability).collect();
    [pi[..3].to_vec(), pi[3..].to_vec()]
}

/// Over |y|, the end included.
fn over_lengths(data: [f64; 3]) -> Vec<f64> {
    normalized(&[data[0] / 2.0, data[1] / 3.0, data[2] / 4.0])
}

#[test]
fn dividing_by_the_length_of_each_answer_favors_short_ones() {
    let (good, bad, same) = (class("+"), class("-"), class(""));
    // conditioned, the weights still cancel
    for (pi, data) in by_length([&good, &bad]).iter().zip(BY_LENGTH) {
        assert!(distance(pi, &over_lengths(data)) < REACHED, "{pi:?}");
    }
    // not conditioned, they still mix
    let [pi, again] = by_length([&same, &same]);
    assert_eq!(pi, again);
    let mixed = [0, 1, 2].map(|i| {
        let part = |c: usize| SHARES[c] * (CLASS_REWARDS[c] / BETA).exp() * BY_LENGTH[c][i];
        part(0) + part(1)
    });
    assert!(distance(&pi, &over_lengths(mixed)) < REACHED, "{pi:?}");
    assert!(distance(&pi, &normalized(&mixed)) > 0.05, "{pi:?}");
}
