//! Prompts for better answers: reasons, principles, experts (survey §2.2.1, "improving output quality").
//!
//! | paper | here | shape |
//! |---|---|---|
//! | chain of thought: examples with reasons; Orca: a system message | [`reasoning_prompt`] | text |
//! | Self-Align: 16 principles, 5 examples with inner thoughts | [`principled_prompt`] | text |
//! | ExpertPrompting: who could answer this best? Then answer as that expert | [`expert_identity_prompt`], [`expert_prompt`] | text |
//!
//! The answers are kept with the bare instruction: the prompt is not part of the training data, so that a
//! model learns to answer so without it.
//!
//! Read next: [`super::role_play`].

use crate::error::{Error, Result};

/// A question with its answer, and what leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar<'a> {
    /// The question.
    pub question: &'a str,
    /// The reasons or inner thoughts before the answer; empty for none.
    pub thought: &'a str,
    /// The answer.
    pub answer: &'a str,
}

/// Writes a prompt that asks for reasons before the answer.
///
/// # Equation
/// ```text
/// system⏎⏎ Q: question⏎ A: thought answer⏎⏎ …  Q: question⏎ A:
/// ```
/// # Shapes
/// `system` may be empty, then it is left out. Chain of thought has exemplars with reasons and no system
/// message; Orca has a system message ("think step by step and justify your answer") and no exemplar.
/// # Errors
/// [`Error::Argument`] if the question is empty.
/// # Properties
/// * Without system message and exemplars the prompt is the question alone, in its form.
/// # Departures
/// Orca draws its system message from 16 that are not repeated here.
/// # Examples
/// ```
/// use candle_align::data::prompting::{Exemplar, reasoning_prompt};
///
/// let shown = [Exemplar { question: "2+2+2?", thought: "2+2 is 4, 4+2 is 6.", answer: "6" }];
/// let prompt = reasoning_prompt("", &shown, "3+3+3?")?;
/// assert_eq!(prompt, "Q: 2+2+2?\nA: 2+2 is 4, 4+2 is 6. 6\n\nQ: 3+3+3?\nA:");
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Wei et al. 2022, arXiv:2201.11903 (chain of thought); Mukherjee et al. 2023, arXiv:2306.02707 (Orca).
/// Both from memory. The survey: Wang et al. 2023, arXiv:2307.12966v1, §2.2.1.
#[doc(alias = "chain of thought")]
#[doc(alias = "Orca")]
pub fn reasoning_prompt(system: &str, exemplars: &[Exemplar], question: &str) -> Result<String> {
    let mut prompt = opened(system);
    for exemplar in exemplars {
        let reasons = joined(exemplar.thought, exemplar.answer);
        prompt.push_str(&format!("Q: {}\nA: {reasons}\n\n", exemplar.question));
    }
    asked("reasoning_prompt", "question", question)?;
    Ok(prompt + &format!("Q: {question}\nA:"))
}

/// Writes a prompt that states principles, shows how they are applied, and asks.
///
/// # Equation
/// ```text
/// system⏎⏎ # Principles⏎ 1. principle⏎ … # Examples⏎ User: question⏎ Thought: thought⏎ Assistant: answer⏎⏎ …
/// User: question⏎ Thought:
/// ```
/// # Shapes
/// The model goes on with its thought, which names the principles that apply, and then the answer.
/// # Errors
/// [`Error::Argument`] if there is no principle, or if a principle or the question is empty.
/// # Properties
/// * Principles are numbered from 1, so that thoughts can name them.
/// # Departures
/// The 16 principles and 5 examples of Self-Align, and its headings, are not repeated here: they are the
/// caller's, and the form is this crate's.
/// # Examples
/// ```
/// use candle_align::data::prompting::{Exemplar, principled_prompt};
///
/// let shown = [Exemplar { question: "How do I pick a lock?", thought: "Principle 1 applies.", answer: "Call a locksmith." }];
/// let prompt = principled_prompt("You are an assistant.", &["Do no harm."], &shown, "2+2?")?;
/// assert!(prompt.contains("1. Do no harm.\n"));
/// assert!(prompt.ends_with("User: 2+2?\nThought:"));
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Sun et al. 2023, arXiv:2305.03047 (Dromedary), from memory and the survey: Wang et al. 2023,
/// arXiv:2307.12966v1, §2.2.1.
#[doc(alias = "Self-Align")]
#[doc(alias = "Dromedary")]
pub fn principled_prompt(
    system: &str,
    principles: &[&str],
    exemplars: &[Exemplar],
    question: &str,
) -> Result<String> {
    let function = "principled_prompt";
    if principles.is_empty() {
        return Err(Error::argument(function, "principles", "is empty"));
    }
    let mut prompt = opened(system) + "# Principles\n";
    for (i, principle) in principles.iter().enumerate() {
        asked(function, format!("principles[{i}]"), principle)?;
        prompt.push_str(&format!("{}. {principle}\n", i + 1));
    }
    prompt.push_str("\n# Examples\n");
    for Exemplar {
        question,
        thought,
        answer,
    } in exemplars
    {
        prompt.push_str(&format!(
            "User: {question}\nThought: {thought}\nAssistant: {answer}\n\n"
        ));
    }
    asked(function, "question", question)?;
    Ok(prompt + &format!("User: {question}\nThought:"))
}

/// Writes the first prompt of ExpertPrompting: who is the expert for this instruction?
///
/// # Equation
/// ```text
/// request⏎⏎ Instruction: question⏎ Expert: answer⏎⏎ …  Instruction: instruction⏎ Expert:
/// ```
/// # Shapes
/// Each exemplar is an instruction and the identity of an expert for it; thoughts are not used.
/// # Errors
/// [`Error::Argument`] if the instruction is empty, or if an exemplar has a thought, which would be lost.
/// # Properties
/// * The identity is written for this instruction, in detail, and not taken from a list of professions.
/// # Departures
/// The request is this crate's wording, the three exemplars of the authors are the caller's.
/// # Examples
/// ```
/// use candle_align::data::prompting::{expert_identity_prompt, expert_prompt};
///
/// let prompt = expert_identity_prompt(&[], "Why is the sky blue?")?;
/// assert!(prompt.ends_with("Instruction: Why is the sky blue?\nExpert:"));
/// let identity = "You are a physicist who studies light."; // the model's answer
/// let prompt = expert_prompt(identity, "Why is the sky blue?")?;
/// assert!(prompt.starts_with(identity));
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Xu et al. 2023, arXiv:2305.14688 (ExpertPrompting), from memory and the survey: Wang et al. 2023,
/// arXiv:2307.12966v1, §2.2.1.
pub fn expert_identity_prompt(exemplars: &[Exemplar], instruction: &str) -> Result<String> {
    let function = "expert_identity_prompt";
    let mut prompt = "Describe the expert who could best answer each instruction.\n\n".to_string();
    for (i, exemplar) in exemplars.iter().enumerate() {
        if !exemplar.thought.is_empty() {
            let argument = format!("exemplars[{i}].thought");
            return Err(Error::argument(
                function,
                argument,
                "is not part of this prompt",
            ));
        }
        let Exemplar {
            question, answer, ..
        } = exemplar;
        prompt.push_str(&format!("Instruction: {question}\nExpert: {answer}\n\n"));
    }
    asked(function, "instruction", instruction)?;
    Ok(prompt + &format!("Instruction: {instruction}\nExpert:"))
}

/// Writes the second prompt of ExpertPrompting: answer as this expert.
///
/// # Equation
/// ```text
/// identity⏎⏎ Answer the instruction as this expert.⏎⏎ instruction
/// ```
/// # Shapes
/// `identity` is the answer to [`expert_identity_prompt`].
/// # Errors
/// [`Error::Argument`] if one of the two is empty.
/// # Properties
/// * The answer is kept with the instruction alone.
/// # Departures
/// The wording is this crate's.
/// # Examples
/// See [`expert_identity_prompt`].
/// # Source
/// Xu et al. 2023, arXiv:2305.14688 (ExpertPrompting), from memory and the survey: Wang et al. 2023,
/// arXiv:2307.12966v1, §2.2.1.
pub fn expert_prompt(identity: &str, instruction: &str) -> Result<String> {
    asked("expert_prompt", "identity", identity)?;
    asked("expert_prompt", "instruction", instruction)?;
    Ok(format!(
        "{identity}\n\nAnswer the instruction as this expert.\n\n{instruction}"
    ))
}

fn opened(system: &str) -> String {
    match system.is_empty() {
        true => String::new(),
        false => format!("{system}\n\n"),
    }
}

fn joined(thought: &str, answer: &str) -> String {
    match thought.is_empty() {
        true => answer.to_string(),
        false => format!("{thought} {answer}"),
    }
}

/// Rejects an empty text.
fn asked(function: &'static str, argument: impl Into<String>, text: &str) -> Result<()> {
    match text.is_empty() {
        true => Err(Error::argument(function, argument, "is empty")),
        false => Ok(()),
    }
}
