//! The tour itself: the run from seed to report, without a word on the screen.

pub mod chart;
pub mod lab;
pub mod labels;
pub mod methods;
pub mod plot;
pub mod pulls;
pub mod report;
pub mod world;

use indicatif::MultiProgress;
use lab::{Lab, Sizes};
use methods::Method;
use report::{Entry, Report};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
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
    if let Some(out) = &options.out {
        report::make(out)?;
    }
    let start = Instant::now();
    let sizes = match options.quick {
        true => Sizes::quick(),
        false => Sizes::standard(),
    };
    let (lab, sft) = worker(|| Lab::new(sizes, options, bars))?;
    let mut entries = vec![sft];
    entries.extend(all(&lab, options, bars)?);
    let report = Report::new(&lab, options, entries, start.elapsed().as_secs_f64())?;
    if let Some(out) = &options.out {
        report.write(out)?;
    }
    Ok(report)
}

/// Runs the methods side by side, one thread each. What a method finds does not depend on the
/// others, and so not on how many run at once.
fn all(lab: &Lab, options: &Options, bars: &MultiProgress) -> Result<Vec<Entry>> {
    let chosen = |m: &Method| options.only.contains(m);
    let waits = |m: &Method| m.uses_reward_model();
    let scored = options.only.iter().any(waits);
    // From the front: those that need no reward model. From the back: those that do, PPO first.
    let mut queue: VecDeque<Method> = Method::ALL.into_iter().filter(chosen).collect();
    queue.make_contiguous().sort_by_key(waits);
    let queue = Mutex::new(queue);
    let next = |back: bool| {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        match back {
            true => queue.pop_back(),
            false => queue.pop_front(),
        }
    };
    let work = |first: bool| -> Result<Vec<(Option<Method>, Entry)>> {
        let mut done = Vec::new();
        if first && scored {
            done.push((None, lab.train_reward_model(bars)?));
        }
        while let Some(method) = next(first) {
            done.push((Some(method), method.run(lab, bars)?));
        }
        Ok(done)
    };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut done = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..cores.min(4))
            .map(|i| scope.spawn(move || worker(|| work(i == 0))))
            .collect();
        let mut all = Vec::new();
        for handle in handles {
            match handle.join() {
                Ok(done) => all.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(all)
    })?;
    // In the order of the survey, the reward model first, whoever finished first.
    done.sort_by_key(|(method, _)| method.map(|m| Method::ALL.iter().position(|&a| a == m)));
    Ok(done.into_iter().map(|(_, entry)| entry).collect())
}

/// Runs something where every parallel part of it stays on one thread.
fn worker<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    pool.install(work)
}
