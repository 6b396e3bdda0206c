//! The settings of an evaluation: `config.json` stores them, `--config` reads them.

use super::super::checkpoint::settings::Storage;
use super::super::error::{Error, Result};
use super::super::input;
use super::super::settings::assign;
use candle_align::data::Template;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// The evaluations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Method {
    /// The likeliest choice, by four scores
    #[default]
    #[value(alias = "multiple-choice")]
    MultipleChoice,
    /// The mean log-probability of a text after a prompt that names an aspect
    #[value(alias = "gpt-score", alias = "gptscore")]
    GptScore,
    /// The expected score under the model's distribution of the next token
    #[value(alias = "g-eval")]
    GEval,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MultipleChoice => "multiple_choice",
            Self::GptScore => "gpt_score",
            Self::GEval => "g_eval",
        })
    }
}

/// Settings of `multiple_choice`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultipleChoice {
    /// What a choice follows, with the slot `{question}`. Null: the question itself under a chat template or if
    /// it is to be continued (`ctx`), else "Question: {question}\nAnswer:".
    pub prompt: Option<Template>,
    /// What a choice follows for its unconditional score.
    pub without_question: String,
}

impl Default for MultipleChoice {
    fn default() -> Self {
        Self {
            prompt: None,
            // GPT-3 §2.4
            without_question: "Answer:".to_string(),
        }
    }
}

/// Settings of `gpt_score`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GptScore {
    /// What the text follows, with the slots `{aspect}` and `{input}`, and perhaps `{definition}`.
    pub prompt: Template,
}

impl Default for GptScore {
    fn default() -> Self {
        let text = "Write a text for the following input. It must be good in this respect: {aspect}, \
                    which means {definition}.\n\nInput:\n{input}\n\nText:\n";
        Self {
            prompt: template(text),
        }
    }
}

/// Settings of `g_eval`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GEval {
    /// What the score follows, with the slots `{aspect}`, `{input}` and `{output}`, and perhaps `{definition}`
    /// and `{lowest}`, `{highest}`, the ends of the scale.
    pub prompt: Template,
    /// The scores, upward. Each must be one token of the model.
    pub scores: Vec<u32>,
}

impl Default for GEval {
    fn default() -> Self {
        let text = "You will be given a text that was written for an input. Rate the text on one metric.\n\n\
                    Evaluation criteria:\n{aspect} ({lowest}-{highest}): {definition}\n\nInput:\n{input}\n\n\
                    Text:\n{output}\n\nEvaluation form (scores ONLY):\n- {aspect}:";
        Self {
            prompt: template(text),
            scores: (1..=5).collect(),
        }
    }
}

/// The first aspect of SummEval, and what it is in the words of G-Eval's form.
const COHERENCE: (&str, &str) = ("coherence", "the collective quality of all sentences");

/// Of a constant text.
fn template(text: &str) -> Template {
    Template::new(text).expect("a template without mistakes")
}

/// The settings of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub evaluate: Method,
    /// The Hugging Face folder of the model.
    pub model: PathBuf,
    /// A PEFT adapter on it.
    pub adapter_dir: Option<PathBuf>,
    /// A `.jsonl` or `.jsonl.gz` file.
    pub data: PathBuf,
    /// The folder for the results; null: `target/train/<method>_<model>`.
    pub out: Option<PathBuf>,
    /// The type of the weights in memory.
    pub dtype: Storage,
    /// Whether prompts go through the chat template; null: if the folder has one. False: they are plain text.
    pub chat: Option<bool>,
    /// The local time that chat templates see, as 2026-01-31T12:00:00; null: that of the start.
    pub now: Option<String>,
    /// Fields of rows to ignore, by name and at any depth. Other unknown fields are errors.
    pub ignored_fields: Vec<String>,
    /// The most tokens that go through the model at a time. A row with more goes alone.
    pub max_tokens: usize,
    /// The quality that `gpt_score` and `g_eval` ask about. It is also the key in a row's `scores`.
    pub aspect: String,
    /// What the quality is, for the slot `{definition}`; null: known for `coherence` alone.
    pub definition: Option<String>,
    pub multiple_choice: MultipleChoice,
    pub gpt_score: GptScore,
    pub g_eval: GEval,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            evaluate: Method::default(),
            model: PathBuf::new(),
            adapter_dir: None,
            data: PathBuf::new(),
            out: None,
            dtype: Storage::default(),
            chat: None,
            now: None,
            ignored_fields: Vec::new(),
            max_tokens: 2048,
            aspect: COHERENCE.0.to_string(),
            definition: None,
            multiple_choice: MultipleChoice::default(),
            gpt_score: GptScore::default(),
            g_eval: GEval::default(),
        }
    }
}

impl Settings {
    /// From a JSON file. Missing settings keep their defaults; unknown ones are errors.
    pub fn read(path: &Path) -> Result<Self> {
        let text = input::json(path)?;
        serde_json::from_str(&text).map_err(|error| Error::json(path, &text, &error))
    }

    /// Changes one setting: `chat=false`, `g_eval.scores=[1,2,3]`. The value is JSON, or else plain text.
    pub fn with(self, assignment: &str) -> Result<Self> {
        assign(self, assignment)
    }

    /// The folder for the results.
    pub fn out(&self) -> PathBuf {
        let model = self.model.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{}_{model}", self.evaluate);
        let default = || PathBuf::from("target/train").join(name);
        self.out.clone().unwrap_or_else(default)
    }

    /// What the quality is; none if nobody said it.
    pub fn definition(&self) -> Option<&str> {
        let known = (self.aspect == COHERENCE.0).then_some(COHERENCE.1);
        self.definition.as_deref().or(known)
    }

    /// Checks the settings that nothing else checks.
    pub fn check(&self) -> Result<()> {
        let usage = |text: String| Err(Error::Usage(text));
        for (name, path) in [("model", &self.model), ("data", &self.data)] {
            if path.as_os_str().is_empty() {
                return usage(format!("`{name}` is missing: say --{name}"));
            }
        }
        if self.max_tokens == 0 {
            return usage("`max_tokens` must be at least 1, got 0".to_string());
        }
        let scores = &self.g_eval.scores;
        if scores.len() < 2 || !scores.windows(2).all(|pair| pair[0] < pair[1]) {
            return usage(format!(
                "`g_eval.scores` must be at least two scores, upward, got {scores:?}"
            ));
        }
        if let Some(prompt) = &self.multiple_choice.prompt {
            check_slots("multiple_choice", prompt, &["question"], &[])?;
        }
        let required = ["aspect", "input", "output"];
        check_slots(
            "gpt_score",
            &self.gpt_score.prompt,
            &required[..2],
            &["definition"],
        )?;
        let others = ["definition", "lowest", "highest"];
        check_slots("g_eval", &self.g_eval.prompt, &required, &others)?;
        self.check_definition()
    }

    /// An error for a form that asks about a quality and does not say what it is, or for words that it does not show.
    fn check_definition(&self) -> Result<()> {
        let form = match self.evaluate {
            Method::MultipleChoice => return Ok(()),
            Method::GptScore => &self.gpt_score.prompt,
            Method::GEval => &self.g_eval.prompt,
        };
        let (asks, method) = (form.slots().contains(&"definition"), self.evaluate);
        match (asks, self.definition(), &self.definition) {
            (true, None, _) => Err(Error::Usage(format!(
                "`definition` is missing: what is `{}`? Say it with --set definition=…, or leave the slot \
                 `{{definition}}` out of `{method}.prompt`",
                self.aspect
            ))),
            (false, _, Some(_)) => Err(Error::Usage(format!(
                "`definition` is not read: `{method}.prompt` has no slot `{{definition}}`"
            ))),
            _ => Ok(()),
        }
    }
}

/// An error for a prompt without a slot that it must have, or with one that nothing fills.
fn check_slots(of: &str, prompt: &Template, required: &[&str], others: &[&str]) -> Result<()> {
    let own = prompt.slots();
    let known = [required, others].concat();
    let missing = required.iter().find(|slot| !own.contains(slot));
    let unknown = own.iter().find(|slot| !known.contains(slot));
    match (missing, unknown) {
        (Some(slot), _) => Err(Error::Usage(format!(
            "`{of}.prompt` has no slot `{{{slot}}}`, so the model would not see it"
        ))),
        (None, Some(slot)) => {
            let known = known.join("}`, `{");
            let problem = format!("`{of}.prompt` has a slot `{{{slot}}}`; there are `{{{known}}}`");
            Err(Error::Usage(problem))
        }
        (None, None) => Ok(()),
    }
}
