//! The tour itself: the run from seed to report, without output on the screen.

pub mod chart;
pub mod lab;
pub mod labels;
pub mod methods;
pub mod parameters;
pub mod plot;
pub mod pulls;
pub mod report;
pub mod world;

// the library's way to write files
#[path = "../../../src/atomic.rs"]
#[allow(dead_code)] // this uses only a part
mod atomic;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use indicatif::MultiProgress;
use lab::{Lab, Sizes};
use methods::Method;
use methods::policy_gradients::PolicyGradient;
use methods::since::Since;
use parameters::{Family, Placed, Point};
use report::{Entry, Report};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The options of the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which methods to run. Every run begins with SFT, and with a reward model if a method uses one.
    pub only: Vec<Method>,
    /// Which methods of the second picture to run, each at all of its sizes.
    pub families: Vec<Family>,
    /// Ten preference objectives and six policy gradients since the survey too.
    pub since: bool,
    /// Steps of every method instead of its default number.
    pub steps: Option<usize>,
    /// Determines everything random.
    pub seed: u64,
    /// The folder for the reports; `None` writes none.
    pub out: Option<PathBuf>,
    /// Answers of at most three tokens, and few steps.
    pub quick: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            only: Method::ALL.to_vec(),
            families: Family::ALL.to_vec(),
            since: false,
            steps: None,
            seed: 0,
            out: None,
            quick: false,
        }
    }
}

/// A method by its name on the command line: of the first picture, or of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Method(Method),
    Family(Family),
}

impl Choice {
    pub fn method(self) -> Option<Method> {
        match self {
            Self::Method(method) => Some(method),
            Self::Family(_) => None,
        }
    }

    pub fn family(self) -> Option<Family> {
        match self {
            Self::Method(_) => None,
            Self::Family(family) => Some(family),
        }
    }
}

impl ValueEnum for Choice {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: LazyLock<Vec<Choice>> = LazyLock::new(|| {
            let methods = Method::ALL.into_iter().map(Choice::Method);
            let families = Family::ALL.into_iter().map(Choice::Family);
            methods.chain(families).collect()
        });
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Method(method) => method.name(),
            Self::Family(family) => family.name(),
        }))
    }
}

/// Runs the tour and writes the reports.
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
    let mut found = all(&lab, options, bars)?;
    found.entries.insert(0, sft);
    let seconds = start.elapsed().as_secs_f64();
    let report = Report::new(&lab, options, found, seconds)?;
    if let Some(out) = &options.out {
        report.write(out)?;
    }
    Ok(report)
}

/// Something to train. In the order of the reports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    RewardModel,
    Method(Method),
    Since(Since),
    PolicyGradient(PolicyGradient),
    Point(Point),
}

/// The result of a job.
enum Done {
    Entry(Entry),
    Since(Entry),
    PolicyGradient(Entry),
    Point(Placed),
}

impl Job {
    /// Everything requested, and the reward model if a method learns from it.
    fn chosen(options: &Options) -> Vec<Self> {
        let methods = Method::ALL.into_iter().filter(|m| options.only.contains(m));
        let families = Family::ALL.into_iter();
        let families = families.filter(|f| options.families.contains(f));
        let since = Since::ALL.into_iter().filter(|_| options.since);
        let gradients = PolicyGradient::ALL.into_iter().filter(|_| options.since);
        let methods_score = options.only.iter().any(|m| m.uses_reward_model());
        let scored = methods_score || options.since;
        let mut jobs = Vec::from_iter(scored.then_some(Self::RewardModel));
        jobs.extend(methods.map(Self::Method));
        jobs.extend(since.map(Self::Since));
        jobs.extend(gradients.map(Self::PolicyGradient));
        jobs.extend(families.flat_map(Family::points).map(Self::Point));
        jobs
    }

    fn uses_reward_model(self) -> bool {
        match self {
            Self::Method(method) => method.uses_reward_model(),
            Self::Since(objective) => objective.uses_reward_model(),
            Self::PolicyGradient(_) => true,
            Self::RewardModel | Self::Point(_) => false,
        }
    }

    fn run(self, lab: &Lab, bars: &MultiProgress) -> Result<Done> {
        Ok(match self {
            Self::RewardModel => Done::Entry(lab.train_reward_model(bars)?),
            Self::Method(method) => Done::Entry(method.run(lab, bars)?),
            Self::Since(objective) => Done::Since(objective.run(lab, bars)?),
            Self::PolicyGradient(method) => Done::PolicyGradient(method.run(lab, bars)?),
            Self::Point(point) => Done::Point(parameters::run(point, lab, bars)?),
        })
    }
}

/// All results, in the order of the reports.
#[derive(Default)]
pub struct Found {
    /// The methods of the survey.
    pub entries: Vec<Entry>,
    /// The points of the second picture.
    pub points: Vec<Placed>,
    /// The objectives since, and the policy gradients since.
    pub since: [Vec<Entry>; 2],
}

/// Runs everything in parallel, one thread each. The result of a method does not depend on the
/// others, so it does not depend on how many run at once.
fn all(lab: &Lab, options: &Options, bars: &MultiProgress) -> Result<Found> {
    let queue = Mutex::new(VecDeque::from(Job::chosen(options)));
    // The first job that need not wait. The points are short and come last.
    let next = || {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = |job: &Job| !job.uses_reward_model() || lab.learned.get().is_some();
        let at = queue.iter().position(ready).unwrap_or(0);
        queue.remove(at)
    };
    let work = || -> Result<Vec<(Job, Done)>> {
        let mut done = Vec::new();
        while let Some(job) = next() {
            done.push((job, job.run(lab, bars)?));
        }
        Ok(done)
    };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut done = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..cores.min(4))
            .map(|_| scope.spawn(|| worker(work)))
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
    // In the order of the survey, not of completion.
    done.sort_by_key(|(job, _)| *job);
    let mut found = Found::default();
    for (_, done) in done {
        match done {
            Done::Entry(entry) => found.entries.push(entry),
            Done::Point(point) => found.points.push(point),
            Done::Since(entry) => found.since[0].push(entry),
            Done::PolicyGradient(entry) => found.since[1].push(entry),
        }
    }
    Ok(found)
}

/// Runs something with all its parallel parts on one thread.
fn worker<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    pool.install(work)
}
