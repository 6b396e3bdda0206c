use crate::common::policy::{
    REFERENCE, REWARDS, descend, descend_free, distance, log, ordered_pairs,
};
use crate::common::{bits, matrix, numbers, sigma, vector};
use candle_align::{
    Candidates, Pair, Result, SlicConfig, slic_expected_reward_loss, slic_kl_regularizer,
    slic_list_loss, slic_margin_loss, slic_rank_loss,
};
use candle_core::{D, Device, Tensor};
use candle_nn::ops::log_softmax;

/// S4's answers from the worst to the best.
const ORDER: [usize; 4] = [0, 2, 1, 3];

/// All pairs (better, worse) of S4.
fn pairs() -> Vec<(usize, usize)> {
    ordered_pairs(4)
        .into_iter()
        .filter(|&(i, j)| REWARDS[i] > REWARDS[j])
        .collect()
}

/// One row per pair: its better and its worse answer's entry of x.
fn select(x: &Tensor, pairs: &[(usize, usize)]) -> Result<Pair<Tensor>> {
    let ids = |side: Vec<u32>| Tensor::new(side, &Device::Cpu);
    Ok(Pair {
        chosen: x.index_select(&ids(pairs.iter().map(|p| p.0 as u32).collect())?, 0)?,
        rejected: x.index_select(&ids(pairs.iter().map(|p| p.1 as u32).collect())?, 0)?,
    })
}

/// The leads of neighbors in the ranking, worst first.
fn leads(p: &[f64]) -> Vec<f64> {
    ORDER.windows(2).map(|w| (p[w[1]] / p[w[0]]).ln()).collect()
}

fn value(p: &[f64], loss: impl Fn(&Tensor) -> Result<Tensor>) -> f64 {
    numbers(&loss(&vector(&log(p))).unwrap())[0]
}

/// No further beyond what is required than one overshooting step, and not short of it.
#[track_caller]
fn assert_just_reached(p: &[f64], required: [f64; 3], overshoot: f64) {
    for (got, want) in leads(p).iter().zip(required) {
        let over = got - want;
        assert!(
            over > -1e-9 && over < overshoot,
            "{:?} for {required:?}",
            leads(p)
        );
    }
}

#[test]
fn rank_stops_where_the_path_enters_the_zero_set() {
    let loss = |ell: &Tensor| {
        let policy = select(ell, &pairs())?;
        Ok(slic_rank_loss(&policy, &SlicConfig { delta: 1.0 })?
            .loss
            .mean(0)?)
    };
    let p = descend(&log(&REFERENCE), 0.1, 100, loss);
    assert_eq!(value(&p, loss), 0.0);
    assert_just_reached(&p, [1.0; 3], 0.01);
    // and stays
    assert_eq!(descend(&log(&REFERENCE), 0.1, 120, loss), p);
}

#[test]
fn margin_and_list_stop_at_their_leads() {
    let margin = |ell: &Tensor| {
        let policy = select(ell, &pairs())?;
        let similarity = select(&vector(&REWARDS), &pairs())?;
        let config = SlicConfig { delta: 1.0 };
        Ok(slic_margin_loss(&policy, &similarity, &config)?
            .loss
            .sum_all()?)
    };
    let p = descend(&log(&REFERENCE), 0.001, 700, margin);
    assert_eq!(value(&p, margin), 0.0);
    assert_just_reached(&p, [0.5, 0.5, 1.0], 0.003);

    let list = |ell: &Tensor| {
        let (ones, rewards) = (matrix(&[&[1.0; 4]]), matrix(&[&REWARDS]));
        let c = Candidates::new(&ell.unsqueeze(0)?, &ones, &rewards, None)?;
        Ok(slic_list_loss(&c, &SlicConfig { delta: 1.0 })?.sum_all()?)
    };
    let p = descend(&log(&REFERENCE), 0.001, 800, list);
    assert_eq!(value(&p, list), 0.0);
    assert_just_reached(&p, [1.0; 3], 0.003);
}

/// Two answers, labels right with probability p: the loss of the lead z = θ₀ − θ₁.
fn noisy(theta: &Tensor, p: f64, delta: f64) -> Result<Tensor> {
    let policy = select(&log_softmax(theta, D::Minus1)?, &[(0, 1), (1, 0)])?;
    let losses = slic_rank_loss(&policy, &SlicConfig { delta })?.loss;
    Ok((losses * vector(&[p, 1.0 - p]))?.sum_all()?)
}

#[test]
fn rank_under_noise_leads_by_delta_for_the_majority_of_any_size() {
    let alpha = 0.01;
    for (p, want) in [(0.55, 1.5), (0.7, 1.5), (0.95, 1.5), (0.3, -1.5)] {
        let theta = descend_free(&[0.1, -0.1], alpha, 1600, |t| noisy(t, p, 1.5));
        let z = theta[0] - theta[1];
        assert!((z - want).abs() < 2.0 * alpha, "p = {p}: {z}");
    }
}

#[test]
fn rank_under_noise_quantizes_the_rewards() {
    // labels by Bradley–Terry on multiples of S4's rewards, all ordered pairs alike: the leads over
    // answer 0 are whole numbers of δ, and which they are depends on the scale
    let all = ordered_pairs(4);
    for (scale, want) in [
        (0.2, [0.0, 1.0, 0.0, 1.0]),
        (1.0, [0.0, 1.0, 1.0, 2.0]),
        (3.0, [0.0, 2.0, 1.0, 3.0]),
    ] {
        let label = |i: usize, j: usize| sigma(scale * (REWARDS[i] - REWARDS[j])) / 6.0;
        let weights: Vec<f64> = all.iter().map(|&(i, j)| label(i, j)).collect();
        let weights = vector(&weights);
        let loss = |ell: &Tensor| {
            let losses = slic_rank_loss(&select(ell, &all)?, &SlicConfig { delta: 1.0 })?.loss;
            Ok((losses * &weights)?.sum_all()?)
        };
        let alpha = 0.02;
        let p = descend(&log(&REFERENCE), alpha, 2500, loss);
        let leads: Vec<f64> = p.iter().map(|x| (x / p[0]).ln()).collect();
        assert!(distance(&leads, &want) < 2.0 * alpha, "{scale}: {leads:?}");
        // no step off it by δ in either direction is better
        let at = |z: [f64; 4]| {
            all.iter()
                .map(|&(i, j)| label(i, j) * f64::max(0.0, 1.0 - z[i] + z[j]))
                .sum::<f64>()
        };
        let best = at(want);
        for i in 0..4 {
            for by in [-1.0, 1.0] {
                let mut z = want;
                z[i] += by;
                assert!(at(z) > best + 5e-3, "{scale}: {z:?}");
            }
        }
        let left = value(&p, loss) - best;
        assert!((-1e-12..4e-4).contains(&left), "{scale}: {left}");
    }
}

/// The root of an increasing function in [low, high].
fn root(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        match f(middle) > 0.0 {
            true => high = middle,
            false => low = middle,
        }
    }
    low
}

#[test]
fn cross_entropy_stops_the_lead_before_delta() {
    // λ (σ(z) − d₁) = 1 as long as that is short of δ
    let (delta, d) = (2.0, 0.6);
    let with = |lambda: f64| {
        let theta = descend_free(&[0.0, 0.0], 0.02, 1500, |t| {
            let ell = log_softmax(t, D::Minus1)?;
            let cross_entropy = (ell * vector(&[d, 1.0 - d]))?.sum_all()?.neg()?;
            Ok((noisy(t, 1.0, delta)? + (cross_entropy * lambda)?)?)
        });
        theta[0] - theta[1]
    };
    let want = root(-5.0, 5.0, |z| sigma(z) - (d + 1.0 / 6.0));
    assert!((with(6.0) - want).abs() < 1e-6, "{} {want}", with(6.0));
    assert!((with(2.0) - delta).abs() < 0.08, "{}", with(2.0));
}

#[test]
fn the_kl_stops_the_lead_before_delta() {
    // λ σ(z) σ(−z) (z − z₀) = 1 as long as that is short of δ: KL(π ‖ π_ft), not its reverse
    let (delta, start) = (2.0, 0.0);
    let with = |lambda: f64| {
        let theta = descend_free(&[start, 0.0], 0.02, 1500, |t| {
            let logits = t.reshape((1, 1, 2))?;
            let reference = vector(&[start, 0.0]).reshape((1, 1, 2))?;
            let kl = slic_kl_regularizer(&logits, &reference, &bits(&[&[1]]))?;
            Ok((noisy(t, 1.0, delta)? + (kl.loss.sum_all()? * lambda)?)?)
        });
        theta[0] - theta[1]
    };
    for lambda in [6.0, 20.0] {
        let want = root(start, 1.5, |z| {
            lambda * sigma(z) * sigma(-z) * (z - start) - 1.0
        });
        let reverse = root(start, 1.5, |z| lambda * (sigma(z) - sigma(start)) - 1.0);
        let got = with(lambda);
        assert!((got - want).abs() < 1e-6, "{got} {want}");
        assert!((want - reverse).abs() > 1e-4, "{want} {reverse}");
    }
    assert!((with(2.0) - delta).abs() < 0.08, "{}", with(2.0));
}

/// The loss of a list of answers of one token.
fn expected_reward(ell: &Tensor, rewards: &[f64]) -> Result<Tensor> {
    let (ones, rewards) = (matrix(&[&vec![1.0; rewards.len()]]), matrix(&[rewards]));
    let c = Candidates::new(&ell.unsqueeze(0)?, &ones, &rewards, None)?;
    Ok(slic_expected_reward_loss(&c)?.sum_all()?)
}

#[test]
fn expected_reward_approaches_the_best_like_one_over_the_steps() {
    let (alpha, steps) = (4.0, 3000);
    let p = descend(&log(&REFERENCE), alpha, steps, |ell| {
        expected_reward(ell, &REWARDS)
    });
    let mean: f64 = p.iter().zip(REWARDS).map(|(p, r)| p * r).sum();
    let rate = (2.0 - mean) * alpha * steps as f64;
    // (K − 1)/K
    assert!((rate - 0.75).abs() < 0.01, "{rate}");
}

#[test]
fn expected_reward_of_a_list_leaves_the_answers_outside_it() {
    // the list lacks the best answer
    let start = log(&REFERENCE);
    let theta = descend_free(&start, 1.0, 300, |theta| {
        expected_reward(
            &log_softmax(theta, D::Minus1)?.narrow(0, 0, 3)?,
            &REWARDS[..3],
        )
    });
    assert!((theta[3] - start[3]).abs() < 1e-12, "{theta:?}");
    let total = |x: &[f64]| x[..3].iter().sum::<f64>();
    assert!((total(&theta) - total(&start)).abs() < 1e-9, "{theta:?}");
    assert!(
        theta[1] > theta[2] + 3.0 && theta[2] > theta[0],
        "{theta:?}"
    );
}

#[test]
fn expected_reward_of_lists_of_two_orders_all_answers() {
    // every two of the four: the least loss gives each list to its better answer
    let pairs: Vec<(usize, usize)> = ordered_pairs(4).into_iter().filter(|p| p.0 < p.1).collect();
    let rewards: Vec<[f64; 2]> = pairs
        .iter()
        .map(|&(i, j)| [REWARDS[i], REWARDS[j]])
        .collect();
    let rewards = matrix(&rewards.iter().map(|r| &r[..]).collect::<Vec<_>>());
    let loss = |ell: &Tensor| {
        let both = select(ell, &pairs)?;
        let lists = Tensor::stack(&[&both.chosen, &both.rejected], 1)?;
        let c = Candidates::new(&lists, &lists.ones_like()?, &rewards, None)?;
        Ok(slic_expected_reward_loss(&c)?.mean(0)?)
    };
    let least = -(1.0 + 0.5 + 2.0 + 1.0 + 2.0 + 2.0) / 6.0;
    let at = |steps| descend(&log(&REFERENCE), 20.0, steps, loss);
    let (half, whole) = (at(600), at(1200));
    let left = |p: &[f64]| value(p, loss) - least;
    assert!(left(&whole) > 0.0 && left(&whole) < 3e-4);
    // like one over the steps
    let ratio = left(&half) / left(&whole);
    assert!((ratio - 2.0).abs() < 0.02, "{ratio}");
    // in the order of the rewards, and ever farther apart
    for (before, after) in leads(&half).iter().zip(leads(&whole)) {
        assert!(*before > 2.0 && after > before + 0.5, "{half:?} {whole:?}");
    }
}
