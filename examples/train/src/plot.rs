//! `curves.svg`: loss and accuracy over the steps, with their baselines.

use super::error::{Error, Result};
use super::metric::Metric;
use super::objectives::Objective;
use super::report::Summary;
use plotters::coord::Shift;
use plotters::prelude::*;

pub const BLUE: RGBColor = RGBColor(31, 119, 180);
pub const ORANGE: RGBColor = RGBColor(255, 127, 14);
pub const GRAY: RGBColor = RGBColor(127, 127, 127);
const GREEN: RGBColor = RGBColor(44, 160, 44);

/// One curve over the steps.
pub struct Curve {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    pub color: RGBColor,
    /// Whether points are marked, because there are few.
    pub marked: bool,
}

/// The picture as a text. Only the objective's own phase is drawn.
pub fn curves(metrics: &[Metric], summary: &Summary) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, metrics, summary)
        .map_err(|error| Error::Usage(format!("curves.svg cannot be drawn: {error}")))?;
    Ok(svg)
}

fn draw(
    svg: &mut String,
    metrics: &[Metric],
    summary: &Summary,
) -> Result<(), Box<dyn std::error::Error>> {
    let phase = summary.objective.to_string();
    let of = |split: &'static str, value: fn(&Metric) -> Option<f64>| -> Vec<(f64, f64)> {
        let own = metrics
            .iter()
            .filter(|m| m.split == split && m.phase == phase);
        own.filter_map(|m| Some((m.step as f64, value(m)?)))
            .collect()
    };
    let loss = |m: &Metric| Some(m.loss);
    let accuracy = |m: &Metric| m.accuracy;
    let level = |name: String, y: f64, color| Curve {
        name,
        points: vec![(0.0, y), (summary.steps as f64, y)],
        color,
        marked: false,
    };
    let two = |value: fn(&Metric) -> Option<f64>| {
        vec![
            Curve {
                name: "training, moving mean".to_string(),
                points: smooth(&of("train", value)),
                color: BLUE,
                marked: false,
            },
            Curve {
                name: "held out".to_string(),
                points: of("held_out", value),
                color: ORANGE,
                marked: true,
            },
        ]
    };
    let mut losses = two(loss);
    if let Some(y) = summary.byte_frequencies {
        losses.push(level(format!("byte frequencies {y:.2}"), y, GRAY));
    }
    if matches!(summary.objective, Objective::Dpo | Objective::Reward) {
        losses.push(level("no opinion: ln 2".to_string(), 2f64.ln(), GRAY));
    }
    let root = SVGBackend::with_string(svg, (960, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!("{} on {}", summary.objective, file_name(&summary.data));
    let root = root.titled(&title, ("sans-serif", 20))?;
    match &summary.baselines {
        Some(b) => {
            let mut shares = two(accuracy);
            let percent = |x: f64| format!("{:.0} %", 100.0 * x);
            let (longer, shorter) = (b.longer, b.shorter);
            shares.push(level(
                format!("longer answer {}", percent(longer)),
                longer,
                GREEN,
            ));
            shares.push(level(
                format!("shorter answer {}", percent(shorter)),
                shorter,
                GRAY,
            ));
            let (left, right) = root.split_horizontally(480);
            panel(&left, "loss", losses, None)?;
            panel(&right, "pairs ordered right", shares, Some((0.0, 1.0)))?;
        }
        None => panel(&root, "loss", losses, None)?,
    }
    root.present()?;
    Ok(())
}

/// Some curves in one part of a picture; `range` is that of the vertical axis.
pub fn panel(
    area: &DrawingArea<SVGBackend, Shift>,
    title: &str,
    curves: Vec<Curve>,
    range: Option<(f64, f64)>,
) -> Result<(), Box<dyn std::error::Error>> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let right = points().map(|p| p.0).fold(1.0, f64::max);
    let (low, high) = range.unwrap_or_else(|| {
        let low = points().map(|p| p.1).fold(f64::INFINITY, f64::min);
        let high = points().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
        let room = 0.08 * (high - low).max(1e-3);
        (low - room, high + room)
    });
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .caption(title, ("sans-serif", 15))
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..right, low..high)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .x_labels(6)
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_labels(6)
        .light_line_style(TRANSPARENT)
        .draw()?;
    for curve in curves.iter().filter(|curve| !curve.points.is_empty()) {
        let color = curve.color;
        chart
            .draw_series(LineSeries::new(
                curve.points.iter().copied(),
                color.stroke_width(2),
            ))?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        if curve.marked {
            let mark = |p: &(f64, f64)| Circle::new(*p, 3, color.filled());
            chart.draw_series(curve.points.iter().map(mark))?;
        }
    }
    chart
        .configure_series_labels()
        .position(match range {
            Some(_) => SeriesLabelPosition::LowerRight,
            None => SeriesLabelPosition::UpperRight,
        })
        .background_style(WHITE.mix(0.8))
        .border_style(GRAY.mix(0.4))
        .draw()?;
    Ok(())
}

/// The mean of each point and up to nineteen before it, because single batches are noisy.
pub fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    (0..points.len())
        .map(|i| {
            let last = &points[i.saturating_sub(19)..=i];
            let mean = last.iter().map(|p| p.1).sum::<f64>() / last.len() as f64;
            (points[i].0, mean)
        })
        .collect()
}

/// The last part of a path.
pub fn file_name(path: &str) -> &str {
    let name = std::path::Path::new(path).file_name();
    name.and_then(|name| name.to_str()).unwrap_or(path)
}
