//! The trained rows of a file in the tables of a base.

use super::FUNCTION;
use super::base_model::Tie;
use super::config::PeftConfig;
use super::load::Loader;
use super::tokens::{Tokens, delta, indices, replaced};
use crate::error::{Error, Result};

impl Loader<'_> {
    /// The tables with the trained rows instead of the base's.
    pub(super) fn tokens(&mut self, config: &PeftConfig, tokens: &Tokens) -> Result<()> {
        let mut paths = self.parameters(|name| name.ends_with(".weight"));
        paths
            .iter_mut()
            .for_each(|name| name.truncate(name.len() - ".weight".len()));
        // a tied output layer that shares the rows of the embedding has none of its own
        let mut shared = None;
        if let Tie::Of(embedding, head) = self.tie
            && let Some(rows) = self.shared_rows(config, embedding, head)
        {
            let mut named = tokens
                .iter()
                .filter(|(name, _)| head.ends_with(name.as_str()));
            if named.all(|(_, own)| *own == rows) {
                paths.retain(|path| path != head);
                shared = Some(head);
            }
        }
        for (name, rows) in tokens {
            let mut found = paths.clone();
            match name.as_str() {
                "" => found.retain(|path| self.left.contains_key(&delta(path))),
                name => found.retain(|path| path.ends_with(name)),
            }
            let of_embedding =
                !name.is_empty() && shared.is_some_and(|head| head.ends_with(name.as_str()));
            if found.is_empty() && !of_embedding {
                self.problem(format!(
                    "was made with `trainable_token_indices` of `{name}`, of which `base` holds no \
                     table{}",
                    self.advice(name)
                ))?;
            }
            for path in found {
                self.table(name, &path, rows)?;
            }
        }
        Ok(())
    }

    fn table(&mut self, name: &str, path: &str, rows: &[usize]) -> Result<()> {
        let weight = format!("{path}.weight");
        let table = self.base[&weight].clone();
        if table.rank() != 2 || self.found.layers.contains_key(path) {
            let text =
                format!("of `{name}` are rows of `{path}`, which is no table or has an adapter");
            return Err(Error::argument(FUNCTION, "trainable_token_indices", text));
        }
        indices(FUNCTION, name, rows, &table)?;
        let (delta, shape) = (delta(path), [rows.len(), table.dim(1)?]);
        if let Some(found) = self.take(&delta, &shape)?
            && let Some(found) = self.cast(&delta, &found, &table)?
        {
            let table = replaced(FUNCTION, name, rows, &table, &found)?;
            self.found.weights.insert(weight, table);
        }
        Ok(())
    }
}
