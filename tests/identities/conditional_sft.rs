use crate::common::words::{END, bytes};
use crate::common::{EXACT, assert_close, bits, matrix, numbers, vector};
use candle_align::language::LearnedAnswers;
use candle_align::language::conditional_sft::{ClassPrompt, ClassWeighting, Turn};
use candle_align::{
    CRlftConfig, ClassWeightedLoss, Reduction, SftConfig, TokenLogProbs, c_rlft_loss, sft_loss,
};
use candle_core::Var;

fn values() -> Var {
    Var::from_tensor(&matrix(&[&[-0.5, -1.5, -9.0], &[-2.0, -0.25, -4.0]])).unwrap()
}

fn log_probs(values: &Var) -> TokenLogProbs {
    TokenLogProbs::new(values, &bits(&[&[1, 1, 0], &[1, 1, 1]])).unwrap()
}

fn weighted(rewards: &[f64; 2], weighting: ClassWeighting) -> ClassWeightedLoss {
    let config = CRlftConfig { weighting };
    c_rlft_loss(&log_probs(&values()), &vector(rewards), &config).unwrap()
}

const BETA: ClassWeighting = ClassWeighting::Exponential { beta: 0.4 };

#[test]
fn weights_of_one_are_supervised_fine_tuning() {
    let plain = sft_loss(&log_probs(&values()), None, &SftConfig::default()).unwrap();
    let plain = numbers(&plain.loss);
    for (reward, weighting) in [(0.0, BETA), (1.0, ClassWeighting::Linear)] {
        let loss = numbers(&weighted(&[reward; 2], weighting).tokens.loss);
        assert_eq!(loss, plain, "{weighting:?}");
    }
    // equal rewards: a multiple
    let loss = numbers(&weighted(&[0.6; 2], BETA).tokens.loss);
    let multiple: Vec<f64> = plain.iter().map(|l| l * (0.6f64 / 0.4).exp()).collect();
    assert_close(&loss, &multiple, EXACT, "equal rewards");
}

#[test]
fn a_number_added_to_all_rewards_drops_out_of_the_mean() {
    let (out, moved) = (weighted(&[1.0, 0.1], BETA), weighted(&[1.7, 0.8], BETA));
    let factor = (0.7f64 / 0.4).exp();
    let scaled: Vec<f64> = numbers(&out.tokens.loss)
        .iter()
        .map(|l| l * factor)
        .collect();
    assert_close(&numbers(&moved.tokens.loss), &scaled, EXACT, "loss");
    let means = [&out, &moved].map(|out| {
        let count = out.token_weight().unwrap();
        numbers(&out.tokens.reduce(Reduction::SumOver { count }).unwrap())[0]
    });
    assert_close(&means[..1], &means[1..], EXACT, "mean");
}

#[test]
fn exponents_of_log_weights_are_the_weights() {
    let linear = weighted(&[1.0, 0.1], ClassWeighting::Linear);
    // β = 0.9 / ln 10 makes rewards of 1 and 0.1 weights of a ratio of 10
    let beta = 0.9 / 10f64.ln();
    let exponential = weighted(&[1.0, 0.1], ClassWeighting::Exponential { beta });
    let weights = numbers(&exponential.weights);
    assert_close(&[weights[0] / weights[1]], &[10.0], 1e-11, "ratio");
    let log = weighted(
        &[0.0, 0.1f64.ln()],
        ClassWeighting::Exponential { beta: 1.0 },
    );
    assert_close(
        &numbers(&log.weights),
        &numbers(&linear.weights),
        EXACT,
        "w",
    );
}

#[test]
fn the_gradient_of_a_log_probability_is_minus_the_weight_of_its_class() {
    let values = values();
    let config = CRlftConfig { weighting: BETA };
    let out = c_rlft_loss(&log_probs(&values), &vector(&[1.0, 0.1]), &config).unwrap();
    let loss = out.tokens.reduce(Reduction::Sum).unwrap();
    let grads = loss.backward().unwrap();
    let (good, bad) = (-(1.0f64 / 0.4).exp(), -(0.1f64 / 0.4).exp());
    let want = [good, good, 0.0, bad, bad, bad];
    assert_close(
        &numbers(grads.get(&values).unwrap()),
        &want,
        EXACT,
        "gradient",
    );
}

#[test]
fn the_weights_are_no_way_back_to_the_rewards() {
    let rewards = Var::new(&[1.0, 0.1], &candle_core::Device::Cpu).unwrap();
    for weighting in [BETA, ClassWeighting::Linear] {
        let config = CRlftConfig { weighting };
        let out = c_rlft_loss(&log_probs(&values()), &rewards, &config).unwrap();
        let grads = out.weights.sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&rewards).is_none(), "{weighting:?}");
    }
}

#[test]
fn the_question_is_the_beginning_of_the_conversation() {
    for prompt in [ClassPrompt::prefix("GPT4"), ClassPrompt::openchat_v3("X")] {
        let turn = Turn {
            user: "2+2?",
            assistant: "4",
        };
        let sequence = prompt
            .sequence(&bytes, &[turn], END, LearnedAnswers::Every)
            .unwrap();
        let question = prompt.prompt(&bytes, "2+2?", END).unwrap();
        assert_eq!(sequence.tokens()[..question.len()], question);
        // the first learned token comes next
        let first = sequence.mask().iter().position(|&m| m == 1);
        assert_eq!(first, Some(question.len()));
    }
}

#[test]
fn a_row_per_turn_learns_what_one_row_learns() {
    let prompt = ClassPrompt::prefix("GPT4");
    let turns =
        [("a", "bc"), ("d", "e"), ("f", "ghi")].map(|(user, assistant)| Turn { user, assistant });
    let whole = prompt
        .sequence(&bytes, &turns, END, LearnedAnswers::Every)
        .unwrap();
    let mut mask = vec![0; whole.len()];
    for count in 1..=turns.len() {
        let row = prompt
            .sequence(&bytes, &turns[..count], END, LearnedAnswers::Last)
            .unwrap();
        assert_eq!(row.tokens(), &whole.tokens()[..row.len()]);
        for (sum, m) in mask.iter_mut().zip(row.mask()) {
            *sum += m;
        }
    }
    assert_eq!(mask, whole.mask());
}
