//! Prefix.
