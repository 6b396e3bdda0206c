//! The sizes in a file's settings, checked before anything is allocated for them.

use super::config::AdapterMethod;
use super::keys::Keys;
use crate::error::{Result, shown};
use crate::shape::LONGEST;

/// An error, with file and key, for a size beyond the limits of the settings.
pub(super) fn check(keys: &Keys, method: &AdapterMethod) -> Result<()> {
    let refuse = |key: &str, of: String, size: usize| match (1..=LONGEST).contains(&size) {
        true => Ok(()),
        false => Err(keys.problem(format!(
            "holds `{key}` = {size}{of}; a size is from 1 to {LONGEST}"
        ))),
    };
    let each = |sizes: &[(&str, usize)]| {
        let mut sizes = sizes.iter();
        sizes.try_for_each(|(key, size)| refuse(key, String::new(), *size))
    };
    match method {
        AdapterMethod::Lora(file) => {
            each(&[("r", file.model.config.rank)])?;
            let mut ranks = file.model.rank_pattern.iter();
            ranks.try_for_each(|(key, rank)| {
                refuse("rank_pattern", format!(" for `{}`", shown(key)), *rank)
            })
        }
        AdapterMethod::AdaLora(file) => each(&[("init_r", file.model.config.rank)]),
        AdapterMethod::Vera(file) => each(&[("r", file.model.config.rank)]),
        AdapterMethod::Ia3(_) => Ok(()),
        AdapterMethod::Prompt(file) => each(&[
            ("num_virtual_tokens", file.length),
            ("token_dim", file.dim),
            ("num_layers", file.layers.unwrap_or(1)),
            ("num_attention_heads", file.heads.unwrap_or(1)),
        ]),
        AdapterMethod::Prefix(file) => each(&[
            ("num_virtual_tokens", file.length),
            ("token_dim", file.shape.width()),
            ("num_layers", file.shape.layers),
            ("num_attention_heads", file.shape.heads),
        ]),
    }
}
