//! The trainer, run whole: every objective from file to picture.

mod ada_lora;
mod adapter_configs;
mod adapters;
mod checkpoint;
mod evaluation;
mod folders;
mod kills;
mod language;
mod losses;
mod micro_batches;
mod objectives;
mod online;
mod patterns;
mod references;
mod rows;
mod runs;
mod said;
mod trl;
mod trl_settings;
mod trl_since;
mod whole_runs;
mod world;

// as in the trainer itself
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
