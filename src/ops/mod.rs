//! Operations of a language model, each with a backward pass.

pub mod attention;
