//! A whole run on a checkpoint: read, split, train, measure, save; and going on where a run stopped.

use super::super::error::Result;
use super::super::progress::Progress;
use super::super::report::peak_memory_mib;
use super::super::world::counted::{Counted, Shared, Spent};
use super::super::world::gradients::same_weights;
use super::super::world::single::Single;
use super::super::world::{World, any};
use super::evaluate::{Scores, scores};
use super::fit::Fitting;
use super::load;
use super::log::{Line, Log, Seen};
use super::named::refused;
use super::online;
use super::origin::origin;
use super::prepare::prepare;
use super::reference::precompute;
use super::settings::Settings;
use super::settings::objectives::learning_rate;
use super::start::{self, Start};
use super::summary::{Outcome, Summary, parameters};
use candle_align::decoder::Decoder;
use std::time::Instant;

/// Runs. With `resume`, goes on from the last checkpoint in the folder of results. `stop` is asked after
/// each step whether to stop there; a checkpoint is then written.
pub fn run(
    settings: &Settings,
    resume: bool,
    progress: &dyn Progress,
    stop: &dyn Fn(usize) -> bool,
) -> Result<Outcome> {
    run_in(&Single, settings, resume, progress, stop)
}

/// The same by several ranks, which all make this call: each takes a part of every step's rows, and all have the same
/// weights after it. Rank 0 alone writes.
pub fn run_in(
    world: &dyn World,
    settings: &Settings,
    resume: bool,
    progress: &dyn Progress,
    stop: &dyn Fn(usize) -> bool,
) -> Result<Outcome> {
    let begun = Instant::now();
    settings.check()?;
    let world = &Counted::new(world);
    if settings.objective.is_online() {
        return online::run::run(world, settings, resume, progress, stop);
    }
    let mut start = start::open(settings, resume, progress, world)?;

    let (mut decoder, mut reference) = load::start(&start.settings)?;
    let origin = origin(&start.settings)?;
    let rows = prepare(&start.settings, &decoder, start.now)?;
    start
        .settings
        .fit
        .learning_rate
        .get_or_insert(learning_rate(settings.objective));
    let per_epoch = start.settings.fit.steps_on(rows.train.len())?.per_epoch();
    start.settings.fit.resolve(per_epoch)?;
    start.check(&origin, &rows.fingerprint, world)?;
    let Start {
        settings,
        out,
        results,
        from,
        ..
    } = &start;
    let mut notices = start.tell(
        progress,
        &rows.report,
        rows.held_out_report.as_ref(),
        rows.shared_prompts,
        &decoder,
    );

    let long_rows = rows.train.longer_than(settings.fit.max_tokens);
    if long_rows > 0 {
        let notice = format!(
            "{long_rows} of {} rows have more than `fit.max_tokens` tokens: each goes through the model alone",
            rows.train.len()
        );
        notices.add(progress, notice);
    }
    refused(settings, &rows.train, &decoder, &reference)?;
    // before the weights of a checkpoint take the place of the first ones
    let mut of_held_out = None;
    if settings.precompute_ref_log_probs {
        let found = precompute(settings, &rows, &origin, &decoder, &reference, world)?;
        progress.say(&found.report);
        (reference, of_held_out) = (found.train, Some(found.held_out));
    }
    let fitting = Fitting::new(&decoder, &rows.train, reference, &settings.fit)?;
    let mut fitting = fitting.shared_by(world);
    let (update, shift) = fitting.moved();
    let first = start.restore(update, shift)?;
    same_weights(world, fitting.vars())?;
    let mut log = Log::none();
    if let Some(results) = results {
        results.folder.json("config.json", settings)?;
        log = Log::open(&out.join("metrics.jsonl"), from.is_some().then_some(first))?;
    }
    let last = settings.fit.steps()?;
    let every = start.eval_every()?;
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
                &settings.fit,
                fitting.shift(),
                world,
            )?;
            log.line(&Line::HeldOut {
                step,
                scores: &scores,
            })
        };
    let save = |step: usize, log: &Log, decoder: &Decoder, fitting: &Fitting| -> Result<()> {
        same_weights(world, fitting.vars())?;
        log.sync()?;
        let moved = (fitting.update(), fitting.moving_shift());
        start.save(step, (&rows.fingerprint, &origin), moved, decoder)
    };
    progress.begin("step", first, last);
    if from.is_none() {
        measure(0, &mut log, &decoder, &fitting)?;
    }
    progress.begin("step", first, last);
    let (mut tokens, mut seconds, mut spent) = (0, 0.0, Spent::default());
    for step in fitting.steps(first) {
        let step_begun = Instant::now();
        world.take();
        let logged = fitting.step(&mut decoder, &step)?;
        seconds += step_begun.elapsed().as_secs_f64();
        spent.add(world.take());
        tokens += step
            .micro_batches
            .iter()
            .flatten()
            .map(|row| rows.train.tokens(*row))
            .sum::<usize>();
        log.line(&Line::Train(&logged))?;
        progress.show(&format!(
            "loss {:.4}, {:.0} tokens/s",
            logged.loss,
            tokens as f64 / seconds
        ));
        progress.advance(1);
        let done = logged.step;
        if done % every == 0 || done == last {
            measure(done, &mut log, &decoder, &fitting)?;
        }
        let due = settings.save_every > 0 && done % settings.save_every == 0;
        let stopped = any(world, done < last && stop(done))?;
        if due || stopped || done == last {
            save(done, &log, &decoder, &fitting)?;
        }
        if stopped {
            progress.end();
            return Ok(Outcome::Stopped {
                step: done,
                of: last,
                out: out.clone(),
            });
        }
    }
    progress.end();

    let seen = log.seen()?;
    start.finish(&seen, settings.no_opinion(), fitting.update(), &decoder)?;
    let held_out: Vec<Scores> = seen
        .iter()
        .filter(|seen| seen.split == "held_out")
        .map(Seen::scores)
        .collect();
    let summary = Summary {
        objective: settings.objective,
        model: settings.model.clone(),
        data: settings.data.clone(),
        rows: rows.report,
        held_out_report: rows.held_out_report,
        train_rows: rows.train.len(),
        held_out_rows: rows.held_out.as_ref().map_or(0, |held| held.rows.len()),
        held_out_prompts: rows.held_out.as_ref().map_or(0, |held| held.prompts()),
        shared_prompts: rows.shared_prompts,
        long_rows,
        notices,
        trained_parameters: fitting.vars().iter().map(|(_, var)| var.elem_count()).sum(),
        model_parameters: parameters(&decoder),
        resumed_at: first,
        steps: last,
        learning_rate: settings.fit.learning_rate,
        before: held_out.first().copied(),
        after: held_out.last().copied(),
        tokens,
        step_seconds: seconds,
        shared: Shared::of(world, spent),
        seconds: begun.elapsed().as_secs_f64(),
        peak_memory_mib: peak_memory_mib(),
        adapted: decoder.adapter().is_some(),
        out: out.clone(),
    };
    if let Some(results) = results {
        results.folder.json("summary.json", &summary)?;
    }
    Ok(Outcome::Done(Box::new(summary)))
}
