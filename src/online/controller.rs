//! Who sets β, the price of the KL: nobody, or a controller that aims at a KL (survey §3.1).
//!
//! In one sentence: after every batch β grows a little if the policy went further than the target,
//! and shrinks a little if it stayed nearer.
//!
//! | paper | here |
//! |---|---|
//! | β | [`KlController::beta`] |
//! | KL_target | `target`, nats per answer |
//! | K_β | `samples / horizon` |
//!
//! Read next: [`crate::online::rewards`], where β is spent.

use crate::error::{Result, non_negative, positive, require};
use serde::{Deserialize, Serialize};

/// The largest relative error that one step answers to.
const ERROR_BOUND: f64 = 0.2;

/// How β moves from batch to batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KlController {
    /// β stays as it is. InstructGPT: 0.02.
    Fixed {
        /// β ≥ 0.
        beta: f64,
    },
    /// β follows the measured KL.
    Adaptive {
        /// β > 0 now; 0.15 at the start in the authors' code.
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
    /// may be 0), if `kl` is not finite, or if `samples` ≥ 5 · `horizon`, where one step could take β to 0 or below.
    /// # Properties
    /// * At `kl` = `target` β stays. From 1.2 times the target on, and from 0.8 times down, the step no
    ///   longer grows: β′/β stays within 1 ± 0.2 · samples / horizon.
    /// * [`KlController::Fixed`] stays as it is.
    /// # Departures
    /// The paper (§2.2) writes β′ = β(1 + K_β e) with K_β = 0.1 per batch; its code has
    /// K_β = samples / horizon. The paper's form is `horizon` = 10 · `samples`.
    /// # Examples
    /// ```
    /// use candle_align::KlController;
    ///
    /// // twice the target is answered like 1.2 times: 256 of 10 000 answers move β by 0.2 · 0.0256
    /// let next = KlController::default().update(12.0, 256)?;
    /// assert!((next.beta() - 0.15 * (1.0 + 0.2 * 0.0256)).abs() < 1e-15);
    /// # Ok::<(), candle_align::Error>(())
    /// ```
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
