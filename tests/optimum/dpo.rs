use crate::common::policy::{
    BETA, REFERENCE, REWARDS, descend, distance, log, ordered_pairs, tilted,
};
use crate::common::{numbers, sigma, vector};
use candle_align::{DpoConfig, Pair, Result, dpo_loss};
use candle_core::{Device, Tensor};

/// What gradient descent reaches where the objective is smooth and strictly convex.
const REACHED: f64 = 1e-9;

fn at(log_policy: &Tensor, pairs: &[(usize, usize)]) -> Result<Pair<Tensor>> {
    let pick = |of: fn(&(usize, usize)) -> usize| -> Result<Tensor> {
        let index: Vec<u32> = pairs.iter().map(|p| of(p) as u32).collect();
        Ok(log_policy.index_select(&Tensor::new(index.as_slice(), &Device::Cpu)?, 0)?)
    };
    Ok(Pair {
        chosen: pick(|p| p.0)?,
        rejected: pick(|p| p.1)?,
    })
}

/// Σ over ordered pairs of weight · P(first preferred) · loss.
fn population(
    log_policy: &Tensor,
    pairs: &[(usize, usize)],
    weights: &[f64],
    config: &DpoConfig,
) -> Result<Tensor> {
    let policy = at(log_policy, pairs)?;
    let reference = at(&vector(&log(&REFERENCE)), pairs)?;
    let loss = dpo_loss(&policy, Some(&reference), config)?.loss;
    let labels: Vec<f64> = pairs
        .iter()
        .zip(weights)
        .map(|((i, j), w)| w * sigma(REWARDS[*i] - REWARDS[*j]))
        .collect();
    // each unordered pair stands twice among the ordered ones, once with each label
    Ok((loss * vector(&labels))?.sum_all()?)
}

fn config(beta: f64) -> DpoConfig {
    DpoConfig {
        beta,
        ..Default::default()
    }
}

fn uniform(pairs: &[(usize, usize)]) -> Vec<f64> {
    vec![2.0 / pairs.len() as f64; pairs.len()]
}

#[test]
fn bradley_terry_labels_lead_to_the_tilted_reference() {
    let pairs = ordered_pairs(4);
    let weights = uniform(&pairs);
    let pi = descend(&log(&REFERENCE), 20.0, 50, |l| {
        population(l, &pairs, &weights, &config(BETA))
    });
    let want = tilted(&REFERENCE, &REWARDS, BETA);
    assert!(distance(&pi, &want) < REACHED, "{pi:?}");
    // the best answer is the reference's rarest: a wrong β, sign or reference is far from here
    let numbers = [0.0464026992, 0.2571541106, 0.0630678070, 0.6333753832];
    assert!(distance(&want, &numbers) < 1e-10, "{want:?}");
    for (beta, reference) in [(1.0, REFERENCE), (BETA, [0.25; 4])] {
        assert!(distance(&want, &tilted(&reference, &REWARDS, beta)) > 0.1);
    }
}

#[test]
fn which_pairs_are_compared_how_often_does_not_matter() {
    let pairs = ordered_pairs(4);
    let weights: Vec<f64> = pairs
        .iter()
        .map(|(i, j)| REFERENCE[*i] * REFERENCE[*j])
        .collect();
    let total: f64 = weights.iter().sum();
    let weights: Vec<f64> = weights.iter().map(|w| 2.0 * w / total).collect();
    let pi = descend(&log(&REFERENCE), 20.0, 200, |l| {
        population(l, &pairs, &weights, &config(BETA))
    });
    assert!(
        distance(&pi, &tilted(&REFERENCE, &REWARDS, BETA)) < REACHED,
        "{pi:?}"
    );
}

#[test]
fn the_least_loss_is_the_entropy_of_the_labels() {
    let pairs = ordered_pairs(4);
    let pi = tilted(&REFERENCE, &REWARDS, BETA);
    let least = population(&vector(&log(&pi)), &pairs, &uniform(&pairs), &config(BETA)).unwrap();
    let entropy: f64 = pairs
        .iter()
        .map(|(i, j)| {
            let p = sigma(REWARDS[*i] - REWARDS[*j]);
            -(p * p.ln()) * 2.0 / 12.0
        })
        .sum();
    assert!((numbers(&least)[0] - entropy).abs() < REACHED);
    assert!((entropy - 0.5550810456).abs() < 1e-10);
}

#[test]
fn an_answer_in_no_pair_loses_mass_although_it_is_the_best() {
    // answers 0, 1, 2 are compared, 3 is not: θ₃ stays, θ₀ + θ₁ + θ₂ stays
    let pairs = ordered_pairs(3);
    let pi = descend(&log(&REFERENCE), 20.0, 400, |l| {
        population(l, &pairs, &uniform(&pairs), &config(BETA))
    });
    let mean = (REWARDS[0] + REWARDS[1] + REWARDS[2]) / 3.0;
    let tilt: Vec<f64> = (0..4)
        .map(|i| match i {
            3 => REFERENCE[3],
            i => REFERENCE[i] * ((REWARDS[i] - mean) / BETA).exp(),
        })
        .collect();
    let want = crate::common::policy::normalised(&tilt);
    assert!(distance(&pi, &want) < REACHED, "{pi:?}");
    assert!(pi[3] < 0.08);
}

#[test]
fn smoothing_stops_the_margin_of_a_lone_pair_whatever_beta() {
    for beta in [0.1, 0.5] {
        let config = DpoConfig {
            beta,
            label_smoothing: 0.1,
        };
        let pi = descend(&log(&[0.3, 0.7]), 1.0 / (beta * beta), 500, |l| {
            let policy = at(l, &[(0, 1)])?;
            let reference = at(&vector(&log(&[0.3, 0.7])), &[(0, 1)])?;
            Ok(dpo_loss(&policy, Some(&reference), &config)?
                .loss
                .sum_all()?)
        });
        let margin = beta * ((pi[0] / 0.3).ln() - (pi[1] / 0.7).ln());
        assert!((margin - (0.9f64 / 0.1).ln()).abs() < REACHED, "{margin}");
    }
}

#[test]
fn labels_without_noise_have_no_optimum() {
    let (beta, alpha, steps) = (0.5, 4.0, 4000);
    let config = config(beta);
    let start = [0.5, 0.5];
    let loss = |l: &Tensor| {
        let policy = at(l, &[(0, 1)])?;
        let reference = at(&vector(&log(&start)), &[(0, 1)])?;
        Ok(dpo_loss(&policy, Some(&reference), &config)?
            .loss
            .sum_all()?)
    };
    let pi = descend(&log(&start), alpha, steps, loss);
    // the loss falls like 1 / (2 β² α N)
    let left = numbers(&loss(&vector(&log(&pi))).unwrap())[0];
    let rate = left * 2.0 * beta * beta * alpha * steps as f64;
    assert!((rate - 1.0).abs() < 0.01, "{rate}");
    // and the KL grows towards −log π_ref(best), like the loss falls
    let kl = pi[0] * (2.0 * pi[0]).ln() + pi[1] * (2.0 * pi[1]).ln();
    assert!((kl - 2f64.ln()).abs() < 0.01, "{kl}");
}

#[test]
fn length_means_in_place_of_sums_tilt_the_optimum_by_length() {
    let lengths = [1.0, 2.0, 3.0, 4.0];
    let pairs = ordered_pairs(4);
    let means = |l: &Tensor| -> Result<Tensor> { Ok((l / vector(&lengths))?) };
    let reference = log(&REFERENCE);
    let pi = descend(&reference, 20.0, 3000, |l| {
        let policy = at(&means(l)?, &pairs)?;
        let reference = at(&means(&vector(&reference))?, &pairs)?;
        let loss = dpo_loss(&policy, Some(&reference), &config(BETA))?.loss;
        let labels: Vec<f64> = pairs
            .iter()
            .map(|(i, j)| sigma(REWARDS[*i] - REWARDS[*j]) / 6.0)
            .collect();
        Ok((loss * vector(&labels))?.sum_all()?)
    });
    let want = [0.0129287133, 0.0171115680, 0.0001356436, 0.9698240751];
    assert!(distance(&pi, &want) < REACHED, "{pi:?}");
}
