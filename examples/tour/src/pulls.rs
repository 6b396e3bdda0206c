//! How hard each loss pulls, by the library's own backward pass.

use super::Result;
use super::chart::Chart;
use super::report::Report;
use candle_align::{
    Candidates, DpoConfig, Pair, PpoConfig, ProConfig, RrhfConfig, SlicConfig, TokenLogProbs,
    dpo_loss, ppo_policy_loss, pro_loss, rrhf_loss, slic_rank_loss,
};
use candle_core::{DType, Device, Tensor, Var};
use serde::Serialize;
use std::fmt::Write;

/// How hard one loss pulls, against how far ahead the better answer is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gradient {
    pub name: String,
    pub label: String,
    /// (lead in nats, −∂L/∂lead), by the library's own backward pass.
    pub points: Vec<(f64, f64)>,
}

/// Two answers of one token, the better one ahead by each of these leads; PPO: one token whose
/// log-ratio to the old policy is the lead, with an advantage of 1.
pub fn gradients(beta: f64) -> Result<Vec<Gradient>> {
    let leads: Vec<f64> = (0..=320).map(|i| -4.0 + 0.025 * i as f64 + 1e-6).collect();
    let n = leads.len();
    let column = |value: f64| Tensor::full(value, n, &Device::Cpu);
    let pull = |loss: &dyn Fn(&Tensor) -> candle_align::Result<Tensor>| -> Result<Vec<(f64, f64)>> {
        let ahead = Var::from_vec(leads.clone(), n, &Device::Cpu)?;
        let grads = loss(ahead.as_tensor())?.sum_all()?.backward()?;
        let slopes = match grads.get(&ahead) {
            Some(grad) => grad.to_vec1::<f64>()?,
            None => vec![0.0; n],
        };
        Ok(leads
            .iter()
            .copied()
            .zip(slopes.iter().map(|s| 0.0 - s))
            .collect())
    };
    let list = |ahead: &Tensor| -> candle_align::Result<Candidates> {
        let sums = Tensor::stack(&[ahead, &ahead.zeros_like()?], 1)?;
        let one = column(1.0)?;
        let lengths = Tensor::stack(&[&one, &one], 1)?;
        let rewards = Tensor::stack(&[&one, &one.zeros_like()?], 1)?;
        Candidates::new(&sums, &lengths, &rewards, None)
    };
    let pair = |ahead: &Tensor| -> candle_align::Result<Pair<Tensor>> {
        Ok(Pair {
            chosen: ahead.clone(),
            rejected: ahead.zeros_like()?,
        })
    };
    let dpo = DpoConfig {
        beta,
        label_smoothing: 0.0,
    };
    let rrhf = RrhfConfig {
        sft_weight: 0.0,
        ..Default::default()
    };
    let pro = ProConfig {
        sft_weight: 0.0,
        ..Default::default()
    };
    let ppo = |ahead: &Tensor| {
        let mask = Tensor::ones((n, 1), DType::U8, &Device::Cpu)?;
        let new = TokenLogProbs::new(&ahead.unsqueeze(1)?, &mask)?;
        let one = column(1.0)?.unsqueeze(1)?;
        let out = ppo_policy_loss(&new, &one.zeros_like()?, &one, &PpoConfig::default())?;
        Ok(out.loss.loss)
    };
    let one = |name: &str, label: String, points| Gradient {
        name: name.into(),
        label,
        points,
    };
    Ok(vec![
        one(
            "slic",
            "SLiC, rank loss, δ = 1".into(),
            pull(&|a| Ok(slic_rank_loss(&pair(a)?, &SlicConfig::default())?.loss))?,
        ),
        one(
            "rrhf",
            "RRHF, rank part".into(),
            pull(&|a| Ok(rrhf_loss(&list(a)?, &rrhf)?.loss))?,
        ),
        one(
            "pro",
            "PRO, rank part, rewards 1 apart".into(),
            pull(&|a| Ok(pro_loss(&list(a)?, &pro)?.loss))?,
        ),
        one(
            "dpo",
            format!("DPO, β = {beta}, lead over the reference"),
            pull(&|a| Ok(dpo_loss(&pair(a)?, None, &dpo)?.loss))?,
        ),
        one(
            "ppo",
            "PPO, advantage 1, lead over the old policy".into(),
            pull(&ppo)?,
        ),
    ])
}

fn color(name: &str) -> &'static str {
    match name {
        "ppo" => "#D55E00",
        "dpo" => "#0072B2",
        "pro" => "#00835c",
        "slic" => "#B0468A",
        _ => "#8A6D00",
    }
}

/// The pulls, with a legend.
pub fn pulls(report: &Report) -> String {
    let mut chart = Chart::new((940.0, 360.0), (-4.0, 4.0), (-0.05, 1.3));
    chart.right = 330.0;
    chart.axes("lead of the better answer, nats", "pull: −∂loss/∂lead");
    let (x, _) = chart.at(4.0, 1.3);
    for (i, gradient) in report.gradients.iter().enumerate() {
        let color = color(&gradient.name);
        // Where two lines lie on each other, the dashes of the upper one let the lower one through.
        let dash = if gradient.name == "rrhf" { "7 5" } else { "" };
        chart.line(&gradient.points, color, 2.2, dash);
        let y = 30.0 + 24.0 * i as f64;
        let _ = write!(
            chart.body,
            r#"<path d="M{:.1} {y:.1}h24" stroke="{color}" stroke-width="3" stroke-dasharray="{dash}"/>"#,
            x + 14.0
        );
        chart.write((x + 44.0, y - 8.0), &gradient.label, color);
    }
    chart.svg("How hard each loss pulls, against the lead of the better answer")
}
