//! Drawing answers from a policy, the first step of every method in this section (survey §3.1).
//!
//! In one sentence: ask a causal model for the next token's distribution, modify it by temperature,
//! top-k and top-p, draw a token, and keep its log-probability.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | x | `prompts`, of any lengths | tokens |
//! | y₁ … y_K ~ p_w^{1/λ}(·│x) | [`sample`], with [`SamplingConfig::answers`] = K | row `prompt · K + i` |
//! | λ, the temperature | [`SamplingConfig::temperature`] | number |
//! | log p_w(yₜ│x, y₍<t₎) | [`Sample::log_probs`] | one per token drawn |
//!
//! Read next: [`super::raft`], which learns from the best answers; [`super::rewards`], which turns their
//! scores into rewards for PPO.

use crate::error::{Error, Result, positive, require};
use crate::math::to_host;
use crate::online::samples::{Sample, Samples};
use crate::sequence::Sequence;
use crate::shape::Axes;
use candle_core::{DType, Device, Tensor};
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Settings of [`sample`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingConfig {
    /// K ≥ 1, the number of answers drawn to each prompt. Default 1; RAFT draws 8, 16 or 32.
    #[doc(alias = "num_return_sequences")]
    pub answers: usize,
    /// λ > 0: logits are divided by it. Default 1, the model's own distribution; RAFT uses 0.7, 0.85
    /// and 1.
    pub temperature: f64,
    /// k ≥ 1: only the k likeliest tokens can be drawn. Of equally likely tokens those with the lowest ids
    /// come first, so k = 1 is greedy decoding. Default none.
    #[doc(alias = "greedy decoding")]
    pub top_k: Option<usize>,
    /// In (0, 1]: only the likeliest tokens can be drawn, as many as are needed to hold this share of
    /// the probability that remains after top-k. Default 1, which keeps all of them.
    #[doc(alias = "nucleus sampling")]
    pub top_p: f64,
    /// At least 1: an answer that has not ended by then is cut off. Default 128, as in RAFT.
    pub max_new_tokens: usize,
    /// The tokens that end an answer: the first of them is its last token. All are of the model's vocabulary. Default none:
    /// every answer has `max_new_tokens`.
    #[doc(alias = "eos_token_id")]
    pub ends: Vec<u32>,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self {
            answers: 1,
            temperature: 1.0,
            top_k: None,
            top_p: 1.0,
            max_new_tokens: 128,
            ends: Vec::new(),
        }
    }
}

impl SamplingConfig {
    /// The distributions that [`sample`] draws from, given these logits.
    ///
    /// # Equation
    /// ```text
    /// a(v) ∝ e^{z(v)/λ}
    /// b(v) ∝ a(v)   for the k likeliest v, else 0
    /// q(v) ∝ b(v)   where Σ b over the v's that are likelier is below top_p, else 0
    /// ```
    /// # Shapes
    /// `logits` `[batch, vocabulary]` in f32, f64, bf16 or f16. The result is f64, of the same shape and
    /// on the same device, and has no history.
    /// # Errors
    /// [`Error::Parameter`] for a setting out of its range; [`Error::Shape`], [`Error::DType`] as
    /// above; [`Error::Argument`] if a row holds NaN or +∞, or nothing but −∞. A token at −∞ is never
    /// drawn.
    pub fn probabilities(&self, logits: &Tensor) -> Result<Tensor> {
        let function = "SamplingConfig::probabilities";
        self.check(function)?;
        Axes::new(function).axes("logits", logits, &["batch", "vocabulary"])?;
        let mut probabilities = Vec::new();
        for (row, logits) in rows_on_host(function, logits)?.iter().enumerate() {
            usable(function, row, logits)?;
            let first = probabilities.len();
            probabilities.resize(first + logits.len(), 0.0);
            let (kept, log_q) = self.log_proposal(logits);
            for (token, log_q) in kept.into_iter().zip(log_q) {
                probabilities[first + token] = log_q.exp();
            }
        }
        Ok(Tensor::from_vec(
            probabilities,
            logits.shape(),
            logits.device(),
        )?)
    }

    fn check(&self, function: &'static str) -> Result<()> {
        let at_least_one = |field, count: usize| {
            require(count >= 1, function, field, "at least 1", count)?;
            Ok::<(), Error>(())
        };
        at_least_one("answers", self.answers)?;
        positive(function, "temperature", self.temperature)?;
        at_least_one("top_k", self.top_k.unwrap_or(1))?;
        let share = self.top_p > 0.0 && self.top_p <= 1.0;
        require(share, function, "top_p", "in (0, 1]", self.top_p)?;
        at_least_one("max_new_tokens", self.max_new_tokens)
    }

    /// The tokens that are not cut off, by id, and log q of each.
    fn log_proposal(&self, logits: &[f64]) -> (Vec<usize>, Vec<f64>) {
        // z(v)/λ less its maximum, so that no λ overflows
        let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let scaled: Vec<f64> = logits
            .iter()
            .map(|z| (z - highest) / self.temperature)
            .collect();
        if self.top_k.is_none() && self.top_p == 1.0 {
            return ((0..scaled.len()).collect(), log_softmax(&scaled));
        }

        // the k likeliest, and of equal ones the first by id
        let k = self.top_k.unwrap_or(scaled.len()).min(scaled.len());
        let mut order = likeliest(&scaled, k);

        // of these, keep each whose likelier ones hold less than top_p; at 1 rounding must not cut
        if self.top_p < 1.0 {
            order.sort_unstable_by(|a, b| scaled[*b].total_cmp(&scaled[*a]).then(a.cmp(b)));
            let left: Vec<f64> = order.iter().map(|&v| scaled[v].exp()).collect();
            let enough = self.top_p * left.iter().sum::<f64>();
            let mut likelier = 0.0;
            let kept = left.iter().take_while(|b| {
                let stays = likelier < enough;
                likelier += *b;
                stays
            });
            order.truncate(kept.count());
            order.sort_unstable();
        }
        let kept: Vec<f64> = order.iter().map(|&v| scaled[v]).collect();
        let log_q = log_softmax(&kept);
        (order, log_q)
    }
}

/// Draws answers to prompts from a causal model.
///
/// # Equation
/// ```text
/// p(·│x, y₍<t₎) = softmax z                             the model
/// q(·│x, y₍<t₎) = p after temperature, top-k and top-p   SamplingConfig::probabilities
/// yₜ ~ q(·│x, y₍<t₎)     until yₜ is an end token or t = max_new_tokens
/// ```
/// The order matters: temperature comes first, then top-k, then top-p on the tokens that top-k kept.
/// # Shapes
/// `model` maps tokens `[batch, time]` (u32, on `device`) to logits `[batch, time, vocabulary]` in
/// f32, f64, bf16 or f16. Rows are padded on the right with token 0, and a row's next token is read
/// at its own last position. That is right for every causal model, in which no position sees a later one.
/// Rows that have ended are left out of later calls. The result has `prompts · answers` rows.
///
/// All rows go through the model at once. If their logits do not fit into memory, call this function on a
/// few prompts at a time with the same `rng`. The rows are the same, in the same order.
/// # Errors
/// [`Error::Parameter`] for a setting out of its range; [`Error::Argument`] for an empty prompt, an end
/// token that the logits do not have, or logits at the position that is read that are NaN or +∞, or
/// nothing but −∞; [`Error::Shape`], [`Error::DType`] for logits that are not as above; and every
/// error of `model`.
/// # Properties
/// * The same `rng` gives the same tokens, with the same version of `rand`. Every row draws from its own
///   stream, so its tokens do not depend on the other rows. Prompts of different lengths in one call give
///   the same answers as one by one with the same `rng`, as far as the model's own arithmetic does not
///   depend on the batch.
/// * [`Sample::log_probs`] are those of [`TokenLogProbs::next_token`](crate::TokenLogProbs::next_token) on
///   the same sequences. At temperature 1 with nothing cut off, [`Sample::proposal_log_probs`] are the same
///   numbers.
/// * top-k = 1 is greedy decoding, and so is the limit of low temperatures.
/// * Temperature λ on logits z is temperature 1 on logits z/λ. Adding one number to all logits changes
///   nothing.
/// # Departures
/// The papers specify neither an order nor ties. The order here is the usual one of generation libraries.
/// If tokens tie at the cut of top-k, exactly k are kept, those with the lowest ids; Transformers keeps
/// all that tie. A temperature of 0 is an error: for greedy decoding set top-k = 1.
///
/// The model sees each whole row at every step. There is no cache of keys and values, because a closure
/// over tokens has no access to one. The logits are read to the host, and tokens are drawn in f64. No
/// gradient is kept: answers are constants, and training on them begins with a new pass of the model.
/// # Examples
/// ```
/// use candle_align::{SamplingConfig, TokenLogProbs, sample};
/// use candle_core::{DType, Device, Tensor};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// // a model of four symbols, in which 3, the end, is e times as likely as each other symbol
/// let model = |tokens: &Tensor| {
///     let shape = (tokens.dim(0)?, tokens.dim(1)?, 4);
///     Ok(Tensor::new(&[0f64, 0., 0., 1.], &Device::Cpu)?.broadcast_as(shape)?)
/// };
/// let config = SamplingConfig { answers: 2, max_new_tokens: 5, ends: vec![3], ..Default::default() };
/// let mut rng = StdRng::seed_from_u64(0);
/// let drawn = sample(model, &[&[0][..], &[1, 2]], &config, &Device::Cpu, &mut rng)?;
/// assert_eq!(drawn.rows.len(), 2 * 2);
///
/// // as one batch, the sequences have the log-probabilities that were recorded when they were drawn
/// let batch = drawn.batch(0, &Device::Cpu)?;
/// let again = TokenLogProbs::next_token(&model(&batch.tokens)?, &batch.tokens, &batch.mask)?;
/// let old = drawn.log_probs(DType::F64, &Device::Cpu)?;
/// let difference = (again.sum()? - old.sum()?)?.abs()?.max_all()?.to_scalar::<f64>()?;
/// assert!(difference < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The share of rows with `ended`, and the lengths of the answers. If most rows are cut off, `ends` lacks
///   the token that the model ends with, or `max_new_tokens` is too small.
/// * `log_probs` less `proposal_log_probs`, averaged. It is 0 at temperature 1 with nothing cut off.
///   Otherwise the answers do not come from the policy, and PPO's gradient and its KL are biased.
/// # Try
/// * Apply top-p before top-k. On which distribution does the result differ? Solution:
///   `tests/values/sampling.rs::temperature_then_top_k_then_top_p`.
/// * Let the temperature go to 0. Which setting gives the same tokens? Solution:
///   `tests/identities/sampling.rs::low_temperatures_are_greedy_and_so_is_one_candidate`.
/// # Source
/// Temperature as in Dong et al. 2023, arXiv:2304.06767 (RAFT). Top-p: Holtzman et al. 2020,
/// arXiv:1904.09751; top-k: Fan et al. 2018, arXiv:1805.04833. Order and cuts were compared with
/// huggingface/transformers 5.23, `generation/logits_process.py`.
#[doc(alias = "generate")]
#[doc(alias = "nucleus sampling")]
#[doc(alias = "decoding")]
pub fn sample<P: AsRef<[u32]>>(
    mut model: impl FnMut(&Tensor) -> Result<Tensor>,
    prompts: &[P],
    config: &SamplingConfig,
    device: &Device,
    rng: &mut impl Rng,
) -> Result<Samples> {
    let function = "sample";
    draw(function, prompts, config, rng, |open| {
        next_logits(function, &mut model, open, device)
    })
}

/// Draws answers by the logits that `next` gives for the rows that are still open, one list per row.
pub(crate) fn draw<P: AsRef<[u32]>>(
    function: &'static str,
    prompts: &[P],
    config: &SamplingConfig,
    rng: &mut impl Rng,
    mut next: impl FnMut(&[Open]) -> Result<Vec<Vec<f64>>>,
) -> Result<Samples> {
    config.check(function)?;
    let mut rows = Vec::new();
    for (at, prompt) in prompts.iter().map(AsRef::as_ref).enumerate() {
        if prompt.is_empty() {
            return Err(Error::argument(
                function,
                format!("prompts[{at}]"),
                "is empty; the first token drawn is predicted by the last one given",
            ));
        }
        rows.extend((0..config.answers).map(|_| Draft::new(prompt, rng)));
    }

    for _ in 0..config.max_new_tokens {
        let drafts = rows.iter().enumerate().filter(|(_, draft)| !draft.ended);
        let open: Vec<Open> = drafts
            .map(|(row, draft)| Open {
                row,
                tokens: &draft.tokens,
            })
            .collect();
        if open.is_empty() {
            break;
        }
        let next = next(&open)?;
        let vocabulary = next.first().map_or(usize::MAX, Vec::len);
        if let Some(end) = config.ends.iter().find(|end| **end as usize >= vocabulary) {
            let problem = format!("holds {end}, but the logits have a vocabulary of {vocabulary}");
            return Err(Error::argument(function, "ends", problem));
        }
        let drafts = rows
            .iter_mut()
            .enumerate()
            .filter(|(_, draft)| !draft.ended);
        // each from its own stream of random numbers
        let drawn: Vec<Result<()>> = drafts
            .zip(next)
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|((row, draft), logits)| {
                usable(function, row, &logits)?;
                draft.extend(&logits, config)
            })
            .collect();
        drawn.into_iter().collect::<Result<()>>()?;
    }
    Ok(Samples {
        rows: rows.into_iter().map(Draft::finish).collect(),
    })
}

/// A row whose next token is to be drawn: its number, and its tokens so far.
pub(crate) struct Open<'a> {
    pub(crate) row: usize,
    pub(crate) tokens: &'a [u32],
}

/// A row that is still being drawn.
struct Draft {
    tokens: Vec<u32>,
    prompt: usize,
    ended: bool,
    log_probs: Vec<f64>,
    proposal_log_probs: Vec<f64>,
    rng: StdRng,
}

impl Draft {
    fn new(prompt: &[u32], rng: &mut impl Rng) -> Self {
        Self {
            tokens: prompt.to_vec(),
            prompt: prompt.len(),
            ended: false,
            log_probs: Vec::new(),
            proposal_log_probs: Vec::new(),
            rng: StdRng::from_rng(rng),
        }
    }

    /// yₜ ~ q, with log p(yₜ) and log q(yₜ).
    fn extend(&mut self, logits: &[f64], config: &SamplingConfig) -> Result<()> {
        let (kept, log_q) = config.log_proposal(logits);
        let law = WeightedIndex::new(log_q.iter().map(|q| q.exp()))
            .map_err(|e| candle_core::Error::Msg(format!("sample: {e}")))?;
        let drawn = law.sample(&mut self.rng);
        let token = kept[drawn];
        let (highest, log_sum) = log_sum(logits);
        self.log_probs.push(logits[token] - highest - log_sum);
        self.proposal_log_probs.push(log_q[drawn]);
        let token = token as u32;
        self.tokens.push(token);
        self.ended = config.ends.contains(&token);
        Ok(())
    }

    fn finish(self) -> Sample {
        let (prompt, answer) = self.tokens.split_at(self.prompt);
        Sample {
            sequence: Sequence::new().given(prompt).learned(answer),
            ended: self.ended,
            log_probs: self.log_probs,
            proposal_log_probs: self.proposal_log_probs,
        }
    }
}

/// The logits after each row's last token.
fn next_logits(
    function: &'static str,
    model: &mut impl FnMut(&Tensor) -> Result<Tensor>,
    rows: &[Open],
    device: &Device,
) -> Result<Vec<Vec<f64>>> {
    let lengths = || rows.iter().map(|open| open.tokens.len());
    let (batch, time) = (rows.len(), lengths().max().unwrap_or(0));
    let mut tokens = Vec::with_capacity(batch * time);
    for (at, open) in rows.iter().enumerate() {
        tokens.extend_from_slice(open.tokens);
        tokens.resize((at + 1) * time, 0);
    }
    let tokens = Tensor::from_vec(tokens, (batch, time), device)?;

    let logits = model(&tokens)?.detach();
    let mut axes = Axes::new(function);
    axes.axes("tokens", &tokens, &["batch", "time"])?;
    axes.axes("logits", &logits, &["batch", "time", "vocabulary"])?;
    let last: Vec<u32> = lengths()
        .enumerate()
        .map(|(at, length)| (at * time + length - 1) as u32)
        .collect();
    let last = Tensor::from_vec(last, batch, logits.device())?;
    let vocabulary = logits.dim(2)?;
    if vocabulary == 0 {
        return Err(Error::argument(function, "logits", "has a vocabulary of 0"));
    }
    let logits = logits.reshape((batch * time, vocabulary))?;
    rows_on_host(function, &logits.index_select(&last, 0)?)
}

/// Rows of logits, in f64.
pub(crate) fn rows_on_host(function: &'static str, logits: &Tensor) -> Result<Vec<Vec<f64>>> {
    if !matches!(
        logits.dtype(),
        DType::F32 | DType::F64 | DType::BF16 | DType::F16
    ) {
        return Err(Error::DType {
            function,
            argument: "logits".to_string(),
            found: logits.dtype().as_str(),
            expected: "f32, f64, bf16 or f16".to_string(),
        });
    }
    // moved before it is widened, since not every device has f64
    let (batch, _) = logits.dims2()?;
    let logits = logits.to_device(&Device::Cpu)?;
    (0..batch)
        .map(|row| to_host::<f64>(&logits.get(row)?.to_dtype(DType::F64)?))
        .collect()
}

/// Requires logits that define a distribution.
fn usable(function: &'static str, row: usize, logits: &[f64]) -> Result<()> {
    let bad = |z: &f64| z.is_nan() || *z == f64::INFINITY;
    let problem = match logits.iter().position(bad) {
        Some(token) => format!("holds {} in row {row} for token {token}", logits[token]),
        None if logits.iter().all(|z| *z == f64::NEG_INFINITY) => {
            format!("leaves no token to draw in row {row}")
        }
        None => return Ok(()),
    };
    Err(Error::argument(function, "logits", problem))
}

/// The places of the k largest numbers in ascending order; of equal ones, the first.
fn likeliest(numbers: &[f64], k: usize) -> Vec<usize> {
    if k == numbers.len() {
        return (0..k).collect();
    }
    let mut sorted = numbers.to_vec();
    let (_, &mut least, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let larger = |z: &f64| z.total_cmp(&least).is_gt();
    let mut equal = k - numbers.iter().filter(|z| larger(z)).count();
    let mut kept = |z: &f64| {
        let tie = equal > 0 && z.total_cmp(&least).is_eq();
        equal -= usize::from(tie);
        tie || larger(z)
    };
    (0..numbers.len())
        .filter(|at| kept(&numbers[*at]))
        .collect()
}

/// z(v) − log Σᵤ e^{z(u)}, where −∞ stays −∞. At least one z must be finite.
fn log_softmax(z: &[f64]) -> Vec<f64> {
    let (highest, log_sum) = log_sum(z);
    z.iter().map(|z| z - highest - log_sum).collect()
}

/// The highest z, and log Σᵤ e^{z(u) − highest}. At least one z must be finite.
fn log_sum(z: &[f64]) -> (f64, f64) {
    let highest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = z.iter().map(|z| (z - highest).exp()).sum();
    (highest, sum.ln())
}
