//! A folder's tokenizer and its special tokens.

use super::super::data::json::{self, Object};
use super::super::error::{Error, Result};
use super::{optional_object, optional_text};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tokenizers::AddedToken;

/// The file with the vocabulary and the rules.
const FILE: &str = "tokenizer.json";
/// The file with the names of special tokens.
const CONFIG: &str = "tokenizer_config.json";
/// An older file with such names.
const MAP: &str = "special_tokens_map.json";

/// A token by its text and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub id: u32,
}

/// Ids, each with the bytes of the text that it covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    pub ids: Vec<u32>,
    pub bytes: Vec<Range<usize>>,
}

/// A tokenizer as Transformers reads it from a folder.
///
/// `tokenizer.json` alone decides how a text becomes ids; `add_bos_token` and `add_eos_token` in
/// `tokenizer_config.json` change nothing. Tokenizer classes of single models may rebuild parts of the
/// file in Python: compare the ids of a few texts per checkpoint.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    folder: PathBuf,
    /// `bos_token`, `eos_token` and the others, by name.
    special: BTreeMap<String, Token>,
    /// The ids that end an answer in the generation settings of the model.
    ends: Vec<u32>,
}

impl Tokenizer {
    /// Reads the tokenizer of a folder.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = optional_text(&path)?.ok_or_else(|| {
            let problem = "is missing; save the tokenizer with a current version of Transformers";
            Error::file(&path, problem)
        })?;
        let mut inner: tokenizers::Tokenizer = text.parse().map_err(|error| {
            Error::file(
                &path,
                format!("is not a tokenizer that can be read: {error}"),
            )
        })?;
        // a file may ask for both, and training needs whole rows
        let failed =
            |error| Error::file(&path, format!("has a setting that cannot be used: {error}"));
        inner.with_truncation(None).map_err(failed)?;
        inner.with_padding(None);
        let mut it = Self {
            inner,
            folder: folder.to_path_buf(),
            special: BTreeMap::new(),
            ends: Vec::new(),
        };
        it.read_special(CONFIG)?;
        it.read_special(MAP)?;
        it.ends = it.read_ends()?;
        Ok(it)
    }

    /// Takes over the named special tokens of a file; those of an earlier file win.
    fn read_special(&mut self, file: &str) -> Result<()> {
        let path = self.folder.join(file);
        let Some(object) = optional_object(&path)? else {
            return Ok(());
        };
        let entries = object
            .iter()
            .filter(|(name, value)| name.ends_with("_token") && !value.is_null());
        for (name, value) in entries {
            let text = match value {
                // add_bos_token and its kind
                Value::Bool(_) => continue,
                Value::Object(token) => json::text(token, &format!("{name}."), "content"),
                value => json::as_text(value, name),
            };
            let text = text.map_err(|problem| Error::file(&path, problem))?;
            if !self.special.contains_key(name) {
                let token = self.special_token(&path, name, text)?;
                self.special.insert(name.clone(), token);
            }
        }
        for (id, token) in added(&object, &path)? {
            if self.inner.token_to_id(&token) != Some(id) {
                let problem = format!(
                    "`added_tokens_decoder.{id}` is `{token}`, and {FILE} has no such token with this id"
                );
                return Err(Error::file(&path, problem));
            }
        }
        Ok(())
    }

    /// A named token; it is found in a text as a whole from now on.
    fn special_token(&mut self, path: &Path, name: &str, text: &str) -> Result<Token> {
        let id = self.inner.token_to_id(text).ok_or_else(|| {
            let problem = format!("`{name}` is `{text}`, which is no token of {FILE}");
            Error::file(path, problem)
        })?;
        let known = self.inner.get_added_vocabulary().get_vocab();
        if !known.contains_key(text) {
            let token = AddedToken::from(text.to_string(), true);
            self.inner.add_special_tokens([token]).map_err(|error| {
                Error::file(path, format!("`{name}` cannot be a special token: {error}"))
            })?;
        }
        Ok(Token {
            text: text.to_string(),
            id,
        })
    }

    fn read_ends(&self) -> Result<Vec<u32>> {
        let mut ends: Vec<u32> = self.eos().into_iter().map(|token| token.id).collect();
        for file in ["generation_config.json", "config.json"] {
            let path = self.folder.join(file);
            let Some(object) = optional_object(&path)? else {
                continue;
            };
            let found = match json::field(&object, "eos_token_id") {
                None => continue,
                Some(Value::Array(list)) => list.clone(),
                Some(one) => vec![one.clone()],
            };
            for value in found {
                let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
                let id = id.ok_or_else(|| {
                    let problem = format!(
                        "`eos_token_id` must be a token or a list of tokens, found {value}"
                    );
                    Error::file(&path, problem)
                })?;
                if !ends.contains(&id) {
                    ends.push(id);
                }
            }
            // the generation settings win over the model's
            break;
        }
        Ok(ends)
    }

    /// A text to ids, with what the post-processor of `tokenizer.json` adds, such as a first token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.run(text, true)?.ids)
    }

    /// A rendered chat template to ids: the template writes all special tokens itself, so none is added.
    pub fn encode_rendered(&self, text: &str) -> Result<Encoded> {
        self.run(text, false)
    }

    fn run(&self, text: &str, add: bool) -> Result<Encoded> {
        let encoding = self.inner.encode(text, add).map_err(|error| {
            Error::file(
                &self.folder.join(FILE),
                format!("cannot encode a text: {error}"),
            )
        })?;
        let bytes = encoding.get_offsets().iter().map(|&(from, to)| from..to);
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            bytes: bytes.collect(),
        })
    }

    /// Ids to a text, special tokens included.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, false).map_err(|error| {
            Error::file(
                &self.folder.join(FILE),
                format!("cannot decode ids: {error}"),
            )
        })
    }

    /// The named special tokens, as a chat template sees them.
    pub fn special(&self) -> &BTreeMap<String, Token> {
        &self.special
    }

    pub fn bos(&self) -> Option<&Token> {
        self.special.get("bos_token")
    }

    pub fn eos(&self) -> Option<&Token> {
        self.special.get("eos_token")
    }

    /// The token that ends a plain row.
    pub fn required_eos(&self) -> Result<&Token> {
        self.eos().ok_or_else(|| {
            let problem = "`eos_token` is missing, and rows of plain text must end with it";
            Error::file(&self.folder.join(CONFIG), problem)
        })
    }

    /// The token that fills short rows: `pad_token`, else `eos_token`, as in TRL.
    pub fn pad(&self) -> Option<&Token> {
        self.special.get("pad_token").or_else(|| self.eos())
    }

    /// The ids that end an answer: `eos_token`, then those of `generation_config.json`, or else of
    /// `config.json`.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The token of an id, for messages.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

/// The tokens of `added_tokens_decoder`, by id.
fn added(object: &Object, path: &Path) -> Result<Vec<(u32, String)>> {
    let name = "added_tokens_decoder";
    let Some(value) = json::field(object, name) else {
        return Ok(Vec::new());
    };
    let read = || -> Result<Vec<(u32, String)>, String> {
        let mut list = Vec::new();
        for (id, token) in json::as_object(value, name)? {
            let at = format!("{name}.{id}");
            let number = id
                .parse()
                .map_err(|_| format!("`{at}` must be an id, found `{id}`"))?;
            let token = json::as_object(token, &at)?;
            list.push((
                number,
                json::text(token, &format!("{at}."), "content")?.to_string(),
            ));
        }
        Ok(list)
    };
    read().map_err(|problem| Error::file(path, problem))
}
