//! The language-based objectives: rows with words around the answers.
//!
//! *Lessons* are the training rows of an item: the loss is a cross-entropy that covers some tokens of
//! each row. *Probes* are the evaluation rows: they ask the trained model about an unseen answer, with
//! one row or two per answer, and compute a score from their log-probabilities.
//!
//! If a row is longer than `max_len`, the beginning of its prompt is cut. If everything but the prompt
//! takes more than three quarters of the limit, the row is left out and counted.

use super::super::batch::{Batch, Example, encode};
use super::super::comparisons::Shape::Pairs;
use super::super::comparisons::{compared, pair_count};
use super::super::data::{Answer, Item};
use super::super::error::Result;
use super::super::model::Model;
use super::super::settings::Settings;
use super::rows::{
    asked, begun, debugged, edited, fitted, hindsight, revise, revised, stands, under_class,
};
use super::words::edit_tokens;
use super::{Objective, Task, after_first};
use candle_align::language::LearnedAnswers;
use candle_align::language::chain_of_hindsight::{HindsightFormat, HindsightOrder};
use candle_align::language::edits::{EditScript, edit_script};
use candle_align::language::revision::{DebugFormat, DebugLearned};
use candle_align::language::second_thoughts::second_thoughts_prompt;
use candle_align::{
    HindsightConfig, Sequence, TokenLogProbs, c_rlft_loss, chain_of_hindsight_loss, sft_loss,
};
use candle_core::{DType, Tensor};
use rand::Rng;
use rand::rngs::StdRng;

/// The lessons of an item; `None` is a row that is too long.
pub fn lessons(task: &Task, item: &Item, rng: &mut StdRng) -> Result<Vec<Option<Example>>> {
    let settings = task.settings;
    let most = settings.most();
    let (good, bad): (Vec<_>, Vec<_>) = item.answers.iter().partition(|a| item.is_good(a));
    let mut texts = Texts {
        item,
        max_len: settings.max_len,
        found: Vec::new(),
    };
    match task.objective {
        Objective::ConditionalSft | Objective::CRlft => {
            let classes = [
                (&good, &settings.classes.good, settings.c_rlft.good_reward),
                (&bad, &settings.classes.bad, settings.c_rlft.bad_reward),
            ];
            for (answers, class, reward) in classes {
                for answer in answers {
                    // its weight depends on the reward of its class, not of the answer
                    let of_class = Answer::new(&answer.text, reward);
                    texts.add(&of_class, asked(item), |prompt| {
                        under_class(class, prompt, &answer.text)
                    })?;
                }
            }
        }
        Objective::ChainOfHindsight => {
            let config = &settings.chain_of_hindsight;
            for pair in compared(item, Pairs, most) {
                for &order in &config.orders {
                    let drawn = rng.random_range(0..config.feedback.len());
                    let format = HindsightFormat {
                        feedback: config.feedback[drawn].clone(),
                        order,
                        learned: config.learned,
                    };
                    texts.add(&pair[0], &item.prompt, |prompt| {
                        hindsight(prompt, &pair[0].text, &pair[1].text, &format)
                    })?;
                }
            }
        }
        Objective::SecondThoughts => {
            for worse in &bad {
                let (better, script) = nearest(settings, worse, &good)?;
                texts.add(better, &item.prompt, |prompt| {
                    edited(prompt, &worse.text, &script)
                })?;
            }
            let nothing = EditScript { edits: Vec::new() };
            texts.add_to_repairs(&good, |prompt, best| edited(prompt, best, &nothing))?;
        }
        Objective::Selfee => {
            for (best, worse) in most.pairs_of(item, &good, &bad) {
                let chain = [revise(&worse.text), stands(&best.text)];
                texts.add(best, &item.prompt, |prompt| {
                    revised(settings, prompt, &chain)
                })?;
            }
            texts.add_to_repairs(&good, |prompt, best| {
                revised(settings, prompt, &[stands(best)])
            })?;
        }
        Objective::SelfDebug => {
            for (right, wrong) in most.pairs_of(item, &good, &bad) {
                texts.add(right, asked(item), |prompt| {
                    debugged(prompt, &wrong.text, &right.text, &settings.self_debug)
                })?;
            }
        }
        other => unreachable!("{other} has no lessons"),
    }
    Ok(texts.found)
}

/// How many pairs of answers an item has lessons for, before some are drawn.
pub fn pairs_of_lessons(task: &Task, item: &Item) -> usize {
    let good = item.answers.iter().filter(|a| item.is_good(a)).count();
    match task.objective {
        Objective::ChainOfHindsight => pair_count(item),
        Objective::Selfee | Objective::SelfDebug => good * (item.answers.len() - good),
        _ => 0,
    }
}

/// The lessons of an item, as they are written.
struct Texts<'a> {
    item: &'a Item,
    max_len: usize,
    found: Vec<Option<Example>>,
}

impl Texts<'_> {
    /// One row, with as much of the prompt as fits; it ends in `answer`.
    fn add(
        &mut self,
        answer: &Answer,
        prompt: &str,
        write: impl Fn(&str) -> Result<Sequence>,
    ) -> Result<()> {
        let lesson = |rows| Example {
            prompt: self.item.prompt.clone(),
            answers: vec![answer.clone()],
            rows,
        };
        let rows = fitted(prompt, self.max_len, |prompt| Ok(vec![write(prompt)?]))?;
        self.found.push(rows.map(lesson));
        Ok(())
    }

    /// Adds the best answers, which need no repair, but only beside repairs: alone they would teach that
    /// no answer needs one.
    fn add_to_repairs(
        &mut self,
        best: &[&Answer],
        write: impl Fn(&str, &str) -> Result<Sequence>,
    ) -> Result<()> {
        if self.found.iter().any(Option::is_some) {
            for answer in best {
                self.add(answer, &self.item.prompt, |p| write(p, &answer.text))?;
            }
        }
        Ok(())
    }
}

/// The probes of an item; `None` is a row that is too long.
pub fn probes(task: &Task, item: &Item) -> Result<Vec<Option<Example>>> {
    let settings = task.settings;
    let prompt = match task.objective {
        Objective::ChainOfHindsight | Objective::SecondThoughts | Objective::Selfee => &item.prompt,
        _ => asked(item),
    };
    let one = |answers: Vec<Answer>| {
        // all rows get the same part of the prompt, so that they can be compared
        let rows = fitted(prompt, settings.max_len, |prompt| {
            let mut rows = Vec::new();
            for answer in &answers {
                rows.extend(probe(task, prompt, &answer.text, &answers)?);
            }
            Ok(rows)
        })?;
        Ok(rows.map(|rows| Example {
            prompt: item.prompt.clone(),
            answers,
            rows,
        }))
    };
    // an item without a good answer has no probes
    if !item.answers.iter().any(|answer| item.is_good(answer)) {
        return Ok(Vec::new());
    }
    let lists = compared(item, task.shape, settings.most()).into_iter();
    lists.map(one).collect()
}

/// The rows that ask about one answer.
fn probe(task: &Task, prompt: &str, answer: &str, among: &[Answer]) -> Result<Vec<Sequence>> {
    let settings = task.settings;
    Ok(match task.objective {
        Objective::ConditionalSft | Objective::CRlft => vec![
            under_class(&settings.classes.good, prompt, answer)?,
            under_class(&settings.classes.bad, prompt, answer)?,
        ],
        Objective::ChainOfHindsight => {
            let under = |order| {
                let format = HindsightFormat {
                    feedback: settings.chain_of_hindsight.feedback[0].clone(),
                    order,
                    learned: LearnedAnswers::Every,
                };
                hindsight(prompt, answer, answer, &format)
            };
            vec![
                under(HindsightOrder::GoodOnly)?,
                under(HindsightOrder::BadOnly)?,
            ]
        }
        Objective::SecondThoughts => {
            let tokens = edit_tokens();
            let opened = second_thoughts_prompt(&encode(prompt)?, &encode(answer)?, &tokens)?;
            vec![begun().given(&opened).learned(&[tokens.target])]
        }
        Objective::Selfee => vec![
            revised(settings, prompt, &[stands(answer)])?,
            revised(settings, prompt, &[revise(answer)])?,
        ],
        Objective::SelfDebug => {
            let format = DebugFormat {
                learned: DebugLearned::LastProgram,
                ..settings.self_debug.clone()
            };
            // after the worse of the two: the better one, or the worse one again
            vec![debugged(prompt, &among[1].text, answer, &format)?]
        }
        other => unreachable!("{other} has no probes"),
    })
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

/// The best answer that is the cheapest to reach from a worse one by edits.
fn nearest<'a>(
    settings: &Settings,
    worse: &Answer,
    best: &[&'a Answer],
) -> Result<(&'a Answer, EditScript)> {
    let costs = &settings.second_thoughts;
    let source = encode(&worse.text)?;
    let mut nearest = None;
    for &answer in best {
        let script = edit_script(&source, &encode(&answer.text)?, costs)?;
        let cost = script.cost(costs);
        if nearest.as_ref().is_none_or(|(least, _, _)| cost < *least) {
            nearest = Some((cost, answer, script));
        }
    }
    let (_, answer, script) = nearest.expect("an item has a best answer");
    Ok((answer, script))
}
