//! Answers that a file gives, in place of drawn ones.

use super::super::super::error::{Error, Result};
use super::super::log::read;
use super::super::objective::Text;
use super::super::objective::text::log_probs;
use super::prompts::Prompt;
use super::rollout::{Answer, Sampler, of_tokens};
use candle_align::decoder::{Decoder, Mode};
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;

/// Answers that a file gives.
pub struct Given {
    path: PathBuf,
    lines: Vec<Vec<Drawn>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    completions: Vec<Value>,
    /// By the program that drew them; null for a token that it did not score.
    log_probs: Option<Vec<Vec<Option<f64>>>>,
}

/// A completion, and what the program that drew it gave its tokens.
type Drawn = (Completion, Option<Vec<f64>>);

/// A text, which has an end, or ids, which may have none.
enum Completion {
    Text(String),
    Ids(Vec<u32>),
}

impl Completion {
    fn of(value: Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text)),
            Value::Array(ids) => {
                let id = |id: &Value| u32::try_from(id.as_u64()?).ok();
                Some(Self::Ids(ids.iter().map(id).collect::<Option<_>>()?))
            }
            _ => None,
        }
    }
}

impl Given {
    pub fn open(path: PathBuf) -> Result<Self> {
        let mut lines = Vec::new();
        for (at, (_, line)) in read::<Line>(&path)?.into_iter().enumerate() {
            let of: Option<Vec<Completion>> =
                line.completions.into_iter().map(Completion::of).collect();
            let failed = |problem: &str| Error::Row {
                file: path.display().to_string(),
                line: at + 1,
                problem: problem.to_string(),
            };
            let of = of.ok_or_else(|| {
                failed("has `completions` that are neither texts nor lists of ids")
            })?;
            let numbers = match line.log_probs {
                None => vec![None; of.len()],
                Some(rows) if rows.len() == of.len() => {
                    let unknown = |x: Option<f64>| x.unwrap_or(f64::NAN);
                    let row = |row: Vec<Option<f64>>| row.into_iter().map(unknown).collect();
                    rows.into_iter()
                        .map(|one| Some(row(one)))
                        .collect::<Vec<Option<Vec<f64>>>>()
                }
                Some(_) => {
                    return Err(failed(
                        "has `log_probs` of more or fewer answers than `completions`",
                    ));
                }
            };
            if numbers.iter().flatten().flatten().any(|x| *x > 0.0) {
                return Err(failed("has `log_probs` above 0"));
            }
            lines.push(of.into_iter().zip(numbers).collect());
        }
        Ok(Self { path, lines })
    }

    /// The answers to some prompts, of which `before` were asked earlier.
    pub fn take(
        &self,
        decoder: &Decoder,
        sampler: &Sampler,
        prompts: &[Prompt],
        asked: &[usize],
        before: usize,
        answers: usize,
    ) -> Result<Vec<Answer>> {
        let mut all = Vec::new();
        for (at, prompt) in asked.iter().enumerate() {
            let at = before + at;
            let failed = |problem: String| Error::Row {
                file: self.path.display().to_string(),
                line: at + 1,
                problem,
            };
            let line = self.lines.get(at).ok_or_else(|| {
                failed("is missing: a line for each prompt of each step is needed".to_string())
            })?;
            if line.len() != answers {
                return Err(failed(format!(
                    "has {} `completions`, and `online.num_generations` is {answers}",
                    line.len()
                )));
            }
            for (completion, log_probs) in line {
                let ids = match completion {
                    Completion::Ids(ids) => ids.clone(),
                    Completion::Text(text) => {
                        let mut ids = sampler.folder.tokenizer.encode_rendered(text)?.ids;
                        ids.push(sampler.voice.ending.end);
                        ids
                    }
                };
                let beyond = ids
                    .iter()
                    .find(|id| **id as usize >= decoder.config().vocab_size);
                if ids.is_empty() || ids.len() > sampler.config.max_new_tokens {
                    return Err(failed(format!(
                        "has a completion of {} tokens, which must be from 1 to `online.max_completion_length`, {}",
                        ids.len(),
                        sampler.config.max_new_tokens
                    )));
                }
                if let Some(id) = beyond {
                    return Err(failed(format!("has the token {id}, which the model lacks")));
                }
                let Some(log_probs) = log_probs else {
                    all.push(sampler.answer(*prompt, ids, Vec::new())?);
                    continue;
                };
                if log_probs.len() != ids.len() {
                    return Err(failed(format!(
                        "has {} `log_probs` of a completion of {} tokens, its end counted",
                        log_probs.len(),
                        ids.len()
                    )));
                }
                let mut answer = sampler.answer(*prompt, ids, log_probs.clone())?;
                answer.sampler = Some(std::mem::take(&mut answer.old));
                all.push(answer);
            }
        }
        let quiet = decoder.without_gradients();
        let compute = |texts: &[&Text]| {
            let of = log_probs(&quiet, texts, Mode::Evaluation)?;
            Ok(of.values().clone())
        };
        let old = of_tokens(&compute, prompts, &all, sampler.max_tokens)?;
        for (answer, old) in all.iter_mut().zip(old) {
            answer.old = old;
        }
        Ok(all)
    }
}
