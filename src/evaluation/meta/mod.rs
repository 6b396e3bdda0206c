//! Meta-evaluation: whether a metric, or a judge, ranks answers as people do.
//!
//! | question | correlation | here |
//! |---|---|---|
//! | do the numbers lie on a line | Pearson's r | [`pearson`] |
//! | is the order the same | Spearman's ρ, Kendall's τ | [`spearman`], [`kendall`] |
//! | within each input, among systems | any of them, averaged over inputs | [`correlate`] at [`Grouping::Sample`] |
//! | among systems, by their means | any of them | [`correlate`] at [`Grouping::System`] |
//! | over all answers at once | any of them | [`correlate`] at [`Grouping::Dataset`] |
//!
//! A metric can rank systems well and answers badly: state the level beside the number.
//!
//! Read next: [`kendall`], [`correlate`].

mod correlation;
mod levels;

pub use correlation::{Correlation, KendallVariant, kendall, pearson, spearman};
pub use levels::{Grouping, correlate};
