//! A trained model as a folder.

use super::super::error::Result;
use candle_align::decoder::{Decoder, Save};
use std::path::Path;

/// Writes the model, with the tokenizer and the templates of the folder that it came from.
pub fn model(decoder: &Decoder, from: &Path, to: &Path) -> Result<()> {
    let save = Save {
        beside: Some(from.to_path_buf()),
        ..Save::default()
    };
    Ok(decoder.save(to, &save)?)
}
