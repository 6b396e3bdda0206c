use crate::common::numbers;
use candle_align::ForgetfulConfig;
use candle_align::language::forgetful::{forgetful_mask, forgetful_pair_mask};
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;

fn of(min_ratio: f64, max_ratio: f64) -> ForgetfulConfig {
    ForgetfulConfig {
        min_ratio,
        max_ratio,
    }
}

fn tokens(size: (usize, usize), config: &ForgetfulConfig, seed: u64) -> Tensor {
    forgetful_mask(size, config, &mut StdRng::seed_from_u64(seed), &Device::Cpu).unwrap()
}

fn pairs(size: (usize, usize), config: &ForgetfulConfig, seed: u64) -> Tensor {
    forgetful_pair_mask(size, config, &mut StdRng::seed_from_u64(seed), &Device::Cpu).unwrap()
}

/// The share of zeros beside the first key, row by row.
fn hidden(mask: &Tensor) -> Vec<f64> {
    let (rows, time) = (mask.dim(0).unwrap(), mask.dim(1).unwrap());
    let data = numbers(mask);
    let keys: Vec<&[f64]> = data.chunks(time).collect();
    keys.chunks(keys.len() / rows)
        .map(|rows| {
            let zeros = |row: &&[f64]| row[1..].iter().filter(|v| **v == 0.0).count();
            let zeros: usize = rows.iter().map(zeros).sum();
            zeros as f64 / (rows.len() * (time - 1)) as f64
        })
        .collect()
}

#[test]
fn a_ratio_of_nothing_hides_nothing_and_one_of_everything_all_but_the_first() {
    for (ratio, rest) in [(0.0, 1.0), (1.0, 0.0)] {
        let row = [1.0, rest, rest];
        let mask = tokens((2, 3), &of(ratio, ratio), 0);
        assert_eq!((mask.dims(), mask.dtype()), (&[2, 3][..], DType::U8));
        assert_eq!(numbers(&mask), row.repeat(2));
        let mask = pairs((2, 3), &of(ratio, ratio), 0);
        assert_eq!((mask.dims(), mask.dtype()), (&[2, 3, 3][..], DType::U8));
        assert_eq!(numbers(&mask), row.repeat(6));
    }
}

#[test]
fn the_share_that_is_hidden_is_the_ratio() {
    // 0.3 of 20000 and of 39 · 40 · 20: six standard deviations
    let share = hidden(&tokens((1, 20_001), &of(0.3, 0.3), 1))[0];
    let deviation = (0.3 * 0.7 / 20_000f64).sqrt();
    assert!((share - 0.3).abs() < 6.0 * deviation, "{share}");
    let shares = hidden(&pairs((20, 40), &of(0.3, 0.3), 1));
    let share = shares.iter().sum::<f64>() / 20.0;
    let deviation = (0.3 * 0.7 / 31_200f64).sqrt();
    assert!((share - 0.3).abs() < 6.0 * deviation, "{share}");
}

#[test]
fn each_row_draws_a_ratio_of_its_own_between_the_two() {
    let config = of(0.2, 0.6);
    for shares in [
        hidden(&tokens((40, 4001), &config, 2)),
        hidden(&pairs((40, 61), &config, 2)),
    ] {
        // within six standard deviations of the range
        let slack = 6.0 * (0.25 / 3600f64).sqrt();
        let (low, high) = (0.2 - slack, 0.6 + slack);
        assert!(
            shares.iter().all(|s| (low..=high).contains(s)),
            "{shares:?}"
        );
        let mean = shares.iter().sum::<f64>() / 40.0;
        // of uniform draws: mean 0.4, deviation 0.4 / √12 each
        let deviation = 0.4 / 12f64.sqrt();
        assert!(
            (mean - 0.4).abs() < 4.0 * deviation / 40f64.sqrt(),
            "{mean}"
        );
        let variance = shares.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / 40.0;
        assert!((variance.sqrt() - deviation).abs() < 0.04, "{variance}");
    }
}

#[test]
fn by_default_at_most_a_twentieth() {
    let share = hidden(&tokens((50, 2001), &ForgetfulConfig::default(), 4));
    let mean = share.iter().sum::<f64>() / 50.0;
    assert!((mean - 0.025).abs() < 0.01, "{mean}");
    assert!(share.iter().all(|s| *s < 0.05 + 0.03), "{share:?}");
}

#[test]
fn positions_forget_tokens_of_their_own_in_the_pair_mask() {
    let mask = numbers(&pairs((1, 30), &of(0.5, 0.5), 5));
    let rows: Vec<&[f64]> = mask.chunks(30).collect();
    assert!(rows.windows(2).all(|two| two[0] != two[1]));
}

#[test]
fn one_seed_one_mask() {
    let config = of(0.5, 0.5);
    assert_eq!(
        numbers(&tokens((2, 30), &config, 6)),
        numbers(&tokens((2, 30), &config, 6))
    );
    assert_ne!(
        numbers(&tokens((2, 30), &config, 6)),
        numbers(&tokens((2, 30), &config, 7))
    );
}
