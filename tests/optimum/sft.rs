use crate::common::policy::{BETA, REFERENCE, REWARDS, descend, distance, log, tilted};
use crate::common::{matrix, vector};
use candle_align::{Reduction, Result, SftConfig, Statistics, TokenLogProbs, TokenLoss, sft_loss};
use candle_core::{DType, Device, Tensor, Var};

/// What gradient descent reaches where the objective is smooth and strictly convex.
const REACHED: f64 = 1e-9;
const DATA: [f64; 4] = [0.5, 0.25, 0.15, 0.1];

/// The loss of aligned tokens, each row weighted by its share of the data.
fn weighted(
    logits: &Tensor,
    targets: &Tensor,
    mask: &Tensor,
    data: &[f64],
    label_smoothing: f64,
) -> Result<TokenLoss> {
    let statistics = Statistics {
        vocabulary_mean: true,
        ..Default::default()
    };
    let log_probs = TokenLogProbs::aligned(logits, targets, mask, statistics)?;
    sft_loss(
        &log_probs,
        Some(&vector(data)),
        &SftConfig { label_smoothing },
    )
}

/// −Σᵢ dᵢ log πᵢ through the loss itself: four answers of one token, weighted by the data.
fn cross_entropy(log_policy: &Tensor, data: &[f64], label_smoothing: f64) -> Result<Tensor> {
    let k = data.len();
    let logits = log_policy.reshape((1, 1, k))?.broadcast_as((k, 1, k))?;
    let targets = Tensor::arange(0, k as u32, &Device::Cpu)?.unsqueeze(1)?;
    let mask = Tensor::ones((k, 1), DType::U8, &Device::Cpu)?;
    weighted(&logits, &targets, &mask, data, label_smoothing)?.reduce(Reduction::Sum)
}

#[test]
fn the_optimum_is_the_data() {
    let start = log(&REFERENCE);
    let pi = descend(&start, 2.0, 200, |l| cross_entropy(l, &DATA, 0.0));
    assert!(distance(&pi, &DATA) < REACHED, "{pi:?}");
}

#[test]
fn weights_tilt_the_data() {
    let weighted: Vec<f64> = DATA
        .iter()
        .zip([1.0, 0.5, 2.0, 1.0])
        .map(|(d, w)| d * w)
        .collect();
    let pi = descend(&log(&REFERENCE), 2.0, 200, |l| {
        cross_entropy(l, &weighted, 0.0)
    });
    let want = [0.5 / 1.025, 0.125 / 1.025, 0.3 / 1.025, 0.1 / 1.025];
    assert!(distance(&pi, &want) < REACHED, "{pi:?}");
}

#[test]
fn label_smoothing_mixes_the_uniform_distribution_in() {
    let pi = descend(&log(&REFERENCE), 2.0, 200, |l| cross_entropy(l, &DATA, 0.1));
    assert!(
        distance(&pi, &[0.475, 0.25, 0.16, 0.115]) < REACHED,
        "{pi:?}"
    );
}

#[test]
fn weights_of_exponential_reward_on_the_references_answers_give_the_rlhf_optimum() {
    let weights: Vec<f64> = REFERENCE
        .iter()
        .zip(REWARDS)
        .map(|(p, r)| p * (r / BETA).exp())
        .collect();
    let pi = descend(&log(&REFERENCE), 0.1, 600, |l| {
        cross_entropy(l, &weights, 0.0)
    });
    assert!(
        distance(&pi, &tilted(&REFERENCE, &REWARDS, BETA)) < REACHED,
        "{pi:?}"
    );
}

#[test]
fn one_demonstration_is_approached_like_one_over_the_steps() {
    let (alpha, steps) = (1.0, 4000);
    let one = [0.0, 0.0, 0.0, 1.0];
    let pi = descend(&log(&REFERENCE), alpha, steps, |l| {
        cross_entropy(l, &one, 0.0)
    });
    // 1 − π → (K − 1) / (K α N)
    let rate = (1.0 - pi[3]) * 4.0 * alpha * steps as f64 / 3.0;
    assert!((rate - 1.0).abs() < 0.01, "{rate}");
}

/// Answers over two symbols of length 1 or 2, the second symbol ends an answer early:
/// `b`, `ab`, `aa`. Two free distributions: after nothing, and after `a`.
fn tree(theta: &Tensor, data: &[f64; 3], reduction: Reduction) -> Result<Tensor> {
    of_tree(theta, data, 0.0)?.reduce(reduction)
}

/// As [`tree`], smoothed, summed.
fn smoothed_tree(theta: &Tensor, data: &[f64; 3], label_smoothing: f64) -> Result<Tensor> {
    of_tree(theta, data, label_smoothing)?.reduce(Reduction::Sum)
}

fn of_tree(theta: &Tensor, data: &[f64; 3], label_smoothing: f64) -> Result<TokenLoss> {
    let first = theta.narrow(0, 0, 2)?;
    let second = theta.narrow(0, 2, 2)?;
    let row = Tensor::stack(&[&first, &second], 0)?;
    let logits = row.unsqueeze(0)?.broadcast_as((3, 2, 2))?;
    let targets = Tensor::new(&[[1u32, 0], [0, 1], [0, 0]], &Device::Cpu)?;
    let mask = Tensor::new(&[[1u8, 0], [1, 1], [1, 1]], &Device::Cpu)?;
    weighted(&logits, &targets, &mask, data, label_smoothing)
}

#[test]
fn the_mean_of_sequence_means_learns_another_distribution() {
    let data = [0.5, 0.3, 0.2];
    let learned = |reduction| answers_of_tree(|theta| tree(theta, &data, reduction));
    let sum = learned(Reduction::SequenceMean);
    assert!(distance(&sum, &data) < REACHED, "{sum:?}");
    // π(y) ∝ d(y) / |y|
    let total = 0.5 + 0.15 + 0.1;
    let want = [0.5 / total, 0.15 / total, 0.1 / total];
    let mean = learned(Reduction::MeanOfSequenceMeans);
    assert!(distance(&mean, &want) < REACHED, "{mean:?}");
}

/// What gradient descent on a loss over the tree's four logits makes of the three answers.
fn answers_of_tree(loss: impl Fn(&Tensor) -> Result<Tensor>) -> [f64; 3] {
    let theta = crate::common::policy::descend_free(&[0.0; 4], 3.0, 300, loss);
    let a = 1.0 / (1.0 + (theta[1] - theta[0]).exp());
    let aa = 1.0 / (1.0 + (theta[3] - theta[2]).exp());
    [1.0 - a, a * (1.0 - aa), a * aa]
}

/// The expectation of the mean over tokens, over batches of `size` answers drawn from the data.
fn token_mean_of_batches(theta: &Tensor, data: &[f64; 3], size: u32) -> Result<Tensor> {
    const LENGTHS: [f64; 3] = [1.0, 2.0, 2.0];
    let mut total = Tensor::zeros((), DType::F64, &Device::Cpu)?;
    for batch in 0..3usize.pow(size) {
        let drawn: Vec<usize> = (0..size).map(|i| batch / 3usize.pow(i) % 3).collect();
        let often: f64 = drawn.iter().map(|&y| data[y]).product();
        let mut weights = [0.0; 3];
        drawn.iter().for_each(|&y| weights[y] += often);
        let tokens: f64 = drawn.iter().map(|&y| LENGTHS[y]).sum();
        let reduction = Reduction::TokenMean.over(tokens);
        total = (total + tree(theta, &weights, reduction)?)?;
    }
    Ok(total)
}

#[test]
fn under_a_mean_over_tokens_the_batch_decides() {
    let data = [0.5, 0.3, 0.2];
    // the three answers in one batch, weighted by the data: one divisor for all
    let large = answers_of_tree(|theta| tree(theta, &data, Reduction::TokenMean));
    assert!(distance(&large, &data) < REACHED, "{large:?}");

    // π(y) ∝ d(y) · E 1/(|y| + the lengths of the others)
    let inverse = |length: f64| 0.5 / (length + 1.0) + 0.5 / (length + 2.0);
    let [one, two] = [1, 2].map(|size| {
        answers_of_tree(|theta| Ok((token_mean_of_batches(theta, &data, size)? * 1.5)?))
    });
    let want = crate::common::policy::normalized(&[0.5, 0.3 / 2.0, 0.2 / 2.0]);
    assert!(distance(&one, &want) < REACHED, "{one:?}");
    let want = [(0, 1.0), (1, 2.0), (2, 2.0)].map(|(y, length)| data[y] * inverse(length));
    let want = crate::common::policy::normalized(&want);
    assert!(distance(&two, &want) < REACHED, "{two:?}");
    // short answers lose their lead as batches grow
    assert!(one[0] > two[0] + 0.05 && two[0] > data[0] + 0.05);
}

#[test]
fn smoothing_every_token_is_no_smoothing_of_answers() {
    let (data, epsilon) = ([0.5, 0.3, 0.2], 0.1);
    let pi = answers_of_tree(|theta| smoothed_tree(theta, &data, epsilon));
    // each next-token distribution is (1 − ε) d + ε/2, and an answer is their product
    let smooth = |p: f64| (1.0 - epsilon) * p + epsilon / 2.0;
    let (a, aa) = (smooth(0.5), smooth(0.2 / 0.5));
    let product = [1.0 - a, a * (1.0 - aa), a * aa];
    assert!(distance(&pi, &product) < REACHED, "{pi:?}");
    // where a smoothing of the three answers is another distribution
    let answers = data.map(|d| (1.0 - epsilon) * d + epsilon / 3.0);
    assert!(distance(&pi, &answers) > 0.01, "{pi:?} {answers:?}");
}

#[test]
fn smoothing_every_token_smooths_every_next_token_distribution() {
    let epsilon = 0.1;
    let logits = Var::from_tensor(&matrix(&[&[0.0; 4]])).unwrap();
    for _ in 0..2000 {
        let loss =
            cross_entropy(&logits.squeeze(0).unwrap(), &[0.0, 0.0, 1.0, 0.0], epsilon).unwrap();
        let grads = loss.backward().unwrap();
        let step = (grads.get(&logits).unwrap() * 2.0).unwrap();
        logits.set(&(logits.as_tensor() - step).unwrap()).unwrap();
    }
    // a finite gap, where one demonstration without smoothing has none
    let gap = ((1.0 - epsilon + epsilon / 4.0) / (epsilon / 4.0)).ln();
    let theta = crate::common::numbers(&logits);
    assert!((theta[2] - theta[0] - gap).abs() < REACHED, "{theta:?}");
}
