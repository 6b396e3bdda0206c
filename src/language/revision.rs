//! Revision: an answer, what is wrong with it, a better answer, and so on (survey §3.2.2, SelFee and
//! self-debug).
//!
//! In one sentence: the loss also covers the feedback and the corrected answer, so that one pass
//! writes, judges and repairs.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | y₀, f₀, y₁, f₁, … of SelFee | [`Attempt`]s, written by [`RevisionTemplate::sequence`] | tokens |
//! | "Revision is not needed." | [`Verdict`] | – |
//! | program, feedback message, program, … of self-debug | [`DebugTurn`]s, written by [`debug_sequence`] | tokens |
//! | simple, unit-test and explanation feedback | [`DebugFeedback`] | pieces of text |
//!
//! The loss of both is [`sft_loss`](crate::sft_loss). In its paper, self-debug is a way of prompting and
//! nothing is trained.
//!
//! Read next: [`super::second_thoughts`], where a list of edits leads from one answer to the next.

use super::{Encode, Sequence, piece};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// What feedback asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Another attempt.
    Revise,
    /// Nothing: the answer is final.
    Stop,
}

impl Verdict {
    /// SelFee's words for [`Verdict::Revise`].
    pub const REVISE: &'static str = "Revision is needed.";
    /// SelFee's words for [`Verdict::Stop`].
    pub const STOP: &'static str = "Revision is not needed.";

    /// What feedback in SelFee's words asks for, by the last of the two sentences in it; `None` if it
    /// has neither.
    pub fn of(feedback: &str) -> Option<Self> {
        match (feedback.rfind(Self::REVISE), feedback.rfind(Self::STOP)) {
            (None, None) => None,
            (revise, stop) if revise > stop => Some(Self::Revise),
            _ => Some(Self::Stop),
        }
    }
}

/// One answer of a chain and the feedback on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// yᵢ.
    pub answer: &'a str,
    /// fᵢ.
    pub feedback: &'a str,
    /// What fᵢ asks for; [`Verdict::of`] reads it from SelFee's words.
    pub verdict: Verdict,
}

/// The headings between the parts of a chain; `{number}` is replaced by the part's number.
#[doc(alias = "SelFee")]
#[doc(alias = "self-feedback")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RevisionTemplate {
    /// The heading before fᵢ, with the number i + 1.
    pub feedback: String,
    /// The heading before yᵢ, i ≥ 1, with the number i.
    pub revision: String,
}

impl Default for RevisionTemplate {
    fn default() -> Self {
        Self {
            feedback: "\n\n### Feedback {number}:\n".to_string(),
            revision: "\n\n### Revision {number}:\n".to_string(),
        }
    }
}

impl RevisionTemplate {
    /// Writes SelFee's chain: `x y₀ Feedback 1: f₀ Revision 1: y₁ Feedback 2: f₁ … end`.
    ///
    /// # Equation
    /// ```text
    /// L = −log p(y₀, f₀, y₁, f₁, …│x)
    /// ```
    /// # Shapes
    /// The loss covers everything but x: answers, feedback, headings and the end. x is given.
    /// # Errors
    /// [`Error::Argument`] if there is no attempt, if an attempt follows a final one, or if x, an answer
    /// or a feedback has no token; the errors of `encode`.
    /// # Properties
    /// * Each part is learned given everything before it, so the likelihood is the product over parts:
    ///   p(y₀│x) · p(f₀│x, y₀) · p(y₁│x, y₀, f₀) · …. Mediocre first answers are learned too.
    /// * The `end` is learned only after feedback that accepts the answer. A chain that was cut off
    ///   while it still asked for a revision has no `end`.
    /// # Departures
    /// * The authors' code also writes the end after a chain that was cut off, which teaches the model to
    ///   stop where a revision is asked for.
    /// * The authors' code encodes the whole chain as one text. Here each part is encoded with its
    ///   heading, which may split words differently where parts meet.
    /// # Examples
    /// ```
    /// use candle_align::language::revision::{Attempt, RevisionTemplate, Verdict};
    /// use candle_align::Result;
    ///
    /// let bytes = |text: &str| -> Result<Vec<u32>> { Ok(text.bytes().map(u32::from).collect()) };
    /// let template = RevisionTemplate { feedback: "|f{number}:".into(), revision: "|y{number}:".into() };
    /// let chain = [
    ///     Attempt { answer: "5", feedback: "wrong", verdict: Verdict::Revise },
    ///     Attempt { answer: "4", feedback: "right", verdict: Verdict::Stop },
    /// ];
    /// let sequence = template.sequence(&bytes, "2+2=", &chain, 0)?;
    ///
    /// let text: Vec<u8> = sequence.tokens().iter().map(|&t| t as u8).collect();
    /// assert_eq!(text, b"2+2=5|f1:wrong|y1:4|f2:right\0");
    /// assert_eq!(sequence.mask()[..5], [0, 0, 0, 0, 1]);
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Inspect
    /// * Read [`Verdict::of`] of generated feedback. `None` means that the format is not learned yet; always
    ///   [`Verdict::Stop`] means that the model never revises.
    /// * Compare the quality of the first and of the last answer. If they are equal, the revisions do
    ///   nothing; if the first gets worse, the model has learned to err first, as often as its data do.
    /// * Count generated chains that never end: the `end` is learned only after a final answer.
    /// # Try
    /// * Which share of first answers is right after training on whole chains, and which after training on
    ///   repairs alone? Solution: `cargo run --example revision`.
    /// * Cut a chain off in the middle. Where is its `end`? Solution:
    ///   `tests/values/revision.rs::a_chain_that_was_cut_off_has_no_end`.
    /// # Source
    /// Ye et al. 2023, SelFee (a web page, no paper); authors' code kaistAI/SelFee,
    /// `train/feedback_utils.py` and `train/train.py`, objective "full". The survey: Wang et al. 2023,
    /// arXiv:2307.12966v1, §3.2.2.
    pub fn sequence(
        &self,
        encode: &impl Encode,
        prompt: &str,
        attempts: &[Attempt],
        end: u32,
    ) -> Result<Sequence> {
        let function = "RevisionTemplate::sequence";
        let verdicts: Vec<_> = attempts.iter().map(|attempt| attempt.verdict).collect();
        check_chain(function, "attempts", &verdicts)?;
        let mut sequence = Sequence::new().given(&piece(function, "prompt", encode, prompt)?);
        for (i, attempt) in attempts.iter().enumerate() {
            let answer = format!("attempts[{i}].answer");
            let feedback = format!("attempts[{i}].feedback");
            let heading = match i {
                0 => String::new(),
                _ => numbered(&self.revision, i),
            };
            let answer = headed(function, answer, encode, &heading, attempt.answer)?;
            let heading = numbered(&self.feedback, i + 1);
            let feedback = headed(function, feedback, encode, &heading, attempt.feedback)?;
            sequence = sequence.learned(&answer).learned(&feedback);
            if attempt.verdict == Verdict::Stop {
                sequence = sequence.learned(&[end]);
            }
        }
        Ok(sequence)
    }
}

fn numbered(heading: &str, number: usize) -> String {
    heading.replace("{number}", &number.to_string())
}

/// Encodes a heading and its text as one; the text must not be empty.
fn headed(
    function: &'static str,
    argument: String,
    encode: &impl Encode,
    heading: &str,
    text: &str,
) -> Result<Vec<u32>> {
    let text = match text.is_empty() {
        true => String::new(),
        false => format!("{heading}{text}"),
    };
    piece(function, argument, encode, &text)
}

/// Rejects a chain without parts, or one that continues after a stop.
fn check_chain(function: &'static str, argument: &str, verdicts: &[Verdict]) -> Result<()> {
    if verdicts.is_empty() {
        return Err(Error::argument(function, argument, "is empty"));
    }
    let stopped = verdicts.iter().position(|v| *v == Verdict::Stop);
    match stopped {
        Some(at) if at + 1 < verdicts.len() => Err(Error::argument(
            function,
            format!("{argument}[{at}].verdict"),
            "is Stop, but the chain goes on",
        )),
        _ => Ok(()),
    }
}

/// The feedback on a program, apart from the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugFeedback<'a> {
    /// None: the verdict alone.
    Simple,
    /// The results of unit tests, supplied by the caller.
    UnitTests(&'a str),
    /// The model's explanation of what the program does, line by line.
    Explanation(&'a str),
    /// The model's explanation, then the results.
    ExplanationAndUnitTests {
        /// The model's explanation.
        explanation: &'a str,
        /// The results, supplied by the caller.
        results: &'a str,
    },
}

/// One program and the feedback on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugTurn<'a> {
    /// The program, written by the model.
    pub program: &'a str,
    /// The feedback on it.
    pub feedback: DebugFeedback<'a>,
    /// Whether it must be repaired.
    pub verdict: Verdict,
}

/// Which parts of a debugging conversation the loss covers. The paper trains nothing, so it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DebugLearned {
    /// The last program: the mistakes before it are context.
    LastProgram,
    /// Every program but the first, which teaches how to repair. In a conversation of one program, that
    /// program.
    #[default]
    Revisions,
    /// Every program, including the first one and its mistakes.
    Programs,
    /// Every program and every explanation, which the model has to write itself, but neither test
    /// results nor verdicts.
    ProgramsAndExplanations,
    /// Everything but the task, as in SelFee: the model also learns the verdict.
    AllButTask,
}

/// How a debugging conversation is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DebugFormat {
    /// The verdict on a program that must be repaired.
    pub wrong: String,
    /// The verdict on a program that is right.
    pub right: String,
    /// Which parts the loss covers.
    pub learned: DebugLearned,
}

impl Default for DebugFormat {
    fn default() -> Self {
        Self {
            wrong: "The program is wrong. Repair it.".to_string(),
            right: "The program is right.".to_string(),
            learned: DebugLearned::default(),
        }
    }
}

/// Writes self-debug's conversation: `task end program end [explanation end] [results end] verdict end program end …`.
///
/// # Equation
/// ```text
/// L = −Σ log P(message, end│all before it) over the messages that DebugLearned names      sft_loss
/// ```
/// # Shapes
/// Each message ends with the `end` token, which is learned where the message is. [`DebugLearned`]
/// chooses the learned messages; the task is never among them.
/// # Errors
/// [`Error::Argument`] if there is no turn, if a turn follows a program that was right, or if the task,
/// a program, a message or a verdict has no token; the errors of `encode`.
/// # Properties
/// * With [`DebugFeedback::Simple`] the verdict is the only message after a program.
/// * A conversation of one right program with simple feedback, [`DebugLearned::Programs`], is
///   supervised fine-tuning on that program: what follows it carries no loss.
/// # Departures
/// The paper prompts a model with such conversations and trains none; the masks and the wordings are
/// this crate's choices. Pass the paper's execution traces as [`DebugFeedback::UnitTests`].
/// # Examples
/// ```
/// use candle_align::language::revision::*;
/// use candle_align::Result;
///
/// let bytes = |text: &str| -> Result<Vec<u32>> { Ok(text.bytes().map(u32::from).collect()) };
/// let format = DebugFormat { wrong: "no".into(), right: "yes".into(), ..Default::default() };
/// let turns = [
///     DebugTurn { program: "a-b", feedback: DebugFeedback::UnitTests("1,1: 0"), verdict: Verdict::Revise },
///     DebugTurn { program: "a+b", feedback: DebugFeedback::Simple, verdict: Verdict::Stop },
/// ];
/// let sequence = debug_sequence(&bytes, "add", &turns, &format, b'.'.into())?;
///
/// let text: Vec<u8> = sequence.tokens().iter().map(|&t| t as u8).collect();
/// assert_eq!(text, b"add.a-b.1,1: 0.no.a+b.yes.");
/// // the repaired program and its end
/// assert_eq!(sequence.mask().iter().map(|&m| m as usize).sum::<usize>(), 4);
/// assert_eq!(sequence.mask()[18..22], [1, 1, 1, 1]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Measure two rates apart: first programs that are right, and wrong programs that get repaired.
///   [`DebugLearned::Revisions`] leaves the first programs of repaired chains out, so the two can move
///   apart.
/// * Unless the loss covers the verdict, the model cannot judge its own programs: the tests must.
/// * Count repairs that repeat the wrong program. They are cheap wherever most of the program is right.
/// # Try
/// * Which of the five choices learns the mistakes of the first program too? Solution:
///   `cargo run --example revision`.
/// * Write a conversation of one right program. What remains of the loss? Solution:
///   `tests/identities/revision.rs::one_right_program_is_supervised_fine_tuning`.
/// # Source
/// Chen et al. 2023, arXiv:2304.05128v2, §§3–4. Read: the abstract and the caption of Figure 1, which name
/// the explanation, alone and with execution results. Simple and unit-test feedback come from summaries
/// of the paper.
#[doc(alias = "self-debug")]
#[doc(alias = "self-debugging")]
#[doc(alias = "rubber duck debugging")]
pub fn debug_sequence(
    encode: &impl Encode,
    task: &str,
    turns: &[DebugTurn],
    format: &DebugFormat,
    end: u32,
) -> Result<Sequence> {
    let function = "debug_sequence";
    let verdicts: Vec<_> = turns.iter().map(|turn| turn.verdict).collect();
    check_chain(function, "turns", &verdicts)?;
    let message = |argument: String, text: &str| -> Result<Vec<u32>> {
        let mut tokens = piece(function, argument, encode, text)?;
        tokens.push(end);
        Ok(tokens)
    };
    let mut sequence = Sequence::new().given(&message("task".to_string(), task)?);
    for (i, turn) in turns.iter().enumerate() {
        let learned = format.learned.parts(i, turns.len());
        let at = |field: &str| format!("turns[{i}].{field}");
        let (explanation, results) = match turn.feedback {
            DebugFeedback::Simple => (None, None),
            DebugFeedback::UnitTests(results) => (None, Some(results)),
            DebugFeedback::Explanation(explanation) => (Some(explanation), None),
            DebugFeedback::ExplanationAndUnitTests {
                explanation,
                results,
            } => (Some(explanation), Some(results)),
        };
        sequence = write(
            sequence,
            &message(at("program"), turn.program)?,
            learned.program,
        );
        if let Some(text) = explanation {
            let text = message(at("feedback.explanation"), text)?;
            sequence = write(sequence, &text, learned.explanation);
        }
        if let Some(text) = results {
            let text = message(at("feedback.results"), text)?;
            sequence = write(sequence, &text, learned.verdict);
        }
        let verdict = match turn.verdict {
            Verdict::Revise => message("format.wrong".to_string(), &format.wrong)?,
            Verdict::Stop => message("format.right".to_string(), &format.right)?,
        };
        sequence = write(sequence, &verdict, learned.verdict);
    }
    Ok(sequence)
}

/// Which messages of one turn the loss covers; test results are treated as the verdict.
struct Parts {
    program: bool,
    explanation: bool,
    verdict: bool,
}

impl DebugLearned {
    fn parts(self, turn: usize, turns: usize) -> Parts {
        let last = turn + 1 == turns;
        Parts {
            program: match self {
                Self::LastProgram => last,
                Self::Revisions => turn > 0 || turns == 1,
                Self::Programs | Self::ProgramsAndExplanations | Self::AllButTask => true,
            },
            explanation: matches!(self, Self::ProgramsAndExplanations | Self::AllButTask),
            verdict: self == Self::AllButTask,
        }
    }
}

fn write(sequence: Sequence, tokens: &[u32], learned: bool) -> Sequence {
    match learned {
        true => sequence.learned(tokens),
        false => sequence.given(tokens),
    }
}
