//! What a seed decides: the distribution of demonstrations, and the rewards.

use super::policy::{Policy, log_softmax};
use super::{CONTENT, PROMPT_SYMBOLS, PROMPTS, PerAnswer, SYMBOLS, World};
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

impl World {
    /// Next symbols that depend on the prompt, the last symbol and the position.
    pub(super) fn draw_demonstrations(&self, rng: &mut StdRng) -> Policy {
        let by_first = normals(PROMPT_SYMBOLS * SYMBOLS, rng);
        let by_second = normals(PROMPT_SYMBOLS * SYMBOLS, rng);
        let by_last = normals((SYMBOLS + 1) * SYMBOLS, rng);
        let by_position = normals((self.tokens + 1) * SYMBOLS, rng);
        let mut log_next = Vec::new();
        for prompt in 0..PROMPTS {
            let [first, second] = self.prompt(prompt).map(|s| s as usize);
            for prefix in 0..self.prefixes() {
                let content = self.content(prefix);
                let last = content.last().map_or(SYMBOLS, |&s| s as usize);
                let logits: Vec<f64> = (0..SYMBOLS)
                    .map(|symbol| {
                        0.5 * by_first[first * SYMBOLS + symbol]
                            + 0.5 * by_second[second * SYMBOLS + symbol]
                            + 0.7 * by_last[last * SYMBOLS + symbol]
                            + 0.3 * by_position[content.len() * SYMBOLS + symbol]
                    })
                    .collect();
                log_next.extend(log_softmax(&logits));
            }
        }
        Policy {
            log_next,
            prefixes: self.prefixes(),
        }
    }

    /// A reward for symbols that suit the prompt, for transitions between symbols, and for length.
    /// Under the demonstrations it has mean 0 for each prompt and variance 1 overall.
    pub(super) fn draw_rewards(&self, rng: &mut StdRng) -> PerAnswer {
        let symbols = normals(PROMPT_SYMBOLS * CONTENT, rng);
        let steps = normals(PROMPT_SYMBOLS * CONTENT * CONTENT, rng);
        let places = normals(self.tokens * CONTENT, rng);
        let lengths = normals(PROMPTS * (self.tokens + 1), rng);
        let mut rewards: PerAnswer = (0..PROMPTS)
            .map(|prompt| {
                let [first, second] = self.prompt(prompt).map(|s| s as usize);
                (0..self.outcomes())
                    .map(|outcome| {
                        let content = self.content(outcome);
                        let at = |t: usize| content[t] as usize;
                        let length = content.len();
                        0.5 * lengths[prompt * (self.tokens + 1) + length]
                            + (0..length)
                                .map(|t| {
                                    0.8 * symbols[first * CONTENT + at(t)]
                                        + 0.5 * places[t * CONTENT + at(t)]
                                })
                                .sum::<f64>()
                            + (1..length)
                                .map(|t| {
                                    0.5 * steps[(second * CONTENT + at(t - 1)) * CONTENT + at(t)]
                                })
                                .sum::<f64>()
                    })
                    .collect()
            })
            .collect();
        let log_d = self.log_probs(&self.demonstrations);
        let mut variance = 0.0;
        for (rewards, log_d) in rewards.iter_mut().zip(&log_d) {
            let mean: f64 = rewards.iter().zip(log_d).map(|(r, l)| r * l.exp()).sum();
            for (reward, l) in rewards.iter_mut().zip(log_d) {
                *reward -= mean;
                variance += l.exp() * *reward * *reward / PROMPTS as f64;
            }
        }
        for reward in rewards.iter_mut().flatten() {
            *reward /= variance.sqrt();
        }
        rewards
    }
}

fn normals(count: usize, rng: &mut StdRng) -> Vec<f64> {
    (0..count).map(|_| StandardNormal.sample(rng)).collect()
}
