//! Dora.
