//! The policy losses over the ratio, for a good and a bad answer of one token.

use super::Result;
use super::sheet::{Line, Panel, Style, picture};
use candle_align::online::policy_gradient::*;
use candle_align::{TokenLogProbs, TokenLoss};
use candle_core::{DType, Device, Tensor, Var};

/// The old policy's probability of the token.
const OLD: f64 = 0.3;

/// One loss at one setting.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// The function of the library.
    pub function: &'static str,
    pub style: Style,
    of: fn(&TokenLogProbs, &Tensor, &Tensor) -> candle_align::Result<TokenLoss>,
}

/// A loss at one ratio.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub ratio: f64,
    pub value: f64,
    /// In the log-probability of the token.
    pub slope: f64,
}

/// In the order of the legend.
pub fn all() -> Vec<Loss> {
    let style = |label, color, width| Style {
        label,
        color,
        width,
    };
    let loss = |function, style, of| Loss {
        function,
        style,
        of,
    };
    vec![
        loss(
            "grpo_loss",
            style("GRPO, PPO: ε = 0.2", (0, 114, 178), 14),
            |new, old, a| Ok(grpo_loss(new, old, a, &GrpoConfig::default())?.loss),
        ),
        loss(
            "grpo_loss, dapo",
            style("DAPO with δ = 2: ε = 0.2 and 0.28", (86, 180, 233), 6),
            |new, old, a| {
                let config = GrpoConfig {
                    delta: Some(2.0),
                    ..GrpoConfig::dapo()
                };
                Ok(grpo_loss(new, old, a, &config)?.loss)
            },
        ),
        loss(
            "cispo_loss",
            style("CISPO, at most 1.5", (0, 158, 115), 10),
            |new, old, a| {
                let config = CispoConfig {
                    clip: CispoClip::Absolute { high: 1.5 },
                    ..CispoConfig::default()
                };
                Ok(cispo_loss(new, old, a, &config)?.loss)
            },
        ),
        loss(
            "dppo_loss",
            style("DPPO, δ = 0.2, from p = 0.3", (213, 94, 0), 5),
            |new, old, a| Ok(dppo_loss(new, old, a, &DppoConfig::default())?.loss),
        ),
        loss(
            "sapo_loss",
            style("SAPO, τ = 1 and 1.05", (230, 159, 0), 5),
            |new, old, a| Ok(sapo_loss(new, old, a, &SapoConfig::default())?.loss),
        ),
        loss(
            "gmpo_loss",
            style("GMPO, ε = 0.4", (204, 121, 167), 5),
            |new, old, a| Ok(gmpo_loss(new, old, a, &GmpoConfig::default())?.loss),
        ),
        loss(
            "vespo_loss",
            style("VESPO", (139, 90, 43), 5),
            |new, old, a| Ok(vespo_loss(new, old, a, None, &VespoConfig::default())?.loss),
        ),
        loss(
            "token_dro_loss",
            style("DRO, β = 1", (60, 60, 200), 3),
            |new, old, a| token_dro_loss(new, old, a, &TokenDroConfig { beta: 1.0 }),
        ),
        loss(
            "reinforce_loss",
            style("REINFORCE", (120, 120, 120), 3),
            |new, _, a| reinforce_loss(new, a),
        ),
    ]
}

impl Loss {
    /// Value and slope at each ratio, the slope by backward.
    pub fn at(&self, ratios: &[f64], advantage: f64) -> Result<Vec<Point>> {
        let log_probs: Vec<f64> = ratios.iter().map(|ratio| (ratio * OLD).ln()).collect();
        let column = (ratios.len(), 1);
        let values = Var::from_slice(&log_probs, column, &Device::Cpu)?;
        let mask = Tensor::ones(column, DType::U8, &Device::Cpu)?;
        let old = values.zeros_like()?.affine(0.0, OLD.ln())?;
        let advantages = old.squeeze(1)?.affine(0.0, advantage)?;
        let loss = (self.of)(&TokenLogProbs::new(&values, &mask)?, &old, &advantages)?.loss;
        let grads = loss.sum_all()?.backward()?;
        let slopes = grads
            .get(&values)
            .ok_or("the gradient does not reach the log-probability")?;
        let numbers = |x: &Tensor| x.flatten_all()?.to_vec1::<f64>();
        let points = ratios.iter().zip(numbers(&loss)?).zip(numbers(slopes)?);
        Ok(points
            .map(|((&ratio, value), slope)| Point {
                ratio,
                value,
                slope,
            })
            .collect())
    }
}

/// Ratios from 0.02 to 3, with a close neighbor before each bound, so that a step is drawn as vertical.
fn grid() -> Vec<f64> {
    let even = (1..=120).map(|i| i as f64 / 40.0);
    let bounds = [
        0.8,
        1.2,
        1.28,
        1.5,
        2.0,
        1.0 / 3.0,
        5.0 / 3.0,
        (0.4f64).exp(),
        (-0.4f64).exp(),
    ];
    let beside = bounds.iter().flat_map(|b| [b - 1e-6, *b, b + 1e-6]);
    let mut all: Vec<f64> = even.chain(beside).collect();
    all.sort_by(f64::total_cmp);
    all
}

/// Loss and slope for Â = 1 and Â = −1.
pub fn drawn() -> Result<String> {
    let ratios = grid();
    let mut panels = Vec::new();
    for (advantage, beside, y) in [
        (1.0, ["loss, Â = 1", "slope, Â = 1"], [-2.7..2.2, -2.6..0.9]),
        (
            -1.0,
            ["loss, Â = −1", "slope, Â = −1"],
            [-2.2..3.1, -0.9..3.1],
        ),
    ] {
        let curves = all()
            .into_iter()
            .map(|loss| Ok((loss.style, loss.at(&ratios, advantage)?)))
            .collect::<Result<Vec<(Style, Vec<Point>)>>>()?;
        let lines = |of: fn(&Point) -> f64| -> Vec<Line> {
            let line = |(style, points): &(Style, Vec<Point>)| Line {
                style: *style,
                points: points.iter().map(|p| (p.ratio, of(p))).collect(),
            };
            curves.iter().map(line).collect()
        };
        for (i, lines) in [lines(|p| p.value), lines(|p| p.slope)]
            .into_iter()
            .enumerate()
        {
            panels.push(Panel {
                below: "ratio",
                beside: beside[i],
                x: 0.0..3.0,
                y: y[i].clone(),
                lines,
            });
        }
    }
    picture(&panels)
}
