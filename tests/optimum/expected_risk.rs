use crate::common::policy::{REFERENCE, REWARDS, descend, descend_free, distance, log};
use crate::common::{bits, matrix, numbers};
use candle_align::{Candidates, ExpectedRiskConfig, Result, TokenLoss, expected_risk_loss};
use candle_core::{D, Tensor};
use candle_nn::ops::log_softmax;

/// The share of each answer among the references.
const DATA: [f64; 4] = [0.5, 0.25, 0.15, 0.1];

fn risk(ell: &Tensor, lengths: &[f64], rewards: &[f64]) -> Result<Tensor> {
    let (lengths, rewards) = (matrix(&[lengths]), matrix(&[rewards]));
    let c = Candidates::new(&ell.unsqueeze(0)?, &lengths, &rewards, None)?;
    let config = ExpectedRiskConfig::default();
    Ok(expected_risk_loss(&c, None, &config)?.loss.sum_all()?)
}

#[test]
fn it_approaches_the_best_like_one_over_the_steps() {
    let (rate, steps) = (4.0, 3000);
    let p = descend(&log(&REFERENCE), rate, steps, |ell| {
        risk(ell, &[1.0; 4], &REWARDS)
    });
    let mean: f64 = p.iter().zip(REWARDS).map(|(p, r)| p * (1.0 - r)).sum();
    // the least cost is 1 − 2; (K − 1)/K
    let constant = (mean + 1.0) * rate * steps as f64;
    assert!((constant - 0.75).abs() < 0.01, "{constant}");
}

#[test]
fn lengths_do_not_move_the_best() {
    let p = descend(&log(&REFERENCE), 2.0, 3000, |ell| {
        risk(ell, &[3.0, 2.0, 4.0, 5.0], &REWARDS)
    });
    assert!(p[3] > 0.99, "{p:?}");
}

#[test]
fn several_bests_share_the_mass_freely() {
    let run = |start: &[f64]| {
        descend(start, 2.0, 2000, |ell| {
            risk(ell, &[1.0; 4], &[0.0, 2.0, 0.5, 2.0])
        })
    };
    let (a, b) = (run(&log(&REFERENCE)), run(&log(&[0.25; 4])));
    assert!(a[1] + a[3] > 0.999 && b[1] + b[3] > 0.999, "{a:?} {b:?}");
    // where they end is where they began
    assert!((b[1] - b[3]).abs() < 1e-9 && a[1] > 0.7, "{a:?} {b:?}");
}

#[test]
fn answers_outside_the_list_keep_their_mass_if_lengths_agree() {
    // the list lacks the best answer
    let start = log(&REFERENCE);
    let run = |lengths: [f64; 3], steps| {
        descend_free(&start, 1.0, steps, |theta| {
            let ell = log_softmax(theta, D::Minus1)?.narrow(0, 0, 3)?;
            risk(&ell, &lengths, &REWARDS[..3])
        })
    };
    let theta = run([1.0; 3], 300);
    assert!((theta[3] - start[3]).abs() < 1e-12, "{theta:?}");
    let total = |x: &[f64]| x[..3].iter().sum::<f64>();
    assert!((total(&theta) - total(&start)).abs() < 1e-9, "{theta:?}");
    assert!(
        theta[1] > theta[2] + 3.0 && theta[2] > theta[0],
        "{theta:?}"
    );
    let theta = run([3.0, 1.0, 2.0], 10);
    assert!((theta[3] - start[3]).abs() > 1e-3, "{theta:?}");
}

#[test]
fn beside_references_the_optimum_is_finite() {
    let alpha = 0.3;
    let loss = |ell: &Tensor| {
        let ell = ell.unsqueeze(0)?;
        let c = Candidates::new(&ell, &matrix(&[&[1.0; 4]]), &matrix(&[&REWARDS]), None)?;
        let reference = TokenLoss {
            loss: (&ell * matrix(&[&DATA.map(|d| -d)]))?,
            mask: bits(&[&[1; 4]]),
        };
        let config = ExpectedRiskConfig {
            token_weight: alpha,
            ..Default::default()
        };
        Ok(expected_risk_loss(&c, Some(&reference), &config)?
            .loss
            .sum_all()?)
    };
    let p = descend(&log(&REFERENCE), 3.0, 600, loss);
    // π = α d/(μ − (1 − α) r), μ by bisection above the pole
    let at = |mu: f64| [0, 1, 2, 3].map(|i| alpha * DATA[i] / (mu - (1.0 - alpha) * REWARDS[i]));
    let (mut low, mut high) = ((1.0 - alpha) * 2.0, 10.0);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        match at(middle).iter().sum::<f64>() > 1.0 {
            true => low = middle,
            false => high = middle,
        }
    }
    assert!(distance(&p, &at(high)) < 1e-9, "{p:?} {:?}", at(high));
    let known = [0.1041787935, 0.1013743143, 0.0412907534, 0.7531561388];
    assert!(distance(&p, &known) < 1e-9, "{p:?}");
}

#[test]
fn an_exponential_of_an_exponential_keeps_its_optimum_but_not_its_depth() {
    // e^{ℓ} where ℓ belongs, as the authors' code has it
    let loss = |ell: &Tensor| risk(&ell.exp()?, &[1.0; 4], &REWARDS);
    let p = descend(&log(&REFERENCE), 2.0, 4000, loss);
    assert!(p[3] > 0.999, "{p:?}");
    let e = 1.0f64.exp();
    let least = 1.0 - (2.0 * e + 1.5) / (e + 3.0);
    let value = numbers(&loss(&crate::common::vector(&log(&p))).unwrap())[0];
    assert!(value >= least && value < least + 1e-3, "{value} {least}");
}
