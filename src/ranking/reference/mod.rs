//! Pairs and lists with a reference, since the survey: what becomes of the log-ratio ρ.
//!
//! All of these read [`LogRatios`], so sums, means per token and scores of another divergence are interchangeable
//! in them and named where they are made.
//!
//! | loss | z = β(ρ_w − ρ_l), or each ρ | stops at | far on the wrong side it pulls | optimum |
//! |---|---|---|---|---|
//! | [`dpo_loss`](crate::dpo_loss) (the survey's) | −log σ(z) | never | with slope β | π_ref · e^(r/β) |
//! | [`f_dpo_loss`] | the same on s(ρ) | never | as s' | that of another divergence |
//! | [`length_normalized_dpo_loss`] | the same on ρ/│y│ | never | with slope β/│y│ | tilted by length |
//! | [`rpo_loss`] | DPO and the likelihood of y_w | never | with slope β | none that is finite |
//! | [`robust_dpo_loss`] | DPO less its flipped part | never, and falls without a bound | with slope β(1 − ε)/(1 − 2ε) | that of clean labels |
//! | [`hinge_dpo_loss`] | max(0, 1 − z) | z = 1 | with slope β | a set |
//! | [`ipo_loss`] | (ρ_w − ρ_l − 1/(2β))² | 1/(2β) | ever harder | π_ref · e^(win rate/β) |
//! | [`exo_pair_loss`], [`exo_loss`] | KL(policy‖labels) | z = log((1 − ε)/ε) | not at all | the labels' shares |
//! | [`nca_pair_loss`], [`nca_loss`] | each ρ against noise | βρ = log(K s) | with slope β | absolute log-ratios |
//! | [`info_nca_loss`] | −Σ s log softmax(βρ) | βρ = R/α + c | with slope β | π_ref · e^(R/(αβ)) |
//! | [`sppo_loss`] | ½(ρ − (P − ½)/β)² of each | its target | ever harder | close to π · e^(P/β) |
//! | [`cal_dpo_loss`] | −log σ(ρ_w − ρ_l) and SPPO's squares | near 1/(2β) each | ever harder | near its targets |
//! | [`apo_zero_loss`] | σ(−βρ_w) + σ(βρ_l) | never | not at all | none that is finite |
//! | [`apo_down_loss`] | σ(βρ_w) + σ(−z) | never | not at all | none that is finite |
//! | [`discopop_loss`] | a blend of −log σ(z) and e^(−z) | never | with slope β | – |
//! | [`aot_loss`], [`aot_unpaired_loss`] | −log σ of sorted differences | never | with slope β | – |
//!
//! The corrections of DPO's margin are in [`margin`](super::margin), the losses without a reference in
//! [`reference_free`](super::reference_free), those without pairs in [`unpaired`](super::unpaired).

pub mod aot;
pub mod apo;
pub mod cal_dpo;
pub mod discopop;
pub mod exo;
pub mod f_divergence;
pub mod hinge;
pub mod ipo;
pub mod length_normalized;
mod lists;
mod log_ratios;
pub mod nca;
pub mod robust;
pub mod rpo;
mod score;
pub mod sppo;

pub use aot::{AotConfig, aot_loss, aot_unpaired_loss};
pub use apo::{ApoConfig, apo_down_loss, apo_zero_loss};
pub use cal_dpo::{CalDpoConfig, cal_dpo_loss};
pub use discopop::{DiscopopConfig, discopop_loss};
pub use exo::{ExoConfig, ExoListConfig, exo_loss, exo_pair_loss};
pub use f_divergence::{FDivergence, FDpoConfig, f_dpo_loss};
pub use hinge::{HingeDpoConfig, hinge_dpo_loss};
pub use ipo::{IpoConfig, ipo_loss};
pub use length_normalized::{LengthNormalizedDpoConfig, length_normalized_dpo_loss};
pub use log_ratios::LogRatios;
pub use nca::{NcaConfig, NcaPairConfig, info_nca_loss, nca_loss, nca_pair_loss};
pub use robust::{RobustDpoConfig, robust_dpo_loss};
pub use rpo::{RpoConfig, rpo_loss};
pub use sppo::{SppoConfig, sppo_loss};
