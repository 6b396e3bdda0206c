//! The maximum of the likelihood, and its sandwich covariance.

use super::connected::{Row, require_connected};
use super::likelihood::Likelihood;
use super::newton::{Local, minimize, solve};
use super::{BradleyTerryConfig, TieModel};
use crate::error::{Error, Result};
use crate::evaluation::outcome::Outcome;

/// Strengths, then coefficients; with the covariance of both.
pub(super) struct Fit {
    pub point: Vec<f64>,
    pub covariance: Vec<Vec<f64>>,
    pub tie: Option<f64>,
    pub log_likelihood: f64,
}

/// The logit of a game beyond which strengths count as infinite: odds of 10¹³.
const FAR: f64 = 30.0;

pub(super) fn fit(
    function: &'static str,
    rows: &[Row],
    models: usize,
    features: usize,
    config: &BradleyTerryConfig,
) -> Result<Fit> {
    let ties = rows
        .iter()
        .filter(|row| row.game.outcome == Outcome::Tie)
        .count();
    let problem = Problem {
        rows,
        models,
        features,
        config,
        tied: usize::from(config.ties != TieModel::HalfWin && ties > 0),
        alpha: config.base.ln(),
    };
    if problem.tied == 1 && ties == rows.len() {
        let says = "are all ties, so the tie parameter has no finite estimate; use half_win";
        return Err(Error::argument(function, "games", says));
    }
    let unlimited = config.regularization == 0.0;
    if unlimited {
        require_connected(function, rows, models)?;
    }
    let mut start = vec![0.0; problem.size()];
    if problem.tied == 1 {
        // ln θ = 1 or ln ν = 0
        start[models + features] = f64::from(config.ties == TieModel::RaoKupper);
    }
    let infinite = || {
        let says = "have no finite maximum of the likelihood (a feature or the ties separate wins from losses); \
                    set `regularization`";
        Error::argument(function, "games", says)
    };
    let (point, lower) = minimize(start, |point| problem.local(point)).ok_or_else(infinite)?;
    let logit = |row: &Row| -> f64 {
        problem
            .slopes(row)
            .iter()
            .map(|(at, slope)| point[*at] * slope)
            .sum()
    };
    if unlimited && rows.iter().any(|row| logit(row).abs() > FAR) {
        return Err(infinite());
    }
    Ok(Fit {
        covariance: problem.sandwich(&point, &lower),
        tie: match (config.ties, point.get(models + features)) {
            (TieModel::HalfWin, _) => None,
            (_, Some(t)) => Some(t.exp()),
            // no tie was seen, and none is expected
            (TieModel::RaoKupper, None) => Some(1.0),
            (TieModel::Davidson, None) => Some(0.0),
        },
        log_likelihood: problem.log_likelihood(&point),
        point,
    })
}

struct Problem<'a> {
    rows: &'a [Row<'a>],
    models: usize,
    features: usize,
    config: &'a BradleyTerryConfig,
    /// 1 if the last number is a tie parameter.
    tied: usize,
    /// ln base
    alpha: f64,
}

impl Problem<'_> {
    fn size(&self) -> usize {
        self.models + self.features + self.tied
    }

    /// Where z depends on the parameters, and how much.
    fn slopes(&self, row: &Row) -> Vec<(usize, f64)> {
        let mut slopes = vec![(row.game.first, self.alpha), (row.game.second, -self.alpha)];
        slopes.extend((self.models..).zip(row.features.iter().copied()));
        slopes
    }

    fn game(&self, point: &[f64], row: &Row, slopes: &[(usize, f64)]) -> Likelihood {
        let z = slopes.iter().map(|(at, slope)| point[*at] * slope).sum();
        // without ties all models are plain Bradley–Terry
        match point.get(self.models + self.features) {
            Some(t) => Likelihood::new(self.config.ties, row.game.outcome, z, *t),
            None => Likelihood::new(TieModel::HalfWin, row.game.outcome, z, 0.0),
        }
    }

    fn log_likelihood(&self, point: &[f64]) -> f64 {
        let each = |row: &Row| row.count * self.game(point, row, &self.slopes(row)).value;
        self.rows.iter().map(each).sum()
    }

    /// −ℓ + ½ λ (Σ ρ² + Σ c²), and without λ + ½ (Σ ρ)², which is 0 at the maximum that is wanted.
    fn local(&self, point: &[f64]) -> Local {
        let n = self.size();
        let tie = self.models + self.features;
        let mut local = Local {
            value: 0.0,
            gradient: vec![0.0; n],
            hessian: vec![vec![0.0; n]; n],
        };
        for row in self.rows {
            let slopes = self.slopes(row);
            let game = self.game(point, row, &slopes);
            local.value -= row.count * game.value;
            let [zz, zt, tt] = game.hessian.map(|h| -h * row.count);
            for &(i, a) in &slopes {
                local.gradient[i] -= row.count * game.gradient[0] * a;
                for &(j, b) in &slopes {
                    local.hessian[i][j] += zz * a * b;
                }
                if self.tied == 1 {
                    local.hessian[tie][i] += zt * a;
                    local.hessian[i][tie] += zt * a;
                }
            }
            if self.tied == 1 {
                local.gradient[tie] -= row.count * game.gradient[1];
                local.hessian[tie][tie] += tt;
            }
        }
        let lambda = self.config.regularization;
        for (i, x) in point[..tie].iter().enumerate() {
            local.value += 0.5 * lambda * x * x;
            local.gradient[i] += lambda * x;
            local.hessian[i][i] += lambda;
        }
        if lambda == 0.0 {
            let sum: f64 = point[..self.models].iter().sum();
            local.value += 0.5 * sum * sum;
            for i in 0..self.models {
                local.gradient[i] += sum;
                for j in 0..self.models {
                    local.hessian[i][j] += 1.0;
                }
            }
        }
        local
    }

    /// H⁻¹ B H⁻¹ with the scores of games about their mean.
    fn sandwich(&self, point: &[f64], lower: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let n = self.size();
        let mut middle = vec![vec![0.0; n]; n];
        let (mut total, mut games) = (vec![0.0; n], 0.0);
        for row in self.rows {
            let slopes = self.slopes(row);
            let game = self.game(point, row, &slopes);
            let mut score: Vec<_> = slopes
                .iter()
                .map(|(i, a)| (*i, a * game.gradient[0]))
                .collect();
            if self.tied == 1 {
                score.push((n - 1, game.gradient[1]));
            }
            games += row.count;
            for &(i, a) in &score {
                total[i] += row.count * a;
                for &(j, b) in &score {
                    middle[i][j] += row.count * a * b;
                }
            }
        }
        for i in 0..n {
            for j in 0..n {
                middle[i][j] -= total[i] * total[j] / games;
            }
        }
        // H⁻¹ B, then its transpose from the left again
        let once: Vec<Vec<f64>> = middle.iter().map(|column| solve(lower, column)).collect();
        let turned = |rows: &[Vec<f64>]| -> Vec<Vec<f64>> {
            (0..n)
                .map(|i| rows.iter().map(|row| row[i]).collect())
                .collect()
        };
        turned(&once)
            .iter()
            .map(|column| solve(lower, column))
            .collect()
    }
}
