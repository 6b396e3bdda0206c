//! Runs on the model's own answers.

mod answers;
mod around;
mod commands;
mod nothing;
mod ppo;
mod prompts;
mod rewards;
mod runs;
mod steps;
mod trl;

use super::whole_runs::golden;
use indicatif::ProgressBar;
use serde_json::Value;
use std::fs;
use std::path::Path;
use train::checkpoint::online::Summary;
use train::checkpoint::run::run;
use train::checkpoint::settings::{Learned, Settings};
use train::checkpoint::summary::Outcome;
use train::error::Result;

/// Six steps of 8 answers to 12 prompts, 3 of them held out.
pub fn tiny(objective: Learned, out: &Path, sets: &[&str]) -> Settings {
    let mut settings = Settings {
        model: golden("model"),
        objective,
        data: golden("prompts.jsonl"),
        out: Some(out.to_path_buf()),
        now: Some("2026-01-31T12:00:00".to_string()),
        held_out: 0.25,
        eval_every: 3,
        ..Settings::default()
    };
    settings.fit.max_steps = Some(6);
    settings.fit.batch = 8;
    settings.fit.learning_rate = Some(1e-2);
    let own = [
        r#"online.rewards=[{"length": {"target": 3}}]"#,
        "online.num_generations=4",
        "online.max_completion_length=6",
    ];
    own.iter().chain(sets).fold(settings, |settings, set| {
        settings
            .with(set)
            .unwrap_or_else(|error| panic!("{set}: {error}"))
    })
}

pub fn quiet(settings: &Settings, resume: bool, stop_at: usize) -> Result<Outcome> {
    run(settings, resume, &ProgressBar::hidden(), &|step| {
        step == stop_at
    })
}

pub fn whole(settings: &Settings) -> Summary {
    match quiet(settings, false, 0).unwrap() {
        Outcome::Online(summary) => *summary,
        other => panic!("{other}"),
    }
}

/// The message of a run that is refused.
pub fn refused(settings: &Settings) -> String {
    match quiet(settings, false, 0) {
        Err(error) => error.to_string(),
        Ok(outcome) => panic!("{outcome}"),
    }
}

/// Copies the files of a folder.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// The lines of a file of results.
pub fn lines(out: &Path, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(out.join(name)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
