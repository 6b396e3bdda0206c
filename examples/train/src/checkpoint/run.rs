//! A whole run on a checkpoint: read, split, train, measure, save; and going on where a run stopped.

use super::super::error::{Error, Result};
use super::super::output::Folder;
use super::super::plot::file_name;
use super::super::report::peak_memory_mib;
use super::evaluate::{Scores, scores};
use super::fit::Fitting;
use super::load;
use super::log::{Line, Log, Seen, picture};
use super::origin::origin;
use super::prepare::prepare;
use super::reference::precompute;
use super::save;
use super::settings::Settings;
use super::settings::objectives::learning_rate;
use super::staged::staged;
use super::store::{State, Store, restore};
use super::summary::{Outcome, Summary};
use candle_align::decoder::Decoder;
use chrono::{Local, NaiveDateTime, Timelike};
use indicatif::ProgressBar;
use std::time::Instant;

/// How `now` is written.
const TIME: &str = "%Y-%m-%dT%H:%M:%S";

/// Runs. With `resume`, goes on from the last checkpoint in the folder of results. `stop` is asked after
/// each step whether to stop there; a checkpoint is then written.
pub fn run(
    settings: &Settings,
    resume: bool,
    progress: &ProgressBar,
    stop: &dyn Fn(usize) -> bool,
) -> Result<Outcome> {
    let begun = Instant::now();
    settings.check()?;
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
        let now = Local::now()
            .naive_local()
            .with_nanosecond(0)
            .unwrap_or_default();
        settings.now = Some(saved.unwrap_or_else(|| now.format(TIME).to_string()));
    }
    let now = settings.now.clone().unwrap_or_default();
    let now = NaiveDateTime::parse_from_str(&now, TIME).map_err(|error| {
        Error::Usage(format!(
            "`now` must be a time as 2026-01-31T12:00:00, got {now}: {error}"
        ))
    })?;

    let (mut decoder, mut reference) = load::start(&settings)?;
    let origin = origin(&settings)?;
    let rows = prepare(&settings, &decoder, now)?;
    settings
        .fit
        .learning_rate
        .get_or_insert(learning_rate(settings.objective));
    if let Some((state, path)) = &from {
        state.check(&settings)?;
        state.check_origin(&origin)?;
        if state.rows != rows.fingerprint {
            let problem = "the rows are not those of the run that wrote it: data, tokenizer or template changed";
            return Err(Error::file(path, problem));
        }
    }
    progress.println(format!("{}: {}", settings.data.display(), rows.report));
    if let (Some(path), Some(report)) = (&settings.held_out_file, &rows.held_out_report) {
        progress.println(format!("{}: {report}", path.display()));
        if rows.shared_prompts > 0 {
            let count = rows.shared_prompts;
            progress.println(format!("{count} held-out prompts are also trained on"));
        }
    }

    let long_rows = rows.train.longer_than(settings.fit.max_tokens);
    if long_rows > 0 {
        progress.println(format!(
            "{long_rows} of {} rows have more than `fit.max_tokens` tokens: each goes through the model alone",
            rows.train.len()
        ));
    }
    // before the weights of a checkpoint take the place of the first ones
    let mut of_held_out = None;
    if settings.precompute_ref_log_probs {
        let found = precompute(&settings, &rows, &origin, &decoder, &reference)?;
        progress.println(&found.report);
        (reference, of_held_out) = (found.train, Some(found.held_out));
    }
    let mut fitting = Fitting::new(&decoder, &rows.train, reference, &settings.fit)?;
    let first = match &from {
        None => 0,
        Some((state, path)) => {
            restore(path, &mut fitting)?;
            state.step
        }
    };
    folder.json("config.json", &settings)?;
    let mut log = Log::open(&out.join("metrics.jsonl"), from.is_some().then_some(first))?;
    let last = settings.fit.max_steps;
    let every = match settings.eval_every {
        0 => last.div_ceil(4),
        every => every,
    };
    let measure =
        |step: usize, log: &mut Log, decoder: &Decoder, fitting: &Fitting| -> Result<()> {
            let Some(held_out) = &rows.held_out else {
                return Ok(());
            };
            let reference = of_held_out.as_ref().unwrap_or(fitting.reference());
            let scores = scores(
                held_out,
                decoder,
                reference,
                settings.fit.max_tokens,
                fitting.shift(),
            )?;
            log.line(&Line::HeldOut {
                step,
                scores: &scores,
            })
        };
    let save = |step: usize, log: &Log, decoder: &Decoder, fitting: &Fitting| -> Result<()> {
        log.sync()?;
        let state = State {
            step,
            rows: rows.fingerprint.clone(),
            origin: origin.clone(),
            settings: settings.clone(),
        };
        store.save(&state, fitting, decoder)
    };
    progress.set_length(last as u64);
    progress.set_position(first as u64);
    if from.is_none() {
        measure(0, &mut log, &decoder, &fitting)?;
    }
    progress.reset_eta();
    let (mut tokens, mut seconds) = (0, 0.0);
    for step in fitting.steps(first) {
        let start = Instant::now();
        let logged = fitting.step(&mut decoder, &step)?;
        seconds += start.elapsed().as_secs_f64();
        tokens += step
            .micro_batches
            .iter()
            .flatten()
            .map(|row| rows.train.tokens(*row))
            .sum::<usize>();
        log.line(&Line::Train(&logged))?;
        progress.set_message(format!(
            "loss {:.4}, {:.0} tokens/s",
            logged.loss,
            tokens as f64 / seconds
        ));
        progress.inc(1);
        let done = logged.step;
        if done % every == 0 || done == last {
            measure(done, &mut log, &decoder, &fitting)?;
        }
        let due = settings.save_every > 0 && done % settings.save_every == 0;
        let stopped = done < last && stop(done);
        if due || stopped || done == last {
            save(done, &log, &decoder, &fitting)?;
        }
        if stopped {
            progress.finish_and_clear();
            return Ok(Outcome::Stopped {
                step: done,
                of: last,
                out,
            });
        }
    }
    progress.finish_and_clear();

    let seen = log.seen()?;
    let title = format!(
        "{} on {}",
        settings.objective,
        file_name(&settings.data.display().to_string())
    );
    let curves = picture(&seen, settings.no_opinion(), &title)?;
    match decoder.adapter() {
        Some(_) => save::adapter(&decoder, fitting.budget(), &out.join("adapter"))?,
        None => staged(&out.join("model"), |part| {
            save::model(&decoder, &settings.model, part)
        })?,
    }
    folder.text("curves.svg", &curves)?;
    let held_out: Vec<Scores> = seen
        .iter()
        .filter(|seen| seen.split == "held_out")
        .map(Seen::scores)
        .collect();
    let own = decoder
        .state_dict()
        .into_values()
        .map(|tensor| tensor.elem_count())
        .sum();
    let summary = Summary {
        objective: settings.objective,
        model: settings.model.clone(),
        data: settings.data.clone(),
        rows: rows.report,
        train_rows: rows.train.len(),
        held_out_rows: rows.held_out.as_ref().map_or(0, |held| held.rows.len()),
        held_out_prompts: rows.held_out.as_ref().map_or(0, |held| held.prompts()),
        shared_prompts: rows.shared_prompts,
        long_rows,
        trained_parameters: fitting.vars().iter().map(|(_, var)| var.elem_count()).sum(),
        model_parameters: own,
        resumed_at: first,
        steps: last,
        learning_rate: settings.fit.learning_rate,
        before: held_out.first().copied(),
        after: held_out.last().copied(),
        tokens,
        step_seconds: seconds,
        seconds: begun.elapsed().as_secs_f64(),
        peak_memory_mib: peak_memory_mib(),
        adapted: decoder.adapter().is_some(),
        out,
    };
    folder.json("summary.json", &summary)?;
    Ok(Outcome::Done(Box::new(summary)))
}
