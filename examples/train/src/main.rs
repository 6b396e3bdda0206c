//! Trains a small byte-level transformer from scratch on a preference file.
//!
//! ```text
//! cargo run --example train -- --objective dpo --data rows.jsonl.gz
//! cargo run --example train -- --objective reward            (on fifty built-in rows)
//! cargo run --example train -- --config target/train/dpo/config.json --set dpo.beta=0.5
//! cargo run --example train -- --adapter-config lora.json    (with {"lora": {"rank": 4}} in it)
//! cargo run --example train -- --model DIR --objective dpo --data rows.jsonl --set adapter.r=8
//! cargo run --example train -- --model DIR --evaluate multiple_choice --data rows.jsonl
//! ```
//!
//! With `--model` it trains a language model from a Hugging Face folder instead: see `checkpoint/`. With
//! `--evaluate` it measures such a model on a file of rows: see `evaluation/`.
//!
//! | what | where |
//! |---|---|
//! | which files it reads, and how their rows become prompts and answers | `data/formats.rs` |
//! | how unknown fields are handled, and which objectives take which rows | `data/mod.rs` |
//! | which library call each objective is, and which score orders its answers | `objectives/mod.rs` |
//! | objectives that compare answers | `objectives/ranking.rs` |
//! | objectives that came after the survey, with `--model` | `checkpoint/objective/since.rs`, `checkpoint/objective/unpaired.rs` |
//! | objectives that write words around answers: their texts, and their evaluation | `objectives/language.rs` |
//! | which rows of a file fit an objective | `fit.rs` |
//! | which answers are compared, and how many at most | `comparisons.rs` |
//! | micro-batches with the gradient of one batch, clipping, schedule | `trainer.rs`, `micro_batches.rs` |
//! | the evaluation on held-out examples | `held_out.rs` |
//! | the model | `model.rs` |
//! | an adapter on the model: its settings, AdaLoRA's budget, the files | `adapter/` |
//! | notices and progress, with and without a terminal | `progress.rs` |
//! | every setting with its default | `settings.rs` |
//! | which files of a folder a run must not write over | `overwrite.rs` |
//! | several processes that share a run with `--model` | `world/` |
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

use clap::Parser;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use train::arguments::Asked;
use train::error::{Error, Result};
use train::{Arguments, checkpoint, evaluation, progress, run, world};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let world = match world::start::start() {
        Ok(world) => world,
        Err(error) => return failed(&error.to_string()),
    };
    let progress = progress::progress(world.writes());
    let result = arguments.asked().and_then(|asked| match asked {
        Asked::Checkpoint { settings, resume } => {
            let stop = interrupted(world.writes())?;
            let stop = |_| stop.load(Relaxed);
            let outcome = checkpoint::run::run_in(&*world, &settings, resume, &*progress, &stop)?;
            Ok(outcome.to_string())
        }
        _ if world.size() > 1 => Err(Error::Usage(
            "several processes share a run with --model that trains, and no other".to_string(),
        )),
        Asked::Small(settings) => Ok(run::run(&settings, &*progress)?.to_string()),
        Asked::Evaluation(settings) => Ok(evaluation::run::run(&settings, &*progress)?.to_string()),
    });
    match result {
        Ok(summary) => {
            if world.writes() {
                println!("{summary}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            progress.end();
            let failed = failed(&world::start::blamed(&*world, &error));
            world.abandon();
            failed
        }
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

/// Whether Ctrl-C was pressed. Pressed again, it ends the program at once. Where several processes share a run, one of
/// them says so.
fn interrupted(says: bool) -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let handler = move || {
        if seen.swap(true, Relaxed) {
            std::process::exit(130);
        }
        if says {
            eprintln!(
                "stopping after this step, with a checkpoint; press Ctrl-C again to stop at once"
            );
        }
    };
    ctrlc::set_handler(handler)
        .map_err(|error| Error::Usage(format!("Ctrl-C cannot be handled: {error}")))?;
    Ok(stop)
}
