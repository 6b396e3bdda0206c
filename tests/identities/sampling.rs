use crate::common::draws::{SYMBOLS, history};
use crate::common::{EXACT, assert_close, matrix, numbers};
use candle_align::{Sample, Samples, SamplingConfig, TokenLogProbs, sample};
use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng, rngs::StdRng};

const PROMPTS: [&[u32]; 4] = [&[0], &[3, 1, 4, 1], &[2, 2], &[4]];

fn config() -> SamplingConfig {
    SamplingConfig {
        answers: 3,
        temperature: 0.8,
        max_new_tokens: 12,
        ends: vec![4],
        ..Default::default()
    }
}

fn draw(prompts: &[&[u32]], config: &SamplingConfig, rng: &mut StdRng) -> Samples {
    sample(history, prompts, config, &Device::Cpu, rng).unwrap()
}

fn seeded(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

#[test]
fn the_log_probabilities_are_those_of_the_same_sequences() {
    let plain = SamplingConfig {
        temperature: 1.0,
        ..config()
    };
    for config in [config(), plain] {
        let out = draw(&PROMPTS, &config, &mut seeded(1));
        // answers that ended and answers of different lengths
        let lengths: Vec<usize> = out.rows.iter().map(|row| row.answer().len()).collect();
        assert!(lengths.iter().any(|l| l != &lengths[0]), "{lengths:?}");
        let batch = out.batch(0, &Device::Cpu).unwrap();
        let logits = history(&batch.tokens).unwrap();
        let again = TokenLogProbs::next_token(&logits, &batch.tokens, &batch.mask).unwrap();
        let old = out.log_probs(DType::F64, &Device::Cpu).unwrap();
        assert_close(
            &numbers(old.values()),
            &numbers(again.values()),
            EXACT,
            "log p",
        );
        assert_eq!(
            numbers(old.mask()),
            numbers(
                &batch
                    .mask
                    .narrow(1, 1, batch.mask.dim(1).unwrap() - 1)
                    .unwrap()
            )
        );

        // the proposal is the model at the logits divided by the temperature
        let cooled = (logits / config.temperature).unwrap();
        let cooled = TokenLogProbs::next_token(&cooled, &batch.tokens, &batch.mask).unwrap();
        let want = numbers(&cooled.sum().unwrap());
        let got: Vec<f64> = out
            .rows
            .iter()
            .map(|row| row.proposal_log_probs.iter().sum())
            .collect();
        assert_close(&got, &want, EXACT, "log q");
    }
}

#[test]
fn nothing_cut_and_temperature_one_is_the_model_itself() {
    let plain = SamplingConfig {
        temperature: 1.0,
        ..config()
    };
    for row in draw(&PROMPTS, &plain, &mut seeded(6)).rows {
        assert_close(
            &row.proposal_log_probs,
            &row.log_probs,
            EXACT,
            "log q = log p",
        );
    }
}

#[test]
fn prompts_of_different_lengths_together_are_as_good_as_alone() {
    let together = draw(&PROMPTS, &config(), &mut seeded(2));
    let mut rng = seeded(2);
    let mut alone = Vec::new();
    for prompt in PROMPTS {
        alone.extend(draw(&[prompt], &config(), &mut rng).rows);
    }
    assert_eq!(together.rows, alone);
    // nor how many prompts one call is given
    for size in [2, 3] {
        let mut rng = seeded(2);
        let parts = PROMPTS.chunks(size);
        let rows: Vec<Sample> = parts
            .flat_map(|part| draw(part, &config(), &mut rng).rows)
            .collect();
        assert_eq!(together.rows, rows, "{size} at a time");
    }

    // nor do the rows beside it matter: others in front of the last, as many
    let mut others = PROMPTS;
    (others[0], others[1], others[2]) = (&[1, 1, 1, 1, 1, 1], &[2], &[0, 4]);
    let beside = draw(&others, &config(), &mut seeded(2));
    assert_eq!(beside.rows[9..], together.rows[9..]);
    assert_ne!(beside.rows[..9], together.rows[..9]);
}

#[test]
fn a_seed_gives_its_tokens() {
    let once = draw(&PROMPTS, &config(), &mut seeded(3));
    assert_eq!(draw(&PROMPTS, &config(), &mut seeded(3)), once);
    assert_ne!(draw(&PROMPTS, &config(), &mut seeded(4)), once);
    // and a generator that goes on gives others
    let mut rng = seeded(3);
    assert_eq!(draw(&PROMPTS, &config(), &mut rng), once);
    assert_ne!(draw(&PROMPTS, &config(), &mut rng), once);
}

#[test]
fn a_shorter_limit_is_the_beginning_of_a_longer_one() {
    let short = SamplingConfig {
        max_new_tokens: 2,
        ..config()
    };
    let long = draw(&PROMPTS, &config(), &mut seeded(5));
    for (short, long) in draw(&PROMPTS, &short, &mut seeded(5))
        .rows
        .iter()
        .zip(&long.rows)
    {
        let length = long.answer().len().min(2);
        assert_eq!(short.answer(), &long.answer()[..length]);
        assert_eq!(short.ended, long.answer()[..length].contains(&4));
    }
}

/// Pearson's Σ (observed − expected)² / expected, over what can be drawn at all.
fn chi_square(counts: &[usize], law: &[f64]) -> f64 {
    let n: usize = counts.iter().sum();
    counts
        .iter()
        .zip(law)
        .filter(|(_, p)| **p > 0.0)
        .map(|(&count, p)| {
            let expected = p * n as f64;
            (count as f64 - expected).powi(2) / expected
        })
        .sum()
}

/// The law of answers of two tokens, token by token from the model itself.
fn two_token_law(prompt: u32, config: &SamplingConfig) -> Vec<f64> {
    let next = |tokens: &[u32]| {
        let read = Tensor::new(tokens, &Device::Cpu)
            .unwrap()
            .unsqueeze(0)
            .unwrap();
        let logits = history(&read).unwrap();
        let last = logits
            .narrow(1, tokens.len() - 1, 1)
            .unwrap()
            .squeeze(1)
            .unwrap();
        numbers(&config.probabilities(&last).unwrap())
    };
    let first = next(&[prompt]);
    let pairs = first.iter().enumerate().flat_map(|(a, p)| {
        let second = next(&[prompt, a as u32]);
        second.into_iter().map(move |q| p * q)
    });
    pairs.collect()
}

/// Fewer than 1 in 10⁶ of a χ² of 24 degrees of freedom are above this.
const CHI_SQUARE: f64 = 76.0;

#[test]
fn answers_come_as_often_as_the_model_says() {
    let n = 4000;
    let settings = [
        SamplingConfig::default(),
        SamplingConfig {
            temperature: 0.6,
            ..Default::default()
        },
        SamplingConfig {
            temperature: 1.7,
            top_k: Some(4),
            ..Default::default()
        },
        SamplingConfig {
            temperature: 1.3,
            top_k: Some(4),
            top_p: 0.85,
            ..Default::default()
        },
    ]
    .map(|config| SamplingConfig {
        answers: n,
        max_new_tokens: 2,
        ..config
    });
    let counts = |config: &SamplingConfig| {
        let mut counts = vec![0; SYMBOLS * SYMBOLS];
        for row in draw(&[&[1]], config, &mut seeded(8)).rows {
            let [a, b] = row.answer() else {
                panic!("two tokens: {:?}", row.answer())
            };
            counts[*a as usize * SYMBOLS + *b as usize] += 1;
        }
        counts
    };
    for (at, config) in settings.iter().enumerate() {
        let counts = counts(config);
        let law = two_token_law(1, config);
        let cut: usize = counts
            .iter()
            .zip(&law)
            .filter(|(_, p)| **p == 0.0)
            .map(|(n, _)| n)
            .sum();
        assert_eq!(cut, 0, "what is cut off is never drawn");
        let fit = chi_square(&counts, &law);
        assert!(fit < CHI_SQUARE, "{config:?}: {fit}");
        // the test can tell: no other setting's law fits these counts
        for (other, wrong) in settings
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != at)
        {
            let wrong = two_token_law(1, wrong);
            let outside: usize = counts
                .iter()
                .zip(&wrong)
                .filter(|(_, p)| **p == 0.0)
                .map(|(n, _)| n)
                .sum();
            let fit = chi_square(&counts, &wrong);
            assert!(
                outside > 0 || fit > CHI_SQUARE,
                "{at} against {other}: {fit}"
            );
        }
    }
}

#[test]
fn a_temperature_is_a_scale_of_the_logits_and_a_shift_is_nothing() {
    let mut rng = seeded(9);
    let logits: Vec<f64> = (0..6 * 9).map(|_| rng.random_range(-4.0..4.0)).collect();
    let logits = Tensor::from_vec(logits, (6, 9), &Device::Cpu).unwrap();
    let cut = SamplingConfig {
        top_k: Some(6),
        top_p: 0.9,
        ..Default::default()
    };
    let warm = SamplingConfig {
        temperature: 1.6,
        ..cut.clone()
    };
    let at =
        |config: &SamplingConfig, logits: &Tensor| numbers(&config.probabilities(logits).unwrap());
    let want = at(&warm, &logits);
    assert_close(&at(&cut, &(&logits / 1.6).unwrap()), &want, EXACT, "scale");
    assert_close(
        &at(&warm, &(&logits - 700.0).unwrap()),
        &want,
        EXACT,
        "shift",
    );
    for row in want.chunks(9) {
        assert_close(&[row.iter().sum()], &[1.0], EXACT, "Σ q");
    }
    assert_ne!(at(&cut, &logits), want);
}

#[test]
fn low_temperatures_are_greedy_and_so_is_one_candidate() {
    let logits = matrix(&[&[0.3, 1.2, 1.1, -4.0], &[2.0, 0.0, 1.9, 1.0]]);
    let greedy = SamplingConfig {
        top_k: Some(1),
        ..Default::default()
    };
    let cold = SamplingConfig {
        temperature: 0.002,
        ..Default::default()
    };
    let want = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0];
    assert_eq!(numbers(&greedy.probabilities(&logits).unwrap()), want);
    let cold = numbers(&cold.probabilities(&logits).unwrap());
    assert_close(&cold, &want, EXACT, "cold");

    let answers = |seed| -> Vec<Vec<u32>> {
        let one = SamplingConfig {
            top_k: Some(1),
            ..config()
        };
        let out = draw(&PROMPTS, &one, &mut seeded(seed));
        out.rows
            .iter()
            .map(|row: &Sample| row.answer().to_vec())
            .collect()
    };
    assert_eq!(answers(1), answers(2), "no chance is left");
}

#[test]
fn a_model_in_single_precision_gives_the_same_draws() {
    let single = |tokens: &Tensor| Ok(history(tokens)?.to_dtype(DType::F32)?);
    let out = sample(single, &PROMPTS, &config(), &Device::Cpu, &mut seeded(2)).unwrap();
    let double = draw(&PROMPTS, &config(), &mut seeded(2));
    for (single, double) in out.rows.iter().zip(&double.rows) {
        assert_eq!(single.sequence, double.sequence);
        assert_close(&single.log_probs, &double.log_probs, 1e-6, "log p");
    }
}
