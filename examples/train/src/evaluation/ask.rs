//! Rows to ids, and the log-probabilities that the model gives them.

use super::super::checkpoint::objective::Text;
use super::super::checkpoint::objective::text::log_probs;
use super::super::checkpoint::order::parts;
use super::super::checkpoint::rows::{Report, Side};
use super::super::data::fields;
use super::super::data::json::{self, Object};
use super::super::data::reader::Lines;
use super::super::error::{Error, Result};
use super::super::progress::Progress;
use candle_align::TokenLogProbs;
use candle_align::decoder::{Decoder, Mode};
use candle_align::ops::Segments;
use std::path::Path;

/// What one line of a file holds.
#[derive(Clone, Debug)]
pub struct Line<T> {
    /// Its number, from 1 on.
    pub number: usize,
    pub row: T,
}

/// The rows of a file, each read by `row`. Nothing is left out: a row that cannot be read is an error.
pub fn read<T>(
    path: &Path,
    ignored_fields: &[String],
    report: &mut Report,
    mut row: impl FnMut(&Object, &mut Report) -> Result<T, String>,
) -> Result<Vec<Line<T>>> {
    let mut rows = Vec::new();
    for line in Lines::open(path)? {
        let (number, bytes) = line?;
        report.rows += 1;
        let mut read = || -> Result<T, String> {
            let line = std::str::from_utf8(&bytes).map_err(|error| {
                format!("is not valid UTF-8 after byte {}", error.valid_up_to())
            })?;
            let mut object = json::object(line)?;
            fields::ignore(&mut object, ignored_fields, &mut report.ignored_fields);
            row(&object, report)
        };
        let row = read().map_err(|problem| at_line(path, number, problem))?;
        rows.push(Line { number, row });
    }
    report.kept = rows.len();
    match rows.is_empty() {
        true => Err(Error::file(path, "holds no rows")),
        false => Ok(rows),
    }
}

/// A problem of one line.
pub fn at_line(path: &Path, line: usize, problem: String) -> Error {
    Error::Row {
        file: path.display().to_string(),
        line,
        problem,
    }
}

/// Texts after a prompt, of which those texts are asked about.
pub fn texts(sides: Vec<Side>) -> impl Iterator<Item = Text> {
    sides.into_iter().map(|side| {
        let (prompt, text) = side.ids.split_at(side.prompt);
        Text::answer(prompt, text)
    })
}

/// The log-probabilities of the texts of each row. So many tokens go through the model at a time; what the
/// texts have in common at their start is computed once.
pub fn answers<T>(
    decoder: &Decoder,
    rows: &[Line<T>],
    texts: impl Fn(&T) -> &[Text],
    max_tokens: usize,
    progress: &dyn Progress,
) -> Result<Vec<TokenLogProbs>> {
    let decoder = decoder.without_gradients();
    let mut sizes = Vec::with_capacity(rows.len());
    for line in rows {
        let ids: Vec<&[u32]> = texts(&line.row).iter().map(|text| &text.ids[..]).collect();
        sizes.push(Segments::from_tokens(&ids)?.0.tokens());
    }
    let all: Vec<usize> = (0..rows.len()).collect();
    progress.begin("row", 0, rows.len());
    let mut found = Vec::with_capacity(rows.len());
    for part in parts(&all, Some(max_tokens), |row| sizes[row]) {
        let of_rows: Vec<&[Text]> = part.iter().map(|row| texts(&rows[*row].row)).collect();
        let together: Vec<&Text> = of_rows.iter().copied().flatten().collect();
        let log_probs = log_probs(&decoder, &together, Mode::Evaluation)?;
        let mut from = 0;
        for texts in of_rows {
            found.push(some(&log_probs, from, texts.len())?);
            from += texts.len();
        }
        progress.advance(part.len());
    }
    Ok(found)
}

/// Some of the rows.
pub fn some(log_probs: &TokenLogProbs, from: usize, count: usize) -> Result<TokenLogProbs> {
    let values = log_probs.values().narrow(0, from, count)?;
    let mask = log_probs.mask().narrow(0, from, count)?;
    Ok(TokenLogProbs::new(&values, &mask)?)
}
