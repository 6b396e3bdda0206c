//! The command line.

use super::adapter::Adapter;
use super::error::Result;
use super::objectives::Objective;
use super::settings::Settings;
use clap::Parser;
use std::path::PathBuf;

/// Trains a small byte-level transformer on a preference file.
#[derive(Parser, Debug)]
pub struct Arguments {
    /// Settings to start from: a JSON file, such as the `config.json` of an earlier run.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The objective: any offline objective of the survey.
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
    /// Any other setting by its name in `config.json`: `--set dpo.beta=0.5 --set width=128`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Arguments {
    /// The file, then flags, then `--set`; later values override earlier ones. The adapter's file is
    /// read after all settings outside the adapter, because PEFT's file has sizes that must match the model.
    pub fn settings(self) -> Result<Settings> {
        let mut all = match &self.config {
            Some(path) => Settings::read(path)?,
            None => Settings::default(),
        };
        fn put<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
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
