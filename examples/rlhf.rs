//! §3.1, RLHF: a KL estimate in the reward and one in the loss train different policies.
//!
//! ```text
//! cargo run --example rlhf
//! ```
//! PPO's objective with β = ½ on four answers. Each step sums over all answers instead of sampling.
//! With x = log π_ref − log π at an answer, k₁ = −x, k₂ = x²/2, k₃ = eˣ − 1 − x:
//!
//! ```text
//!                              A       B       C       D     E r      KL
//! π_ref                    0.400   0.300   0.200   0.100   0.600   0.000
//! π*                       0.046   0.257   0.063   0.633   1.555   0.957
//! k₁ in the reward         0.046   0.257   0.063   0.633   1.555   0.957
//! k₂ as a loss             0.046   0.257   0.063   0.633   1.555   0.957
//! k₃ as a loss             0.097   0.140   0.064   0.700   1.571   1.045
//! k₁ as a loss             0.000   0.000   0.000   1.000   2.000   2.301
//! k₁ in the reward, KL ½   0.109   0.332   0.110   0.449   1.285   0.500
//! ```
//! What you should see: k₁ in the reward and k₂ as a loss reach π* ∝ π_ref · e^{r/β}. k₃ as a loss has
//! the gradient of KL(π_ref‖π) and ends at π = β π_ref/(λ − r), up to 0.117 per answer away. k₁ as a
//! loss is no penalty at all: its gradient is 0 on average, and the policy collapses to the best
//! answer. Yet k₁ and k₃ estimate the same number. In the last row a controller adjusts β until the KL
//! is ½. It ends at π* for another β, 0.714: the best policy at that KL.
//!
//! Change `steered(0.5)` to `steered(1.045)` and see: at the KL of `k₃ as a loss` the last row has a
//! higher E r, 1.598 instead of 1.571.
//!
//! Steps over all answers have no rollout to split into minibatches; `Experience::minibatches` is for
//! sampled ones.

#[path = "tabular/policy.rs"]
mod policy;

use candle_align::online::controller::KlController;
use candle_align::{
    KlEstimator, PpoConfig, ShapedRewardsConfig, TokenLogProbs, kl_loss, ppo_policy_loss,
    shaped_rewards,
};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::log_softmax;
use policy::{BETA, REFERENCE, REWARDS, Result, descend, kl, log, optimum, policies, softmax};
use std::cell::Cell;

/// The place of the KL estimate.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Reward,
    Loss,
}

/// The policies at the end of each run.
pub struct Report {
    pub policies: Vec<(&'static str, Vec<f64>)>,
}

pub fn run() -> Result<Report> {
    let train = |place, estimator, alpha, steps| -> Result<Vec<f64>> {
        let loss = |theta: &Tensor| objective(theta, place, estimator, BETA);
        Ok(softmax(&descend(&log(&REFERENCE), alpha, steps, loss)?))
    };
    let reached = vec![
        ("π_ref", REFERENCE.to_vec()),
        ("π*", optimum()),
        (
            "k₁ in the reward",
            train(Place::Reward, KlEstimator::K1, 4.0, 300)?,
        ),
        (
            "k₂ as a loss",
            train(Place::Loss, KlEstimator::K2, 4.0, 300)?,
        ),
        (
            "k₃ as a loss",
            train(Place::Loss, KlEstimator::K3, 1.0, 1500)?,
        ),
        (
            "k₁ as a loss",
            train(Place::Loss, KlEstimator::K1, 2.0, 2000)?,
        ),
        ("k₁ in the reward, KL ½", steered(0.5)?),
    ];
    Ok(Report { policies: reached })
}

/// k₁ in the reward, with a β that follows the KL, by at most a factor of 1 ± 0.1 · 0.2 per step.
fn steered(target: f64) -> Result<Vec<f64>> {
    let answers = 1000;
    let controller = Cell::new(KlController::Adaptive {
        beta: BETA,
        target,
        horizon: 10.0 * answers as f64,
    });
    let loss = |theta: &Tensor| {
        let now = controller.get();
        let moved = kl(&softmax(&theta.to_vec1()?), &REFERENCE);
        controller.set(now.update(moved, answers)?);
        objective(theta, Place::Reward, KlEstimator::K1, now.beta())
    };
    Ok(softmax(&descend(&log(&REFERENCE), 4.0, 300, loss)?))
}

/// Σ over the answers of π(y), held fixed, times the loss of a draw of y.
fn objective(
    theta: &Tensor,
    place: Place,
    estimator: KlEstimator,
    beta: f64,
) -> candle_align::Result<Tensor> {
    let log_policy = log_softmax(theta, D::Minus1)?.unsqueeze(1)?; // four answers of one token
    let policy = TokenLogProbs::new(&log_policy, &Tensor::ones((4, 1), DType::U8, &Device::Cpu)?)?;
    let reference = Tensor::new(log(&REFERENCE), &Device::Cpu)?.unsqueeze(1)?;
    let rewards = Tensor::new(&REWARDS, &Device::Cpu)?;

    // r, minus β times the estimate if it is in the reward; the policy drew the answers just now
    let [in_reward, in_loss] = match place {
        Place::Reward => [beta, 0.0],
        Place::Loss => [0.0, beta],
    };
    let config = ShapedRewardsConfig {
        beta: in_reward,
        estimator,
    };
    let advantages = shaped_rewards(&policy, &reference, &rewards, &config)?;
    let surrogate = ppo_policy_loss(&policy, policy.values(), &advantages, &PpoConfig::default())?;
    let mut loss = surrogate.loss.loss;
    if place == Place::Loss {
        loss = (loss + (kl_loss(&policy, &reference, estimator)?.loss * in_loss)?)?;
    }
    Ok((loss * policy.values().exp()?.detach())?.sum_all()?)
}

impl Report {
    pub fn table(&self) -> String {
        policies(&self.policies)
    }
}

fn main() -> Result<()> {
    println!("{}", run()?.table());
    Ok(())
}
