//! Whether a judge orders texts as people do.

use candle_align::evaluation::meta::{Correlation, Grouping, correlate};
use serde::Serialize;
use std::collections::BTreeMap;

/// The correlations with people's scores, at one level.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Level {
    /// Over all texts at once, or among the texts of each input and then averaged.
    pub level: Grouping,
    /// The texts.
    pub texts: usize,
    /// At the level of samples: the inputs on which neither side gives all texts one score. The others have no
    /// correlation and are not in the mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<usize>,
    pub pearson: Option<f64>,
    pub spearman: Option<f64>,
    /// The variant b.
    pub kendall: Option<f64>,
    /// Why there is no correlation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The inputs as numbers; a text without one is its own.
pub fn inputs<'a>(ids: impl Iterator<Item = Option<&'a str>>) -> Vec<u64> {
    let mut known: BTreeMap<&str, u64> = BTreeMap::new();
    let number = |(at, id): (usize, Option<&'a str>)| match id {
        Some(id) => *known.entry(id).or_insert(at as u64),
        None => at as u64,
    };
    ids.enumerate().map(number).collect()
}

/// Over all texts, and among those of each input if they are known.
pub fn levels(judge: &[f64], people: &[f64], inputs: Option<&[u64]>) -> Vec<Level> {
    let all = |values: &[f64]| vec![values.to_vec()];
    let mut levels = vec![level(Grouping::Dataset, &all(judge), &all(people))];
    if let Some(inputs) = inputs {
        let mut by: BTreeMap<u64, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
        for ((input, judge), people) in inputs.iter().zip(judge).zip(people) {
            let of = by.entry(*input).or_default();
            of.0.push(*judge);
            of.1.push(*people);
        }
        let (judge, people): (Vec<_>, Vec<_>) = by.into_values().unzip();
        levels.push(level(Grouping::Sample, &judge, &people));
    }
    levels
}

fn level(level: Grouping, judge: &[Vec<f64>], people: &[Vec<f64>]) -> Level {
    let varies = |values: &[f64]| values.windows(2).any(|pair| pair[0] != pair[1]);
    let both = judge.iter().zip(people);
    let varied = both.filter(|(judge, people)| varies(judge) && varies(people));
    let mut found = Level {
        level,
        texts: judge.iter().map(Vec::len).sum(),
        inputs: (level == Grouping::Sample).then_some(varied.count()),
        pearson: None,
        spearman: None,
        kendall: None,
        problem: None,
    };
    let of = |correlation| correlate(judge, people, correlation, level);
    let kinds = [
        (Correlation::Pearson, &mut found.pearson),
        (Correlation::Spearman, &mut found.spearman),
        (Correlation::KendallB, &mut found.kendall),
    ];
    for (correlation, place) in kinds {
        match of(correlation) {
            Ok(value) => *place = Some(value),
            Err(error) => found.problem = Some(error.to_string()),
        }
    }
    found
}
