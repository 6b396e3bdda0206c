//! Time to decide whether the pool of Self-Instruct keeps an instruction: the index of the library, a scan over
//! all kept instructions with the same fast subsequence, and a scan with a table, as rouge-score computes it.
//!
//! ```text
//! cargo bench --bench instructions                   # 50,000 kept instructions
//! cargo bench --bench instructions -- --kept 5000
//! ```
//! Words are drawn as in a language: the n-th word with a frequency of about 1/n, 4 to 24 in an instruction. Every
//! third instruction is a copy of an earlier one with some words changed, so that there is something to leave out.

use candle_align::Result;
use candle_align::data::self_instruct::pool::{InstructionPool, Offer, PoolConfig};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many instructions are offered to the full pool.
const OFFERED: usize = 200;
const VOCABULARY: f64 = 20_000.0;

fn instruction(rng: &mut StdRng, earlier: &[Vec<u32>]) -> Vec<u32> {
    // log-uniform: the frequency of the n-th word falls like 1/n
    let word = |rng: &mut StdRng| VOCABULARY.powf(rng.random::<f64>()) as u32;
    if !earlier.is_empty() && rng.random_ratio(1, 3) {
        let mut copy = earlier[rng.random_range(0..earlier.len())].clone();
        for _ in 0..rng.random_range(0..=copy.len() / 2) {
            let at = rng.random_range(0..copy.len());
            copy[at] = word(rng);
        }
        return copy;
    }
    (0..rng.random_range(4..=24)).map(|_| word(rng)).collect()
}

fn text(words: &[u32]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("w{word}")).collect();
    words.join(" ")
}

/// The longest common subsequence as rouge-score computes it: a table of both lengths.
fn table(a: &[u32], b: &[u32]) -> usize {
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, x) in a.iter().enumerate() {
        for (j, y) in b.iter().enumerate() {
            table[i + 1][j + 1] = match x == y {
                true => table[i][j] + 1,
                false => table[i][j + 1].max(table[i + 1][j]),
            };
        }
    }
    table[a.len()][b.len()]
}

fn similar_by_table(words: &[u32], kept: &[Vec<u32>], threshold: f64) -> bool {
    // all of them, as the most similar ones are wanted
    let scores = kept.iter().map(|other| {
        let common = table(words, other) as f64;
        let (p, r) = (common / other.len() as f64, common / words.len() as f64);
        if common > 0.0 {
            2.0 * p * r / (p + r)
        } else {
            0.0
        }
    });
    scores.fold(0.0, f64::max) > threshold
}

fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *total += start.elapsed();
    result
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let kept = arguments.iter().position(|argument| argument == "--kept");
    let kept = kept.and_then(|at| arguments.get(at + 1)?.parse().ok());
    let size: usize = kept.unwrap_or(50_000);

    let config = PoolConfig::default();
    let mut pool = InstructionPool::new(&config)?;
    let mut rng = StdRng::seed_from_u64(0);
    let (mut kept, mut offered, mut filling) = (Vec::new(), 0, Duration::ZERO);
    while kept.len() < size {
        let words = instruction(&mut rng, &kept);
        let text = text(&words);
        offered += 1;
        if let Offer::Kept(_) = timed(&mut filling, || pool.offer(&text)) {
            kept.push(words);
        }
    }
    println!("{size} kept of {offered} offered in {filling:.2?}: the whole run with the index");

    let (mut index, mut scan, mut slow) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut refused = 0;
    for _ in 0..OFFERED {
        let words = instruction(&mut rng, &kept);
        let text = text(&words);
        let nearest = timed(&mut scan, || pool.nearest(&text));
        let by_scan = nearest.is_some_and(|nearest| nearest.score > config.threshold);
        let by_table = timed(&mut slow, || {
            similar_by_table(&words, &kept, config.threshold)
        });
        let offer = timed(&mut index, || pool.offer(&text));
        match offer {
            Offer::Kept(_) => kept.push(words),
            Offer::Similar(similar) => assert_eq!(Some(similar), nearest),
        }
        let by_index = matches!(offer, Offer::Similar(_));
        assert!(by_index == by_scan && by_scan == by_table, "{text}");
        refused += usize::from(by_index);
    }
    println!(
        "{OFFERED} more offered, {refused} of them refused, the same ones by all three; mean of one:"
    );
    for (name, time) in [
        ("index", index),
        ("scan", scan),
        ("scan with a table", slow),
    ] {
        let ratio = time.as_secs_f64() / index.as_secs_f64();
        println!("{name:<20} {:>12.1?} {ratio:>9.1}", time / OFFERED as u32);
    }
    Ok(())
}
