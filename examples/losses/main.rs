//! The losses of the survey's §3.2.1 side by side: each, and its gradient, over the gap of two answers.
//!
//! ```text
//! cargo run --example losses
//! ```
//! The policy knows two answers, a better one and a worse one; the gap z is by how many nats the
//! better one is the likelier. Every loss is evaluated by the library on a grid of gaps, and its
//! slope by the library's own backward pass.
//!
//! You should see a table and find the picture in `target/losses/losses.svg`. It shows what tells
//! the losses apart: logistic ones (DPO, PRO) push for ever, ever less; hinges (SLiC's rank, margin
//! and list, BRIO, RRHF) push evenly and stop at their lead, RRHF's being 0; expected reward and
//! expected risk push most at the tie, and give up on an order that is wrong by far. Of the
//! regularisers, which pull back to where the data or the start are, the KL lets go as the gap
//! grows, cross-entropy does not.

// how the library writes files
#[path = "../../src/atomic.rs"]
#[allow(dead_code)] // of which this uses a part
mod atomic;
#[path = "mod.rs"]
mod losses;

use clap::Parser;
use losses::run;
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Every ranking loss and its gradient over the gap of two answers.
#[derive(Parser)]
#[command(name = "losses")]
struct Args {
    /// Where losses.svg goes.
    #[arg(long, default_value = "target/losses", value_name = "DIR")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let out = Args::parse().out;
    let done = run().and_then(|report| Ok((report.table(), report.write(&out)?)));
    match done {
        Ok((table, file)) => {
            println!("{table}\n\n{}", file.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("losses: {error}");
            ExitCode::FAILURE
        }
    }
}
