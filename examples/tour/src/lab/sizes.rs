//! The sizes of a run, and those of a quick one.

use crate::world::VOCABULARY;
use support::transformer::Config;

/// The longest row that any method writes: Second Thoughts, three tokens taken out and three put in.
const LONGEST: usize = 29;

/// The sizes of a run.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// The most tokens of an answer.
    pub tokens: usize,
    pub model: Config,
    /// Labeled pairs for training, and the same number for testing.
    pub pairs: usize,
    /// Answers per step of SFT.
    pub demonstrations: usize,
    /// Pairs per step, or half as many lists of four.
    pub batch: usize,
    pub sft_steps: usize,
    pub steps: usize,
    /// The same for methods that write more than an answer.
    pub chain_steps: usize,
    /// Answers per round of RAFT, before the selection.
    pub raft_answers: usize,
    /// Sampled chains per prompt, for policies that are estimated instead of summed.
    pub chains: usize,
    /// First drafts per prompt, over which the probability of a final answer is averaged.
    pub drafts: usize,
    /// Points of a training curve.
    pub points: usize,
    /// Steps of every point of the second picture.
    pub point_steps: usize,
    /// Pairs in each of them.
    pub point_batch: usize,
}

impl Sizes {
    pub fn standard() -> Self {
        Self {
            tokens: 4,
            model: Config {
                vocabulary: VOCABULARY,
                dim: 32,
                heads: 2,
                layers: 2,
                max_len: LONGEST,
                feed_forward: 96,
            },
            pairs: 65536,
            demonstrations: 256,
            batch: 128,
            sft_steps: 600,
            steps: 500,
            chain_steps: 400,
            raft_answers: 16384,
            chains: 128,
            drafts: 16,
            points: 8,
            point_steps: 120,
            point_batch: 64,
        }
    }

    pub fn quick() -> Self {
        let standard = Self::standard();
        Self {
            tokens: 3,
            model: Config {
                dim: 16,
                feed_forward: 32,
                ..standard.model
            },
            pairs: 4096,
            demonstrations: 64,
            batch: 32,
            sft_steps: 150,
            steps: 100,
            chain_steps: 300,
            raft_answers: 2048,
            chains: 64,
            drafts: 8,
            points: 4,
            point_steps: 40,
            point_batch: 32,
        }
    }
}
