//! What every run begins with: its folder, its last checkpoint, its time.

use super::super::error::{Error, Result};
use super::super::output::Folder;
use super::origin::Origin;
use super::rows::Report;
use super::settings::Settings;
use super::store::{State, Store};
use chrono::{Local, NaiveDateTime, Timelike};
use indicatif::ProgressBar;
use std::path::{Path, PathBuf};

/// How `now` is written.
const TIME: &str = "%Y-%m-%dT%H:%M:%S";

/// The local time, to the second, as `now` is written.
pub fn local_now() -> String {
    let now = Local::now().naive_local().with_nanosecond(0);
    now.unwrap_or_default().format(TIME).to_string()
}

/// The time that `now` says.
pub fn moment(now: &str) -> Result<NaiveDateTime> {
    NaiveDateTime::parse_from_str(now, TIME).map_err(|error| {
        Error::Usage(format!(
            "`now` must be a time as 2026-01-31T12:00:00, got {now}: {error}"
        ))
    })
}

/// A run before its first step.
pub struct Start {
    /// With the time of the run.
    pub settings: Settings,
    pub out: PathBuf,
    pub folder: Folder,
    pub store: Store,
    /// The checkpoint that it goes on from.
    pub from: Option<(State, PathBuf)>,
    pub now: NaiveDateTime,
}

/// Opens the folder of results. With `resume`, finds the last checkpoint in it.
pub fn open(settings: &Settings, resume: bool, progress: &ProgressBar) -> Result<Start> {
    let mut settings = settings.clone();
    let out = settings.out();
    let folder = Folder::open(&out)?;
    let store = Store::open(&out, settings.keep_last)?;
    let last = store.all()?.pop();
    let from = match (resume, last) {
        (false, None) => None,
        (false, Some((step, path))) => {
            let problem = format!(
                "is step {step} of an earlier run: say --resume to go on with it, or choose another --out"
            );
            return Err(Error::file(&path, problem));
        }
        // killed before its first checkpoint
        (true, None) => {
            progress.println(format!(
                "{} has no checkpoint: the run begins",
                out.display()
            ));
            None
        }
        (true, Some((_, path))) => Some((State::read(&path)?, path)),
    };
    if settings.now.is_none() {
        let saved = from
            .as_ref()
            .and_then(|(state, _)| state.settings.now.clone());
        settings.now = Some(saved.unwrap_or_else(local_now));
    }
    let now = moment(&settings.now.clone().unwrap_or_default())?;
    Ok(Start {
        settings,
        out,
        folder,
        store,
        from,
        now,
    })
}

impl Start {
    /// An error if the run would not go on as it began.
    pub fn check(&self, origin: &Origin, fingerprint: &str) -> Result<()> {
        let Some((state, path)) = &self.from else {
            return Ok(());
        };
        state.check(&self.settings)?;
        state.check_origin(origin)?;
        match state.rows == fingerprint {
            true => Ok(()),
            false => {
                let problem = "the rows are not those of the run that wrote it: data, tokenizer or template changed";
                Err(Error::file(path, problem))
            }
        }
    }

    /// Shows what was read, and how many prompts of the file of held-out rows are also trained on.
    pub fn tell(
        &self,
        progress: &ProgressBar,
        report: &Report,
        held_out: Option<&Report>,
        shared_prompts: usize,
    ) {
        let show = |path: &Path, report: &Report| {
            progress.println(format!("{}: {report}", path.display()));
        };
        show(&self.settings.data, report);
        if let (Some(path), Some(report)) = (&self.settings.held_out_file, held_out) {
            show(path, report);
            if shared_prompts > 0 {
                progress.println(format!(
                    "{shared_prompts} held-out prompts are also trained on"
                ));
            }
        }
    }

    /// Steps between two evaluations.
    pub fn eval_every(&self) -> usize {
        match self.settings.eval_every {
            0 => self.settings.fit.max_steps.div_ceil(4),
            every => every,
        }
    }
}
