//! What an adapter means on a tied table: PEFT's rule, and the questions that a state dict leaves open.

use super::FUNCTION;
use super::base_model::{Tie, same};
use super::config::{AdapterMethod, PeftConfig, TaskType};
use super::load::Loader;
use super::saved::Saved;
use super::tokens::{self, replaced};
use super::{AnyAdapter, PREFIX};
use crate::error::{Error, Result};
use candle_core::Tensor;

/// The last names of transformers' input tables and of output layers.
const EMBEDDINGS: [&str; 6] = [
    "embed_tokens",
    "wte",
    "word_embeddings",
    "embed_in",
    "tok_embeddings",
    "shared",
];
const HEADS: [&str; 4] = ["lm_head", "embed_out", "output_layer", "output"];

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Whether a module is outside the numbered layers.
fn outside(path: &str) -> bool {
    path.split('.').all(|part| part.parse::<usize>().is_err())
}

impl Loader<'_> {
    /// Gives the two names of a tied table what PEFT gives them before any adapter is on: the table
    /// that the file holds, and for the output layer also the embedding's trained rows.
    pub(super) fn share(&mut self, config: &PeftConfig, saved: &Saved) -> Result<()> {
        let Tie::Of(embedding, head) = self.tie else {
            return Ok(());
        };
        let weight = |path: &str| format!("{path}.weight");
        let names = [weight(embedding), weight(head)];
        let mut table: Option<(String, Tensor)> = None;
        for (path, name) in [embedding, head].into_iter().zip(&names) {
            if saved.holds(name) {
                continue; // a copy of its own
            }
            let file = match self.chosen(path) {
                true => format!("{PREFIX}{path}.base_layer.weight"),
                false => format!("{PREFIX}{name}"),
            };
            let base = self.base[name].clone();
            let found = self.left.get(&file).cloned();
            let Some(found) = found.filter(|found| found.dims() == base.dims()) else {
                continue; // of another shape it is named where it is read
            };
            let Some(found) = self.cast(&file, &found, &base)? else {
                continue;
            };
            if let Some((other, table)) = &table
                && !same(table, &found)?
            {
                let text = format!(
                    "holds `{other}` and `{file}`, which differ, and `base` has one table for both"
                );
                return Err(Error::argument(FUNCTION, super::TENSORS, text));
            }
            table = Some((file, found));
        }
        if let Some((_, table)) = table {
            for name in names.iter().filter(|name| !saved.holds(name)) {
                self.base.to_mut().insert(name.clone(), table.clone());
            }
        }
        if let Some(rows) = self.shared_rows(config, embedding, head) {
            if saved.holds(&names[1]) {
                let text = format!(
                    "trains rows of `{embedding}`, to which `{head}` is tied, and `{head}` whole: \
                     PEFT makes no model of both"
                );
                return Err(Error::argument(FUNCTION, "trainable_token_indices", text));
            }
            let base = self.base[&names[0]].clone();
            let delta = tokens::delta(embedding);
            let found = self.left.get(&delta).cloned();
            let fits = |t: &Tensor| base.rank() == 2 && t.dims() == [rows.len(), base.dims()[1]];
            if let Some(found) = found.filter(fits)
                && let Some(found) = self.cast(&delta, &found, &base)?
            {
                let table = replaced(FUNCTION, last(embedding), &rows, &base, &found)?;
                self.base.to_mut().insert(names[1].clone(), table);
            }
        }
        Ok(())
    }

    /// The rows of the embedding, if a tied output layer shares them: it has no rows of its own.
    pub(super) fn shared_rows(
        &self,
        config: &PeftConfig,
        embedding: &str,
        head: &str,
    ) -> Option<Vec<usize>> {
        let AdapterMethod::Lora(file) = &config.method else {
            return None;
        };
        let of = |path: &str| {
            let mut tokens = file.tokens.iter();
            let found = tokens.find(|(name, _)| path.ends_with(name.as_str()));
            found.map(|(_, rows)| rows)
        };
        let given = |path| self.file.contains(&tokens::delta(path));
        let rows = of(embedding).filter(|_| given(embedding) && !given(head))?;
        Some(rows.clone())
    }

    /// The tensor under the name of a tied table that the adapter itself does not change.
    pub(super) fn untie(&mut self, config: &PeftConfig) {
        let Tie::Of(embedding, head) = self.tie else {
            return;
        };
        let touched = [embedding, head].iter().any(|path| {
            let weight = self.found.weights.contains_key(&format!("{path}.weight"));
            weight || self.found.layers.contains_key(*path)
        });
        if !touched {
            return;
        }
        let follows = self.shared_rows(config, embedding, head).is_some();
        for (path, other) in [(head, embedding), (embedding, head)] {
            let (name, other) = (format!("{path}.weight"), format!("{other}.weight"));
            let table = &self.base[&name];
            let given = self.given.get(&name).map(Tensor::id);
            if self.found.weights.contains_key(&name) || given == Some(table.id()) {
                continue;
            }
            let changed = self.found.weights.get(&other);
            // one tensor for both, if they are still one table
            let shared = changed.filter(|t| follows || t.id() == table.id());
            let table = shared.unwrap_or(table).clone();
            self.found.tied.insert(name, table);
        }
    }

    /// Cases in which nobody said whether the base is tied, and the adapter means one thing if it is and
    /// another if it is not.
    pub(super) fn doubts(&mut self, config: &PeftConfig, saved: &Saved) -> Result<()> {
        if !matches!(self.tie, Tie::Unsaid) {
            return Ok(());
        }
        let tables = self.found.weights.keys().chain(
            // the base's table stays under them
            self.found.layers.iter().filter_map(|(path, layer)| {
                matches!(layer, AnyAdapter::LoraEmbedding(_)).then_some(path)
            }),
        );
        let mut tables: Vec<String> = tables
            .map(|name| name.trim_end_matches(".weight").to_string())
            .filter(|path| outside(path))
            .collect();
        tables.sort();
        tables.dedup();
        for path in tables {
            let name = format!("{path}.weight");
            let Some(base) = self.base.get(&name).filter(|t| t.rank() == 2).cloned() else {
                continue;
            };
            let beside: Vec<String> = self
                .base
                .iter()
                .filter(|(other, tensor)| {
                    let module = other.strip_suffix(".weight");
                    **other != name && module.is_some_and(outside) && tensor.dims() == base.dims()
                })
                .map(|(other, _)| other.clone())
                .collect();
            if beside.is_empty() {
                self.without_head(config, &path, saved.holds(&name))?;
            }
            let changed = match self.found.weights.get(&name) {
                Some(found) if !saved.holds(&name) => !same(found, &base)?,
                _ => false, // of a tied table too it is the one that is changed
            };
            for other in beside.iter().filter(|_| changed) {
                if !self.found.weights.contains_key(other) && same(&self.base[other], &base)? {
                    self.doubt(&format!(
                        "holds one table as `{name}` and as `{other}`, and the adapter changes \
                         `{name}`: of a tied model it changes both"
                    ))?;
                }
            }
        }
        Ok(())
    }

    /// An embedding under an adapter, or trained as a whole, in a model whose output layer is not there.
    fn without_head(&mut self, config: &PeftConfig, path: &str, saved: bool) -> Result<()> {
        use TaskType::{CausalLanguageModel, SequenceToSequence};
        let speaks = [None, Some(CausalLanguageModel), Some(SequenceToSequence)];
        let alone = saved || self.found.layers.contains_key(path);
        if !alone || !EMBEDDINGS.contains(&last(path)) || !speaks.contains(&config.task) {
            return Ok(());
        }
        self.doubt(&format!(
            "holds `{path}.weight` and no output layer of its shape: of a tied model the output \
             layer keeps the table that the adapter changes"
        ))
    }

    fn doubt(&mut self, text: &str) -> Result<()> {
        let text = format!("{text}; say whether they are tied, by `BaseModel::tied` or `untied`");
        self.question("base", text)
    }

    /// What may help if the base lacks the weight of this module: an embedding whose name is missing.
    pub(super) fn advice(&self, path: &str) -> String {
        let Some(table) = self.table_for(path) else {
            return String::new();
        };
        format!(
            "; if the model ties it to `{table}`, say so: `BaseModel::tied(&base, \"{table}\", \"{path}\")`"
        )
    }

    fn table_for(&self, path: &str) -> Option<&str> {
        if !HEADS.contains(&last(path)) {
            return None;
        }
        let mut tables: Vec<&str> = self
            .base
            .iter()
            .filter(|(_, tensor)| tensor.rank() == 2)
            .filter_map(|(name, _)| name.strip_suffix(".weight"))
            .filter(|path| {
                outside(path) && (EMBEDDINGS.contains(&last(path)) || last(path).contains("embed"))
            })
            .collect();
        tables.sort();
        tables.first().copied()
    }
}
