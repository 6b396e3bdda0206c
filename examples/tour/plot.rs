//! The pictures: plain SVG, written by hand, in colours that the colour-blind can tell apart.

use super::Result;
use super::report::{Entry, Report};
use candle_align::{
    Candidates, DpoConfig, Pair, PpoConfig, ProConfig, RrhfConfig, SlicConfig, TokenLogProbs,
    dpo_loss, ppo_policy_loss, pro_loss, rrhf_loss, slic_rank_loss,
};
use candle_core::{DType, Device, Tensor, Var};
use serde::Serialize;
use std::fmt::Write;

const INK: &str = "#222";
const GRID: &str = "#e4e4e4";

/// The colour of a method (Okabe and Ito's set) and the shape of its mark.
fn style(name: &str) -> (&'static str, Shape) {
    match name {
        "ppo" => ("#D55E00", Shape::Circle),
        "dpo" => ("#0072B2", Shape::Square),
        "dpo-lora" => ("#56B4E9", Shape::Square),
        "pro" => ("#009E73", Shape::Triangle),
        "slic" => ("#CC79A7", Shape::Diamond),
        "rrhf" => ("#B8860B", Shape::Cross),
        _ => (INK, Shape::Circle),
    }
}

#[derive(Clone, Copy)]
enum Shape {
    Circle,
    Square,
    Triangle,
    Diamond,
    Cross,
    Star,
}

/// A rectangle with axes.
struct Chart {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x: (f64, f64),
    y: (f64, f64),
    body: String,
    /// What labels must not cover: x, y, width, height.
    taken: Vec<[f64; 4]>,
}

impl Chart {
    fn new((width, height): (f64, f64), x: (f64, f64), y: (f64, f64)) -> Self {
        Self {
            width,
            height,
            left: 62.0,
            right: 16.0,
            top: 14.0,
            bottom: 48.0,
            x,
            y,
            body: String::new(),
            taken: Vec::new(),
        }
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let wide = self.width - self.left - self.right;
        let high = self.height - self.top - self.bottom;
        (
            self.left + (x - self.x.0) / (self.x.1 - self.x.0) * wide,
            self.top + (self.y.1 - y) / (self.y.1 - self.y.0) * high,
        )
    }

    fn axes(&mut self, x_label: &str, y_label: &str) {
        let (left, bottom) = self.at(self.x.0, self.y.0);
        let (right, top) = self.at(self.x.1, self.y.1);
        for (value, text) in ticks(self.x) {
            let (x, _) = self.at(value, self.y.0);
            let _ = write!(
                self.body,
                r#"<path d="M{x:.1} {top:.1}V{bottom:.1}" stroke="{GRID}"/><text x="{x:.1}" y="{:.1}" text-anchor="middle" fill="{INK}">{text}</text>"#,
                bottom + 18.0
            );
        }
        for (value, text) in ticks(self.y) {
            let (_, y) = self.at(self.x.0, value);
            let _ = write!(
                self.body,
                r#"<path d="M{left:.1} {y:.1}H{right:.1}" stroke="{GRID}"/><text x="{:.1}" y="{:.1}" text-anchor="end" fill="{INK}">{text}</text>"#,
                left - 8.0,
                y + 4.5
            );
        }
        let _ = write!(
            self.body,
            r#"<path d="M{left:.1} {top:.1}V{bottom:.1}H{right:.1}" fill="none" stroke="{INK}"/><text x="{:.1}" y="{:.1}" text-anchor="middle" fill="{INK}">{x_label}</text><text transform="translate(16 {:.1}) rotate(-90)" text-anchor="middle" fill="{INK}">{y_label}</text>"#,
            0.5 * (left + right),
            self.height - 8.0,
            0.5 * (top + bottom)
        );
    }

    fn line(&mut self, points: &[(f64, f64)], colour: &str, width: f64, dash: &str) {
        let path = self.path(points);
        let _ = write!(
            self.body,
            r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dash}" stroke-linejoin="round"/>"#
        );
    }

    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        for (i, &(x, y)) in points.iter().enumerate() {
            let (x, y) = self.at(x, y);
            let _ = write!(path, "{}{x:.1} {y:.1}", if i == 0 { "M" } else { "L" });
        }
        path
    }

    /// A mark, and the room it takes.
    fn mark(&mut self, (x, y): (f64, f64), shape: Shape, fill: &str, stroke: &str) {
        let (x, y) = self.at(x, y);
        self.taken.push([x - 8.0, y - 8.0, 16.0, 16.0]);
        let outline = |corners: &[(f64, f64)]| -> String {
            let corners: Vec<String> = corners
                .iter()
                .map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy))
                .collect();
            format!(r#"<polygon points="{}""#, corners.join(" "))
        };
        let start = match shape {
            Shape::Circle => format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="6""#),
            Shape::Square => outline(&[(-5.5, -5.5), (5.5, -5.5), (5.5, 5.5), (-5.5, 5.5)]),
            Shape::Triangle => outline(&[(0.0, -7.5), (6.5, 5.0), (-6.5, 5.0)]),
            Shape::Diamond => outline(&[(0.0, -7.5), (7.5, 0.0), (0.0, 7.5), (-7.5, 0.0)]),
            Shape::Cross => {
                let (a, b) = (2.2, 7.0);
                outline(&[
                    (-a, -b),
                    (a, -b),
                    (a, -a),
                    (b, -a),
                    (b, a),
                    (a, a),
                    (a, b),
                    (-a, b),
                    (-a, a),
                    (-b, a),
                    (-b, -a),
                    (-a, -a),
                ])
            }
            Shape::Star => {
                let corners: Vec<(f64, f64)> = (0..10)
                    .map(|i| {
                        let turn = std::f64::consts::PI * (i as f64 / 5.0 - 0.5);
                        let radius = if i % 2 == 0 { 10.0 } else { 4.2 };
                        (radius * turn.cos(), radius * turn.sin())
                    })
                    .collect();
                outline(&corners)
            }
        };
        let _ = write!(
            self.body,
            r#"{start} fill="{fill}" stroke="{stroke}" stroke-width="1.5"/>"#
        );
    }

    /// A label near a point, where it covers the least of what is there already.
    fn label(&mut self, (x, y): (f64, f64), text: &str, colour: &str) {
        let (px, py) = self.at(x, y);
        let (wide, high) = (7.0 * text.chars().count() as f64, 15.0);
        let (right, below) = (px + 12.0, py + 9.0);
        let (left, above) = (px - 12.0 - wide, py - 9.0 - high);
        let beside = py - 0.5 * high;
        let centred = px - 0.5 * wide;
        let spots = [
            (right, beside),
            (right, below),
            (centred, below + 4.0),
            (left, beside),
            (left, above),
            (centred, above - 4.0),
            (right, above),
            (left, below),
            (right, below + 16.0),
            (left, below + 16.0),
            (left, above - 16.0),
        ];
        let cost = |&(sx, sy): &(f64, f64)| -> f64 {
            let covered: f64 = self
                .taken
                .iter()
                .map(|&[tx, ty, tw, th]| {
                    let across = (sx + wide).min(tx + tw) - sx.max(tx);
                    let down = (sy + high).min(ty + th) - sy.max(ty);
                    across.max(0.0) * down.max(0.0)
                })
                .sum();
            let outside = (self.left + 2.0 - sx).max(0.0)
                + (sx + wide - (self.width - self.right)).max(0.0)
                + (sy + high - (self.height - self.bottom)).max(0.0)
                + (self.top - sy).max(0.0);
            covered + 100.0 * outside
        };
        let mut best = spots[0];
        for spot in spots {
            if cost(&spot) < cost(&best) - 1e-9 {
                best = spot;
            }
        }
        self.write(best, text, colour);
        self.taken.push([best.0, best.1, wide, high]);
    }

    /// Text whose box begins here, with a white edge so that lines do not run through it.
    fn write(&mut self, (x, y): (f64, f64), text: &str, colour: &str) {
        let _ = write!(
            self.body,
            r#"<text x="{x:.1}" y="{:.1}" fill="{colour}" stroke="white" stroke-width="3" paint-order="stroke">{text}</text>"#,
            y + 12.0
        );
    }

    /// Labels at the right end of lines, pushed apart.
    fn ends(&mut self, mut ends: Vec<(f64, String, &'static str)>) {
        ends.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (x, bottom) = self.at(self.x.1, self.y.0);
        let mut places: Vec<f64> = ends.iter().map(|e| self.at(0.0, e.0).1).collect();
        for i in 1..places.len() {
            places[i] = places[i].max(places[i - 1] + 15.0);
        }
        // What was pushed below the axis pushes back.
        let mut limit = bottom;
        for place in places.iter_mut().rev() {
            *place = place.min(limit);
            limit = *place - 15.0;
        }
        for ((_, text, colour), y) in ends.iter().zip(places) {
            self.write((x + 6.0, y - 8.0), text, colour);
        }
    }

    fn svg(&self, title: &str) -> String {
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0:.0} {1:.0}" width="{0:.0}" height="{1:.0}" role="img" aria-label="{title}" font-family="system-ui, sans-serif" font-size="13"><rect width="100%" height="100%" fill="white"/>{2}</svg>"#,
            self.width, self.height, self.body
        )
    }
}

/// Round numbers across a range, with as many digits as they need.
fn ticks((low, high): (f64, f64)) -> Vec<(f64, String)> {
    let rough = (high - low) / 6.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|m| m * power)
        .into_iter()
        .find(|&s| s >= rough)
        .unwrap_or(10.0 * power);
    let digits = (-step.log10().floor()).max(0.0) as usize;
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last)
        .map(|i| {
            let value = i as f64 * step;
            (value, format!("{value:.digits$}").replace('-', "−"))
        })
        .collect()
}

/// The smallest and largest of some numbers, with a little room.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
        (l.min(v), h.max(v))
    });
    let room = 0.06 * (high - low).max(1e-3);
    (low - room, high + room)
}

fn policies(report: &Report) -> impl Iterator<Item = (&Entry, f64, f64)> {
    report
        .entries
        .iter()
        .filter(|e| e.name != "sft")
        .filter_map(|e| Some((e, e.kl?, e.reward?)))
}

/// Reward against KL: the frontier, the ways of the methods, and where each ends.
pub fn frontier(report: &Report) -> String {
    let curve: Vec<(f64, f64)> = report.frontier.iter().map(|m| (m.kl, m.reward)).collect();
    let end = curve.last().copied().unwrap_or((1.0, 1.0));
    let lowest = policies(report)
        .flat_map(|(e, ..)| e.curve.iter().map(|p| p.reward))
        .chain(curve.iter().map(|c| c.1));
    let y = range(lowest);
    let mut chart = Chart::new((940.0, 600.0), (0.0, end.0), (y.0, y.1.max(end.1)));

    // What no policy can reach.
    let (_, ceiling) = chart.y;
    let mut beyond = curve.clone();
    beyond.extend([(end.0, ceiling), (0.0, ceiling)]);
    let path = chart.path(&beyond);
    let _ = write!(chart.body, r##"<path d="{path}Z" fill="#f1f1f1"/>"##);
    chart.axes(
        "KL(policy ‖ reference), nats per answer",
        "expected reward (1 = its deviation among demonstrations)",
    );
    chart.line(&curve, INK, 2.5, "");
    // Labels stay off the frontier.
    for &(x, y) in &curve {
        let (x, y) = chart.at(x, y);
        chart.taken.push([x - 4.0, y - 4.0, 8.0, 8.0]);
    }
    for (entry, ..) in policies(report) {
        let way: Vec<(f64, f64)> = entry.curve.iter().map(|p| (p.kl, p.reward)).collect();
        chart.body.push_str(r#"<g opacity="0.55">"#);
        chart.line(&way, style(&entry.name).0, 1.3, "");
        chart.body.push_str("</g>");
        for &(x, y) in &way {
            let (x, y) = chart.at(x, y);
            chart.taken.push([x - 2.0, y - 2.0, 4.0, 4.0]);
        }
    }
    // The regret of each: straight up to the frontier.
    for (entry, kl, reward) in policies(report) {
        let regret = entry.regret.unwrap_or(0.0);
        let colour = style(&entry.name).0;
        chart.line(&[(kl, reward), (kl, reward + regret)], colour, 1.0, "2 3");
    }
    let reference = (0.0, curve.first().map_or(0.0, |c| c.1));
    chart.mark(reference, Shape::Circle, INK, "white");
    let target = (report.target.kl, report.target.reward);
    chart.mark(target, Shape::Star, INK, "white");
    for (entry, kl, reward) in policies(report) {
        let (colour, shape) = style(&entry.name);
        let hollow = entry.name == "dpo-lora";
        chart.mark(
            (kl, reward),
            shape,
            if hollow { "white" } else { colour },
            if hollow { colour } else { "white" },
        );
    }
    // On top, unfilled: a policy that arrived is seen inside.
    if let Some(learned) = &report.learned_target {
        chart.mark((learned.kl, learned.reward), Shape::Star, "none", INK);
    }
    let (x, y) = chart.at(0.03 * end.0, ceiling);
    let text =
        "No policy reaches the grey: its edge is the exact frontier, π ∝ reference · exp(r/β)";
    chart.write((x, y + 6.0), text, INK);
    chart.label(target, &report.target.label, INK);
    if let Some(learned) = &report.learned_target {
        chart.label((learned.kl, learned.reward), &learned.label, INK);
    }
    chart.label(reference, "reference (SFT)", INK);
    for (entry, kl, reward) in policies(report) {
        chart.label((kl, reward), &entry.label, style(&entry.name).0);
    }
    chart.svg("Expected reward against KL to the reference, with the exact frontier")
}

/// Something over the steps of training, one line per method.
fn over_steps(report: &Report, what: &str, of: fn(&super::report::CurvePoint) -> f64) -> String {
    let lines: Vec<(&Entry, Vec<(f64, f64)>)> = policies(report)
        .map(|(e, ..)| {
            let points = e.curve.iter().map(|p| (p.step as f64, of(p))).collect();
            (e, points)
        })
        .collect();
    let all = || lines.iter().flat_map(|(_, points)| points.iter());
    let last = all().map(|p| p.0).fold(1.0, f64::max);
    let mut chart = Chart::new((460.0, 320.0), (0.0, last), range(all().map(|p| p.1)));
    chart.right = 92.0;
    chart.axes("optimiser steps", what);
    let mut ends = Vec::new();
    for (entry, points) in &lines {
        let colour = style(&entry.name).0;
        let dash = if entry.name == "dpo-lora" { "6 3" } else { "" };
        chart.line(points, colour, 2.0, dash);
        if let Some(end) = points.last() {
            ends.push((end.1, entry.label.clone(), colour));
        }
    }
    chart.ends(ends);
    chart.svg(&format!("{what} over the steps of training"))
}

/// E r over the steps.
pub fn rewards(report: &Report) -> String {
    over_steps(report, "expected reward", |p| p.reward)
}

/// KL over the steps.
pub fn divergences(report: &Report) -> String {
    over_steps(report, "KL to the reference, nats", |p| p.kl)
}

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
            pull(&|a| slic_rank_loss(&pair(a)?, &SlicConfig::default()))?,
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
            format!("DPO, β = {beta}, lead over the reference's"),
            pull(&|a| Ok(dpo_loss(&pair(a)?, None, &dpo)?.loss))?,
        ),
        one(
            "ppo",
            "PPO, advantage 1, lead over the old policy".into(),
            pull(&ppo)?,
        ),
    ])
}

/// The pulls, with a legend.
pub fn pulls(report: &Report) -> String {
    let mut chart = Chart::new((940.0, 360.0), (-4.0, 4.0), (-0.05, 1.3));
    chart.right = 330.0;
    chart.axes("lead of the better answer, nats", "pull: −∂loss/∂lead");
    let (x, _) = chart.at(4.0, 1.3);
    for (i, gradient) in report.gradients.iter().enumerate() {
        let colour = style(&gradient.name).0;
        // Where two lines lie on each other, the dashes of the upper one let the lower one through.
        let dash = if gradient.name == "rrhf" { "7 5" } else { "" };
        chart.line(&gradient.points, colour, 2.2, dash);
        let y = 30.0 + 24.0 * i as f64;
        let _ = write!(
            chart.body,
            r#"<path d="M{:.1} {y:.1}h24" stroke="{colour}" stroke-width="3" stroke-dasharray="{dash}"/>"#,
            x + 14.0
        );
        chart.write((x + 44.0, y - 8.0), &gradient.label, colour);
    }
    chart.svg("How hard each loss pulls, against the lead of the better answer")
}
