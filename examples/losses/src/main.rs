//! The losses of the survey's §3.2.1, and those since, side by side: value and gradient over the gap between
//! two answers.
//!
//! ```text
//! cargo run --example losses
//! ```
//! The policy has two answers, a better one and a worse one. The gap z says by how many nats the better
//! one is likelier. The library evaluates every loss on a grid of gaps, and its own backward pass gives
//! the slope.
//!
//! What you should see: a table, and two pictures in `target/losses/`. `losses.svg` shows how the survey's
//! losses differ. Logistic losses (DPO, PRO) never stop pushing, but push less and less. Hinges (SLiC's rank,
//! margin and list, BRIO, RRHF) push evenly and stop at their margin, which is 0 for RRHF. Expected
//! reward and expected risk push most at a tie and hardly at all on an order that is far wrong. The
//! regularizers pull back toward the start or the data: the KL lets go as the gap grows, cross-entropy
//! does not.
//!
//! `since.svg` shows the losses since, for a reference that gives both answers ½. IPO and SPPO aim at a gap and
//! pull back beyond it; EXO stops at one but gives up where the order is far wrong, as APO and SimPER do. Robust
//! DPO falls without a bound. DiscoPOP pushes the wrong way around a tie.
//!
//! Change `beta: 0.5` in `curves.rs` to `beta: 2.0` and see: DPO's slope at a tie grows from −0.25 to
//! −1, and it fades sooner.

use clap::Parser;
use losses::{policy_gradient, run};
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Every ranking loss and its gradient over the gap between two answers.
#[derive(Parser)]
#[command(name = "losses")]
struct Args {
    /// The folder for losses.svg and since.svg.
    #[arg(long, default_value = "target/losses", value_name = "DIR")]
    out: PathBuf,
    /// The folder for ratios.svg and utilities.svg, the policy losses since the survey.
    #[arg(long, default_value = "target/losses", value_name = "DIR")]
    policy_gradient: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = run().and_then(|report| {
        let file = report.write(&args.out)?;
        policy_gradient::write(&args.policy_gradient)?;
        Ok((report.table(), file))
    });
    match done {
        Ok((table, files)) => {
            println!("{table}\n");
            files.iter().for_each(|file| println!("{}", file.display()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("losses: {error}");
            ExitCode::FAILURE
        }
    }
}
