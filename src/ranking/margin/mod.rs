//! DPO with a corrected margin, since the survey.
//!
//! | what | the margin of DPO, β(ρ_w − ρ_l), becomes | at the first step it is DPO | corrects |
//! |---|---|---|---|
//! | [`r_dpo_loss`] | … + α(│y_w│ − │y_l│) | with lengths alike | that length is learned |
//! | [`ld_dpo_loss`] | the same, tokens beyond the shorter answer weigh α | yes | the same |
//! | [`dpop_loss`] | … − βλ max(0, −ρ_w) | yes | that the chosen answer loses likelihood |
//! | [`tdpo1_loss`], [`tdpo2_loss`] | … − βα(D_l − D_w) | yes | that undrawn tokens are not held |
//! | [`wpo_weights`] | unchanged; the pair gets a weight | but for the weight | that pairs come from other models |

pub mod dpop;
pub mod ld_dpo;
pub mod r_dpo;
pub mod tdpo;
pub mod wpo;

pub use dpop::{DpopConfig, dpop_loss};
pub use ld_dpo::{LdDpoConfig, ld_dpo_loss, length_desensitized_sums};
pub use r_dpo::{RDpoConfig, r_dpo_loss};
pub use tdpo::{Tdpo1Config, Tdpo2Config, sequential_kl, tdpo1_loss, tdpo2_loss};
pub use wpo::{WpoConfig, wpo_weights};
