//! Reasoning tasks that are made by a program, with their answers.

use crate::error::{Error, Result, require};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// A question and its only right answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// What the model is asked.
    pub prompt: String,
    /// The answer.
    pub answer: String,
}

/// Last-letter concatenation: names whose last letters make the answer.
///
/// # Equation
/// ```text
/// answer = last(w₁) last(w₂) … last(w_m),     wᵢ drawn from `words`
/// ```
/// # Shapes
/// `words` to draw from, the number of words in a question, the number of questions, a seed.
/// # Errors
/// [`Error::Argument`] if there is no word, or a word is empty or not made of letters alone;
/// [`Error::Parameter`] if `length` is 0.
/// # Properties
/// * The same seed gives the same questions; the first n of more questions are the n questions.
/// * `length` beyond that of the prompt's examples tests whether the model goes on: the paper trains on two
///   words and asks about three and four.
/// * A model that guesses letters is right with probability about 26⁻ᵐ, so chance does not help.
/// # Departures
/// The paper draws first and last names from a census; here the words are the caller's.
/// # Examples
/// ```
/// use candle_align::evaluation::closed_form::last_letters;
///
/// let questions = last_letters(&["Elon", "Musk"], 2, 1, 1)?;
/// assert!(questions[0].prompt.starts_with("Take the last letters of the words in"));
/// assert_eq!(questions[0].answer.len(), 2);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Wei et al. 2022, arXiv:2201.11903v6, §5 and appendix.
pub fn last_letters(
    words: &[&str],
    length: usize,
    count: usize,
    seed: u64,
) -> Result<Vec<Question>> {
    let function = "last_letters";
    drawn_from(function, "words", words)?;
    require(length >= 1, function, "length", "at least 1", length)?;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut question = || {
        let drawn: Vec<&str> = (0..length)
            .filter_map(|_| words.choose(&mut rng).copied())
            .collect();
        let answer = drawn
            .iter()
            .filter_map(|word| word.chars().last())
            .collect();
        let words = drawn.join(" ");
        Question {
            prompt: format!(
                "Take the last letters of the words in \"{words}\" and concatenate them."
            ),
            answer,
        }
    };
    Ok((0..count).map(|_| question()).collect())
}

/// Coin flips: whether a coin is still heads up after people flipped it or did not.
///
/// # Equation
/// ```text
/// answer = "yes" if the number of flips is even, else "no"
/// ```
/// # Shapes
/// `names` to draw from, the number of people in a question, the number of questions, a seed.
/// # Errors
/// As [`last_letters`]; `people` takes the place of `length`.
/// # Properties
/// * Each person flips with probability ½, so both answers are equally likely, and a model that always
///   says "yes" is right half the time: compare with ½, not with 0.
/// * The same seed gives the same questions.
/// # Departures
/// The paper draws names from a census; here they are the caller's, and a name may occur twice.
/// # Examples
/// ```
/// use candle_align::evaluation::closed_form::coin_flips;
///
/// let question = &coin_flips(&["Ka", "Sherrie"], 2, 1, 5)?[0];
/// let flips = question.prompt.matches(" flips the coin.").count();
/// assert_eq!(question.answer, ["yes", "no"][flips % 2]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Wei et al. 2022, arXiv:2201.11903v6, §5 and appendix.
pub fn coin_flips(names: &[&str], people: usize, count: usize, seed: u64) -> Result<Vec<Question>> {
    let function = "coin_flips";
    drawn_from(function, "names", names)?;
    require(people >= 1, function, "people", "at least 1", people)?;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut question = || {
        let (mut prompt, mut heads) = ("A coin is heads up.".to_string(), true);
        for _ in 0..people {
            let flips = rng.random_bool(0.5);
            let name = names.choose(&mut rng).copied().unwrap_or_default();
            let does = if flips { "flips" } else { "does not flip" };
            prompt.push_str(&format!(" {name} {does} the coin."));
            heads ^= flips;
        }
        Question {
            prompt: prompt + " Is the coin still heads up?",
            answer: if heads { "yes" } else { "no" }.to_string(),
        }
    };
    Ok((0..count).map(|_| question()).collect())
}

/// Requires words of letters, and at least one.
fn drawn_from(function: &'static str, argument: &str, words: &[&str]) -> Result<()> {
    if words.is_empty() {
        return Err(Error::argument(function, argument, "is empty"));
    }
    let letters = |word: &&str| !word.is_empty() && word.chars().all(char::is_alphabetic);
    match words.iter().position(|word| !letters(word)) {
        Some(at) => Err(Error::argument(
            function,
            format!("{argument}[{at}]"),
            format!(
                "is {:?}; it must be letters alone",
                crate::error::shown(words[at])
            ),
        )),
        None => Ok(()),
    }
}
