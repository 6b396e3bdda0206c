//! Online DPO: pairs of the policy's own answers, ordered by a judge (2024, after the survey).
//!
//! In one sentence: draw two answers from the policy, let a reward model or a judge say which is better,
//! and take a step of DPO on that pair.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | y¹, y² ~ π_θ | `policy`, `reference`: sums over tokens | `[batch, 2]` |
//! | the judge's scores | `scores` | `[batch, 2]` |
//! | β | [`OnlineDpoConfig::beta`] | number |
//!
//! Read next: [`xpo`](super::xpo), [`dpo`](crate::ranking::dpo).

use crate::error::{Error, Result, positive};
use crate::known::readable;
use crate::log_probs::Pair;
use crate::math::{log_sigmoid, masked};
use crate::outputs::PreferenceLoss;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// What a pair with equal scores teaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TiedScores {
    /// Nothing: loss 0.
    #[default]
    Skip,
    /// The first answer is taken for the better one, as TRL's `>=` does.
    FirstWins,
}

/// Settings of [`online_dpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnlineDpoConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
    /// What equal scores teach. Default nothing.
    pub ties: TiedScores,
}

impl Default for OnlineDpoConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            ties: TiedScores::Skip,
        }
    }
}

/// The loss of each pair of answers.
///
/// # Equation
/// ```text
/// L = −log σ( β·(ρ_w − ρ_l) ),        w = argmax of the scores
/// ```
/// # Shapes
/// All `[batch, 2]`; scores and reference are constants. The loss is `[batch]`; the rewards β·ρ are those
/// of the better and the worse answer.
/// # Errors
/// [`Error::Parameter`] unless β > 0, [`Error::Shape`] if
/// sizes differ, [`Error::Argument`] unless there are two answers,
/// [`Error::DType`] unless all are f32 or all are f64.
/// # Properties
/// * It is [`dpo_loss`](crate::dpo_loss) on the ordered pair. Exchanging the two answers changes nothing.
/// * A NaN score is taken for a tie.
/// * The drawing is the caller's, and so is its distribution: the loss does not correct for a policy that
///   has moved since.
/// # Departures
/// TRL 1.16 trains a tie as a win of the first answer; that is [`TiedScores::FirstWins`]. Its `ipo` is
/// [`ipo_loss`](crate::ranking::ipo_loss) on sums.
/// # Examples
/// ```
/// use candle_align::ranking::{OnlineDpoConfig, online_dpo_loss};
/// use candle_core::{Device, Tensor};
///
/// let row = |x: [f64; 2]| Tensor::new(&[x], &Device::Cpu);
/// let config = OnlineDpoConfig { beta: 1.0, ..Default::default() };
/// let out = online_dpo_loss(&row([-3.5, -4.5])?, &row([-3.1, -4.0])?, &row([0.1, 0.7])?, &config)?;
/// // the second is better: −0.5 against −0.4
/// assert!((out.loss.to_vec1::<f64>()?[0] - (1.0 + 0.1f64.exp()).ln()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the share of ties and the mean score. A falling share of distinct scores is a policy whose
///   answers have become one.
/// # Try
/// * Exchange the two answers, and tie them. Solution:
///   `tests/identities/since.rs::online_dpo_orders_its_own_pairs`.
/// # Source
/// Guo et al. 2024, arXiv:2402.04792; huggingface/trl, `experimental/online_dpo` of release 1.16.0.
#[doc(alias = "OAIF")]
#[doc(alias = "direct alignment from AI feedback")]
pub fn online_dpo_loss(
    policy: &Tensor,
    reference: &Tensor,
    scores: &Tensor,
    config: &OnlineDpoConfig,
) -> Result<PreferenceLoss> {
    let function = "online_dpo_loss";
    positive(function, "beta", config.beta)?;
    let mut axes = Axes::new(function);
    let policy = axes.float("policy", policy, &["batch", "answer"])?;
    let reference = axes.float("reference", reference, &["batch", "answer"])?;
    let scores = axes.float("scores", scores, &["batch", "answer"])?.detach();
    let answers = policy.dim(1)?;
    if answers != 2 {
        let problem = format!("has {answers} answers to each prompt, expected 2");
        return Err(Error::argument(function, "policy", problem));
    }
    let of = |x: &Tensor, at: usize| readable(&x.narrow(1, at, 1)?.squeeze(1)?);

    // w = argmax of the scores
    let (first, second) = (of(&scores, 0)?, of(&scores, 1)?);
    let (wins, loses) = (first.gt(&second)?, first.lt(&second)?);
    // β·ρ, of the better and the worse answer
    let rewards = ((policy - reference.detach())? * config.beta)?;
    let (one, two) = (of(&rewards, 0)?, of(&rewards, 1)?);
    let rewards = Pair {
        chosen: loses.where_cond(&two, &one)?,
        rejected: loses.where_cond(&one, &two)?,
    };
    // −log σ( β·(ρ_w − ρ_l) )
    let loss = log_sigmoid(&rewards.margin()?)?.neg()?;
    let loss = match config.ties {
        TiedScores::Skip => masked(&loss, &wins.add(&loses)?)?,
        TiedScores::FirstWins => loss,
    };
    PreferenceLoss::new(loss, &rewards)
}
