//! Alignment data: where instructions come from, how conversations are written, what is kept (survey §2).
//!
//! Everything here is a pure function from texts, scores or rankings to texts, numbers or tokens. A model, a
//! translator or a judge is a closure of the caller; nothing here downloads data or calls a service.
//!
//! | § | method | takes | gives | decides by |
//! |---|---|---|---|---|
//! | 2.1.1 | [templates over benchmarks](tasks) | rows with labels | prompts and completions, several per row | words for labels |
//! | 2.1.2 | [rankings as pairs](rankings::pairs_of_ranking), [ballots merged](rankings::merge_ballots) | ranks; several rankings | pairs; one ranking | order; majorities, the largest first |
//! | 2.2.1 | [Self-Instruct](self_instruct) | generations of a model | new instructions and instances | length, words, ROUGE-L with everything kept |
//! | 2.2.1 | [Evol-Instruct](evol_instruct) | an instruction | a prompt for a harder or a rarer one | an operation drawn; four rules of elimination |
//! | 2.2.1 | [attributed prompts](attributes) | a class, attributes | a prompt | a value drawn for each attribute |
//! | 2.2.1 | [reasons, principles, experts](prompting) | a question | a prompt | – |
//! | 2.2.1 | [role-play](role_play) | a task and two roles | two system messages | – |
//! | 2.2.1 | [Lion](lion) | a judge's scores of teacher and student | hard and easy instructions | the gap between the scores |
//! | 2.2.2 | [chat formats](chat) | messages | tokens and a mask | which turns the loss covers |
//! | 2.2.2 | [self-chat, user simulators](self_chat) | one model or two | messages | a stop text, a limit |
//! | 2.2.3 | [other languages](multilingual) | instructions, a translator | pairs, messages | – |
//! | 2.3 | [mixing] | sizes of datasets | shares, counts, a sample | proportion, cap, temperature |
//! | 2.3 | [selection] | grades, indicators, verdicts | which examples; when to stop | a threshold, a linear rule, a plateau |
//!
//! # Chance
//!
//! Functions that draw take a generator of the crate `rand`. One seed gives one result, on every machine and
//! under one version of that crate.
//!
//! # Prompts
//!
//! A prompt is a [`Template`] with named slots or a fixed form. The defaults are this crate's own short
//! wording: papers' prompts are long, and belong to them. To repeat a paper's run, pass its prompt.
//!
//! # What is read elsewhere
//!
//! Hand-made datasets come as files; the example `train` reads the common formats. Prefixes of classes and
//! chains of revision are in [`language`](crate::language).
//!
//! Read next: [`tasks`], [`self_instruct`], [`chat`], [`mixing`], [`selection`].

pub mod attributes;
pub mod chat;
pub mod evol_instruct;
pub mod lion;
pub mod mixing;
pub mod multilingual;
pub mod prompting;
pub mod rankings;
pub mod role_play;
pub mod selection;
pub mod self_chat;
pub mod self_instruct;
pub mod tasks;
mod template;

pub use tasks::{TaskTemplate, Verbalizer, Written, write_every, write_some};
pub use template::Template;
