//! The language-based objectives: rows with words around the answers.
//!
//! *Lessons* are the training rows of an item: the loss is a cross-entropy that covers some tokens of
//! each row. *Probes* are the evaluation rows: they ask the trained model about an unseen answer, with
//! one row or two per answer, and compute a score from their log-probabilities.
//!
//! If a row is longer than `max_len`, the beginning of its prompt is cut. If everything but the prompt
//! takes more than three quarters of the limit, the row is left out and counted.

use super::super::batch::{Batch, Example, encode};
use super::super::data::{Answer, Item};
use super::super::error::Result;
use super::super::model::Model;
use super::super::settings::Settings;
use super::lessons::{Feedback, Lesson, Plan, Words};
use super::rows::{asked, begun, debugged, edited, fitted, hindsight, revised, under_class};
use super::words::edit_tokens;
use super::{Objective, Task, after_first};
use candle_align::language::second_thoughts::second_thoughts_prompt;
use candle_align::{
    HindsightConfig, Sequence, TokenLogProbs, c_rlft_loss, chain_of_hindsight_loss, sft_loss,
};
use candle_core::{DType, Tensor};
use rand::rngs::StdRng;

/// The settings of what is written.
pub fn plan<'a>(task: &Task<'a>) -> Plan<'a> {
    let settings = task.settings;
    Plan {
        objective: task.objective,
        shape: task.shape,
        most: settings.most(),
        hindsight: Feedback {
            words: &settings.chain_of_hindsight.feedback,
            orders: &settings.chain_of_hindsight.orders,
            learned: settings.chain_of_hindsight.learned,
        },
        class_rewards: [settings.c_rlft.good_reward, settings.c_rlft.bad_reward],
        costs: &settings.second_thoughts,
        debug: &settings.self_debug,
    }
}

/// The lessons of an item; `None` is a row that is too long.
pub fn lessons(task: &Task, item: &Item, rng: &mut StdRng) -> Result<Vec<Option<Example>>> {
    let lessons = plan(task).lessons(item, &|text| Ok(encode(text)?), rng)?;
    let write = |lesson: Lesson| -> Result<Option<Example>> {
        let (settings, prompt) = (task.settings, before(task, item));
        let rows = fitted(prompt, settings.max_len, |prompt| {
            Ok(vec![written(settings, prompt, &lesson.words)?])
        })?;
        Ok(rows.map(|rows| Example {
            prompt: item.prompt.clone(),
            answers: vec![lesson.answer.clone()],
            rows,
        }))
    };
    let first = lessons.first.into_iter().map(write);
    let mut found = first.collect::<Result<Vec<_>>>()?;
    if found.iter().any(Option::is_some) {
        let beside = lessons.beside.into_iter().map(write);
        found.extend(beside.collect::<Result<Vec<_>>>()?);
    }
    Ok(found)
}

/// The prompt, without `Assistant:` where other words replace it.
fn before<'a>(task: &Task, item: &'a Item) -> &'a str {
    match task.objective {
        Objective::ChainOfHindsight | Objective::SecondThoughts | Objective::Selfee => &item.prompt,
        _ => asked(item),
    }
}

/// The probes of an item; `None` is a row that is too long.
pub fn probes(task: &Task, item: &Item) -> Result<Vec<Option<Example>>> {
    let (settings, plan) = (task.settings, plan(task));
    let one = |answers: Vec<Answer>| {
        // all rows get the same part of the prompt, so that they can be compared
        let rows = fitted(before(task, item), settings.max_len, |prompt| {
            let all = answers
                .iter()
                .flat_map(|one| plan.probe(&one.text, &answers));
            all.map(|words| written(settings, prompt, &words)).collect()
        })?;
        Ok(rows.map(|rows| Example {
            prompt: item.prompt.clone(),
            answers,
            rows,
        }))
    };
    plan.asked(item).into_iter().map(one).collect()
}

/// One row in bytes.
fn written(settings: &Settings, prompt: &str, words: &Words) -> Result<Sequence> {
    match words {
        Words::Class { good, answer } => {
            let class = match good {
                true => &settings.classes.good,
                false => &settings.classes.bad,
            };
            under_class(class, prompt, answer)
        }
        Words::Hindsight { good, bad, format } => hindsight(prompt, good, bad, format),
        Words::Edited { source, script } => edited(prompt, source, script),
        Words::Unedited { source } => {
            let tokens = edit_tokens();
            let opened = second_thoughts_prompt(&encode(prompt)?, &encode(source)?, &tokens)?;
            Ok(begun().given(&opened).learned(&[tokens.target]))
        }
        Words::Revised(chain) => revised(settings, prompt, chain),
        Words::Debugged {
            first,
            second,
            format,
        } => debugged(prompt, first, second, format),
    }
}

/// The results of the probes.
pub struct Opinion {
    /// The score of each answer `[size, k]`.
    pub scores: Tensor,
    /// The log-probability of each best answer `[size]` after good words and after bad ones, if the
    /// words are about the answer.
    pub best: Option<[Tensor; 2]>,
}

/// Evaluates a batch of probes.
pub fn opinion(task: &Task, model: &Model, batch: &Batch) -> Result<Opinion> {
    let log_probs = model.log_probs(batch, task.settings)?;
    if batch.width == 1 {
        // of one token, or of answers of different lengths
        let scores = log_probs.mean()?.reshape((batch.size, batch.k))?;
        return Ok(Opinion { scores, best: None });
    }
    let sums = log_probs.sum()?.reshape((batch.size, batch.k, 2))?;
    let under = |j: usize| sums.narrow(2, j, 1)?.squeeze(2);
    let (good, bad) = (under(0)?, under(1)?);
    let first = |sums: &Tensor| sums.narrow(1, 0, 1)?.squeeze(1);
    let best = match task.objective {
        Objective::Selfee => None,
        _ => Some([first(&good)?, first(&bad)?]),
    };
    Ok(Opinion {
        scores: (good - bad)?,
        best,
    })
}

/// The loss of each learned token `[rows, time]`.
pub fn loss(task: &Task, batch: &Batch, log_probs: &TokenLogProbs) -> Result<Tensor> {
    let settings = task.settings;
    Ok(match task.objective {
        Objective::CRlft => {
            let rewards = batch.rewards.squeeze(1)?;
            let out = c_rlft_loss(log_probs, &rewards, &settings.c_rlft.loss)?;
            out.tokens.loss
        }
        Objective::ChainOfHindsight => {
            // the data files hold no pretraining text
            let answers_alone = HindsightConfig::default();
            let out = chain_of_hindsight_loss(log_probs, None, &answers_alone)?;
            out.hindsight.loss
        }
        _ => sft_loss(log_probs, None, &settings.sft)?.loss,
    })
}

/// Σ w over the learned tokens: what C-RLFT divides by. The weights do not depend on the model.
pub fn counted_weights(settings: &Settings, batch: &Batch) -> Result<f64> {
    let mask = after_first(&batch.learned)?.contiguous()?;
    let nothing = TokenLogProbs::new(&mask.to_dtype(DType::F32)?.zeros_like()?, &mask)?;
    let rewards = batch.rewards.squeeze(1)?;
    let out = c_rlft_loss(&nothing, &rewards, &settings.c_rlft.loss)?;
    Ok(out.token_weight()?)
}
