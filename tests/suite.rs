//! The suites that share `common/`, as one program: both compile once.
//!
//! `cargo test --test suite values::dpo` runs one file, `cargo test --test suite -- laws:: gradients::`
//! two suites.
//!
//! Four suites are programs of their own:
//! * `memory/` replaces the allocator of its process;
//! * `files/` starts and kills processes and tests locks, which a process started by another test
//!   inherits for a moment;
//! * `index/` only reads the sources, so it waits for no other suite to compile;
//! * `examples/` compiles the examples.

mod attention;
mod common;
mod decoder;
mod errors;
mod golden;
mod gradients;
mod identities;
mod laws;
mod ops;
mod optimum;
mod precision;
mod values;
