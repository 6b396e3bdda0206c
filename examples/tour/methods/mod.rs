//! The methods, one page each: data, loss, settings.

pub mod lists;
pub mod lora;
pub mod pairs;
pub mod ppo;
pub mod reward;

use super::Result;
use super::lab::Lab;
use super::report::Entry;
use clap::ValueEnum;
use indicatif::MultiProgress;
use serde::Serialize;

/// β of the methods that have one: all of them aim at the same policy, π_ref · e^{r/β}.
pub const BETA: f64 = 0.5;

/// What the tour compares. Each starts at the SFT policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    Ppo,
    Dpo,
    DpoLora,
    Pro,
    Slic,
    Rrhf,
}

impl Method {
    pub const ALL: [Self; 6] = [
        Self::Ppo,
        Self::Dpo,
        Self::DpoLora,
        Self::Pro,
        Self::Slic,
        Self::Rrhf,
    ];

    /// As in the report and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ppo => "ppo",
            Self::Dpo => "dpo",
            Self::DpoLora => "dpo-lora",
            Self::Pro => "pro",
            Self::Slic => "slic",
            Self::Rrhf => "rrhf",
        }
    }

    /// Whether it learns from scores, and so from a reward model, rather than from labels.
    pub fn uses_reward_model(self) -> bool {
        matches!(self, Self::Ppo | Self::Pro | Self::Rrhf)
    }

    pub fn run(self, lab: &Lab, bars: &MultiProgress) -> Result<Entry> {
        match self {
            Self::Ppo => ppo::run(lab, bars),
            Self::Dpo => pairs::dpo(lab, bars),
            Self::DpoLora => lora::run(lab, bars),
            Self::Pro => lists::pro(lab, bars),
            Self::Slic => pairs::slic(lab, bars),
            Self::Rrhf => lists::rrhf(lab, bars),
        }
    }
}
