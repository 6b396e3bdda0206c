//! Where the policy losses without a critic arrive, on four answers whose advantages are known exactly.

use crate::common::policy::{
    BETA, REFERENCE, REWARDS, answers, descend, distance, log, reference, tilted,
};
use crate::common::{numbers, vector};
use candle_align::online::policy_gradient::*;
use candle_align::online::rollout_correction::{UnbiasedKlConfig, unbiased_kl_loss};
use candle_align::{PolicyLoss, Result, TokenLogProbs};
use candle_core::Tensor;

/// What gradient descent reaches where the objective is smooth at its optimum.
const REACHED: f64 = 1e-9;

/// Σᵢ stop[wᵢ] · lossᵢ.
fn weighed(weights: &Tensor, loss: &Tensor) -> Result<Tensor> {
    Ok((loss.squeeze(1)? * weights.detach())?.sum_all()?)
}

/// r − Σ p r, of the answers' probabilities.
fn advantages(p: &Tensor) -> Result<Tensor> {
    let rewards = vector(&REWARDS);
    let baseline = (&rewards * p.detach())?.sum_all()?;
    Ok(rewards.broadcast_sub(&baseline)?)
}

/// The policy gradient on fresh draws, and β times the KL of the loss whose gradient is right.
#[test]
fn the_kl_times_the_ratio_in_the_loss_arrives_at_the_tilted_reference() {
    type Loss = fn(&TokenLogProbs, &Tensor) -> Result<Tensor>;
    let losses: [(&str, Loss); 3] = [
        ("grpo_loss", |new, a| {
            Ok(grpo_loss(new, new.values(), a, &GrpoConfig::default())?
                .loss
                .loss)
        }),
        ("reinforce_loss", |new, a| Ok(reinforce_loss(new, a)?.loss)),
        ("cispo_loss", |new, a| {
            Ok(cispo_loss(new, new.values(), a, &CispoConfig::default())?
                .loss
                .loss)
        }),
    ];
    let want = tilted(&REFERENCE, &REWARDS, BETA);
    for (name, loss) in losses {
        let got = descend(&log(&REFERENCE), 2.0, 600, |log_policy| {
            let policy = answers(log_policy)?;
            let p = log_policy.exp()?;
            let gain = weighed(&p, &loss(&policy, &advantages(&p)?)?)?;
            let config = UnbiasedKlConfig::default();
            let kl = unbiased_kl_loss(&policy, policy.values(), &reference(), &config)?;
            Ok((gain + (weighed(&p, &kl.loss)? * BETA)?)?)
        });
        assert!(distance(&got, &want) < REACHED, "{name}: {got:?}, {want:?}");
    }
}

/// Many inner steps on the draws of one old policy.
fn inner_steps(
    loss: impl Fn(&TokenLogProbs, &Tensor, &Tensor) -> Result<PolicyLoss>,
) -> (Vec<f64>, f64) {
    let old = vector(&REFERENCE);
    let a = advantages(&old).unwrap();
    let value = |log_policy: &Tensor| -> Result<Tensor> {
        let out = loss(&answers(log_policy)?, &reference(), &a)?;
        weighed(&old, &out.loss.loss)
    };
    let p = descend(&log(&REFERENCE), 0.5, 400, value);
    let reached = numbers(&value(&vector(&log(&p))).unwrap())[0];
    (p, reached)
}

#[test]
fn a_higher_upper_clip_reaches_its_own_least_loss() {
    // r − E r: −0.6, 0.4, −0.1, 1.4 under probabilities 0.4, 0.3, 0.2, 0.1
    let (up, down) = (0.3 * 0.4 + 0.1 * 1.4, 0.4 * 0.6 + 0.2 * 0.1);
    for (config, high) in [(GrpoConfig::default(), 0.2), (GrpoConfig::dapo(), 0.28)] {
        let (_, reached) = inner_steps(|new, old, a| grpo_loss(new, old, a, &config));
        let least = -(1.0 + high) * up + (1.0 - 0.2) * down;
        assert!((reached - least).abs() < 1e-12, "{reached} against {least}");
    }
}

#[test]
fn dppo_stops_where_the_probability_has_moved_by_delta() {
    let config = DppoConfig {
        low: 0.05,
        high: 0.05,
        ..DppoConfig::default()
    };
    let steps = |alpha, count| {
        let old = vector(&REFERENCE);
        let a = advantages(&old).unwrap();
        descend(&log(&REFERENCE), alpha, count, |log_policy| {
            let out = dppo_loss(&answers(log_policy)?, &reference(), &a, &config)?;
            weighed(&old, &out.loss.loss)
        })
    };
    // small steps overshoot the bounds by little: the answer of the largest advantage by δ, whatever its ratio
    let p = steps(0.01, 4000);
    assert!((p[3] - (0.1 + 0.05)).abs() < 2e-3, "{p:?}");
    assert!(
        p[3] / 0.1 > 1.4,
        "beyond the ratio at which GRPO stops: {p:?}"
    );
}

#[test]
fn token_dro_settles_where_every_log_ratio_has_its_target() {
    // E over the old policy of −Â log π + (β/2) d²: stationary where p_old (Â − β d) ∝ π
    let beta = 2.0;
    let old = vector(&REFERENCE);
    let a = advantages(&old).unwrap();
    let p = descend(&log(&REFERENCE), 0.5, 3000, |log_policy| {
        let config = TokenDroConfig { beta };
        let loss = token_dro_loss(&answers(log_policy)?, &reference(), &a, &config)?;
        weighed(&old, &loss.loss)
    });
    let ratios: Vec<f64> = (0..4)
        .map(|i| {
            let d = (p[i] / REFERENCE[i]).ln();
            REFERENCE[i] * (numbers(&a)[i] - beta * d) / p[i]
        })
        .collect();
    let spread = ratios
        .iter()
        .fold(0.0f64, |s, r| s.max((r - ratios[0]).abs()));
    assert!(spread < REACHED, "{ratios:?}");
}
