//! The tour itself: the run from seed to report, without a word on the screen.

pub mod lab;
pub mod methods;
pub mod plot;
pub mod report;
pub mod world;

use indicatif::MultiProgress;
use lab::{Lab, Sizes};
use methods::Method;
use report::{Entry, Report};
use std::path::PathBuf;
use std::time::Instant;

pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which methods to run; every run begins with SFT, and with a reward model where one is used.
    pub only: Vec<Method>,
    /// Steps of every method, in place of its own number.
    pub steps: Option<usize>,
    /// Everything random follows from it.
    pub seed: u64,
    /// Where the reports go; nowhere if `None`.
    pub out: Option<PathBuf>,
    /// Answers of at most three tokens, and few steps.
    pub quick: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            only: Method::ALL.to_vec(),
            steps: None,
            seed: 0,
            out: None,
            quick: false,
        }
    }
}

/// Runs the tour and writes what it found.
pub fn run(options: &Options, bars: &MultiProgress) -> Result<Report> {
    if options.steps == Some(0) {
        return Err("--steps must be at least 1".into());
    }
    let start = Instant::now();
    let sizes = match options.quick {
        true => Sizes::quick(),
        false => Sizes::standard(),
    };
    let (mut lab, sft) = Lab::new(sizes, options, bars)?;
    let mut entries = vec![sft];
    if options.only.iter().any(|m| m.uses_reward_model()) {
        entries.push(lab.train_reward_model(bars)?);
    }
    for method in Method::ALL {
        if options.only.contains(&method) {
            entries.push(method.run(&lab, bars)?);
        }
    }
    let report = Report::new(&lab, options, entries, start.elapsed().as_secs_f64())?;
    if let Some(out) = &options.out {
        report.write(out)?;
    }
    Ok(report)
}

/// One policy among the entries.
pub fn entry<'a>(report: &'a Report, name: &str) -> Option<&'a Entry> {
    report.entries.iter().find(|e| e.name == name)
}
