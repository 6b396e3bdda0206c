//! From a text to its answer, and whether two answers are the same.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The answer that a solution of GSM8K gives after "####".
///
/// # Equation
/// ```text
/// the first match of   #### (-?[0-9.,]+)   without its commas
/// ```
/// # Shapes
/// A text; the number as it is written there, or `None`.
/// # Errors
/// None.
/// # Properties
/// * "#### 1,234" gives "1234"; "####5", without the space, gives nothing, and neither does "#### $5".
/// * A trailing point is part of the match, as in the authors' code: "#### 5." gives "5.", which is
///   no exact match of "5".
/// # Departures
/// None from the authors' code, which calls the missing answer "\[invalid\]" and never counts it as right.
/// # Examples
/// ```
/// use candle_align::evaluation::closed_form::gsm8k_answer;
///
/// let solution = "48/2 = 24 clips in May.\n48 + 24 = 72 in all.\n#### 72";
/// assert_eq!(gsm8k_answer(solution).as_deref(), Some("72"));
/// assert_eq!(gsm8k_answer("It is 72."), None);
/// ```
/// # Source
/// Cobbe et al. 2021, arXiv:2110.14168v2; authors' code openai/grade-school-math at commit 2909d34,
/// `dataset.py`, `extract_answer`.
pub fn gsm8k_answer(text: &str) -> Option<String> {
    text.match_indices("#### ").find_map(|(at, mark)| {
        let rest = &text[at + mark.len()..];
        let (sign, digits) = match rest.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", rest),
        };
        let end = digits
            .find(|c: char| !is_numeral(c))
            .unwrap_or(digits.len());
        let number = digits[..end].replace(',', "");
        (end > 0).then(|| format!("{sign}{number}"))
    })
}

/// The last number of a text: the answer of a chain of thought that names none.
///
/// # Equation
/// ```text
/// the last match of   (-?[$0-9.,]{2,})|(-?[0-9]+)   without $, commas and a point at its end
/// ```
/// # Shapes
/// A text; the number as it is written there, or `None`.
/// # Errors
/// None.
/// # Properties
/// * "… so $1,234.50." gives "1234.50"; "3-5" gives "-5", because a minus belongs to the digits after it.
/// * Marks without a digit ("...", "$,") are no number: the number before them is taken.
/// # Departures
/// lm-evaluation-harness matches the same pattern in its filter `flexible-extract`, strips the same marks
/// when it compares, and takes the last match even if it has no digit, so that an answer which ends in "..."
/// is wrong there. Python's `[0-9]` and this function both mean ASCII digits.
/// # Examples
/// ```
/// use candle_align::evaluation::closed_form::last_number;
///
/// assert_eq!(last_number("5 boxes at $1,200 each: $6,000.").as_deref(), Some("6000"));
/// assert_eq!(last_number("none at all"), None);
/// ```
/// # Source
/// Code without a paper, a web page: EleutherAI/lm-evaluation-harness, `tasks/gsm8k/gsm8k.yaml` (filter
/// `flexible-extract`, `regexes_to_ignore`).
pub fn last_number(text: &str) -> Option<String> {
    let mut found = None;
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| is_numeral(c) || c == '$') {
        let end = rest[start..]
            .find(|c: char| !is_numeral(c) && c != '$')
            .map_or(rest.len(), |end| start + end);
        let piece = rest[start..end]
            .trim_end_matches('.')
            .replace([',', '$'], "");
        if piece.contains(|c: char| c.is_ascii_digit()) {
            let sign = if rest[..start].ends_with('-') {
                "-"
            } else {
                ""
            };
            found = Some(format!("{sign}{piece}"));
        }
        rest = &rest[end..];
    }
    found
}

/// A part of a number: a digit, a point, a comma.
fn is_numeral(c: char) -> bool {
    c.is_ascii_digit() || c == '.' || c == ','
}

/// The option that an answer to a multiple-choice question names by its letter.
///
/// # Equation
/// ```text
/// the first capital letter of A … (options − 1) with no letter or digit beside it
/// ```
/// # Shapes
/// A text and the number of options, at most 26; the option from 0, or `None`.
/// # Errors
/// [`Error::Parameter`] unless `options` is from 1 to 26.
/// # Properties
/// * "B", "(B)", "B.", "The answer is B" give 1; "Because" and "E" of four options give nothing.
/// * The article "A" at the start of a sentence is a letter too: "A bird, so B" gives 0. Ask for the letter
///   first, or score the options by [`choice_scores`](super::choice_scores).
/// # Departures
/// MMLU's authors compare the probabilities of the letters instead, which needs no extraction. There is
/// no agreed rule for free text; this is the plain one.
/// # Examples
/// ```
/// use candle_align::evaluation::closed_form::choice_letter;
///
/// assert_eq!(choice_letter("The answer is (C).", 4)?, Some(2));
/// assert_eq!(choice_letter("I do not know.", 4)?, None);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// The format of Hendrycks et al. 2021, arXiv:2009.03300v3.
pub fn choice_letter(text: &str, options: usize) -> Result<Option<usize>> {
    let holds = (1..=26).contains(&options);
    crate::error::require(holds, "choice_letter", "options", "from 1 to 26", options)?;
    let mut before = ' ';
    let mut letters = text.chars().peekable();
    while let Some(c) = letters.next() {
        let alone =
            !before.is_alphanumeric() && !letters.peek().is_some_and(|c| c.is_alphanumeric());
        let option = (c as usize).wrapping_sub('A' as usize);
        if alone && option < options {
            return Ok(Some(option));
        }
        before = c;
    }
    Ok(None)
}

/// Settings of [`exact_match`]: what two answers may differ in. By default nothing but the white space
/// around them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExactMatchConfig {
    /// Whether "Yes" is "yes". Default false.
    pub ignore_case: bool,
    /// Whether ASCII punctuation is left out. Default false. It also removes the sign and the point of a
    /// number: leave it off where answers are numbers.
    pub ignore_punctuation: bool,
}

/// The share of answers that are the expected ones.
///
/// # Equation
/// ```text
/// EM = (1/n) · Σᵢ 1[ norm(predictedᵢ) = norm(expectedᵢ) ]
/// ```
/// norm leaves out what [`ExactMatchConfig`] says, and then takes off the white space at both ends. An answer that was not
/// found (`None`) is wrong.
/// # Shapes
/// Two lists of equal length; the result is in [0, 1].
/// # Errors
/// [`Error::Argument`] if the lists are empty or differ in length.
/// # Properties
/// * The order of the questions does not matter. "72" and "72.0" differ: a number is compared as it is
///   written.
/// # Departures
/// The benchmarks differ in what they ignore: GSM8K nothing, BBH and last letters nothing, StrategyQA case.
/// # Examples
/// ```
/// use candle_align::evaluation::closed_form::{exact_match, gsm8k_answer};
///
/// let predicted = ["… #### 72", "… #### 10", "I give up."].map(gsm8k_answer);
/// let share = exact_match(&predicted, &["72", "11", "5"], &Default::default())?;
/// assert!((share - 1.0 / 3.0).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Cobbe et al. 2021, arXiv:2110.14168v2; authors' code openai/grade-school-math, `dataset.py`,
/// `is_correct`; the switches are those of a web page, Hugging Face evaluate, `exact_match`.
pub fn exact_match<P: AsRef<str>, E: AsRef<str>>(
    predicted: &[Option<P>],
    expected: &[E],
    config: &ExactMatchConfig,
) -> Result<f64> {
    let function = "exact_match";
    if expected.is_empty() {
        return Err(Error::argument(function, "expected", "is empty"));
    }
    super::super::statistics::require_length(
        function,
        "predicted",
        predicted.len(),
        "expected",
        expected.len(),
    )?;
    let norm = |text: &str| -> String {
        let kept = text.chars();
        let kept = kept.filter(|c| !(config.ignore_punctuation && c.is_ascii_punctuation()));
        // last, since punctuation may be between a blank and the end
        let kept: String = kept.collect();
        match config.ignore_case {
            true => kept.trim().to_lowercase(),
            false => kept.trim().to_string(),
        }
    };
    let right = predicted.iter().zip(expected).filter(|(found, wanted)| {
        let found = found.as_ref().map(|found| norm(found.as_ref()));
        found == Some(norm(wanted.as_ref()))
    });
    Ok(right.count() as f64 / expected.len() as f64)
}
