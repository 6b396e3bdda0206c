//! Instructions in other languages (survey §2.2.3).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | post-answering: translate the instruction, answer in the language | [`post_answer`] | [`Demonstration`]s |
//! | post-translating: translate the instruction and the answer | [`post_translate`] | [`Demonstration`]s |
//! | interactive translation | [`interactive_translation`] | [`Message`]s |
//!
//! A translator or a model is a closure from text to text.
//!
//! Read next: [`super::mixing`], which mixes languages.

use super::chat::Message;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// An instruction and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demonstration {
    /// The instruction.
    pub instruction: String,
    /// The answer.
    pub answer: String,
}

/// Translates instructions and has them answered in their new language.
///
/// # Equation
/// ```text
/// (x)   →   x′ = translate(x),   y′ = answer(x′)
/// ```
/// # Shapes
/// One pair per instruction, in order. `answer` is a model that knows the language.
/// # Errors
/// [`Error::Argument`] if a closure returns an empty text; the errors of the closures, the first of which
/// ends the work.
/// # Properties
/// * The answer may be as the language's speakers would give it; a translated answer would speak of the
///   source's holidays and laws.
/// * With the identity as translation it is plain answering.
/// # Departures
/// None known.
/// # Examples
/// ```
/// use candle_align::data::multilingual::post_answer;
///
/// let translate = |text: &str| Ok(text.replace("Name a city.", "Nenne eine Stadt."));
/// let pairs = post_answer(&["Name a city."], translate, |_| Ok("Köln".to_string()))?;
/// assert_eq!(pairs[0].instruction, "Nenne eine Stadt.");
/// assert_eq!(pairs[0].answer, "Köln");
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Chen et al. 2023, arXiv:2304.10453 (Phoenix), from memory and the survey: Wang et al. 2023,
/// arXiv:2307.12966v1, §2.2.3.
#[doc(alias = "Phoenix")]
pub fn post_answer<S: AsRef<str>>(
    instructions: &[S],
    mut translate: impl FnMut(&str) -> Result<String>,
    mut answer: impl FnMut(&str) -> Result<String>,
) -> Result<Vec<Demonstration>> {
    let function = "post_answer";
    let pair = |(i, instruction): (usize, &S)| {
        let instruction = translate(instruction.as_ref())?;
        let instruction = given(function, "translate", i, instruction)?;
        let answer = given(function, "answer", i, answer(&instruction)?)?;
        Ok(Demonstration {
            instruction,
            answer,
        })
    };
    instructions.iter().enumerate().map(pair).collect()
}

/// Translates instructions and their answers.
///
/// # Equation
/// ```text
/// (x, y)   →   x′ = translate(x),   y′ = translate(y)
/// ```
/// # Shapes
/// One pair per pair, in order.
/// # Errors
/// [`Error::Argument`] if `translate` returns an empty text; its errors, the first of which ends the work.
/// # Properties
/// * No model has to know the language. What the answer says stays that of the source's language.
/// * With the identity as translation nothing changes.
/// # Departures
/// None known. Bactrian-X translates instructions alone and has them answered: [`post_answer`].
/// # Examples
/// ```
/// use candle_align::data::multilingual::{Demonstration, post_translate};
///
/// let pairs = [Demonstration { instruction: "two".into(), answer: "2".into() }];
/// let translated = post_translate(&pairs, |text: &str| Ok(text.replace("two", "zwei")))?;
/// assert_eq!(translated[0].instruction, "zwei");
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Chen et al. 2023, arXiv:2304.10453 (Phoenix), from memory and the survey: Wang et al. 2023,
/// arXiv:2307.12966v1, §2.2.3.
pub fn post_translate(
    pairs: &[Demonstration],
    mut translate: impl FnMut(&str) -> Result<String>,
) -> Result<Vec<Demonstration>> {
    let function = "post_translate";
    let mut out = Vec::new();
    for (
        i,
        Demonstration {
            instruction,
            answer,
        },
    ) in pairs.iter().enumerate()
    {
        out.push(Demonstration {
            instruction: given(function, "translate", i, translate(instruction)?)?,
            answer: given(function, "translate", i, translate(answer)?)?,
        });
    }
    Ok(out)
}

/// A conversation that asks for a translation and then for changes to it.
///
/// # Equation
/// ```text
/// x₁ = request and source,  y₁ = model(x₁),  x₂ = demand 1,  y₂ = model(x₁, y₁, x₂),  …
/// ```
/// # Shapes
/// `request` says what to do, such as "Translate into German:"; `demands` are what the user wants changed,
/// one a round. The result has 2(1 + demands) messages.
/// # Errors
/// [`Error::Argument`] if the request, the source or a demand is empty, or if the model returns an empty
/// text; the errors of the model.
/// # Properties
/// * Every later translation is learned given the ones before it, so the model learns to keep what was not
///   to be changed.
/// # Departures
/// BayLing's conversations were partly written by people. Here demands are the caller's and answers the
/// model's.
/// # Examples
/// ```
/// use candle_align::data::chat::Message;
/// use candle_align::data::multilingual::interactive_translation;
///
/// let model = |told: &[Message]| Ok(if told.len() == 1 { "Hallo" } else { "Guten Tag" }.to_string());
/// let talk = interactive_translation("Into German:", "hello", &["More formal."], model)?;
/// assert_eq!(talk[0], Message::user("Into German: hello"));
/// assert_eq!(talk[3], Message::assistant("Guten Tag"));
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Zhang et al. 2023, arXiv:2306.10968 (BayLing), from memory and the survey: Wang et al. 2023,
/// arXiv:2307.12966v1, §2.2.3.
#[doc(alias = "BayLing")]
pub fn interactive_translation(
    request: &str,
    source: &str,
    demands: &[&str],
    mut model: impl FnMut(&[Message]) -> Result<String>,
) -> Result<Vec<Message>> {
    let function = "interactive_translation";
    for (name, text) in [("request", request), ("source", source)] {
        if text.is_empty() {
            return Err(Error::argument(function, name, "is empty"));
        }
    }
    if let Some(i) = demands.iter().position(|demand| demand.is_empty()) {
        return Err(Error::argument(
            function,
            format!("demands[{i}]"),
            "is empty",
        ));
    }
    let first = format!("{request} {source}");
    let said = std::iter::once(first.as_str()).chain(demands.iter().copied());
    let mut messages = Vec::new();
    for (i, text) in said.enumerate() {
        messages.push(Message::user(text));
        let answer = given(function, "model", i, model(&messages)?)?;
        messages.push(Message::assistant(answer));
    }
    Ok(messages)
}

/// Rejects an empty result of a closure.
fn given(function: &'static str, closure: &str, i: usize, text: String) -> Result<String> {
    let problem = || format!("returned an empty text for item {i}");
    match text.is_empty() {
        true => Err(Error::argument(function, closure, problem())),
        false => Ok(text),
    }
}
