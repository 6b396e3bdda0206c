//! Rows of a table that were trained on their own: `trainable_token_indices`.

use super::PREFIX;
use super::keys::Keys;
use super::load::{FUNCTION, Loader};
use super::unique::Unique;
use crate::{Error, Result};
use candle_core::Tensor;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// By the end of a module's path, or the empty name: which rows.
pub(super) type Tokens = BTreeMap<String, Vec<usize>>;

/// As they stand in a file: a list of rows, or rows by name.
pub(super) fn read(keys: &mut Keys) -> Result<Tokens> {
    let (key, forms) = (
        "trainable_token_indices",
        "a list of rows, or an object of names and lists of rows",
    );
    if keys.starts_with(key, '{') {
        let named: Option<Unique<Vec<usize>>> = keys.take_as(key, forms)?;
        return Ok(named.map_or_else(Tokens::default, |Unique(named)| named));
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

/// The rows as the indices of a table `[vocabulary, dim]`.
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

impl Loader<'_> {
    /// The tables with the trained rows in the place of the base's.
    pub(super) fn tokens(&mut self, tokens: &Tokens) -> Result<()> {
        let base = self.base;
        let mut paths: Vec<&str> = base
            .keys()
            .filter_map(|name| name.strip_suffix(".weight"))
            .collect();
        paths.sort();
        for (name, rows) in tokens {
            let mut found = paths.clone();
            match name.as_str() {
                "" => found.retain(|path| self.left.contains_key(&delta(path))),
                name => found.retain(|path| path.ends_with(name)),
            }
            if found.is_empty() {
                self.problem(format!(
                    "was made with `trainable_token_indices` of `{name}`, of which `base` holds no \
                     table"
                ))?;
            }
            for path in found {
                self.table(name, path, rows)?;
            }
        }
        Ok(())
    }

    fn table(&mut self, name: &str, path: &str, rows: &[usize]) -> Result<()> {
        let weight = format!("{path}.weight");
        let table = &self.base[&weight];
        if table.rank() != 2 || self.found.layers.contains_key(path) {
            let text =
                format!("of `{name}` are rows of `{path}`, which is no table or has an adapter");
            return Err(Error::argument(FUNCTION, "trainable_token_indices", text));
        }
        let indices = indices(FUNCTION, name, rows, table)?;
        let shape = [rows.len(), table.dim(1)?];
        if let Some(found) = self.take(&delta(path), &shape)? {
            let found = found.to_dtype(table.dtype())?.to_device(table.device())?;
            let indices = indices.unsqueeze(1)?.broadcast_as(&shape)?.contiguous()?;
            let table = table.contiguous()?.scatter(&indices, &found, 0)?;
            self.found.weights.insert(weight, table);
        }
        Ok(())
    }
}
