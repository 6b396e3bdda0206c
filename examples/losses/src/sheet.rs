//! Panels of lines with one legend below, as SVG.

use super::Result;
use super::plot::{corners, fitting, sign};
use plotters::prelude::*;
use std::ops::Range;

const INK: RGBColor = RGBColor(34, 34, 34);
const GRID: RGBColor = RGBColor(228, 228, 228);
/// Twice the displayed size, because coordinates are whole numbers.
const WIDTH: u32 = 1920;
const PANEL: u32 = 760;
const ROW: u32 = 46;

/// What a line is called, and how it looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    pub label: &'static str,
    pub color: (u8, u8, u8),
    pub width: u32,
}

/// A line; wider ones are drawn first, so that all are visible where they overlap.
#[derive(Clone, Debug)]
pub struct Line {
    pub style: Style,
    pub points: Vec<(f64, f64)>,
}

/// A panel with its axes.
#[derive(Clone, Debug)]
pub struct Panel {
    pub below: &'static str,
    pub beside: &'static str,
    pub x: Range<f64>,
    pub y: Range<f64>,
    pub lines: Vec<Line>,
}

impl Style {
    fn stroke(&self) -> ShapeStyle {
        let (r, g, b) = self.color;
        RGBColor(r, g, b).stroke_width(self.width)
    }
}

/// Two panels in a row, and the styles of the first panel as the legend.
pub fn picture(panels: &[Panel]) -> Result<String> {
    let styles: Vec<Style> = panels.first().map_or(Vec::new(), |panel| {
        panel.lines.iter().map(|line| line.style).collect()
    });
    let rows = panels.len().div_ceil(2) as u32;
    let legend = 40 + styles.len().div_ceil(2) as u32 * ROW;
    let size = (WIDTH, rows * PANEL + legend);
    let mut svg = String::new();
    draw(&mut svg, size, panels, &styles)
        .map_err(|error| format!("the picture cannot be drawn: {error}"))?;
    Ok(fitting(&svg, size))
}

fn draw(
    svg: &mut String,
    size: (u32, u32),
    panels: &[Panel],
    styles: &[Style],
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    let rows = panels.len().div_ceil(2);
    let (above, below) = root.split_vertically(rows as u32 * PANEL);
    for (panel, area) in panels.iter().zip(above.split_evenly((rows, 2))) {
        let mut chart = ChartBuilder::on(&area)
            .margin(24)
            .x_label_area_size(84)
            .y_label_area_size(124)
            .build_cartesian_2d(panel.x.clone(), panel.y.clone())?;
        chart
            .configure_mesh()
            .x_desc(panel.below)
            .y_desc(panel.beside)
            .x_labels(7)
            .y_labels(8)
            .x_label_formatter(&|x| sign(*x, 1))
            .y_label_formatter(&|y| sign(*y, 1))
            .label_style(("sans-serif", 31, &INK))
            .axis_desc_style(("sans-serif", 33, &INK))
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .set_all_tick_mark_size(12)
            .draw()?;
        let mut lines: Vec<&Line> = panel.lines.iter().collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.style.width));
        for line in lines {
            let points = line.points.iter().copied();
            let inside: Vec<(f64, f64)> = points.filter(|(_, y)| panel.y.contains(y)).collect();
            let inside = corners(&inside, 1e-5);
            chart.draw_series(LineSeries::new(inside, line.style.stroke()))?;
        }
    }
    let text = ("sans-serif", 33).into_font().color(&INK);
    let in_column = styles.len().div_ceil(2).max(1);
    for (i, style) in styles.iter().enumerate() {
        let x = 128 + (i / in_column) as i32 * 920;
        let y = 24 + (i % in_column) as i32 * ROW as i32;
        let line = vec![(x, y), (x + 68, y)];
        below.draw(&PathElement::new(line, style.stroke()))?;
        below.draw(&Text::new(style.label, (x + 88, y - 13), text.clone()))?;
    }
    root.present()?;
    Ok(())
}
