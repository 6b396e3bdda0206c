//! Rewards from a reward model: a checkpoint with a head that gives one score, or an adapter with such a head on the
//! model that is trained.

use super::super::super::super::error::{Error, Result};
use super::super::super::context::Context;
use super::super::super::load::pads;
use super::super::super::order::parts;
use super::super::super::sound::{self, SCORE};
use super::super::prompts::{Prompt, Voice};
use super::super::rollout::Answer;
use crate::files;
use candle_align::decoder::{Decoder, LanguageModel, Load, Mode};
use candle_align::ops::Segments;
use candle_align::peft::{PeftConfig, Strictness, TaskType};
use candle_core::DType;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Settings of `reward_model`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardModel {
    pub folder: PathBuf,
}

/// The file that makes a folder one of an adapter.
const ADAPTER: &str = "adapter_config.json";
const NAME: &str = "reward";

/// A reward model, ready to score.
pub struct Scorer {
    model: Decoder,
    voice: Voice,
    /// The most tokens that go through it at a time.
    most: usize,
}

/// The most tokens at a time where the settings have no limit.
const TOKENS: usize = 2048;

impl RewardModel {
    /// Reads it. `base` is the folder of the trained model.
    pub fn open(
        &self,
        base: &Path,
        load: &Load,
        voice: &Voice,
        max_tokens: Option<usize>,
    ) -> Result<Scorer> {
        let load = Load {
            trained: false,
            ..load.clone()
        };
        let folder = &self.folder;
        let adapted = folder.join(ADAPTER).exists();
        let mut model = match adapted {
            true => {
                let (config, _) = PeftConfig::read(folder.join(ADAPTER), Strictness::Strict)?;
                if config.task != Some(TaskType::SequenceClassification) {
                    let problem =
                        "has no reward head: train it with --objective reward, task_type SEQ_CLS";
                    return Err(Error::file(folder, problem));
                }
                let model = sound::load(base, &load)?;
                // the adapter's own head takes its place
                let mut model = model.into_classifier(1, &mut StdRng::seed_from_u64(0))?;
                let loaded = model.load_adapter(NAME, folder, Strictness::Strict);
                loaded.map_err(|error| {
                    let named = match &config.base_model {
                        Some(name) => format!(", and it names `{name}`"),
                        None => String::new(),
                    };
                    let problem = format!(
                        "an adapter that scores answers is put on the trained model, {}{named}: {error}",
                        base.display()
                    );
                    Error::file(folder, problem)
                })?;
                model
            }
            false => {
                let model = sound::load(folder, &load)?;
                if !model.state_dict().contains_key(SCORE) {
                    let problem = "has no reward head: train it with --objective reward";
                    return Err(Error::file(folder, problem));
                }
                same_words(base, folder)?;
                model
            }
        };
        if let Some(labels) = model.config().num_labels.filter(|labels| *labels != 1) {
            let problem = format!("gives a text {labels} scores, and a reward model gives one");
            return Err(Error::file(folder, problem));
        }
        pads(&mut model, if adapted { base } else { folder })?;
        Ok(Scorer {
            model: model.without_gradients(),
            voice: voice.clone(),
            most: max_tokens.unwrap_or(TOKENS),
        })
    }
}

/// An error unless both folders have the same tokenizer: the ids of an answer are what is scored.
fn same_words(base: &Path, folder: &Path) -> Result<()> {
    let file = "tokenizer.json";
    let [a, b] = [base, folder].map(|folder| files::read(&folder.join(file)).ok());
    match a == b {
        true => Ok(()),
        false => {
            let problem = format!(
                "is not {}, byte for byte: a reward model must read the trained model's tokens. If only settings such as \
                 `padding` and `truncation` differ, which other programs write into it, put the trained model's file \
                 in its place",
                base.join(file).display()
            );
            Err(Error::file(&folder.join(file), problem))
        }
    }
}

impl Scorer {
    /// An error for a prompt whose answers may be longer than it can read: with the end that every answer is given, and
    /// what the template writes after it.
    pub fn check(&self, file: &Path, prompts: &[Prompt], answer: usize) -> Result<()> {
        let (context, more) = (Context::of(&self.model), 1 + self.voice.ending.tail.len());
        let whole = |prompt: &Prompt| prompt.ids.len().saturating_add(answer).saturating_add(more);
        match prompts.iter().find(|one| whole(one) > context.most()) {
            None => Ok(()),
            Some(prompt) => Err(Error::Row {
                file: file.display().to_string(),
                line: prompt.line,
                problem: format!(
                    "has a prompt of {} tokens; with `online.max_completion_length` {answer} and {more} at the end it has \
                     no room in the reward model, which was made for {context}: lower one of \
                     `online.max_completion_length` and `max_length`",
                    prompt.ids.len()
                ),
            }),
        }
    }

    /// The scores of some answers: of the whole text, ended as the chat template ends it.
    pub fn score(&self, prompts: &[Prompt], answers: &[Answer]) -> Result<Vec<f64>> {
        let texts: Vec<Vec<u32>> = answers
            .iter()
            .map(|answer| self.voice.whole(&prompts[answer.prompt], answer))
            .collect();
        let all: Vec<usize> = (0..texts.len()).collect();
        let mut scores = Vec::with_capacity(texts.len());
        for part in parts(&all, Some(self.most), |row| texts[row].len()) {
            let rows: Vec<&[u32]> = part.iter().map(|row| texts[*row].as_slice()).collect();
            if rows.is_empty() {
                continue;
            }
            let (segments, tokens) = Segments::from_tokens(&rows)?;
            let hidden = self.model.forward(&tokens, &segments, Mode::Evaluation)?;
            let of = self.model.scores(&hidden, &tokens, &segments)?.squeeze(1)?;
            scores.extend(of.to_dtype(DType::F64)?.to_vec1::<f64>()?);
        }
        Ok(scores)
    }
}
