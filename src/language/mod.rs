//! Preferences and feedback written in words (survey §3.2.2).
//!
//! Ranking compares two answers. Here the judgment itself is text, and the model learns by reading it.
//! The seven methods share nearly one loss: cross-entropy on chosen tokens. They differ in what they
//! write into a sequence and in which of its tokens the loss covers.
//!
//! | method | writes, with the learned parts in **bold** | the loss | to sample | where training ends |
//! |---|---|---|---|---|
//! | [conditional SFT](conditional_sft) (OpenChat) | the name of the class, prompt, **answer** | [`sft_loss`](crate::sft_loss) | the good class's name | the good class's own data |
//! | [C-RLFT](conditional_sft) | the same | [`c_rlft_loss`]: weights e^{r_c/β} | the same | the same if classes share nothing; unconditioned, the classes mixed by their weights |
//! | [Chain of Hindsight](chain_of_hindsight) | prompt, good feedback, **better answer**, bad feedback, **worse answer**; or the reverse | [`chain_of_hindsight_loss`]: + λ · pretraining text; a few past tokens [hidden](forgetful) | the good feedback | a tilt of at most 2 towards preferred answers; best-of-2 where preferences have no noise |
//! | [Second Thoughts](second_thoughts) | prompt, unaligned answer, **edits**, **aligned answer** | [`sft_loss`](crate::sft_loss) | an answer to edit | the data's edits |
//! | [Stable Alignment](stable_alignment) | prompt, **answers rated by others** | cross-entropy on the best and a hinge on the worse ones | nothing | the best answer alone, like 1/N |
//! | [SelFee](revision) | prompt, **answer, feedback, answer, feedback, …** | [`sft_loss`](crate::sft_loss) | nothing: it judges its own answer, and stops when no revision is needed | the data's chains |
//! | [self-debug](revision) | task, program, feedback, **program**, … | none in the paper, which prompts; [`sft_loss`](crate::sft_loss) | results of tests, or nothing | the data's repairs |
//!
//! A likelihood fits each part of a sequence to that part's own data, given the text before it. Asking
//! for "good" therefore draws from what the data call good, and goes no further. Two things go further:
//! a label that is itself given by reward, and a weight per class in a policy that is not told the class.
//!
//! # From text to a loss
//!
//! This module contains no tokenizer: [`Encode`] is a closure from text to token ids. Builders return a
//! [`Sequence`], [`SequenceBatch`] pads several of them, and the mask goes unchanged into
//! [`TokenLogProbs::next_token`](crate::TokenLogProbs::next_token).
//!
//! ```
//! use candle_align::language::chain_of_hindsight::*;
//! use candle_align::language::LearnedAnswers;
//! use candle_align::{Reduction, Result, SequenceBatch, TokenLogProbs};
//! use candle_core::{DType, Device, Tensor};
//!
//! let bytes = |text: &str| -> Result<Vec<u32>> { Ok(text.bytes().map(u32::from).collect()) };
//! let pair = HindsightPair { prompt: "2+2?", good: "4", bad: "5" };
//! let format = |order| HindsightFormat {
//!     feedback: HindsightFeedback::all().swap_remove(0),
//!     order,
//!     learned: LearnedAnswers::Every,
//! };
//! let sequences = [HindsightOrder::GoodThenBad, HindsightOrder::BadThenGood]
//!     .map(|order| hindsight_sequence(&bytes, &pair, &format(order), 0));
//! let batch = SequenceBatch::new(&sequences.into_iter().collect::<Result<Vec<_>>>()?, 0, &Device::Cpu)?;
//!
//! // a model that knows nothing of its 128 symbols
//! let (rows, time) = batch.tokens.dims2()?;
//! let logits = Tensor::zeros((rows, time, 128), DType::F64, &Device::Cpu)?;
//! let log_probs = TokenLogProbs::next_token(&logits, &batch.tokens, &batch.mask)?;
//! let answers_alone = HindsightConfig::default();
//! let loss = chain_of_hindsight_loss(&log_probs, None, &answers_alone)?;
//! let mean = loss.reduce(Reduction::TokenMean)?.to_scalar::<f64>()?;
//! assert!((mean - 128f64.ln()).abs() < 1e-12);
//! # Ok::<(), candle_align::Error>(())
//! ```
//!
//! # What the survey prints and what the papers say
//! * "Position feedback" (Chain of Hindsight) is positive feedback.
//! * The survey describes OpenChat's second version, which uses prefixes alone. The weighted loss comes
//!   from a later paper.
//! * The survey lists self-debug in its chapter on training; the paper prompts a fixed model.
//!
//! The losses, their settings and [`Sequence`] are exported at the crate's root. Builders and formats are
//! imported from their module: `use candle_align::language::edits::edit_script;`.
//!
//! Read next: [`Sequence`], then [`conditional_sft`], [`chain_of_hindsight`], [`revision`],
//! [`second_thoughts`], [`stable_alignment`].
//!
//! [`c_rlft_loss`]: conditional_sft::c_rlft_loss
//! [`chain_of_hindsight_loss`]: chain_of_hindsight::chain_of_hindsight_loss

pub mod chain_of_hindsight;
pub mod conditional_sft;
pub mod edits;
pub mod forgetful;
pub mod revision;
pub mod second_thoughts;
pub mod stable_alignment;

pub use crate::sequence::{Encode, Sequence, SequenceBatch};

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Which of several answers in one sequence the loss covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearnedAnswers {
    /// All answers.
    #[default]
    Every,
    /// The last answer; those before it are context.
    Last,
}

impl LearnedAnswers {
    /// Appends an answer and its end.
    fn write(self, sequence: Sequence, answer: &[u32], last: bool) -> Sequence {
        match self {
            Self::Last if !last => sequence.given(answer),
            _ => sequence.learned(answer),
        }
    }
}

/// The tokens of a text that must not be empty.
fn piece(
    function: &'static str,
    argument: impl Into<String>,
    encode: &impl Encode,
    text: &str,
) -> Result<Vec<u32>> {
    let tokens = optional(encode, text)?;
    match tokens.is_empty() {
        true => Err(Error::argument(function, argument, "has no token")),
        false => Ok(tokens),
    }
}

/// The tokens of a text that may be empty; the tokenizer is not called for an empty text.
fn optional(encode: &impl Encode, text: &str) -> Result<Vec<u32>> {
    match text.is_empty() {
        true => Ok(Vec::new()),
        false => encode.encode(text),
    }
}
