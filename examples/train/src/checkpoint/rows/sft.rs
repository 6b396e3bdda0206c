//! Rows for supervised training.

use super::super::super::error::{Error, Result};
use super::encode::{Encoder, common, ended, join, within_vocabulary};
use super::record::{Form, Part, Record};
use super::{Covers, Folder, Prepared, Report, Settings, SftRow, Source, Turns};

/// Rows to ids as TRL's `SFTTrainer` does it, without packing.
pub fn sft(source: Source, folder: &Folder, settings: &Settings) -> Result<Prepared<SftRow>> {
    let mut first = None;
    let read = |mut record: Record, report: &mut Report| {
        record.rename_conversations()?;
        let form = form(&record, settings)?;
        let expected = *first.get_or_insert(form);
        if form != expected {
            return Err(other_kind(form, expected));
        }
        check(form, settings)?;
        report.covers = Some(covers(form, settings));
        let mut row = encode(&record, form, folder, settings, report)?;
        row.line = record.line;
        within_vocabulary(&row.ids, folder, settings.vocabulary)?;
        Ok(cut(row, settings, report))
    };
    if settings.text_field.is_empty() {
        return Err(Error::Usage("`text_field` must not be empty".into()));
    }
    source.rows(settings, read)
}

/// The form of a row, and whether it is a conversation.
type Kind = (Form, bool);

fn form(record: &Record, settings: &Settings) -> Result<Kind, String> {
    let text_field = settings.text_field.as_str();
    let chat = |name| record.part(name).map(|part| part.is_chat());
    if record.has("input_ids") {
        Ok((Form::Ids, false))
    } else if record.has("prompt") || record.has("completion") {
        Ok((Form::Completion, chat("prompt")?))
    } else if record.has("messages") {
        match chat("messages")? {
            true => Ok((Form::Messages, true)),
            false => Err("`messages` must be a list of messages".to_string()),
        }
    } else if record.has(text_field) {
        Ok((Form::Text, false))
    } else {
        Err(format!(
            "has none of the fields of a supervised row: `prompt` and `completion`, `messages`, \
             `{text_field}`, or `input_ids`"
        ))
    }
}

/// What the loss covers of such rows.
fn covers((form, chat): Kind, settings: &Settings) -> Covers {
    let marked = settings.turns == Turns::Marked;
    match form {
        Form::Completion if settings.completion_only == Some(false) => match marked && chat {
            true => Covers::MarkedTurns,
            false => Covers::PromptAndCompletion,
        },
        Form::Completion if marked && chat => Covers::MarkedOfCompletion,
        Form::Completion => Covers::Completion,
        Form::Messages => match settings.turns {
            Turns::All => Covers::AllTurns,
            Turns::Marked => Covers::MarkedTurns,
            Turns::Last => Covers::LastTurn,
        },
        Form::Ids => Covers::AsGiven,
        _ => Covers::Text,
    }
}

/// The message about a row that differs from the first one.
pub fn other_kind(found: Kind, expected: Kind) -> String {
    let words = |(form, chat): Kind| {
        let what = match form {
            Form::Completion => "`prompt` and `completion`",
            Form::Messages => "`messages`",
            Form::Text => "a text",
            Form::Ids => "`input_ids`",
            Form::Pair(true) => "`prompt`, `chosen` and `rejected`",
            Form::Pair(false) => "`chosen` and `rejected` without `prompt`",
            Form::PairIds => "`chosen_ids` and `rejected_ids`",
            Form::Triple(true) => "`prompt`, `chosen`, `rejected` and `reference`",
            Form::Triple(false) => "`chosen`, `rejected` and `reference` without `prompt`",
            Form::Scored(true) => "`prompt`, `chosen` and `rejected` with scores",
            Form::Scored(false) => "`chosen` and `rejected` with scores, without `prompt`",
            Form::Labeled => "`prompt`, `completion` and `label`",
        };
        let kind = if chat { " of messages" } else { "" };
        format!("{what}{kind}")
    };
    format!(
        "has {}, and the first row has {}: all rows of a file must be of one kind",
        words(found),
        words(expected)
    )
}

/// An error if a setting has no meaning for such rows.
fn check((form, chat): Kind, settings: &Settings) -> Result<(), String> {
    let has_completion = matches!(form, Form::Completion | Form::Ids);
    if settings.completion_only == Some(true) && !has_completion {
        return Err(
            "has no `prompt` and `completion`, and `completion_only` asks for the completion"
                .to_string(),
        );
    }
    match (settings.turns, form) {
        (Turns::Marked, _) if !chat => {
            Err("is no conversation, and `turns` asks for what the template marks".to_string())
        }
        (Turns::Last, form) if form != Form::Messages => {
            Err("has no `messages`, and `turns` asks for the last one".to_string())
        }
        _ => Ok(()),
    }
}

fn encode(
    record: &Record,
    (form, chat): Kind,
    folder: &Folder,
    settings: &Settings,
    report: &mut Report,
) -> Result<SftRow, String> {
    let marked = settings.turns == Turns::Marked;
    match form {
        Form::Completion => {
            record.check("prompt and completion", &["prompt", "completion"], chat)?;
            let (prompt, completion) = (record.part("prompt")?, record.part("completion")?);
            let encoder = Encoder::new(folder, record, chat, report)?;
            let only = settings.completion_only.unwrap_or(true);
            answer(
                &encoder,
                &prompt,
                ended(completion, folder)?,
                (only, marked),
                report,
            )
        }
        Form::Messages if settings.turns == Turns::Last => {
            record.check("messages", &["messages"], true)?;
            let encoder = Encoder::new(folder, record, true, report)?;
            let (before, last) = last_turn(record)?;
            answer(&encoder, &before, last, (true, false), report)
        }
        Form::Messages => {
            record.check("messages", &["messages"], true)?;
            let encoder = Encoder::new(folder, record, true, report)?;
            whole(&encoder, &record.part("messages")?, marked)
        }
        Form::Text => {
            let name = settings.text_field.as_str();
            record.check("text", &[name], false)?;
            let encoder = Encoder::new(folder, record, false, report)?;
            whole(&encoder, &ended(record.part(name)?, folder)?, false)
        }
        Form::Ids => {
            let read = ["input_ids", "labels", "completion_mask"];
            record.check("input_ids", &read, false)?;
            given(record, settings)
        }
        Form::Pair(_) | Form::PairIds | Form::Triple(_) | Form::Scored(_) => {
            Err("is a pair of answers".to_string())
        }
        Form::Labeled => Err("is an answer with a label".to_string()),
    }
}

/// The turns before the last one, and the last one.
fn last_turn(record: &Record) -> Result<(Part, Part), String> {
    let mut before = record.items("messages")?;
    let last = before.pop().unwrap_or_default();
    let role = last.get_attr("role").unwrap_or_default();
    if before.is_empty() || role.as_str() != Some("assistant") {
        return Err(
            "`messages` must end with a message of the assistant after others, for `turns` asks for \
             the last one"
                .to_string(),
        );
    }
    Ok((Part::Messages(before), Part::Messages(vec![last])))
}

fn answer(
    encoder: &Encoder,
    prompt: &Part,
    completion: Part,
    (only, marked): (bool, bool),
    report: &mut Report,
) -> Result<SftRow, String> {
    let prompt_ids = encoder.prompt(prompt)?;
    let mut row = whole(encoder, &join(prompt, &completion)?, marked)?;
    let start = common(&prompt_ids, &row.ids);
    report.moved_answers += usize::from(start < prompt_ids.len());
    report.empty_answers += usize::from(start == row.ids.len());
    if only {
        row.learned[..start].fill(false);
    }
    Ok(row)
}

fn whole(encoder: &Encoder, part: &Part, marked: bool) -> Result<SftRow, String> {
    let encoded = encoder.whole(part, marked)?;
    let learned = match encoded.marked {
        Some(marked) if !marked.contains(&true) => {
            return Err("has no token that the chat template marks as the assistant's".to_string());
        }
        Some(marked) => marked,
        None => vec![true; encoded.ids.len()],
    };
    Ok(SftRow {
        line: 0,
        ids: encoded.ids,
        learned,
    })
}

/// Ids as the row gives them.
fn given(record: &Record, settings: &Settings) -> Result<SftRow, String> {
    let ids = record.ids("input_ids")?;
    let learned = if record.has("labels") {
        record.labels(&ids)?
    } else if record.has("completion_mask") {
        let mask = record.mask("completion_mask")?;
        match settings.completion_only {
            Some(true) => mask,
            Some(false) => vec![true; mask.len()],
            // TRL takes every token then
            None => {
                return Err(
                    "has a `completion_mask`, and `completion_only` says neither true nor false"
                        .to_string(),
                );
            }
        }
    } else {
        vec![true; ids.len()]
    };
    match learned.len() == ids.len() {
        true => Ok(SftRow {
            line: 0,
            ids,
            learned,
        }),
        false => Err(format!(
            "has {} `input_ids` and {} labels",
            ids.len(),
            learned.len()
        )),
    }
}

/// What stays of a row; nothing if the loss covers nothing of it.
fn cut(mut row: SftRow, settings: &Settings, report: &mut Report) -> Option<SftRow> {
    if settings.max_length.is_none() {
        return Some(row);
    }
    let (all, kept) = (row.ids.len(), settings.kept(row.ids.len()));
    row.ids = row.ids[kept.clone()].to_vec();
    row.learned = row.learned[kept.clone()].to_vec();
    if !row.learned.contains(&true) {
        report.nothing_learned += 1;
        return None;
    }
    report.cut += usize::from(kept.len() < all);
    report.tokens_cut += all - kept.len();
    Some(row)
}
