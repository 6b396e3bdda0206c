//! Rows of a table that were trained separately: `trainable_token_indices`.

use super::PREFIX;
use super::keys::Keys;
use crate::error::{Error, Result};
use crate::in_order::InOrder;
use candle_core::Tensor;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The rows, by the end of a module's path or the empty name.
pub(super) type Tokens = BTreeMap<String, Vec<usize>>;

/// In the forms of a file: a list of rows, or rows by name.
pub(super) fn read(keys: &mut Keys) -> Result<Tokens> {
    let (key, forms) = (
        "trainable_token_indices",
        "a list of rows, or an object of names and lists of rows",
    );
    if keys.starts_with(key, '{') {
        let named: Option<InOrder<Vec<usize>>> = keys.take_as(key, forms)?;
        return Ok(named.into_iter().flat_map(|InOrder(named)| named).collect());
    }
    let rows: Option<Vec<usize>> = keys.take_as(key, forms)?;
    Ok(rows.map_or_else(Tokens::default, |rows| {
        Tokens::from([(String::new(), rows)])
    }))
}

pub(super) fn written(tokens: &Tokens) -> Value {
    match tokens.get("") {
        _ if tokens.is_empty() => Value::Null,
        Some(rows) if tokens.len() == 1 => json!(rows),
        _ => json!(tokens),
    }
}

/// The tensor of the rows of the table at `path`.
pub(super) fn delta(path: &str) -> String {
    format!("{PREFIX}{path}.token_adapter.trainable_tokens_delta")
}

/// The rows as indices into a table `[vocabulary, dim]`.
pub(super) fn indices(
    function: &'static str,
    name: &str,
    rows: &[usize],
    table: &Tensor,
) -> Result<Tensor> {
    let problem = |text: String| {
        let text = format!("of `{name}` {text}");
        Error::argument(function, "trainable_token_indices", text)
    };
    let (vocabulary, _) = table.dims2()?;
    let once: BTreeSet<usize> = rows.iter().copied().collect();
    if once.len() != rows.len() || rows.is_empty() {
        return Err(problem(
            "must be one or more rows, each named once".to_string(),
        ));
    }
    if let Some(row) = once.last().filter(|row| **row >= vocabulary) {
        return Err(problem(format!("name row {row} of {vocabulary}")));
    }
    let rows: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
    Ok(Tensor::new(rows, table.device())?)
}

/// The table with these rows instead of its own.
pub(super) fn replaced(
    function: &'static str,
    name: &str,
    rows: &[usize],
    table: &Tensor,
    found: &Tensor,
) -> Result<Tensor> {
    let indices = indices(function, name, rows, table)?.unsqueeze(1)?;
    let indices = indices.broadcast_as(found.shape())?.contiguous()?;
    Ok(table.contiguous()?.scatter(&indices, found, 0)?)
}
