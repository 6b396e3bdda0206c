//! The claims of the picture, and the table of the docs with the same numbers.

use losses::curves::{Loss, Point, all};
use losses::{Report, run};
use std::sync::OnceLock;

/// One run for all tests.
fn report() -> &'static Report {
    static REPORT: OnceLock<Report> = OnceLock::new();
    REPORT.get_or_init(|| run().expect("the losses run"))
}

fn curve(function: &str) -> &'static [Point] {
    let mut curves = report().curves.iter();
    let found = curves.find(|c| c.loss.function == function);
    &found.unwrap_or_else(|| panic!("no {function}")).points
}

fn at(function: &str, gap: f64) -> Point {
    let points = curve(function);
    *points.iter().find(|p| p.gap == gap).expect("on the grid")
}

fn loss(function: &str) -> Loss {
    let found = all().into_iter().find(|l| l.function == function);
    found.unwrap_or_else(|| panic!("no {function}"))
}

/// Every function of the survey's ranking section, and both regularizers. What came since is in folders.
#[test]
fn every_loss_is_drawn() {
    let mut functions: Vec<&str> = report().curves.iter().map(|c| c.loss.function).collect();
    functions.sort();
    let mut want = vec!["sft_loss".to_string(), "slic_kl_regularizer".to_string()];
    for entry in
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/ranking")).unwrap()
    {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        let names = text.split("\npub fn ").skip(1).map(|f| f.split('(').next());
        want.extend(
            names
                .flatten()
                .filter(|n| n.ends_with("_loss"))
                .map(String::from),
        );
    }
    want.sort();
    assert_eq!(functions, want);
}

#[test]
fn slopes_are_the_differences_of_the_values() {
    let step = 1e-5;
    for loss in all() {
        for gap in [-3.3, -0.7, 0.2, 0.9, 1.3, 2.8] {
            let p = loss.at(&[gap - step, gap, gap + step]).expect("computed");
            let difference = (p[2].value - p[0].value) / (2.0 * step);
            assert!(
                (p[1].slope - difference).abs() < 1e-9,
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
fn the_picture_beside_the_example_is_the_one_it_draws() {
    let kept = include_str!("../../../src/ranking/losses.svg");
    assert!(
        report().svg == kept,
        "write it again: cargo run --example losses -- --out src/ranking"
    );
    for label in report().curves.iter().map(|c| c.loss.label) {
        assert!(kept.contains(label), "{label}");
    }
    assert!(kept.len() < 40_000 && !kept.contains("\n\n") && !kept.contains("NaN"));
}

#[test]
fn the_picture_is_written_where_it_is_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = report()
        .write(&dir.path().join("not/yet/there"))
        .expect("written");
    assert_eq!(
        std::fs::read_to_string(file).expect("readable"),
        report().svg
    );
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
    assert_eq!(rows.len(), all().len());
    for (row, curve) in rows.iter().zip(&report().curves) {
        assert!(row.starts_with(curve.loss.label), "{row}");
        assert_eq!(row.matches('.').count(), 10, "{row}");
    }
}
