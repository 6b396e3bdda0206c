//! The highest expected reward at each KL to the reference.

use super::PerAnswer;
use super::policy::log_softmax;

/// The best that any policy can do: E r against KL(π‖π_ref), reached by π_β ∝ π_ref · e^{r/β}.
///
/// One β for all prompts is optimal, because the mean KL is what counts.
pub struct Frontier<'a> {
    pub reference: &'a PerAnswer,
    pub rewards: &'a PerAnswer,
}

/// A policy on the frontier.
pub struct Best {
    /// 1/β; 0 is the reference.
    pub eta: f64,
    pub reward: f64,
    pub kl: f64,
}

impl Frontier<'_> {
    /// log π_β with 1/β = η.
    pub fn policy(&self, eta: f64) -> PerAnswer {
        let tilt = |(log_p, rewards): (&Vec<f64>, &Vec<f64>)| {
            let tilted: Vec<f64> = log_p
                .iter()
                .zip(rewards)
                .map(|(l, r)| l + eta * r)
                .collect();
            log_softmax(&tilted)
        };
        self.reference.iter().zip(self.rewards).map(tilt).collect()
    }

    /// The point of one η, without writing the policy down: KL = η·E r − log Z.
    pub fn at(&self, eta: f64) -> Best {
        let (mut reward, mut log_z) = (0.0, 0.0);
        for (log_p, rewards) in self.reference.iter().zip(self.rewards) {
            let best = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let (mut z, mut weighted) = (0.0, 0.0);
            for (l, r) in log_p.iter().zip(rewards) {
                let weight = (l + eta * (r - best)).exp();
                z += weight;
                weighted += weight * r;
            }
            reward += weighted / z;
            log_z += z.ln() + eta * best;
        }
        let prompts = self.reference.len() as f64;
        Best {
            eta,
            reward: reward / prompts,
            kl: (eta * reward - log_z) / prompts,
        }
    }

    /// The point of one KL, by bisection: KL increases with η.
    pub fn at_kl(&self, target: f64) -> Best {
        if target <= 0.0 {
            return self.at(0.0);
        }
        let (mut low, mut high) = (0.0, 1.0);
        while self.at(high).kl < target && high < 1e6 {
            (low, high) = (high, 2.0 * high);
        }
        for _ in 0..50 {
            let middle = 0.5 * (low + high);
            if self.at(middle).kl < target {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.at(high)
    }

    /// The largest KL that buys anything: −log π_ref(best answer), the mean over prompts.
    pub fn largest_kl(&self) -> f64 {
        let best = self.best_answers();
        let log_p = best.zip(self.reference).map(|(at, log_p)| -log_p[at]);
        log_p.sum::<f64>() / self.reference.len() as f64
    }

    /// What no policy exceeds at any KL: the mean over prompts of the best answer's reward.
    pub fn best_reward(&self) -> f64 {
        let best = self.best_answers();
        let rewards = best.zip(self.rewards).map(|(at, rewards)| rewards[at]);
        rewards.sum::<f64>() / self.rewards.len() as f64
    }

    /// The best answer to each prompt.
    pub fn best_answers(&self) -> impl Iterator<Item = usize> {
        self.rewards.iter().map(|r| {
            let at = (0..r.len()).max_by(|&a, &b| r[a].total_cmp(&r[b]));
            at.unwrap_or(0)
        })
    }
}
