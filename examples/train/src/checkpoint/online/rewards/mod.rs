//! Where the reward of an answer comes from.
//!
//! | name | reward | file |
//! |---|---|---|
//! | `final_answer` | 1 if the number or text after the last `####` is that of the reference, else 0 | [`rules`] |
//! | `regex` | 1 if a regular expression matches, else 0 | [`rules`] |
//! | `contains` | 1 if a text occurs, else 0 | [`rules`] |
//! | `overlong` | 0, and down to −1 over the last tokens before a limit | [`rules`] |
//! | `length` | 1 at a number of tokens or words, less in proportion to the distance | [`rules`] |
//! | `command` | what a program answers | [`command`] |
//! | `reward_model` | the score of a reward model | [`model`] |

pub mod command;
pub mod model;
pub mod rules;

use super::super::super::error::{Error, Result};
use super::super::rows::asked::REFERENCES;
use super::prompts::Prompt;
use super::rollout::Answer;
use candle_align::online::shaping::OverlongConfig;
use command::Command;
use model::{RewardModel, Scorer};
use rules::{Contains, Length, Rule, Unit};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A source of rewards, as a setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reward {
    FinalAnswer,
    Regex(rules::Regex),
    Contains(Contains),
    Length(Length),
    Overlong(OverlongConfig),
    Command(Command),
    RewardModel(RewardModel),
}

impl Reward {
    pub const NAMES: &str =
        "`final_answer`, `regex`, `contains`, `length`, `overlong`, `command`, `reward_model`";

    /// From a command line: a name alone, a name and its first setting as `regex=\.$`, or JSON.
    pub fn parse(text: &str) -> Result<Self> {
        let of = |value: Value| {
            serde_json::from_value(value)
                .map_err(|error| Error::Usage(format!("--reward {text}: {error}")))
        };
        if let Ok(value @ Value::Object(_)) = serde_json::from_str(text) {
            return of(value);
        }
        let Some((name, value)) = text.split_once('=') else {
            return of(Value::String(text.to_string()));
        };
        let value = value.to_string();
        Ok(match name {
            "regex" => Self::Regex(rules::Regex { pattern: value }),
            "contains" => Self::Contains(Contains { text: value }),
            "length" => {
                let target = value.parse().map_err(|_| {
                    Error::Usage(format!(
                        "--reward {text}: the target must be a number of tokens"
                    ))
                })?;
                Self::Length(Length {
                    target,
                    unit: Unit::Tokens,
                })
            }
            "command" => {
                let mut words = value.split_whitespace().map(str::to_string);
                Self::Command(Command {
                    program: words.next().unwrap_or_default(),
                    arguments: words.collect(),
                    ..Command::default()
                })
            }
            "reward_model" => Self::RewardModel(RewardModel {
                folder: PathBuf::from(value),
            }),
            _ => {
                return Err(Error::Usage(format!(
                    "--reward {text}: there is no such reward with a setting; rewards are {}",
                    Self::NAMES
                )));
            }
        })
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::FinalAnswer => "final_answer",
            Self::Regex(_) => "regex",
            Self::Contains(_) => "contains",
            Self::Length(_) => "length",
            Self::Overlong(_) => "overlong",
            Self::Command(_) => "command",
            Self::RewardModel(_) => "reward_model",
        }
    }

    /// An error for settings that mean nothing.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Command(command) => command.check(),
            Self::RewardModel(_) => Ok(()),
            rule => Rule::new(rule).map(|_| ()),
        }
    }
}

/// The rewards of a run, ready to score.
pub struct Rewards {
    names: Vec<String>,
    sources: Vec<Source>,
    weights: Vec<f64>,
}

enum Source {
    Rule(Rule),
    Command(Command),
    Model(Box<Scorer>),
}

/// The rewards of one answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scored {
    /// From each source; none where it gave none.
    pub each: Vec<Option<f64>>,
    /// Their weighted sum; none if no source gave one.
    pub sum: Option<f64>,
}

impl Rewards {
    /// `open` reads a reward model.
    pub fn new(
        rewards: &[Reward],
        weights: Vec<f64>,
        open: impl Fn(&RewardModel) -> Result<Scorer>,
    ) -> Result<Self> {
        let mut names: Vec<String> = Vec::new();
        let mut sources = Vec::new();
        for reward in rewards {
            let base = |name: &&String| name.split('#').next() == Some(reward.name());
            let same = names.iter().filter(base);
            let name = match same.count() {
                0 => reward.name().to_string(),
                before => format!("{}#{}", reward.name(), before + 1),
            };
            names.push(name);
            sources.push(match reward {
                Reward::Command(command) => Source::Command(command.clone()),
                Reward::RewardModel(model) => Source::Model(Box::new(open(model)?)),
                rule => Source::Rule(Rule::new(rule)?),
            });
        }
        Ok(Self {
            names,
            sources,
            weights,
        })
    }

    /// The name of each source; the second of a kind is `regex#2`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// An error if a rule needs a reference that a prompt of the file lacks, or a reward model cannot read a prompt with
    /// an answer of so many tokens.
    pub fn check(&self, file: &Path, prompts: &[Prompt], answer: usize) -> Result<()> {
        for source in &self.sources {
            if let Source::Model(model) = source {
                model.check(file, prompts, answer)?;
            }
        }
        let needs =
            |source: &Source| matches!(source, Source::Rule(rule) if rule.needs_reference());
        let lacks = prompts.iter().find(|prompt| prompt.reference.is_none());
        match (self.sources.iter().position(needs), lacks) {
            (Some(source), Some(prompt)) => Err(Error::Row {
                file: file.display().to_string(),
                line: prompt.line,
                problem: format!(
                    "has no right answer, which the reward `{}` compares with: add one of the fields `{}` to each row",
                    self.names[source],
                    REFERENCES.join("`, `")
                ),
            }),
            _ => Ok(()),
        }
    }

    /// The rewards of some answers.
    pub fn score(&self, prompts: &[Prompt], answers: &[Answer]) -> Result<Vec<Scored>> {
        let mut all = vec![Scored::default(); answers.len()];
        if answers.is_empty() {
            return Ok(all);
        }
        for (name, source) in self.names.iter().zip(&self.sources) {
            let found: Vec<Option<f64>> = match source {
                Source::Rule(rule) => {
                    let of =
                        |answer: &Answer| rule.score(&prompts[answer.prompt], answer).map(Some);
                    answers.iter().map(of).collect::<Result<_>>()?
                }
                Source::Command(command) => command.score(prompts, answers)?,
                Source::Model(model) => {
                    let scores = model.score(prompts, answers)?;
                    scores.into_iter().map(Some).collect()
                }
            };
            for (scored, reward) in all.iter_mut().zip(found) {
                if reward.is_some_and(|reward| !reward.is_finite()) {
                    let problem = format!("the reward `{name}` of an answer is not finite");
                    return Err(Error::Usage(problem));
                }
                scored.each.push(reward);
            }
        }
        for scored in &mut all {
            let given = scored.each.iter().zip(&self.weights);
            let given = given.filter_map(|(reward, weight)| Some(reward.as_ref()? * weight));
            let given: Vec<f64> = given.collect();
            scored.sum = (!given.is_empty()).then(|| given.iter().sum());
        }
        Ok(all)
    }
}
