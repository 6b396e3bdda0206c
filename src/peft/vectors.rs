//! The settings of prompts and prefixes, read and written.

use super::config::{PrefixFile, PromptFile};
use super::keys::Keys;
use crate::error::Result;
use crate::parameter_efficient::prefix::PrefixShape;
use serde_json::{Value, json};

pub(super) fn prompt(keys: &mut Keys) -> Result<PromptFile> {
    one_submodule(keys)?;
    let known = ["\"RANDOM\"", "\"SAMPLE_VOCAB\"", "\"TEXT\"", "null"];
    keys.one_of(
        "prompt_tuning_init",
        &known,
        "it is no way to start a prompt",
    )?;
    keys.take::<String>("prompt_tuning_init_text")?;
    keys.take::<String>("tokenizer_name_or_path")?;
    keys.take::<Value>("tokenizer_kwargs")?;
    Ok(PromptFile {
        length: keys.needed("num_virtual_tokens")?,
        dim: keys.needed("token_dim")?,
        layers: keys.take("num_layers")?,
        heads: keys.take("num_attention_heads")?,
    })
}

pub(super) fn prefix(keys: &mut Keys) -> Result<PrefixFile> {
    one_submodule(keys)?;
    keys.one_of(
        "init_weights",
        &["\"zero\"", "null"],
        "it is \"zero\" or nothing",
    )?;
    // the network that made the values is not in the file
    keys.take::<bool>("prefix_projection")?;
    keys.take::<usize>("encoder_hidden_size")?;
    let (width, heads): (usize, usize) = (
        keys.needed("token_dim")?,
        keys.needed("num_attention_heads")?,
    );
    if heads == 0 || width % heads != 0 {
        let text = format!("holds `token_dim` = {width}, not a multiple of the {heads} heads");
        return Err(keys.problem(text));
    }
    Ok(PrefixFile {
        length: keys.needed("num_virtual_tokens")?,
        shape: PrefixShape {
            layers: keys.needed("num_layers")?,
            heads,
            head_dim: width / heads,
        },
    })
}

fn one_submodule(keys: &mut Keys) -> Result<()> {
    let why = "a prompt of an encoder and a decoder is two prompts";
    keys.idle("num_transformer_submodules", "1", why)?;
    keys.idle("modules_to_save", "null", "only the vectors are read")
}

pub(super) fn prompt_map(file: &PromptFile) -> Value {
    json!({
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": file.length,
        "token_dim": file.dim,
        "num_layers": file.layers,
        "num_attention_heads": file.heads,
        "num_transformer_submodules": 1,
        "modules_to_save": null,
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": null,
        "tokenizer_kwargs": null,
        "tokenizer_name_or_path": null,
    })
}

pub(super) fn prefix_map(file: &PrefixFile) -> Value {
    json!({
        "peft_type": "PREFIX_TUNING",
        "num_virtual_tokens": file.length,
        "token_dim": file.shape.width(),
        "num_layers": file.shape.layers,
        "num_attention_heads": file.shape.heads,
        "num_transformer_submodules": 1,
        "modules_to_save": null,
        "encoder_hidden_size": file.shape.width(),
        "prefix_projection": false,
        "init_weights": null,
    })
}
