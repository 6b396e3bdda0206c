//! The methods, one page for each family: data, loss, settings. Change [`BETA`] to see PPO and DPO
//! aim at another point of the frontier.
//!
//! | page | survey | its methods learn from |
//! |---|---|---|
//! | [`reward`] | §3.1 | the labeled pairs; the reward model itself |
//! | [`ppo`], [`raft`] | §3.1 | the policy's own answers, sampled during training |
//! | [`pairs`] | §3.2.1 | two answers of the reference, and which is better |
//! | [`lists`] | §3.2.1, §3.2.2 | four answers of the reference, and their scores |
//! | [`conditions`] | §3.2.2 | a word before the answer that says how good it is |
//! | [`edits`], [`revisions`] | §3.2.2 | a first answer, and a better one after it |
//! | [`adapters`] | §3.3 | the pairs of DPO, with only an adapter trained; more adapters are in [`super::parameters`] |
//! | [`since`] | after it | the pairs of DPO; one of them, pairs of the policy's own answers |
//! | [`policy_gradients`] | after it | the policy's own answers in groups, sampled during training |

pub mod adapters;
pub mod chains;
pub mod conditions;
pub mod edits;
mod estimate;
pub mod lists;
pub mod pairs;
pub mod policy_gradients;
pub mod ppo;
pub mod raft;
pub mod revisions;
pub mod reward;
pub mod since;

use super::Result;
use super::lab::Lab;
use super::report::Entry;
use clap::ValueEnum;
use indicatif::MultiProgress;
use serde::Serialize;

/// β of the methods that have one: all of them aim at the same policy, π_ref · e^{r/β}.
pub const BETA: f64 = 0.5;

/// Where the survey has a method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Section {
    #[default]
    #[serde(rename = "3")]
    Sft,
    #[serde(rename = "3.1")]
    Online,
    #[serde(rename = "3.2.1")]
    Ranking,
    #[serde(rename = "3.2.2")]
    Language,
    #[serde(rename = "3.3")]
    Parameters,
}

impl Section {
    pub const ALL: [Self; 5] = [
        Self::Sft,
        Self::Online,
        Self::Ranking,
        Self::Language,
        Self::Parameters,
    ];

    /// The survey's number.
    pub fn number(self) -> &'static str {
        match self {
            Self::Sft => "3",
            Self::Online => "3.1",
            Self::Ranking => "3.2.1",
            Self::Language => "3.2.2",
            Self::Parameters => "3.3",
        }
    }

    pub fn heading(self) -> &'static str {
        match self {
            Self::Sft => "§3 supervised",
            Self::Online => "§3.1 online",
            Self::Ranking => "§3.2.1 ranking",
            Self::Language => "§3.2.2 language",
            Self::Parameters => "§3.3 few parameters",
        }
    }
}

/// The names of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Title {
    /// In `report.json` and on the command line.
    pub name: &'static str,
    /// In the pictures.
    pub label: &'static str,
    pub section: Section,
}

/// Where every method starts.
pub const SFT: Title = Title {
    name: "sft",
    label: "SFT",
    section: Section::Sft,
};

/// Not a policy: many methods learn from it.
pub const REWARD_MODEL: Title = Title {
    name: "reward-model",
    label: "reward model",
    section: Section::Online,
};

/// What the tour compares. Each starts at the SFT policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    Ppo,
    Raft,
    RaftTop,
    Dpo,
    Pro,
    Slic,
    SlicMargin,
    SlicList,
    SlicReward,
    Rrhf,
    Brio,
    Risk,
    Conditional,
    CRlft,
    Hindsight,
    SecondThoughts,
    StableAlignment,
    Selfee,
    SelfDebug,
    DpoLora,
}

impl Method {
    /// In the order of the survey.
    pub const ALL: [Self; 20] = [
        Self::Ppo,
        Self::Raft,
        Self::RaftTop,
        Self::Dpo,
        Self::Pro,
        Self::Slic,
        Self::SlicMargin,
        Self::SlicList,
        Self::SlicReward,
        Self::Rrhf,
        Self::Brio,
        Self::Risk,
        Self::Conditional,
        Self::CRlft,
        Self::Hindsight,
        Self::SecondThoughts,
        Self::StableAlignment,
        Self::Selfee,
        Self::SelfDebug,
        Self::DpoLora,
    ];

    pub fn title(self) -> Title {
        use Section::{Language, Online, Parameters, Ranking};
        let (name, label, section) = match self {
            Self::Ppo => ("ppo", "PPO", Online),
            Self::Raft => ("raft", "RAFT, best of K", Online),
            Self::RaftTop => ("raft-top", "RAFT, top share", Online),
            Self::Dpo => ("dpo", "DPO", Ranking),
            Self::Pro => ("pro", "PRO", Ranking),
            Self::Slic => ("slic", "SLiC, rank", Ranking),
            Self::SlicMargin => ("slic-margin", "SLiC, margin", Ranking),
            Self::SlicList => ("slic-list", "SLiC, list", Ranking),
            Self::SlicReward => ("slic-reward", "SLiC, reward", Ranking),
            Self::Rrhf => ("rrhf", "RRHF", Ranking),
            Self::Brio => ("brio", "BRIO", Ranking),
            Self::Risk => ("risk", "expected risk", Ranking),
            Self::Conditional => ("conditional", "conditional SFT", Language),
            Self::CRlft => ("c-rlft", "C-RLFT", Language),
            Self::Hindsight => ("hindsight", "Chain of Hindsight", Language),
            Self::SecondThoughts => ("second-thoughts", "Second Thoughts", Language),
            Self::StableAlignment => ("stable-alignment", "Stable Alignment", Language),
            Self::Selfee => ("selfee", "SelFee", Language),
            Self::SelfDebug => ("self-debug", "self-debug", Language),
            Self::DpoLora => ("dpo-lora", "DPO, LoRA", Parameters),
        };
        Title {
            name,
            label,
            section,
        }
    }

    /// As in the report and on the command line.
    pub fn name(self) -> &'static str {
        self.title().name
    }

    /// Whether it learns from scores, and so from a reward model, rather than from labels.
    pub fn uses_reward_model(self) -> bool {
        !matches!(
            self,
            Self::Dpo
                | Self::Slic
                | Self::Hindsight
                | Self::SecondThoughts
                | Self::Selfee
                | Self::DpoLora
        )
    }

    pub fn run(self, lab: &Lab, bars: &MultiProgress) -> Result<Entry> {
        let title = self.title();
        match self {
            Self::Ppo => ppo::run(lab, title, bars),
            Self::Raft => raft::best(lab, title, bars),
            Self::RaftTop => raft::top(lab, title, bars),
            Self::Dpo => pairs::dpo(lab, title, bars),
            Self::Slic => pairs::slic_rank(lab, title, bars),
            Self::SlicMargin => pairs::slic_margin(lab, title, bars),
            Self::Pro => lists::pro(lab, title, bars),
            Self::SlicList => lists::slic_list(lab, title, bars),
            Self::SlicReward => lists::slic_reward(lab, title, bars),
            Self::Rrhf => lists::rrhf(lab, title, bars),
            Self::Brio => lists::brio(lab, title, bars),
            Self::Risk => lists::risk(lab, title, bars),
            Self::StableAlignment => lists::stable_alignment(lab, title, bars),
            Self::Conditional => conditions::conditional(lab, title, bars),
            Self::CRlft => conditions::c_rlft(lab, title, bars),
            Self::Hindsight => conditions::hindsight(lab, title, bars),
            Self::SecondThoughts => edits::second_thoughts(lab, title, bars),
            Self::Selfee => revisions::selfee(lab, title, bars),
            Self::SelfDebug => revisions::self_debug(lab, title, bars),
            Self::DpoLora => adapters::lora(lab, title, bars),
        }
    }
}
