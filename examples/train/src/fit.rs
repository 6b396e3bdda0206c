//! The items of a file that fit an objective, and their examples.

use super::batch::{Example, examples};
use super::comparisons::{Most, Shape, pair_count, triple};
use super::data::{Item, Reason, Tally};
use super::error::{Error, Result};
use super::objectives::language::{lessons, plan, probes};
use super::objectives::{Forms, Objective, Task};
use super::settings::Settings;
use rand::rngs::StdRng;

/// The items that the objective can learn from, with lists cut to its limit; the others are counted.
pub fn usable(
    items: Vec<Item>,
    objective: Objective,
    forms: Forms,
    most: Most,
    name: &str,
    tally: &mut Tally,
) -> Result<Vec<Item>> {
    let found = items.len();
    let singles = items.iter().filter(|item| item.answers.len() == 1).count();
    let unpaired = items
        .iter()
        .filter(|item| item.judged && item.answers.len() == 1);
    let unpaired = unpaired.count();
    let judged = items.iter().any(|item| item.judged);
    let keep = |item: &Item| {
        let best = item.best();
        let by_class = matches!(objective, Objective::ConditionalSft | Objective::CRlft)
            || objective.is_unpaired();
        let reason = match item.answers.len() {
            _ if item.begun && objective.is_language() => Reason::Begun,
            1 if objective.is_best() && item.answers.iter().all(|a| item.is_good(a)) => {
                return true;
            }
            1 if objective.is_best() => Reason::Wrong,
            1 if item.judged && by_class => return true,
            1 if item.judged => Reason::Unpaired,
            _ if objective == Objective::SelfDebug && !item.judged => Reason::NoVerdict,
            1 => Reason::SingleAnswer,
            _ if objective == Objective::Tpo && triple(item).is_none() => Reason::NotThree,
            _ if item.answers.iter().any(|a| a.reward < best) => return true,
            _ => Reason::NoPreference,
        };
        *tally.left_out.entry(reason).or_default() += 1;
        false
    };
    let mut items = items;
    items.retain(keep);
    if !items.is_empty() {
        let longest = items.iter().map(|item| item.answers.len()).max();
        let whole = objective.shape_of(forms, longest.unwrap_or(0)) != Shape::Pairs;
        if whole && objective != Objective::Tpo {
            let gone: usize = items.iter_mut().map(|item| most.thin(item)).sum();
            if gone > 0 {
                *tally.answers_left_out.entry(Reason::TooMany).or_default() += gone;
            }
        }
        return Ok(items);
    }
    let formats = tally
        .formats
        .iter()
        .map(|(format, rows)| format!("{format}: {rows}"));
    let formats = formats.collect::<Vec<_>>().join(", ");
    Err(Error::Usage(match (found, objective) {
        (0, _) => format!("{name}: no row is left to learn from: {}", tally.reasons()),
        _ if tally.left_out.contains_key(&Reason::Begun) => {
            let reasons = tally.reasons();
            format!("{name}: no row is left that {objective} can learn from: {reasons}")
        }
        (_, _) if objective.is_best() && unpaired == found => {
            format!(
                "{name}: {objective} learns good answers, and every row has a `label` that is false"
            )
        }
        _ if unpaired == found => format!(
            "{name}: {objective} compares answers to one prompt, and each row has one answer with a \
             `label` ({formats}); sft learns those that are right, conditional_sft and c_rlft learn both \
             kinds, and so do kto, bco and apo_zero_unpaired with --model"
        ),
        (_, _) if objective.is_best() => format!(
            "{name}: {objective} needs a best answer, and in no row is one answer better than another \
             ({formats})"
        ),
        (_, Objective::SelfDebug) if !judged => format!(
            "{name}: self_debug needs answers marked right or wrong, and no row has an \
             `is_correct` ({formats})"
        ),
        (_, Objective::Tpo) => format!(
            "{name}: tpo needs three answers to a prompt, of which the second is better than the last, and no \
             row has them ({formats})"
        ),
        _ if singles == found => format!(
            "{name}: {objective} needs at least two answers to a prompt, and no row has a second \
             one such as `rejected` ({formats}); use --objective sft"
        ),
        _ => format!(
            "{name}: {objective} needs one answer that is better than another, and all rewards \
             within a row are equal ({formats})"
        ),
    }))
}

/// The objective's training or evaluation examples for these items.
///
/// # Errors
/// If it writes texts, and all of them are too long.
pub fn all_examples(
    task: &Task,
    items: &[Item],
    name: &str,
    tally: &mut Tally,
    rng: &mut StdRng,
) -> Result<Vec<Example>> {
    if !task.objective.is_language() {
        return Ok(in_rows(items, task.shape, task.settings, tally));
    }
    let plan = plan(task);
    let pairs = items.iter().map(|item| plan.pairs(item));
    let most = task.settings.max_pairs;
    tally.pairs_left_out += pairs.map(|n| n.saturating_sub(most)).sum::<usize>();
    let written = items.iter().map(|item| lessons(task, item, rng));
    let found = counted(written, tally)?;
    if found.is_empty() {
        let max_len = task.settings.max_len;
        return Err(Error::Usage(format!(
            "{name}: {} writes no text of at most {max_len} tokens from {} prompts; use a larger \
             --max-len",
            task.objective,
            items.len()
        )));
    }
    Ok(found)
}

/// The objective's probes for these items, if its loss compares no answers.
pub fn all_probes(task: &Task, items: &[Item], tally: &mut Tally) -> Result<Vec<Example>> {
    match task.objective.is_language() {
        true => counted(items.iter().map(|item| probes(task, item)), tally),
        false => Ok(Vec::new()),
    }
}

/// One row per answer of the items.
pub fn in_rows(
    items: &[Item],
    shape: Shape,
    settings: &Settings,
    tally: &mut Tally,
) -> Vec<Example> {
    let most = settings.most();
    if shape == Shape::Pairs {
        let beyond = |item: &Item| pair_count(item).saturating_sub(most.pairs);
        tally.pairs_left_out += items.iter().map(beyond).sum::<usize>();
    }
    items
        .iter()
        .flat_map(|item| examples(item, shape, most))
        .collect()
}

/// The rows that could be written; the others are counted.
fn counted(
    written: impl Iterator<Item = Result<Vec<Option<Example>>>>,
    tally: &mut Tally,
) -> Result<Vec<Example>> {
    let mut found = Vec::new();
    for some in written {
        for one in some? {
            match one {
                Some(example) => found.push(example),
                None => tally.texts_too_long += 1,
            }
        }
    }
    Ok(found)
}
