//! Alignment evaluation (survey §4): how answers are scored, by whom, and how far the scores can be trusted.
//!
//! | who says what is good | module | survey | takes | gives |
//! |---|---|---|---|---|
//! | the answer is known | [`closed_form`] | §4.1.1 | log-probabilities, texts, counts | accuracy, exact match, pass@k |
//! | a reference text | [`reference_based`] | §4.2.1 | texts, embeddings | BLEU, ROUGE, BERTScore |
//! | people | [`human`] | §4.2.1 | ratings, votes, games | shares, win rates, Elo, Bradley–Terry, agreement |
//! | a language model | [`by_model`] | §4.2.2 | a closure that judges, or what it said | verdicts, calibrated scores, controlled win rates |
//! | nobody: is the judge right | [`meta`] | §4.2.2 | two lists of scores | correlations, by level |
//!
//! # Conventions
//!
//! Everything here is a small function of numbers and texts in f64, without a network, a clock or hidden
//! randomness: what draws takes a seed. A comparison is an [`Outcome`]; a game between two models a [`Game`]. A
//! number with a standard error is an [`Estimate`], a resampled one a [`Spread`].
//!
//! Evaluation is where numbers with one name differ. Each page says which convention it follows, to the letter,
//! and names the others:
//!
//! | number | conventions | here |
//! |---|---|---|
//! | win rate | a tie is half a win, a loss, or no game | [`human::Ties`] |
//! | agreement | with ties (chance 1/3) or without (chance 1/2) | [`human::VoteTies`] |
//! | Elo | K, and the order of the games | [`human::EloConfig`], [`human::elo_over_orders`] |
//! | Bradley–Terry | ties, ridge, anchor | [`human::BradleyTerryConfig`] |
//! | accuracy of multiple choice | sum, per token, per byte, unconditional | [`closed_form::ChoiceScore`] |
//! | BLEU | smoothing, effective order, case | [`reference_based::BleuConfig`] |
//! | ROUGE | stemmer, lines | [`reference_based::Stemmer`], [`reference_based::rouge_l_sum`] |
//! | κ | none, linear, quadratic weights | [`human::KappaWeights`] |
//! | Kendall's τ | b or c | [`meta::KendallVariant`] |
//! | correlation | sample, system, dataset level | [`meta::Grouping`] |
//!
//! # Sources
//!
//! Where a page names code with a version or a commit, that code was read or run, and it is the definition.
//! Papers are named for the idea and were read in summaries.
//!
//! # From judgments to a ranking
//!
//! ```
//! use candle_align::evaluation::by_model::both_orders;
//! use candle_align::evaluation::human::bradley_terry;
//! use candle_align::evaluation::{Game, Outcome};
//!
//! // three models' answers to four prompts, and a judge that prefers the longer answer and is unsure within two letters
//! let answers = [["a", "bbbbbb", "cc", "d"], ["aaaa", "b", "ccc", "ddddd"], ["aaaaaaaa", "bbb", "c", "dddd"]];
//! let judge = |a: &str, b: &str| Ok(match a.len() as i64 - b.len() as i64 {
//!     -2..=2 => Outcome::First, // position bias
//!     difference if difference > 0 => Outcome::First,
//!     _ => Outcome::Second,
//! });
//! let mut games = Vec::new();
//! for prompt in 0..4 {
//!     for (first, second) in [(0, 1), (0, 2), (1, 2)] {
//!         let asked = both_orders(judge, answers[first][prompt], answers[second][prompt])?;
//!         games.push(Game { first, second, outcome: asked.verdict() });
//!     }
//! }
//! let fit = bradley_terry(&games, 3, &Default::default())?;
//! assert!(fit.ratings[2].value > fit.ratings[0].value);
//! # Ok::<(), candle_align::Error>(())
//! ```
//!
//! Read next: [`closed_form`], [`human`], [`by_model`].

pub mod by_model;
pub mod closed_form;
pub mod human;
pub mod meta;
mod outcome;
pub mod reference_based;
mod statistics;

pub use outcome::{Game, Outcome};
pub use statistics::{Estimate, Spread};
