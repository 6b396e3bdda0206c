//! The examples do what their headers say.

#[path = "../../examples/support/mod.rs"]
mod support;

mod transformer;
