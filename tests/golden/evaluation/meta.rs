//! Correlations by SciPy, and pass@k by counting draws.

use super::{cases, close};
use candle_align::evaluation::closed_form::pass_at_k;
use candle_align::evaluation::meta::{
    Correlation, Grouping, KendallVariant, correlate, kendall, pearson, spearman,
};
use serde::Deserialize;

const FILE: &str = "evaluation_model";
const EXACT: f64 = 1e-12;

#[derive(Deserialize)]
struct Lists {
    x: Vec<f64>,
    y: Vec<f64>,
    pearson: f64,
    spearman: f64,
    kendall_b: f64,
    kendall_c: f64,
}

#[test]
fn correlations() {
    for case in cases::<Lists>(FILE, "correlations") {
        let (x, y) = (&case.x, &case.y);
        close(pearson(x, y).unwrap(), case.pearson, EXACT, "pearson");
        close(spearman(x, y).unwrap(), case.spearman, EXACT, "spearman");
        let tau = |variant| kendall(x, y, variant).unwrap();
        close(tau(KendallVariant::B), case.kendall_b, EXACT, "kendall b");
        close(tau(KendallVariant::C), case.kendall_c, EXACT, "kendall c");
    }
}

#[derive(Deserialize)]
struct Levels {
    metric: Vec<Vec<f64>>,
    human: Vec<Vec<f64>>,
    sample: f64,
    system: f64,
    dataset: f64,
}

#[test]
fn levels() {
    for case in cases::<Levels>(FILE, "levels") {
        let tau =
            |level| correlate(&case.metric, &case.human, Correlation::KendallB, level).unwrap();
        close(tau(Grouping::Sample), case.sample, EXACT, "sample");
        close(tau(Grouping::System), case.system, EXACT, "system");
        close(tau(Grouping::Dataset), case.dataset, EXACT, "dataset");
    }
}

#[derive(Deserialize)]
struct Draws {
    n: usize,
    c: usize,
    k: usize,
    share: f64,
}

#[test]
fn draws_of_programs() {
    for Draws { n, c, k, share } in cases::<Draws>(FILE, "pass_at_k") {
        close(
            pass_at_k(n, c, k).unwrap(),
            share,
            EXACT,
            &format!("{n} {c} {k}"),
        );
    }
}
