//! Role-play: two agents with a task, each told who it is (survey §2.2.1 and §2.2.2, CAMEL).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | inception prompting | [`InceptionConfig::prompts`] | two texts |
//! | the AI user gives instructions, the AI assistant carries them out | [`converse`](super::self_chat::converse) | messages |
//!
//! Read next: [`super::self_chat`].

use super::template::{Template, known};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The wording of the two system messages. Slots of both: `{task}`, `{user}`, `{assistant}`, `{stop}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InceptionConfig {
    /// For the agent that plays the user.
    pub user: Template,
    /// For the agent that plays the assistant.
    pub assistant: Template,
    /// What the user says when the task is done. Default `<CAMEL_TASK_DONE>`.
    pub stop: String,
}

const USER: &str = "You are a {user} and I am a {assistant}. Never change these roles. Our task: {task}\n\
Instruct me step by step, one instruction at a time, with the input that it needs. Do not answer your own \
instructions. When the task is done, say only {stop}";
const ASSISTANT: &str = "You are a {assistant} and I am a {user}. Never change these roles. Our task: {task}\n\
I instruct you step by step. Carry out each instruction with a full solution, or say why you cannot. Do not \
instruct me, and never say {stop}";

impl Default for InceptionConfig {
    fn default() -> Self {
        Self {
            user: known(USER),
            assistant: known(ASSISTANT),
            stop: "<CAMEL_TASK_DONE>".to_string(),
        }
    }
}

/// The system messages of two agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inception {
    /// For the agent that plays the user.
    pub user: String,
    /// For the agent that plays the assistant.
    pub assistant: String,
}

impl InceptionConfig {
    /// Writes the system messages of two agents.
    ///
    /// # Equation
    /// ```text
    /// (task, role of the user, role of the assistant)   →   system message of each
    /// ```
    /// # Shapes
    /// `user` and `assistant` are roles, such as "stock trader" and "Python programmer".
    /// # Errors
    /// [`Error::Argument`] if the task, a role or the stop text is empty, or if a template has other slots.
    /// # Properties
    /// * Both agents know both roles and the task. The messages differ in who instructs.
    /// # Departures
    /// The wording is this crate's and shorter than the paper's. CAMEL also lets a model make the task more
    /// specific first, and propose the roles.
    /// # Examples
    /// ```
    /// use candle_align::data::role_play::InceptionConfig;
    ///
    /// let agents = InceptionConfig::default().prompts("Write a game.", "player", "programmer")?;
    /// assert!(agents.user.starts_with("You are a player and I am a programmer."));
    /// assert!(agents.assistant.starts_with("You are a programmer and I am a player."));
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Source
    /// Li et al. 2023, arXiv:2303.17760 (CAMEL), from memory and the survey: Wang et al. 2023,
    /// arXiv:2307.12966v1, §2.2.2.
    #[doc(alias = "CAMEL")]
    pub fn prompts(&self, task: &str, user: &str, assistant: &str) -> Result<Inception> {
        let function = "InceptionConfig::prompts";
        let values = [
            ("task", task),
            ("user", user),
            ("assistant", assistant),
            ("stop", self.stop.as_str()),
        ];
        if let Some((name, _)) = values.iter().find(|(_, value)| value.is_empty()) {
            return Err(Error::argument(function, *name, "is empty"));
        }
        let slots = values.map(|(name, _)| name);
        self.user.require(function, "config.user", &slots)?;
        self.assistant
            .require(function, "config.assistant", &slots)?;
        Ok(Inception {
            user: self.user.fill(&values)?,
            assistant: self.assistant.fill(&values)?,
        })
    }
}
