//! The points as a table and as sentences.

use super::picture::{grouped, picture};
use super::{Family, Placed};
use crate::report::{Report, escape, flat, number, share};
use std::fmt::Write;

/// The table, as text.
pub fn text(points: &[Placed]) -> String {
    let mut out = format!(
        "{:<27}{:>10}{:>9}{:>9}{:>9}{:>11}{:>10}{:>9}\n",
        "DPO through", "trained", "E r", "KL", "regret", "shortfall", "accuracy", "seconds"
    );
    for p in points {
        let _ = writeln!(
            out,
            "{:<27}{:>10}{:>9}{:>9}{:>9}{:>11}{:>10}{:>9.1}",
            p.entry.label,
            p.trained,
            number(p.entry.reward),
            number(p.entry.kl),
            number(p.entry.regret),
            number(Some(p.shortfall)),
            share(p.entry.accuracy),
            p.entry.seconds,
        );
    }
    out
}

/// The section of the page about the points; empty if there are none.
pub fn html(report: &Report) -> String {
    if report.points.is_empty() {
        return String::new();
    }
    let (mut rows, mut settings) = (String::new(), String::new());
    for p in &report.points {
        let _ = writeln!(
            rows,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{:.1}</td></tr>",
            escape(&p.entry.label),
            p.entry.section.number(),
            grouped(p.trained as i64),
            number(p.entry.reward),
            number(p.entry.kl),
            number(p.entry.regret),
            number(Some(p.shortfall)),
            share(p.entry.win_rate),
            share(p.entry.accuracy),
            p.entry.seconds,
        );
        let _ = writeln!(
            settings,
            "<tr><td>{}</td><td><code>{}</code></td></tr>",
            escape(&p.entry.label),
            escape(&flat(&p.entry.settings)),
        );
    }
    let seen: String = seen(report)
        .iter()
        .map(|s| format!("<li>{}</li>\n", escape(s)))
        .collect();
    format!(
        r##"<h2>The same objective with few parameters</h2>
<p>DPO again, over the same frozen reference, on the same pairs in the same order, with fewer steps than above. Only the
trained parameters differ.</p>
{}
<p class="note">Regret: as above; it is also small for a policy that hardly moves. Shortfall: how far E r − β·KL, which DPO maximizes, falls
below its maximum. It equals β·KL(policy‖full star): the regret plus the cost of stopping at the wrong distance. Dashed: all parameters are
trained. Orange: before or inside the attention. Green: small networks. Blue: low-rank changes. Pink: biases and factors. Numbers
beside marks: length, width, rank.</p>
<table><tr><th>DPO through</th><th>§</th><th>trained</th><th>E r</th><th>KL, nats</th><th>regret</th><th>shortfall</th><th>win rate</th><th>accuracy</th><th>seconds</th></tr>
{rows}</table>
<ul>
{seen}</ul>
<details><summary>Settings</summary><table class="text">{settings}</table></details>
"##,
        picture(report),
    )
}

/// The findings as sentences that are true for these numbers.
fn seen(report: &Report) -> Vec<String> {
    let mut seen = Vec::new();
    let mut nearest: Vec<&Placed> = report.points.iter().collect();
    nearest.sort_by(|a, b| a.shortfall.total_cmp(&b.shortfall));
    if let [near, .., far] = nearest[..] {
        seen.push(format!(
            "{} ends nearest to DPO's optimum (shortfall {:.3} with {} parameters), {} farthest ({:.3} with {}).",
            near.entry.label, near.shortfall, near.trained, far.entry.label, far.shortfall, far.trained
        ));
    }
    let full = report.points.iter().find(|p| p.method == Family::Full);
    if let Some(full) = full {
        let fewest = nearest.iter().filter(|p| p.shortfall <= full.shortfall);
        let fewest = fewest.min_by_key(|p| p.trained);
        if let Some(fewest) = fewest.filter(|p| p.method != Family::Full) {
            seen.push(format!(
                "{} comes as near to it as all {} parameters do, with {}.",
                fewest.entry.label, full.trained, fewest.trained
            ));
        }
    }
    for p in report.points.iter().filter(|p| !p.entry.note.is_empty()) {
        seen.push(format!("{}: {}.", p.entry.label, p.entry.note));
    }
    seen
}
