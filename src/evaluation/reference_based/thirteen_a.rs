//! The tokenization of BLEU as machine translation reports it: mteval-v13a.

use crate::text::is_blank;

/// The tokens of a text by the rules of `mteval-v13a.pl`, sacrebleu's default.
///
/// Punctuation is set apart, but a point or a comma between digits stays, and so do hyphens that follow no
/// digit. Line ends become spaces, a hyphen before a line end joins, and four HTML entities are undone. Case
/// is kept.
///
/// ```
/// use candle_align::evaluation::reference_based::tokenize_13a;
///
/// assert_eq!(tokenize_13a("It's 1,000 km (or so), isn't it?").join(" "), "It's 1,000 km ( or so ) , isn't it ?");
/// ```
pub fn tokenize_13a(text: &str) -> Vec<String> {
    let mut line = text.trim_end_matches(is_blank).replace("<skipped>", "");
    line = line.replace("-\n", "").replace('\n', " ");
    for (entity, sign) in [
        ("&quot;", "\""),
        ("&amp;", "&"),
        ("&lt;", "<"),
        ("&gt;", ">"),
    ] {
        line = line.replace(entity, sign);
    }
    let mut spaced = Vec::with_capacity(2 * line.len() + 2);
    for c in format!(" {line} ").chars() {
        match is_apart(c) {
            true => spaced.extend([' ', c, ' ']),
            false => spaced.push(c),
        }
    }
    let digit = |c: char| c.is_ascii_digit();
    let stop = |c: char| c == '.' || c == ',';
    // a point or comma that follows no digit
    let spaced = pairs(
        &spaced,
        |a, b| !digit(a) && stop(b),
        |a, b| [a, ' ', b, ' '],
    );
    // a point or comma that no digit follows
    let spaced = pairs(
        &spaced,
        |a, b| stop(a) && !digit(b),
        |a, b| [' ', a, ' ', b],
    );
    // a hyphen that follows a digit
    let spaced = pairs(
        &spaced,
        |a, b| digit(a) && b == '-',
        |a, b| [a, ' ', b, ' '],
    );
    let text: String = spaced.into_iter().collect();
    let words = text.split(is_blank).filter(|word| !word.is_empty());
    words.map(str::to_string).collect()
}

/// Replaces two neighbors by four characters, from left to right without overlap.
fn pairs(
    text: &[char],
    holds: impl Fn(char, char) -> bool,
    with: impl Fn(char, char) -> [char; 4],
) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 4);
    let mut at = 0;
    while let Some(&a) = text.get(at) {
        match text.get(at + 1) {
            Some(&b) if holds(a, b) => {
                out.extend(with(a, b));
                at += 2;
            }
            _ => {
                out.push(a);
                at += 1;
            }
        }
    }
    out
}

/// The ASCII punctuation that always stands alone: all but ' - . and ,
fn is_apart(c: char) -> bool {
    matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/')
}
