//! The claims of the picture, and the table of the docs with the same numbers.

use losses::curves::{Loss, Point, all};
use losses::{Report, run, since};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// One run for all tests.
fn report() -> &'static Report {
    static REPORT: OnceLock<Report> = OnceLock::new();
    REPORT.get_or_init(|| run().expect("the losses run"))
}

fn curve(function: &str) -> &'static [Point] {
    let mut curves = report().curves.iter().chain(&report().since);
    let found = curves.find(|c| c.loss.function == function);
    &found.unwrap_or_else(|| panic!("no {function}")).points
}

fn at(function: &str, gap: f64) -> Point {
    let points = curve(function);
    *points.iter().find(|p| p.gap == gap).expect("on the grid")
}

fn loss(function: &str) -> Loss {
    let found = all()
        .into_iter()
        .chain(since::all())
        .find(|l| l.function == function);
    found.unwrap_or_else(|| panic!("no {function}"))
}

/// The losses of some files, by name.
fn losses_of(files: impl Iterator<Item = PathBuf>) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let names = text.split("\npub fn ").skip(1).map(|f| f.split('(').next());
        let losses = names.flatten().filter(|name| name.ends_with("_loss"));
        found.extend(losses.map(String::from));
    }
    found.sort();
    found
}

/// What a folder of the library holds.
fn entries(folder: &str) -> impl Iterator<Item = PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../src")
        .join(folder);
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path())
}

/// Every function of the survey's ranking section, and both regularizers.
#[test]
fn every_loss_is_drawn() {
    let mut functions: Vec<&str> = report().curves.iter().map(|c| c.loss.function).collect();
    functions.sort();
    let mut want = losses_of(entries("ranking").filter(|path| path.is_file()));
    want.extend(["sft_loss", "slic_kl_regularizer"].map(String::from));
    want.sort();
    assert_eq!(functions, want);
}

/// Nash-MD takes one answer and its win probability, so it has no gap between two.
const ONE_ANSWER: &str = "nash_md_loss";

/// Every function of the folders beside them has a curve, or draws one that is there.
#[test]
fn every_loss_since_is_drawn_or_is_the_curve_of_another() {
    let drawn: Vec<&str> = report().since.iter().map(|c| c.loss.function).collect();
    let same = since::same();
    let mut functions: Vec<&str> = same.iter().map(|s| s.loss.function).collect();
    functions.extend(drawn.iter().filter(|name| **name != "dpo_loss"));
    functions.push(ONE_ANSWER);
    functions.extend(since::sums().iter().map(|s| s.loss.function));
    functions.sort();
    let folders = entries("ranking").filter(|path| path.is_dir());
    let files = folders.flat_map(|folder| {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().path())
    });
    assert_eq!(functions, losses_of(files));
    assert!(same.iter().all(|s| drawn.contains(&s.drawn)));
}

/// One pair at a time: AOT compares the quantiles of its batch.
#[test]
fn losses_that_are_not_drawn_have_the_curves_that_are_named() {
    let drawn = since::all();
    for since::Same { loss, drawn: name } in since::same() {
        let other = drawn.iter().find(|l| l.function == name).expect("drawn");
        for gap in [-3.3, -1.0, 0.0, 0.4, 1.0, 2.7] {
            let (a, b) = (loss.at(&[gap]).unwrap()[0], other.at(&[gap]).unwrap()[0]);
            let close = |a: f64, b: f64| (a - b).abs() < 1e-12 * b.abs().max(1.0);
            let same = close(a.value, b.value) && close(a.slope, b.slope);
            assert!(
                same,
                "{}, {name}, {}: {a:?} {b:?}",
                loss.function, loss.label
            );
        }
    }
}

#[test]
fn a_curve_that_is_a_sum_is_that_of_the_two_that_are_named() {
    let drawn = since::all();
    for since::Sum { loss, drawn: names } in since::sums() {
        let both = names.map(|name| drawn.iter().find(|l| l.function == name).expect("drawn"));
        for gap in [-3.3, -1.0, 0.0, 0.4, 1.0, 2.7] {
            let sum = loss.at(&[gap]).unwrap()[0];
            let [a, b] = both.map(|l| l.at(&[gap]).unwrap()[0]);
            for (sum, parts) in [
                (sum.value, a.value + b.value),
                (sum.slope, a.slope + b.slope),
            ] {
                assert!((sum - parts).abs() < 1e-12, "{}, {gap}", loss.function);
            }
        }
        let readme = include_str!("../README.md");
        let line = format!(
            "`{}` draws the sum of `{}` and `{}`",
            loss.function, names[0], names[1]
        );
        assert!(readme.contains(&line), "{line}");
    }
}

#[test]
fn slopes_are_the_differences_of_the_values() {
    let step = 1e-5;
    let survey = all().into_iter().map(|loss| (loss, 1e-9));
    // the third derivative of DiscoPOP is in the hundreds
    let since = since::all().into_iter().map(|loss| (loss, 2e-8));
    for (loss, error) in survey.chain(since) {
        for gap in [-3.3, -0.7, 0.2, 0.9, 1.3, 2.8] {
            let p = loss.at(&[gap - step, gap, gap + step]).expect("computed");
            let difference = (p[2].value - p[0].value) / (2.0 * step);
            assert!(
                (p[1].slope - difference).abs() < error,
                "{} {gap}",
                loss.function
            );
        }
    }
}

#[test]
fn logistic_losses_push_for_ever_and_ever_less() {
    for function in ["dpo_loss", "pro_loss"] {
        let points = curve(function);
        assert!(points.iter().all(|p| p.slope < 0.0), "{function}");
        let weaker = points.windows(2).all(|w| w[1].slope > w[0].slope);
        assert!(weaker, "{function}");
    }
}

#[test]
fn hinges_push_evenly_and_stop_at_their_lead() {
    for (function, push, lead) in [
        ("slic_rank_loss", 1.0, 1.0),
        ("slic_list_loss", 1.0, 1.0),
        ("slic_margin_loss", 1.0, 0.5),
        ("brio_loss", 0.5, 1.5),
        ("rrhf_loss", 1.0, 0.0),
    ] {
        for p in curve(function) {
            let want = if p.gap < lead { -push } else { 0.0 };
            assert!((p.slope - want).abs() < 1e-12, "{function}: {p:?}");
            let want = f64::max(0.0, push * (lead - p.gap));
            assert!((p.value - want).abs() < 1e-12, "{function}: {p:?}");
        }
    }
}

#[test]
fn expected_reward_and_risk_push_most_at_the_tie_and_give_up() {
    for function in ["slic_expected_reward_loss", "expected_risk_loss"] {
        let most = curve(function).iter().map(|p| p.slope).fold(0.0, f64::min);
        assert_eq!(at(function, 0.0).slope, most, "{function}");
        let far = loss(function).at(&[-30.0]).expect("computed")[0].slope;
        assert!(far.abs() < 1e-5, "{function}: {far}");
    }
    // where the logistic losses and the hinges push hardest
    for function in [
        "dpo_loss",
        "pro_loss",
        "slic_rank_loss",
        "rrhf_loss",
        "brio_loss",
    ] {
        let least = curve(function).iter().map(|p| p.slope).fold(0.0, f64::min);
        assert!(at(function, -4.0).slope < least + 1e-12, "{function}");
    }
}

#[test]
fn regularizers_pull_back_and_only_the_kl_lets_go() {
    for function in ["slic_kl_regularizer", "sft_loss"] {
        for p in curve(function) {
            assert!(p.slope * p.gap >= 0.0, "{function}: {p:?}");
        }
        assert!(at(function, 0.0).slope.abs() < 1e-15, "{function}");
    }
    assert!(at("slic_kl_regularizer", 4.0).slope < 0.5 * at("slic_kl_regularizer", 1.5).slope);
    assert!(at("sft_loss", 4.0).slope > at("sft_loss", 1.5).slope);
}

/// The slope of a loss since at a gap, which need not be on the grid.
fn slope(function: &str, gap: f64) -> f64 {
    let since = since::all().into_iter().find(|l| l.function == function);
    let loss = since.unwrap_or_else(|| panic!("no {function}"));
    loss.at(&[gap]).expect("computed")[0].slope
}

#[test]
fn losses_with_an_aim_stop_there_and_squares_pull_back() {
    // hinge: 1/β; IPO: 1/(2β); EXO: log((1 − ε)/ε), and log 9 is between two gaps
    for (gap, hinge) in [(1.0 - 1e-6, -1.0), (1.0 + 1e-6, 0.0), (3.0, 0.0)] {
        assert!((slope("hinge_dpo_loss", gap) - hinge).abs() < 1e-12);
        assert!((slope("ipo_loss", gap) - 2.0 * (gap - 1.0)).abs() < 1e-12);
    }
    let aim = 9f64.ln();
    assert!(slope("exo_pair_loss", aim).abs() < 1e-15);
    assert!(slope("exo_pair_loss", aim + 0.1) > 0.0 && slope("exo_pair_loss", aim - 0.1) < 0.0);
    // SPPO: its targets 1 and −1 for log-ratios of which the first is never above log 2
    assert!((slope("sppo_loss", 0.0) + 1.0).abs() < 1e-12 && slope("sppo_loss", 4.0) > 2.0);
}

#[test]
fn bounded_losses_give_up_where_the_order_is_far_wrong() {
    for function in [
        "exo_pair_loss",
        "apo_zero_loss",
        "apo_down_loss",
        "simper_loss",
    ] {
        let most = curve(function).iter().map(|p| p.slope).fold(0.0, f64::min);
        let far = slope(function, -8.0);
        assert!(far.abs() < 0.02 && far > 0.1 * most, "{function}: {far}");
    }
    // where the others push hardest
    for function in [
        "dpo_loss",
        "hinge_dpo_loss",
        "ipo_loss",
        "robust_dpo_loss",
        "f_dpo_loss",
        "nca_pair_loss",
        "bco_pair_loss",
        "sppo_loss",
        "dpop_loss",
        "simpo_loss",
        "alpha_po_loss",
        "odds_ratio_loss",
        "orpo_loss",
        "cpo_loss",
    ] {
        let mut before = slope(function, -8.0);
        for gap in [-4.0, -2.0, -0.5] {
            let here = slope(function, gap);
            assert!(here > before - 1e-12, "{function}: {before} {here}");
            before = here;
        }
    }
}

#[test]
fn robust_dpo_falls_for_ever_and_discopop_turns_around_the_tie() {
    // −ε/(1 − 2ε), and −(1 − ε)/(1 − 2ε) on the other side
    assert!((slope("robust_dpo_loss", 40.0) + 0.1 / 0.8).abs() < 1e-12);
    assert!((slope("robust_dpo_loss", -40.0) + 0.9 / 0.8).abs() < 1e-12);
    // the published function rises between −0.118 and 0.072
    for (gap, rises) in [(-0.15, false), (-0.1, true), (0.05, true), (0.1, false)] {
        assert_eq!(slope("discopop_loss", gap) > 0.0, rises, "{gap}");
    }
}

#[test]
fn scores_without_a_reference_differ_in_how_hard_they_pull_on_unlikely_answers() {
    // ½ for both answers, and 1/55 for the better one
    let ratio = |function: &str| slope(function, -4.0) / slope(function, 0.0);
    assert!(ratio("simper_loss") < 0.1);
    let (simpo, alpha_po) = (ratio("simpo_loss"), ratio("alpha_po_loss"));
    assert!(alpha_po > 1.3 * simpo, "{alpha_po} {simpo}");
}

/// A number as the docs write it, with `−` and `∞`.
fn number(text: &str) -> f64 {
    match text.trim() {
        "∞" => f64::INFINITY,
        text => text.replace('−', "-").parse().expect(text),
    }
}

#[test]
fn the_table_of_the_docs_is_what_the_library_computes() {
    let page = include_str!("../../../src/ranking/mod.rs");
    let table = page.split("z → +∞ |").nth(1).expect("the table");
    let rows: Vec<&str> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with("//! |"))
        .collect();
    assert_eq!(rows.len(), all().len());
    for (row, loss) in rows.iter().zip(all_in_the_order_of(&rows)) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        for (cell, gap) in cells[3..8].iter().zip([-60.0, -1.0, 0.0, 1.0, 60.0]) {
            let (value, slope) = cell.split_once(", ").expect("a value and a slope");
            let (value, slope) = (number(value), number(slope));
            let got = loss.at(&[gap]).expect("computed")[0];
            match value.is_finite() {
                true => assert!((got.value - value).abs() < 5.001e-5, "{row}: {got:?}"),
                // at least linear, with the slope of the cell
                false => assert!(got.value > 0.9 * slope.abs() * 60.0, "{row}: {got:?}"),
            }
            assert!((got.slope - slope).abs() < 5.001e-5, "{row}: {got:?}");
        }
    }
}

/// The loss that each row of the table names.
fn all_in_the_order_of(rows: &[&str]) -> Vec<Loss> {
    let name = |row: &&str| row.split('`').nth(1).expect("a name").to_string();
    rows.iter().map(|row| loss(&name(row))).collect()
}

#[test]
fn the_pictures_of_the_docs_are_the_ones_it_draws() {
    let report = report();
    for (svg, kept, curves, most) in [
        (
            &report.svg,
            include_str!("../../../src/ranking/losses.svg"),
            &report.curves,
            40_000,
        ),
        (
            &report.since_svg,
            include_str!("../../../src/ranking/since.svg"),
            &report.since,
            80_000,
        ),
    ] {
        assert!(
            svg == kept,
            "write it again: cargo run --example losses -- --out src/ranking"
        );
        for label in curves.iter().map(|c| c.loss.label) {
            assert!(kept.contains(label), "{label}");
        }
        assert!(kept.len() < most && !kept.contains("\n\n") && !kept.contains("NaN"));
    }
}

#[test]
fn the_pictures_are_written_where_they_are_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = report()
        .write(&dir.path().join("not/yet/there"))
        .expect("written");
    for (file, svg) in files.iter().zip([&report().svg, &report().since_svg]) {
        assert_eq!(&std::fs::read_to_string(file).expect("readable"), svg);
    }
    // if the picture is a link, the file that it leads to is not replaced
    #[cfg(unix)]
    {
        let elsewhere = dir.path().join("elsewhere");
        std::fs::write(&elsewhere, "mine").expect("written");
        let linked = dir.path().join("linked");
        std::fs::create_dir(&linked).expect("made");
        std::os::unix::fs::symlink(&elsewhere, linked.join("losses.svg")).expect("linked");
        report().write(&linked).expect("written");
        assert_eq!(std::fs::read(&elsewhere).expect("readable"), b"mine");
    }

    let taken = dir.path().join("file");
    std::fs::write(&taken, "").expect("written");
    let error = report()
        .write(&taken)
        .expect_err("not a directory")
        .to_string();
    assert!(
        error.starts_with(&format!("cannot write to {}: ", taken.display())),
        "{error}"
    );
}

#[test]
fn the_printed_table_has_a_row_for_every_loss() {
    let table = report().table();
    let rows: Vec<&str> = table.lines().skip(1).collect();
    assert_eq!(rows.len(), all().len() + since::all().len());
    let curves = report().curves.iter().chain(&report().since);
    for (row, curve) in rows.iter().zip(curves) {
        assert!(row.starts_with(curve.loss.label), "{row}");
        assert_eq!(row.matches('.').count(), 10, "{row}");
    }
}

#[test]
fn the_readme_lists_every_curve_that_is_drawn_already() {
    let readme = include_str!("../README.md");
    let table = readme.split("| for |\n|---|---|---|\n").nth(1);
    let rows = table.expect("the table").split("\n\n").next();
    let want = since::same().into_iter().map(|s| {
        let (function, label) = (s.loss.function, s.loss.label);
        format!("| `{function}` | `{}` | {label} |", s.drawn)
    });
    assert_eq!(
        rows.expect("rows").lines().collect::<Vec<_>>(),
        want.collect::<Vec<_>>()
    );
    assert_eq!(since::same().len(), 19); // "nineteen"
}
