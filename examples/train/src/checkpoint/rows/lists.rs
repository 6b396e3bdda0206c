//! Rows that give a list: a pair with a gold answer, for TPO, and a pair with a reward for each answer.

use super::super::super::data::json;
use super::super::super::error::Result;
use super::encode::{Encoder, ended, within_vocabulary};
use super::pairs::{answers, cut_sides, is_chat, parts};
use super::record::{Form, Part, Record};
use super::sft::other_kind;
use super::{Folder, ListRow, Prepared, Report, Settings, Source};

/// Rows to ids as TRL's `TPOTrainer` does it: the gold answer, the chosen and the rejected one. Their rewards
/// say that the gold answer and the chosen one are better than the rejected one.
pub fn triples(source: Source, folder: &Folder, settings: &Settings) -> Result<Prepared<ListRow>> {
    let mut first = None;
    let read = |record: Record, report: &mut Report| {
        if !record.has("reference") {
            return Err("must have the fields `chosen`, `rejected` and `reference`".to_string());
        }
        let kind = (Form::Triple(record.has("prompt")), is_chat(&record)?);
        let expected = *first.get_or_insert(kind);
        if kind != expected {
            return Err(other_kind(kind, expected));
        }
        let read = ["prompt", "chosen", "rejected", "reference"];
        record.check("three answers", &read, kind.1)?;
        let (prompt, chosen, rejected) = parts(&record)?;
        let gold = match record.has("prompt") {
            true => record.part("reference")?,
            false => after(&record, &prompt)?,
        };
        let row = ListRow {
            rewards: vec![1.0, 1.0, 0.0],
            ..encode(
                &record,
                folder,
                settings,
                (&prompt, [gold, chosen, rejected]),
                report,
            )?
        };
        Ok(cut(row, settings, report))
    };
    source.rows(settings, read)
}

/// Rows to ids as for DPO, with their `score_chosen` and `score_rejected` as rewards.
pub fn scored(source: Source, folder: &Folder, settings: &Settings) -> Result<Prepared<ListRow>> {
    let mut first = None;
    let read = |record: Record, report: &mut Report| {
        let kind = (Form::Scored(record.has("prompt")), is_chat(&record)?);
        let expected = *first.get_or_insert(kind);
        if kind != expected {
            return Err(other_kind(kind, expected));
        }
        let names = ["score_chosen", "score_rejected"];
        let read = ["prompt", "chosen", "rejected", names[0], names[1]];
        record.check("a pair with scores", &read, kind.1)?;
        let score = |name: &str| match json::field(&record.object, name) {
            Some(score) => json::as_reward(score, name),
            None => Err(format!(
                "has no `{name}`, which is the reward of an answer; without rewards use `nca_pair` or `exo_pair`"
            )),
        };
        let rewards = vec![score(names[0])?, score(names[1])?];
        let (prompt, chosen, rejected) = parts(&record)?;
        let row = ListRow {
            rewards,
            ..encode(
                &record,
                folder,
                settings,
                (&prompt, [chosen, rejected]),
                report,
            )?
        };
        Ok(cut(row, settings, report))
    };
    source.rows(settings, read)
}

/// The gold answer, which begins with the prompt that the other two share.
fn after(record: &Record, prompt: &Part) -> Result<Part, String> {
    let gold = record.part("reference")?;
    let problem = || {
        "has no `prompt`, and `reference` does not begin with what `chosen` and `rejected` have in common"
            .to_string()
    };
    match (prompt, gold) {
        (Part::Text(prompt), Part::Text(gold)) => {
            let rest = gold.strip_prefix(prompt.as_str()).ok_or_else(problem)?;
            Ok(Part::Text(rest.to_string()))
        }
        (Part::Messages(prompt), Part::Messages(gold)) => {
            // objects are equal whatever the order of their fields
            let list = |name| json::list(&record.object, "", name);
            let (shared, own) = (list("chosen")?, list("reference")?);
            let at = prompt.len();
            match own.len() > at && own[..at] == shared[..at] {
                true => Ok(Part::Messages(gold[at..].to_vec())),
                false => Err(problem()),
            }
        }
        _ => Err("`chosen` and `reference` must both be texts or both be lists of messages".into()),
    }
}

/// A prompt with each of its answers, without rewards.
fn encode<const N: usize>(
    record: &Record,
    folder: &Folder,
    settings: &Settings,
    (prompt, parts): (&Part, [Part; N]),
    report: &mut Report,
) -> Result<ListRow, String> {
    let encoder = Encoder::new(folder, record, prompt.is_chat(), report)?;
    let parts = parts.map(|part| ended(part, folder));
    let parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
    let sides = answers(&encoder, prompt, &parts, report)?;
    for side in &sides {
        within_vocabulary(&side.ids, folder, settings.vocabulary)?;
    }
    Ok(ListRow {
        line: record.line,
        sides,
        rewards: Vec::new(),
    })
}

/// What stays of a row; nothing if its prompt leaves no room for an answer.
fn cut(mut row: ListRow, settings: &Settings, report: &mut Report) -> Option<ListRow> {
    cut_sides(&mut row.sides, settings, report).then_some(row)
}
