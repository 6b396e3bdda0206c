//! Vera.
