//! The names of the objectives.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The objectives: those of the survey, then those that came after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Objective {
    /// Supervised fine-tuning on the best answer (on lists: RAFT's update, with the file's answers)
    Sft,
    /// A reward model
    Reward,
    /// Direct preference optimization
    Dpo,
    /// Preference ranking optimization
    Pro,
    /// Sequence likelihood calibration, in the form of `slic_form`: rank, margin, list, expected_reward
    Slic,
    /// Rank responses to align with human feedback
    Rrhf,
    /// BRIO: ranks with a margin per place, and cross-entropy on the best answer
    Brio,
    /// Expected risk: the mean cost of the answers under the policy's shares
    #[value(alias = "expected-risk")]
    ExpectedRisk,
    /// Stable Alignment: imitates the best answer, with a margin in proportion to the ratings
    #[value(alias = "stable-alignment")]
    StableAlignment,
    /// Every answer after the words of its class: the best of a prompt, or not
    #[value(alias = "conditional-sft")]
    ConditionalSft,
    /// Conditional SFT with a weight for each class
    #[value(alias = "c-rlft")]
    CRlft,
    /// Chain of Hindsight: two answers in one row, each after words of feedback
    #[value(alias = "chain-of-hindsight")]
    ChainOfHindsight,
    /// Second Thoughts: the edits that turn a worse answer into the best one; needs similar answers
    #[value(alias = "second-thoughts")]
    SecondThoughts,
    /// SelFee: an answer, its verdict, the revised answer; without written feedback
    Selfee,
    /// Self-debug: a wrong answer, "wrong", the repaired one; needs answers marked right or wrong (`is_correct`)
    #[value(alias = "self-debug")]
    SelfDebug,

    /// IPO: a square around a fixed margin (this and all below need --model)
    Ipo,
    /// DPO with the likelihood of the chosen answer
    Rpo,
    /// Robust DPO: some preferences are flipped
    #[value(alias = "robust-dpo")]
    RobustDpo,
    /// DPO with a hinge
    #[value(alias = "hinge-dpo")]
    HingeDpo,
    /// EXO on pairs: the KL in the other direction
    #[value(alias = "exo-pair")]
    ExoPair,
    /// NCA on pairs: each answer against noise
    #[value(alias = "nca-pair")]
    NcaPair,
    /// BCO on pairs, without a shift
    #[value(alias = "bco-pair")]
    BcoPair,
    /// SPPO: log-ratios towards ±1/(2β)
    Sppo,
    /// APO-zero: chosen answers up, rejected ones down
    #[value(alias = "apo-zero")]
    ApoZero,
    /// APO-down: both down, rejected ones further
    #[value(alias = "apo-down")]
    ApoDown,
    /// AOT: quantiles of the margins of a micro-batch
    Aot,
    /// AOT: quantiles of the log-ratios of a micro-batch
    #[value(alias = "aot-unpaired")]
    AotUnpaired,
    /// DiscoPOP: a blend with an exponential
    Discopop,
    /// DPO under another divergence
    #[value(alias = "f-dpo")]
    FDpo,
    /// DPO on means per token
    #[value(alias = "length-normalized-dpo")]
    LengthNormalizedDpo,
    /// DPOP: a price for chosen answers that become less likely
    Dpop,
    /// R-DPO: a price for length
    #[value(alias = "r-dpo")]
    RDpo,
    /// TDPO 1: the divergence of every token inside the margin
    Tdpo1,
    /// TDPO 2: the same, against the rejected answer alone
    Tdpo2,
    /// LD-DPO: tokens beyond the shorter answer count less
    #[value(alias = "ld-dpo")]
    LdDpo,
    /// DPO with the weights of WPO
    Wpo,
    /// SPIN: DPO of the data's answers against those of the model at the start
    Spin,
    /// SimPO: means and a required lead, without a reference
    Simpo,
    /// ORPO: likelihood and the ratio of odds, without a reference
    Orpo,
    /// CPO: DPO without a reference, with the likelihood of the chosen answer
    Cpo,
    /// AlphaPO: SimPO under another shape of the reward
    #[value(alias = "alpha-po")]
    AlphaPo,
    /// SimPER: inverse perplexities
    Simper,
    /// KTO: answers with a label, around a baseline
    Kto,
    /// BCO: answers with a label, around their mean reward
    Bco,
    /// APO-zero on answers with a label
    #[value(alias = "apo-zero-unpaired")]
    ApoZeroUnpaired,

    /// NCA on lists: rewards as shares, each answer against noise
    Nca,
    /// InfoNCA: rewards as shares, the answers of a list against each other
    #[serde(alias = "infonca")]
    #[value(aliases = ["info-nca", "infonca"])]
    InfoNca,
    /// EXO on lists: the KL in the other direction
    Exo,
    /// REBEL: the difference of two log-ratios towards the difference of their rewards
    Rebel,
    /// TPO: a pair without a reference, and the likelihood of a third, gold answer
    Tpo,

    /// GKD: the whole distribution of a teacher (--teacher) at each token of the best answer
    Gkd,

    /// GRPO and its variants: the model's own answers judge each other (this and all below draw answers; see --reward)
    Grpo,
    /// RLOO: a reward less the mean of the others
    Rloo,
    /// PPO: a value model judges each token
    Ppo,
    /// RAFT: cross-entropy on the best of the model's own answers
    Raft,
    /// DPO on the best and the worst of the model's own answers
    #[value(alias = "online-dpo")]
    OnlineDpo,
}

/// How much of the reference's probabilities an objective reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reads {
    /// None: there is no reference.
    Nothing,
    /// The sum over each answer.
    Sums,
    /// One for each token.
    Tokens,
    /// The whole distribution at each token.
    Distributions,
}

impl std::fmt::Display for Objective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

impl Objective {
    /// Whether only `--model` trains it: it came after the survey, or draws answers.
    pub fn is_since(self) -> bool {
        self.is_pairs_since()
            || self.is_lists_since()
            || self.is_unpaired()
            || self == Self::Gkd
            || self.is_online()
    }

    /// Whether it learns from answers that the model draws.
    pub fn is_online(self) -> bool {
        (Self::Grpo as usize..=Self::OnlineDpo as usize).contains(&(self as usize))
    }

    /// Whether it came after the survey and compares two answers.
    pub fn is_pairs_since(self) -> bool {
        (Self::Ipo as usize..=Self::Simper as usize).contains(&(self as usize))
    }

    /// Whether it came after the survey and compares the answers of a list.
    pub fn is_lists_since(self) -> bool {
        self.is_rewarded() || self == Self::Tpo
    }

    /// Whether the rewards of answers count as numbers, and not only by their order.
    pub fn is_rewarded(self) -> bool {
        matches!(self, Self::Nca | Self::InfoNca | Self::Exo | Self::Rebel)
    }

    /// Whether it learns the best answer to a prompt, and no other.
    pub fn is_best(self) -> bool {
        matches!(self, Self::Sft | Self::Gkd)
    }

    /// Whether it takes answers one by one, each with a label.
    pub fn is_unpaired(self) -> bool {
        matches!(self, Self::Kto | Self::Bco | Self::ApoZeroUnpaired)
    }

    /// What it reads of its reference, if it came after the survey or is `dpo`.
    pub fn reads(self) -> Reads {
        match self {
            Self::Tdpo1 | Self::Tdpo2 => Reads::Distributions,
            Self::LdDpo => Reads::Tokens,
            Self::Simpo | Self::Orpo | Self::Cpo | Self::AlphaPo | Self::Simper => Reads::Nothing,
            _ if self == Self::Dpo || self.is_pairs_since() || self.is_unpaired() => Reads::Sums,
            _ if self.is_rewarded() => Reads::Sums,
            _ => Reads::Nothing,
        }
    }
}
