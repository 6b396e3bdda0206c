//! At which level a metric and people are correlated.

use super::correlation::{Correlation, check, is_constant};
use crate::error::{Error, Result};
use crate::evaluation::statistics::{mean, require_length};
use serde::{Deserialize, Serialize};

/// What the correlation is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// Over the systems of each input, then the mean over inputs; "summary level" in work on summaries.
    Sample,
    /// Over systems, each with its mean over inputs.
    System,
    /// Over all answers at once.
    Dataset,
}

/// The correlation of a metric with people's scores.
///
/// # Equation
/// ```text
/// sample    (1/│I│) Σ_{i ∈ I} corr over systems s of (metricᵢₛ, humanᵢₛ)
/// system    corr over systems s of (meanᵢ metricᵢₛ, meanᵢ humanᵢₛ)
/// dataset   corr over all (i, s) of (metricᵢₛ, humanᵢₛ)
/// ```
/// I are the inputs on which neither side gives all systems one score.
/// # Shapes
/// `metric` and `human` `[inputs][systems]`. At the levels sample and dataset the systems may be different for
/// each input, and not equally many.
/// # Errors
/// [`Error::Argument`] if there is no input, sizes differ, a score is not finite, or nothing is left that
/// varies: at the sample level every input is constant on one side; at the others one side is.
/// # Properties
/// * The order of inputs and of systems does not matter.
/// * With one input all three agree.
/// * Adding a number to the metric for one input changes nothing at the sample level; at the dataset level it
///   can change everything.
/// * System level has as many points as systems: with few, a high number means little.
/// # Departures
/// G-Eval's code leaves out the same inputs; the sample level averages over the others. GPTScore calls the
/// three sample, system and dataset level too. Work on summaries also reports a mean that counts constant
/// inputs as 0.
/// # Examples
/// ```
/// use candle_align::evaluation::meta::{Correlation, Grouping, correlate};
///
/// // right within each input, and blind to which input is hard
/// let metric = [vec![1.0, 2.0], vec![11.0, 12.0]];
/// let human = [vec![4.0, 5.0], vec![1.0, 2.0]];
/// assert_eq!(correlate(&metric, &human, Correlation::Spearman, Grouping::Sample)?, 1.0);
/// assert!(correlate(&metric, &human, Correlation::Spearman, Grouping::Dataset)? < 0.0);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Liu et al. 2023, arXiv:2303.16634v3, §3; authors' code nlpyang/geval at commit 8f54105,
/// `meta_eval_summeval.py`; the levels: Fu et al. 2023, arXiv:2302.04166v2, §4.
pub fn correlate(
    metric: &[Vec<f64>],
    human: &[Vec<f64>],
    correlation: Correlation,
    grouping: Grouping,
) -> Result<f64> {
    let function = "correlate";
    if metric.is_empty() {
        return Err(Error::argument(function, "metric", "is empty"));
    }
    require_length(function, "human", human.len(), "metric", metric.len())?;
    for (at, (x, y)) in metric.iter().zip(human).enumerate() {
        let argument = format!("human[{at}]");
        require_length(
            function,
            &argument,
            y.len(),
            &format!("metric[{at}]"),
            x.len(),
        )?;
        let finite = |values: &[f64]| values.iter().all(|v| v.is_finite());
        if !finite(x) || !finite(y) {
            return Err(Error::argument(
                function,
                argument,
                "or its metric is not finite",
            ));
        }
    }
    match grouping {
        Grouping::Sample => {
            let varied = metric.iter().zip(human);
            let varied = varied.filter(|(x, y)| !is_constant(x) && !is_constant(y));
            let each: Vec<f64> = varied.map(|(x, y)| correlation.of(x, y)).collect();
            match each.is_empty() {
                true => {
                    let problem = "or `human` gives every input's systems one score, so nothing can be correlated";
                    Err(Error::argument(function, "metric", problem))
                }
                false => Ok(mean(&each)),
            }
        }
        Grouping::System => {
            let systems = metric[0].len();
            for (at, row) in metric.iter().enumerate() {
                require_length(
                    function,
                    &format!("metric[{at}]"),
                    row.len(),
                    "metric[0]",
                    systems,
                )?;
            }
            let means = |rows: &[Vec<f64>]| -> Vec<f64> {
                let of = |system| {
                    rows.iter()
                        .map(|row: &Vec<f64>| row[system])
                        .collect::<Vec<_>>()
                };
                (0..systems).map(|system| mean(&of(system))).collect()
            };
            checked(function, &means(metric), &means(human), correlation)
        }
        Grouping::Dataset => checked(function, &metric.concat(), &human.concat(), correlation),
    }
}

fn checked(function: &'static str, x: &[f64], y: &[f64], correlation: Correlation) -> Result<f64> {
    check(function, x, y).map_err(|error| match error {
        Error::Argument {
            argument, problem, ..
        } => {
            let argument = if argument.starts_with('x') {
                "metric"
            } else {
                "human"
            };
            Error::argument(function, argument, problem)
        }
        other => other,
    })?;
    Ok(correlation.of(x, y))
}
