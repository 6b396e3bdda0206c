//! From a Hugging Face folder and a file of rows to a trained adapter or model, as TRL's trainers do it.
//!
//! | file | does |
//! |---|---|
//! | [`tokenizer`] | text to ids; the special tokens of a folder |
//! | [`template`] | messages to text, by the folder's chat template |
//! | [`rows`] | rows to ids, masks and a count of what was cut or dropped |
//! | [`context`] | how long a row may be |
//! | [`order`] | which rows each step takes, and how many go through the model at a time |
//! | [`schedule`] | the learning rate of each step |
//! | [`objective`] | the loss of a micro-batch, by what the objectives take |
//! | [`reference`](mod@reference) | the reference, in every step or computed once |
//! | [`fit`], [`update`] | the steps, and what they do with a gradient |
//! | [`record`] | what a step measured, by all ranks |
//! | [`budget`] | AdaLoRA's part of a step |
//! | [`settings`], [`fresh_adapter`], [`fresh_settings`] | every setting with its default; [`settings::fit`] those of the steps, [`settings::objectives`] those of the objectives |
//! | [`load`] | the model, its adapter, the reference |
//! | [`sound`] | whether the model is what the objective takes, and its weights are numbers |
//! | [`named`] | what the library refuses of a setting, before the first step |
//! | [`other_base`] | adapters that were made for another model |
//! | [`prepare`], [`split`] | which rows are trained on, and which are held out |
//! | [`evaluate`] | the scores of held-out rows |
//! | [`store`], [`state`], [`staged`] | checkpoints, and going on from one |
//! | [`hold`], [`guard`] | one run at a time in a folder; what it must not write over |
//! | [`origin`](mod@origin), [`hash`] | whether a run goes on from the files that it began with |
//! | [`log`] | `metrics.jsonl` and `curves.svg` |
//! | [`save`] | the trained model as a folder |
//! | [`given_out`] | what rank 0 gives the other ranks before the first step |
//! | [`start`], [`run`] | a run from start to end; [`summary`] is its result |
//! | [`online`] | a run on the model's own answers |

pub mod budget;
pub mod context;
pub mod evaluate;
pub mod fit;
pub mod fresh_adapter;
pub mod fresh_settings;
pub mod given_out;
pub mod guard;
pub mod hash;
pub mod hold;
pub mod load;
pub mod log;
pub mod named;
pub mod objective;
pub mod online;
pub mod order;
pub mod origin;
pub mod other_base;
pub mod prepare;
pub mod record;
pub mod reference;
pub mod rows;
pub mod run;
pub mod save;
pub mod schedule;
pub mod settings;
pub mod sound;
pub mod split;
pub mod staged;
pub mod start;
pub mod state;
pub mod store;
pub mod summary;
pub mod template;
pub mod tokenizer;
pub mod update;

use super::error::{Error, Result};
use crate::files;
use std::path::Path;

/// The text of a file of the folder, if the file exists.
fn optional_text(path: &Path) -> Result<Option<String>> {
    match files::read(path) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Error::file(path, "is not valid UTF-8")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(path, format!("cannot be read: {error}"))),
    }
}

/// The JSON object in a file of the folder, if the file exists.
fn optional_object(path: &Path) -> Result<Option<super::data::json::Object>> {
    let Some(text) = optional_text(path)? else {
        return Ok(None);
    };
    match serde_json::from_str(&text) {
        Ok(serde_json::Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err(Error::file(path, "must hold a JSON object")),
        Err(error) => Err(Error::json(path, &text, &error)),
    }
}
