//! A rectangle with axes and its content: plain SVG, written by hand.

use super::labels::{Label, Taken, leader, place};
use std::fmt::Write;

pub const INK: &str = "#222";
pub const GRID: &str = "#e4e4e4";

#[derive(Clone, Copy)]
pub enum Shape {
    Circle,
    Square,
    Triangle,
    Diamond,
    Star,
}

/// A rectangle with axes.
pub struct Chart {
    pub width: f64,
    pub height: f64,
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
    pub x: (f64, f64),
    pub y: (f64, f64),
    pub body: String,
    /// Areas that labels should not cover.
    pub taken: Vec<Taken>,
}

impl Chart {
    pub fn new((width, height): (f64, f64), x: (f64, f64), y: (f64, f64)) -> Self {
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

    pub fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let wide = self.width - self.left - self.right;
        let high = self.height - self.top - self.bottom;
        (
            self.left + (x - self.x.0) / (self.x.1 - self.x.0) * wide,
            self.top + (self.y.1 - y) / (self.y.1 - self.y.0) * high,
        )
    }

    pub fn axes(&mut self, x_label: &str, y_label: &str) {
        self.axes_at(&ticks(self.x), x_label, y_label);
    }

    /// Axes with these numbers at their places along the x axis.
    pub fn axes_at(&mut self, along: &[(f64, String)], x_label: &str, y_label: &str) {
        let (left, bottom) = self.at(self.x.0, self.y.0);
        let (right, top) = self.at(self.x.1, self.y.1);
        for (value, text) in along {
            let (x, _) = self.at(*value, self.y.0);
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

    pub fn line(&mut self, points: &[(f64, f64)], color: &str, width: f64, dash: &str) {
        let path = self.path(points);
        let _ = write!(
            self.body,
            r#"<path d="{path}" fill="none" stroke="{color}" stroke-width="{width}" stroke-dasharray="{dash}" stroke-linejoin="round"/>"#
        );
    }

    pub fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        for (i, &(x, y)) in points.iter().enumerate() {
            let (x, y) = self.at(x, y);
            let _ = write!(path, "{}{x:.1} {y:.1}", if i == 0 { "M" } else { "L" });
        }
        path
    }

    /// A mark, and the room it takes.
    pub fn mark(&mut self, (x, y): (f64, f64), shape: Shape, fill: &str, stroke: &str) {
        let (x, y) = self.at(x, y);
        self.taken.push(([x - 8.0, y - 8.0, 16.0, 16.0], 4.0));
        self.mark_at((x, y), shape, fill, stroke);
    }

    /// A mark at a place of the picture.
    pub fn mark_at(&mut self, (x, y): (f64, f64), shape: Shape, fill: &str, stroke: &str) {
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

    /// Labels stay off a line.
    pub fn avoid(&mut self, points: &[(f64, f64)], weight: f64) {
        for pair in points.windows(2) {
            for step in 0..4 {
                let share = step as f64 / 4.0;
                let x = pair[0].0 + share * (pair[1].0 - pair[0].0);
                let y = pair[0].1 + share * (pair[1].1 - pair[0].1);
                let (x, y) = self.at(x, y);
                self.taken.push(([x - 3.0, y - 3.0, 6.0, 6.0], weight));
            }
        }
    }

    /// Bars of a standard error each way.
    pub fn bars(&mut self, (x, y): (f64, f64), (across, up): (f64, f64), color: &str) {
        self.line(&[(x - across, y), (x + across, y)], color, 1.5, "");
        self.line(&[(x, y - up), (x, y + up)], color, 1.5, "");
    }

    /// Clips the drawing at the axes.
    pub fn clipped(&mut self, draw: impl FnOnce(&mut Self)) {
        let (left, top) = self.at(self.x.0, self.y.1);
        let (right, bottom) = self.at(self.x.1, self.y.0);
        let (wide, high) = (right - left, bottom - top);
        let _ = write!(
            self.body,
            r#"<clipPath id="axes"><rect x="{left:.1}" y="{top:.1}" width="{wide:.1}" height="{high:.1}"/></clipPath><g clip-path="url(#axes)" opacity="0.4">"#
        );
        draw(self);
        self.body.push_str("</g>");
    }

    /// Labels beside points, each where it covers the least; thin lines lead to labels farther away.
    pub fn label(&mut self, labels: &[Label]) {
        let (left, top) = (self.left + 2.0, self.top);
        let wide = self.width - self.right - left;
        let high = self.height - self.bottom - top;
        let places = place(labels, &self.taken, [left, top, wide, high]);
        for (label, &spot) in labels.iter().zip(&places) {
            let ((x, y), (to_x, to_y)) = leader(label.at, spot);
            if (x - to_x).hypot(y - to_y) > 16.0 {
                let _ = write!(
                    self.body,
                    r#"<path d="M{x:.1} {y:.1}L{to_x:.1} {to_y:.1}" stroke="{}" stroke-width="0.8"/>"#,
                    label.color
                );
            }
        }
        for (label, spot) in labels.iter().zip(places) {
            self.write((spot[0], spot[1]), &label.text, label.color);
        }
    }

    /// Text whose box begins here, with a white edge so that lines do not run through it.
    pub fn write(&mut self, (x, y): (f64, f64), text: &str, color: &str) {
        let _ = write!(
            self.body,
            r#"<text x="{x:.1}" y="{:.1}" fill="{color}" stroke="white" stroke-width="3" paint-order="stroke">{text}</text>"#,
            y + 12.0
        );
    }

    /// Labels at the right end of lines, pushed apart.
    pub fn ends(&mut self, mut ends: Vec<(f64, String, &'static str)>) {
        ends.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (x, bottom) = self.at(self.x.1, self.y.0);
        let mut places: Vec<f64> = ends.iter().map(|e| self.at(0.0, e.0).1).collect();
        for i in 1..places.len() {
            places[i] = places[i].max(places[i - 1] + 15.0);
        }
        // Labels that were pushed below the axis push back.
        let mut limit = bottom;
        for place in places.iter_mut().rev() {
            *place = place.min(limit);
            limit = *place - 15.0;
        }
        for ((_, text, color), y) in ends.iter().zip(places) {
            self.write((x + 6.0, y - 8.0), text, color);
        }
    }

    pub fn svg(&self, title: &str) -> String {
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0:.0} {1:.0}" width="{0:.0}" height="{1:.0}" role="img" aria-label="{title}" font-family="system-ui, sans-serif" font-size="13"><rect width="100%" height="100%" fill="white"/>{2}</svg>"#,
            self.width, self.height, self.body
        )
    }
}

/// Charts of one width, one below the other.
pub fn stacked(charts: &[Chart], title: &str) -> String {
    let width = charts.iter().map(|c| c.width).fold(0.0, f64::max);
    let mut all = Chart::new((width, 0.0), (0.0, 1.0), (0.0, 1.0));
    for chart in charts {
        let _ = write!(
            all.body,
            r#"<g transform="translate(0 {:.0})">{}</g>"#,
            all.height, chart.body
        );
        all.height += chart.height;
    }
    all.svg(title)
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
pub fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
        (l.min(v), h.max(v))
    });
    let room = 0.06 * (high - low).max(1e-3);
    (low - room, high + room)
}
