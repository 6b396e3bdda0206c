//! Expected risk.
