use crate::common::policy::{REFERENCE, REWARDS, descend, descend_free, log};
use crate::common::{bits, matrix, numbers, sigma, vector};
use candle_align::ranking::brio::BrioPairs;
use candle_align::{BrioConfig, Candidates, Result, TokenLoss, brio_loss};
use candle_core::{D, Tensor};
use candle_nn::ops::log_softmax;

const LENGTHS: [f64; 4] = [3.0, 2.0, 4.0, 5.0];
const POWER: f64 = 0.6;
const LAMBDA: f64 = 0.1;
/// S4's answers from the worst to the best.
const ORDER: [usize; 4] = [0, 2, 1, 3];

fn loss(ell: &Tensor, pairs: BrioPairs) -> Result<Tensor> {
    let (lengths, rewards) = (matrix(&[&LENGTHS]), matrix(&[&REWARDS]));
    let c = Candidates::new(&ell.unsqueeze(0)?, &lengths, &rewards, None)?;
    let config = BrioConfig {
        margin: LAMBDA,
        rank_weight: 1.0,
        length_power: POWER,
        pairs,
        ..Default::default()
    };
    Ok(brio_loss(&c, None, &config)?.loss.sum_all()?)
}

fn value(p: &[f64], pairs: BrioPairs) -> f64 {
    numbers(&loss(&vector(&log(p)), pairs).unwrap())[0]
}

/// The leads of neighbors in f, worst first.
fn leads(p: &[f64]) -> Vec<f64> {
    let f = |i: usize| p[i].ln() / LENGTHS[i].powf(POWER);
    ORDER.windows(2).map(|w| f(w[1]) - f(w[0])).collect()
}

#[test]
fn it_stops_where_the_path_enters_the_zero_set() {
    let sum = BrioPairs::Sum;
    let run = |steps| descend(&log(&REFERENCE), 0.02, steps, |ell| loss(ell, sum));
    assert!(value(&run(34), sum) > 0.0);
    let p = run(35);
    assert_eq!(value(&p, sum), 0.0);
    for (got, want) in leads(&p).iter().zip([0.1060, 0.1002, 0.1088]) {
        assert!((got - want).abs() < 5e-5, "{:?}", leads(&p));
    }
    // and stays
    assert_eq!(run(50), p);
}

#[test]
fn means_over_distances_take_another_path_to_the_same_set() {
    let mean = BrioPairs::MeanPerDistance;
    let p = descend(&log(&REFERENCE), 0.02, 120, |ell| loss(ell, mean));
    assert_eq!(value(&p, mean), 0.0);
    assert_eq!(value(&p, BrioPairs::Sum), 0.0);
    assert!(
        leads(&p).iter().all(|lead| *lead >= LAMBDA),
        "{:?}",
        leads(&p)
    );
    let other = descend(&log(&REFERENCE), 0.02, 120, |ell| loss(ell, BrioPairs::Sum));
    assert!((p[3] - other[3]).abs() > 1e-4, "{p:?} {other:?}");
}

#[test]
fn unequal_lengths_move_the_mass_of_the_candidates() {
    // the first three answers of four are the list; the fourth is outside
    let outside = |lengths: [f64; 3]| {
        let theta = descend_free(&log(&REFERENCE), 0.02, 1, |theta| {
            let ell = log_softmax(theta, D::Minus1)?
                .narrow(0, 0, 3)?
                .unsqueeze(0)?;
            let c = Candidates::new(
                &ell,
                &matrix(&[&lengths]),
                &matrix(&[&[0.0, 2.0, 1.0]]),
                None,
            )?;
            let config = BrioConfig {
                margin: LAMBDA,
                rank_weight: 1.0,
                length_power: 1.0,
                ..Default::default()
            };
            Ok(brio_loss(&c, None, &config)?.loss.sum_all()?)
        });
        (theta[3] - log(&REFERENCE)[3]).abs()
    };
    assert!(outside([2.0; 3]) < 1e-15);
    assert!(outside([4.0, 1.0, 2.0]) > 1e-4);
}

#[test]
fn beside_cross_entropy_the_lead_is_lambda_for_every_large_weight() {
    // two answers; the better one is a share d of the references
    let rate = 0.01;
    let with = |d: f64, lambda: f64, gamma: f64| {
        let theta = descend_free(&[0.0, 0.0], rate, 1500, |theta| {
            let ell = log_softmax(theta, D::Minus1)?.unsqueeze(0)?;
            let c = Candidates::new(&ell, &matrix(&[&[1.0, 1.0]]), &matrix(&[&[1.0, 0.0]]), None)?;
            let reference = TokenLoss {
                loss: (&ell * matrix(&[&[-d, d - 1.0]]))?,
                mask: bits(&[&[1, 1]]),
            };
            let config = BrioConfig {
                margin: lambda,
                rank_weight: gamma,
                ..Default::default()
            };
            Ok(brio_loss(&c, Some(&reference), &config)?.loss.sum_all()?)
        });
        theta[0] - theta[1]
    };
    let (d, lambda) = (0.3, 0.8);
    let least = sigma(lambda) - d;
    for gamma in [1.1 * least, 3.0] {
        let z = with(d, lambda, gamma);
        assert!((z - lambda).abs() < 2.0 * gamma * rate, "{gamma}: {z}");
    }
    // too light: where σ(z) − d = γ
    let z = with(d, lambda, 0.2);
    assert!((sigma(z) - d - 0.2).abs() < 1e-3, "{z}");
    // the references lead by more themselves
    let z = with(0.8, lambda, 3.0);
    assert!((sigma(z) - 0.8).abs() < 1e-3, "{z}");
}
