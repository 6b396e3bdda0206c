//! Pairs of answers, for DPO and for reward models.

use super::super::super::data::json;
use super::super::super::error::Result;
use super::encode::{Encoder, common, ended, join, within_vocabulary};
use super::record::{Form, Part, Record};
use super::sft::other_kind;
use super::{Folder, Pair, Prepared, Report, RewardRow, Settings, Side, Source, Truncation};

/// Rows to ids as TRL's `DPOTrainer` does it, its cuts included.
pub fn dpo(source: Source, folder: &Folder, settings: &Settings) -> Result<Prepared<Pair>> {
    let mut first = None;
    let read = |record: Record, report: &mut Report| {
        let kind = (Form::Pair(record.has("prompt")), is_chat(&record)?);
        let expected = *first.get_or_insert(kind);
        if kind != expected {
            return Err(other_kind(kind, expected));
        }
        record.check("a pair", &["prompt", "chosen", "rejected"], kind.1)?;
        let encoder = Encoder::new(folder, &record, kind.1, report)?;
        let (prompt, chosen, rejected) = parts(&record)?;
        let sides = [ended(chosen, folder)?, ended(rejected, folder)?];
        let pair = encode(&encoder, &prompt, &sides, report)?;
        for side in [&pair.chosen, &pair.rejected] {
            within_vocabulary(&side.ids, folder, settings.vocabulary)?;
        }
        let pair = Pair {
            line: record.line,
            ..pair
        };
        Ok(cut(pair, settings, report))
    };
    source.rows(settings, read)
}

/// Rows to ids as TRL's `RewardTrainer` does it: whole rows, and too long ones are dropped.
pub fn reward(source: Source, folder: &Folder, settings: &Settings) -> Result<Prepared<RewardRow>> {
    let mut first = None;
    let read = |record: Record, report: &mut Report| {
        let given = record.has("chosen_ids");
        let kind = match given {
            true => (Form::PairIds, false),
            false => (Form::Pair(record.has("prompt")), is_chat(&record)?),
        };
        let (expected, margins) = *first.get_or_insert((kind, record.has("margin")));
        if kind != expected {
            return Err(other_kind(kind, expected));
        }
        let margin = margin(&record, margins)?;
        let (chosen, rejected) = match given {
            true => {
                record.check("ids", &["chosen_ids", "rejected_ids", "margin"], false)?;
                (record.ids("chosen_ids")?, record.ids("rejected_ids")?)
            }
            false => {
                let read = ["prompt", "chosen", "rejected", "margin"];
                record.check("a pair", &read, kind.1)?;
                let encoder = Encoder::new(folder, &record, kind.1, report)?;
                let ids = |name| {
                    let mut part = ended(record.part(name)?, folder)?;
                    if record.has("prompt") {
                        part = join(&record.part("prompt")?, &part)?;
                    }
                    Ok::<_, String>(encoder.whole(&part, false)?.ids)
                };
                (ids("chosen")?, ids("rejected")?)
            }
        };
        let most = settings.max_length.unwrap_or(usize::MAX);
        if chosen.len() > most || rejected.len() > most {
            report.long_sides += 1;
            return Ok(None);
        }
        for ids in [&chosen, &rejected] {
            if ids.is_empty() {
                return Err("has an answer without a token".to_string());
            }
            within_vocabulary(ids, folder, settings.vocabulary)?;
        }
        Ok(Some(RewardRow {
            line: record.line,
            chosen,
            rejected,
            margin,
        }))
    };
    source.rows(settings, read)
}

pub(super) fn is_chat(record: &Record) -> Result<bool, String> {
    match record.has("chosen") && record.has("rejected") {
        true => Ok(record.part("chosen")?.is_chat()),
        false => Err("must have the fields `chosen` and `rejected`".to_string()),
    }
}

fn margin(record: &Record, expected: bool) -> Result<Option<f64>, String> {
    match (json::field(&record.object, "margin"), expected) {
        (None, false) => Ok(None),
        (Some(margin), true) => json::as_number(margin, "margin").map(Some),
        (None, true) => Err("has no `margin`, and the first row has one".to_string()),
        (Some(_), false) => Err("has a `margin`, and the first row has none".to_string()),
    }
}

/// Prompt and answers; a prompt that is missing is the common beginning of both answers.
pub(super) fn parts(record: &Record) -> Result<(Part, Part, Part), String> {
    let (chosen, rejected) = (record.part("chosen")?, record.part("rejected")?);
    if record.has("prompt") {
        return Ok((record.part("prompt")?, chosen, rejected));
    }
    match (chosen, rejected) {
        (Part::Text(chosen), Part::Text(rejected)) => {
            let (prompt, chosen, rejected) = split_text(&chosen, &rejected)?;
            Ok((Part::Text(prompt), Part::Text(chosen), Part::Text(rejected)))
        }
        (Part::Messages(chosen), Part::Messages(rejected)) => {
            // objects are equal whatever the order of their fields
            let list = |name| json::list(&record.object, "", name);
            let at = split(list("chosen")?, list("rejected")?);
            if at == 0 {
                return Err(
                    "has no `prompt`, and `chosen` and `rejected` begin with different \
                     messages, or have no other"
                        .to_string(),
                );
            }
            let (prompt, chosen) = chosen.split_at(at);
            Ok((
                Part::Messages(prompt.to_vec()),
                Part::Messages(chosen.to_vec()),
                Part::Messages(rejected[at..].to_vec()),
            ))
        }
        _ => Err("`chosen` and `rejected` must both be texts or both be lists of messages".into()),
    }
}

/// Where two lists begin to differ. If one is the beginning of the other, its last item counts as
/// different, so that no answer is empty.
fn split<T: PartialEq>(one: &[T], other: &[T]) -> usize {
    let both = one.len().min(other.len());
    let differs = (0..both).find(|i| one[*i] != other[*i]);
    differs.unwrap_or(both.saturating_sub(1))
}

/// The common beginning of two texts, without one blank at its end, and the rest of both.
fn split_text(chosen: &str, rejected: &str) -> Result<(String, String, String), String> {
    let chosen: Vec<char> = chosen.chars().collect();
    let rejected: Vec<char> = rejected.chars().collect();
    if chosen.is_empty() || rejected.is_empty() {
        return Err("has no `prompt`, and `chosen` or `rejected` is empty".to_string());
    }
    let mut at = split(&chosen, &rejected);
    let differs = chosen[at] != rejected[at];
    if differs && at > 0 && chosen[at - 1] == ' ' {
        at -= 1;
    }
    let text = |chars: &[char]| chars.iter().collect();
    Ok((
        text(&chosen[..at]),
        text(&chosen[at..]),
        text(&rejected[at..]),
    ))
}

fn encode(
    encoder: &Encoder,
    prompt: &Part,
    sides: &[Part; 2],
    report: &mut Report,
) -> Result<Pair, String> {
    let mut sides = answers(encoder, prompt, sides, report)?.into_iter();
    Ok(Pair {
        line: 0,
        chosen: sides.next().unwrap_or_default(),
        rejected: sides.next().unwrap_or_default(),
    })
}

/// A prompt with each of its answers. All have as many tokens of the prompt as all have in common.
pub fn answers(
    encoder: &Encoder,
    prompt: &Part,
    answers: &[Part],
    report: &mut Report,
) -> Result<Vec<Side>, String> {
    let prompt_ids = encoder.prompt(prompt)?;
    let whole = |answer| Ok::<_, String>(encoder.whole(&join(prompt, answer)?, false)?.ids);
    let all = answers.iter().map(whole).collect::<Result<Vec<_>, _>>()?;
    let starts = all.iter().map(|ids| common(&prompt_ids, ids));
    let start = starts.min().unwrap_or(0);
    report.moved_answers += usize::from(start < prompt_ids.len());
    let side = |ids: Vec<u32>| Side { ids, prompt: start };
    Ok(all.into_iter().map(side).collect())
}

/// What stays of a pair; nothing if its prompt leaves no room for an answer.
fn cut(mut pair: Pair, settings: &Settings, report: &mut Report) -> Option<Pair> {
    let sides = [&mut pair.chosen, &mut pair.rejected];
    cut_sides(sides, settings, report).then_some(pair)
}

/// Cuts the answers to one prompt; false if it leaves no room for an answer.
pub fn cut_sides<'a>(
    sides: impl IntoIterator<Item = &'a mut Side>,
    settings: &Settings,
    report: &mut Report,
) -> bool {
    let keeps_start = settings.truncation == Truncation::KeepStart;
    let sides: Vec<&mut Side> = sides.into_iter().collect();
    let prompt = sides.first().map_or(0, |side| side.prompt);
    let full = |most| keeps_start && prompt >= most;
    if settings.max_length.is_some_and(full) {
        report.long_prompts += 1;
        return false;
    }
    for side in sides {
        let (all, kept) = (side.ids.len(), settings.kept(side.ids.len()));
        report.cut += usize::from(kept.len() < all);
        report.tokens_cut += all - kept.len();
        side.ids = side.ids[kept.clone()].to_vec();
        side.prompt = side.prompt.saturating_sub(kept.start);
        report.empty_answers += usize::from(side.prompt >= side.ids.len());
    }
    true
}
