//! The command line.

use super::adapter::Adapter;
use super::checkpoint::online::rewards::Reward;
use super::checkpoint::settings as checkpoint;
use super::data::json::Object;
use super::error::{Error, Result};
use super::evaluation::settings as evaluation;
use super::input;
use super::objectives::Objective;
use super::settings::Settings;
use clap::Parser;
use std::path::PathBuf;

/// Trains a small byte-level transformer on a preference file, or with `--model` a language model.
#[derive(Parser, Debug)]
pub struct Arguments {
    /// Settings to start from: a JSON file, such as the `config.json` of an earlier run.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Train the language model in this Hugging Face folder (Llama, Mistral, Qwen, Gemma, Phi-3). `--set` then knows other settings (see README).
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// With --model: a PEFT adapter to go on from, or to evaluate.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// With --model and --objective gkd: the Hugging Face folder of the teacher.
    #[arg(long, value_name = "DIR")]
    teacher: Option<PathBuf>,
    /// With --model: evaluate the model on the rows of --data instead of training it. `--set` then knows the settings of an evaluation (see README).
    #[arg(long, value_name = "METHOD")]
    evaluate: Option<evaluation::Method>,
    /// With --model: go on from the last checkpoint in the folder for the results.
    #[arg(long)]
    resume: bool,
    /// With --model: the most tokens of a row.
    #[arg(long, value_name = "TOKENS")]
    max_length: Option<usize>,
    /// The objective: any offline objective of the survey, and with --model those that came after it [default: dpo].
    #[arg(long)]
    objective: Option<Objective>,
    /// A `.jsonl` or `.jsonl.gz` file; without it, fifty built-in rows.
    #[arg(long)]
    data: Option<PathBuf>,
    /// The folder for the results [default: target/train/OBJECTIVE, with _METHOD for an adapter].
    #[arg(long)]
    out: Option<PathBuf>,
    /// Train an adapter on the frozen model instead of the model: a JSON file, such as `{"lora": {"rank": 4}}` or PEFT's `adapter_config.json`. The model itself comes from supervised steps (`--sft-steps`, under `--objective sft` too) or from `--base`.
    #[arg(long, value_name = "FILE")]
    adapter_config: Option<PathBuf>,
    /// Weights to start from: the `model.safetensors` or `base.safetensors` of an earlier run, with its `model.json` in the same folder. Supervised steps then run only if `--sft-steps` is given.
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// The seed of the weights, the split and the order of rows.
    #[arg(long)]
    seed: Option<u64>,
    /// Steps of the objective.
    #[arg(long)]
    steps: Option<usize>,
    /// Supervised steps of the whole model before the objective; 0 for none.
    #[arg(long)]
    sft_steps: Option<usize>,
    /// Examples per step.
    #[arg(long)]
    batch: Option<usize>,
    /// Examples per forward pass.
    #[arg(long)]
    micro_batch: Option<usize>,
    /// The peak learning rate of the objective.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// The most bytes of a prompt, an answer and the words around them together. Prompts are cut from the left; answers that are too long are left out.
    #[arg(long)]
    max_len: Option<usize>,
    /// Count unreadable rows instead of stopping at the first one.
    #[arg(long)]
    skip_bad_rows: bool,
    /// A field to ignore, as if the rows did not have it.
    #[arg(long, value_name = "NAME")]
    ignore_field: Vec<String>,
    /// With --model and an objective that draws answers: a reward by its name, or as JSON with its settings, such as `{"length": {"target": 50}}`. Several add up.
    #[arg(long, value_name = "REWARD")]
    reward: Vec<String>,
    /// Any other setting by its name in `config.json`: `--set dpo.beta=0.5 --set width=128`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// What the program is asked to do.
#[derive(Debug)]
pub enum Asked {
    /// A run of the small model.
    Small(Box<Settings>),
    /// A run on a checkpoint.
    Checkpoint {
        settings: Box<checkpoint::Settings>,
        resume: bool,
    },
    /// An evaluation of a checkpoint.
    Evaluation(Box<evaluation::Settings>),
}

impl Arguments {
    /// The small model, or with `--model`, or a file with the setting `model`, a checkpoint; with `--evaluate`,
    /// or a file with the setting `evaluate`, its evaluation.
    pub fn asked(self) -> Result<Asked> {
        let in_file: Object = match &self.config {
            Some(path) => serde_json::from_str(&input::json(path)?).unwrap_or_default(),
            None => Object::new(),
        };
        if self.evaluate.is_some() || in_file.contains_key("evaluate") {
            return Ok(Asked::Evaluation(Box::new(self.evaluation()?)));
        }
        if self.model.is_some() || in_file.contains_key("model") {
            let resume = self.resume;
            let settings = Box::new(self.checkpoint()?);
            return Ok(Asked::Checkpoint { settings, resume });
        }
        for (flag, given) in [
            ("--adapter", self.adapter.is_some()),
            ("--resume", self.resume),
            ("--teacher", self.teacher.is_some()),
            ("--reward", !self.reward.is_empty()),
            ("--max-length", self.max_length.is_some()),
        ] {
            if given {
                return Err(Error::Usage(format!("{flag} needs --model")));
            }
        }
        Ok(Asked::Small(Box::new(self.settings()?)))
    }

    /// The settings of a run on a checkpoint: the file, then flags, then `--set`.
    fn checkpoint(self) -> Result<checkpoint::Settings> {
        let of_the_small_model = [
            ("--base", self.base.is_some(), "--model DIR"),
            (
                "--sft-steps",
                self.sft_steps.is_some(),
                "a run of its own with --objective sft, then --adapter DIR",
            ),
            (
                "--micro-batch",
                self.micro_batch.is_some(),
                "--batch, the rows of a micro-batch, and --set fit.accumulation=N",
            ),
            ("--max-len", self.max_len.is_some(), "--max-length TOKENS"),
            ("--skip-bad-rows", self.skip_bad_rows, "a corrected file"),
        ];
        if let Some((flag, _, instead)) = of_the_small_model.iter().find(|(_, given, _)| *given) {
            let problem = format!("{flag} is for the small model; with --model, use {instead}");
            return Err(Error::Usage(problem));
        }
        let mut all = match &self.config {
            Some(path) => checkpoint::Settings::read(path)?,
            None => checkpoint::Settings::default(),
        };
        put(&mut all.model, self.model);
        put(&mut all.objective, self.objective);
        put(&mut all.data, self.data);
        put(&mut all.out, self.out.map(Some));
        let file = self.adapter_config.map(checkpoint::FreshAdapter::File);
        put(&mut all.adapter, file.map(Some));
        put(&mut all.adapter_dir, self.adapter.map(Some));
        put(&mut all.teacher, self.teacher.map(Some));
        put(&mut all.max_length, self.max_length.map(Some));
        put(&mut all.fit.max_steps, self.steps.map(Some));
        put(&mut all.fit.batch, self.batch);
        put(&mut all.fit.learning_rate, self.learning_rate.map(Some));
        if let Some(seed) = self.seed {
            all.seed(seed);
        }
        all.ignored_fields.extend(self.ignore_field);
        if !self.reward.is_empty() {
            let parsed = self.reward.iter().map(|text| Reward::parse(text));
            all.online.rewards = parsed.collect::<Result<_>>()?;
        }
        self.set.iter().try_fold(all, |all, one| all.with(one))
    }

    /// The settings of an evaluation: the file, then flags, then `--set`.
    fn evaluation(self) -> Result<evaluation::Settings> {
        let of_training = [
            ("--objective", self.objective.is_some()),
            ("--resume", self.resume),
            ("--max-length", self.max_length.is_some()),
            ("--adapter-config", self.adapter_config.is_some()),
            ("--base", self.base.is_some()),
            ("--seed", self.seed.is_some()),
            ("--steps", self.steps.is_some()),
            ("--sft-steps", self.sft_steps.is_some()),
            ("--batch", self.batch.is_some()),
            ("--micro-batch", self.micro_batch.is_some()),
            ("--learning-rate", self.learning_rate.is_some()),
            ("--max-len", self.max_len.is_some()),
            ("--skip-bad-rows", self.skip_bad_rows),
        ];
        if let Some((flag, _)) = of_training.iter().find(|(_, given)| *given) {
            let problem = format!("{flag} is for training, and --evaluate trains nothing");
            return Err(Error::Usage(problem));
        }
        let mut all = match &self.config {
            Some(path) => evaluation::Settings::read(path)?,
            None => evaluation::Settings::default(),
        };
        put(&mut all.evaluate, self.evaluate);
        put(&mut all.model, self.model);
        put(&mut all.adapter_dir, self.adapter.map(Some));
        put(&mut all.data, self.data);
        put(&mut all.out, self.out.map(Some));
        all.ignored_fields.extend(self.ignore_field);
        self.set.iter().try_fold(all, |all, one| all.with(one))
    }

    /// The file, then flags, then `--set`; later values override earlier ones. The adapter's file is
    /// read after all settings outside the adapter, because PEFT's file has sizes that must match the model.
    pub fn settings(self) -> Result<Settings> {
        let mut all = match &self.config {
            Some(path) => Settings::read(path)?,
            None => Settings::default(),
        };
        put(&mut all.objective, self.objective);
        put(&mut all.data, self.data.map(Some));
        put(&mut all.out, self.out.map(Some));
        put(&mut all.seed, self.seed);
        put(&mut all.steps, self.steps);
        let none = self.base.is_some().then_some(0);
        put(&mut all.sft_steps, self.sft_steps.or(none));
        put(&mut all.base, self.base.map(Some));
        put(&mut all.batch, self.batch);
        put(&mut all.micro_batch, self.micro_batch);
        put(&mut all.max_len, self.max_len);
        if let Some(rate) = self.learning_rate {
            match all.objective {
                Objective::Sft => all.sft_learning_rate = rate,
                objective if objective.is_language() => all.language_learning_rate = rate,
                _ => all.learning_rate = rate,
            }
        }
        all.skip_bad_rows |= self.skip_bad_rows;
        all.ignored_fields.extend(self.ignore_field);
        let of_adapter = |one: &&String| one.starts_with("adapter.");
        let (last, first): (Vec<_>, Vec<_>) = self.set.iter().partition(of_adapter);
        let mut all = first.into_iter().try_fold(all, |all, one| all.with(one))?;
        if let Some(path) = &self.adapter_config {
            all.adapter = Some(Adapter::read(path, &all)?);
        }
        last.into_iter().try_fold(all, |all, one| all.with(one))
    }
}

fn put<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}
