//! Shared by the benches with their own harness: each variant in its own process, medians of one run,
//! memory as the peak resident set above the resident set before the first repetition (Linux).

pub mod adamw;

use candle_align::Result;
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Instant;
use support::transformer::{Config, Transformer};

/// Repetitions of a variant after one warm-up, unless `--repeats` says another number.
const REPEATS: usize = 7;
/// Where a child process finds that number.
const REPEATS_NAME: &str = "BENCH_REPEATS";
pub const THREADS: usize = 2;

/// Seconds of each phase in every repetition, then the extra memory.
#[derive(Default)]
pub struct Measured {
    pub forward: Vec<f64>,
    pub total: Vec<f64>,
    pub extra_mib: f64,
}

pub fn numbers(shape: &[usize], scale: f32) -> Tensor {
    let n: usize = shape.iter().product();
    let data: Vec<f32> = (0..n)
        .into_par_iter()
        .map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5)
        .map(|x| x * scale)
        .collect();
    Tensor::from_vec(data, shape, &Device::Cpu).expect("its own shape")
}

pub fn targets(rows: usize, vocabulary: usize) -> Tensor {
    let targets: Vec<u32> = (0..rows).map(|i| (i * 7919 % vocabulary) as u32).collect();
    Tensor::from_vec(targets, (1, rows), &Device::Cpu).expect("its own shape")
}

/// A line of /proc/self/status in MiB; 0 if there is no such file.
pub fn status(key: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(key));
    let kib = line
        .and_then(|l| l.split_whitespace().nth(1))
        .and_then(|n| n.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// Repeats forward and the rest; `forward` returns what the rest starts from.
pub fn measure<T>(
    mut forward: impl FnMut() -> Result<T>,
    mut rest: impl FnMut(T) -> Result<()>,
) -> Result<Measured> {
    let before = status("VmRSS");
    // resets the peak; if that fails, the peak includes making the inputs
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let mut out = Measured::default();
    let repeats = std::env::var(REPEATS_NAME)
        .ok()
        .and_then(|n| n.parse().ok());
    for i in 0..=repeats.unwrap_or(REPEATS) {
        let start = Instant::now();
        let between = forward()?;
        let half = start.elapsed().as_secs_f64();
        rest(between)?;
        if i > 0 {
            out.forward.push(half);
            out.total.push(start.elapsed().as_secs_f64());
        } else {
            out.extra_mib = status("VmHWM") - before;
        }
    }
    Ok(out)
}

/// The sizes of a decoder of 80 million parameters.
pub fn decoder() -> Result<Transformer> {
    let config = Config {
        vocabulary: 49152,
        dim: 576,
        heads: 9,
        layers: 6,
        max_len: 256,
        feed_forward: 2304,
    };
    Transformer::new(&config, DType::F32, &mut StdRng::seed_from_u64(0))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Forward, total and extra memory, as a child process printed them.
pub type Numbers = (f64, f64, f64);

fn run(command: &mut Command) -> std::result::Result<Numbers, String> {
    let output = command.output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found: Vec<f64> = text
        .lines()
        .last()
        .unwrap_or("")
        .split_whitespace()
        .filter_map(|w| w.parse().ok())
        .collect();
    match found[..] {
        [forward, total, extra] => Ok((forward, total, extra)),
        _ => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
    }
}

/// A group of variants: its name, those of this program, those of `compare_torch.py`.
pub type Group = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

/// Runs the variants that the command line asks for, round by round, prints a table, and returns
/// the median of the rounds by `group variant`. In a child process it runs one variant and ends.
///
/// `--only GROUP`, `--rounds N` (1), `--repeats N` (7), `--python PYTHON`.
pub fn compare(
    groups: &[Group],
    variant: fn(&str, &str) -> Result<Measured>,
) -> BTreeMap<String, Numbers> {
    let mut arguments = std::env::args().skip(1);
    let (mut python, mut only, mut rounds, mut repeats) = (None, None, 1, REPEATS);
    let number = |name: &str, text: Option<String>| {
        let number = text.and_then(|n| n.parse().ok()).filter(|n| *n > 0);
        number.unwrap_or_else(|| {
            eprintln!("{name} takes a number from 1 on");
            std::process::exit(2);
        })
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--child" => {
                let (group, name) = (arguments.next(), arguments.next());
                match variant(&group.unwrap_or_default(), &name.unwrap_or_default()) {
                    Ok(measured) => println!(
                        "{} {} {}",
                        median(&measured.forward),
                        median(&measured.total),
                        measured.extra_mib
                    ),
                    Err(error) => {
                        eprintln!("{error}");
                        std::process::exit(1);
                    }
                }
                std::process::exit(0);
            }
            "--python" => python = arguments.next(),
            "--only" => only = arguments.next(),
            "--rounds" => rounds = number("--rounds", arguments.next()),
            "--repeats" => repeats = number("--repeats", arguments.next()),
            _ => {} // cargo's own
        }
    }
    let names: Vec<&str> = groups.iter().map(|group| group.0).collect();
    if let Some(only) = only.as_ref().filter(|only| !names.contains(&only.as_str())) {
        eprintln!("--only {only}: the groups are {}", names.join(", "));
        std::process::exit(2);
    }
    let program = std::env::current_exe().expect("this program");
    let mut found: BTreeMap<String, Vec<Numbers>> = BTreeMap::new();
    let chosen = || {
        let chosen = |group: &&Group| only.as_ref().is_none_or(|only| only == group.0);
        groups.iter().filter(chosen)
    };
    for _ in 0..rounds {
        for (group, names, torch) in chosen() {
            let mut keep = |name: String, result: std::result::Result<Numbers, String>| match result
            {
                Ok(numbers) => {
                    eprintln!("{name}: {:.3} s", numbers.1);
                    found.entry(name).or_default().push(numbers);
                }
                Err(error) => eprintln!("{name} failed: {error}"),
            };
            for name in *names {
                let mut command = Command::new(&program);
                command
                    .args(["--child", group, name])
                    .env(REPEATS_NAME, repeats.to_string())
                    .env("RAYON_NUM_THREADS", THREADS.to_string())
                    .env("CANDLE_NUM_THREADS", THREADS.to_string());
                keep(format!("{group} {name}"), run(&mut command));
            }
            for name in python.iter().flat_map(|_| *torch) {
                let of = |tunables: &str| {
                    let mut command = Command::new(python.as_deref().unwrap_or_default());
                    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/compare_torch.py");
                    command.args([script, group, name]);
                    command.env(REPEATS_NAME, repeats.to_string());
                    run(command.env("GLIBC_TUNABLES", tunables))
                };
                let (plain, huge) = (of("glibc.malloc.hugetlb=0"), of("glibc.malloc.hugetlb=1"));
                let better = match (plain, huge) {
                    (Ok(a), Ok(b)) if b.1 < a.1 => Ok(b),
                    (Err(_), other) => other,
                    (first, _) => first,
                };
                keep(format!("{group} torch {name}"), better);
            }
        }
    }
    println!("| variant | forward s | total s | extra MiB |\n|---|---|---|---|");
    let mut results = BTreeMap::new();
    for (group, names, torch) in chosen() {
        let torch = torch.iter().map(|name| format!("torch {name}"));
        for name in names.iter().map(|name| name.to_string()).chain(torch) {
            let name = format!("{group} {name}");
            let Some(rounds) = found.get(&name) else {
                continue;
            };
            let column =
                |of: fn(&Numbers) -> f64| median(&rounds.iter().map(of).collect::<Vec<f64>>());
            let (forward, total, extra) = (column(|n| n.0), column(|n| n.1), column(|n| n.2));
            println!("| {name} | {forward:.3} | {total:.3} | {extra:.0} |");
            results.insert(name, (forward, total, extra));
        }
    }
    results
}
