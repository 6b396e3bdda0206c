//! The pictures: where the methods end, and how they get there.

use super::chart::{Chart, INK, Shape, range};
use super::labels::Label;
use super::methods::Section;
use super::methods::policy_gradients::{Kl, PolicyGradient};
use super::methods::since::{Reads, Since};
use super::report::{CurvePoint, Entry, Mark, Report, SinceSection};
use std::fmt::Write;

/// The color of a section (Okabe and Ito's set, for the color-blind) and the shape of its marks.
fn style(section: Section) -> Style {
    match section {
        Section::Sft => (INK, Shape::Circle),
        Section::Online => ("#D55E00", Shape::Circle),
        Section::Ranking => ("#0072B2", Shape::Square),
        Section::Language => ("#00835c", Shape::Triangle),
        Section::Parameters => ("#B0468A", Shape::Diamond),
    }
}

/// Colors for the methods of one section, in the section's own picture.
const COLORS: [&str; 9] = [
    "#0072B2", "#D55E00", "#00835c", "#B0468A", "#8A6D00", "#3FA7DC", "#222222", "#E69F00",
    "#7A7A7A",
];

fn policies(entries: &[Entry]) -> impl Iterator<Item = (&Entry, f64, f64)> {
    entries
        .iter()
        .filter(|e| e.name != "sft")
        .filter_map(|e| Some((e, e.kl?, e.reward?)))
}

/// The path of a method, at the evaluated steps.
fn way(entry: &Entry) -> Vec<(f64, f64)> {
    let points = entry.curve.iter();
    points.filter_map(|p| Some((p.kl?, p.reward?))).collect()
}

/// A color and a shape.
type Style = (&'static str, Shape);

/// Policies below the frontier.
struct Below<'a> {
    report: &'a Report,
    entries: &'a [Entry],
    frontier: &'a [Mark],
    style: fn(&Entry) -> Style,
    /// Optima that are unfilled stars.
    targets: Vec<&'a Mark>,
    /// Text, style, and whether the mark is open.
    legend: Vec<(&'static str, Style, bool)>,
}

/// Reward against KL: the frontier, the paths of the methods, and where each ends.
pub fn frontier(report: &Report) -> String {
    let entries = &report.entries;
    let mut legend: Vec<(&str, Style, bool)> = Section::ALL[1..]
        .iter()
        .filter(|s| policies(entries).any(|(e, ..)| e.section == **s))
        .map(|&s| (s.heading(), style(s), false))
        .collect();
    if policies(entries).any(|(e, ..)| e.error.is_some()) {
        let open = style(Section::Language);
        legend.push(("estimated, ± standard error", open, true));
    }
    below(&Below {
        report,
        entries,
        frontier: &report.frontier,
        style: |entry| style(entry.section),
        targets: report.learned_target.iter().collect(),
        legend,
    })
}

/// The same for the objectives since, by what they read, and for DPO.
pub fn since(report: &Report, since: &SinceSection) -> String {
    fn style(reads: Reads) -> Style {
        match reads {
            Reads::Reference => ("#0072B2", Shape::Square),
            Reads::NoReference => ("#00835c", Shape::Triangle),
            Reads::OwnAnswers => ("#D55E00", Shape::Circle),
        }
    }
    let legend = [
        ("with a reference", Reads::Reference),
        ("without a reference", Reads::NoReference),
        ("on own answers", Reads::OwnAnswers),
    ];
    let targets = [&since.ipo_target, &since.nca_target];
    let dpo = report.entries.iter().filter(|e| e.name == "dpo");
    let entries: Vec<Entry> = dpo.chain(&since.entries).cloned().collect();
    below(&Below {
        report,
        entries: &entries,
        frontier: &since.frontier,
        style: |entry| {
            let objective = Since::ALL
                .into_iter()
                .find(|o| o.title().name == entry.name);
            style(objective.map_or(Reads::Reference, Since::reads))
        },
        targets: targets.into_iter().chain(&report.learned_target).collect(),
        legend: legend
            .map(|(text, reads)| (text, style(reads), false))
            .into(),
    })
}

/// PPO and the policy gradients since, by where their KL is.
pub fn policy_gradients(report: &Report, since: &SinceSection) -> String {
    fn style(kl: Kl) -> Style {
        match kl {
            Kl::InReward => ("#0072B2", Shape::Square),
            Kl::InLoss => ("#00835c", Shape::Triangle),
            Kl::Nowhere => ("#D55E00", Shape::Circle),
        }
    }
    let legend = [
        ("KL in the reward", Kl::InReward),
        ("KL in the loss", Kl::InLoss),
        ("no KL", Kl::Nowhere),
    ];
    let ppo = report.entries.iter().filter(|e| e.name == "ppo");
    let entries: Vec<Entry> = ppo.chain(&since.policy_gradients).cloned().collect();
    below(&Below {
        report,
        entries: &entries,
        frontier: &since.policy_gradient_frontier,
        style: |entry| {
            let method = PolicyGradient::ALL
                .into_iter()
                .find(|m| m.title().name == entry.name);
            style(method.map_or(Kl::InReward, PolicyGradient::kl))
        },
        targets: report
            .learned_target
            .iter()
            .chain([&since.greedy_target])
            .collect(),
        legend: legend.map(|(text, kl)| (text, style(kl), false)).into(),
    })
}

fn below(view: &Below) -> String {
    let Below {
        report, entries, ..
    } = *view;
    let style = view.style;
    let curve: Vec<(f64, f64)> = view.frontier.iter().map(|m| (m.kl, m.reward)).collect();
    let end = curve.last().copied().unwrap_or((1.0, 1.0));
    let ends = policies(entries).map(|(_, _, reward)| reward);
    let y = range(ends.chain(curve.iter().map(|c| c.1)));
    let mut chart = Chart::new((940.0, 660.0), (0.0, end.0), (y.0, y.1.max(end.1)));

    // The area that no policy can reach.
    let (_, ceiling) = chart.y;
    let mut beyond = curve.clone();
    beyond.extend([(end.0, ceiling), (0.0, ceiling)]);
    let path = chart.path(&beyond);
    let _ = write!(chart.body, r##"<path d="{path}Z" fill="#f1f1f1"/>"##);
    chart.axes(
        "KL(policy ‖ reference), nats per answer",
        "expected reward (1 = its standard deviation among demonstrations)",
    );
    chart.line(&curve, INK, 2.5, "");
    chart.avoid(&curve, 1.5);
    chart.clipped(|chart| {
        for (entry, ..) in policies(entries) {
            let way = way(entry);
            chart.line(&way, style(entry).0, 1.0, "");
            chart.avoid(&way, 0.15);
        }
    });
    // The regret of each: straight up to the frontier.
    for (entry, kl, reward) in policies(entries) {
        let regret = entry.regret.unwrap_or(0.0);
        let color = style(entry).0;
        chart.line(&[(kl, reward), (kl, reward + regret)], color, 0.8, "1.5 3");
    }
    let reference = (0.0, curve.first().map_or(0.0, |c| c.1));
    let target = (report.target.kl, report.target.reward);
    let mut labels = Vec::new();
    let mut label = |chart: &Chart, (x, y): (f64, f64), text: &str, color| {
        labels.push(Label {
            at: chart.at(x, y),
            text: text.into(),
            color,
        });
    };
    chart.mark(reference, Shape::Circle, INK, "white");
    chart.mark(target, Shape::Star, INK, "white");
    label(&chart, reference, "reference (SFT)", INK);
    label(&chart, target, &report.target.label, INK);
    for (entry, kl, reward) in policies(entries) {
        let (color, shape) = style(entry);
        if let Some(error) = entry.error {
            chart.bars((kl, reward), (error.kl, error.reward), color);
        }
        let (fill, stroke) = match entry.error {
            Some(_) => ("white", color),
            None => (color, "white"),
        };
        chart.mark((kl, reward), shape, fill, stroke);
        label(&chart, (kl, reward), &entry.label, color);
    }
    // On top and unfilled, so that a policy that arrived is visible inside.
    for target in &view.targets {
        let at = (target.kl, target.reward);
        chart.mark(at, Shape::Star, "none", INK);
        label(&chart, at, &target.label, INK);
    }
    let (x, y) = chart.at(0.03 * end.0, ceiling);
    let text =
        "No policy reaches the gray: its edge is the exact frontier, π ∝ reference · exp(r/β)";
    chart.write((x, y + 6.0), text, INK);
    legend(&mut chart, &view.legend);
    chart.label(&labels);
    chart.svg("Expected reward against KL to the reference, with the exact frontier")
}

/// What the marks mean, in the corner that no policy reaches: high KL and low reward.
fn legend(chart: &mut Chart, rows: &[(&str, Style, bool)]) {
    if rows.is_empty() {
        return;
    }
    let (right, bottom) = chart.at(chart.x.1, chart.y.0);
    let (wide, high) = (218.0, 20.0 * rows.len() as f64 + 8.0);
    let (left, top) = (right - wide - 8.0, bottom - high - 8.0);
    chart.taken.push(([left, top, wide, high], 8.0));
    let _ = write!(
        chart.body,
        r##"<rect x="{left:.1}" y="{top:.1}" width="{wide:.1}" height="{high:.1}" fill="white" stroke="#ccc"/>"##
    );
    for (i, &(text, (color, shape), open)) in rows.iter().enumerate() {
        let y = top + 14.0 + 20.0 * i as f64;
        let (fill, stroke) = match open {
            true => ("white", color),
            false => (color, "white"),
        };
        chart.mark_at((left + 14.0, y), shape, fill, stroke);
        chart.write((left + 28.0, y - 7.5), text, if open { INK } else { color });
    }
}

/// One quantity over the steps of training, one line per method of a section.
fn over_steps(
    report: &Report,
    section: Section,
    what: &str,
    of: fn(&CurvePoint) -> Option<f64>,
) -> Option<String> {
    let lines: Vec<(&Entry, Vec<(f64, f64)>)> = policies(&report.entries)
        .filter(|(e, ..)| e.section == section)
        .map(|(e, ..)| {
            let points = e.curve.iter();
            let points = points.filter_map(|p| Some((p.step as f64, of(p)?)));
            (e, points.collect::<Vec<_>>())
        })
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let all = || lines.iter().flat_map(|(_, points)| points.iter());
    let last = all().map(|p| p.0).reduce(f64::max)?;
    let mut chart = Chart::new((466.0, 300.0), (0.0, last), range(all().map(|p| p.1)));
    chart.right = 132.0;
    chart.axes("optimizer steps", &format!("{}: {what}", section.heading()));
    let mut ends = Vec::new();
    for ((entry, points), color) in lines.iter().zip(COLORS.iter().cycle()) {
        chart.line(points, color, 1.8, "");
        if let Some(end) = points.last() {
            ends.push((end.1, entry.label.clone(), *color));
        }
    }
    chart.ends(ends);
    Some(chart.svg(&format!("{what} over the steps of training")))
}

/// E r and KL over the steps, side by side, a row for each section.
pub fn on_the_way(report: &Report) -> String {
    let rows = Section::ALL.into_iter().flat_map(|section| {
        [
            over_steps(report, section, "expected reward", |p| p.reward),
            over_steps(report, section, "KL, nats", |p| p.kl),
        ]
    });
    rows.flatten().collect()
}
