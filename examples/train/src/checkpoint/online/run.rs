//! A whole run on the model's own answers: read, split, draw, score, learn, measure, save; and going on where a run
//! stopped.

use super::super::super::error::Result;
use super::super::super::progress::Progress;
use super::super::super::report::peak_memory_mib;
use super::super::super::world::any;
use super::super::super::world::counted::{Counted, Shared, Spent};
use super::super::super::world::gradients::same_weights;
use super::super::load;
use super::super::log::{Line, Lines, Log, read};
use super::super::order::Steps;
use super::super::origin::origin;
use super::super::settings::Settings;
use super::super::settings::objectives::learning_rate;
use super::super::start::{self, Start};
use super::super::summary::{Outcome, parameters};
use super::super::update::Update;
use super::evaluate::{Answered, evaluate};
use super::files::{Said, Times, lines};
use super::fit::{Learner, Ready};
use super::given::Given;
use super::ppo::critic::Critic;
use super::prompts::{Prompts, prepare};
use super::rewards::Rewards;
use super::rewards::model::RewardModel;
use super::rollout::Sampler;
use super::summary::{Summary, quarters, unjudged};
use candle_align::decoder::{Decoder, Load};
use candle_core::Device;
use serde::Deserialize;
use std::time::Instant;

/// What is read of a line of the log.
#[derive(Deserialize)]
struct HeldOut {
    split: String,
}

/// The rewards of a run.
fn rewards(settings: &Settings, prompts: &Prompts) -> Result<Rewards> {
    let load = Load {
        dtype: settings.dtype.dtype(),
        nf4: settings.dtype.nf4(),
        trained: false,
        device: Device::Cpu,
    };
    let open = |model: &RewardModel| {
        model.open(
            &settings.model,
            &load,
            &prompts.voice,
            settings.fit.max_tokens,
        )
    };
    let online = &settings.online;
    let rewards = Rewards::new(&online.rewards, online.weights(), open)?;
    let held_out_file = settings.held_out_file.as_ref().unwrap_or(&settings.data);
    let answer = online.max_completion_length;
    rewards.check(&settings.data, &prompts.train, answer)?;
    rewards.check(held_out_file, &prompts.held_out, answer)?;
    Ok(rewards)
}

/// Runs, as [`run_in`](super::super::run::run_in) does, which has checked the settings. A checkpoint is written where
/// all steps on the same answers are done.
pub fn run(
    world: &Counted,
    settings: &Settings,
    resume: bool,
    progress: &dyn Progress,
    stop: &dyn Fn(usize) -> bool,
) -> Result<Outcome> {
    let begun = Instant::now();
    let mut start = start::open(settings, resume, progress, world)?;
    let (decoder, reference) = load::start(&start.settings)?;
    let origin = origin(&start.settings)?;
    let prompts = prepare(&start.settings, &decoder, start.now)?;
    start
        .settings
        .fit
        .learning_rate
        .get_or_insert(learning_rate(settings.objective));
    let per_round = settings.prompts_per_round();
    let rounds = Steps::of_prompts(prompts.train.len(), per_round, settings.fit.order)?;
    let per_epoch = rounds
        .per_epoch()
        .saturating_mul(settings.steps_per_round());
    start.settings.fit.resolve(per_epoch)?;
    start.check(&origin, &prompts.fingerprint, world)?;
    let rewards = rewards(settings, &prompts)?;
    let Start {
        settings,
        out,
        results,
        from,
        ..
    } = &start;
    let (online, fit) = (&settings.online, &settings.fit);
    let mut notices = start.tell(
        progress,
        &prompts.report,
        prompts.held_out_report.as_ref(),
        prompts.shared_prompts,
        &decoder,
    );

    let sampler = Sampler::new(settings, &prompts.voice, &prompts.folder);
    let critic = Critic::of(settings, &decoder)?;
    let (last, every) = (fit.steps()?, start.eval_every()?);
    let steps = last.div_ceil(settings.steps_per_round());
    let all = rounds
        .from(0)
        .take(steps)
        .flat_map(|round| round.micro_batches);
    let asked = all.map(|batch| batch.len()).sum();
    let given = match &online.completions_file {
        Some(path) => Some(Given::open(path, settings, &sampler, &decoder, asked)?),
        None => None,
    };
    let mut learner = Learner {
        settings,
        prompts: &prompts.train,
        sampler: &sampler,
        rewards: &rewards,
        given,
        reference,
        update: Update::with(&decoder, critic.iter().flat_map(Critic::vars), fit)?,
        critic,
        world,
        checked: false,
    };
    let first = start.restore(&mut learner.update, None)?;
    same_weights(world, learner.update.vars())?;
    let kept = from.is_some().then_some(first);
    let mut log = Log::none();
    let (mut samples, mut durations) = (Lines::none(), Lines::none());
    if let Some(results) = results {
        results.folder.json("config.json", settings)?;
        log = Log::open(&out.join("metrics.jsonl"), kept)?;
        samples = lines(&out.join("samples.jsonl"), kept)?;
        durations = lines(&out.join("times.jsonl"), kept)?;
    }
    let measure =
        |step: usize, log: &mut Log, samples: &mut Lines, decoder: &Decoder| -> Result<()> {
            if prompts.held_out.is_empty() {
                return Ok(());
            }
            let (answered, answers, scored) = evaluate(
                decoder,
                &sampler,
                &prompts.held_out,
                &rewards,
                online.num_generations_eval,
                step,
                world,
            )?;
            for (answer, scored) in answers.iter().zip(&scored) {
                let prompt = &prompts.held_out[answer.prompt];
                samples.line(&Said::of(
                    step,
                    prompt,
                    answer,
                    rewards.names(),
                    scored,
                    None,
                ))?;
            }
            log.line(&Line::Answers(&answered))
        };
    progress.begin("step", first, last);
    if from.is_none() {
        measure(0, &mut log, &mut samples, &decoder)?;
    }
    progress.begin("step", first, last);
    let (mut tokens, mut all_times) = (0, Times::default());
    let mut spent = Spent::default();
    let (mut stopping, mut judged_none) = (false, false);
    let skipped = first.div_ceil(settings.steps_per_round());
    let mut asked_before: usize = rounds
        .from(0)
        .take(skipped)
        .map(|round| round.micro_batches.iter().map(Vec::len).sum::<usize>())
        .sum();
    let mut done = first;
    for round in rounds.from(skipped) {
        if done >= last {
            break;
        }
        let asked: Vec<usize> = round.micro_batches.concat();
        let mut times = Times::default();
        progress.show("drawing answers");
        world.take();
        let mut ready: Ready =
            learner.round(&decoder, &asked, round.step, asked_before, &mut times)?;
        asked_before += asked.len();
        for (at, answer) in ready.round.answers.iter().enumerate() {
            let prompt = &prompts.train[answer.prompt];
            let part = Some(ready.round.parts[at]);
            let scored = &ready.scored[at];
            let names = rewards.names();
            samples.line(&Said::of(done + 1, prompt, answer, names, scored, part))?;
            tokens += answer.ids.len();
        }
        if ready.drawn.reward.is_none() && !judged_none {
            judged_none = true;
            progress.say(&format!(
                "step {}: no reward judged an answer, so there is nothing to learn from",
                done + 1
            ));
        }
        let before = done;
        for _ in 0..settings.steps_per_round().min(last - done) {
            let logged = learner.step(&decoder, &mut ready, done, &mut times)?;
            spent.add(world.take());
            log.line(&Line::Online(&logged))?;
            done += 1;
            times.step = done;
            durations.line(&times)?;
            all_times.add(&times);
            times = Times::default();
            let reward = logged
                .drawn
                .reward
                .map_or("–".to_string(), |r| format!("{r:.3}"));
            progress.show(&format!("reward {reward}, loss {:.4}", logged.loss));
            progress.advance(1);
            if done % every == 0 || done == last {
                measure(done, &mut log, &mut samples, &decoder)?;
            }
            stopping |= any(world, done < last && stop(done))?;
            world.take();
        }
        let due =
            settings.save_every > 0 && done / settings.save_every > before / settings.save_every;
        if due || stopping || done == last {
            same_weights(world, learner.update.vars())?;
            log.sync()?;
            samples.sync()?;
            durations.sync()?;
            let moved = (&learner.update, None);
            start.save(done, (&prompts.fingerprint, &origin), moved, &decoder)?;
        }
        if stopping && done < last {
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
    if let Some(notice) = unjudged(&seen) {
        notices.add(progress, notice);
    }
    start.finish(&seen, None, &learner.update, &decoder)?;
    let mut held_out = Vec::new();
    if results.is_some() {
        if let Some(critic) = &learner.critic {
            critic.save(&settings.model, out)?;
        }
        held_out = read::<HeldOut>(&out.join("metrics.jsonl"))?;
    }
    let held_out = held_out.into_iter();
    let held_out: Vec<Answered> = held_out
        .filter(|(_, line)| line.split == "held_out")
        .filter_map(|(text, _)| serde_json::from_str(&text).ok())
        .collect();
    let vars = learner.update.vars().iter();
    let summary = Summary {
        objective: settings.objective,
        model: settings.model.clone(),
        data: settings.data.clone(),
        rows: prompts.report.clone(),
        held_out_report: prompts.held_out_report.clone(),
        train_prompts: prompts.train.len(),
        held_out_prompts: prompts.held_out.len(),
        shared_prompts: prompts.shared_prompts,
        notices,
        trained_parameters: vars.map(|(_, var)| var.elem_count()).sum(),
        model_parameters: parameters(&decoder),
        resumed_at: first,
        steps: last,
        answers_per_step: settings.answers_per_step(),
        learning_rate: fit.learning_rate,
        drawn: quarters(&seen),
        before: held_out.first().cloned(),
        after: held_out.last().cloned(),
        tokens,
        times: all_times,
        shared: Shared::of(world, spent),
        seconds: begun.elapsed().as_secs_f64(),
        peak_memory_mib: peak_memory_mib(),
        adapted: decoder.adapter().is_some(),
        out: out.clone(),
    };
    if let Some(results) = results {
        results.folder.json("summary.json", &summary)?;
    }
    Ok(Outcome::Online(Box::new(summary)))
}
