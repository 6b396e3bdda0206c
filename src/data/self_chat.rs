//! Conversations that models have with themselves or with each other (survey §2.2.2).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | self-chat: one model writes both sides at once (Baize) | [`self_chat`], [`read_transcript`] | text to [`Message`]s |
//! | a user simulator and an assistant (UltraChat); two agents with roles (CAMEL) | [`converse`] | [`Conversation`] |
//! | the simulator's view | [`flipped`] | [`Message`]s |
//!
//! A model is a closure from text, or from messages, to text. It may fail, and its error ends the loop.
//!
//! Read next: [`super::role_play`], which writes the system messages of two agents, and [`super::chat`],
//! which turns a conversation into tokens and a mask.

use super::chat::{Message, Role};
use super::template::{Template, known};
use crate::error::{Error, Result, require};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

/// The wording of [`self_chat`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelfChatConfig {
    /// The request, with the slots `{topic}`, `{human}` and `{ai}`.
    pub prompt: Template,
    /// What begins a human's turn. Default `[Human]`.
    pub human: String,
    /// What begins the assistant's turn. Default `[AI]`.
    pub ai: String,
}

const SELF_CHAT: &str = "Write a conversation between a human and an AI assistant about this topic: {topic}\n\
Turns of the human begin with {human}, turns of the assistant with {ai}. The human asks questions about the topic or \
about what was said, and stops when there is nothing left to ask. The assistant asks no questions.\n\
{human} Hello!\n{ai} Hi! How can I help you?\n";

impl Default for SelfChatConfig {
    fn default() -> Self {
        Self {
            prompt: known(SELF_CHAT),
            human: "[Human]".to_string(),
            ai: "[AI]".to_string(),
        }
    }
}

/// Lets one model write both sides of a conversation about a topic.
///
/// # Equation
/// ```text
/// prompt with the topic  →  model  →  [Human] x₁ [AI] y₁ [Human] x₂ [AI] y₂ …  →  messages
/// ```
/// # Shapes
/// `topic` is a question from a site of questions and answers, say; `model` continues a text.
/// # Errors
/// [`Error::Argument`] if the topic is empty or the template has other slots; the errors of `model` and of
/// [`read_transcript`].
/// # Properties
/// * The model is asked once for the whole conversation.
/// * The greetings in the prompt are not part of the result.
/// # Departures
/// The wording is this crate's, with Baize's names for the two sides.
/// # Examples
/// ```
/// use candle_align::data::chat::Message;
/// use candle_align::data::self_chat::{SelfChatConfig, self_chat};
///
/// let mut asked = String::new();
/// let model = |prompt: &str| {
///     asked = prompt.to_string();
///     Ok("[Human] Why is it blue?\n[AI] Light scatters.\n[Human] Thanks.".to_string())
/// };
/// let messages = self_chat("the sky", &SelfChatConfig::default(), model)?;
/// assert_eq!(
///     messages,
///     [Message::user("Why is it blue?"), Message::assistant("Light scatters."), Message::user("Thanks.")]
/// );
/// assert!(asked.contains("the sky"));
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Xu et al. 2023, arXiv:2304.01196 (Baize), §3; authors' code project-baize/baize-chatbot, `collect.py`.
#[doc(alias = "Baize")]
pub fn self_chat(
    topic: &str,
    config: &SelfChatConfig,
    model: impl FnOnce(&str) -> Result<String>,
) -> Result<Vec<Message>> {
    let function = "self_chat";
    if topic.is_empty() {
        return Err(Error::argument(function, "topic", "is empty"));
    }
    let slots = ["topic", "human", "ai"];
    config.prompt.require(function, "prompt", &slots)?;
    let (human, ai) = (config.human.as_str(), config.ai.as_str());
    let values = [("topic", topic), ("human", human), ("ai", ai)];
    read_transcript(&model(&config.prompt.fill(&values)?)?, human, ai)
}

/// Reads the turns of a transcript.
///
/// # Equation
/// ```text
/// human x₁ ai y₁ human x₂ …   →   user x₁, assistant y₁, user x₂, …
/// ```
/// # Shapes
/// `human` and `ai` are what begins a turn of each side, such as `[Human]` and `[AI]`. Blanks around a turn
/// are not part of it.
/// # Errors
/// [`Error::Argument`] if one of the two marks is empty or both are equal, if there is text before the first
/// mark, if there is no turn, if the human is not first, if a side has two turns in a row, or if a turn is
/// empty.
/// # Properties
/// * A transcript that obeys the form comes back whole; one that does not is refused, and never repaired.
/// # Departures
/// Baize's code keeps the raw text.
/// # Examples
/// ```
/// use candle_align::data::chat::Message;
/// use candle_align::data::self_chat::read_transcript;
///
/// let turns = read_transcript("H: 2+2?\nA: 4", "H:", "A:")?;
/// assert_eq!(turns, [Message::user("2+2?"), Message::assistant("4")]);
/// assert!(read_transcript("A: 4", "H:", "A:").is_err());
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Xu et al. 2023, arXiv:2304.01196 (Baize), §3; authors' code project-baize/baize-chatbot, `collect.py`,
/// which asks for this form.
pub fn read_transcript(text: &str, human: &str, ai: &str) -> Result<Vec<Message>> {
    let function = "read_transcript";
    for (name, mark) in [("human", human), ("ai", ai)] {
        if mark.is_empty() || human == ai {
            let problem = "is empty, or the mark of the other side too";
            return Err(Error::argument(function, name, problem));
        }
    }
    let wrong = |problem: String| Err(Error::argument(function, "text", problem));
    let next = |rest: &str| {
        let found = [(human, Role::User), (ai, Role::Assistant)].map(|(mark, role)| {
            let at = rest.find(mark)?;
            Some((at, mark.len(), role))
        });
        // of two marks at one place the longer one
        let first = |&(at, length, _): &(usize, usize, Role)| (at, Reverse(length));
        found.into_iter().flatten().min_by_key(first)
    };
    let mut messages: Vec<Message> = Vec::new();
    let mut rest = text;
    let Some((mut at, mut length, mut role)) = next(rest) else {
        return wrong(format!("has neither `{human}` nor `{ai}`"));
    };
    if !rest[..at].trim().is_empty() {
        return wrong("does not begin with a turn".to_string());
    }
    loop {
        rest = &rest[at + length..];
        let following = next(rest);
        let turn = rest[..following.map_or(rest.len(), |(at, ..)| at)].trim();
        let number = messages.len() + 1;
        if turn.is_empty() {
            return wrong(format!("has an empty turn {number}"));
        }
        let expected = match messages.last() {
            Some(Message {
                role: Role::User, ..
            }) => Role::Assistant,
            _ => Role::User,
        };
        if role != expected {
            return wrong(format!("has turn {number} on the wrong side"));
        }
        let content = turn.to_string();
        messages.push(Message { role, content });
        match following {
            Some(found) => (at, length, role) = found,
            None => return Ok(messages),
        }
    }
}

/// Settings of [`converse`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConverseConfig {
    /// The most rounds, at least 1: a message of the user and the answer to it. Default 4, about the length
    /// of Baize's and UltraChat's conversations; CAMEL has up to 20.
    pub max_rounds: usize,
    /// A message with this text ends the conversation, and is not part of it. Default none; CAMEL's is
    /// `<CAMEL_TASK_DONE>`.
    pub stop: Option<String>,
}

impl Default for ConverseConfig {
    fn default() -> Self {
        Self {
            max_rounds: 4,
            stop: None,
        }
    }
}

/// Why a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The user had nothing more to say.
    User,
    /// A message had the stop text.
    Stop,
    /// It had as many rounds as it may have.
    Rounds,
}

/// A conversation of two models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// What was said, the opening included.
    pub messages: Vec<Message>,
    /// Why it ended.
    pub ending: Ending,
}

/// Lets a user simulator and an assistant talk.
///
/// # Equation
/// ```text
/// x₁ = user(opening),  y₁ = assistant(opening, x₁),  x₂ = user(opening, x₁, y₁),  y₂ = …
/// until the user gives none, a message has the stop text, or max_rounds
/// ```
/// # Shapes
/// Both closures see the whole conversation; `opening` is its beginning, such as a system message or a first
/// round, and may be empty. `user` returns `None` to end. A chat model plays the user on [`flipped`]
/// messages.
/// # Errors
/// [`Error::Parameter`] if `max_rounds` is 0; [`Error::Argument`] if the stop text is empty, the opening ends
/// with the user, or a closure returns an empty message; the errors of the closures.
/// # Properties
/// * Roles take turns, and the conversation ends with an answer, unless an assistant's message had the stop
///   text: then its last message is the user's.
/// * One model on both sides is self-chat turn by turn.
/// # Departures
/// CAMEL has more rules for the end: too many tokens, and three rounds without an instruction. The closures
/// can apply them.
/// # Examples
/// ```
/// use candle_align::data::chat::Message;
/// use candle_align::data::self_chat::{ConverseConfig, Ending, converse};
///
/// let mut questions = ["2+2?", "3+3?"].into_iter();
/// let user = |_: &[Message]| Ok(questions.next().map(str::to_string));
/// let assistant = |told: &[Message]| Ok(format!("answer {}", told.len()));
/// let talk = converse(&[], user, assistant, &ConverseConfig::default())?;
/// assert_eq!(talk.ending, Ending::User);
/// assert_eq!(talk.messages[3], Message::assistant("answer 3"));
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Ding et al. 2023, arXiv:2305.14233 (UltraChat); Li et al. 2023, arXiv:2303.17760 (CAMEL). Both from memory
/// and the survey: Wang et al. 2023, arXiv:2307.12966v1, §2.2.2.
#[doc(alias = "UltraChat")]
#[doc(alias = "CAMEL")]
pub fn converse(
    opening: &[Message],
    mut user: impl FnMut(&[Message]) -> Result<Option<String>>,
    mut assistant: impl FnMut(&[Message]) -> Result<String>,
    config: &ConverseConfig,
) -> Result<Conversation> {
    let function = "converse";
    require(
        config.max_rounds > 0,
        function,
        "max_rounds",
        ">= 1",
        config.max_rounds,
    )?;
    if config.stop.as_deref() == Some("") {
        return Err(Error::argument(function, "config.stop", "is empty"));
    }
    if opening.last().is_some_and(|m| m.role == Role::User) {
        return Err(Error::argument(
            function,
            "opening",
            "ends with the user, who speaks next",
        ));
    }
    let said = |side: &'static str, text: String| match text.is_empty() {
        true => Err(Error::argument(function, side, "returned an empty message")),
        false => Ok(text),
    };
    let stops = |text: &str| config.stop.as_ref().is_some_and(|stop| text.contains(stop));
    let mut messages = opening.to_vec();
    for _ in 0..config.max_rounds {
        let Some(text) = user(&messages)? else {
            let ending = Ending::User;
            return Ok(Conversation { messages, ending });
        };
        let text = said("user", text)?;
        if stops(&text) {
            let ending = Ending::Stop;
            return Ok(Conversation { messages, ending });
        }
        messages.push(Message::user(text));
        let text = said("assistant", assistant(&messages)?)?;
        if stops(&text) {
            let ending = Ending::Stop;
            return Ok(Conversation { messages, ending });
        }
        messages.push(Message::assistant(text));
    }
    let ending = Ending::Rounds;
    Ok(Conversation { messages, ending })
}

/// The conversation as the user sees it: the assistant's messages are the user's, and the reverse.
pub fn flipped(messages: &[Message]) -> Vec<Message> {
    let flip = |message: &Message| Message {
        role: match message.role {
            Role::System => Role::System,
            Role::User => Role::Assistant,
            Role::Assistant => Role::User,
        },
        content: message.content.clone(),
    };
    messages.iter().map(flip).collect()
}
