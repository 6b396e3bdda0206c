//! The picture: the losses, their slopes, and a legend below.

use super::curves::Point;
use super::{Curve, Result};
use plotters::coord::Shift;
use plotters::prelude::*;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const INK: RGBColor = RGBColor(34, 34, 34);
const GRID: RGBColor = RGBColor(228, 228, 228);
/// Twice the displayed size, because coordinates are whole numbers.
const SIZE: (u32, u32) = (1920, 1160);
const LEGEND: u32 = 290;

/// Color (after Okabe and Ito) and width. Where lines overlap, the wider ones are drawn first, so that
/// all are visible.
fn style(function: &str) -> (RGBColor, u32) {
    match function {
        "slic_rank_loss" => (RGBColor(213, 94, 0), 15),
        "slic_list_loss" => (RGBColor(255, 214, 168), 9),
        "slic_margin_loss" => (RGBColor(230, 159, 0), 7),
        "brio_loss" => (RGBColor(204, 121, 167), 8),
        "dpo_loss" => (RGBColor(0, 114, 178), 4),
        "pro_loss" => (RGBColor(0, 158, 115), 4),
        "slic_expected_reward_loss" => (RGBColor(86, 180, 233), 4),
        "expected_risk_loss" => (RGBColor(139, 90, 43), 4),
        "slic_kl_regularizer" => (RGBColor(120, 120, 120), 2),
        "sft_loss" => (RGBColor(60, 60, 200), 2),
        _ => (RGBColor(0, 0, 0), 3),
    }
}

/// The picture as a text.
pub fn picture(curves: &[Curve]) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, curves).map_err(|error| format!("the picture cannot be drawn: {error}"))?;
    // at most as wide as the page
    let whole = format!(r#"<svg width="{}" height="{}""#, SIZE.0, SIZE.1);
    let fitting = format!(
        r#"<svg width="{}" style="max-width:100%;height:auto""#,
        SIZE.0 / 2
    );
    Ok(svg.replacen(&whole, &fitting, 1))
}

fn draw(svg: &mut String, curves: &[Curve]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (panels, below) = root.split_vertically(SIZE.1 - LEGEND);
    let (left, right) = panels.split_horizontally(SIZE.0 / 2);
    let mut order: Vec<&Curve> = curves.iter().collect();
    order.sort_by_key(|curve| std::cmp::Reverse(style(curve.loss.function).1));
    panel(&left, "loss", -1.2..5.2, |p| p.value, &order)?;
    panel(&right, "slope of the loss", -1.1..0.6, |p| p.slope, &order)?;
    legend(&below, curves)?;
    root.present()?;
    Ok(())
}

fn panel(
    area: &Area,
    title: &str,
    range: std::ops::Range<f64>,
    of: fn(&Point) -> f64,
    curves: &[&Curve],
) -> Result<(), Box<dyn std::error::Error>> {
    let mut chart = ChartBuilder::on(area)
        .margin(24)
        .x_label_area_size(84)
        .y_label_area_size(124)
        .build_cartesian_2d(-4.0..4.0, range.clone())?;
    chart
        .configure_mesh()
        .x_desc("gap of the better answer, nats")
        .y_desc(title)
        .x_labels(9)
        .y_labels(8)
        .x_label_formatter(&|x| sign(*x, 0))
        .y_label_formatter(&|y| sign(*y, if range.end < 1.0 { 1 } else { 0 }))
        .label_style(("sans-serif", 31, &INK))
        .axis_desc_style(("sans-serif", 33, &INK))
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .set_all_tick_mark_size(12)
        .draw()?;
    for curve in curves {
        let (color, width) = style(curve.loss.function);
        let points: Vec<(f64, f64)> = curve.points.iter().map(|p| (p.gap, of(p))).collect();
        let dots: Vec<(f64, f64)> = points
            .iter()
            .copied()
            .filter(|p| curve.loss.regularizer && (2.0 * p.0).fract() == 0.0)
            .collect();
        chart.draw_series(LineSeries::new(corners(&points), color.stroke_width(width)))?;
        chart.draw_series(dots.into_iter().map(|p| Circle::new(p, 6, color.filled())))?;
    }
    Ok(())
}

/// The points without those that lie on the line between their neighbors.
fn corners(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for (i, &(x, y)) in points.iter().enumerate() {
        let straight = match (kept.last(), points.get(i + 1)) {
            (Some(a), Some(b)) => ((x - a.0) * (b.1 - a.1) - (y - a.1) * (b.0 - a.0)).abs() < 1e-6,
            _ => false,
        };
        if !straight {
            kept.push((x, y));
        }
    }
    kept
}

/// With a minus sign as wide as a plus sign.
fn sign(x: f64, digits: usize) -> String {
    format!("{:.digits$}", x + 0.0).replace('-', "−")
}

/// Two columns of a piece of line and a text.
fn legend(area: &Area, curves: &[Curve]) -> Result<(), Box<dyn std::error::Error>> {
    let rows = curves.len().div_ceil(2);
    let text = ("sans-serif", 33).into_font().color(&INK);
    for (i, curve) in curves.iter().enumerate() {
        let (color, width) = style(curve.loss.function);
        let x = 128 + (i / rows) as i32 * 920;
        let y = 24 + (i % rows) as i32 * 46;
        let line = vec![(x, y), (x + 68, y)];
        area.draw(&PathElement::new(line, color.stroke_width(width)))?;
        if curve.loss.regularizer {
            area.draw(&Circle::new((x + 34, y), 6, color.filled()))?;
        }
        area.draw(&Text::new(curve.loss.label, (x + 88, y - 13), text.clone()))?;
    }
    Ok(())
}
