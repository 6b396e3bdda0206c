//! How β, the price of the KL, is set: fixed, or steered towards a target KL (survey §3.1).
//!
//! In one sentence: after every batch β grows a little if the KL was above the target, and shrinks a
//! little if it was below.
//!
//! | paper | here |
//! |---|---|
//! | β | [`KlController::beta`] |
//! | KL_target | `target`, nats per answer |
//! | K_β | `samples / horizon` |
//!
//! Read next: [`crate::online::rewards`], where β enters the reward.

use crate::error::{Result, non_negative, positive, require};
use serde::{Deserialize, Serialize};

/// The relative error is clipped to this size.
const ERROR_BOUND: f64 = 0.2;

/// How β changes from batch to batch.
#[doc(alias = "adaptive KL")]
#[doc(alias = "KL coefficient")]
#[doc(alias = "KL penalty")]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KlController {
    /// β never changes. InstructGPT: 0.02.
    Fixed {
        /// β ≥ 0.
        beta: f64,
    },
    /// β follows the measured KL.
    Adaptive {
        /// The current β > 0; the authors' code starts at 0.15.
        beta: f64,
        /// The KL to hold, in nats per answer, > 0; 6 in the authors' code.
        target: f64,
        /// The number of answers over which β may change by a fifth, > 0; 10 000 in the authors' code.
        horizon: f64,
    },
}

impl Default for KlController {
    /// The adaptive one, with the numbers of the authors' code: 0.15, 6, 10 000.
    fn default() -> Self {
        Self::Adaptive {
            beta: 0.15,
            target: 6.0,
            horizon: 10_000.0,
        }
    }
}

impl KlController {
    /// β for the next batch.
    pub fn beta(&self) -> f64 {
        match *self {
            Self::Fixed { beta } | Self::Adaptive { beta, .. } => beta,
        }
    }

    /// The controller after a batch of `samples` answers whose mean KL to the reference, summed
    /// over each answer, was `kl` (k₁ may make it negative).
    ///
    /// # Equation
    /// ```text
    /// e  = clip( kl / target − 1, −0.2, 0.2 )
    /// β′ = β · ( 1 + e · samples / horizon )
    /// ```
    /// # Shapes
    /// Numbers: `kl` is the mean over the answers, [`Experience::mean_kl`](crate::Experience::mean_kl).
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) if a setting is not finite and > 0 (a fixed β
    /// may be 0), if `kl` is not finite, or if `samples` ≥ 5 · `horizon`, where one step could take β
    /// to 0 or below.
    /// # Properties
    /// * At `kl` = `target` β does not change. Above 1.2 times the target, and below 0.8 times, the step
    ///   no longer grows: β′/β stays within 1 ± 0.2 · samples / horizon.
    /// * [`KlController::Fixed`] never changes.
    /// # Departures
    /// The paper (§2.2) writes β′ = β(1 + K_β e) with K_β = 0.1 per batch; its code has
    /// K_β = samples / horizon. The paper's form is `horizon` = 10 · `samples`.
    /// # Examples
    /// ```
    /// use candle_align::online::controller::KlController;
    ///
    /// // twice the target has the effect of 1.2 times: 256 of 10 000 answers move β by 0.2 · 0.0256
    /// let next = KlController::default().update(12.0, 256)?;
    /// assert!((next.beta() - 0.15 * (1.0 + 0.2 * 0.0256)).abs() < 1e-15);
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Inspect
    /// β, beside [`Experience::mean_kl`](crate::Experience::mean_kl), batch by batch. If β changes by
    /// the full 0.2 · samples / horizon in every batch, the KL runs away faster than this horizon lets β
    /// follow. A negative mean KL lowers β: over many of the policy's own draws that should not happen
    /// (see [`kl_loss`](crate::kl_loss)).
    /// # Try
    /// * Steer the KL to ½ and read off β. Which fixed β gives the same policy? Solution:
    ///   `cargo run --example rlhf`, last row.
    /// * Which horizon makes this the paper's controller with K_β = 0.1? Solution:
    ///   `tests/identities/ppo.rs::the_papers_gain_is_a_horizon_of_ten_batches`.
    /// # Source
    /// Ziegler et al. 2019, arXiv:1909.08593v2, §2.2; authors' code openai/lm-human-preferences,
    /// `train_policy.py`, `AdaptiveKLController`.
    pub fn update(&self, kl: f64, samples: usize) -> Result<Self> {
        let function = "KlController::update";
        require(kl.is_finite(), function, "kl", "finite", kl)?;
        match *self {
            Self::Fixed { beta } => {
                non_negative(function, "beta", beta)?;
                Ok(*self)
            }
            Self::Adaptive {
                beta,
                target,
                horizon,
            } => {
                positive(function, "beta", beta)?;
                positive(function, "target", target)?;
                positive(function, "horizon", horizon)?;
                let gain = samples as f64 / horizon;
                require(
                    gain * ERROR_BOUND < 1.0,
                    function,
                    "samples",
                    "< 5 · horizon",
                    samples,
                )?;
                let error = (kl / target - 1.0).clamp(-ERROR_BOUND, ERROR_BOUND);
                Ok(Self::Adaptive {
                    beta: beta * (1.0 + error * gain),
                    target,
                    horizon,
                })
            }
        }
    }
}
