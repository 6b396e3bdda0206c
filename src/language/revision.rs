//! Revision: an answer, what is wrong with it, a better answer, and so on (survey §3.2.2, SelFee and
//! self-debug).
//!
//! In one sentence: the feedback and the corrected answer are part of the text that is learned, so
//! that one pass writes, judges and repairs.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | y₀, f₀, y₁, f₁, … of SelFee | [`Attempt`]s, written by [`RevisionTemplate::sequence`] | tokens |
//! | "Revision is not needed." | [`Verdict`] | – |
//! | program, feedback message, program, … of self-debug | [`DebugTurn`]s, written by [`debug_sequence`] | tokens |
//! | simple, unit-test and explanation feedback | [`DebugFeedback`] | pieces of text |
//!
//! The loss of both is [`sft_loss`](crate::sft_loss); self-debug is a way of prompting in its paper,
//! where nothing is trained.
//!
//! Read next: [`super::second_thoughts`], where the way from one answer to the next is a list of edits.

use super::{Encode, Sequence, piece};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// What a feedback asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Another attempt.
    Revise,
    /// Nothing: the answer stands.
    Stop,
}

impl Verdict {
    /// SelFee's words for [`Verdict::Revise`].
    pub const REVISE: &'static str = "Revision is needed.";
    /// SelFee's words for [`Verdict::Stop`].
    pub const STOP: &'static str = "Revision is not needed.";

    /// What a feedback in SelFee's words asks for: by the last of the two sentences in it, `None` if
    /// it has neither.
    pub fn of(feedback: &str) -> Option<Self> {
        match (feedback.rfind(Self::REVISE), feedback.rfind(Self::STOP)) {
            (None, None) => None,
            (revise, stop) if revise > stop => Some(Self::Revise),
            _ => Some(Self::Stop),
        }
    }
}

/// One answer of a chain, and what was said about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// yᵢ.
    pub answer: &'a str,
    /// fᵢ.
    pub feedback: &'a str,
    /// What fᵢ asks for; [`Verdict::of`] reads it off SelFee's words.
    pub verdict: Verdict,
}

/// The headings between the parts of a chain; `{number}` is replaced by the part's number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RevisionTemplate {
    /// Before fᵢ, with the number i + 1.
    pub feedback: String,
    /// Before yᵢ, i ≥ 1, with the number i.
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
    /// SelFee's chain: `x y₀ Feedback 1: f₀ Revision 1: y₁ Feedback 2: f₁ … end`.
    ///
    /// # Equation
    /// ```text
    /// L = −log p(y₀, f₀, y₁, f₁, …│x)
    /// ```
    /// # Shapes
    /// Everything but x is learned: answers, feedback, headings, the end. x is given.
    /// # Errors
    /// [`Error::Argument`] if there is no attempt, if one follows another that was to stand, or if x,
    /// an answer or a feedback has no token; those of `encode`.
    /// # Properties
    /// * Each part is learned given all before it, so the likelihood is the product over parts:
    ///   p(y₀│x) · p(f₀│x, y₀) · p(y₁│x, y₀, f₀) · …; mediocre first answers are learned too.
    /// * The `end` is learned after a feedback that lets the answer stand, and only there. A chain
    ///   that was cut off while it still asked for a revision ends without one.
    /// # Departures
    /// The authors' code writes the end after a chain that was cut off, too: that teaches to stop
    /// where a revision is asked for. It encodes the whole chain as one text; here each part with its
    /// heading is encoded by itself, which may split words at the seams differently.
    /// # Examples
    /// ```
    /// use candle_align::Result;
    /// use candle_align::language::revision::{Attempt, RevisionTemplate, Verdict};
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

/// A heading and the text under it, encoded as one; the text itself must not be empty.
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

/// An error for a chain without parts, or one that goes on after it came to a stop.
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

/// What is said about a program, apart from whether it is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugFeedback<'a> {
    /// Nothing.
    Simple,
    /// The results of unit tests: from whoever ran them.
    UnitTests(&'a str),
    /// What the program does, line by line: in the model's own words.
    Explanation(&'a str),
    /// The model's explanation, then the results.
    ExplanationAndUnitTests {
        /// In the model's own words.
        explanation: &'a str,
        /// From whoever ran the tests.
        results: &'a str,
    },
}

/// One program, and what was said about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugTurn<'a> {
    /// The program, written by the model.
    pub program: &'a str,
    /// What is said about it.
    pub feedback: DebugFeedback<'a>,
    /// Whether it is to be repaired.
    pub verdict: Verdict,
}

/// Which parts of a debugging conversation are learned. The paper, which trains nothing, leaves it open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DebugLearned {
    /// The last program: the mistakes before it are context.
    LastProgram,
    /// Every program but the first: how to repair. A conversation of one program learns that one.
    #[default]
    Revisions,
    /// Every program: the first one, mistakes included, is learned too.
    Programs,
    /// Every program and every explanation, which the model has to write itself; not the results of
    /// tests, nor the verdict.
    ProgramsAndExplanations,
    /// Everything but the task, as in SelFee: the model also says whether it is right.
    AllButTask,
}

/// How a debugging conversation is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DebugFormat {
    /// The verdict on a program that is to be repaired.
    pub wrong: String,
    /// The verdict on one that is not.
    pub right: String,
    /// Which parts are learned.
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

/// Self-debug's conversation: `task end program end [explanation end] [results end] verdict end program end …`.
///
/// # Equation
/// ```text
/// L = −Σ log P(message, end│all before it) over the messages that DebugLearned names      sft_loss
/// ```
/// # Shapes
/// Each message ends with the `end` token, which is learned where the message is. Which messages are
/// learned says [`DebugLearned`]; the task never is.
/// # Errors
/// [`Error::Argument`] if there is no turn, if one follows another that was right, or if the task, a
/// program, a message or a verdict has no token; those of `encode`.
/// # Properties
/// * [`DebugFeedback::Simple`] leaves the verdict alone as the message.
/// * A conversation of one right program with simple feedback, [`DebugLearned::Programs`], is
///   supervised fine-tuning on that program: what follows it carries no loss.
/// # Departures
/// The paper prompts a model with such conversations and trains none; the masks are choices of this
/// page. Words are this page's own. The paper's execution traces are a [`DebugFeedback::UnitTests`]
/// text like any other.
/// # Examples
/// ```
/// use candle_align::Result;
/// use candle_align::language::revision::*;
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
/// # Source
/// Chen et al. 2023, arXiv:2304.05128v2, §§3–4 (the kinds of feedback rest on notes).
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

/// Which messages of one turn are learned; the results of tests as the verdict.
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
