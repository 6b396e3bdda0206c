//! Brio.
