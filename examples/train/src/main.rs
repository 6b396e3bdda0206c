//! Trains a small byte-level transformer from scratch on a preference file.
//!
//! ```text
//! cargo run --example train -- --objective dpo --data rows.jsonl.gz
//! cargo run --example train -- --objective reward            (on fifty built-in rows)
//! cargo run --example train -- --config target/train/dpo/config.json --set dpo.beta=0.5
//! cargo run --example train -- --adapter-config lora.json    (with {"lora": {"rank": 4}} in it)
//! ```
//!
//! | what | where |
//! |---|---|
//! | which files it reads, and how their rows become prompts and answers | `data/formats.rs` |
//! | how unknown fields are handled, and which objectives take which rows | `data/mod.rs` |
//! | which library call each objective is, and which score orders its answers | `objectives/mod.rs` |
//! | objectives that compare answers | `objectives/ranking.rs` |
//! | objectives that write words around answers: their texts, and their evaluation | `objectives/language.rs` |
//! | which rows of a file fit an objective | `fit.rs` |
//! | which answers are compared, and how many at most | `comparisons.rs` |
//! | micro-batches with the gradient of one batch, clipping, schedule | `trainer.rs` |
//! | the model | `model.rs` |
//! | an adapter on the model: its settings, AdaLoRA's budget, the files | `adapter/` |
//! | every setting with its default | `settings.rs` |
//!
//! This checks the code on real data; a model this small does not become aligned. A few hundred
//! thousand weights that have seen a few hundred thousand bytes learn some spelling. The report
//! therefore compares the accuracy with two baselines (the longer answer is better; the shorter one
//! is) and a coin, and gives its standard error. The objectives that write words around answers, from
//! `conditional_sft` to `self_debug`, have no score of an answer in their loss. The report computes
//! one: is the best answer likelier after good words than after bad ones?
//!
//! What you should see with `--objective dpo` and no file, in a minute or two: the held-out accuracy
//! starts at 50 % (policy and reference agree), and the loss falls from ln 2. `target/train/dpo` then
//! has `metrics.jsonl`, `curves.svg`, `model.safetensors`, `summary.json`, and `config.json`, which
//! `--config` reads. Change one setting, such as `--set dpo.beta=0.5`, and compare the two `curves.svg`.
//!
//! With `--adapter-config` the objective trains only an adapter, by any parameter-efficient method of
//! the library, and freezes the model. The model itself comes from the supervised steps (under
//! `--objective sft` too) or from an earlier run (`--base`). DPO's reference is then the model with its
//! adapter off. The run writes `base.safetensors` and `adapter/` instead of `model.safetensors`;
//! Python's PEFT reads `adapter/` if it has the method.
//!
//! On a busy machine `RAYON_NUM_THREADS=1` is faster, because threads otherwise spend their time
//! waiting for each other (five times slower, measured at a load of 14 on two cores).
//!
//! All objectives but `sft` begin with supervised steps on the best answers (`--sft-steps`), as the
//! papers do; DPO then freezes a copy as its reference. If a file lacks what an objective needs, that
//! is an error before the first step: a second answer, a preference, or, for `self_debug`, answers
//! marked right or wrong.

pub mod adapter;
pub mod batch;
pub mod comparisons;
pub mod data;
pub mod error;
pub mod fit;
pub mod input;
pub mod model;
pub mod objectives;
pub mod optimiser;
pub mod output;
pub mod plot;
pub mod report;
pub mod run;
pub mod settings;
pub mod similarity;
#[path = "../support/mod.rs"]
pub mod support;
pub mod trainer;

use adapter::Adapter;
use clap::Parser;
use error::Result;
use indicatif::{ProgressBar, ProgressStyle};
use objectives::Objective;
use settings::Settings;
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let progress = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {msg}  {eta} left");
    progress.set_style(style.expect("a template without mistakes"));
    match arguments
        .settings()
        .and_then(|all| run::run(&all, &progress))
    {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            progress.finish_and_clear();
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
