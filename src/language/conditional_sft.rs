//! Conditional fine-tuning: the prompt says where an answer comes from (survey §3.2.2, OpenChat).
//!
//! In one sentence: the model learns good and mediocre answers together, each after the name of its
//! class; asked under the good name, it answers as the good class does.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | c: the class of an answer, such as the model that wrote it | [`ClassPrompt`] | two pieces of text |
//! | (x, c), y | [`ClassPrompt::sequence`], [`ClassPrompt::prompt`] | tokens |
//! | r_c, β | `rewards`, [`ClassWeighting::Exponential`] | `[batch]`, number |
//! | e^{r_c/β} | [`ClassWeightedLoss::weights`] | `[batch]` |
//!
//! The survey's form has no weights: it is [`sft_loss`] on these sequences. The later paper weights
//! the classes by a reward: [`c_rlft_loss`].
//!
//! Read next: [`super::chain_of_hindsight`], which writes the judgment instead of the class.

use super::{Encode, LearnedAnswers, Sequence, optional, piece};
use crate::error::{Error, Result, positive};
use crate::log_probs::TokenLogProbs;
use crate::math::{mask_count, masked_sum};
use crate::outputs::TokenLoss;
use crate::reduction::Reduction;
use crate::sft::{SftConfig, sft_loss};
use crate::shape::Axes;
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// The words before each speaker, which name the class of a conversation.
///
/// | constructor | user | assistant |
/// |---|---|---|
/// | [`ClassPrompt::prefix`], the survey's form | `User:` | `Assistant GPT4:` |
/// | [`ClassPrompt::openchat_v3`], the later models' | `GPT4 User:` | `GPT4 Assistant:` |
///
/// The class may be any text; OpenChat's are [`ClassPrompt::GPT4`] and [`ClassPrompt::GPT3`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[doc(alias = "conditional SFT")]
#[doc(alias = "OpenChat")]
pub struct ClassPrompt {
    /// The words before the user's text; may be empty.
    pub user: String,
    /// The words before the assistant's text; may be empty.
    pub assistant: String,
}

/// One round of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn<'a> {
    /// x; the loss never covers it.
    pub user: &'a str,
    /// y, the answer.
    pub assistant: &'a str,
}

impl ClassPrompt {
    /// OpenChat's better class: answers by GPT-4.
    pub const GPT4: &'static str = "GPT4";
    /// OpenChat's larger and worse class: answers by GPT-3.5.
    pub const GPT3: &'static str = "GPT3";

    /// The survey's form, OpenChat v2: the class is in the assistant's prefix.
    pub fn prefix(class: &str) -> Self {
        Self {
            user: "User:".to_string(),
            assistant: format!("Assistant {class}:"),
        }
    }

    /// OpenChat v3.2: the class comes before both speakers.
    pub fn openchat_v3(class: &str) -> Self {
        Self {
            user: format!("{class} User:"),
            assistant: format!("{class} Assistant:"),
        }
    }

    /// Writes a conversation to learn from: `user x end assistant y end …`.
    ///
    /// # Equation
    /// ```text
    /// user  x₁  end  assistant  y₁  end   user  x₂  end  assistant  y₂  end …
    ///                           └learned┘                            └learned┘
    /// L = −Σᵢ log P(yᵢ end│x₁, y₁, …, xᵢ, c)                         sft_loss
    /// ```
    /// # Shapes
    /// The loss covers the answers and the `end` token after each; prefixes, the user's words and the
    /// `end` after them are given. With [`LearnedAnswers::Last`] earlier answers are given too: one
    /// such sequence per turn gives each turn its own row, and so its own length.
    /// # Errors
    /// [`Error::Argument`] if there is no turn, or a speaker's text has no token; the errors of
    /// `encode`.
    /// # Properties
    /// * The sequence begins with [`ClassPrompt::prompt`], up to the first learned token.
    /// * One row per turn with [`LearnedAnswers::Last`] learns, over all rows, the same tokens after the
    ///   same context as one row with [`LearnedAnswers::Every`].
    /// * Each class learns its own data, and the mixture of the classes is the whole of the data. Samples
    ///   under a class therefore never go beyond that class.
    /// # Departures
    /// The authors' code starts with a beginning-of-sequence token: prepend it with
    /// [`Sequence::followed_by`]. Like that code, this function writes no space after a prefix.
    /// # Examples
    /// ```
    /// use candle_align::language::conditional_sft::{ClassPrompt, Turn};
    /// use candle_align::language::LearnedAnswers;
    /// use candle_align::Result;
    ///
    /// let bytes = |text: &str| -> Result<Vec<u32>> { Ok(text.bytes().map(u32::from).collect()) };
    /// let good = ClassPrompt::prefix(ClassPrompt::GPT4);
    /// let turn = Turn { user: "2+2?", assistant: "4" };
    /// let sequence = good.sequence(&bytes, &[turn], 0, LearnedAnswers::Every)?;
    ///
    /// let text: Vec<u8> = sequence.tokens().iter().map(|&t| t as u8).collect();
    /// assert_eq!(text, b"User:2+2?\0Assistant GPT4:4\0");
    /// // the answer and its end
    /// assert_eq!(sequence.mask()[24..], [0, 1, 1]);
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Inspect
    /// * Report the loss of each class by itself: an average hides a class that does not train.
    /// * Score held-out good answers under the good and under the other name. Equal losses mean that the
    ///   model ignores the class, so that asking for the good one does nothing.
    /// # Try
    /// * What does a model that is told the class answer under the good name, and what does one answer
    ///   that is not told? Solution: `cargo run --example conditional_sft`.
    /// * Give every turn a row of its own. Which tokens are learned? Solution:
    ///   `tests/identities/conditional_sft.rs::a_row_per_turn_learns_what_one_row_learns`.
    /// # Source
    /// Wang et al. 2023, arXiv:2307.12966v1, §3.2.2, which describes it in words. OpenChat: Wang et al.
    /// 2023, arXiv:2309.11235, of which the abstract and summaries were read; authors' code
    /// imoneoi/openchat, `ochat/data/generate_dataset.py`.
    pub fn sequence(
        &self,
        encode: &impl Encode,
        turns: &[Turn],
        end: u32,
        learned: LearnedAnswers,
    ) -> Result<Sequence> {
        let function = "ClassPrompt::sequence";
        if turns.is_empty() {
            return Err(Error::argument(function, "turns", "is empty"));
        }
        let mut sequence = Sequence::new();
        for (i, turn) in turns.iter().enumerate() {
            let user = piece(function, format!("turns[{i}].user"), encode, turn.user)?;
            let answer = format!("turns[{i}].assistant");
            let mut answer = piece(function, answer, encode, turn.assistant)?;
            answer.push(end);
            sequence = self.opened(encode, sequence, &user, end)?;
            sequence = learned.write(sequence, &answer, i + 1 == turns.len());
        }
        Ok(sequence)
    }

    /// The prompt for sampling an answer under this class: `user x end assistant`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the question has no token; the errors of `encode`.
    /// # Properties
    /// These are the first tokens of [`ClassPrompt::sequence`] on the same question.
    pub fn prompt(&self, encode: &impl Encode, user: &str, end: u32) -> Result<Vec<u32>> {
        let user = piece("ClassPrompt::prompt", "user", encode, user)?;
        let opened = self.opened(encode, Sequence::new(), &user, end)?;
        Ok(opened.tokens().to_vec())
    }

    /// Appends a question, up to where the answer begins.
    fn opened(
        &self,
        encode: &impl Encode,
        sequence: Sequence,
        user: &[u32],
        end: u32,
    ) -> Result<Sequence> {
        Ok(sequence
            .given(&optional(encode, &self.user)?)
            .given(user)
            .given(&[end])
            .given(&optional(encode, &self.assistant)?))
    }
}

/// How the reward of a class becomes the weight of its examples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ClassWeighting {
    /// w = e^{r_c/β}: the paper's objective.
    Exponential {
        /// β > 0.
        beta: f64,
    },
    /// w = r_c: the number is the weight itself, as in the authors' data files. It should not be
    /// negative: w < 0 makes an answer less likely without bound.
    Linear,
}

/// Settings of [`c_rlft_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CRlftConfig {
    /// How a reward becomes a weight. Default: the paper's e^{r_c/β} with β = 1, because this page's
    /// sources give no number for β.
    pub weighting: ClassWeighting,
}

impl Default for CRlftConfig {
    fn default() -> Self {
        Self {
            weighting: ClassWeighting::Exponential { beta: 1.0 },
        }
    }
}

/// What [`c_rlft_loss`] returns.
#[derive(Clone, Debug)]
pub struct ClassWeightedLoss {
    /// The weighted loss per token `[batch, time]`, and which tokens count.
    pub tokens: TokenLoss,
    /// w of each row `[batch]`, detached.
    pub weights: Tensor,
}

impl ClassWeightedLoss {
    /// The authors' Σ w·CE / Σ w over the tokens that count: a scalar, 0 if none counts. Copies a sum
    /// to the host.
    ///
    /// # Errors
    /// As for [`Reduction::apply`], if negative weights outweigh the others.
    pub fn token_mean(&self) -> Result<Tensor> {
        let count = divisor(self.token_weight()?);
        self.tokens.reduce(Reduction::SumOver { count })
    }

    /// The authors' option of dividing each token's weight by the length of its turn,
    /// Σ w·(mean CE) / Σ w, where each turn has its own row: a scalar, 0 if no token counts. Copies a
    /// sum to the host.
    ///
    /// # Errors
    /// As for [`Reduction::apply`], if negative weights outweigh the others.
    pub fn sequence_mean(&self) -> Result<Tensor> {
        let count = divisor(self.sequence_weight()?);
        self.tokens.reduce(Reduction::SequenceMeansOver { count })
    }

    /// Σ w over the tokens that count, the divisor of [`ClassWeightedLoss::token_mean`]. Add it up over
    /// an accumulation window and pass it to [`Reduction::SumOver`]. Copies a sum to the host.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn token_weight(&self) -> Result<f64> {
        self.total(&mask_count(&self.tokens.mask, DType::F64)?)
    }

    /// Σ w over the rows that count a token, the divisor of [`ClassWeightedLoss::sequence_mean`]. Pass
    /// it to [`Reduction::SequenceMeansOver`]. Copies a sum to the host.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn sequence_weight(&self) -> Result<f64> {
        let counted = mask_count(&self.tokens.mask, DType::F64)?.gt(0.0)?;
        self.total(&counted.to_dtype(DType::F64)?)
    }

    fn total(&self, per_row: &Tensor) -> Result<f64> {
        let weights = self.weights.to_dtype(DType::F64)?;
        // a row without counted tokens adds nothing, whatever its weight
        Ok(masked_sum(&(weights * per_row)?, &per_row.gt(0.0)?)?.to_scalar::<f64>()?)
    }
}

/// The divisor, or 1 where all weights are 0: the sum is then 0 over any divisor.
fn divisor(weight: f64) -> f64 {
    if weight == 0.0 { 1.0 } else { weight }
}

/// Conditioned reward-weighted fine-tuning: cross-entropy of each token, weighted by its class.
///
/// # Equation
/// ```text
/// w  = e^{r_c/β}                                   ClassWeighting::Exponential
/// w  = r_c                                         ClassWeighting::Linear
/// lₜ = −w · log π_θ(yₜ│x, c, y₍<t₎)
/// L  = E_c [ Σₜ lₜ ]
/// ```
/// # Shapes
/// `log_probs` `[batch, time]`: of sequences written by [`ClassPrompt`]. `rewards` `[batch]`: r_c
/// of each row's class, the same number for all rows of a class. The loss is `[batch, time]` with
/// its mask, the weights `[batch]`.
///
/// | to get | reduce with |
/// |---|---|
/// | the paper's expectation over answers | [`Reduction::SequenceMean`](crate::Reduction) |
/// | the code's Σ w·CE / Σ w over tokens | [`ClassWeightedLoss::token_mean`] |
/// | its option per turn, Σ w·(mean CE) / Σ w | [`ClassWeightedLoss::sequence_mean`] |
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] if `rewards` is not `[batch]` in the type of the
/// log-probabilities; [`Error::Parameter`] unless β is finite and > 0. The values of the rewards are
/// not checked: r_c/β above 88 overflows in f32 (only ratios matter, so subtract the largest first),
/// and a negative weight under [`ClassWeighting::Linear`] trains against its answers.
/// # Properties
/// * The gradient with respect to each counted log-probability is −w, a constant within a class.
/// * Equal rewards give a multiple of [`sft_loss`]; weights of 1 (r = 0, or 1 under
///   [`ClassWeighting::Linear`]) give [`sft_loss`] itself, and so the survey's conditional SFT.
/// * Adding a number to all rewards multiplies the loss by e^{number/β} and drops out of Σ w·CE / Σ w.
/// * **In a policy that is told c, the weights cancel.** If the classes share nothing, the optimum is
///   π(·│c) = the data of class c for any weights, as in conditional SFT. The derivation says the same:
///   π_c · e^{r_c/β} / Z = π_c, since r_c does not depend on the answer.
/// * **In a policy that is not told c, they mix the classes**: π(y) ∝ Σ_c p(c) · e^{r_c/β} · π_c(y). Real
///   models lie between the two: the weights act only through what the classes share.
/// * If a label "good" is noisy, π(·│good) ∝ data · P(good│y). Its KL to the data is at most
///   −log P(good), so a label that is given often can move the model only a little. A label given with
///   P(good│y) ∝ e^{r/β} gives the optimum of reinforcement learning with a KL penalty.
/// * Dividing by the length of each answer multiplies either optimum by 1/|y|, as for [`sft_loss`]:
///   told c, π(y│c) ∝ π_c(y)/|y|; not told, π(y) ∝ Σ_c p(c) · e^{r_c/β} · π_c(y)/|y|.
/// # Departures
/// * Not in the survey, which is older than the paper and describes the unweighted form.
/// * Rewards and weights differ. The paper names rewards: r = 1 for GPT-4 and a smaller constant for
///   GPT-3.5. The numbers 1.0 and 0.1 in the code's data are the weights w. Under β = 1, rewards of 1 and
///   0.1 would give weights in the ratio e^{0.9} = 2.46, not 10; β = 0.9/ln 10 = 0.39 gives 10.
///   [`ClassWeighting`] therefore offers both.
/// # Examples
/// ```
/// use candle_align::language::conditional_sft::{ClassWeighting, CRlftConfig, c_rlft_loss};
/// use candle_align::TokenLogProbs;
/// use candle_core::{Device, Tensor};
///
/// // an answer by GPT-4 of one token, one by GPT-3.5 of two
/// let values = Tensor::new(&[[-1.0f64, 0.0], [-2.0, -3.0]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 0], [1, 1]], &Device::Cpu)?;
/// let log_probs = TokenLogProbs::new(&values, &mask)?;
/// let weights = Tensor::new(&[1.0f64, 0.1], &Device::Cpu)?;
///
/// let config = CRlftConfig { weighting: ClassWeighting::Linear };
/// let loss = c_rlft_loss(&log_probs, &weights, &config)?;
/// let mean = loss.token_mean()?.to_scalar::<f64>()?;
/// assert!((mean - (1.0 + 0.1 * (2.0 + 3.0)) / (1.0 + 0.1 + 0.1)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Print [`ClassWeightedLoss::weights`] once. A small β can give one class all the weight, or overflow
///   to +∞; under [`ClassWeighting::Linear`] look for a sign you did not intend.
/// * Compare the unweighted loss of each class. If neither changes with the weights, the model separates
///   the classes fully and the weights cancel, as the theory says.
/// * A mean that falls without bound means negative weights.
/// # Try
/// * Train with and without weights, told the class and not told. Where do the weights matter? Solution:
///   `cargo run --example conditional_sft`.
/// * Choose a label that turns conditional SFT into reinforcement learning with a KL penalty. Solution:
///   `tests/optimum/conditional_sft.rs::a_label_given_by_reward_makes_it_reinforcement_learning`.
/// # Source
/// Wang et al. 2023, arXiv:2309.11235: the abstract was read in the original, the derivation and the
/// objective in two independent summaries that agree, so its equations have no numbers here. Authors'
/// code imoneoi/openchat, read: `ochat/models/unpadded_llama.py`, `weighted_cross_entropy`, and
/// `ochat/data/generate_dataset.py`. The survey's form: Wang et al. 2023, arXiv:2307.12966v1, §3.2.2.
#[doc(alias = "C-RLFT")]
#[doc(alias = "OpenChat")]
#[doc(alias = "reward-weighted regression")]
#[doc(alias = "weighted SFT")]
pub fn c_rlft_loss(
    log_probs: &TokenLogProbs,
    rewards: &Tensor,
    config: &CRlftConfig,
) -> Result<ClassWeightedLoss> {
    let function = "c_rlft_loss";
    let mut axes = Axes::new(function);
    axes.float("log_probs", log_probs.values(), &["batch", "time"])?;
    let rewards = axes.float("rewards", rewards, &["batch"])?;

    // w = e^{r_c/β}, or r_c
    let weights = match config.weighting {
        ClassWeighting::Exponential { beta } => {
            positive(function, "beta", beta)?;
            (rewards.detach() / beta)?.exp()?
        }
        ClassWeighting::Linear => rewards.detach(),
    };

    // −w · log π_θ(yₜ)
    Ok(ClassWeightedLoss {
        tokens: sft_loss(log_probs, Some(&weights), &SftConfig::default())?,
        weights,
    })
}
