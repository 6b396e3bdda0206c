use crate::common::policy::{REFERENCE, REWARDS, descend, distance, log, normalized};
use crate::common::{EXACT, assert_close, matrix, numbers, vector};
use candle_align::{Candidates, ProConfig, ProTemperature, Result, pro_loss};
use candle_core::Tensor;

/// Distance to an optimum that plain gradient descent reaches to rounding.
const REACHED: f64 = 1e-9;

/// Every ranking of k answers, best first.
fn rankings(k: usize) -> Vec<Vec<usize>> {
    if k == 0 {
        return vec![vec![]];
    }
    rankings(k - 1)
        .iter()
        .flat_map(|shorter| {
            (0..k).map(move |at| {
                let mut longer = shorter.clone();
                longer.insert(at, k - 1);
                longer
            })
        })
        .collect()
}

/// Its probability in the Plackett–Luce model of rewards r.
fn probability(ranking: &[usize], r: &[f64]) -> f64 {
    (0..ranking.len())
        .map(|k| {
            let left: f64 = ranking[k..].iter().map(|&i| r[i].exp()).sum();
            r[ranking[k]].exp() / left
        })
        .product()
}

/// The population loss at T = 1: every ranking, weighted by its probability.
fn population(lengths: &[f64], r: &[f64]) -> impl Fn(&Tensor) -> Result<Tensor> {
    let k = lengths.len();
    let all = rankings(k);
    let weights: Vec<f64> = all.iter().map(|ranking| probability(ranking, r)).collect();
    assert_close(&[weights.iter().sum()], &[1.0], EXACT, "Σ P(ranking)");
    let rewards: Vec<Vec<f64>> = all
        .iter()
        .map(|ranking| {
            let mut rewards = vec![0.0; k];
            (0..k).for_each(|place| rewards[ranking[place]] = -(place as f64));
            rewards
        })
        .collect();
    let rows = |x: &[f64]| matrix(&vec![x; all.len()]);
    let rewards = matrix(&rewards.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let (lengths, weights, n) = (rows(lengths), vector(&weights), all.len());
    move |ell| {
        let sums = ell.unsqueeze(0)?.broadcast_as((n, k))?;
        let config = ProConfig {
            temperature: ProTemperature::One,
            sft_weight: 0.0,
        };
        let losses = pro_loss(&Candidates::new(&sums, &lengths, &rewards, None)?, &config)?.loss;
        Ok((losses * &weights)?.sum_all()?)
    }
}

/// π(y) = e^{|y|(r + c)}, with the c for which it sums to 1.
fn optimum(lengths: &[f64], r: &[f64]) -> Vec<f64> {
    let at = |c: f64| -> Vec<f64> {
        lengths
            .iter()
            .zip(r)
            .map(|(n, r)| (n * (r + c)).exp())
            .collect()
    };
    let (mut low, mut high) = (-50.0, 50.0);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        match at(middle).iter().sum::<f64>() > 1.0 {
            true => high = middle,
            false => low = middle,
        }
    }
    at(low)
}

#[test]
fn at_temperature_one_lengths_sharpen_the_optimum() {
    let start = log(&REFERENCE);
    for (lengths, alpha, steps, known) in [
        (
            [3.0; 4],
            15.0,
            200,
            [0.0023310240, 0.0468198678, 0.0104469246, 0.9404021836],
        ),
        (
            [1.0, 2.0, 3.0, 4.0],
            2.32,
            1000,
            [0.1258655042, 0.1170583515, 0.0089363852, 0.7481397590],
        ),
        (
            [4.0, 3.0, 2.0, 1.0],
            8.0,
            400,
            [0.0002393399, 0.0386495767, 0.0420534870, 0.9190575965],
        ),
    ] {
        let got = descend(&start, alpha, steps, population(&lengths, &REWARDS));
        let want = optimum(&lengths, &REWARDS);
        assert!(distance(&got, &want) < REACHED, "{got:?} against {want:?}");
        assert!(distance(&want, &known) < 1e-9, "{want:?}");
    }
    // equal lengths n: π ∝ e^{nr}, reinforcement learning with β = 1/n and a uniform reference
    let tilted = normalized(&REWARDS.map(|r| (3.0 * r).exp()));
    assert_close(&optimum(&[3.0; 4], &REWARDS), &tilted, EXACT, "π ∝ e^{3r}");
}

#[test]
fn at_temperature_one_the_optimum_of_two_answers() {
    let got = descend(&[0.0, 0.0], 5.0, 2000, population(&[2.0, 5.0], &[1.0, 0.0]));
    // e^{2(1 + c)} + e^{5c} = 1
    let want = optimum(&[2.0, 5.0], &[1.0, 0.0]);
    assert!(distance(&got, &want) < REACHED, "{got:?} against {want:?}");
}

/// The loss of the known ranking by the rewards, one token to an answer.
fn known(sft_weight: f64) -> impl Fn(&Tensor) -> Result<Tensor> {
    move |ell| {
        let config = ProConfig {
            sft_weight,
            ..Default::default()
        };
        let ones = matrix(&[&[1.0; 4]]);
        let c = Candidates::new(&ell.unsqueeze(0)?, &ones, &matrix(&[&REWARDS]), None)?;
        Ok(pro_loss(&c, &config)?.loss.sum_all()?)
    }
}

#[test]
fn with_temperatures_the_loss_falls_like_one_over_the_steps() {
    let loss = |p: &[f64], weight: f64| numbers(&known(weight)(&vector(&log(p))).unwrap())[0];
    for sft_weight in [0.0, 0.05] {
        let at = |steps| descend(&log(&REFERENCE), 0.5, steps, known(sft_weight));
        let (half, whole) = (at(500), at(1000));
        let ratio = loss(&half, sft_weight) / loss(&whole, sft_weight);
        assert!((ratio - 2.0).abs() < 0.05, "{ratio}");
        if sft_weight == 0.0 {
            // the constant of 1/N, by another solver
            let left = loss(&whole, 0.0);
            assert!((left - 0.0449881).abs() < 1e-7, "{left}");
        }
        // all mass on its way to the best, the others in the order of their rewards
        assert!(whole[3] > 0.95, "{whole:?}");
        assert!(whole[3] > half[3], "{whole:?} after {half:?}");
        assert!(whole[1] > whole[2] && whole[2] > whole[0], "{whole:?}");
    }
}

#[test]
fn where_training_with_temperatures_starts() {
    // r − r_worst is 2, 1, 0.5, 0 for answers 3, 1, 2, 0
    let [a, b, c, d] = [0.1f64, 0.3, 0.2, 0.4].map(f64::ln);
    let lse = |x: &[f64]| x.iter().map(|x| x.exp()).sum::<f64>().ln();
    let want = lse(&[2.0 * a, 1.0 * b, 1.5 * c, 2.0 * d]) - 2.0 * a + lse(&[b, 0.5 * c, d]) - b
        + lse(&[0.5 * c, 0.5 * d])
        - 0.5 * c;
    let got = known(0.0)(&vector(&log(&REFERENCE))).unwrap();
    assert_close(&numbers(&got), &[want], EXACT, "start");
}
