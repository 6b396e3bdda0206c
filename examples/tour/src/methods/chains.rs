//! Chains of a first answer and a better one after it: training and sampling.
//!
//! The policy is the distribution of the answer at the end of a chain. Its probabilities are sums over
//! all first drafts, which are too many to enumerate, so chains are sampled and the policy is
//! estimated: `estimate`. A chain that is cut off, or whose parts do not fit, gives no answer and is
//! sampled again; the share of such chains is reported.

use super::Title;
use super::conditions::log_probs;
use super::estimate::{Revision, estimate};
use crate::Result;
use crate::lab::{Lab, Optimization, Ran, generator};
use crate::report::Entry;
use crate::world::{Answer, PROMPTS};
use candle_align::{Reduction, Sample, SamplingConfig, Sequence, SftConfig, sample, sft_loss};
use candle_core::{Device, Tensor};
use indicatif::MultiProgress;
use rand::rngs::StdRng;
use serde::Serialize;
use std::time::Instant;
use support::transformer::Transformer;

/// Settings of a run on chains.
#[derive(Serialize)]
struct ChainSettings<F> {
    loss: SftConfig,
    format: F,
    data: &'static str,
    chains_per_step: usize,
    chains_drawn: usize,
    drafts_averaged: usize,
    #[serde(flatten)]
    plan: Optimization,
}

/// The parts of chains.
pub struct Lesson<F> {
    pub format: F,
    pub data: &'static str,
    /// The purpose of the random numbers.
    pub purpose: u64,
}

/// Trains on the chains that `lesson` gives, then samples some.
pub fn on_chains(
    lab: &Lab,
    title: Title,
    bars: &MultiProgress,
    Lesson {
        format,
        data,
        purpose,
    }: Lesson<impl Serialize>,
    revision: &impl Revision,
    mut lesson: impl FnMut(&mut StdRng) -> Result<Vec<Sequence>>,
) -> Result<Entry> {
    let start = Instant::now();
    let plan = Optimization {
        steps: lab.chain_steps,
        learning_rate: 1e-2,
    };
    let settings = ChainSettings {
        loss: SftConfig::default(),
        format,
        data,
        chains_per_step: lab.sizes.batch,
        chains_drawn: lab.sizes.chains * PROMPTS,
        drafts_averaged: lab.sizes.drafts,
        plan,
    };
    let policy = lab.reference.trainable()?;
    let mut rng = generator(lab.seed, purpose);
    let curve = lab.train(
        title.label,
        plan,
        policy.vars(),
        bars,
        |_| {
            let log_probs = log_probs(&policy, &lesson(&mut rng)?, None)?;
            let loss = sft_loss(&log_probs, None, &settings.loss)?;
            Ok(loss.reduce(Reduction::SequenceMean)?)
        },
        // Chains are sampled only at the end.
        |_| Ok(None),
    )?;
    let ran = Ran::new(title, &settings, curve, start)?;
    let mut rng = generator(lab.seed, purpose + 100);
    estimate(lab, ran, revision, &policy, &mut rng)
}

/// The pairs of a batch: the chosen answers and the rejected ones.
pub fn pairs(lab: &Lab, rng: &mut StdRng) -> Vec<(Answer, Answer)> {
    let answers = lab.pair_batch(rng);
    let (chosen, rejected) = answers.split_at(answers.len() / 2);
    let both = chosen.iter().zip(rejected);
    both.map(|(&good, &bad)| (good, bad)).collect()
}

/// What a model writes after some contexts, until `end`.
pub fn written(
    policy: &Transformer,
    contexts: &[Vec<u32>],
    end: u32,
    longest: usize,
    rng: &mut StdRng,
) -> Result<Vec<Sample>> {
    let model = |tokens: &Tensor| Ok(policy.forward(tokens)?.logits);
    let config = SamplingConfig {
        max_new_tokens: longest,
        ends: vec![end],
        ..Default::default()
    };
    let mut rows = Vec::new();
    // A few at a time, so that the tensors stay inside the cache.
    for some in contexts.chunks(256) {
        rows.extend(sample(model, some, &config, &Device::Cpu, rng)?.rows);
    }
    Ok(rows)
}

/// The prompts of all sampled chains.
pub fn every_prompt(lab: &Lab) -> impl Iterator<Item = usize> {
    let chains = lab.sizes.chains;
    (0..PROMPTS).flat_map(move |prompt| std::iter::repeat_n(prompt, chains))
}
