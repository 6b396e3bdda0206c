//! Token sequences in which some tokens are given and others are to be learned.
//!
//! In one sentence: the methods of [`language`](crate::language) differ in what they write into a
//! sequence and in which of its tokens the loss covers, and all of them use
//! [`sft_loss`](crate::sft_loss).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | x, feedback, a prefix: context without loss | [`Sequence::given`] | tokens |
//! | y: what the model should say | [`Sequence::learned`] | tokens |
//! | several sequences as one batch | [`SequenceBatch`] | `[batch, time]` |
//!
//! Read next: [`crate::language::conditional_sft`].

use crate::error::{Error, Result};
use candle_core::{Device, Tensor};

/// From text to token ids: the interface to the caller's tokenizer.
///
/// Closures implement it: `|text: &str| Ok(text.bytes().map(u32::from).collect())` encodes bytes.
/// The tokenizer must not add special tokens at the ends, because sequences are joined from several pieces
/// of text.
#[doc(alias = "tokenizer")]
pub trait Encode {
    /// The tokens of this piece of text.
    ///
    /// # Errors
    /// Those of the tokenizer, as [`Error::Argument`] or [`Error::Tensor`].
    fn encode(&self, text: &str) -> Result<Vec<u32>>;
}

impl<F: Fn(&str) -> Result<Vec<u32>>> Encode for F {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self(text)
    }
}

/// Tokens in order, and which of them are learned.
///
/// # Examples
/// ```
/// use candle_align::language::Sequence;
///
/// let sequence = Sequence::new().given(&[1, 2]).learned(&[7, 8]).given(&[3]);
/// assert_eq!(sequence.tokens(), [1, 2, 7, 8, 3]);
/// assert_eq!(sequence.mask(), [0, 0, 1, 1, 0]);
/// ```
#[doc(alias = "loss mask")]
#[doc(alias = "prompt masking")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    tokens: Vec<u32>,
    mask: Vec<u8>,
}

impl Sequence {
    /// No tokens yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends tokens without a loss.
    #[must_use]
    pub fn given(self, tokens: &[u32]) -> Self {
        self.then(tokens, 0)
    }

    /// Appends tokens that the loss covers. The end-of-sequence token belongs here.
    #[must_use]
    pub fn learned(self, tokens: &[u32]) -> Self {
        self.then(tokens, 1)
    }

    /// Appends another sequence. Use it to put a beginning-of-sequence token in front, or to pack several
    /// examples into one row.
    #[must_use]
    pub fn followed_by(mut self, next: &Self) -> Self {
        self.tokens.extend_from_slice(&next.tokens);
        self.mask.extend_from_slice(&next.mask);
        self
    }

    fn then(mut self, tokens: &[u32], mask: u8) -> Self {
        self.tokens.extend_from_slice(tokens);
        self.mask.resize(self.tokens.len(), mask);
        self
    }

    /// All tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// 1 for each learned token, 0 for each given one.
    pub fn mask(&self) -> &[u8] {
        &self.mask
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// A batch of sequences, padded on the right: the input of a model and of
/// [`TokenLogProbs::next_token`](crate::TokenLogProbs::next_token).
#[doc(alias = "collator")]
#[doc(alias = "padding")]
#[derive(Clone, Debug)]
pub struct SequenceBatch {
    /// u32 `[batch, time]`.
    pub tokens: Tensor,
    /// 1 where a token is learned: u8 `[batch, time]`, 0 on padding.
    pub mask: Tensor,
}

impl SequenceBatch {
    /// One row per sequence, padded with `padding` to the length of the longest.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no sequence, or if one of them has nothing to learn: with such a mask,
    /// training would silently skip the example.
    pub fn new(sequences: &[Sequence], padding: u32, device: &Device) -> Result<Self> {
        let function = "SequenceBatch::new";
        let Some(time) = sequences.iter().map(Sequence::len).max() else {
            return Err(Error::argument(function, "sequences", "is empty"));
        };
        let (mut tokens, mut mask) = (Vec::new(), Vec::new());
        for (row, sequence) in sequences.iter().enumerate() {
            // nothing predicts the first token
            if !sequence.mask.iter().skip(1).any(|&m| m == 1) {
                return Err(Error::argument(
                    function,
                    format!("sequences[{row}]"),
                    "has no learned token after its first",
                ));
            }
            tokens.extend_from_slice(&sequence.tokens);
            mask.extend_from_slice(&sequence.mask);
            tokens.resize((row + 1) * time, padding);
            mask.resize((row + 1) * time, 0);
        }
        let shape = (sequences.len(), time);
        Ok(Self {
            tokens: Tensor::from_vec(tokens, shape, device)?,
            mask: Tensor::from_vec(mask, shape, device)?,
        })
    }
}
