//! What every run begins with: its folder, its last checkpoint, its time.

use super::super::error::{Error, Result};
use super::super::output::Folder;
use super::super::overwrite::is_there;
use super::super::plot::file_name;
use super::super::progress::Progress;
use super::super::world::{World, agree};
use super::given_out;
use super::guard::{METRICS, TRAINED, check_inputs, check_results};
use super::hold::Hold;
use super::log::{Seen, picture};
use super::origin::Origin;
use super::other_base::other_bases;
use super::rows::Report;
use super::save;
use super::settings::Settings;
use super::staged::recover;
use super::state::State;
use super::store::{Store, restore};
use super::summary::Notices;
use super::update::Update;
use candle_align::decoder::Decoder;
use candle_align::ranking::RewardShift;
use chrono::{Local, NaiveDateTime, Timelike};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

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

/// Where a run writes.
pub struct Results {
    pub folder: Folder,
    pub store: Store,
    _hold: Hold,
}

/// A run before its first step.
pub struct Start {
    /// With the time of the run.
    pub settings: Settings,
    pub out: PathBuf,
    /// On rank 0 alone.
    pub results: Option<Results>,
    /// The checkpoint that it goes on from.
    pub from: Option<(State, PathBuf)>,
    pub now: NaiveDateTime,
    /// Where the checkpoint is on other ranks than 0.
    _copy: Option<TempDir>,
}

/// Opens the folder of results for this run alone. With `resume`, finds the last checkpoint in it. Rank 0 does, and tells
/// the others.
pub fn open(
    settings: &Settings,
    resume: bool,
    progress: &dyn Progress,
    world: &dyn World,
) -> Result<Start> {
    let mut settings = settings.clone();
    let out = settings.out();
    let (mut results, mut from) = (None, None);
    if world.writes() {
        let opened = results_of(&settings, &out, resume, progress)?;
        (results, from) = (Some(opened.0), opened.1);
    }
    let saved = |(state, _): &(State, PathBuf)| state.settings.now.clone();
    let known = settings.now.clone().or(from.as_ref().and_then(saved));
    let known = given_out::text(world, known.unwrap_or_else(local_now))?;
    let now = moment(&known)?;
    settings.now = Some(known);
    let path = from.as_ref().map(|(_, path)| path.as_path());
    let copy = given_out::copy(world, path)?;
    if let Some(copy) = &copy {
        from = Some((State::read(copy.path())?, copy.path().to_path_buf()));
    }
    Ok(Start {
        settings,
        out,
        results,
        from,
        now,
        _copy: copy,
    })
}

/// The folder of results, and the checkpoint that the run goes on from. Nothing in it is changed before it is known to
/// be this run's.
fn results_of(
    settings: &Settings,
    out: &Path,
    resume: bool,
    progress: &dyn Progress,
) -> Result<(Results, Option<(State, PathBuf)>)> {
    let hold = Hold::of(out)?;
    hold.unlocked.iter().for_each(|note| progress.say(note));
    check_inputs(settings, out)?;
    let store = Store::of(out, settings.keep_last);
    let from = last(&store, out, resume)?;
    let step = from.as_ref().map(|(state, _)| state.step);
    check_results(settings, out, resume, step)?;
    match step {
        Some(_) => {
            for name in TRAINED {
                recover(&out.join(name))?;
            }
        }
        // killed before its first checkpoint
        None if resume => progress.say(&format!(
            "{} has no checkpoint: the run begins",
            out.display()
        )),
        None => {}
    }
    let folder = Folder::open(out)?;
    let results = Results {
        folder,
        store,
        _hold: hold,
    };
    Ok((results, from))
}

/// The last checkpoint, if the run goes on from one.
fn last(store: &Store, out: &Path, resume: bool) -> Result<Option<(State, PathBuf)>> {
    if resume {
        store.recover()?;
    }
    let Some((step, path)) = store.all()?.pop() else {
        return Ok(None);
    };
    if !resume {
        let problem = format!(
            "is step {step} of an earlier run: say --resume to go on with it, or choose another --out"
        );
        return Err(Error::file(&path, problem));
    }
    let state = State::read(&path).map_err(|error| store.damaged(&path, &error))?;
    let metrics = out.join(METRICS);
    if !is_there(&metrics) {
        let problem = format!(
            "is missing, and has the steps before the checkpoint of step {step}: put it back, or begin again with \
             another --out"
        );
        return Err(Error::file(&metrics, problem));
    }
    Ok(Some((state, path)))
}

impl Start {
    /// An error if the run would not go on as it began, or if ranks would not train the same.
    pub fn check(&self, origin: &Origin, fingerprint: &str, world: &dyn World) -> Result<()> {
        let settings = serde_json::to_string(&self.settings).unwrap_or_default();
        agree(world, "the settings", &settings)?;
        agree(world, "the model's files", &format!("{origin:?}"))?;
        agree(world, "the rows", fingerprint)?;
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

    /// Gives the weights, the optimizer and BCO's shift what the checkpoint holds, and tells its step; 0 without one.
    pub fn restore(&self, update: &mut Update, shift: Option<&mut RewardShift>) -> Result<usize> {
        let Some((state, path)) = &self.from else {
            return Ok(0);
        };
        restore(path, update, shift).map_err(|error| match &self.results {
            Some(results) => results.store.damaged(path, &error),
            None => error,
        })?;
        Ok(state.step)
    }

    /// Says what was read, and what a reader of the results must know: how many prompts of the file of held-out rows
    /// are also trained on, and adapters of other models.
    pub fn tell(
        &self,
        progress: &dyn Progress,
        report: &Report,
        held_out: Option<&Report>,
        shared_prompts: usize,
        decoder: &Decoder,
    ) -> Notices {
        let show = |path: &Path, report: &Report| {
            progress.say(&format!("{}: {report}", path.display()));
        };
        show(&self.settings.data, report);
        if let (Some(path), Some(report)) = (&self.settings.held_out_file, held_out) {
            show(path, report);
        }
        if let Some(covers) = report.covers {
            progress.say(&format!("the loss covers {covers}"));
        }
        let mut notices = Notices::default();
        if shared_prompts > 0 {
            let notice = format!("{shared_prompts} held-out prompts are also trained on");
            notices.add(progress, notice);
        }
        for notice in other_bases(&self.settings, decoder) {
            notices.add(progress, notice);
        }
        notices
    }

    /// Writes a checkpoint after a step, on rank 0.
    pub fn save(
        &self,
        step: usize,
        (rows, origin): (&str, &Origin),
        (update, shift): (&Update, Option<&RewardShift>),
        decoder: &Decoder,
    ) -> Result<()> {
        let Some(results) = &self.results else {
            return Ok(());
        };
        let state = State {
            step,
            rows: rows.to_string(),
            origin: origin.clone(),
            settings: self.settings.clone(),
        };
        results.store.save(&state, update, shift, decoder)
    }

    /// Writes the curves and what was trained, on rank 0.
    pub fn finish(
        &self,
        seen: &[Seen],
        no_opinion: Option<f64>,
        update: &Update,
        decoder: &Decoder,
    ) -> Result<()> {
        let Some(results) = &self.results else {
            return Ok(());
        };
        let settings = &self.settings;
        let data = settings.data.display().to_string();
        let title = format!("{} on {}", settings.objective, file_name(&data));
        let curves = picture(seen, no_opinion, &title)?;
        save::trained(decoder, update.budget(), &settings.model, &self.out)?;
        results.folder.text("curves.svg", &curves)
    }

    /// Steps between two evaluations.
    pub fn eval_every(&self) -> Result<usize> {
        Ok(match self.settings.eval_every {
            0 => self.settings.fit.steps()?.div_ceil(4),
            every => every,
        })
    }
}
