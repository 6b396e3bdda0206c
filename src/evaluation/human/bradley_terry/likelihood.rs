//! The log-likelihood of one game, with its slopes in the logit z and the tie parameter t.

use super::TieModel;
use crate::evaluation::outcome::Outcome;
use crate::math::logistic;

/// ℓ, its gradient (z, t) and its Hessian (zz, zt, tt).
pub(super) struct Likelihood {
    pub value: f64,
    pub gradient: [f64; 2],
    pub hessian: [f64; 3],
}

impl Likelihood {
    /// t is ln θ of Rao and Kupper, ln ν of Davidson, and unused for half wins.
    pub(super) fn new(model: TieModel, outcome: Outcome, z: f64, t: f64) -> Self {
        match model {
            TieModel::HalfWin => half_win(outcome.score(), z),
            TieModel::RaoKupper => rao_kupper(outcome, z, t),
            TieModel::Davidson => davidson(outcome, z, t),
        }
    }
}

/// log σ(x).
fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

fn half_win(score: f64, z: f64) -> Likelihood {
    let p = logistic(z);
    // a weight of 0 times −∞ never occurs: z is finite
    Likelihood {
        value: score * log_sigmoid(z) + (1.0 - score) * log_sigmoid(-z),
        gradient: [score - p, 0.0],
        hessian: [-p * (1.0 - p), 0.0, 0.0],
    }
}

fn rao_kupper(outcome: Outcome, z: f64, t: f64) -> Likelihood {
    // log σ(±z − t)
    let win = |sign: f64| {
        let q = logistic(sign * z - t);
        let curve = q * (1.0 - q);
        Likelihood {
            value: log_sigmoid(sign * z - t),
            gradient: [sign * (1.0 - q), q - 1.0],
            hessian: [-curve, sign * curve, -curve],
        }
    };
    match outcome {
        Outcome::First => win(1.0),
        Outcome::Second => win(-1.0),
        Outcome::Tie if t <= 0.0 => Likelihood {
            value: f64::NEG_INFINITY,
            gradient: [0.0; 2],
            hessian: [0.0; 3],
        },
        // log( σ(z + t) − σ(z − t) )
        Outcome::Tie => {
            let (u, v) = (logistic(z + t), logistic(z - t));
            let (u1, v1) = (u * (1.0 - u), v * (1.0 - v));
            let (u2, v2) = (u1 * (1.0 - 2.0 * u), v1 * (1.0 - 2.0 * v));
            // σ(z + t) − σ(z − t) = σ(z + t) σ(t − z) (1 − e^{−2t})
            let log = log_sigmoid(z + t) + log_sigmoid(t - z) + (-(-2.0 * t).exp_m1()).ln();
            let p = log.exp();
            let (dz, dt) = ((u1 - v1) / p, (u1 + v1) / p);
            Likelihood {
                value: log,
                gradient: [dz, dt],
                hessian: [
                    (u2 - v2) / p - dz * dz,
                    (u2 + v2) / p - dz * dt,
                    (u2 - v2) / p - dt * dt,
                ],
            }
        }
    }
}

fn davidson(outcome: Outcome, z: f64, t: f64) -> Likelihood {
    // three logits: z/2, −z/2, t
    let top = (z.abs() / 2.0).max(t);
    let weights = [z / 2.0, -z / 2.0, t].map(|x| (x - top).exp());
    let sum: f64 = weights.iter().sum();
    let [a, b, tie] = weights.map(|w| w / sum);
    let logit = match outcome {
        Outcome::First => z / 2.0,
        Outcome::Second => -z / 2.0,
        Outcome::Tie => t,
    };
    let lead = (a - b) / 2.0;
    let own = outcome.score() - 0.5;
    Likelihood {
        value: logit - top - sum.ln(),
        gradient: [own - lead, f64::from(outcome == Outcome::Tie) - tie],
        hessian: [lead * lead - (a + b) / 4.0, lead * tie, -tie * (1.0 - tie)],
    }
}
