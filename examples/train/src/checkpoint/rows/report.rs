//! What happened to the rows of a file.

use super::super::super::data::Tally;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// How many rows were read, cut and dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Rows of the file.
    pub rows: usize,
    /// Rows that are left.
    pub kept: usize,
    /// Kept rows, or sides of kept pairs, that were longer than `max_length`.
    pub cut: usize,
    /// The tokens that they lost.
    pub tokens_cut: usize,
    /// Rows that were dropped because the loss covers nothing of what is left.
    pub nothing_learned: usize,
    /// Pairs and lists that were dropped because the prompt alone has `max_length` tokens or more, and prompts of an online
    /// run that have more.
    pub long_prompts: usize,
    /// Pairs, or answers of lists, that were dropped because an answer has more than `max_length` tokens
    /// with its prompt.
    pub long_sides: usize,
    /// Texts with words around answers that were dropped because they have more than `max_length` tokens.
    pub long_texts: usize,
    /// Rows whose prompt alone is not the beginning of the whole: the last tokens of the prompt belong to
    /// the answer there, or are missing.
    pub moved_answers: usize,
    /// Kept answers without a token of their own.
    pub empty_answers: usize,
    /// Whether texts depend on the time of the run.
    pub reads_the_clock: bool,
    /// Ignored fields, and in how many objects each was.
    pub ignored_fields: BTreeMap<String, usize>,
    /// What the loss of `sft` covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covers: Option<Covers>,
    /// Of rows that became prompts with rated answers: what was left out, by reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<Tally>,
}

/// The tokens of a row for supervised training that the loss covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Covers {
    AllTurns,
    MarkedTurns,
    LastTurn,
    Completion,
    MarkedOfCompletion,
    PromptAndCompletion,
    Text,
    /// The rows are ids.
    AsGiven,
    BestAnswer,
}

/// As the end of "the loss covers …".
impl fmt::Display for Covers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllTurns => {
                "all turns of a conversation, those of system and user included (`turns` = all)"
            }
            Self::MarkedTurns => {
                "the assistant's turns, as the chat template marks them (`turns` = marked)"
            }
            Self::LastTurn => "the last turn, the assistant's (`turns` = last)",
            Self::Completion => "the completion",
            Self::MarkedOfCompletion => {
                "the assistant's turns in the completion, as the chat template marks them (`turns` = marked)"
            }
            Self::PromptAndCompletion => "prompt and completion (`completion_only` = false)",
            Self::Text => "all of the text",
            Self::AsGiven => {
                "the tokens that each row's `labels` or `completion_mask` names, all if it has neither"
            }
            Self::BestAnswer => "the best answer",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} rows", self.kept, self.rows)?;
        let counts = [
            (self.nothing_learned, "dropped (nothing left to learn)"),
            (self.long_prompts, "dropped (the prompt alone is too long)"),
            (self.long_sides, "dropped (an answer is too long)"),
            (
                self.long_texts,
                "texts dropped (too long with the words around answers)",
            ),
            (
                self.moved_answers,
                "whose answer begins before the end of the prompt's tokens",
            ),
            (self.empty_answers, "answers without a token"),
        ];
        for (count, what) in counts {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if self.cut > 0 {
            write!(f, ", {} cut by {} tokens in all", self.cut, self.tokens_cut)?;
        }
        if let Some(tally) = &self.items {
            write!(f, ", {}", tally.reasons())?;
        }
        for (name, count) in &self.ignored_fields {
            write!(f, ", `{name}` ignored {count} times")?;
        }
        if self.reads_the_clock {
            f.write_str(", and the chat template writes the day of the run")?;
        }
        Ok(())
    }
}
