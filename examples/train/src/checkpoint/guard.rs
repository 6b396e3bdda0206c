//! What a run must not write over: the files that it reads, and results that are not its own.

use super::super::error::{Error, Result};
use super::super::overwrite::{self, foreign, is_there, real};
use super::hold::LOCK;
use super::log::{Seen, read};
use super::online::rewards::Reward;
use super::settings::{FreshAdapter, Settings};
use super::staged::{PARTIAL, names_beside};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Of a run that has begun.
const CONFIG: &str = "config.json";
pub const METRICS: &str = "metrics.jsonl";
const BEGUN: [&str; 4] = [CONFIG, METRICS, "samples.jsonl", "times.jsonl"];
/// Of a run that has done its last step.
pub const TRAINED: [&str; 3] = ["model", "adapter", "value"];
const CURVES: &str = "curves.svg";
const SUMMARY: &str = "summary.json";
/// The folder of checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
const REFERENCE: &str = "the log-probabilities of its reference";

/// An error if the run reads a file that it would write over.
pub fn check_inputs(settings: &Settings, out: &Path) -> Result<()> {
    // the files of the reference have names of their own, so the folder of results may be theirs too
    let reference = settings.ref_log_probs_dir.as_deref();
    let reference = reference.filter(|folder| real(folder) != real(out));
    let mut all = inputs(settings);
    all.extend(reference.map(|folder| (REFERENCE, folder)));
    overwrite::check_inputs(&all, out, is_result)
}

/// What a run reads.
fn inputs(settings: &Settings) -> Vec<(&'static str, &Path)> {
    let mut all = vec![
        ("its model", settings.model.as_path()),
        ("its data", settings.data.as_path()),
    ];
    let files = [
        ("its adapter", &settings.adapter_dir),
        ("its teacher", &settings.teacher),
        ("its held-out rows", &settings.held_out_file),
        ("its completions", &settings.online.completions_file),
    ];
    let given = files.into_iter();
    all.extend(given.filter_map(|(what, path)| Some((what, path.as_deref()?))));
    if let Some(FreshAdapter::File(path)) = &settings.adapter {
        all.push(("the settings of its adapter", path));
    }
    for reward in &settings.online.rewards {
        if let Reward::RewardModel(model) = reward {
            all.push(("a reward model", &model.folder));
        }
    }
    all
}

/// Whether a run writes, replaces or deletes what has this name in its folder.
fn is_result(name: &str) -> bool {
    let known = [CURVES, SUMMARY, CHECKPOINTS, LOCK];
    let mut known = known.iter().chain(&BEGUN).chain(&TRAINED);
    known.any(|known| name == *known) || name.ends_with(PARTIAL)
}

/// An error if there are results in the folder that are not of this run. `from` is the step of the checkpoint that it
/// goes on from.
pub fn check_results(
    settings: &Settings,
    out: &Path,
    resume: bool,
    from: Option<usize>,
) -> Result<()> {
    let at = |name: &str| out.join(name);
    let trained = TRAINED.into_iter().flat_map(|name| {
        let path = at(name);
        let beside = names_beside(&path);
        [path].into_iter().chain(beside)
    });
    let found = |mut all: Vec<PathBuf>| {
        all.retain(|path| is_there(path));
        all.into_iter().next()
    };
    let Some(step) = from else {
        // a run without a checkpoint has not written these
        let ends = trained.chain([at(CURVES), at(SUMMARY)]);
        if let Some(path) = found(ends.collect()) {
            return Err(foreign(&path));
        }
        let Some(path) = found(BEGUN.map(at).to_vec()) else {
            return Ok(());
        };
        if !is_of_a_run(&at(CONFIG)) {
            return Err(foreign(&path));
        }
        if !resume && has_steps(&at(METRICS)) {
            let problem = "is of an earlier run, which has no checkpoint: choose another --out, or say --resume to \
                           begin that run again and write over it";
            return Err(Error::file(&at(METRICS), problem));
        }
        return Ok(());
    };
    // of epochs, the number of steps that the run found
    let written = || Settings::read(&at(CONFIG)).ok()?.fit.max_steps;
    let last = settings.fit.max_steps.or_else(written);
    // written after the last checkpoint, which may have been deleted since
    if last.is_some_and(|last| step >= last) || is_there(&at(SUMMARY)) {
        return Ok(());
    }
    match found(trained.collect()) {
        None => Ok(()),
        Some(path) => {
            let problem = format!(
                "is not of the run that goes on from step {step}, which would write over it: move it to another folder"
            );
            Err(Error::file(&path, problem))
        }
    }
}

/// Whether a run wrote this file of settings: it has all of them, and a person's only some.
fn is_of_a_run(path: &Path) -> bool {
    let (Ok(settings), Ok(text)) = (Settings::read(path), fs::read_to_string(path)) else {
        return false;
    };
    let names = |object: Value| match object {
        Value::Object(object) => object.into_iter().map(|(name, _)| name).collect(),
        _ => BTreeSet::new(),
    };
    let all = serde_json::to_value(settings).map(names);
    let found = serde_json::from_str(&text).map(names);
    matches!((all, found), (Ok(all), Ok(found)) if all == found)
}

/// Whether a log has a step, as far as it can be read.
fn has_steps(path: &Path) -> bool {
    is_there(path)
        && read::<Seen>(path).map_or(true, |lines| lines.iter().any(|(_, seen)| seen.step > 0))
}
