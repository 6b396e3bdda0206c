//! The index of the pool changes nothing but the time.

use candle_align::data::self_instruct::pool::{InstructionPool, Nearest, Offer, PoolConfig};
use proptest::prelude::*;

/// Instructions of few words, so that many are alike.
fn instructions() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let words = prop_oneof![Just(3u8), Just(8), Just(30)];
    words.prop_flat_map(|words| {
        let one = prop::collection::vec(0..words, 0..16);
        prop::collection::vec(one, 1..60)
    })
}

fn text(words: &[u8]) -> String {
    let words: Vec<String> = words.iter().map(|w| format!("w{w}")).collect();
    words.join(" ")
}

/// The longest common subsequence by its definition, a table over both.
fn common(a: &[u8], b: &[u8]) -> usize {
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

fn score(a: &[u8], b: &[u8]) -> f64 {
    match common(a, b) {
        0 => 0.0,
        n => {
            let (p, r) = (n as f64 / b.len() as f64, n as f64 / a.len() as f64);
            2.0 * p * r / (p + r)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_pool_keeps_what_the_plain_scan_keeps(
        offered in instructions(),
        // thresholds that scores reach exactly, and others
        threshold in prop_oneof![Just(0.7), Just(0.5), Just(0.0), Just(1.0), Just(2.0 / 3.0), 0.0..1.0],
    ) {
        let mut pool = InstructionPool::new(&PoolConfig { threshold }).unwrap();
        let mut kept: Vec<Vec<u8>> = Vec::new();
        for words in &offered {
            let mut nearest: Option<Nearest> = None;
            for (index, other) in kept.iter().enumerate() {
                let score = score(words, other);
                if nearest.is_none_or(|n| score > n.score) {
                    nearest = Some(Nearest { index, score });
                }
            }
            prop_assert_eq!(pool.nearest(&text(words)), nearest);
            let want = match nearest {
                Some(nearest) if nearest.score > threshold => Offer::Similar(nearest),
                _ => {
                    kept.push(words.clone());
                    Offer::Kept(kept.len() - 1)
                }
            };
            prop_assert_eq!(pool.offer(&text(words)), want);
        }
        let texts: Vec<String> = kept.iter().map(|words| text(words)).collect();
        prop_assert_eq!(pool.texts(), texts);
    }
}

#[test]
fn long_instructions_are_compared_too() {
    let mut pool = InstructionPool::new(&PoolConfig::default()).unwrap();
    let long: Vec<u8> = (0..150).collect();
    pool.insert(&text(&long));
    // 150 and 81 words in common order: 2 · 81/231 > 0.7; with 80: 160/230 < 0.7
    assert!(matches!(pool.offer(&text(&long[..81])), Offer::Similar(_)));
    assert_eq!(pool.offer(&text(&long[..80])), Offer::Kept(1));
}
