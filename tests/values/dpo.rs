use crate::common::{EXACT, assert_close, logistic_loss, numbers, vector};
use candle_align::{DpoConfig, Pair, dpo_loss};

fn pair(chosen: &[f64], rejected: &[f64]) -> Pair<candle_core::Tensor> {
    Pair {
        chosen: vector(chosen),
        rejected: vector(rejected),
    }
}

#[test]
fn the_loss_is_the_logistic_loss_of_the_reward_margin() {
    let policy = pair(&[-3.5, -2.7], &[-4.5, -4.8]);
    let reference = pair(&[-3.1, -3.0], &[-4.0, -4.9]);
    let config = DpoConfig {
        beta: 0.3,
        ..Default::default()
    };
    let out = dpo_loss(&policy, Some(&reference), &config).unwrap();
    let chosen = [0.3 * (-3.5 + 3.1), 0.3 * (-2.7 + 3.0)];
    let rejected = [0.3 * (-4.5 + 4.0), 0.3 * (-4.8 + 4.9)];
    let want = [
        logistic_loss(chosen[0] - rejected[0]),
        logistic_loss(chosen[1] - rejected[1]),
    ];
    assert_close(&numbers(&out.loss), &want, EXACT, "loss");
    assert_close(&numbers(&out.rewards.chosen), &chosen, EXACT, "chosen");
    assert_close(
        &numbers(&out.rewards.rejected),
        &rejected,
        EXACT,
        "rejected",
    );
    assert!(!out.rewards.chosen.track_op());
}

#[test]
fn label_smoothing_expects_a_share_of_flipped_labels() {
    let config = DpoConfig {
        beta: 2.0,
        label_smoothing: 0.2,
    };
    let out = dpo_loss(
        &pair(&[-1.0], &[-2.5]),
        Some(&pair(&[-1.5], &[-2.0])),
        &config,
    )
    .unwrap();
    let margin = 2.0 * ((-1.0 + 1.5) - (-2.5 + 2.0));
    let want = 0.8 * logistic_loss(margin) + 0.2 * logistic_loss(-margin);
    assert_close(&numbers(&out.loss), &[want], EXACT, "loss");
}

#[test]
fn without_a_reference_its_log_probability_is_zero() {
    let config = DpoConfig::default();
    let out = dpo_loss(&pair(&[-1.0], &[-2.5]), None, &config).unwrap();
    assert_close(
        &numbers(&out.loss),
        &[logistic_loss(0.1 * 1.5)],
        EXACT,
        "loss",
    );
    assert_close(&numbers(&out.rewards.chosen), &[-0.1], EXACT, "reward");
}

#[test]
fn the_first_step_has_loss_ln_2_and_slope_half_beta() {
    for (beta, epsilon) in [(0.1, 0.0), (0.7, 0.2)] {
        let chosen = candle_core::Var::from_tensor(&vector(&[-3.0])).unwrap();
        let rejected = candle_core::Var::from_tensor(&vector(&[-5.0])).unwrap();
        let policy = Pair {
            chosen: chosen.as_tensor().clone(),
            rejected: rejected.as_tensor().clone(),
        };
        let config = DpoConfig {
            beta,
            label_smoothing: epsilon,
        };
        let loss = dpo_loss(&policy, Some(&policy), &config).unwrap().loss;
        assert_close(&numbers(&loss), &[2f64.ln()], 1e-15, "loss");
        let grads = loss.backward().unwrap();
        let slope = beta * (0.5 - epsilon);
        assert_close(
            &numbers(grads.get(&chosen).unwrap()),
            &[-slope],
            1e-15,
            "chosen",
        );
        assert_close(
            &numbers(grads.get(&rejected).unwrap()),
            &[slope],
            1e-15,
            "rejected",
        );
    }
}

#[test]
fn an_impossible_answer_costs_everything_and_pulls_as_hard_as_any() {
    use candle_core::Var;
    let inf = f64::INFINITY;
    let var = |x: &[f64]| Var::from_tensor(&vector(x)).unwrap();
    // chosen impossible, rejected impossible, the same to the reference, and both answers at once
    let chosen = var(&[-inf, -2.0, -1.0, -1.0, -inf]);
    let rejected = var(&[-2.0, -inf, -2.0, -2.0, -inf]);
    let policy = Pair {
        chosen: chosen.as_tensor().clone(),
        rejected: rejected.as_tensor().clone(),
    };
    let reference = Pair {
        chosen: vector(&[-1.0, -1.0, -inf, -1.0, -1.0]),
        rejected: vector(&[-1.0, -1.0, -1.0, -inf, -1.0]),
    };
    for epsilon in [0.0, 0.2] {
        let config = DpoConfig {
            beta: 0.5,
            label_smoothing: epsilon,
        };
        let loss = dpo_loss(&policy, Some(&reference), &config).unwrap().loss;
        let grads = loss.sum_all().unwrap().backward().unwrap();
        // −(1 − ε) log σ(m) − ε log σ(−m), m = −∞, ∞, ∞, −∞
        let ahead = if epsilon > 0.0 { inf } else { 0.0 };
        let losses = numbers(&loss);
        assert_eq!(losses[..4], [inf, ahead, ahead, inf]);
        assert!(losses[4].is_nan(), "−∞ against −∞ is no margin");
        // ∓β · [ (1 − ε) σ(−m) − ε σ(m) ]
        let (behind, ahead) = (-0.5 * (1.0 - epsilon), 0.5 * epsilon);
        let slopes = numbers(grads.get(&chosen).unwrap());
        let want = [behind, ahead, ahead, behind];
        assert_close(&slopes[..4], &want, EXACT, "chosen");
        let slopes = numbers(grads.get(&rejected).unwrap());
        assert_close(&slopes[..4], &want.map(|w| -w), EXACT, "rejected");
    }
}
