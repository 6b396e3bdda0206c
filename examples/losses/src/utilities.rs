//! What advantages of a group ascend, for answers that succeed with probability p.

use super::Result;
use super::sheet::{Line, Panel, Style, picture};
use candle_align::online::group_advantages::*;
use candle_core::{Device, Tensor};

/// Answers to a prompt.
pub const GROUP: usize = 8;

/// One kind of advantage, and the utility whose slope its mean gradient tends to.
#[derive(Clone, Copy, Debug)]
pub struct Utility {
    pub style: Style,
    of: fn(&Tensor) -> candle_align::Result<Tensor>,
    pub value: fn(f64) -> f64,
}

/// In the order of the legend.
pub fn all() -> Vec<Utility> {
    let style = |label, color, width| Style {
        label,
        color,
        width,
    };
    vec![
        Utility {
            style: style("GRPO: 2 arcsin √p", (0, 114, 178), 5),
            of: |rewards| grpo_advantages(rewards, None, &GrpoAdvantageConfig::default()),
            value: |p| 2.0 * p.sqrt().asin(),
        },
        Utility {
            style: style("Dr. GRPO: p (1 − 1/G), G = 8", (86, 180, 233), 5),
            of: |rewards| {
                let config = GrpoAdvantageConfig {
                    deviation: Deviation::None,
                    ..Default::default()
                };
                grpo_advantages(rewards, None, &config)
            },
            value: |p| p * (1.0 - 1.0 / GROUP as f64),
        },
        Utility {
            style: style("RLOO: p", (0, 158, 115), 5),
            of: |rewards| rloo_advantages(rewards, None),
            value: |p| p,
        },
        Utility {
            style: style("MaxRL: log p", (213, 94, 0), 5),
            of: |rewards| max_rl_advantages(rewards, None),
            value: f64::ln,
        },
    ]
}

impl Utility {
    /// E[ (1/G) Σᵢ Âᵢ ∂ log π(yᵢ)/∂p ] over all groups, at each p.
    pub fn slopes(&self, at: &[f64]) -> Result<Vec<f64>> {
        let of = |k: usize| (0..GROUP).map(move |i| f64::from(i < k));
        let rewards: Vec<f64> = (0..=GROUP).flat_map(of).collect();
        let rewards = Tensor::from_vec(rewards, (GROUP + 1, GROUP), &Device::Cpu)?;
        let advantages = (self.of)(&rewards)?.to_vec2::<f64>()?;
        let slope = |p: &f64| {
            let mut chance = (1.0 - p).powi(GROUP as i32);
            let mut sum = 0.0;
            for (k, group) in advantages.iter().enumerate() {
                let (right, wrong) = group.split_at(k);
                let right: f64 = right.iter().sum::<f64>() / p;
                let wrong: f64 = wrong.iter().sum::<f64>() / (1.0 - p);
                sum += chance * (right - wrong) / GROUP as f64;
                chance *= (GROUP - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
            }
            sum
        };
        Ok(at.iter().map(slope).collect())
    }
}

/// The utilities, and the slopes that groups of eight give.
pub fn drawn() -> Result<String> {
    let at: Vec<f64> = (1..100).map(|i| i as f64 / 100.0).collect();
    let (mut values, mut slopes) = (Vec::new(), Vec::new());
    for utility in all() {
        let style = utility.style;
        let points = at.iter().map(|p| (*p, (utility.value)(*p))).collect();
        values.push(Line { style, points });
        let points = at.iter().copied().zip(utility.slopes(&at)?).collect();
        slopes.push(Line { style, points });
    }
    let panel = |beside, y, lines| Panel {
        below: "probability of success",
        beside,
        x: 0.0..1.0,
        y,
        lines,
    };
    picture(&[
        panel("utility", -3.0..3.3, values),
        panel("weight of a prompt, G = 8", 0.0..8.0, slopes),
    ])
}
