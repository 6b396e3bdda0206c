//! The tokens that write edits.

use super::Folder;
use candle_align::language::second_thoughts::EditTokens;

/// The tokens of edits: those that are named, each of which must be one token, or else control characters
/// that no text has.
pub fn edit_tokens(folder: &Folder, named: Option<&[String]>) -> Result<EditTokens, String> {
    let ids = |text: &str| folder.tokenizer.encode_rendered(text).map(|all| all.ids);
    let mut found = Vec::new();
    match named {
        Some(named) => {
            for text in named {
                match ids(text).map_err(|error| error.to_string())?.as_slice() {
                    [id] => found.push(*id),
                    other => {
                        return Err(format!(
                            "`edit_tokens` has {text:?}, which is {} tokens and must be one",
                            other.len()
                        ));
                    }
                }
            }
        }
        None => {
            let control = (0u8..32).filter(|byte| !byte.is_ascii_whitespace());
            for byte in control {
                let text = char::from(byte).to_string();
                if let [id] = ids(&text).map_err(|error| error.to_string())?.as_slice()
                    && !found.contains(id)
                {
                    found.push(*id);
                }
            }
        }
    }
    let Some(
        [
            separator,
            insert,
            delete,
            replace,
            content,
            target,
            digits @ ..,
        ],
    ) = found.first_chunk::<16>()
    else {
        return Err(format!(
            "second_thoughts needs 16 tokens that no answer has, and the tokenizer has {} control \
             characters: name 16 tokens by `edit_tokens`",
            found.len()
        ));
    };
    let tokens = EditTokens {
        separator: *separator,
        insert: *insert,
        delete: *delete,
        replace: *replace,
        content: *content,
        target: *target,
        digits: *digits,
    };
    let mut different = all(&tokens).to_vec();
    different.sort_unstable();
    different.dedup();
    match different.len() {
        16 => Ok(tokens),
        _ => Err("`edit_tokens` must be 16 different tokens".to_string()),
    }
}

/// An error for a text whose tokens could be taken for edits.
pub fn without_edits(folder: &Folder, ids: &[u32], tokens: &EditTokens) -> Result<(), String> {
    match ids.iter().find(|id| all(tokens).contains(id)) {
        None => Ok(()),
        Some(id) => {
            let token = folder.tokenizer.token(*id).unwrap_or_default();
            Err(format!(
                "has the token {id} (`{token}`) in an answer, which writes edits: name other ones by \
                 `edit_tokens`"
            ))
        }
    }
}

fn all(tokens: &EditTokens) -> [u32; 16] {
    let mut all = [0; 16];
    all[..6].copy_from_slice(&[
        tokens.separator,
        tokens.insert,
        tokens.delete,
        tokens.replace,
        tokens.content,
        tokens.target,
    ]);
    all[6..].copy_from_slice(&tokens.digits);
    all
}
