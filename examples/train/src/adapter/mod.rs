//! Training few parameters: the base is frozen, and an objective trains an adapter on it.
//!
//! ```text
//! supervised steps, or --base        the base model, all of it
//! freeze, adapt                      h = base(x) + what the method adds
//! the objective's steps              the adapter alone; DPO's reference is the base, adapter off
//! ```
//!
//! | file of `--adapter-config` | recognized by |
//! |---|---|
//! | a method with its settings: `{"lora": {"rank": 4}}`, `{"lora": {}}`, `"lora"` | neither of the others |
//! | the same with further settings: `{"method": {"lora": {}}, "lora_plus": 16}` | `method` |
//! | an `adapter_config.json` of PEFT (`peft.rs`) | `peft_type` |
//!
//! `files.rs` writes the files; `budget.rs` has AdaLoRA's budget, which is part of every step.

pub mod budget;
pub mod files;
mod peft;

use super::error::{Error, Result};
use super::input;
use super::objectives::Objective;
use super::settings::Settings;
use budget::Budget;
use candle_align::parameter_efficient::{RankAllocatorConfig, Targets};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use support::adapters::{Adapted, AdapterSettings, adapt_at};
use support::linear_adapters::linear_names;
use support::transformer::Transformer;

/// A method, and settings outside the method's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// Which method, with the library's own settings.
    pub method: AdapterSettings,
    /// For `ada_lora` and `vera`: which linear maps; none: all. Other methods have their own choice, or
    /// none.
    #[serde(default)]
    pub targets: Targets,
    /// Settings of `ada_lora`'s budget.
    #[serde(default)]
    pub ada_lora: AdaLora,
    /// For `lora`, `qlora` and `dora`: B's learning rate relative to A's (LoRA+); none: 1.
    #[serde(default)]
    pub lora_plus: Option<f64>,
    /// Keys of the file that were ignored; a run reports them.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// AdaLoRA's pruning schedule and orthogonality penalty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdaLora {
    /// The average rank at the end; 0: two thirds of the initial rank, the paper's proportion.
    pub target_rank: usize,
    /// Steps before anything is pruned.
    pub initial_steps: usize,
    /// Steps at the end with fixed ranks. Together with the steps before pruning, fewer than the run's.
    pub final_steps: usize,
    /// Steps from one pruning to the next.
    pub interval: usize,
    /// The smoothing factors of the sensitivity and of its uncertainty.
    pub beta1: f64,
    pub beta2: f64,
    /// γ ≥ 0, the weight of the orthogonality penalty in PEFT's form. Default 0.5, PEFT's.
    pub orthogonality: f64,
}

impl Default for AdaLora {
    fn default() -> Self {
        let peft = RankAllocatorConfig::default();
        Self {
            target_rank: 0,
            initial_steps: peft.initial_steps,
            final_steps: peft.final_steps,
            interval: peft.interval,
            beta1: peft.beta1,
            beta2: peft.beta2,
            orthogonality: 0.5,
        }
    }
}

impl AdaLora {
    /// The schedule for a run of this many steps and this initial rank.
    pub fn schedule(&self, rank: usize, steps: usize) -> RankAllocatorConfig {
        RankAllocatorConfig {
            target_rank: match self.target_rank {
                0 => (2 * rank / 3).max(1),
                target => target,
            },
            initial_steps: self.initial_steps,
            final_steps: self.final_steps,
            interval: self.interval,
            total_steps: steps,
            beta1: self.beta1,
            beta2: self.beta2,
        }
    }
}

impl From<AdapterSettings> for Adapter {
    fn from(method: AdapterSettings) -> Self {
        Self {
            method,
            targets: Targets::default(),
            ada_lora: AdaLora::default(),
            lora_plus: None,
            notes: Vec::new(),
        }
    }
}

impl Adapter {
    /// From a file of `--adapter-config`, for a run of these settings.
    pub fn read(path: &Path, settings: &Settings) -> Result<Self> {
        let text = input::json(path)?;
        let json = |error: serde_json::Error| Error::json(path, &text, &error);
        let found: Value = serde_json::from_str(&text).map_err(json)?;
        if found.get("peft_type").is_some() {
            return peft::adapter(path, &found, settings);
        }
        // parsed from the text again, because its errors have the line
        match found.get("method") {
            Some(_) => serde_json::from_str(&text).map_err(json),
            None => Ok(Self::from(
                serde_json::from_str::<AdapterSettings>(&text).map_err(json)?,
            )),
        }
    }

    /// `base`, frozen, under this adapter.
    pub fn on(&self, base: &Transformer, rng: &mut StdRng) -> Result<Adapted> {
        let adapted = adapt_at(base, &self.method, &self.targets, rng);
        adapted.map_err(|error| {
            let known = match &error {
                candle_align::Error::Argument { argument, .. } if argument == "target_modules" => {
                    format!(
                        "; the linear maps of the model are {}",
                        linear_names(base).join(", ")
                    )
                }
                _ => String::new(),
            };
            Error::Usage(format!("adapter: {error}{known}"))
        })
    }

    /// Checks the adapter, so that mistakes are errors before the first step.
    pub fn check(&self, base: &Transformer, settings: &Settings) -> Result<()> {
        let usage = |text: String| Err(Error::Usage(format!("adapter: {text}")));
        let name = self.method.name();
        let of = |method: &AdapterSettings, names: &[&str]| names.contains(&method.name());
        if self.targets != Targets::default() && !of(&self.method, &["ada_lora", "vera"]) {
            return usage(format!(
                "`targets` beside the method is for ada_lora and vera, not {name}"
            ));
        }
        if self.ada_lora != AdaLora::default() && !of(&self.method, &["ada_lora"]) {
            return usage(format!("`ada_lora` is for that method, not {name}"));
        }
        match self.lora_plus {
            Some(ratio) if !(ratio.is_finite() && ratio > 0.0) => {
                return usage(format!("`lora_plus` must be finite and > 0, got {ratio}"));
            }
            Some(_) if !of(&self.method, &["lora", "qlora", "dora"]) => {
                return usage(format!(
                    "`lora_plus` is for lora, qlora and dora, not {name}"
                ));
            }
            _ => {}
        }
        let adapted = self.on(base, &mut StdRng::seed_from_u64(0))?;
        if settings.objective == Objective::ChainOfHindsight
            && adapted.model.adapters().is_virtual()
        {
            return usage(format!(
                "chain_of_hindsight hides past tokens, which cannot be combined with the virtual \
                 positions of {name}"
            ));
        }
        let wrapped = |error: candle_align::Error| Error::Usage(format!("adapter: {error}"));
        Budget::new(self, &adapted, settings.steps).map_err(wrapped)?;
        files::peft(self, &adapted, settings.steps, &Default::default(), None).map_err(wrapped)?;
        Ok(())
    }
}
