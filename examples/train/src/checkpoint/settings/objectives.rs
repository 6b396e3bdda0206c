//! The settings of the objectives: the library's own, with its defaults, and what a run on a checkpoint adds.

use super::super::super::error::{Error, Result};
use super::super::super::objectives::{Forms, Objective, Reads, RewardForm};
use super::super::objective::answers::AnswerLoss;
use super::super::objective::lists::ListLoss;
use super::super::objective::pairs::PairLoss;
use super::super::objective::scored::RewardLoss;
use super::super::objective::texts::TextLoss;
use super::super::objective::unpaired::UnpairedLoss;
use super::Settings;
use candle_align::DpoConfig;
use candle_align::language::LearnedAnswers;
use candle_align::language::chain_of_hindsight::{HindsightFeedback, HindsightOrder};
use serde::{Deserialize, Serialize};

/// The settings of DPO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dpo {
    /// β, how strongly the policy is tied to the reference.
    pub beta: f64,
    /// The share of labels that are assumed to be flipped.
    pub label_smoothing: f64,
    /// The weights of the sigmoid loss and of the cross-entropy of the chosen answers: TRL's
    /// `loss_weights` for `["sigmoid", "sft"]`.
    pub loss_weights: [f64; 2],
}

impl Default for Dpo {
    fn default() -> Self {
        let config = DpoConfig::default();
        Self {
            beta: config.beta,
            label_smoothing: config.label_smoothing,
            loss_weights: [1.0, 0.0],
        }
    }
}

impl Dpo {
    /// The settings of the loss.
    pub fn config(&self) -> DpoConfig {
        DpoConfig {
            beta: self.beta,
            label_smoothing: self.label_smoothing,
        }
    }
}

/// The losses of `sft`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SftForm {
    /// Cross-entropy.
    #[default]
    Nll,
    /// Each token weighs its own probability: TRL's `loss_type` "dft".
    Dft,
    /// Each token weighs the entropy at its place.
    Eaft,
}

/// The words of `conditional_sft` and `c_rlft`, at the beginning of the assistant's turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Classes {
    /// Before the best answers to a prompt, or right ones.
    pub good: String,
    /// Before the others.
    pub bad: String,
}

impl Default for Classes {
    fn default() -> Self {
        Self {
            good: "Good answer: ".to_string(),
            bad: "Bad answer: ".to_string(),
        }
    }
}

/// The settings of `chain_of_hindsight`. The paper hides up to 5 % of past tokens from attention, which the
/// decoder does not do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hindsight {
    /// The words before a good and a bad answer. Each row draws one of these pairs; held-out rows are
    /// scored with the first.
    pub feedback: Vec<HindsightFeedback>,
    /// Each pair is written once in each of these orders.
    pub orders: Vec<HindsightOrder>,
    /// Which answers of a row the loss covers.
    pub learned: LearnedAnswers,
}

impl Default for Hindsight {
    fn default() -> Self {
        Self {
            feedback: HindsightFeedback::all(),
            orders: vec![HindsightOrder::GoodThenBad, HindsightOrder::BadThenGood],
            learned: LearnedAnswers::default(),
        }
    }
}

/// The highest learning rate if none is given: TRL's, or the paper's for a model of some billion weights.
///
/// | objective | rate | from |
/// |---|---|---|
/// | `sft` and `gkd`, `reward`, `dpo` | 2e-5, 1e-4, 1e-6 | TRL |
/// | `pro` | 5e-6 | its paper |
/// | `slic` | 1e-5 | SLiC-HF |
/// | `rrhf` | 2e-5 | its paper |
/// | `brio` | 2e-5 | the highest rate of its paper's schedule |
/// | `stable_alignment` | 2e-5 | the authors' run |
/// | `c_rlft`, `conditional_sft` | 6.7e-5 | OpenChat |
/// | `bco`, `tpo` | 5e-7 | TRL |
/// | the others since the survey | 1e-6 | TRL's for DPO, KTO, CPO, ORPO, GRPO and RLOO |
/// | `raft` | 2e-5 | its paper |
/// | `ppo` | 3e-6 | TRL |
/// | `online_dpo` | 5e-7 | TRL |
/// | the others | 2e-5 | that of `sft`: no paper has one for such a model |
pub fn learning_rate(objective: Objective) -> f64 {
    match objective {
        Objective::Sft | Objective::Gkd => 2e-5,
        Objective::Reward => 1e-4,
        Objective::Dpo => 1e-6,
        Objective::Pro => 5e-6,
        Objective::Slic => 1e-5,
        Objective::Rrhf | Objective::Brio | Objective::StableAlignment => 2e-5,
        Objective::ConditionalSft | Objective::CRlft => 6.7e-5,
        Objective::ExpectedRisk | Objective::ChainOfHindsight => 2e-5,
        Objective::SecondThoughts | Objective::Selfee | Objective::SelfDebug => 2e-5,
        Objective::Bco | Objective::Tpo | Objective::OnlineDpo => 5e-7,
        Objective::Raft => 2e-5,
        Objective::Ppo => 3e-6,
        _ => 1e-6,
    }
}

impl Settings {
    /// The losses of the objectives that have several.
    pub fn forms(&self) -> Forms {
        Forms {
            reward: self.reward_form,
            slic: self.slic_form,
        }
    }

    /// Whether the loss compares the model with one that does not change.
    pub fn has_reference(&self) -> bool {
        match self.objective {
            Objective::Slic => self.slic_kl_weight > 0.0,
            objective if objective.is_online() => self.online.has_reference(objective),
            objective => objective.reads() != Reads::Nothing,
        }
    }

    /// The loss of a model that prefers no answer, if it is ln 2.
    pub fn no_opinion(&self) -> Option<f64> {
        match self.objective {
            Objective::Dpo if self.dpo.loss_weights == [1.0, 0.0] => Some(2f64.ln()),
            Objective::Reward if self.reward_form == RewardForm::Pairs => Some(2f64.ln()),
            Objective::RobustDpo | Objective::FDpo | Objective::LengthNormalizedDpo => {
                Some(2f64.ln())
            }
            Objective::Dpop | Objective::Tdpo1 | Objective::Tdpo2 | Objective::Spin => {
                Some(2f64.ln())
            }
            Objective::LdDpo | Objective::Aot | Objective::AotUnpaired | Objective::Bco => {
                Some(2f64.ln())
            }
            _ => None,
        }
    }

    /// The loss of texts.
    pub fn text_loss(&self) -> TextLoss {
        match self.objective {
            Objective::ChainOfHindsight => TextLoss::ChainOfHindsight,
            Objective::Gkd => TextLoss::Gkd(self.since.gkd.clone()),
            Objective::Sft if self.sft_form == SftForm::Dft => TextLoss::Dft,
            Objective::Sft if self.sft_form == SftForm::Eaft => TextLoss::Eaft(self.eaft.clone()),
            _ => TextLoss::Sft(self.sft.clone()),
        }
    }

    /// The loss of pairs.
    pub fn pair_loss(&self) -> PairLoss {
        match self.objective {
            Objective::Dpo => PairLoss::Dpo {
                config: self.dpo.config(),
                weights: self.dpo.loss_weights,
            },
            objective => PairLoss::Since {
                objective,
                settings: Box::new(self.since.clone()),
            },
        }
    }

    /// The loss of answers with a label.
    pub fn unpaired_loss(&self) -> UnpairedLoss {
        match self.objective {
            Objective::Bco => UnpairedLoss::Bco(self.since.bco.clone()),
            Objective::ApoZeroUnpaired => {
                UnpairedLoss::ApoZero(self.since.apo_zero_unpaired.clone())
            }
            _ => UnpairedLoss::Kto(self.since.kto.clone()),
        }
    }

    /// The loss of answers with a number each.
    pub fn answer_loss(&self) -> AnswerLoss {
        AnswerLoss::CRlft(self.c_rlft.loss.clone())
    }

    /// The loss of lists.
    pub fn list_loss(&self) -> ListLoss {
        match self.objective {
            Objective::Rrhf => ListLoss::Rrhf(self.rrhf.clone()),
            Objective::Brio => ListLoss::Brio(self.brio.clone(), self.sft.clone()),
            Objective::ExpectedRisk => {
                ListLoss::ExpectedRisk(self.expected_risk.clone(), self.sft.clone())
            }
            Objective::StableAlignment => ListLoss::StableAlignment(self.stable_alignment.clone()),
            Objective::Slic => ListLoss::Slic {
                form: self.slic_form,
                config: self.slic.clone(),
                weights: [self.slic_sft_weight, self.slic_kl_weight],
            },
            objective if objective.is_lists_since() => ListLoss::Since {
                objective,
                settings: Box::new(self.since.clone()),
            },
            _ => ListLoss::Pro(self.pro.clone()),
        }
    }

    /// The loss of a reward model, on pairs alone or on lists.
    pub fn reward_loss(&self, pairs: bool) -> RewardLoss {
        match self.reward_form {
            RewardForm::Pairs if pairs => RewardLoss::Pairwise(self.reward.clone()),
            RewardForm::Pairs => RewardLoss::Ranked(self.ranked_reward.clone()),
            RewardForm::ChooseBest => RewardLoss::ChooseBest,
            RewardForm::PlackettLuce => RewardLoss::PlackettLuce,
        }
    }

    /// Checks the settings of objectives that nothing else checks.
    pub(super) fn check_objectives(&self) -> Result<()> {
        let usage = |text: String| Err(Error::Usage(text));
        if self.sft_form != SftForm::Nll && self.sft.label_smoothing != 0.0 {
            return usage("`sft.label_smoothing` is for `sft_form` = \"nll\"".to_string());
        }
        for (name, weight) in [
            ("dpo.loss_weights[0]", self.dpo.loss_weights[0]),
            ("dpo.loss_weights[1]", self.dpo.loss_weights[1]),
            ("slic_sft_weight", self.slic_sft_weight),
            ("slic_kl_weight", self.slic_kl_weight),
        ] {
            if !(weight.is_finite() && weight >= 0.0) {
                return usage(format!("`{name}` must be finite and >= 0, got {weight}"));
            }
        }
        for (name, cost) in [
            ("insert", self.second_thoughts.insert),
            ("delete", self.second_thoughts.delete),
            ("replace", self.second_thoughts.replace),
        ] {
            if !(cost.is_finite() && cost > 0.0) {
                return usage(format!(
                    "`second_thoughts.{name}` must be finite and > 0, got {cost}"
                ));
            }
        }
        for (name, reward) in [
            ("good_reward", self.c_rlft.good_reward),
            ("bad_reward", self.c_rlft.bad_reward),
        ] {
            if !(reward as f32).is_finite() {
                return usage(format!("`c_rlft.{name}` must be finite, got {reward}"));
            }
        }
        for (name, empty) in [
            ("feedback", self.chain_of_hindsight.feedback.is_empty()),
            ("orders", self.chain_of_hindsight.orders.is_empty()),
        ] {
            if empty {
                return usage(format!("`chain_of_hindsight.{name}` must not be empty"));
            }
        }
        if let Some(tokens) = self.edit_tokens.as_ref().filter(|all| all.len() != 16) {
            return usage(format!(
                "`edit_tokens` must be 16 tokens (separator, insert, delete, replace, content, target, and \
                 the digits from 0 to 9), got {}",
                tokens.len()
            ));
        }
        Ok(())
    }
}
