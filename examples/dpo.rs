//! §3.2.1, ranking: DPO reaches RLHF's optimum without a reward, if all answers are compared.
//!
//! ```text
//! cargo run --example dpo
//! ```
//! Four answers; people prefer i to j with P = σ(rᵢ − rⱼ). RLHF knows the rewards and follows the
//! policy gradient of E r − β KL, β = ½. DPO knows only the preferences:
//!
//! ```text
//!                              A       B       C       D     E r      KL
//! π_ref                    0.400   0.300   0.200   0.100   0.600   0.000
//! π*                       0.046   0.257   0.063   0.633   1.555   0.957
//! RLHF, told the rewards   0.046   0.257   0.063   0.633   1.555   0.957
//! DPO on all pairs         0.046   0.257   0.063   0.633   1.555   0.957
//! DPO, D never compared    0.117   0.646   0.158   0.079   0.883   0.296
//! ```
//! What you should see: both reach the same policy, π* ∝ π_ref · e^{r/β}. But if the best answer is
//! left out of the comparisons, its probability falls from 0.100 to 0.079, where π* gives it 0.633: the
//! loss says nothing about it, and it pays for what the others gain. The ratios among the compared
//! answers are those of π*.
//!
//! Change `&[0, 1, 2]` in `run` to `&[1, 2, 3]` and see: A is never compared instead, and in the last
//! row it keeps 0.334 where π* gives it 0.046.

#[path = "tabular/policy.rs"]
mod policy;

use candle_align::{
    DpoConfig, Pair, PpoConfig, ShapedRewardsConfig, TokenLogProbs, dpo_loss, ppo_policy_loss,
    shaped_rewards,
};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::log_softmax;
use policy::{
    BETA, REFERENCE, REWARDS, Result, descend, log, optimum, pick, policies, preferences, softmax,
};

/// The policies at the end of each run.
pub struct Report {
    pub policies: Vec<(&'static str, Vec<f64>)>,
}

pub fn run() -> Result<Report> {
    let start = log(&REFERENCE);
    let dpo = |answers: &[usize], alpha| descend(&start, alpha, 400, |theta| dpo(theta, answers));
    let reached = vec![
        ("π_ref", REFERENCE.to_vec()),
        ("π*", optimum()),
        (
            "RLHF, told the rewards",
            softmax(&descend(&start, 4.0, 400, policy_gradient)?),
        ),
        ("DPO on all pairs", softmax(&dpo(&[0, 1, 2, 3], 20.0)?)),
        ("DPO, D never compared", softmax(&dpo(&[0, 1, 2], 20.0)?)),
    ];
    Ok(Report { policies: reached })
}

/// The expected DPO loss over preferences among some of the answers.
fn dpo(theta: &Tensor, answers: &[usize]) -> candle_align::Result<Tensor> {
    let pairs = preferences(answers);
    let of = |log_probs: &Tensor| -> candle_align::Result<Pair<Tensor>> {
        Ok(Pair {
            chosen: pick(log_probs, pairs.iter().map(|pair| pair.0))?,
            rejected: pick(log_probs, pairs.iter().map(|pair| pair.1))?,
        })
    };
    let policy = of(&log_softmax(theta, D::Minus1)?)?;
    let reference = of(&Tensor::new(log(&REFERENCE), &Device::Cpu)?)?;
    let config = DpoConfig {
        beta: BETA,
        ..Default::default()
    };
    let losses = dpo_loss(&policy, Some(&reference), &config)?.loss;
    // each pair occurs in both orders, so that the P of all pairs add up to half their number
    let shares: Vec<f64> = pairs
        .iter()
        .map(|pair| 2.0 * pair.2 / pairs.len() as f64)
        .collect();
    Ok((losses * Tensor::new(shares, &Device::Cpu)?)?.sum_all()?)
}

/// PPO's expected loss over the policy's own answers, with the reward r − β · log(π/π_ref).
fn policy_gradient(theta: &Tensor) -> candle_align::Result<Tensor> {
    let log_policy = log_softmax(theta, D::Minus1)?.unsqueeze(1)?; // four answers of one token
    let policy = TokenLogProbs::new(&log_policy, &Tensor::ones((4, 1), DType::U8, &Device::Cpu)?)?;
    let reference = Tensor::new(log(&REFERENCE), &Device::Cpu)?.unsqueeze(1)?;
    let rewards = Tensor::new(&REWARDS, &Device::Cpu)?;
    let config = ShapedRewardsConfig {
        beta: BETA,
        ..Default::default()
    };
    let advantages = shaped_rewards(&policy, &reference, &rewards, &config)?;
    let loss = ppo_policy_loss(&policy, policy.values(), &advantages, &PpoConfig::default())?;
    Ok((loss.loss.loss * policy.values().exp()?.detach())?.sum_all()?)
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
