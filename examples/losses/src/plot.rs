//! The pictures: losses, their slopes, and a legend below.

use super::curves::Point;
use super::{Curve, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::ops::Range;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Two panels, the losses and their slopes, over a legend.
pub struct Row {
    /// Above the panels, if it is not empty.
    pub title: &'static str,
    pub curves: Vec<Curve>,
    pub values: Range<f64>,
    pub slopes: Range<f64>,
}

const INK: RGBColor = RGBColor(34, 34, 34);
const GRID: RGBColor = RGBColor(228, 228, 228);
/// Twice the displayed size, because coordinates are whole numbers.
const WIDTH: u32 = 1920;
const PANELS: u32 = 870;
const TITLE: u32 = 64;
/// The height of a text in the legend.
const LINE: u32 = 46;

/// Color (after Okabe and Ito) and width. Where lines overlap, the wider ones are drawn first, so that
/// all are visible.
fn style(function: &str) -> (RGBColor, u32) {
    const BLUE: RGBColor = RGBColor(0, 114, 178);
    const VERMILLION: RGBColor = RGBColor(213, 94, 0);
    const ORANGE: RGBColor = RGBColor(230, 159, 0);
    const PURPLE: RGBColor = RGBColor(204, 121, 167);
    const GREEN: RGBColor = RGBColor(0, 158, 115);
    const SKY: RGBColor = RGBColor(86, 180, 233);
    const BROWN: RGBColor = RGBColor(139, 90, 43);
    match function {
        "slic_rank_loss" => (VERMILLION, 15),
        "slic_list_loss" => (RGBColor(255, 214, 168), 9),
        "slic_margin_loss" => (ORANGE, 7),
        "brio_loss" => (PURPLE, 8),
        "dpo_loss" => (BLUE, 4),
        "pro_loss" => (GREEN, 4),
        "slic_expected_reward_loss" => (SKY, 4),
        "expected_risk_loss" => (BROWN, 4),
        "slic_kl_regularizer" => (RGBColor(120, 120, 120), 2),
        "sft_loss" => (RGBColor(60, 60, 200), 2),
        "hinge_dpo_loss" | "sppo_loss" => (VERMILLION, 5),
        "ipo_loss" | "nca_pair_loss" => (GREEN, 5),
        "robust_dpo_loss" | "apo_down_loss" => (SKY, 5),
        "exo_pair_loss" | "dpop_loss" => (PURPLE, 5),
        "f_dpo_loss" | "bco_pair_loss" => (ORANGE, 5),
        "discopop_loss" | "apo_zero_loss" => (BROWN, 5),
        "simpo_loss" => (BLUE, 5),
        "alpha_po_loss" => (SKY, 5),
        "simper_loss" => (BROWN, 5),
        "odds_ratio_loss" => (ORANGE, 5),
        "orpo_loss" => (VERMILLION, 5),
        "cpo_loss" => (GREEN, 5),
        _ => (RGBColor(0, 0, 0), 3),
    }
}

/// The picture as a text: rows from the top to the bottom.
pub fn picture(rows: &[Row]) -> Result<String> {
    let mut svg = String::new();
    let height = rows.iter().map(height).sum();
    draw(&mut svg, rows, height)
        .map_err(|error| format!("the picture cannot be drawn: {error}"))?;
    Ok(fitting(&svg, (WIDTH, height)))
}

/// The picture at half its size, and at most as wide as the page.
pub(super) fn fitting(svg: &str, (width, height): (u32, u32)) -> String {
    let whole = format!(r#"<svg width="{width}" height="{height}""#);
    let half = width / 2;
    let fitting = format!(r#"<svg width="{half}" style="max-width:100%;height:auto""#);
    svg.replacen(&whole, &fitting, 1)
}

fn title_height(row: &Row) -> u32 {
    if row.title.is_empty() { 0 } else { TITLE }
}

fn height(row: &Row) -> u32 {
    title_height(row) + PANELS + LINE * row.curves.len().div_ceil(2) as u32 + 14
}

fn draw(svg: &mut String, rows: &[Row], height: u32) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut rest = root.clone();
    for row in rows {
        let (area, below) = rest.split_vertically(self::height(row));
        rest = below;
        let (title, area) = area.split_vertically(title_height(row));
        if !row.title.is_empty() {
            let text = ("sans-serif", 37).into_font().color(&INK);
            title.draw(&Text::new(row.title, (128, 22), text))?;
        }
        let (panels, below) = area.split_vertically(PANELS);
        let (left, right) = panels.split_horizontally(WIDTH / 2);
        let mut order: Vec<&Curve> = row.curves.iter().collect();
        order.sort_by_key(|curve| std::cmp::Reverse(style(curve.loss.function).1));
        panel(&left, "loss", &row.values, |p| p.value, &order)?;
        panel(
            &right,
            "slope of the loss",
            &row.slopes,
            |p| p.slope,
            &order,
        )?;
        legend(&below, &row.curves)?;
    }
    root.present()?;
    Ok(())
}

fn panel(
    area: &Area,
    title: &str,
    range: &Range<f64>,
    of: fn(&Point) -> f64,
    curves: &[&Curve],
) -> Result<(), Box<dyn std::error::Error>> {
    let mut chart = ChartBuilder::on(area)
        .margin(24)
        .x_label_area_size(84)
        .y_label_area_size(124)
        .build_cartesian_2d(-4.0..4.0, range.clone())?;
    let digits = if range.end - range.start < 4.0 { 1 } else { 0 };
    chart
        .configure_mesh()
        .x_desc("gap of the better answer, nats")
        .y_desc(title)
        .x_labels(9)
        .y_labels(8)
        .x_label_formatter(&|x| sign(*x, 0))
        .y_label_formatter(&|y| sign(*y, digits))
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
        for line in within(&points, range) {
            chart.draw_series(LineSeries::new(
                corners(&line, 1e-6),
                color.stroke_width(width),
            ))?;
        }
        chart.draw_series(dots.into_iter().map(|p| Circle::new(p, 6, color.filled())))?;
    }
    Ok(())
}

/// The points without those that lie on the line between their neighbors, or this close to it.
pub(super) fn corners(points: &[(f64, f64)], close: f64) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for (i, &(x, y)) in points.iter().enumerate() {
        let straight = match (kept.last(), points.get(i + 1)) {
            (Some(a), Some(b)) => ((x - a.0) * (b.1 - a.1) - (y - a.1) * (b.0 - a.0)).abs() < close,
            _ => false,
        };
        if !straight {
            kept.push((x, y));
        }
    }
    kept
}

/// The pieces of a line inside a range. Where it leaves, it ends at the edge.
fn within(points: &[(f64, f64)], range: &Range<f64>) -> Vec<Vec<(f64, f64)>> {
    let inside = |y: f64| range.start <= y && y <= range.end;
    let edge = |(x0, y0): (f64, f64), (x1, y1): (f64, f64)| {
        let outside = if inside(y0) { y1 } else { y0 };
        let y = outside.clamp(range.start, range.end);
        (x0 + (x1 - x0) * (y - y0) / (y1 - y0), y)
    };
    let mut pieces: Vec<Vec<(f64, f64)>> = Vec::new();
    for (i, &point) in points.iter().enumerate() {
        let last = i.checked_sub(1).map(|i| points[i]);
        let (was, is) = (last.filter(|p| inside(p.1)), inside(point.1));
        if is && was.is_none() {
            let entry = last.map(|last| edge(last, point));
            pieces.push(Vec::from_iter(entry));
        }
        if let Some(piece) = pieces.last_mut() {
            match was {
                _ if is => piece.push(point),
                Some(last) => piece.push(edge(last, point)),
                None => {}
            }
        }
    }
    pieces
}

/// With a minus sign as wide as a plus sign.
pub(super) fn sign(x: f64, digits: usize) -> String {
    format!("{:.digits$}", x + 0.0).replace('-', "−")
}

/// Two columns of a piece of line and a text.
fn legend(area: &Area, curves: &[Curve]) -> Result<(), Box<dyn std::error::Error>> {
    let rows = curves.len().div_ceil(2);
    let text = ("sans-serif", 33).into_font().color(&INK);
    for (i, curve) in curves.iter().enumerate() {
        let (color, width) = style(curve.loss.function);
        let x = 128 + (i / rows) as i32 * 920;
        let y = 24 + (i % rows) as i32 * LINE as i32;
        let line = vec![(x, y), (x + 68, y)];
        area.draw(&PathElement::new(line, color.stroke_width(width)))?;
        if curve.loss.regularizer {
            area.draw(&Circle::new((x + 34, y), 6, color.filled()))?;
        }
        area.draw(&Text::new(curve.loss.label, (x + 88, y - 13), text.clone()))?;
    }
    Ok(())
}
