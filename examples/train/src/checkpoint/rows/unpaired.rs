//! Answers with a label, one by one: for KTO, BCO and APO.

use super::super::super::data::json;
use super::super::super::error::Result;
use super::encode::{Encoder, ended, within_vocabulary};
use super::pairs::{answers, cut_sides, parts};
use super::record::{Form, Part, Record};
use super::sft::other_kind;
use super::{Folder, Prepared, Report, Settings, Side, Source, UnpairedRow};

/// TRL takes pairs apart so many at a time.
const CHUNK: usize = 1000;

/// Rows to ids as TRL's `KTOTrainer` does it. A pair gives a desirable row and an undesirable one; of each
/// thousand pairs the chosen answers come first, then the rejected ones.
pub fn unpaired(
    source: Source,
    folder: &Folder,
    settings: &Settings,
) -> Result<Prepared<UnpairedRow>> {
    let (mut first, mut record_number) = (None, 0);
    let read = |record: Record, report: &mut Report| {
        let kind = kind(&record)?;
        let expected = *first.get_or_insert(kind);
        if kind != expected {
            return Err(other_kind(kind, expected));
        }
        let (prompt, both) = match kind.0 {
            Form::Labeled => {
                let read = ["prompt", "completion", "label"];
                record.check("an answer with a label", &read, kind.1)?;
                let label = json::required(&record.object, "", "label")?;
                let label = json::as_bool(label, "label")?;
                (
                    record.part("prompt")?,
                    vec![(record.part("completion")?, label)],
                )
            }
            _ => {
                record.check("a pair", &["prompt", "chosen", "rejected"], kind.1)?;
                let (prompt, chosen, rejected) = parts(&record)?;
                (prompt, vec![(chosen, true), (rejected, false)])
            }
        };
        let encoder = Encoder::new(folder, &record, kind.1, report)?;
        let mut found = Vec::new();
        for (answer, desirable) in both {
            let answer = ended(answer, folder)?;
            let row = one(&encoder, &prompt, answer, folder, settings, report)?;
            found.extend(row.map(|row| UnpairedRow {
                line: record.line,
                desirable,
                ..row
            }));
        }
        let number = record_number;
        record_number += 1;
        Ok((!found.is_empty()).then_some((number, found)))
    };
    let Prepared { rows, report } = source.rows(settings, read)?;
    let all = rows.into_iter();
    let each = all.flat_map(|(number, found)| found.into_iter().map(move |row| (number, row)));
    let mut each: Vec<(usize, UnpairedRow)> = each.collect();
    if first.is_some_and(|(form, _)| form != Form::Labeled) {
        // the order within a chunk stays
        each.sort_by_key(|(number, row)| (number / CHUNK, !row.desirable));
    }
    Ok(Prepared {
        rows: each.into_iter().map(|(_, row)| row).collect(),
        report,
    })
}

/// One answer after its prompt; nothing if the prompt leaves no room for it.
fn one(
    encoder: &Encoder,
    prompt: &Part,
    answer: Part,
    folder: &Folder,
    settings: &Settings,
    report: &mut Report,
) -> Result<Option<UnpairedRow>, String> {
    let sides = answers(encoder, prompt, std::slice::from_ref(&answer), report)?;
    let Some(whole) = sides.into_iter().next() else {
        return Ok(None);
    };
    within_vocabulary(&whole.ids, folder, settings.vocabulary)?;
    Ok(UnpairedRow::cut(whole, settings, report))
}

impl UnpairedRow {
    /// An answer that is not desirable, cut; nothing if its prompt leaves no room for it.
    pub fn cut(whole: Side, settings: &Settings, report: &mut Report) -> Option<Self> {
        let mut kept = [whole.clone()];
        let fits = cut_sides(&mut kept, settings, report);
        let [kept] = kept;
        fits.then_some(Self {
            line: 0,
            whole,
            kept,
            desirable: false,
        })
    }
}

/// The form of a row, and whether it has messages.
fn kind(record: &Record) -> Result<(Form, bool), String> {
    if record.has("chosen") && record.has("rejected") {
        let form = Form::Pair(record.has("prompt"));
        return Ok((form, record.part("chosen")?.is_chat()));
    }
    let labeled = ["prompt", "completion", "label"]
        .iter()
        .all(|name| record.has(name));
    match labeled {
        true => Ok((Form::Labeled, record.part("completion")?.is_chat())),
        false => Err(
            "must have the fields `prompt`, `completion` and `label`, or `chosen` and `rejected`"
                .to_string(),
        ),
    }
}
