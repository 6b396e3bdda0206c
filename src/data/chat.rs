//! Conversations of several turns, and which of them the loss covers (survey §2.2.2).
//!
//! In one sentence: a conversation becomes one row of tokens, and its mask covers what the assistant says
//! and the end of its turn, in all turns or in some.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | system, human, assistant | [`Role`], [`Message`] | text |
//! | a chat template | [`ChatFormat`] | texts around each message |
//! | loss on the assistant's turns alone | [`ChatFormat::sequence`] with [`CoveredTurns`] | tokens |
//!
//! Read next: [`super::self_chat`], which makes conversations.

use crate::error::{Error, Result};
use crate::sequence::{Encode, Sequence};
use serde::{Deserialize, Serialize};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The rules of the conversation; at its start only.
    System,
    /// The human, or who plays one.
    User,
    /// The model.
    Assistant,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of the system.
    pub fn system(content: impl Into<String>) -> Self {
        Self {
            role: Role::System,
            content: content.into(),
        }
    }

    /// A message of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self {
            role: Role::User,
            content: content.into(),
        }
    }

    /// A message of the assistant.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self {
            role: Role::Assistant,
            content: content.into(),
        }
    }
}

/// The texts before and after a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Around {
    /// The heading of the turn.
    pub before: String,
    /// The end of the turn.
    pub after: String,
}

/// How each role's turns are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatFormat {
    /// Around the system's message.
    pub system: Around,
    /// Around the user's messages.
    pub user: Around,
    /// Around the assistant's messages.
    pub assistant: Around,
}

/// Which of the assistant's turns the loss covers, counted from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoveredTurns {
    /// All of them.
    #[default]
    Every,
    /// The last one; those before it are context.
    Last,
    /// These.
    Only(Vec<usize>),
}

impl ChatFormat {
    /// Vicuna's words: `USER: x ASSISTANT: y</s>`.
    pub fn vicuna() -> Self {
        let around = |before: &str, after: &str| Around {
            before: before.to_string(),
            after: after.to_string(),
        };
        Self {
            system: around("", " "),
            user: around("USER: ", " "),
            assistant: around("ASSISTANT: ", "</s>"),
        }
    }

    /// Writes a conversation and the mask of its loss.
    ///
    /// # Equation
    /// ```text
    /// before x₁ after   before y₁ after   before x₂ after   before y₂ after …
    ///                          └covered┘                           └covered┘
    /// L = −Σᵢ log P(yᵢ after│everything before it)      over the turns that CoveredTurns names
    /// ```
    /// # Shapes
    /// The loss covers an answer and the text after it, which ends the turn, never the heading before it.
    /// Each of the three pieces of a turn is encoded alone; an empty one is not encoded.
    /// # Errors
    /// [`Error::Argument`] if there is no message, if a system message is not the first, if two turns of one
    /// role follow each other, if a covered turn does not exist, is there twice or has no token, or if no
    /// turn is covered; the errors of `encode`.
    /// # Properties
    /// * With [`CoveredTurns::Every`] the mask covers exactly the assistant's turns: the rows of all turns,
    ///   each alone as [`CoveredTurns::Only`], add up to it.
    /// * [`CoveredTurns::Last`] on the conversation up to each answer gives every answer a row of its own,
    ///   with the same loss as one row.
    /// * A conversation may end with the user's turn, which is given.
    /// # Departures
    /// * Vicuna's code encodes the whole conversation and finds the turns by their lengths; if the lengths
    ///   differ, the whole conversation is masked. Here pieces are encoded, so the mask is always right, and
    ///   a tokenizer may split words differently where pieces meet.
    /// * A space at the end of a heading belongs to the heading here.
    /// # Examples
    /// ```
    /// use candle_align::data::chat::{ChatFormat, CoveredTurns, Message};
    /// use candle_align::Result;
    ///
    /// let bytes = |text: &str| -> Result<Vec<u32>> { Ok(text.bytes().map(u32::from).collect()) };
    /// let messages = [Message::user("2+2?"), Message::assistant("4"), Message::user("3+3?"), Message::assistant("6")];
    /// let sequence = ChatFormat::vicuna().sequence(&bytes, &messages, &CoveredTurns::Every)?;
    ///
    /// let marked = |covered: u8| -> String {
    ///     let tokens = sequence.tokens().iter().zip(sequence.mask());
    ///     tokens.filter(|(_, m)| **m == covered).map(|(t, _)| *t as u8 as char).collect()
    /// };
    /// assert_eq!(marked(1), "4</s>6</s>");
    /// assert_eq!(marked(0), "USER: 2+2? ASSISTANT: USER: 3+3? ASSISTANT: ");
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Source
    /// Chiang et al. 2023, Vicuna (a web page, no paper); authors' code lm-sys/FastChat,
    /// `fastchat/train/train.py`. The survey: Wang et al. 2023, arXiv:2307.12966v1, §2.2.2.
    #[doc(alias = "Vicuna")]
    #[doc(alias = "loss mask")]
    pub fn sequence(
        &self,
        encode: &impl Encode,
        messages: &[Message],
        covered: &CoveredTurns,
    ) -> Result<Sequence> {
        let function = "ChatFormat::sequence";
        check(function, messages)?;
        let answers = messages
            .iter()
            .filter(|m| m.role == Role::Assistant)
            .count();
        let covered = covered.turns(function, answers)?;
        let piece = |text: &str| match text.is_empty() {
            true => Ok(Vec::new()),
            false => encode.encode(text),
        };
        let (mut sequence, mut answer) = (Sequence::new(), 0);
        for (i, Message { role, content }) in messages.iter().enumerate() {
            let Around { before, after } = match role {
                Role::System => &self.system,
                Role::User => &self.user,
                Role::Assistant => &self.assistant,
            };
            sequence = sequence.given(&piece(before)?);
            let said = [piece(content)?, piece(after)?].concat();
            let is_answer = *role == Role::Assistant;
            if is_answer && covered.contains(&answer) {
                if said.is_empty() {
                    let argument = format!("messages[{i}].content");
                    return Err(Error::argument(function, argument, "has no token"));
                }
                sequence = sequence.learned(&said);
            } else {
                sequence = sequence.given(&said);
            }
            answer += usize::from(is_answer);
        }
        Ok(sequence)
    }
}

impl CoveredTurns {
    /// The covered turns of a conversation with this many answers.
    fn turns(&self, function: &'static str, answers: usize) -> Result<Vec<usize>> {
        let turns = match self {
            Self::Every => (0..answers).collect(),
            Self::Last => answers.checked_sub(1).into_iter().collect(),
            Self::Only(turns) => turns.clone(),
        };
        let wrong = |problem: String| Err(Error::argument(function, "covered", problem));
        for (i, turn) in turns.iter().enumerate() {
            if *turn >= answers {
                return wrong(format!("has turn {turn}; the assistant has {answers}"));
            }
            if turns[..i].contains(turn) {
                return wrong(format!("has turn {turn} twice"));
            }
        }
        match turns.is_empty() {
            true => {
                wrong("names no turn of the assistant, so there is nothing to learn".to_string())
            }
            false => Ok(turns),
        }
    }
}

/// Rejects a conversation that is empty, or whose roles do not take turns.
fn check(function: &'static str, messages: &[Message]) -> Result<()> {
    if messages.is_empty() {
        return Err(Error::argument(function, "messages", "is empty"));
    }
    for (i, pair) in messages.windows(2).enumerate() {
        let argument = || format!("messages[{}].role", i + 1);
        if pair[1].role == Role::System {
            return Err(Error::argument(
                function,
                argument(),
                "is system, after the start",
            ));
        }
        if pair[0].role == pair[1].role {
            let problem = "is that of the message before; roles take turns";
            return Err(Error::argument(function, argument(), problem));
        }
    }
    Ok(())
}
