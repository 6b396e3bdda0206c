//! The picture: the results of the methods against the number of trained parameters.

use super::{Family, Placed};
use crate::chart::{Chart, INK, Shape, range, stacked};
use crate::labels::Label;
use crate::report::Report;

/// The color shows the method's place in the model; the shape shows the method.
fn style(family: Family) -> (&'static str, Shape) {
    const BEFORE: &str = "#D55E00";
    const BESIDE: &str = "#00835c";
    const WITHIN: &str = "#0072B2";
    const VECTORS: &str = "#B0468A";
    match family {
        Family::Full => (INK, Shape::Star),
        Family::Prefix => (BEFORE, Shape::Circle),
        Family::Prompt => (BEFORE, Shape::Square),
        Family::Adapter => (BESIDE, Shape::Circle),
        Family::Mam => (BESIDE, Shape::Square),
        Family::DesignSpace => ("#8A6D00", Shape::Circle),
        Family::Lora => (WITHIN, Shape::Circle),
        Family::Qlora => (WITHIN, Shape::Square),
        Family::AdaLora => (WITHIN, Shape::Triangle),
        Family::Dora => (WITHIN, Shape::Diamond),
        Family::BitFit => (VECTORS, Shape::Circle),
        Family::Ia3 => (VECTORS, Shape::Square),
        Family::Vera => (VECTORS, Shape::Triangle),
    }
}

/// The regret above, the shortfall below; empty without points.
pub fn picture(report: &Report) -> String {
    if report.points.is_empty() {
        return String::new();
    }
    let above = panel(
        report,
        "regret: frontier − E r at the same KL",
        |p| p.entry.regret,
        None,
    );
    let reference = report.frontier.first().map_or(0.0, |mark| mark.reward);
    let start = report.target.reward - report.beta * report.target.kl - reference;
    let below = panel(
        report,
        "shortfall: E r − β·KL below its maximum",
        |p| Some(p.shortfall),
        Some(("the reference, untrained", start)),
    );
    stacked(
        &[above, below],
        "Regret and shortfall of DPO against the number of trained parameters, one mark for each method and size",
    )
}

/// One mark for each point, a line through the sizes of a method.
fn panel(
    report: &Report,
    what: &str,
    of: fn(&Placed) -> Option<f64>,
    level: Option<(&str, f64)>,
) -> Chart {
    let placed: Vec<(&Placed, (f64, f64))> = report
        .points
        .iter()
        .filter_map(|p| Some((p, ((p.trained as f64).log10(), of(p)?))))
        .collect();
    let (low, high) = range(placed.iter().map(|(_, at)| at.0));
    let x = (low - 0.2, high + 0.2);
    let heights = placed.iter().map(|(_, at)| at.1);
    let y = range(heights.chain(level.map(|l| l.1)).chain([0.0]));
    let mut chart = Chart::new((940.0, 460.0), x, (0.0, y.1));
    let decades: Vec<(f64, String)> = (0..=7)
        .flat_map(|power| [1, 3].map(|digit| digit * 10i64.pow(power)))
        .map(|value| ((value as f64).log10(), grouped(value)))
        .filter(|(at, _)| (x.0..=x.1).contains(at))
        .collect();
    chart.axes_at(&decades, "trained parameters", what);
    let full = placed.iter().find(|(p, _)| p.method == Family::Full);
    for height in full
        .map(|(_, at)| at.1)
        .into_iter()
        .chain(level.map(|l| l.1))
    {
        let line = [(x.0, height), (x.1, height)];
        chart.line(&line, INK, 1.0, "5 4");
        chart.avoid(&line, 0.5);
    }
    if let Some((text, height)) = level {
        let (right, line) = chart.at(x.1, height);
        let wide = 6.9 * text.chars().count() as f64;
        let (left, top) = (right - wide - 4.0, line - 18.0);
        chart.write((left, top), text, INK);
        chart.taken.push(([left, top, wide, 15.0], 8.0));
    }
    for family in Family::ALL {
        let line: Vec<(f64, f64)> = placed
            .iter()
            .filter(|(p, _)| p.method == family)
            .map(|(_, at)| *at)
            .collect();
        chart.line(&line, style(family).0, 1.4, "");
        chart.avoid(&line, 0.4);
    }
    let mut labels = Vec::new();
    let mut named = None;
    for (point, at) in &placed {
        let (color, shape) = style(point.method);
        chart.mark(*at, shape, color, "white");
        let first = named.replace(point.method) != Some(point.method);
        let name = point.method.label();
        let text = match (first, point.size) {
            (true, None) => name.to_string(),
            (true, Some(size)) => format!("{name} {size}"),
            (false, size) => size.unwrap_or_default().to_string(),
        };
        labels.push(Label {
            at: chart.at(at.0, at.1),
            text,
            color,
        });
    }
    chart.label(&labels);
    chart
}

/// 30000 as `30 000`, with a thin space.
pub fn grouped(value: i64) -> String {
    match value {
        0..10_000 => value.to_string(),
        _ => format!("{}\u{2009}{:03}", value / 1000, value % 1000),
    }
}
