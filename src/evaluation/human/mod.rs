//! Judgments of people (survey §4.2.1): shares, win rates, ratings, and how far judges agree.
//!
//! | what was judged | here | ties | error | order of the games |
//! |---|---|---|---|---|
//! | an answer alone, on four levels | [`ordinal_shares`] | none | of each share | none |
//! | a model against a baseline | [`win_rate`] | named: [`Ties`] | s/√n | none |
//! | models in a tournament | [`elo_ratings`] | ½ | [`elo_over_orders`], [`elo_bootstrap`] | matters |
//! | models in a tournament | [`bradley_terry`] | named: [`TieModel`] | sandwich, [`bradley_terry_bootstrap`] | none |
//! | the same, at equal style | [`style_features`], [`bradley_terry_with_style`] | named | sandwich | none |
//!
//! | do judges agree | judges | values | chance is taken off | missing votes |
//! |---|---|---|---|---|
//! | [`vote_agreement`], [`judge_agreement`] | any number; one against many | an [`Outcome`](super::Outcome) | no | yes |
//! | [`cohen_kappa`] | two | categories, or levels with weights | by each judge's own shares | no |
//! | [`fleiss_kappa`] | the same number for each item | categories | by the shares of all | no |
//! | [`krippendorff_alpha`] | any number | nominal, ordinal, interval, ratio | by the shares of all | yes |
//!
//! Ordinal ratings agree less between raters than comparisons do, which is why the field moved from the
//! first row to the others.
//!
//! Read next: [`win_rate`], [`bradley_terry`], [`cohen_kappa`].

mod agreement;
mod bradley_terry;
mod elo;
mod kappa;
mod krippendorff;
mod shares;
mod win_rate;

pub use agreement::{Agreement, VoteTies, judge_agreement, vote_agreement};
pub use bradley_terry::{
    Anchor, BradleyTerry, BradleyTerryConfig, TieModel, bradley_terry, bradley_terry_bootstrap,
    bradley_terry_with_style, style_features,
};
pub use elo::{EloConfig, elo_bootstrap, elo_over_orders, elo_ratings};
pub use kappa::{KappaWeights, cohen_kappa, fleiss_kappa};
pub use krippendorff::{Level, krippendorff_alpha};
pub use shares::ordinal_shares;
pub use win_rate::{Ties, WinRate, win_rate};
