//! `{% generation %}` blocks: what the assistant says, as spans of the text.
//!
//! minijinja does not know the block. It becomes a `call` block, which has the same scope and leaves the
//! same blanks, and a function puts two marks around its text.

use super::Rendered;
use minijinja::{Value, value::ValueKind};

/// The function that the blocks call.
pub const FUNCTION: &str = "__generation";

/// The marks around a block: two code points that no text should have.
const MARKS: (char, char) = ('\u{fdd0}', '\u{fdd1}');

/// The template with call blocks, and whether it has any. Lines stay where they are.
pub fn rewrite(source: &str) -> (String, bool) {
    let (mut out, mut rest, mut found) = (String::new(), source, false);
    while let Some(at) = rest.find('{') {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let length = match tag.as_bytes().get(1) {
            Some(b'#') => tag.find("#}").map_or(tag.len(), |end| end + 2),
            Some(b'{') => end(&tag[2..], "}}") + 2,
            Some(b'%') => end(&tag[2..], "%}") + 2,
            _ => 1,
        };
        let (tag, after) = tag.split_at(length);
        rest = after;
        match word(tag) {
            "generation" => {
                found = true;
                let call = format!("call {FUNCTION}()");
                out.push_str(&tag.replacen("generation", &call, 1));
            }
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endcall", 1)),
            "raw" => {
                out.push_str(tag);
                let end = end_of_raw(rest);
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            _ => out.push_str(tag),
        }
    }
    out.push_str(rest);
    (out, found)
}

/// The word of a block tag that has only one; the first word of another.
fn word(tag: &str) -> &str {
    let Some(inner) = tag
        .strip_prefix("{%")
        .and_then(|tag| tag.strip_suffix("%}"))
    else {
        return "";
    };
    let signs = ['-', '+'];
    inner.trim_matches(signs).trim()
}

/// The end of a tag, behind its closing marks; a text in quotes does not close it.
fn end(inner: &str, close: &str) -> usize {
    let mut quote = None;
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                chars.next();
            }
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, _) if inner[at..].starts_with(close) => return at + close.len(),
            (None, _) => {}
        }
    }
    inner.len()
}

fn end_of_raw(rest: &str) -> usize {
    let mut from = 0;
    while let Some(at) = rest[from..].find("{%") {
        let start = from + at;
        let stop = start + 2 + end(&rest[start + 2..], "%}");
        if word(&rest[start..stop]) == "endraw" {
            return start;
        }
        from = start + 2;
    }
    rest.len()
}

/// A text between marks.
pub fn marked(body: &str) -> String {
    format!("{}{body}{}", MARKS.0, MARKS.1)
}

/// Whether a value has a text with a mark.
pub fn occurs_in(value: &Value) -> bool {
    match value.kind() {
        ValueKind::String => value
            .as_str()
            .is_some_and(|text| text.contains([MARKS.0, MARKS.1])),
        ValueKind::Seq => value
            .try_iter()
            .is_ok_and(|mut list| list.any(|item| occurs_in(&item))),
        ValueKind::Map => value.try_iter().is_ok_and(|mut keys| {
            keys.any(|key| {
                occurs_in(&key) || value.get_item(&key).is_ok_and(|item| occurs_in(&item))
            })
        }),
        _ => false,
    }
}

/// The text without marks, and what was between them. Of nested blocks the outermost counts, and empty
/// ones do not.
pub fn spans(text: &str) -> Rendered {
    let mut it = Rendered::default();
    let mut open = Vec::new();
    for c in text.chars() {
        if c == MARKS.0 {
            open.push(it.text.len());
        } else if c == MARKS.1 {
            match open.pop() {
                Some(from) if open.is_empty() && from < it.text.len() => {
                    it.spans.push(from..it.text.len());
                }
                _ => {}
            }
        } else {
            it.text.push(c);
        }
    }
    it
}
