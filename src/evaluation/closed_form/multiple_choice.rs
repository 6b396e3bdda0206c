//! Multiple choice by likelihood: the option that the model finds likeliest.
//!
//! | what is compared | here | known as |
//! |---|---|---|
//! | log π(y│x) | [`ChoiceScore::Sum`] | `acc` of lm-evaluation-harness |
//! | log π(y│x) / tokens | [`ChoiceScore::PerToken`] | GPT-3's default |
//! | log π(y│x) / bytes | [`ChoiceScore::PerByte`] | `acc_norm` of lm-evaluation-harness |
//! | log π(y│x) − log π(y│"Answer:") | [`ChoiceScore::Unconditional`] | `acc_mutual_info`; GPT-3 on ARC, OpenBookQA, RACE |

use crate::error::{Error, Result};
use crate::evaluation::statistics::{Estimate, require_length};
use crate::log_probs::TokenLogProbs;
use candle_core::{DType, Tensor};

/// What makes the log-probabilities of options of different lengths comparable.
#[derive(Clone, Copy, Debug)]
pub enum ChoiceScore<'a> {
    /// Nothing: the sum over tokens. Long options pay for every token.
    Sum,
    /// The number of tokens that count. It depends on the tokenizer.
    PerToken,
    /// The number of bytes of each option's text, one entry per row.
    PerByte(&'a [usize]),
    /// The log-probabilities of the same options after a prompt without the question, such as "Answer: ".
    Unconditional(&'a TokenLogProbs),
}

/// A score for each option, to be compared among the options of one question.
///
/// # Equation
/// ```text
/// sum            log π(y│x)
/// per token      log π(y│x) / │y│
/// per byte       log π(y│x) / bytes(y)
/// unconditional  log π(y│x) − log π(y│x₀)
/// ```
/// # Shapes
/// `log_probs` `[options, time]`, the mask on the option's tokens; options of several questions one after
/// the other. The result is `[options]` in f64, on the host.
/// # Errors
/// [`Error::Argument`] if the lengths or the unconditional rows are not as many as the options, an option
/// has no byte or (per token) no token, or a score is NaN or +∞. −∞ is a score: an impossible option.
/// # Properties
/// * Among options of one length, all but the unconditional score choose the same one.
/// * Repeating an option's tokens lowers its sum and leaves its score per token: the sum prefers short
///   options, the mean per token those whose continuation is easy to guess.
/// * The unconditional score is the pointwise mutual information of question and option: an option gains
///   nothing from being a common text.
/// # Departures
/// None. Where the field has several conventions, each has its name; results under different names are
/// not comparable.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::evaluation::closed_form::{ChoiceScore, choice_scores, choose};
/// use candle_core::{Device, Tensor};
///
/// // two options of one question: one token, and two tokens
/// let values = Tensor::new(&[[-1.5f64, 0.0], [-1.0, -0.8]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 0], [1, 1]], &Device::Cpu)?;
/// let options = TokenLogProbs::new(&values, &mask)?;
/// let sums = choice_scores(&options, ChoiceScore::Sum)?;
/// let means = choice_scores(&options, ChoiceScore::PerToken)?;
/// assert_eq!(choose(&sums, &[2])?, [0]); // −1.5 > −1.8
/// assert_eq!(choose(&means, &[2])?, [1]); // −0.9 > −1.5
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Brown et al. 2020, arXiv:2005.14165v4, §2.4; the names of the scores: a web page,
/// EleutherAI/lm-evaluation-harness, `api/task.py`.
#[doc(alias = "acc_norm")]
#[doc(alias = "MMLU")]
pub fn choice_scores(log_probs: &TokenLogProbs, by: ChoiceScore) -> Result<Vec<f64>> {
    let function = "choice_scores";
    let sums = on_host(&log_probs.sum()?)?;
    let over = |argument: &str, lengths: Vec<f64>, what: &str| -> Result<Vec<f64>> {
        if let Some(at) = lengths.iter().position(|length| *length == 0.0) {
            return Err(Error::argument(
                function,
                argument,
                format!("gives option {at} no {what}"),
            ));
        }
        Ok(sums.iter().zip(lengths).map(|(sum, n)| sum / n).collect())
    };
    let scores = match by {
        ChoiceScore::Sum => sums,
        // log π(y│x) / |y|
        ChoiceScore::PerToken => over("log_probs", on_host(&log_probs.lengths()?)?, "token")?,
        // log π(y│x) / bytes(y)
        ChoiceScore::PerByte(bytes) => {
            require_length(function, "by", bytes.len(), "log_probs", sums.len())?;
            over("by", bytes.iter().map(|&n| n as f64).collect(), "byte")?
        }
        // log π(y│x) − log π(y│x₀)
        ChoiceScore::Unconditional(alone) => {
            let alone = on_host(&alone.sum()?)?;
            require_length(function, "by", alone.len(), "log_probs", sums.len())?;
            sums.iter()
                .zip(alone)
                .map(|(sum, alone)| sum - alone)
                .collect()
        }
    };
    match scores
        .iter()
        .position(|s| s.is_nan() || *s == f64::INFINITY)
    {
        Some(at) => Err(Error::argument(
            function,
            "log_probs",
            format!("gives option {at} the score {}", scores[at]),
        )),
        None => Ok(scores),
    }
}

/// The best option of each question, by its number within the question; the first of equal ones.
///
/// `options` holds how many options each question has, in the order of the scores.
///
/// # Errors
/// [`Error::Argument`] if a question has no option, the options are not as many as the scores, or a score
/// is NaN.
pub fn choose(scores: &[f64], options: &[usize]) -> Result<Vec<usize>> {
    let function = "choose";
    let all = options
        .iter()
        .try_fold(0usize, |sum, &count| sum.checked_add(count));
    if all != Some(scores.len()) {
        let problem = format!(
            "has {} entries, which `options` do not add up to",
            scores.len()
        );
        return Err(Error::argument(function, "scores", problem));
    }
    if let Some(at) = scores.iter().position(|score| score.is_nan()) {
        return Err(Error::argument(function, format!("scores[{at}]"), "is NaN"));
    }
    let mut rest = scores;
    let mut best = Vec::with_capacity(options.len());
    for (at, &count) in options.iter().enumerate() {
        let (these, others) = rest.split_at(count);
        rest = others;
        let mut chosen = None;
        for (option, score) in these.iter().enumerate() {
            if chosen.is_none_or(|(_, highest)| score > highest) {
                chosen = Some((option, score));
            }
        }
        match chosen {
            Some((option, _)) => best.push(option),
            None => return Err(Error::argument(function, format!("options[{at}]"), "is 0")),
        }
    }
    Ok(best)
}

/// The share of choices that are the expected ones, with its standard error over questions.
///
/// # Errors
/// [`Error::Argument`] if there is no question, or the lengths differ.
pub fn accuracy(chosen: &[usize], expected: &[usize]) -> Result<Estimate> {
    let function = "accuracy";
    if expected.is_empty() {
        return Err(Error::argument(function, "expected", "is empty"));
    }
    require_length(function, "chosen", chosen.len(), "expected", expected.len())?;
    let right = chosen.iter().zip(expected).map(|(a, b)| f64::from(a == b));
    Ok(Estimate::of_mean(&right.collect::<Vec<_>>()))
}

fn on_host(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.detach().to_dtype(DType::F64)?.to_vec1()?)
}
