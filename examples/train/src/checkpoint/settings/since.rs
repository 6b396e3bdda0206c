//! The settings of the objectives that came after the survey: the library's own, with its defaults. Where TRL's
//! convention differs from the paper's, a setting has both.

use super::super::super::error::{Error, Result};
use super::super::super::objectives::Reads;
use super::{Learned, Settings};
use candle_align::distillation::divergence::DivergenceConfig;
use candle_align::ranking::{
    AlphaPoConfig, AotConfig, ApoConfig, BcoConfig, CpoConfig, DiscopopConfig, DpopConfig,
    ExoConfig, FDivergence, FDpoConfig, HingeDpoConfig, KtoConfig, LdDpoConfig,
    LengthNormalizedDpoConfig, NcaPairConfig, OrpoConfig, RDpoConfig, ReferenceTokens,
    RequiredLead, RobustDpoConfig, RpoConfig, SimpoConfig, SppoConfig, Tdpo1Config, Tdpo2Config,
};
use serde::{Deserialize, Serialize};

/// Over what the likelihood of chosen answers beside a loss is a sum or a mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Likelihood {
    /// The sum over the tokens of each answer.
    Sum,
    /// The mean over the tokens of each answer.
    Mean,
    /// One mean over the tokens of all chosen answers of a micro-batch, as in TRL.
    MicroBatch,
}

impl Likelihood {
    /// How the library takes it; none if the mean is not of one answer.
    pub fn of_each(self) -> Option<ReferenceTokens> {
        match self {
            Self::Sum => Some(ReferenceTokens::Sum),
            Self::Mean => Some(ReferenceTokens::Mean),
            Self::MicroBatch => None,
        }
    }
}

impl From<ReferenceTokens> for Likelihood {
    fn from(tokens: ReferenceTokens) -> Self {
        match tokens {
            ReferenceTokens::Sum => Self::Sum,
            ReferenceTokens::Mean => Self::Mean,
        }
    }
}

/// The tokens that a likelihood covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Covers {
    #[default]
    Answer,
    /// Every token but the first, which nothing predicts.
    PromptAndAnswer,
}

/// The settings of `ipo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ipo {
    /// β, the paper's τ.
    pub beta: f64,
    /// Whether a log-ratio is the sum over an answer's tokens, as in the paper, or their mean, as in TRL.
    pub log_ratio: ReferenceTokens,
}

impl Default for Ipo {
    fn default() -> Self {
        Self {
            beta: 0.1,
            log_ratio: ReferenceTokens::Sum,
        }
    }
}

/// The settings of `rpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rpo {
    pub beta: f64,
    /// The weight of the likelihood.
    pub alpha: f64,
    pub likelihood: Likelihood,
}

impl Default for Rpo {
    fn default() -> Self {
        let config = RpoConfig::default();
        Self {
            beta: config.beta,
            alpha: config.alpha,
            likelihood: config.tokens.into(),
        }
    }
}

/// The settings of `wpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wpo {
    pub beta: f64,
    /// The largest weight of a pair; null: any, as in TRL.
    pub largest: Option<f64>,
}

impl Default for Wpo {
    fn default() -> Self {
        Self {
            beta: 0.1,
            largest: None,
        }
    }
}

/// The settings of `simpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Simpo {
    pub beta: f64,
    /// γ or γ/β: TRL's `simpo_gamma` is `{"gamma": 0.5}`.
    pub margin: RequiredLead,
    /// The weight of the likelihood of chosen answers, one mean over the tokens of a micro-batch. 0 in the
    /// paper, and 1 by default in TRL's CPO trainer.
    pub cpo_alpha: f64,
}

impl Default for Simpo {
    fn default() -> Self {
        let config = SimpoConfig::default();
        Self {
            beta: config.beta,
            margin: config.margin,
            cpo_alpha: 0.0,
        }
    }
}

/// The settings of `orpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Orpo {
    /// λ, the weight of the odds: TRL's `beta`.
    pub lambda: f64,
    pub likelihood: Likelihood,
    /// What the likelihood covers: in TRL prompt and answer.
    pub covers: Covers,
}

impl Default for Orpo {
    fn default() -> Self {
        let config = OrpoConfig::default();
        Self {
            lambda: config.lambda,
            likelihood: config.tokens.into(),
            covers: Covers::default(),
        }
    }
}

/// The settings of `cpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cpo {
    pub beta: f64,
    pub label_smoothing: f64,
    /// The weight of the likelihood: TRL's `cpo_alpha`.
    pub alpha: f64,
    pub likelihood: Likelihood,
}

impl Default for Cpo {
    fn default() -> Self {
        let config = CpoConfig::default();
        Self {
            beta: config.beta,
            label_smoothing: config.label_smoothing,
            alpha: config.alpha,
            likelihood: config.tokens.into(),
        }
    }
}

/// The settings of `apo_zero_unpaired`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApoUnpaired {
    pub beta: f64,
    /// The weights of answers with either label, which TRL has here too.
    pub desirable_weight: f64,
    pub undesirable_weight: f64,
}

impl Default for ApoUnpaired {
    fn default() -> Self {
        Self {
            beta: 0.1,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
        }
    }
}

/// The settings of all of them, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Since {
    /// What takes the place of a log-ratio in `ipo`, `robust_dpo`, `hinge_dpo`, `exo_pair`, `discopop` and
    /// `length_normalized_dpo`: TRL's `f_divergence_type`.
    pub divergence: FDivergence,
    pub ipo: Ipo,
    pub rpo: Rpo,
    pub robust_dpo: RobustDpoConfig,
    pub hinge_dpo: HingeDpoConfig,
    pub exo_pair: ExoConfig,
    pub nca_pair: NcaPairConfig,
    pub bco_pair: BcoConfig,
    pub sppo: SppoConfig,
    pub apo_zero: ApoConfig,
    pub apo_down: ApoConfig,
    pub aot: AotConfig,
    pub aot_unpaired: AotConfig,
    pub discopop: DiscopopConfig,
    pub f_dpo: FDpoConfig,
    pub length_normalized_dpo: LengthNormalizedDpoConfig,
    pub dpop: DpopConfig,
    pub r_dpo: RDpoConfig,
    pub tdpo1: Tdpo1Config,
    pub tdpo2: Tdpo2Config,
    pub ld_dpo: LdDpoConfig,
    pub wpo: Wpo,
    pub simpo: Simpo,
    pub orpo: Orpo,
    pub cpo: Cpo,
    pub alpha_po: AlphaPoConfig,
    pub kto: KtoConfig,
    pub bco: BcoConfig,
    pub apo_zero_unpaired: ApoUnpaired,
    /// Without own answers: the direction, the temperature, the top k.
    pub gkd: DivergenceConfig,
}

impl Settings {
    /// Checks what these objectives ask of the other settings.
    pub(super) fn check_since(&self) -> Result<()> {
        let (name, usage) = (self.objective, |text: String| Err(Error::Usage(text)));
        let of_differences = matches!(
            name,
            Learned::Ipo
                | Learned::RobustDpo
                | Learned::HingeDpo
                | Learned::ExoPair
                | Learned::Discopop
                | Learned::LengthNormalizedDpo
        );
        if self.since.divergence != FDivergence::ReverseKl && !of_differences {
            return usage(format!(
                "`since.divergence` is for losses of a difference of log-ratios, and `{name}` is none; `f_dpo` \
                 has a `divergence` of its own"
            ));
        }
        match (name == Learned::Gkd, &self.teacher) {
            (true, None) => {
                return usage("`gkd` needs `teacher`, a folder: --teacher DIR".to_string());
            }
            (false, Some(_)) => {
                return usage(format!("`teacher` is for `gkd`, and this is `{name}`"));
            }
            _ => {}
        }
        if name == Learned::Kto && self.fit.batch < 2 {
            return usage(format!(
                "`fit.batch` must be at least 2 for `kto`, got {}: its baseline is of prompts with the answers \
                 of other rows",
                self.fit.batch
            ));
        }
        if matches!(name, Learned::Aot | Learned::AotUnpaired) && self.fit.max_tokens.is_some() {
            return usage(format!(
                "`fit.max_tokens` must be null for `{name}`, which sorts the pairs of a whole micro-batch; lower \
                 `fit.batch` instead"
            ));
        }
        let sums = name.reads() == Reads::Sums && name != Learned::Kto;
        if self.precompute_ref_log_probs && !sums {
            let why = match name.reads() {
                _ if name.is_online() => {
                    "draws new answers, whose probabilities cannot be computed ahead"
                }
                Reads::Nothing => "has no reference",
                _ => "asks its reference for more than the sum over each answer",
            };
            return usage(format!(
                "`precompute_ref_log_probs` is true, and `{name}` {why}"
            ));
        }
        let weights = [
            ("simpo.cpo_alpha", self.since.simpo.cpo_alpha),
            ("rpo.alpha", self.since.rpo.alpha),
            ("cpo.alpha", self.since.cpo.alpha),
            (
                "apo_zero_unpaired.desirable_weight",
                self.since.apo_zero_unpaired.desirable_weight,
            ),
            (
                "apo_zero_unpaired.undesirable_weight",
                self.since.apo_zero_unpaired.undesirable_weight,
            ),
        ];
        for (name, weight) in weights {
            if !(weight.is_finite() && weight >= 0.0) {
                return usage(format!(
                    "`since.{name}` must be finite and >= 0, got {weight}"
                ));
            }
        }
        Ok(())
    }
}
