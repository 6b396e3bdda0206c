//! Answers that a file gives, in place of drawn ones.

use super::super::super::error::{Error, Result};
use super::super::log::read;
use super::super::objective::Text;
use super::super::objective::text::log_probs;
use super::super::settings::Settings;
use super::prompts::Prompt;
use super::rollout::{Answer, Sampler, of_tokens};
use candle_align::decoder::{Decoder, Mode};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// Answers that a file gives, by line.
pub struct Given(Vec<Vec<Drawn>>);

/// The ids of an answer, and what the program that drew it gave them.
type Drawn = (Vec<u32>, Option<Vec<f64>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    completions: Vec<Value>,
    /// By the program that drew them; null for a token that it did not score.
    log_probs: Option<Vec<Vec<Option<f64>>>>,
}

impl Given {
    /// Reads all lines, of which a run takes `asked`: one for each prompt of each step.
    pub fn open(
        path: &Path,
        settings: &Settings,
        sampler: &Sampler,
        decoder: &Decoder,
        asked: usize,
    ) -> Result<Self> {
        let read = read::<Line>(path)?;
        if read.len() < asked {
            let problem = format!(
                "has {} lines, and the run asks {asked} prompts: a line for each prompt of each step is needed",
                read.len()
            );
            return Err(Error::file(path, problem));
        }
        let generations = settings.online.generations(settings.objective);
        let mut lines = Vec::with_capacity(read.len());
        for (at, (_, line)) in read.into_iter().enumerate() {
            let failed = |problem: String| Error::Row {
                file: path.display().to_string(),
                line: at + 1,
                problem,
            };
            if line.completions.len() != generations {
                return Err(failed(format!(
                    "has {} `completions`, and `online.num_generations` is {generations}",
                    line.completions.len()
                )));
            }
            if line.log_probs.is_none() && settings.online.importance_sampling_mode.is_some() {
                let problem = "has no `log_probs` beside its `completions`, which `online.importance_sampling_mode` needs";
                return Err(failed(problem.to_string()));
            }
            if let Some(rows) = line.log_probs.as_ref().filter(|r| r.len() != generations) {
                return Err(failed(format!(
                    "has {} lists of `log_probs` of {generations} `completions`",
                    rows.len()
                )));
            }
            let mut numbers = line.log_probs.into_iter().flatten();
            let mut answers = Vec::with_capacity(generations);
            for completion in &line.completions {
                let found = ids(completion, sampler)?.ok_or_else(|| {
                    let problem = "has `completions` that are neither texts nor lists of ids";
                    failed(problem.to_string())
                })?;
                fits(&found, sampler, decoder).map_err(failed)?;
                let numbers = match numbers.next() {
                    None => None,
                    Some(of) => Some(known(of, found.len()).map_err(failed)?),
                };
                answers.push((found, numbers));
            }
            lines.push(answers);
        }
        Ok(Self(lines))
    }

    /// The answers to some prompts, of which `before` were asked earlier.
    pub fn take(
        &self,
        decoder: &Decoder,
        sampler: &Sampler,
        prompts: &[Prompt],
        asked: &[usize],
        before: usize,
    ) -> Result<Vec<Answer>> {
        let mut all = Vec::new();
        for (prompt, line) in asked.iter().zip(self.0.iter().skip(before)) {
            for (ids, log_probs) in line {
                let numbers = log_probs.clone().unwrap_or_default();
                let mut answer = sampler.answer(*prompt, ids.clone(), numbers)?;
                let numbers = std::mem::take(&mut answer.old);
                answer.sampler = log_probs.as_ref().map(|_| numbers);
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

/// A text, which has an end, or ids, which may have none.
fn ids(completion: &Value, sampler: &Sampler) -> Result<Option<Vec<u32>>> {
    match completion {
        Value::String(text) => {
            let mut ids = sampler.folder.tokenizer.encode_rendered(text)?.ids;
            ids.push(sampler.voice.ending.end);
            Ok(Some(ids))
        }
        Value::Array(ids) => {
            let id = |id: &Value| u32::try_from(id.as_u64()?).ok();
            Ok(ids.iter().map(id).collect())
        }
        _ => Ok(None),
    }
}

/// What another program gave the tokens of an answer; NaN for a token that it did not score.
fn known(numbers: Vec<Option<f64>>, tokens: usize) -> Result<Vec<f64>, String> {
    if numbers.len() != tokens {
        return Err(format!(
            "has {} `log_probs` of a completion of {tokens} tokens, its end counted",
            numbers.len()
        ));
    }
    if numbers.iter().flatten().any(|x| *x > 0.0) {
        return Err("has `log_probs` above 0".to_string());
    }
    Ok(numbers.into_iter().map(|x| x.unwrap_or(f64::NAN)).collect())
}

/// An error for an answer that the model cannot have drawn.
fn fits(ids: &[u32], sampler: &Sampler, decoder: &Decoder) -> Result<(), String> {
    let most = sampler.config.max_new_tokens;
    if ids.is_empty() || ids.len() > most {
        return Err(format!(
            "has a completion of {} tokens, which must be from 1 to `online.max_completion_length`, {most}",
            ids.len()
        ));
    }
    let vocabulary = decoder.config().vocab_size;
    if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
        return Err(format!("has the token {id}, which the model lacks"));
    }
    let end = ids.iter().position(|id| sampler.voice.ends.contains(id));
    match end.map_or(0, |end| ids.len() - end - 1) {
        0 => Ok(()),
        behind => Err(format!(
            "has a completion with {behind} tokens behind its end, which the loss would not cover"
        )),
    }
}
