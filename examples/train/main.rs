//! Trains a small byte-level transformer, from nothing, on a preference file.
//!
//! ```text
//! cargo run --example train -- --objective dpo --data rows.jsonl.gz
//! cargo run --example train -- --objective reward            (on fifty rows of its own)
//! cargo run --example train -- --config target/train/dpo/config.json --set dpo.beta=0.5
//! cargo run --example train -- --adapter-config lora.json    (with {"lora": {"rank": 4}} in it)
//! ```
//!
//! | what | where |
//! |---|---|
//! | which files it reads, and how their rows become prompts and answers | `data/formats.rs` |
//! | what becomes of a field that is not known, and which objectives take which rows | `data/mod.rs` |
//! | which call of the library each objective is, and what it orders answers by | `objectives/mod.rs` |
//! | objectives that compare answers | `objectives/ranking.rs` |
//! | objectives that are read: what they write around answers, and what they ask | `objectives/language.rs` |
//! | what of a file fits an objective | `fit.rs` |
//! | which answers are looked at together, and how many at most | `comparisons.rs` |
//! | micro-batches that have the gradient of one batch, clipping, schedule | `trainer.rs` |
//! | the model | `model.rs` |
//! | an adapter on it: its settings, AdaLoRA's budget, the files | `adapter/` |
//! | every setting with its default | `settings.rs` |
//!
//! It shows that the pieces hold on rows that nobody here wrote. It does not make a good model: a
//! few hundred thousand weights that have seen a few hundred thousand bytes know spelling, not
//! manners. So the report stands beside two rulers (the longer answer is better; the shorter one
//! is) and a coin, and gives the chance error of its accuracy. The objectives that are read, from
//! `conditional_sft` to `self_debug`, have no score of an answer in their loss; the report asks for
//! one: is the best answer likelier under good words than under bad ones?
//!
//! What you should see with `--objective dpo` and no file: in a minute or two, a held-out accuracy
//! that starts at 50 % (policy and reference agree) and a loss that falls from ln 2. In
//! `target/train/dpo`: `metrics.jsonl`, `curves.svg`, `model.safetensors`, `summary.json`, and
//! `config.json`, which `--config` reads.
//!
//! With `--adapter-config` the objective moves an adapter and no weight of the model, under any
//! parameter-efficient method of the library. The model comes first: by the supervised steps, under
//! `--objective sft` too, or from what an earlier run wrote (`--base`). DPO's reference is then the
//! model with its adapter off. In the place of `model.safetensors` stand `base.safetensors` and
//! `adapter/`, which Python's PEFT reads where it knows the method.
//!
//! Where other work keeps the machine busy, `RAYON_NUM_THREADS=1` is faster: threads that wait for
//! each other otherwise spend the time waiting (five times slower, measured at a load of 14 on two
//! cores).
//!
//! All objectives but `sft` begin with supervised steps on the best answers (`--sft-steps`), as the
//! papers do; DPO then freezes a copy as its reference. What an objective needs of a file, and a file
//! does not have, is an error before the first step: a second answer, a preference, or for
//! `self_debug` answers marked right or wrong.

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
    /// What to train by: every offline objective of the survey.
    #[arg(long)]
    objective: Option<Objective>,
    /// A `.jsonl` or `.jsonl.gz` file; without it, fifty rows of the example's own.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where the results go [default: target/train/OBJECTIVE, and _METHOD under an adapter].
    #[arg(long)]
    out: Option<PathBuf>,
    /// Train an adapter on the frozen model, not the model: a JSON file, such as `{"lora": {"rank": 4}}` or PEFT's `adapter_config.json`. The model itself comes first, by supervised steps (`--sft-steps`, under `--objective sft` too) or from `--base`.
    #[arg(long, value_name = "FILE")]
    adapter_config: Option<PathBuf>,
    /// Weights to start from: the `model.safetensors` or `base.safetensors` of an earlier run, with its `model.json` beside it. Supervised steps then come before the objective only if `--sft-steps` asks for them.
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Of weights, split and order.
    #[arg(long)]
    seed: Option<u64>,
    /// Steps of the objective.
    #[arg(long)]
    steps: Option<usize>,
    /// Supervised steps of the whole model before it; 0 for none.
    #[arg(long)]
    sft_steps: Option<usize>,
    /// Examples per step.
    #[arg(long)]
    batch: Option<usize>,
    /// Examples per forward pass.
    #[arg(long)]
    micro_batch: Option<usize>,
    /// The peak of the objective's learning rate.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// The most bytes of a prompt, an answer and the words around them: prompts are cut from the left, longer answers left out.
    #[arg(long)]
    max_len: Option<usize>,
    /// Count rows that cannot be read, instead of stopping at the first.
    #[arg(long)]
    skip_bad_rows: bool,
    /// A field of the rows that means nothing here: it is read as if it were not there.
    #[arg(long, value_name = "NAME")]
    ignore_field: Vec<String>,
    /// Any other setting, by the name in `config.json`: `--set dpo.beta=0.5 --set width=128`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Arguments {
    /// File first, then flags, then `--set`, each over what was before. The adapter's file comes after
    /// all that is not the adapter's: PEFT's holds sizes, which must be the model's.
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
