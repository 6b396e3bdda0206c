//! Text with named slots, the form of every prompt in this room.
//!
//! `{name}` is a slot, `{{` and `}}` are braces. A slot that is not filled is an error, never an empty text.

use crate::error::{Error, Result, shown};
use serde::{Deserialize, Serialize};

/// A text with slots.
///
/// # Examples
/// ```
/// use candle_align::data::Template;
///
/// let template = Template::new("{premise} So {{}} {hypothesis}?")?;
/// assert_eq!(template.slots(), ["premise", "hypothesis"]);
/// let text = template.fill(&[("premise", "It rains."), ("hypothesis", "the street is wet")])?;
/// assert_eq!(text, "It rains. So {} the street is wet?");
/// assert!(template.fill(&[("premise", "It rains.")]).is_err());
/// # Ok::<(), candle_align::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Slot(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`Error::Argument`] for a brace without its counterpart, or a slot whose name is empty or has a
    /// blank or a brace in it.
    pub fn new(text: &str) -> Result<Self> {
        let wrong = |at: usize, problem: &str| {
            let at = text[..at].chars().count();
            let problem = format!("{problem} at character {at} of `{}`", shown(text));
            Err(Error::argument("Template::new", "text", problem))
        };
        let (mut pieces, mut plain) = (Vec::new(), String::new());
        let mut at = 0;
        while let Some(c) = text[at..].chars().next() {
            let rest = &text[at + c.len_utf8()..];
            match c {
                '{' | '}' if rest.starts_with(c) => {
                    plain.push(c);
                    at += 2;
                }
                '}' => return wrong(at, "has `}` without `{`; write `}}` for a brace"),
                '{' => {
                    let Some(end) = rest.find('}') else {
                        return wrong(at, "has `{` without `}`; write `{{` for a brace");
                    };
                    let name = &rest[..end];
                    if name.is_empty() || name.contains(|c: char| c == '{' || c.is_whitespace()) {
                        return wrong(at, "has a slot without a proper name");
                    }
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(Piece::Slot(name.to_string()));
                    at += end + 2;
                }
                _ => {
                    plain.push(c);
                    at += c.len_utf8();
                }
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self {
            text: text.to_string(),
            pieces,
        })
    }

    /// The names of the slots, each once, in the order of the text.
    pub fn slots(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Slot(name) if !names.contains(&name.as_str()) => names.push(name),
                _ => (),
            }
        }
        names
    }

    /// The text with every slot filled. Values are not read as templates again.
    ///
    /// # Errors
    /// [`Error::Argument`] if a slot has no value, or if a name has two.
    pub fn fill(&self, values: &[(&str, &str)]) -> Result<String> {
        let function = "Template::fill";
        if let Some(name) = twice(values.iter().map(|(name, _)| *name)) {
            let problem = format!("has two values for `{}`", shown(name));
            return Err(Error::argument(function, "values", problem));
        }
        let value = |slot: &str| {
            let found = values.iter().find(|(name, _)| *name == slot);
            found.map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
                let (slot, names) = (shown(slot), names.join("`, `"));
                let problem =
                    format!("have no `{slot}`, which the template asks for; there are `{names}`");
                Error::argument(function, "values", problem)
            })
        };
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Slot(name) => text.push_str(value(name)?),
            }
        }
        Ok(text)
    }

    /// Rejects a template that leaves out one of these slots, or asks for another.
    pub(super) fn require(
        &self,
        function: &'static str,
        field: &str,
        slots: &[&str],
    ) -> Result<()> {
        let own = self.slots();
        let missing = slots.iter().find(|slot| !own.contains(slot));
        let other = own.iter().find(|slot| !slots.contains(slot));
        let problem = match (missing, other) {
            (Some(slot), _) => format!("has no slot `{{{slot}}}`, so its value would be lost"),
            (None, Some(slot)) => {
                let slots = slots.join("}`, `{");
                format!("has a slot `{{{}}}`; there are `{{{slots}}}`", shown(slot))
            }
            (None, None) => return Ok(()),
        };
        Err(Error::argument(function, field, problem))
    }
}

/// A name that comes twice.
pub(super) fn twice<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = std::collections::HashSet::new();
    names.find(|name| !seen.insert(*name))
}

impl TryFrom<String> for Template {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.text
    }
}

/// A default of this room: a text whose braces are slots and nothing else.
pub(super) fn known(text: &str) -> Template {
    let parts = text.split(['{', '}']).enumerate();
    let piece = |(i, part): (usize, &str)| match i % 2 {
        0 => Piece::Text(part.to_string()),
        _ => Piece::Slot(part.to_string()),
    };
    let pieces = parts.filter(|(i, part)| i % 2 == 1 || !part.is_empty());
    Template {
        pieces: pieces.map(piece).collect(),
        text: text.to_string(),
    }
}
