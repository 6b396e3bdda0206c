//! A whole run: read, split, supervised steps, train, compare with the start and with trivial baselines.

use super::adapter::files;
use super::comparisons::Shape;
use super::data::{self, Reading};
use super::error::{Error, Result};
use super::fit::{all_examples, all_probes, in_rows, usable};
use super::metric::Metric;
use super::model::Model;
use super::objectives::{Objective, Task};
use super::output::Folder;
use super::overwrite;
use super::plot;
use super::progress::Progress;
use super::report::{Baselines, Summary, Written, byte_frequencies, peak_memory_mib};
use super::settings::Settings;
use super::trainer::{Phase, Trainer};
use candle_align::Reduction;
use candle_align::peft::AdapterFile;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::time::Instant;

/// Runs, writes the results, and returns a summary.
///
/// Files are written only after the run has succeeded; each appears complete.
pub fn run(settings: &Settings, progress: &dyn Progress) -> Result<Summary> {
    let run = train(settings, progress)?;
    run.write(settings)?;
    Ok(run.summary)
}

/// A run whose results are not written yet.
pub struct Run {
    pub model: Model,
    pub metrics: Vec<Metric>,
    pub summary: Summary,
    /// Of an adapter that PEFT knows.
    pub file: Option<AdapterFile>,
    folder: Folder,
}

/// What a run writes into its folder.
const RESULTS: [&str; 9] = [
    "config.json",
    "model.safetensors",
    "base.safetensors",
    "reward_head.safetensors",
    "model.json",
    "adapter",
    "metrics.jsonl",
    "curves.svg",
    "summary.json",
];

/// An error if the run would write over a file that it reads, or over what no earlier run of the small model wrote.
fn check_out(settings: &Settings) -> Result<()> {
    let out = settings.out();
    let inputs = [
        ("its rows", &settings.data),
        ("its weights", &settings.base),
    ];
    let given = inputs.iter();
    let given = given.filter_map(|(what, path)| Some((*what, path.as_deref()?)));
    let is_result = |name: &str| RESULTS.contains(&name);
    overwrite::check_inputs(&given.collect::<Vec<_>>(), &out, is_result)?;
    match overwrite::first_there(&out, &RESULTS) {
        Some(path) if Settings::read(&out.join(RESULTS[0])).is_err() => {
            Err(overwrite::foreign(&path))
        }
        _ => Ok(()),
    }
}

/// Runs.
pub fn train(settings: &Settings, progress: &dyn Progress) -> Result<Run> {
    let start = Instant::now();
    settings.check()?;
    check_out(settings)?;
    let reading = Reading {
        max_len: settings.max_len,
        skip_bad_rows: settings.skip_bad_rows,
        max_rows: settings.max_rows,
        ignored_fields: settings.ignored_fields.clone(),
    };
    let data = data::load(settings.data.as_deref(), &reading)?;
    let mut tally = data.tally;
    let (objective, forms, most) = (settings.objective, settings.forms(), settings.most());
    let items = usable(data.items, objective, forms, most, &data.name, &mut tally)?;
    let task = Task {
        objective: settings.objective,
        shape: objective.shape(settings, &items),
        settings,
    };
    // one generator per purpose, so that another split does not change the weights
    let rng = |purpose: u64| StdRng::seed_from_u64(settings.seed.wrapping_mul(8) + purpose);
    let (share, most) = (settings.held_out, settings.max_held_out);
    let (train, held_out) = data::split(items, share, most, &mut rng(0))?;
    // a folder that cannot be written to is an error before the first step
    let learned = all_examples(&task, &train, &data.name, &mut tally, &mut rng(5))?;
    let measured = match task.objective {
        // held-out lists are kept complete, because SFT's order of answers is reported too
        Objective::Sft => in_rows(&held_out, Shape::Lists, settings, &mut tally),
        _ => all_examples(&task, &held_out, &data.name, &mut tally, &mut rng(6))?,
    };
    let asked = all_probes(&task, &held_out, &mut tally)?;
    let warm = match (settings.objective, &settings.adapter) {
        (Objective::Sft, None) => 0,
        _ => settings.sft_steps,
    };
    let best = match warm > 0 {
        true => in_rows(&train, Shape::Best, settings, &mut tally),
        false => Vec::new(),
    };
    if warm > 0 && best.is_empty() {
        return Err(Error::Usage(format!(
            "{}: supervised steps learn good answers, and there is none to train on; use --sft-steps 0",
            data.name
        )));
    }

    let mut model = Model::new(settings, &mut rng(1))?;
    if let Some(adapter) = &settings.adapter {
        adapter.check(&model.body, settings)?;
    }
    let folder = Folder::open(&settings.out())?;
    progress.begin("step", 0, warm + settings.steps);
    let mut trainer = Trainer::new(progress);

    // supervised steps on the best answers: a reference worth staying near, a base worth adapting
    if warm > 0 {
        let task = Task {
            objective: Objective::Sft,
            shape: Shape::Best,
            settings,
        };
        let phase = Phase {
            name: match settings.adapter {
                None => task.objective.to_string(),
                Some(_) => "base".to_string(),
            },
            task,
            model: &model,
            reference: None,
            train: best,
            held_out: Vec::new(),
            probes: Vec::new(),
            steps: warm,
        };
        trainer.train(&phase, &mut rng(2))?;
    }

    // the objective itself
    if let Some(adapter) = &settings.adapter {
        model.adapt(adapter, &mut rng(7))?;
    }
    if settings.objective == Objective::Reward {
        model.add_head(&mut rng(3))?;
    }
    let reference = match settings.objective.has_reference(settings) {
        true => model.frozen()?,
        false => None,
    };
    let parameters = model.vars().iter().map(|(_, var)| var.elem_count()).sum();
    let total_parameters = model.parameters();
    if let Some(adapter) = &settings.adapter {
        progress.say(&format!(
            "{} trains {parameters} of {total_parameters} parameters",
            adapter.method.name()
        ));
        adapter.notes.iter().for_each(|note| progress.say(note));
    }
    let phase = Phase {
        name: task.objective.to_string(),
        task,
        model: &model,
        reference,
        train: learned,
        held_out: measured,
        probes: asked,
        steps: settings.steps,
    };
    let (before, after) = trainer.train(&phase, &mut rng(4))?;
    progress.end();

    let compared = match task.objective.is_language() {
        true => &phase.probes,
        false => &phase.held_out,
    };
    let plain_tokens =
        task.objective.reduction() == Reduction::TokenMean && task.objective != Objective::CRlft;
    let file = match (&settings.adapter, model.adapted()) {
        (Some(adapter), Some(adapted)) => {
            let (kept, head) = (&trainer.kept, model.head.as_ref());
            files::peft(adapter, adapted, settings.steps, kept, head)?
        }
        _ => None,
    };
    let seconds = trainer.seconds();
    let (train_prompts, train_rows) = data::prompts_and_rows(&train);
    let (held_out_prompts, held_out_rows) = data::prompts_and_rows(&held_out);
    let summary = Summary {
        objective: settings.objective,
        data: data.name,
        tally,
        train_prompts,
        train_rows,
        held_out_prompts,
        held_out_rows,
        examples: task.examples(),
        train_examples: phase.train.len(),
        held_out_examples: phase.held_out.len(),
        parameters,
        total_parameters,
        adapter: settings.adapter.as_ref().map(|adapter| Written {
            method: adapter.method.name(),
            files: files::described(adapter, file.as_ref()),
        }),
        sft_steps: warm,
        steps: settings.steps,
        before,
        after,
        baselines: Baselines::of(compared),
        score: task.objective.score(),
        byte_frequencies: plain_tokens.then(|| {
            let vocabulary = task.objective.vocabulary();
            byte_frequencies(&phase.train, &phase.held_out, vocabulary)
        }),
        tokens: trainer.tokens,
        tokens_per_second: trainer.tokens as f64 / seconds,
        seconds: start.elapsed().as_secs_f64(),
        peak_memory_mib: peak_memory_mib(),
        out: settings.out(),
    };
    Ok(Run {
        metrics: trainer.metrics,
        model,
        summary,
        file,
        folder,
    })
}

impl Run {
    /// Writes the results. Under an adapter the weights are those of the frozen base.
    pub fn write(&self, settings: &Settings) -> Result<()> {
        let (folder, model) = (&self.folder, &self.model);
        let curves = plot::curves(&self.metrics, &self.summary)?;
        let weights = match model.adapted() {
            None => "model.safetensors",
            Some(_) => "base.safetensors",
        };
        folder.weights(weights, model.body.weights())?;
        if let (Some(adapter), Some(adapted)) = (&settings.adapter, model.adapted()) {
            files::write(&settings.out(), adapter, adapted, self.file.as_ref())?;
        }
        if let Some(head) = &model.head {
            folder.vars("reward_head.safetensors", &head.trainable())?;
        }
        folder.json("model.json", model.body.config())?;
        folder.json("config.json", settings)?;
        folder.lines("metrics.jsonl", &self.metrics)?;
        folder.text("curves.svg", &curves)?;
        folder.json("summary.json", &self.summary)
    }
}
