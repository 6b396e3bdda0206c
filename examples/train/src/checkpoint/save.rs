//! A trained model or adapter as a folder.

use super::super::error::Result;
use super::budget::Budget;
use super::load::TRAINED;
use super::staged::staged;
use candle_align::decoder::{Decoder, Save};
use std::path::Path;

/// Writes what was trained into a folder of results: `adapter`, or else `model`, which came from the folder `from`.
pub fn trained(decoder: &Decoder, budget: Option<&Budget>, from: &Path, out: &Path) -> Result<()> {
    match decoder.adapter() {
        Some(_) => adapter(decoder, budget, &out.join("adapter")),
        None => staged(&out.join("model"), |part| model(decoder, from, part)),
    }
}

/// Writes the model, with the tokenizer and the templates of the folder that it came from.
pub fn model(decoder: &Decoder, from: &Path, to: &Path) -> Result<()> {
    let save = Save {
        beside: Some(from.to_path_buf()),
        ..Save::default()
    };
    Ok(decoder.save(to, &save)?)
}

/// Writes the trained adapter; of AdaLoRA, the triplets that are left.
pub fn adapter(decoder: &Decoder, budget: Option<&Budget>, to: &Path) -> Result<()> {
    match budget.and_then(Budget::kept) {
        None => Ok(decoder.save_adapter(TRAINED, to)?),
        Some(kept) => {
            let mut pruned = decoder.clone();
            pruned.set_kept_triplets(TRAINED, kept)?;
            Ok(pruned.save_adapter(TRAINED, to)?)
        }
    }
}
