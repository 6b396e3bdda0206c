//! Chain of Hindsight: two answers in one sequence, each after words that judge it (survey §3.2.2).
//!
//! In one sentence: the model reads "a good answer:", the better answer, "a poor answer:" and the
//! worse one, learns both answers, and is later asked for a good one.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | x, y⁺, y⁻ | [`HindsightPair`] | three pieces of text |
//! | the feedback before each answer | [`HindsightFeedback`] | two pieces of text |
//! | 1_{O(x)}(xᵢ): the model's outputs | [`Sequence::mask`], written by [`hindsight_sequence`] | tokens |
//! | past tokens masked at random | [`forgetful_mask`](super::forgetful::forgetful_mask) | `[batch, time]` |
//! | λ | [`HindsightConfig::pretraining_weight`] | number |
//!
//! Read next: [`super::forgetful`] (the mask), [`super::revision`] (feedback that says what is wrong).

use super::{Encode, LearnedAnswers, Sequence, piece};
use crate::error::{Error, Result, non_negative};
use crate::log_probs::TokenLogProbs;
use crate::outputs::TokenLoss;
use crate::reduction::Reduction;
use crate::sft::{SftConfig, sft_loss};
use crate::shape::Axes;
use candle_core::Tensor;
use rand::Rng;
use serde::{Deserialize, Serialize};

/// One comparison: two answers to one prompt, of which a person prefers the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HindsightPair<'a> {
    /// x.
    pub prompt: &'a str,
    /// y⁺.
    pub good: &'a str,
    /// y⁻.
    pub bad: &'a str,
}

/// The words before a good and before a bad answer, including spaces and line breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HindsightFeedback {
    /// The words before y⁺; at inference they ask for the answer.
    pub good: String,
    /// The words before y⁻.
    pub bad: String,
}

/// Feedback in many wordings, good and bad: a model that has seen only one wording learns a code word,
/// not its meaning. No wording refers to an earlier answer, so all of them fit both orders.
const FEEDBACK: [(&str, &str); 6] = [
    ("\nA good answer: ", "\nA poor answer: "),
    ("\nA helpful reply is: ", "\nAn unhelpful reply is: "),
    ("\nPeople preferred this: ", "\nPeople liked this less: "),
    ("\nWell answered: ", "\nBadly answered: "),
    ("\nHere is a strong answer: ", "\nHere is a weak answer: "),
    ("\nWrite a good response. ", "\nWrite a bad response. "),
];

impl HindsightFeedback {
    /// The wordings that this module provides.
    pub fn all() -> Vec<Self> {
        let own = |(good, bad): (&str, &str)| Self {
            good: good.to_string(),
            bad: bad.to_string(),
        };
        FEEDBACK.into_iter().map(own).collect()
    }

    /// One of [`HindsightFeedback::all`], drawn uniformly.
    pub fn draw(rng: &mut impl Rng) -> Self {
        Self::all().swap_remove(rng.random_range(0..FEEDBACK.len()))
    }
}

/// Which answers a sequence holds, and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HindsightOrder {
    /// Prompt, good feedback, y⁺, bad feedback, y⁻: training sees the good answer exactly as inference
    /// asks for it.
    GoodThenBad,
    /// Prompt, bad feedback, y⁻, good feedback, y⁺: the good answer is learned after a bad one.
    BadThenGood,
    /// Only the good answer: conditional SFT.
    GoodOnly,
    /// Only the bad answer.
    BadOnly,
}

/// How a comparison is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HindsightFormat {
    /// The words of judgment.
    pub feedback: HindsightFeedback,
    /// Which answers the sequence holds, and in which order.
    pub order: HindsightOrder,
    /// Whether the loss covers both answers, as in v6 of the paper, or only the last, as an earlier
    /// version describes it.
    pub learned: LearnedAnswers,
}

/// A comparison as one sequence: `x feedback y end feedback y end`.
///
/// # Equation
/// ```text
/// log p(x) = Σᵢ 1_{O(x)}(xᵢ) · log p(xᵢ│x₍<i₎)                           eq. 2
/// ```
/// # Shapes
/// The loss covers both answers and the `end` token after each, or only the last answer and its `end`;
/// prompt and feedback are given.
/// # Errors
/// [`Error::Argument`] if the prompt, an answer or a feedback has no token; the errors of `encode`.
/// # Properties
/// * Where the good answer comes first, the sequence begins with [`hindsight_prompt`], up to the first
///   learned token.
/// * The first answer of a pair is written as it would be alone: [`HindsightOrder::GoodThenBad`] begins
///   with the sequence of [`HindsightOrder::GoodOnly`], the reverse order with that of
///   [`HindsightOrder::BadOnly`].
/// * The choice of learned answers changes only the mask, not the tokens.
/// # Departures
/// * Eq. 2 prints the indicator inside the logarithm; a mask over the terms is meant.
/// * The wordings are this crate's.
/// * As in the authors' later data code (not the first one), each answer has its own `end`, and the
///   prompt is not repeated before the second. By default that code writes one more `end` after the
///   last, which is left out here.
/// * There is no format for ties; the code has templates for "equally good".
/// # Examples
/// ```
/// use candle_align::language::chain_of_hindsight::*;
/// use candle_align::language::LearnedAnswers;
/// use candle_align::Result;
///
/// let bytes = |text: &str| -> Result<Vec<u32>> { Ok(text.bytes().map(u32::from).collect()) };
/// let feedback = HindsightFeedback { good: " good:".into(), bad: " bad:".into() };
/// let format = HindsightFormat {
///     feedback,
///     order: HindsightOrder::GoodThenBad,
///     learned: LearnedAnswers::Every,
/// };
/// let pair = HindsightPair { prompt: "2+2?", good: "4", bad: "5" };
/// let sequence = hindsight_sequence(&bytes, &pair, &format, 0)?;
///
/// let text: Vec<u8> = sequence.tokens().iter().map(|&t| t as u8).collect();
/// assert_eq!(text, b"2+2? good:4\0 bad:5\0");
/// assert_eq!(sequence.mask()[10..], [1, 1, 0, 0, 0, 0, 0, 1, 1]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Decode the tokens under a mask of 1. You should read the answers and their `end`, and no feedback:
///   a model that learns the feedback learns to judge before it answers.
/// * The prompt that you sample with must be the beginning of a training sequence, token by token.
/// # Try
/// * Write the bad answer first. Which tokens of the sequence stay? Solution:
///   `tests/identities/chain_of_hindsight.rs::the_first_answer_of_a_pair_stands_as_it_stands_alone`.
/// # Source
/// Liu et al. 2023, arXiv:2302.02676v6, §2 and eq. 2; authors' code forhaoliu/chain-of-hindsight,
/// `coh/data/pack_hf.py`.
#[doc(alias = "chain of hindsight")]
pub fn hindsight_sequence(
    encode: &impl Encode,
    pair: &HindsightPair,
    format: &HindsightFormat,
    end: u32,
) -> Result<Sequence> {
    let function = "hindsight_sequence";
    let of = |argument, text| piece(function, argument, encode, text);
    let good = || -> Result<_> {
        let feedback = of("format.feedback.good", &format.feedback.good)?;
        Ok((feedback, of("pair.good", pair.good)?))
    };
    let bad = || -> Result<_> {
        let feedback = of("format.feedback.bad", &format.feedback.bad)?;
        Ok((feedback, of("pair.bad", pair.bad)?))
    };
    let answers = match format.order {
        HindsightOrder::GoodThenBad => vec![good()?, bad()?],
        HindsightOrder::BadThenGood => vec![bad()?, good()?],
        HindsightOrder::GoodOnly => vec![good()?],
        HindsightOrder::BadOnly => vec![bad()?],
    };
    let count = answers.len();
    let mut sequence = Sequence::new().given(&of("pair.prompt", pair.prompt)?);
    for (i, (feedback, mut answer)) in answers.into_iter().enumerate() {
        answer.push(end);
        sequence = sequence.given(&feedback);
        sequence = format.learned.write(sequence, &answer, i + 1 == count);
    }
    Ok(sequence)
}

/// What to sample from: the prompt and the good feedback.
///
/// # Errors
/// [`Error::Argument`] if the prompt or the feedback has no token; the errors of `encode`.
/// # Properties
/// These are the first tokens of [`hindsight_sequence`] where the good answer comes first.
/// # Departures
/// The survey prints "position feedback" for positive feedback.
pub fn hindsight_prompt(
    encode: &impl Encode,
    prompt: &str,
    feedback: &HindsightFeedback,
) -> Result<Vec<u32>> {
    let function = "hindsight_prompt";
    let mut tokens = piece(function, "prompt", encode, prompt)?;
    tokens.extend(piece(function, "feedback.good", encode, &feedback.good)?);
    Ok(tokens)
}

/// Settings of [`chain_of_hindsight_loss`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HindsightConfig {
    /// λ ≥ 0. The default, `None`, means 1.5 where there is pretraining text: the paper's value, given
    /// with its eq. 3 (the authors' code has 0.01). A λ > 0 that you set needs the text; 0 leaves it out.
    pub pretraining_weight: Option<f64>,
}

/// λ in the paper.
const PRETRAINING_WEIGHT: f64 = 1.5;

/// What [`chain_of_hindsight_loss`] returns: two batches, each with its own mask.
#[derive(Clone, Debug)]
pub struct HindsightLoss {
    /// The loss on the sequences with feedback `[batch, time]`.
    pub hindsight: TokenLoss,
    /// The loss on the pretraining text `[texts, positions]`, multiplied by λ; `None` without text or
    /// where λ = 0.
    pub pretraining: Option<TokenLoss>,
}

impl HindsightLoss {
    /// The sum of both, each reduced over its own batch.
    ///
    /// # Errors
    /// As [`Reduction::apply`].
    pub fn reduce(&self, reduction: Reduction) -> Result<Tensor> {
        let hindsight = self.hindsight.reduce(reduction)?;
        match &self.pretraining {
            Some(pretraining) => Ok((hindsight + pretraining.reduce(reduction)?)?),
            None => Ok(hindsight),
        }
    }
}

/// Cross-entropy of the answers under feedback, and λ times that of pretraining text.
///
/// # Equation
/// ```text
/// hₜ = −log p(xₜ│x₍<t₎)              on the answers of a sequence with feedback
/// pₜ = −λ · log p(xₜ│x₍<t₎)          on every token of pretraining text
/// L  = E_feedback[ Σ h ] + E_pretraining[ Σ p ]                       eq. 3, negated
/// ```
/// # Shapes
/// `hindsight` `[batch, time]`: log-probabilities of sequences written by [`hindsight_sequence`],
/// under their mask. `pretraining` `[texts, positions]`: a separate batch of any size, or `None`, which
/// leaves the first term of L. The result holds a loss per token for each.
/// # Errors
/// [`Error::DType`] unless both have the same type;
/// [`Error::Parameter`] unless λ is finite and not negative;
/// [`Error::Argument`] if a λ > 0 was set and there is no text.
/// # Properties
/// * It is [`sft_loss`] on the sequences plus λ times [`sft_loss`] on the text, which λ = 0 leaves out.
///   Only the content of the sequences is new. The gradients are −1 on the tokens of every learned
///   answer, good or bad, and −λ on the text.
/// * It is a likelihood, so each part of a sequence fits its own data: p(y₁│good) and p(y₂│y₁, bad)
///   do not compete. Without the second answer it is conditional SFT on the preferred answers.
/// * With pairs drawn from p and Bradley–Terry preferences, p(yᵢ│good) = 2pᵢ Σⱼ pⱼ σ(rᵢ − rⱼ): a
///   tilt of at most 2 and a KL to p of at most log 2 − ½. Without noise it is the best of two. One
///   round therefore never goes beyond best-of-2.
/// * "Bad, then good" learns p(i│j) ∝ pᵢ σ(rᵢ − rⱼ), which averages to the same law over the model's
///   own bad answers.
/// # Departures
/// * The survey gives no equation. The sign is negated, because the paper maximizes.
/// * Eq. 3 has expectations of sums. The authors' code takes the mean over the counted tokens of each
///   batch ([`Reduction::TokenMean`] here) and multiplies the text's mean by λ. Its λ is 0.01 where the
///   paper says 1.5.
/// # Examples
/// ```
/// use candle_align::language::chain_of_hindsight::{HindsightConfig, chain_of_hindsight_loss};
/// use candle_align::{Reduction, TokenLogProbs};
/// use candle_core::{Device, Tensor};
///
/// let of = |values: &[f64], mask: &[u8]| -> candle_align::Result<TokenLogProbs> {
///     let row = |x: Tensor| x.unsqueeze(0);
///     TokenLogProbs::new(&row(Tensor::new(values, &Device::Cpu)?)?, &row(Tensor::new(mask, &Device::Cpu)?)?)
/// };
/// // feedback, answer, feedback, answer; then two tokens of a book
/// let hindsight = of(&[-9.0, -1.0, -9.0, -2.0], &[0, 1, 0, 1])?;
/// let book = of(&[-4.0, -5.0], &[1, 1])?;
///
/// let loss = chain_of_hindsight_loss(&hindsight, Some(&book), &HindsightConfig::default())?;
/// let mean = loss.reduce(Reduction::TokenMean)?.to_scalar::<f64>()?;
/// assert!((mean - ((1.0 + 2.0) / 2.0 + 1.5 * (4.0 + 5.0) / 2.0)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Score held-out good answers twice, after the good and after the bad feedback. The loss should be
///   lower after the good one; equal losses mean that the model ignores the words.
/// * Compare the loss of the second answer with that of the first. If the second is far lower, the model
///   copies it from the first: hide more past tokens ([`forgetful_mask`](super::forgetful::forgetful_mask)).
/// * Reduce [`HindsightLoss::pretraining`] by itself. If it rises, the model forgets; divide by λ before
///   you compare runs.
/// # Try
/// * How strong can preferences make the model that is asked for a good answer? Solution:
///   `cargo run --example hindsight`.
/// * Train on "bad, then good" only. What does the good answer average to? Solution:
///   `tests/optimum/chain_of_hindsight.rs::bad_then_good_averages_to_the_same_law`.
/// # Source
/// Liu et al. 2023, arXiv:2302.02676v6, eqs. 2–3; authors' code forhaoliu/chain-of-hindsight,
/// `coh/coh_train_llama.py`, `train_step`.
#[doc(alias = "CoH")]
#[doc(alias = "pretraining mix")]
pub fn chain_of_hindsight_loss(
    hindsight: &TokenLogProbs,
    pretraining: Option<&TokenLogProbs>,
    config: &HindsightConfig,
) -> Result<HindsightLoss> {
    let function = "chain_of_hindsight_loss";
    let lambda = config.pretraining_weight.unwrap_or(PRETRAINING_WEIGHT);
    non_negative(function, "pretraining_weight", lambda)?;
    if pretraining.is_none() && config.pretraining_weight.is_some_and(|set| set > 0.0) {
        let problem = "is None, but pretraining_weight > 0 weighs its tokens";
        return Err(Error::argument(function, "pretraining", problem));
    }
    let mut axes = Axes::new(function);
    axes.float("hindsight", hindsight.values(), &["batch", "time"])?;
    if let Some(text) = pretraining {
        axes.float("pretraining", text.values(), &["texts", "positions"])?;
    }

    // −log p(xₜ) on the answers, −λ · log p(xₜ) on the text
    let plain = SftConfig::default();
    let weighted = |text: &TokenLogProbs| -> Result<TokenLoss> {
        let loss = sft_loss(text, None, &plain)?;
        Ok(TokenLoss {
            loss: (loss.loss * lambda)?,
            mask: loss.mask,
        })
    };
    Ok(HindsightLoss {
        hindsight: sft_loss(hindsight, None, &plain)?,
        // λ = 0 leaves the text out: 0 · ∞ is no number
        pretraining: pretraining
            .filter(|_| lambda > 0.0)
            .map(weighted)
            .transpose()?,
    })
}
