//! Qlora.
