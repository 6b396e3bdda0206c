//! Learning from ranked answers without reinforcement learning (survey §3.2.1).
//!
//! This module holds nine losses from six papers: four that the survey describes and two that it
//! cites. They share one idea: the policy's own log-probability of an answer is its score, and the
//! order of the scores should match the order of the preferences. They differ in what they compare,
//! in how far the better answer should lead, and in what holds the policy back.
//!
//! | loss | takes | compares | stops pushing when | held back by | log-probability | reference model | equal rewards |
//! |---|---|---|---|---|---|---|---|
//! | [`dpo_loss`](dpo::dpo_loss) | pairs | −log σ of the difference of two log-ratios | never, it only weakens | the reference inside the loss, by β | sum | yes (or none) | the caller makes no pair |
//! | [`pro_loss`](pro::pro_loss) | lists and rewards | each answer against all worse ones, softmax | never, it only weakens | SFT on the best | mean for the ranking, sum for SFT | no | do not compete |
//! | [`slic_rank_loss`](slic::slic_rank_loss) | pairs | hinge, a fixed lead δ | the lead is δ | cross-entropy or KL on the target | sum | for the KL only | the caller makes no pair |
//! | [`slic_margin_loss`](slic::slic_margin_loss) | pairs and similarities | hinge, a lead of δ · difference of similarity | the lead is reached | as above | sum | as above | lead 0 |
//! | [`slic_list_loss`](slic::slic_list_loss) | lists and rewards | hinge on all pairs, a lead of δ · difference of rank | all leads are reached | as above | sum | as above | no pair |
//! | [`slic_expected_reward_loss`](slic::slic_expected_reward_loss) | lists and rewards | mean reward under the policy's own shares | never, it only weakens | as above | sum | as above | share the mass freely |
//! | [`rrhf_loss`](rrhf::rrhf_loss) | lists and rewards | hinge on all pairs, no lead | the order is right | SFT on the best | mean for the ranking, sum for SFT | no | no pair |
//! | [`brio_loss`](brio::brio_loss) | lists and rewards | hinge on all pairs, a lead of λ · difference of rank | all leads are reached | cross-entropy on a reference answer | sum over length^α | no | no pair |
//! | [`expected_risk_loss`](expected_risk::expected_risk_loss) | lists and rewards | mean cost under the policy's own shares | never, it only weakens | cross-entropy on a reference answer | mean | no | share the mass freely |
//!
//! Only DPO has the optimum of reinforcement learning with a KL penalty, and only under noisy
//! preferences that connect all answers. A hinge is zero on a whole set of policies; where training
//! stops in that set depends on the start. PRO with its temperatures, expected reward, expected risk
//! and any SFT term on a single best answer have no optimum short of all mass on the best answer.
//!
//! # Two answers, side by side
//!
//! Of two answers the better one is z nats more likely than the worse. Each cell holds the loss and
//! its slope in z, at the gap given by the column:
//!
//! | loss | settings | z → −∞ | z = −1 | z = 0 | z = 1 | z → +∞ |
//! |---|---|---|---|---|---|---|
//! | [`dpo_loss`](dpo::dpo_loss) | β = ½ | ∞, −0.5 | 0.9741, −0.3112 | 0.6931, −0.25 | 0.4741, −0.1888 | 0, 0 |
//! | [`pro_loss`](pro::pro_loss) | rewards 1 apart, without SFT | ∞, −1 | 1.3133, −0.7311 | 0.6931, −0.5 | 0.3133, −0.2689 | 0, 0 |
//! | [`slic_rank_loss`](slic::slic_rank_loss) | δ = 1 | ∞, −1 | 2, −1 | 1, −1 | 0, 0 | 0, 0 |
//! | [`slic_list_loss`](slic::slic_list_loss) | δ = 1 | ∞, −1 | 2, −1 | 1, −1 | 0, 0 | 0, 0 |
//! | [`slic_margin_loss`](slic::slic_margin_loss) | δ = 1, similarities ½ apart | ∞, −1 | 1.5, −1 | 0.5, −1 | 0, 0 | 0, 0 |
//! | [`slic_expected_reward_loss`](slic::slic_expected_reward_loss) | rewards 1 and 0 | 0, 0 | −0.2689, −0.1966 | −0.5, −0.25 | −0.7311, −0.1966 | −1, 0 |
//! | [`rrhf_loss`](rrhf::rrhf_loss) | ranking part | ∞, −1 | 1, −1 | 0, 0 | 0, 0 | 0, 0 |
//! | [`brio_loss`](brio::brio_loss) | two tokens each, α = 1, λ = ¾, γ = 1, ranking part | ∞, −0.5 | 1.25, −0.5 | 0.75, −0.5 | 0.25, −0.5 | 0, 0 |
//! | [`expected_risk_loss`](expected_risk::expected_risk_loss) | two tokens each, rewards 1 and 0 | 1, 0 | 0.6225, −0.1175 | 0.5, −0.125 | 0.3775, −0.1175 | 0, 0 |
//! | [`slic_kl_regularizer`](slic::slic_kl_regularizer) | start ½ and ½ | 0.6931, 0 | 0.1109, −0.1966 | 0, 0 | 0.1109, 0.1966 | 0.6931, 0 |
//! | [`sft_loss`](crate::sft_loss) | references ½ and ½ | ∞, −0.5 | 0.8133, −0.2311 | 0.6931, 0 | 0.8133, 0.2311 | ∞, 0.5 |
//!
//! What to see: the logistic losses never stop pushing, but push ever less. The hinges push evenly
//! until the lead is reached, and then not at all; at the kink the slope is 0. Expected reward and risk
//! push most at the tie and hardly at all where the order is far off. The last two rows hold the
//! policy back, here towards equal shares: the KL lets go as the gap grows; cross-entropy on references
//! of both kinds does not.
//!
#![doc = include_str!("losses.svg")]
//!
//! `cargo run --example losses` draws this picture by evaluating these functions and their backward
//! pass. Where lines coincide, the wider one lies below.
//!
//! # Lists
//!
//! All list losses share four tested properties:
//! * Answers may be listed in any order; permuting them permutes their gradients.
//! * Masking an answer has the same effect as leaving it out, wherever it is in the list.
//! * A list may hold any number of answers. A single answer has no ranking loss; expected reward and
//!   risk are then −r and 1 − r, and an SFT term on the best answer remains.
//! * Tied answers may change places, and neither is preferred.
//!
//! Where several answers are best, the SFT term of PRO and RRHF is the mean over them. The order of the
//! answers then changes nothing, and ties do not change the term's weight.
//!
//! # What the survey prints and what the papers say
//! * The survey's Eq. 2 (DPO) lacks the minus sign and the expectation, and writes π_SFT for π_ref.
//! * The survey's Eq. 3 (PRO) puts the probability π(y│x) into exp(·), where the paper has the mean
//!   log-probability per token. As printed the softmax is nearly flat, and the loss of n answers
//!   can never fall below Σₖ log(1 + (n − k)/e). It also leaves out the temperatures.
//! * The index i′ in the survey's Eq. 1 is RRHF's: the answer with the highest reward.
//! * The survey's "expected rank loss" of SLiC is the expected *reward* loss.
//! * SLiC's similarity is a BERTScore-like F value over the model's own decoder states, on spans of
//!   1, 2, 4 and 8 tokens; it is not BERTScore. Here it is an input.
//! * The survey says that RRHF, "different from Liu et al. (2022)", finds SFT better than KL. That work
//!   (BRIO) has no KL; its regularizer is cross-entropy too. SLiC is the one that uses KL.
//!
//! # Results
//!
//! Every loss over pairs returns a [`PreferenceLoss`], and so does
//! [`pairwise_reward_loss`](crate::pairwise_reward_loss) of a reward model. It holds a loss per pair and
//! the numbers that order the answers, so accuracy and margin are computed the same way for all of
//! them. Losses over lists with an SFT term return a [`ListLoss`].
//!
//! All losses and their settings are exported at the crate's root:
//! `use candle_align::{DpoConfig, dpo_loss};`.
//!
//! Read next: [`dpo`], [`pro`], [`slic`], [`rrhf`], [`brio`], [`expected_risk`].
//!
//! # Since the survey
//!
//! | room | what its losses change about those above |
//! |---|---|
//! | [`mod@reference`] | what becomes of the log-ratio: IPO, f-DPO, EXO, NCA, SPPO, APO, robust DPO and others |
//! | [`margin`] | one term of DPO's margin: length, the chosen answer, the divergence of every token |
//! | [`reference_free`] | no reference: SimPO, ORPO, CPO and others |
//! | [`unpaired`] | no pairs: KTO, BCO |
//! | [`own_answers`] | where the answers come from: online DPO, XPO, Nash-MD, SPIN, REBEL |
//!
//! Their names are found here, `candle_align::ranking::ipo_loss`, and not at the root. [`crate::since`] lists them
//! by date, and says which call is which loss of TRL.
//!
//! Their curves over the same gap, for a reference that gives both answers ½ and β = 1 unless the legend says
//! otherwise:
//!
#![doc = include_str!("since.svg")]
//!
//! What to see: IPO and SPPO aim at a gap and pull back beyond it. EXO has an aim too, but where the order is far
//! wrong it hardly pushes, as APO and SimPER do; all others push hardest there. Robust DPO never stops:
//! it always pushes with more than ε/(1 − 2ε). DiscoPOP pushes the wrong way around the tie, where training
//! starts. The forward KL and AlphaPO push harder the less likely the better answer is. `cargo run --example losses`
//! draws this picture too; losses that are not in it have a curve that is (`examples/losses/README.md` says which).

pub mod brio;
pub mod dpo;
pub mod expected_risk;
pub mod margin;
pub mod own_answers;
pub mod pro;
pub mod reference;
pub mod reference_free;
pub mod rrhf;
pub mod slic;
pub mod unpaired;

pub use margin::*;
pub use own_answers::*;
pub use reference::*;
pub use reference_free::*;
pub use unpaired::*;

use crate::error::Result;
use crate::log_probs::Candidates;
use crate::math::{at_least_one, masked_mean, masked_sum};
use crate::outputs::TokenLoss;
pub use crate::outputs::{ListLoss, PreferenceLoss};
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// How the token losses of a reference answer become one number per list, and those of a chosen answer one
/// number per pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceTokens {
    /// The sum: long references weigh more.
    #[default]
    Sum,
    /// The mean: every reference weighs the same.
    Mean,
}

/// Entry (i, j) of the result `[batch, k, k]` is xᵢ − xⱼ, for `x` `[batch, k]`.
fn differences(x: &Tensor) -> Result<Tensor> {
    Ok(x.unsqueeze(2)?.broadcast_sub(&x.unsqueeze(1)?)?)
}

/// −ℓ of the best answer `[batch]`: a sum over its tokens, or the mean of these sums over several best
/// answers.
fn best_answer_loss(candidates: &Candidates) -> Result<Tensor> {
    // i′ = argmaxᵢ rᵢ
    let best = candidates.ranks()?.eq(0.0)?.mul(candidates.mask())?;
    masked_mean(&candidates.sums().neg()?, &best)
}

/// ℓᵢ / │yᵢ│^α `[batch, k]`, 0 where the mask does not count.
fn normalized(candidates: &Candidates, length_power: f64) -> Result<Tensor> {
    let lengths = at_least_one(candidates.lengths())?;
    Ok((candidates.sums() / lengths.powf(length_power)?)?)
}

/// The likelihood term of each pair's answer `[batch]`, beside a loss of the same batch.
fn answer_nll(
    function: &'static str,
    beside: &Tensor,
    (argument, answer): (&str, &TokenLoss),
    tokens: ReferenceTokens,
) -> Result<Tensor> {
    let mut axes = Axes::new(function);
    axes.float("policy", beside, &["batch"])?;
    let loss = axes.float(
        &format!("{argument}.loss"),
        &answer.loss,
        &["batch", "time"],
    )?;
    let mask = axes.mask(
        &format!("{argument}.mask"),
        &answer.mask,
        &["batch", "time"],
    )?;
    match tokens {
        ReferenceTokens::Sum => masked_sum(&loss, &mask),
        ReferenceTokens::Mean => masked_mean(&loss, &mask),
    }
}

/// The loss of each list's reference answer `[batch]`; 0 where there is none.
fn reference_loss(
    function: &'static str,
    candidates: &Candidates,
    reference: Option<&TokenLoss>,
    tokens: ReferenceTokens,
) -> Result<Tensor> {
    let sums = candidates.sums();
    let Some(reference) = reference else {
        return Ok(Tensor::zeros(sums.dim(0)?, sums.dtype(), sums.device())?);
    };
    let mut axes = Axes::new(function);
    axes.float("candidates", sums, &["batch", "k"])?;
    let loss = axes.float("reference.loss", &reference.loss, &["batch", "time"])?;
    let mask = axes.mask("reference.mask", &reference.mask, &["batch", "time"])?;
    match tokens {
        ReferenceTokens::Sum => masked_sum(&loss, &mask),
        ReferenceTokens::Mean => masked_mean(&loss, &mask),
    }
}
