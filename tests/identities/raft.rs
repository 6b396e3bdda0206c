use crate::common::draws::{best_of, best_of_formula, expectation, kl};
use crate::common::policy::{BETA, REFERENCE, REWARDS, log, normalized, tilted};
use crate::common::{EXACT, assert_close, bits, matrix, numbers, vector};
use candle_align::online::raft::{RefreshedSet, best_of_k, kl_adjusted_rewards, top_share};
use candle_align::{RaftConfig, SftConfig, TokenLogProbs, sft_loss};
use candle_core::{D, DType, Device, Tensor, Var};
use rand::{Rng, SeedableRng, rngs::StdRng};

fn rng() -> StdRng {
    StdRng::seed_from_u64(17)
}

fn random(batch: usize, k: usize, rng: &mut StdRng) -> Tensor {
    let data: Vec<f64> = (0..batch * k)
        .map(|_| rng.random_range(-2.0..2.0))
        .collect();
    Tensor::from_vec(data, (batch, k), &Device::Cpu).unwrap()
}

#[test]
fn only_the_order_within_a_prompt_counts() {
    let mut rng = rng();
    let rewards = random(20, 5, &mut rng);
    let per_prompt = random(20, 1, &mut rng);
    let moved = ((&rewards * 3.5).unwrap() + per_prompt.broadcast_as((20, 5)).unwrap()).unwrap();
    assert_eq!(
        best_of_k(&moved, None).unwrap(),
        best_of_k(&rewards, None).unwrap()
    );
    let worst = best_of_k(&rewards.neg().unwrap(), None).unwrap();
    assert_ne!(worst, best_of_k(&rewards, None).unwrap());
}

#[test]
fn the_share_of_a_batch_sees_the_level_of_each_prompt() {
    let rewards = random(20, 5, &mut rng());
    let kept = top_share(&rewards, None, 0.2).unwrap();
    let scaled = rewards.affine(3.5, -8.0).unwrap();
    assert_eq!(top_share(&scaled, None, 0.2).unwrap(), kept);
    // the last four prompts become the easy ones
    let level: Vec<f64> = (0..20).map(|x| if x < 16 { 0.0 } else { 9.0 }).collect();
    let level = vector(&level)
        .unsqueeze(1)
        .unwrap()
        .broadcast_as((20, 5))
        .unwrap();
    let easy = (&rewards + level).unwrap();
    assert_eq!(
        top_share(&easy, None, 0.2).unwrap(),
        (80..100).collect::<Vec<_>>()
    );
}

#[test]
fn one_prompt_makes_the_two_selections_one() {
    let mut rng = rng();
    for k in [1, 2, 4, 7] {
        let rewards = random(1, k, &mut rng);
        let share = 1.0 / k as f64;
        assert_eq!(
            top_share(&rewards, None, share).unwrap(),
            best_of_k(&rewards, None).unwrap()
        );
    }
}

#[test]
fn masked_is_dropped() {
    let rewards = random(6, 3, &mut rng());
    let nan = Tensor::full(f64::NAN, (6, 1), &Device::Cpu).unwrap();
    let longer = Tensor::cat(&[&nan, &rewards, &nan], 1).unwrap();
    let mask = bits(&[&[0u8, 1, 1, 1, 0][..]; 6]);
    // row prompt · 3 + i becomes row prompt · 5 + i + 1
    let there = |rows: Vec<usize>| -> Vec<usize> {
        rows.iter().map(|row| row / 3 * 5 + row % 3 + 1).collect()
    };
    assert_eq!(
        best_of_k(&longer, Some(&mask)).unwrap(),
        there(best_of_k(&rewards, None).unwrap())
    );
    assert_eq!(
        top_share(&longer, Some(&mask), 0.5).unwrap(),
        there(top_share(&rewards, None, 0.5).unwrap())
    );
    assert_eq!(
        best_of_k(&longer, Some(&mask.zeros_like().unwrap())).unwrap(),
        [0usize; 0]
    );
}

#[test]
fn the_same_answer_is_kept_wherever_it_stands() {
    let rewards = random(20, 5, &mut rng());
    let order = Tensor::new(&[3u32, 1, 4, 0, 2], &Device::Cpu).unwrap();
    let shuffled = rewards.index_select(&order, 1).unwrap();
    let reward = |of: &Tensor, rows: &[usize]| -> Vec<f64> {
        rows.iter().map(|&row| numbers(of)[row]).collect()
    };
    assert_eq!(
        reward(&shuffled, &best_of_k(&shuffled, None).unwrap()),
        reward(&rewards, &best_of_k(&rewards, None).unwrap())
    );
    let sorted = |mut x: Vec<f64>| {
        x.sort_by(f64::total_cmp);
        x
    };
    assert_eq!(
        sorted(reward(&shuffled, &top_share(&shuffled, None, 0.3).unwrap())),
        sorted(reward(&rewards, &top_share(&rewards, None, 0.3).unwrap()))
    );
}

/// Random policies of four answers; every second one has ties among its rewards.
fn instances(count: usize) -> Vec<([f64; 4], [f64; 4])> {
    let mut rng = rng();
    (0..count)
        .map(|i| {
            let p = normalized(&[(); 4].map(|()| rng.random_range(0.02..1.0)));
            let r = [(); 4].map(|()| match i % 2 {
                0 => rng.random_range(-2.0..2.0),
                _ => f64::from(rng.random_range(0..3)),
            });
            (p.try_into().unwrap(), r)
        })
        .collect()
}

#[test]
fn what_is_kept_follows_the_law_of_the_maximum() {
    for (p, r) in instances(20) {
        for n in 1..=4 {
            let law = best_of(&p, &r, n);
            assert_close(&law, &best_of_formula(&p, &r, n), EXACT, "B_n");
            assert!(law.iter().all(|b| *b > 0.0), "nothing is lost: {law:?}");
        }
    }
}

#[test]
fn a_random_one_of_the_best_has_the_same_law_as_the_first() {
    // draws in every order: the first of ties, averaged over the orders, is a random one
    let (p, r) = (REFERENCE, [1.0, 0.0, 1.0, 1.0]);
    let n = 3;
    let mut law = vec![0.0; 4];
    for draw in crate::common::draws::draws(4, n) {
        let best = draw.iter().map(|&y| r[y]).fold(f64::MIN, f64::max);
        let tied: Vec<usize> = draw.iter().copied().filter(|&y| r[y] == best).collect();
        let weight: f64 = draw.iter().map(|&y| p[y]).product();
        for y in &tied {
            law[*y] += weight / tied.len() as f64;
        }
    }
    assert_close(&best_of(&p, &r, n), &law, EXACT, "ties");
}

#[test]
fn the_best_of_n_is_at_most_so_far_from_the_policy() {
    for (p, r) in instances(40) {
        for n in 2..=4 {
            let law = best_of(&p, &r, n);
            let bound = (n as f64).ln() - (n as f64 - 1.0) / n as f64;
            let moved = kl(&law, &p);
            assert!(moved < bound, "KL {moved}, bound {bound}");
            // E r ≤ E max ≤ E r + w √(½ log n)
            let (before, after) = (expectation(&p, &r), expectation(&law, &r));
            let highest = r.iter().fold(f64::MIN, |a, &b| a.max(b));
            let lowest = r.iter().fold(f64::MAX, |a, &b| a.min(b));
            let most = before + (highest - lowest) * (0.5 * (n as f64).ln()).sqrt();
            assert!(
                after >= before - EXACT && after <= most + EXACT,
                "{before} {after} {most}"
            );
        }
    }
    // among many answers none of which is likely, nearly equal
    let atoms = 64;
    let r: Vec<f64> = (0..atoms).map(f64::from).collect();
    let p = vec![1.0 / f64::from(atoms); atoms as usize];
    let gap = 2f64.ln() - 0.5 - kl(&best_of(&p, &r, 2), &p);
    assert!(gap > 0.0 && gap < 2e-4, "{gap}");
    // ten thousand answers: too many draws to enumerate, so by the law, (i/M)ⁿ − ((i − 1)/M)ⁿ
    let atoms = 10_000;
    let below = |i: i32, n: i32| (f64::from(i) / f64::from(atoms)).powi(n);
    for n in [2, 4] {
        let law = |i: i32| below(i, n) - below(i - 1, n);
        let moved: f64 = (1..=atoms)
            .map(|i| law(i) * (law(i) * f64::from(atoms)).ln())
            .sum();
        let bound = f64::from(n).ln() - f64::from(n - 1) / f64::from(n);
        assert!((0.0..1e-8).contains(&(bound - moved)), "{n}: {moved}");
    }
}

#[test]
fn one_answer_to_each_prompt_is_fine_tuning_on_all_of_them() {
    let rewards = random(5, 1, &mut rng());
    assert_eq!(best_of_k(&rewards, None).unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(top_share(&rewards, None, 1.0).unwrap(), [0, 1, 2, 3, 4]);
    assert_close(&best_of(&REFERENCE, &REWARDS, 1), &REFERENCE, EXACT, "B_1");
}

#[test]
fn a_selection_of_rows_is_a_weight_of_one_and_pulls_only_the_winners() {
    let rewards = matrix(&[&[0.3, 0.9, 0.1], &[2.0, -1.0, 0.0]]);
    let rows = best_of_k(&rewards, None).unwrap();
    let values = Var::from_tensor(&random(6, 4, &mut rng())).unwrap();
    let mask = bits(&[
        &[1u8, 1, 1, 1],
        &[1, 1, 0, 0],
        &[1; 4],
        &[0, 1, 1, 0],
        &[1; 4],
        &[1; 4],
    ]);
    let config = SftConfig::default();

    let index: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    let index = Tensor::new(index.as_slice(), &Device::Cpu).unwrap();
    let kept = TokenLogProbs::new(
        &values.index_select(&index, 0).unwrap(),
        &mask.index_select(&index, 0).unwrap(),
    )
    .unwrap();
    let selected = sft_loss(&kept, None, &config)
        .unwrap()
        .loss
        .sum_all()
        .unwrap();

    let weights: Vec<f64> = (0..6).map(|row| f64::from(rows.contains(&row))).collect();
    let all = TokenLogProbs::new(&values, &mask).unwrap();
    let weighted = sft_loss(&all, Some(&vector(&weights)), &config).unwrap();
    let weighted = weighted.loss.sum_all().unwrap();

    let gradient = |loss: &Tensor| numbers(loss.backward().unwrap().get(&values).unwrap());
    assert_close(&numbers(&selected), &numbers(&weighted), EXACT, "loss");
    assert_close(
        &gradient(&selected),
        &gradient(&weighted),
        EXACT,
        "gradient",
    );
    // −1 on each token of answers 1 and 3
    let mut want = [0.0; 24];
    for at in [4, 5, 13, 14] {
        want[at] = -1.0;
    }
    assert_eq!(gradient(&selected), want);
}

#[test]
fn adjusted_rewards_have_the_regularized_objective_as_their_mean() {
    let p = [0.3, 0.15, 0.35, 0.2];
    let row = |x: &[f64]| vector(x).unsqueeze(0).unwrap();
    let adjusted = |policy: &[f64], beta| {
        let (policy, reference) = (row(&log(policy)), row(&log(&REFERENCE)));
        let out = kl_adjusted_rewards(&row(&REWARDS), &policy, &reference, &RaftConfig { beta });
        numbers(&out.unwrap())
    };
    let mean = expectation(&p, &adjusted(&p, BETA));
    let want = expectation(&p, &REWARDS) - BETA * kl(&p, &REFERENCE);
    assert_close(&[mean], &[want], EXACT, "objective");
    // a policy that is still the reference
    assert_eq!(adjusted(&REFERENCE, 0.7), REWARDS);
    // at the optimum every answer has the same: β log Z
    let star = tilted(&REFERENCE, &REWARDS, BETA);
    let z: f64 = REFERENCE
        .iter()
        .zip(REWARDS)
        .map(|(p, r)| p * (r / BETA).exp())
        .sum();
    assert_close(
        &adjusted(&star, BETA),
        &[BETA * z.ln(); 4],
        EXACT,
        "β log Z",
    );
}

#[test]
fn the_ranking_is_a_constant() {
    let rewards = Var::from_tensor(&matrix(&[&[1.0, 2.0]])).unwrap();
    let policy = Var::from_tensor(&matrix(&[&[-1.0, -3.0]])).unwrap();
    let reference = Var::from_tensor(&matrix(&[&[-2.0, -2.5]])).unwrap();
    for beta in [0.0, 0.4] {
        let config = RaftConfig { beta };
        let out = kl_adjusted_rewards(&rewards, &policy, &reference, &config).unwrap();
        let grads = out.sum(D::Minus1).unwrap().backward().unwrap();
        for var in [&rewards, &policy, &reference] {
            assert!(grads.get(var).is_none(), "beta {beta}");
        }
    }
}

#[test]
fn single_precision_chooses_the_same() {
    let rewards = random(30, 4, &mut rng());
    let single = rewards.to_dtype(DType::F32).unwrap();
    assert_eq!(
        best_of_k(&single, None).unwrap(),
        best_of_k(&rewards, None).unwrap()
    );
    let huge = (&single * 1e30).unwrap();
    assert_eq!(
        top_share(&huge, None, 0.25).unwrap(),
        top_share(&rewards, None, 0.25).unwrap()
    );
}

#[test]
fn merging_batch_by_batch_is_merging_at_once_and_never_makes_worse() {
    let rewards = numbers(&random(1, 60, &mut rng()));
    let items: Vec<(usize, f64)> = rewards.iter().copied().enumerate().collect();
    let mut whole = RefreshedSet::new(12).unwrap();
    whole.merge(items.iter().copied()).unwrap();

    // the last batch first
    let mut parts = RefreshedSet::new(12).unwrap();
    let mut lowest = f64::MIN;
    for batch in items.chunks(7).rev() {
        let full = parts.items().len() == parts.capacity();
        parts.merge(batch.iter().copied()).unwrap();
        let now = parts.items().last().unwrap().1;
        assert!(!full || now >= lowest, "{now} after {lowest}");
        lowest = now;
    }
    assert_eq!(parts, whole);

    // the set of all rounds is the best share of all rounds
    let mut kept: Vec<usize> = whole.items().iter().map(|(item, _)| *item).collect();
    kept.sort_unstable();
    let all = vector(&rewards).unsqueeze(1).unwrap();
    assert_eq!(kept, top_share(&all, None, 12.0 / 60.0).unwrap());
}
