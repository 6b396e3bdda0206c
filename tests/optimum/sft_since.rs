use crate::common::policy::{descend, distance};
use crate::common::{bits, vector};
use candle_align::sft::dft::dft_loss;
use candle_align::sft::eaft::{EaftConfig, eaft_loss};
use candle_align::{Result, SftConfig, TokenLogProbs, TokenLoss, sft_loss};
use candle_core::Tensor;

/// What gradient descent reaches where the objective is smooth.
const REACHED: f64 = 1e-9;
const DATA: [f64; 3] = [0.5, 0.3, 0.2];
const START: [f64; 3] = [0.0, 0.7, 0.3];

/// Σᵢ dᵢ lᵢ over three answers of one token.
fn over_the_data(loss: &TokenLoss) -> Result<Tensor> {
    Ok((loss.loss.squeeze(1)? * vector(&DATA))?.sum_all()?)
}

fn three(log_policy: &Tensor) -> Result<TokenLogProbs> {
    TokenLogProbs::new(&log_policy.unsqueeze(1)?, &bits(&[&[1], &[1], &[1]]))
}

#[test]
fn dynamic_fine_tuning_learns_the_mode_and_sft_the_data() {
    let sft = descend(&START, 2.0, 300, |l| {
        over_the_data(&sft_loss(&three(l)?, None, &SftConfig::default())?)
    });
    assert!(distance(&sft, &DATA) < REACHED, "{sft:?}");
    // although another answer is the likeliest at the start
    let dft = descend(&START, 4.0, 3000, |l| over_the_data(&dft_loss(&three(l)?)?));
    assert!(dft[0] > 0.999, "{dft:?}");
    // the probabilities of the others fall without end, so the last step is another one
    let later = descend(&START, 4.0, 6000, |l| over_the_data(&dft_loss(&three(l)?)?));
    assert!(later[0] > dft[0] && later[0] < 1.0, "{later:?}");
}

#[test]
fn dynamic_fine_tuning_is_gradient_descent_on_the_expected_hits() {
    // θ ← θ + α Σ d p (onehot − p), in plain numbers
    let (alpha, steps) = (1.0, 50);
    let mut theta = START;
    for _ in 0..steps {
        let total: f64 = theta.iter().map(|t| t.exp()).sum();
        let p = theta.map(|t| t.exp() / total);
        let hits: f64 = (0..3).map(|i| DATA[i] * p[i]).sum();
        for i in 0..3 {
            theta[i] += alpha * p[i] * (DATA[i] - hits);
        }
    }
    let total: f64 = theta.iter().map(|t| t.exp()).sum();
    let want = theta.map(|t| t.exp() / total);
    let got = descend(&START, alpha, steps, |l| {
        over_the_data(&dft_loss(&three(l)?)?)
    });
    assert!(distance(&got, &want) < REACHED, "{got:?} {want:?}");
}

#[test]
fn a_weight_by_entropy_keeps_the_optimum() {
    let eaft = descend(&START, 2.0, 600, |l| {
        let log_probs = three(l)?;
        let logits = l
            .reshape((1, 1, 3))?
            .broadcast_as((3, 1, 3))?
            .contiguous()?;
        over_the_data(&eaft_loss(&log_probs, &logits, &EaftConfig::default())?)
    });
    assert!(distance(&eaft, &DATA) < REACHED, "{eaft:?}");
}
