//! What advantages of a group ascend, by enumerating every group; and how they relate.

use crate::common::{assert_close, matrix, numbers};
use candle_align::online::group_advantages::*;
use candle_align::online::shaping::informative_groups;
use candle_align::{GaeConfig, Result, gae};
use candle_core::{DType, Tensor};

/// Groups of 0 to G successes among G answers, the successes first.
fn groups(size: usize) -> Tensor {
    let of = |k: usize| (0..size).map(move |i| f64::from(i < k));
    let data: Vec<f64> = (0..=size).flat_map(of).collect();
    Tensor::from_vec(data, (size + 1, size), &candle_core::Device::Cpu).unwrap()
}

/// E[ (1/G) Σᵢ Âᵢ ∂ log π(yᵢ)/∂p ] over all groups of answers that succeed with probability p.
fn slope(size: usize, p: f64, of: impl Fn(&Tensor) -> Result<Tensor>) -> f64 {
    let advantages = of(&groups(size)).unwrap().to_vec2::<f64>().unwrap();
    let mut chance = (1.0 - p).powi(size as i32); // of no success
    let mut sum = 0.0;
    for (k, group) in advantages.iter().enumerate() {
        let (right, wrong) = group.split_at(k);
        let right: f64 = right.iter().sum::<f64>() / p;
        let wrong: f64 = wrong.iter().sum::<f64>() / (1.0 - p);
        sum += chance * (right - wrong) / size as f64;
        chance *= (size - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
    }
    sum
}

fn grpo(deviation: Deviation) -> impl Fn(&Tensor) -> Result<Tensor> {
    let config = GrpoAdvantageConfig {
        deviation,
        epsilon: 0.0,
    };
    move |rewards| grpo_advantages(rewards, None, &config)
}

#[test]
fn four_utilities_of_one_success_probability() {
    for p in [0.1, 0.3, 0.5, 0.8] {
        for size in [2, 4, 9] {
            // Dr. GRPO: p (1 − 1/G); RLOO: p
            let got = slope(size, p, grpo(Deviation::None));
            assert_close(&[got], &[1.0 - 1.0 / size as f64], 1e-12, "dr. grpo");
            let got = slope(size, p, |r| rloo_advantages(r, None));
            assert_close(&[got], &[1.0], 1e-12, "rloo");
        }
        // GRPO: 2 arcsin √p, and MaxRL: log p, as the group grows
        let arcsine = 1.0 / (p * (1.0 - p)).sqrt();
        let error = |size| slope(size, p, grpo(Deviation::Group)) / arcsine - 1.0;
        assert!(error(400).abs() < 0.02, "{p}: {}", error(400));
        assert!(
            error(400).abs() < 0.6 * error(200).abs(),
            "{p}: {}",
            error(200)
        );
        let got = slope(400, p, |r| max_rl_advantages(r, None));
        assert_close(&[got], &[1.0 / p], 1e-12, "max rl");
    }
}

#[test]
fn max_rl_reaches_one_order_less_than_the_group() {
    for (size, p) in [(2, 0.3), (4, 0.3), (7, 0.05)] {
        // Σ_{k=1}^{N−1} (1/k) d pass@k / dp, with d pass@k / dp = k (1 − p)^{k−1}
        let want: f64 = (1..size).map(|k| (1.0f64 - p).powi(k as i32 - 1)).sum();
        let got = slope(size, p, |r| max_rl_advantages(r, None));
        assert_close(&[got], &[want], 1e-12, "order N − 1");
    }
    let got = slope(4, 0.3, |r| max_rl_advantages(r, None));
    assert_close(&[got], &[2.19], 1e-12, "not 2.533");
}

#[test]
fn the_lead_of_the_best_ascends_the_best_of_the_group() {
    let config = PassAtKConfig {
        divide_by_deviation: false,
        ..Default::default()
    };
    for (size, p) in [(2, 0.3), (5, 0.2)] {
        let got = slope(size, p, |r| pass_at_k_advantages(r, None, &config));
        // the sum over the group, not its mean: d/dp of 1 − (1 − p)^G
        let want = size as f64 * (1.0f64 - p).powi(size as i32 - 1);
        assert_close(&[got * size as f64], &[want], 1e-12, "pass@G");
    }
}

fn rewards() -> Tensor {
    matrix(&[&[1.0, -2.0, 0.5, 0.0], &[3.0, 3.5, 3.1, 9.0]])
}

fn scaled(x: &Tensor, by: f64, shift: f64) -> Tensor {
    x.affine(by, shift).unwrap()
}

#[test]
fn rloo_is_dr_grpo_scaled_by_the_group() {
    let rloo = numbers(&rloo_advantages(&rewards(), None).unwrap());
    let dr = grpo(Deviation::None)(&rewards()).unwrap();
    assert_close(
        &rloo,
        &numbers(&scaled(&dr, 4.0 / 3.0, 0.0)),
        1e-15,
        "k/(k − 1)",
    );
}

#[test]
fn a_constant_or_a_factor_on_a_group_leaves_grpo_as_it_is() {
    let of = grpo(Deviation::Group);
    let want = numbers(&of(&rewards()).unwrap());
    let got = numbers(&of(&scaled(&rewards(), 7.0, 100.0)).unwrap());
    assert_close(&got, &want, 1e-12, "scaled");
    for row in want.chunks(4) {
        assert!(row.iter().sum::<f64>().abs() < 1e-14, "{row:?}");
    }
    // without the deviation a factor stays
    let plain = grpo(Deviation::None);
    let got = numbers(&plain(&scaled(&rewards(), 7.0, 100.0)).unwrap());
    let want = numbers(&scaled(&plain(&rewards()).unwrap(), 7.0, 0.0));
    assert_close(&got, &want, 1e-12, "plain");
}

#[test]
fn opo_of_answers_of_one_length_is_dr_grpo() {
    let lengths = rewards().ones_like().unwrap().affine(0.0, 17.0).unwrap();
    let opo = numbers(&opo_advantages(&rewards(), &lengths, None).unwrap());
    let dr = numbers(&grpo(Deviation::None)(&rewards()).unwrap());
    assert_close(&opo, &dr, 1e-14, "one length");
    let lengths = matrix(&[&[1.0, 2.0, 3.0, 4.0], &[9.0, 1.0, 1.0, 5.0]]);
    let opo = opo_advantages(&rewards(), &lengths, None).unwrap();
    for row in numbers(&(opo * lengths).unwrap()).chunks(4) {
        assert!(row.iter().sum::<f64>().abs() < 1e-13, "{row:?}");
    }
}

#[test]
fn gdpo_of_one_reward_is_grpo_scaled_once_more() {
    let config = GdpoConfig::default();
    let gdpo = numbers(&gdpo_advantages(&[&rewards()], None, &config).unwrap());
    let grpo = numbers(&grpo_advantages(&rewards(), None, &Default::default()).unwrap());
    let factor = gdpo[0] / grpo[0];
    let want: Vec<f64> = grpo.iter().map(|x| x * factor).collect();
    assert_close(&gdpo, &want, 1e-14, "one reward");
    // and a reward a million times larger weighs no more
    let other = matrix(&[&[0.0, 1.0, 3.0, 1.0], &[2.0, 1.0, 0.0, 0.0]]);
    let with = |by| {
        let large = scaled(&other, by, 0.0);
        numbers(&gdpo_advantages(&[&rewards(), &large], None, &config).unwrap())
    };
    assert_close(&with(1e6), &with(1.0), 2e-4, "a factor");
}

#[test]
fn returns_are_those_of_gae_without_values() {
    let rewards = matrix(&[&[0.3, 1.0, -0.5], &[2.0, 0.0, 1.0]]);
    let mask = crate::common::bits(&[&[1, 0, 1], &[1, 1, 1]]);
    let nothing = rewards.zeros_like().unwrap();
    let config = GaeConfig {
        gamma: 0.8,
        lambda: 1.0,
    };
    let returns = gae(&rewards, &nothing, &mask, &config).unwrap().returns;
    let config = ReinforcePlusPlusConfig {
        gamma: 0.8,
        ..Default::default()
    };
    let got = numbers(&reinforce_plus_plus_advantages(&rewards, &mask, &config).unwrap());
    let returns = numbers(&returns);
    // whitened: an affine map of the returns
    let slope = (got[0] - got[2]) / (returns[0] - returns[2]);
    for at in [0, 2, 3, 4, 5] {
        let want = got[0] + slope * (returns[at] - returns[0]);
        assert_close(&[got[at]], &[want], 1e-13, "returns");
    }
}

/// Leaving groups out changes no advantage of the others.
#[test]
fn groups_that_teach_nothing_have_advantages_of_zero() {
    let rewards = matrix(&[&[1.0, 0.0, 1.0], &[0.1; 3], &[0.0; 3], &[0.0, 0.0, 2.0]]);
    let keep = informative_groups(&rewards, None).unwrap();
    assert_eq!(
        numbers(&keep.to_dtype(DType::F64).unwrap()),
        [1.0, 0.0, 0.0, 1.0]
    );
    let got = grpo(Deviation::Group)(&rewards)
        .unwrap()
        .to_vec2::<f64>()
        .unwrap();
    assert_eq!(got[1..3], [[0.0; 3], [0.0; 3]]);
    // what does not count makes no difference
    let mask = crate::common::bits(&[&[1, 0, 1], &[1, 1, 1], &[1, 0, 0], &[1, 1, 0]]);
    let masked = informative_groups(&rewards, Some(&mask)).unwrap();
    assert_eq!(numbers(&masked), [0.0; 4]);
    let kept = matrix(&[&[1.0, 0.0, 1.0], &[0.0, 0.0, 2.0]]);
    let alone = grpo(Deviation::Group)(&kept)
        .unwrap()
        .to_vec2::<f64>()
        .unwrap();
    assert_eq!([&got[0], &got[3]], [&alone[0], &alone[1]]);
}
