//! Stable alignment.
