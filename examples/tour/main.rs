//! Every method of the survey's §3.1 and §3.2 against the best that is possible.
//!
//! ```text
//! cargo run --example tour
//! cargo run --example tour -- --only raft,dpo
//! cargo run --example tour -- --only lora,prefix
//! ```
//! A world small enough to enumerate: 16 prompts, 2801 answers to each, a known reward. A small
//! transformer learns demonstrations (SFT); from there twenty methods go their ways, by the survey's
//! sections: online, ranking, language, few parameters. What each policy is worth, and how far it has
//! moved from the reference, is added up over all answers, and set beside the frontier: the greatest
//! reward that any policy can have at that distance. Only the policies that answer at the end of a
//! chain of revisions are drawn from, with standard errors.
//!
//! Then DPO once more, through every method of §3.3 at several sizes: what it reaches against how many
//! numbers learn.
//!
//! You should see two tables, and find two files in `target/tour/`: `report.html`, the pictures, and
//! `report.json`, the numbers. No policy is above the frontier; DPO comes nearer to it than SLiC, PRO
//! and RRHF; PPO stops at the optimum of the reward that it was given, the learned one. LoRA at rank 8
//! comes as near to the policy that DPO aims at as all numbers do; prompts and prefixes come least far.
//! It takes five and a half minutes of processor time, just under three by the clock on two cores of
//! their own; a method of §3.3 alone some fifteen seconds. Nothing is downloaded.

#[path = "../support/mod.rs"]
mod support;
#[path = "mod.rs"]
mod tour;

use clap::Parser;
use indicatif::MultiProgress;
use std::path::PathBuf;
use std::process::ExitCode;
use tour::{Choice, Options, run};

// Candle allocates every result anew; under the system's allocator that costs more than the sums.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Every method against the best that is possible, in a world small enough to enumerate.
#[derive(Parser)]
#[command(name = "tour")]
struct Args {
    /// Run only these methods (SFT always runs); those of the second picture at all their sizes.
    #[arg(long, value_delimiter = ',', value_name = "METHOD[,METHOD]")]
    only: Vec<Choice>,
    /// Optimiser steps of every method.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: Option<u32>,
    /// Same seed, same numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where report.html and report.json go.
    #[arg(long, default_value = "target/tour", value_name = "DIR")]
    out: PathBuf,
    /// Shorter answers and fewer steps: a few seconds.
    #[arg(long)]
    quick: bool,
}

/// How many threads candle takes for one operation: a matrix product, and everything else.
const THREADS: [&str; 2] = ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"];

fn main() -> ExitCode {
    let args = Args::parse();
    // The tensors are small and the methods run side by side: two threads for one operation would
    // only wait for each other, and candle's wait by spinning. It reads the number from the
    // environment, which a program can safely change for another program only: itself, once more.
    if THREADS.iter().any(|name| std::env::var_os(name).is_none()) {
        return again();
    }
    let mut options = Options {
        steps: args.steps.map(|s| s as usize),
        seed: args.seed,
        out: Some(args.out.clone()),
        quick: args.quick,
        ..Options::default()
    };
    if !args.only.is_empty() {
        let chosen = args.only.iter();
        options.only = chosen.clone().filter_map(|c| c.method()).collect();
        options.families = chosen.filter_map(|c| c.family()).collect();
    }
    match run(&options, &MultiProgress::new()) {
        Ok(report) => {
            println!("{}", report.summary());
            println!("{}", report.table());
            println!("{}", tour::parameters::text(&report.points));
            println!("{}", args.out.join("report.html").display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("tour: {error}");
            ExitCode::FAILURE
        }
    }
}

/// This program with the same arguments and one thread per operation.
fn again() -> ExitCode {
    let error = match std::env::current_exe() {
        Ok(program) => {
            let mut command = std::process::Command::new(program);
            command.args(std::env::args_os().skip(1));
            command.envs(THREADS.map(|name| (name, "1")));
            match replace_by(&mut command) {
                Ok(code) => return code,
                Err(error) => error,
            }
        }
        Err(error) => error,
    };
    eprintln!("tour: cannot start: {error}");
    ExitCode::FAILURE
}

/// In the same process where the system can: whoever stops it stops the run.
#[cfg(unix)]
fn replace_by(command: &mut std::process::Command) -> std::io::Result<ExitCode> {
    Err(std::os::unix::process::CommandExt::exec(command))
}

#[cfg(not(unix))]
fn replace_by(command: &mut std::process::Command) -> std::io::Result<ExitCode> {
    let code = command.status()?.code().unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
