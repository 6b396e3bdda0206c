//! How long a row may be.

use candle_align::decoder::Decoder;
use std::fmt;

/// The positions that a model was made for, and how many of them its adapter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    positions: usize,
    taken: usize,
}

impl Context {
    pub fn of(decoder: &Decoder) -> Self {
        Self {
            positions: decoder.config().longest_row(),
            taken: decoder.virtual_tokens(),
        }
    }

    /// The most tokens of a row.
    pub fn most(self) -> usize {
        self.positions.saturating_sub(self.taken)
    }
}

/// As the end of "… tokens, and the model was made for".
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.positions)?;
        match self.taken {
            0 => Ok(()),
            taken => write!(f, ", of which the adapter's virtual tokens take {taken}"),
        }
    }
}
