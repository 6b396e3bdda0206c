//! §3.2.2, Stable Alignment: its single hinge demands a lead over the worse answers on average, not over each.
//!
//! ```text
//! cargo run --example stable_alignment
//! ```
//! Four answers of one token are rated 0, 1, ½, 2, and M = 1: D should be e^{2 − r} times as likely as
//! each of the others. The last two columns show the hinge of the mean of the missing leads, as the
//! authors ran it, and of the largest:
//!
//! ```text
//!                            A       B       C       D    mean     max
//! π_ref                  0.400   0.300   0.200   0.100   2.559   3.386
//! A driven away          0.004   0.332   0.332   0.332   0.000   1.500
//! mean's hinge alone     0.182   0.137   0.091   0.590   0.000   0.826
//! max's hinge alone      0.078   0.213   0.129   0.580   0.000   0.000
//! mean, with imitation   0.000   0.000   0.000   0.999   0.000   0.000
//! max, with imitation    0.000   0.000   0.000   0.999   0.000   0.000
//! ```
//! What you should see: the mean is satisfied if one bad answer is driven far enough away, even though
//! B and C are as likely as the best. Training on it moves the worse answers alike, 4 : 3 : 2 as before,
//! whatever their ratings: the ratings enter only through their mean. The largest term stops, within
//! one step, at the ratings themselves, π ∝ eʳ. But the loss also imitates D, and with that both
//! forms go to D alone, like 1/N over N steps, long after the hinge has closed.
//!
//! Change `margin: 1.0` to `margin: 0.5` and see: the largest term alone stops near π ∝ e^{r/2}, with
//! 0.41 for D.

#[path = "tabular/policy.rs"]
mod policy;

use candle_align::{
    Candidates, ListLoss, StableAlignmentConfig, StableAlignmentForm, stable_alignment_loss,
};
use candle_core::{D, Device, Tensor};
use candle_nn::ops::log_softmax;
use policy::{REFERENCE, REWARDS, Result, descend, log, softmax, table};

/// N, for the two runs that never end.
pub const STEPS: usize = 1000;
/// A's probability; the other answers share the rest.
const DRIVEN: [f64; 4] = [0.0036, 0.3321333333, 0.3321333333, 0.3321333334];

/// The policies at the end of each run, with the values of both hinges.
pub struct Report {
    pub policies: Vec<(&'static str, Vec<f64>, [f64; 2])>,
}

pub fn run() -> Result<Report> {
    use StableAlignmentForm::{Max, Mean};
    let alone = |form| -> Result<Vec<f64>> {
        let config = config(form, 1.0);
        let hinge = |theta: &Tensor| {
            let log_policy = log_softmax(theta, D::Minus1)?;
            let loss = loss(&log_policy, &config)?.loss.sum_all()?;
            Ok((loss + log_policy.get(3)?)?) // without its imitation of D
        };
        Ok(softmax(&descend(&log(&REFERENCE), 0.002, 1100, hinge)?))
    };
    let whole = |form| -> Result<Vec<f64>> {
        let config = config(form, StableAlignmentConfig::default().ratio);
        let objective = |theta: &Tensor| {
            let log_policy = log_softmax(theta, D::Minus1)?;
            Ok(loss(&log_policy, &config)?.loss.sum_all()?)
        };
        Ok(softmax(&descend(&log(&REFERENCE), 1.0, STEPS, objective)?))
    };
    let reached = [
        ("π_ref", REFERENCE.to_vec()),
        ("A driven away", DRIVEN.to_vec()),
        ("mean's hinge alone", alone(Mean)?),
        ("max's hinge alone", alone(Max)?),
        ("mean, with imitation", whole(Mean)?),
        ("max, with imitation", whole(Max)?),
    ];
    let with_hinges = |(name, pi): (&'static str, Vec<f64>)| -> Result<_> {
        let log_policy = Tensor::new(log(&pi), &Device::Cpu)?;
        let hinge = |form| -> Result<f64> {
            let ranking = loss(&log_policy, &config(form, 1.0))?.ranking;
            Ok(ranking.sum_all()?.to_scalar()?)
        };
        let hinges = [hinge(Mean)?, hinge(Max)?];
        Ok((name, pi, hinges))
    };
    let policies = reached.into_iter().map(with_hinges);
    Ok(Report {
        policies: policies.collect::<Result<_>>()?,
    })
}

fn config(form: StableAlignmentForm, ratio: f64) -> StableAlignmentConfig {
    StableAlignmentConfig {
        margin: 1.0,
        rating_scale: 1.0,
        ratio,
        form,
    }
}

/// The loss of the list of all four answers.
fn loss(log_policy: &Tensor, config: &StableAlignmentConfig) -> candle_align::Result<ListLoss> {
    let sums = log_policy.unsqueeze(0)?;
    let ratings = Tensor::new(&[REWARDS], &Device::Cpu)?;
    let list = Candidates::new(&sums, &sums.ones_like()?, &ratings, None)?;
    stable_alignment_loss(&list, config)
}

impl Report {
    pub fn table(&self) -> String {
        let row =
            |(name, pi, hinges): &(_, Vec<f64>, [f64; 2])| (*name, [&pi[..], &hinges[..]].concat());
        let rows: Vec<(&str, Vec<f64>)> = self.policies.iter().map(row).collect();
        table(&["", "A", "B", "C", "D", "mean", "max"], &rows)
    }
}

fn main() -> Result<()> {
    println!("{}", run()?.table());
    Ok(())
}
