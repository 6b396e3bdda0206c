//! The words that the language-based objectives write around answers, and their other settings.

use super::super::batch::VOCABULARY;
use super::super::error::{Error, Result};
use candle_align::language::LearnedAnswers;
use candle_align::language::chain_of_hindsight::{HindsightFeedback, HindsightOrder};
use candle_align::language::conditional_sft::ClassPrompt;
use candle_align::language::second_thoughts::EditTokens;
use candle_align::{CRlftConfig, ForgetfulConfig};
use serde::{Deserialize, Serialize};

/// The words around the answers of each class, for `conditional_sft` and `c_rlft`.
///
/// A prompt is already a dialogue up to the assistant's turn, so the class is written there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Classes {
    /// The class of the best answers to a prompt.
    pub good: ClassPrompt,
    /// The class of the others.
    pub bad: ClassPrompt,
}

impl Default for Classes {
    fn default() -> Self {
        let class = |name: &str| ClassPrompt {
            user: String::new(),
            assistant: format!("\n\nAssistant {name}: "),
        };
        Self {
            good: class("good"),
            bad: class("bad"),
        }
    }
}

/// Settings of `c_rlft`: the rewards of the two classes, and how they become weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CRlft {
    /// r_c of the best answers. Default 1, the paper's value for its better class.
    pub good_reward: f64,
    /// r_c of the others. Default 0.1, the weight in the authors' data.
    pub bad_reward: f64,
    /// From a reward to a weight.
    pub loss: CRlftConfig,
}

impl Default for CRlft {
    fn default() -> Self {
        Self {
            good_reward: 1.0,
            bad_reward: 0.1,
            loss: CRlftConfig::default(),
        }
    }
}

/// Settings of `chain_of_hindsight`.
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
    /// The share of past tokens that is hidden during training.
    pub forgetful: ForgetfulConfig,
}

impl Default for Hindsight {
    fn default() -> Self {
        Self {
            feedback: HindsightFeedback::all(),
            orders: vec![HindsightOrder::GoodThenBad, HindsightOrder::BadThenGood],
            learned: LearnedAnswers::default(),
            forgetful: ForgetfulConfig::default(),
        }
    }
}

impl Hindsight {
    /// An error if nothing could be written.
    pub fn check(&self) -> Result<()> {
        let empty = match (self.feedback.is_empty(), self.orders.is_empty()) {
            (true, _) => "feedback",
            (_, true) => "orders",
            _ => return Ok(()),
        };
        let message = format!("`chain_of_hindsight.{empty}` must not be empty");
        Err(Error::Usage(message))
    }
}

/// The number of edit tokens.
pub const EDIT_TOKENS: usize = 16;

/// The edit tokens, after the bytes and the three marks.
pub fn edit_tokens() -> EditTokens {
    let at = |i: u32| VOCABULARY as u32 + i;
    EditTokens {
        separator: at(0),
        insert: at(1),
        delete: at(2),
        replace: at(3),
        content: at(4),
        target: at(5),
        digits: std::array::from_fn(|digit| at(6 + digit as u32)),
    }
}
