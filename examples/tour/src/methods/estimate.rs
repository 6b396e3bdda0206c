//! Estimates for a policy that can be sampled but not enumerated.
//!
//! ```text
//! π(y│x) = [ kept(y│x) + E_s revised(y│x, s) ] / P(the chain is whole│x)
//! ```
//! kept: the probability of a chain whose first answer is y and is kept; revised: the probability of
//! revising a first answer s into y. Chains (s₁, y₁), …, (s_N, y_N) are sampled for each prompt. The
//! expectation over s becomes a mean over the first answers of J other chains, times the share of
//! first answers that can be revised:
//!
//! ```text
//! E r  ≈ mean r(yᵢ)                        KL(π‖π_ref) ≈ mean lᵢ,     lᵢ = log π̂(yᵢ) − log π_ref(yᵢ)
//! ```
//! To first order, the logarithm of a mean of J terms is too small by half its relative variance, which
//! is added back. Standard errors are those of the means, prompt by prompt. The standard error of the
//! regret R*(KL) − E r is that of b·lᵢ − r(yᵢ), with b the slope of the frontier at this KL.

use super::conditions::log_probs;
use crate::Result;
use crate::lab::{Lab, Ran};
use crate::report::{Entry, Errors};
use crate::world::{Answer, PROMPTS};
use candle_align::Sequence;
use candle_core::DType;
use rand::rngs::StdRng;
use std::ops::Range;
use support::transformer::Transformer;

/// One sample for a prompt: the first answer and the last, if they are answers.
pub struct Chain {
    pub prompt: usize,
    pub draft: Option<usize>,
    pub answer: Option<usize>,
}

/// A method that revises.
pub trait Revision {
    /// [`crate::lab::Sizes::chains`] chains for each prompt, in the order of the prompts.
    fn draw(&self, lab: &Lab, policy: &Transformer, rng: &mut StdRng) -> Result<Vec<Chain>>;

    /// The chain that keeps its first answer; its learned tokens are all that the model writes. `None`
    /// if no chain can end this way.
    fn kept(&self, lab: &Lab, answer: Answer) -> Result<Option<Sequence>>;

    /// Whether a first answer is always kept: no chain revises it.
    fn stands(&self, draft: Answer) -> bool;

    /// The chain that revises a first answer into this one; its learned tokens are what the model
    /// writes after the first answer.
    fn revised(&self, lab: &Lab, draft: usize, answer: Answer) -> Result<Sequence>;
}

/// Samples chains and estimates the policy from them.
pub fn estimate(
    lab: &Lab,
    ran: Ran,
    revision: &impl Revision,
    policy: &Transformer,
    rng: &mut StdRng,
) -> Result<Entry> {
    let chains = revision.draw(lab, policy, rng)?;
    let (mut reward, mut kl) = (Vec::new(), Vec::new());
    let (mut whole, mut wins) = (0.0, 0.0);
    for chains in chains.chunks(lab.sizes.chains) {
        let answers: Vec<(usize, Answer)> = chains
            .iter()
            .enumerate()
            .filter_map(|(at, c)| Some((at, c.answer?)))
            .map(|(at, outcome)| {
                (
                    at,
                    Answer {
                        prompt: chains[at].prompt,
                        outcome,
                    },
                )
            })
            .collect();
        let share = answers.len() as f64 / chains.len() as f64;
        whole += share / PROMPTS as f64;
        if answers.len() < 2 {
            continue;
        }
        let log_p = log_mixture(lab, revision, policy, chains, &answers)?;
        kl.push(
            log_p
                .iter()
                .zip(&answers)
                .map(|(log_p, (_, a))| {
                    log_p - share.ln() - lab.reference_log_probs[a.prompt][a.outcome]
                })
                .collect::<Vec<f64>>(),
        );
        reward.push(
            answers
                .iter()
                .map(|(_, a)| lab.reward(*a))
                .collect::<Vec<f64>>(),
        );
        let won: f64 = answers.iter().map(|(_, a)| lab.beats_reference(*a)).sum();
        wins += won / answers.len() as f64 / PROMPTS as f64;
    }
    if reward.len() < PROMPTS {
        return Ok(Entry {
            escaped: Some(1.0 - whole),
            note: "hardly any chain gives an answer, so the policy cannot be estimated".into(),
            ..Entry::of(ran)
        });
    }
    let (expected, moved) = (mean(&reward), mean(&kl));
    let best = lab.frontier().at_kl(moved);
    let slope = if best.eta > 0.0 { 1.0 / best.eta } else { 0.0 };
    let regret: Vec<Vec<f64>> = kl
        .iter()
        .zip(&reward)
        .map(|(kl, reward)| kl.iter().zip(reward).map(|(l, r)| slope * l - r).collect())
        .collect();
    Ok(Entry {
        reward: Some(expected),
        kl: Some(moved),
        regret: Some(best.reward - expected),
        error: Some(Errors {
            reward: standard_error(&reward),
            kl: standard_error(&kl),
            regret: standard_error(&regret),
        }),
        win_rate: Some(wins),
        escaped: Some(1.0 - whole),
        ..Entry::of(ran)
    })
}

/// log [ kept(y) + mean over other chains of revised(y│s) ] of each answer.
fn log_mixture(
    lab: &Lab,
    revision: &impl Revision,
    policy: &Transformer,
    chains: &[Chain],
    answers: &[(usize, Answer)],
) -> Result<Vec<f64>> {
    // The chains whose first answer may be revised.
    let open: Vec<(usize, usize)> = chains
        .iter()
        .enumerate()
        .filter_map(|(at, c)| Some((at, c.prompt, c.draft?)))
        .filter(|&(_, prompt, outcome)| !revision.stands(Answer { prompt, outcome }))
        .map(|(at, _, draft)| (at, draft))
        .collect();
    let share = open.len() as f64 / chains.len() as f64;
    let mut sequences = Vec::new();
    // The chains of each answer.
    let mut kept = Vec::new();
    let mut revised = Vec::new();
    for &(at, answer) in answers {
        let first = sequences.len();
        sequences.extend(revision.kept(lab, answer)?);
        kept.push(first..sequences.len());
        let first = sequences.len();
        let behind = open.partition_point(|&(other, _)| other <= at);
        let others = open[behind..].iter().chain(&open[..behind]);
        for &(_, draft) in others.filter(|o| o.0 != at).take(lab.sizes.drafts) {
            sequences.push(revision.revised(lab, draft, answer)?);
        }
        revised.push(first..sequences.len());
    }
    let p = probabilities(policy, &sequences)?;
    let log = |(kept, revised): (Range<usize>, Range<usize>)| {
        let (mean, variance) = mean_and_variance(&p[revised]);
        let p = p[kept].iter().sum::<f64>() + share * mean;
        p.ln() + 0.5 * share * share * variance / (p * p)
    };
    Ok(kept.into_iter().zip(revised).map(log).collect())
}

/// Of some numbers, the mean and how far it varies; 0 if there are none.
fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n.max(1.0);
    let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    (mean, squares / (n - 1.0).max(1.0) / n.max(1.0))
}

/// The probabilities of the learned tokens of sequences, given the others.
fn probabilities(policy: &Transformer, sequences: &[Sequence]) -> Result<Vec<f64>> {
    let mut all = Vec::with_capacity(sequences.len());
    // A few at a time, so that the tensors stay inside the cache.
    for some in sequences.chunks(256) {
        let sums = log_probs(policy, some, None)?.sum()?.detach();
        let sums = sums.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        all.extend(sums.into_iter().map(f64::exp));
    }
    Ok(all)
}

/// The mean over prompts of the means.
fn mean(values: &[Vec<f64>]) -> f64 {
    let means = values.iter().map(|v| mean_and_variance(v).0);
    means.sum::<f64>() / values.len() as f64
}

/// The standard error of [`mean`].
fn standard_error(values: &[Vec<f64>]) -> f64 {
    let variances = values.iter().map(|v| mean_and_variance(v).1);
    variances.sum::<f64>().sqrt() / values.len() as f64
}
