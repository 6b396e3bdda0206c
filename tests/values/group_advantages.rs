//! Advantages of two groups, one of successes and one of graded answers. The numbers were computed apart, in NumPy.

use crate::common::{assert_close, bits, matrix, numbers, vector};
use candle_align::online::group_advantages::*;
use candle_core::Tensor;

fn rewards() -> Tensor {
    matrix(&[&[1.0, 0.0, 0.0, 1.0], &[0.2, 0.9, 0.4, 0.4]])
}

fn lengths() -> Tensor {
    matrix(&[&[3.0, 5.0, 2.0, 6.0], &[4.0, 1.0, 3.0, 2.0]])
}

#[track_caller]
fn check(got: candle_align::Result<Tensor>, want: [f64; 8], name: &str) {
    assert_close(&numbers(&got.unwrap()), &want, 6e-9, name);
}

#[test]
fn grpo_with_each_deviation() {
    let of = |deviation, epsilon| {
        let config = GrpoAdvantageConfig { deviation, epsilon };
        grpo_advantages(&rewards(), None, &config)
    };
    let (a, b, c, d) = (0.86587543, -0.92063189, 1.42279473, -0.25108142);
    check(
        of(Deviation::Group, 1e-4),
        [a, -a, -a, a, b, c, d, d],
        "group",
    );
    let (a, b, c, d) = (1.17416464, -0.64579055, 0.99803995, -0.1761247);
    check(
        of(Deviation::Batch, 1e-4),
        [a, -a, -a, a, b, c, d, d],
        "batch",
    );
    // less the means ½ and 0.475
    let want = [0.5, -0.5, -0.5, 0.5, -0.275, 0.425, -0.075, -0.075];
    check(of(Deviation::None, 1e-4), want, "none");
}

#[test]
fn rloo_max_rl_and_pass_at_k() {
    let (a, b, c) = (2.0 / 3.0, -0.36666667, 0.56666667);
    let got = rloo_advantages(&rewards(), None);
    check(got, [a, -a, -a, a, b, c, -0.1, -0.1], "rloo");
    let (b, c, d) = (-0.57894737, 0.89473684, -0.15789474);
    let got = max_rl_advantages(&rewards(), None);
    check(got, [1.0, -1.0, -1.0, 1.0, b, c, d, d], "max rl");
    let got = pass_at_k_advantages(&rewards(), None, &PassAtKConfig::default());
    check(
        got,
        [0.0, 0.0, 0.0, 0.0, 0.0, 1.67443111, 0.0, 0.0],
        "pass@k",
    );
}

#[test]
fn opo_weighs_its_baseline_by_length() {
    let (first, second) = (9.0 / 16.0, (0.8 + 0.9 + 1.2 + 0.8) / 10.0);
    let want = [
        1.0 - first,
        -first,
        -first,
        1.0 - first,
        0.2 - second,
        0.9 - second,
        0.4 - second,
        0.4 - second,
    ];
    check(opo_advantages(&rewards(), &lengths(), None), want, "opo");
}

#[test]
fn reinforce_plus_plus_with_the_group_as_baseline() {
    let of =
        |divisor| reinforce_plus_plus_baseline_advantages(&rewards(), &lengths(), None, divisor);
    let (a, b) = (1.18158056, -1.1725263);
    let (c, d, e) = (-0.64285226, 1.00502254, -0.17203089);
    check(of(Divisor::Sample), [a, b, b, a, c, d, e, e], "verl");
    let (a, b) = (1.2049805, -1.19574693);
    let (c, d, e) = (-0.65558326, 1.02492594, -0.17543777);
    check(
        of(Divisor::Population),
        [a, b, b, a, c, d, e, e],
        "openrlhf",
    );
}

#[test]
fn reinforce_plus_plus_whitens_the_returns_of_all_tokens() {
    let rewards = matrix(&[&[0.5, f64::NAN, 1.0], &[-1.0, 2.0, f64::NAN]]);
    let mask = bits(&[&[1, 0, 1], &[1, 1, 0]]);
    let config = ReinforcePlusPlusConfig {
        gamma: 0.5,
        divisor: Divisor::Population,
    };
    let got = reinforce_plus_plus_advantages(&rewards, &mask, &config).unwrap();
    // a position that does not count takes no step
    let returns = [0.5 + 0.5 * 1.0, 1.0, -1.0 + 0.5 * 2.0, 2.0];
    let mean = returns.iter().sum::<f64>() / 4.0;
    let variance = returns.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / 4.0;
    let at = |g: f64| (g - mean) / variance.sqrt();
    let want = [at(1.0), 0.0, at(1.0), at(0.0), at(2.0), 0.0];
    assert_close(&numbers(&got), &want, 1e-15, "returns");
    let config = ReinforcePlusPlusConfig {
        gamma: 0.5,
        ..Default::default()
    };
    let got = reinforce_plus_plus_advantages(&rewards, &mask, &config).unwrap();
    let deviation = (variance * 4.0 / 3.0 + 1e-8).sqrt();
    let want = want.map(|x| x * variance.sqrt() / deviation);
    assert_close(&numbers(&got), &want, 1e-15, "sample");
}

#[test]
fn remax_is_a_return_less_the_greedy_reward() {
    let rewards = matrix(&[&[-0.1, f64::NAN, 1.0], &[0.0, 0.25, 0.0]]);
    let mask = bits(&[&[1, 0, 1], &[1, 1, 1]]);
    let got = remax_advantages(&rewards, &mask, &vector(&[0.5, -1.0])).unwrap();
    assert_close(
        &numbers(&got),
        &[0.4, 0.0, 0.5, 1.25, 1.25, 1.0],
        1e-15,
        "remax",
    );
}

#[test]
fn gdpo_normalizes_each_reward_and_then_the_batch() {
    let (right, style) = (rewards(), matrix(&[&[3.0, 1.0, 2.0, 2.0], &[5.0; 4]]));
    let (weights, epsilon) = (vec![1.0, 0.5], 1e-4);
    let config = GdpoConfig { weights, epsilon };
    let got = gdpo_advantages(&[&right, &style], None, &config).unwrap();
    let normalized = |x: &[f64]| -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let squares = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
        let deviation = (squares / (x.len() - 1) as f64).sqrt();
        x.iter().map(|x| (x - mean) / (deviation + 1e-4)).collect()
    };
    let add = |a: Vec<f64>, b: Vec<f64>| -> Vec<f64> {
        a.iter().zip(b).map(|(a, b)| a + 0.5 * b).collect()
    };
    let first = add(
        normalized(&[1.0, 0.0, 0.0, 1.0]),
        normalized(&[3.0, 1.0, 2.0, 2.0]),
    );
    let second = add(normalized(&[0.2, 0.9, 0.4, 0.4]), vec![0.0; 4]);
    let want = normalized(&[first, second].concat());
    assert_close(&numbers(&got), &want, 1e-12, "gdpo");

    // a mask of each reward: style judges two answers of the first prompt, and none of the second; nobody the last
    let unread = matrix(&[&[3.0, f64::NAN, 2.0, f64::NAN], &[f64::NAN; 4]]);
    let by_right = bits(&[&[1, 1, 1, 1], &[1, 1, 1, 0]]);
    let by_style = bits(&[&[1, 0, 1, 0], &[0; 4]]);
    let masks = Tensor::stack(&[&by_right, &by_style], 0).unwrap();
    let got = gdpo_advantages(&[&right, &unread], Some(&masks), &config).unwrap();
    let style = normalized(&[3.0, 2.0]);
    let first = add(
        normalized(&[1.0, 0.0, 0.0, 1.0]),
        vec![style[0], 0.0, style[1], 0.0],
    );
    let second = normalized(&[0.2, 0.9, 0.4]);
    let mut want = normalized(&[first, second].concat());
    want.push(0.0);
    assert_close(&numbers(&got), &want, 1e-12, "gdpo with two masks");
}

/// A group of three beside a mask is that group alone, whatever is under the mask.
#[test]
fn ragged_groups_are_their_counted_answers() {
    let ragged = matrix(&[
        &[0.2, f64::NAN, 0.9, 0.4],
        &[f64::INFINITY, 1.0, 0.0, f64::NAN],
    ]);
    let mask = bits(&[&[1, 0, 1, 1], &[0, 1, 1, 0]]);
    let n = matrix(&[&[2.0, f64::NAN, 5.0, 3.0], &[-1.0, 4.0, 1.0, 0.0]]);
    let none = GrpoAdvantageConfig {
        deviation: Deviation::None,
        ..Default::default()
    };
    type Of = Box<dyn Fn(&Tensor, &Tensor, Option<&Tensor>) -> Tensor>;
    let all: [(&str, Of); 6] = [
        (
            "grpo",
            Box::new(|r, _, m| grpo_advantages(r, m, &Default::default()).unwrap()),
        ),
        (
            "dr. grpo",
            Box::new(move |r, _, m| grpo_advantages(r, m, &none).unwrap()),
        ),
        ("rloo", Box::new(|r, _, m| rloo_advantages(r, m).unwrap())),
        (
            "max rl",
            Box::new(|r, _, m| max_rl_advantages(r, m).unwrap()),
        ),
        (
            "pass@k",
            Box::new(|r, _, m| pass_at_k_advantages(r, m, &Default::default()).unwrap()),
        ),
        ("opo", Box::new(|r, n, m| opo_advantages(r, n, m).unwrap())),
    ];
    for (name, of) in all {
        let got = numbers(&of(&ragged, &n, Some(&mask)));
        let first = numbers(&of(
            &matrix(&[&[0.2, 0.9, 0.4]]),
            &matrix(&[&[2.0, 5.0, 3.0]]),
            None,
        ));
        let second = numbers(&of(&matrix(&[&[1.0, 0.0]]), &matrix(&[&[4.0, 1.0]]), None));
        let want = [
            first[0], 0.0, first[1], first[2], 0.0, second[0], second[1], 0.0,
        ];
        assert_close(&got, &want, 1e-15, name);
    }
}

/// Exactly 0, whatever the rounding of a mean: 0.1 three times does not add up to 0.3.
#[test]
fn a_group_without_anything_to_compare_is_exactly_zero() {
    for group in [vec![0.1; 3], vec![0.7], vec![-1e300; 5], vec![3.0; 2]] {
        let rewards = matrix(&[&group]);
        let n = matrix(&[&vec![2.0; group.len()]]);
        let zero = vec![0.0; group.len()];
        for deviation in [Deviation::Group, Deviation::Batch, Deviation::None] {
            for epsilon in [0.0, 1e-4] {
                let config = GrpoAdvantageConfig { deviation, epsilon };
                let got = grpo_advantages(&rewards, None, &config).unwrap();
                assert_eq!(numbers(&got), zero, "{config:?}");
            }
        }
        let one = GdpoConfig::default();
        let sample = Divisor::Sample;
        for got in [
            rloo_advantages(&rewards, None),
            max_rl_advantages(&rewards, None),
            pass_at_k_advantages(&rewards, None, &PassAtKConfig::default()),
            opo_advantages(&rewards, &n, None),
            gdpo_advantages(&[&rewards, &rewards], None, &one),
            reinforce_plus_plus_baseline_advantages(&rewards, &n, None, sample),
        ] {
            assert_eq!(numbers(&got.unwrap()), zero);
        }
    }
}
