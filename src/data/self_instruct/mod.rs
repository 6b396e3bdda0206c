//! Self-Instruct: a model writes its own instructions, and rules keep the useful ones (survey §2.2.1).
//!
//! ```text
//! 175 seeds ─► bootstrap_prompt ─► model ─► split_generation ─► InstructionFilter ─► InstructionPool ─┐
//!                    ▲                                                                               │
//!                    └────────────── 6 seeds and 2 generated instructions of 8 ─────────────────────┤
//!                                                                                                    ▼
//!                         clean ◄─ generation_instances, classification_instances ◄─ model ◄─ instance_prompt
//! ```
//!
//! | step | function | refuses |
//! |---|---|---|
//! | ask for instructions | [`bootstrap_prompt`](prompt::bootstrap_prompt) | – |
//! | read them | [`split_generation`](filter::split_generation) | a generation that was cut off |
//! | rules for one instruction | [`InstructionFilter`](filter::InstructionFilter) | too short, too long, banned words, a strange first character |
//! | rules for all of them | [`InstructionPool`](pool::InstructionPool) | ROUGE-L above 0.7 with any kept one |
//! | ask for instances | [`instance_prompt`](prompt::instance_prompt) | – |
//! | read them | [`generation_instances`](instances::generation_instances), [`classification_instances`](instances::classification_instances) | the last one of a text that was cut off |
//! | rules for the instances of a task | [`clean`](instances::clean) | input = output, no output, a colon at the end, two outputs to one input |

pub mod filter;
pub mod instances;
pub mod pool;
pub mod prompt;
