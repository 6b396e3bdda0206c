//! A policy over the whole world: its table from a model, log π of every answer, win rates.

use super::policy::{Policy, choose, log_softmax};
use super::{Answer, CONTENT, END, PROMPTS, PerAnswer, SYMBOLS, VOCABULARY, World};
use candle_align::Result;
use candle_core::{DType, Device, Tensor};
use rand::rngs::StdRng;
use support::transformer::Transformer;

impl World {
    /// What a model answers to every prompt.
    pub fn tabulate(&self, model: &Transformer) -> Result<Policy> {
        let prompts: Vec<Vec<u32>> = (0..PROMPTS).map(|p| self.prompt(p).to_vec()).collect();
        Ok(self.tabulate_behind(model, &prompts)?.within_answers())
    }

    /// A model's next-symbol distributions after each of some contexts, under the softmax over its
    /// whole vocabulary: one teacher-forced pass over the longest prefixes.
    pub fn tabulate_behind(&self, model: &Transformer, contexts: &[Vec<u32>]) -> Result<Policy> {
        let deepest = self.tokens - 1;
        let rows = CONTENT.pow(deepest as u32);
        let mut log_next = Vec::with_capacity(contexts.len() * self.prefixes() * SYMBOLS);
        // One context at a time, so that the tensors stay inside the cache.
        for context in contexts {
            let time = context.len() + deepest;
            let tokens: Vec<u32> = (0..rows)
                .flat_map(|row| {
                    let content = self.content(self.offsets[deepest] + row);
                    context.iter().copied().chain(content)
                })
                .collect();
            let tokens = Tensor::from_vec(tokens, (rows, time), &Device::Cpu)?;
            let logits = model
                .forward(&tokens)?
                .logits
                .detach()
                .narrow(1, context.len() - 1, self.tokens)?
                .to_dtype(DType::F64)?
                .flatten_all()?
                .to_vec1::<f64>()?;
            for length in 0..self.tokens {
                // All rows with a prefix agree on what follows it; take the first.
                let stride = CONTENT.pow((deepest - length) as u32);
                for prefix in 0..CONTENT.pow(length as u32) {
                    let at = (prefix * stride * self.tokens + length) * VOCABULARY;
                    let all = log_softmax(&logits[at..at + VOCABULARY]);
                    log_next.extend_from_slice(&all[..SYMBOLS]);
                }
            }
        }
        Ok(Policy {
            log_next,
            prefixes: self.prefixes(),
        })
    }

    /// log π of every answer: one pass down the tree.
    pub fn log_probs(&self, policy: &Policy) -> PerAnswer {
        (0..policy.contexts())
            .map(|prompt| {
                // log π(prefix) first, then the end after it; the longest strings need no end.
                let mut prefix = vec![0.0; self.outcomes()];
                for parent in 0..self.prefixes() {
                    let length = self.content_length(parent);
                    let child =
                        self.offsets[length + 1] + (parent - self.offsets[length]) * CONTENT;
                    let next = policy.next(prompt, parent);
                    for symbol in 0..CONTENT {
                        prefix[child + symbol] = prefix[parent] + next[symbol];
                    }
                }
                for (ended, log_p) in prefix.iter_mut().take(self.prefixes()).enumerate() {
                    *log_p += policy.next(prompt, ended)[END as usize];
                }
                prefix
            })
            .collect()
    }

    /// One answer from a policy, token by token.
    pub fn sample(&self, policy: &Policy, prompt: usize, rng: &mut StdRng) -> Answer {
        let mut content = Vec::new();
        while content.len() < self.tokens {
            match choose(policy.next(prompt, self.number(&content)), rng) {
                END => break,
                symbol => content.push(symbol),
            }
        }
        Answer {
            prompt,
            outcome: self.number(&content),
        }
    }

    /// P(the policy's answer has the greater reward) + ½ P(equal), against an answer of the other.
    pub fn win_rate(&self, policy: &PerAnswer, other: &PerAnswer) -> f64 {
        let per_prompt = (0..PROMPTS).map(|prompt| {
            let rewards = &self.rewards[prompt];
            let order = &self.order[prompt];
            let (mut below, mut wins, mut i) = (0.0, 0.0, 0);
            while i < order.len() {
                let tied = order[i..]
                    .iter()
                    .take_while(|&&j| rewards[j] == rewards[order[i]])
                    .count();
                let (mut here, mut there) = (0.0, 0.0);
                for &j in &order[i..i + tied] {
                    here += policy[prompt][j].exp();
                    there += other[prompt][j].exp();
                }
                wins += here * (below + 0.5 * there);
                below += there;
                i += tied;
            }
            wins
        });
        per_prompt.sum::<f64>() / PROMPTS as f64
    }
}
