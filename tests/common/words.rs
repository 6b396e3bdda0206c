//! Text for tests: one token per byte, and sequences as text again.

use candle_align::{Result, Sequence};

/// One token per byte.
pub fn bytes(text: &str) -> Result<Vec<u32>> {
    Ok(text.bytes().map(u32::from).collect())
}

/// The end of an answer in tests, a byte that shows.
pub const END: u32 = b'$' as u32;

/// All tokens as text.
pub fn text(sequence: &Sequence) -> String {
    words(sequence.tokens())
}

/// Tokens as text.
pub fn words(tokens: &[u32]) -> String {
    tokens.iter().map(|&t| char::from(t as u8)).collect()
}

/// The text with `_` in place of what is given.
pub fn learned(sequence: &Sequence) -> String {
    let shown = |(&token, &mask): (&u32, &u8)| match mask {
        0 => '_',
        _ => char::from(token as u8),
    };
    let (tokens, mask) = (sequence.tokens(), sequence.mask());
    assert_eq!(tokens.len(), mask.len());
    tokens.iter().zip(mask).map(shown).collect()
}
