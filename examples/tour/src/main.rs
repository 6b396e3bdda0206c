//! Every method of the survey's §3.1 and §3.2 against the best that is possible.
//!
//! ```text
//! cargo run --example tour
//! cargo run --example tour -- --only raft,dpo
//! cargo run --example tour -- --only lora,prefix
//! cargo run --example tour -- --since
//! ```
//! The world is small enough to enumerate: 16 prompts, 2801 answers to each, a known reward. A small
//! transformer learns demonstrations (SFT). Twenty methods start from it, by the survey's sections:
//! online, ranking, language, few parameters. For every trained policy the tour computes the exact
//! expected reward and the KL to the reference by summing over all answers, and compares them with the
//! frontier: the highest reward that any policy can have at that KL. Only the policies that answer at
//! the end of a chain of revisions are sampled, with standard errors.
//!
//! The second part trains DPO again through every method of §3.3 at several sizes, and compares the
//! results with the number of trained parameters. `--since` adds ten preference objectives and six policy gradients
//! since the survey, below the same frontier.
//!
//! What you should see: two tables, and two files in `target/tour/`: `report.html` has the pictures,
//! `report.json` the numbers. No policy is above the frontier. DPO comes nearer to it than SLiC, PRO
//! and RRHF. PPO stops at the optimum of the learned reward, which is the one that it was given. LoRA
//! at rank 8 comes as near to DPO's optimum as training all parameters does; prompts and prefixes
//! reach least. The tour takes five and a half minutes of processor time, just under three minutes on
//! two free cores; one method of §3.3 alone takes about fifteen seconds. `--since` adds two and a half minutes of
//! processor time. Nothing is downloaded.

use clap::Parser;
use indicatif::MultiProgress;
use std::path::PathBuf;
use std::process::ExitCode;
use tour::{Choice, Options, run};

// Candle allocates every result; with the system allocator that costs more than the arithmetic.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Every method against the best that is possible, in a world small enough to enumerate.
#[derive(Parser)]
#[command(name = "tour")]
struct Args {
    /// Run only these methods (SFT always runs); a method of the second picture runs at all its sizes.
    #[arg(long, value_delimiter = ',', value_name = "METHOD[,METHOD]")]
    only: Vec<Choice>,
    /// Sixteen methods since the survey too: IPO, KTO, SimPO, RLOO, GRPO and others.
    #[arg(long)]
    since: bool,
    /// Optimizer steps of every method.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: Option<u32>,
    /// The same seed gives the same numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The folder for report.html and report.json.
    #[arg(long, default_value = "target/tour", value_name = "DIR")]
    out: PathBuf,
    /// Shorter answers and fewer steps: a few seconds.
    #[arg(long)]
    quick: bool,
}

/// How many threads candle uses for one operation: a matrix product, and everything else.
const THREADS: [&str; 2] = ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"];

fn main() -> ExitCode {
    let args = Args::parse();
    // The tensors are small and the methods run in parallel: two threads for one operation would
    // only wait for each other, and candle's threads spin while they wait. Candle reads the number of
    // threads from the environment. A program can set that safely only for a child, so it restarts.
    if THREADS.iter().any(|name| std::env::var_os(name).is_none()) {
        return again();
    }
    let mut options = Options {
        since: args.since,
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
            println!("{}", report.since_table());
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

/// In the same process if the system can do that, so that stopping it stops the run.
#[cfg(unix)]
fn replace_by(command: &mut std::process::Command) -> std::io::Result<ExitCode> {
    Err(std::os::unix::process::CommandExt::exec(command))
}

#[cfg(not(unix))]
fn replace_by(command: &mut std::process::Command) -> std::io::Result<ExitCode> {
    let code = command.status()?.code().unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
