//! The trainer, run whole: every objective from file to picture.

mod adapter_configs;
mod adapters;
mod checkpoint;
mod language;
mod losses;
mod objectives;
mod rows;
mod runs;
mod trl;
mod whole_runs;

// as in the trainer itself
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
