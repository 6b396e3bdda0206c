//! Random forgetting: a few past tokens are hidden from attention during training (survey §3.2.2).
//!
//! In one sentence: hiding some past tokens keeps the model from copying the second answer from the
//! first.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | 0–5 % of past tokens | [`ForgetfulConfig`] | two numbers |
//! | the mask m ~ Bernoulli(1 − ratio), ratio ~ U(min, max) per example | [`forgetful_mask`], [`forgetful_pair_mask`] | `[batch, time]`, `[batch, time, time]` |
//!
//! The mask is an input of the model's attention, not of a loss: the loss still covers hidden tokens.
//!
//! Read next: [`super::chain_of_hindsight`].

use crate::error::{Result, require};
use candle_core::{Device, Tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Settings of [`forgetful_mask`] and [`forgetful_pair_mask`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForgetfulConfig {
    /// The smallest share that is hidden, in [0, 1]. Default 0.
    pub min_ratio: f64,
    /// The largest share that is hidden, in [min, 1]. Default 0.05, Chain of Hindsight's.
    pub max_ratio: f64,
}

impl Default for ForgetfulConfig {
    fn default() -> Self {
        Self {
            min_ratio: 0.0,
            max_ratio: 0.05,
        }
    }
}

/// Which tokens of each row are visible: 0 hides a token from every position.
///
/// # Equation
/// ```text
/// ρ_b ~ U(min, max)        v[b, s] = 1 where s = 0, else 1 with probability 1 − ρ_b
/// ```
/// # Shapes
/// u8 `[batch, time]`. In attention, the score of key s in row b is −∞ where v\[b, s\] = 0.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless 0 ≤ min ≤ max ≤ 1.
/// # Properties
/// * The first token is always visible, so every position has something to attend to.
/// * Nothing after a hidden token depends on it. Only its own position does, which has it as input.
/// * min = max = 0 hides nothing.
/// # Departures
/// The authors' code draws for each pair of positions: [`forgetful_pair_mask`].
/// # Examples
/// ```
/// use candle_align::language::forgetful::{ForgetfulConfig, forgetful_mask};
/// use candle_core::Device;
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let all = ForgetfulConfig { min_ratio: 1.0, max_ratio: 1.0 };
/// let seen = forgetful_mask((2, 3), &all, &mut StdRng::seed_from_u64(0), &Device::Cpu)?;
/// assert_eq!(seen.to_vec2::<u8>()?, [[1, 0, 0], [1, 0, 0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Liu et al. 2022, arXiv:2210.13432 (forgetful causal masking); its use in Liu et al. 2023,
/// arXiv:2302.02676v6, §2.
#[doc(alias = "forgetful causal masking")]
#[doc(alias = "FCM")]
#[doc(alias = "attention dropout")]
pub fn forgetful_mask(
    (batch, time): (usize, usize),
    config: &ForgetfulConfig,
    rng: &mut impl Rng,
    device: &Device,
) -> Result<Tensor> {
    check("forgetful_mask", config)?;
    let mut seen = Vec::with_capacity(batch * time);
    for _ in 0..batch {
        let ratio = drawn_ratio(config, rng);
        seen.extend((0..time).map(|s| visible(s, ratio, rng)));
    }
    Ok(Tensor::from_vec(seen, (batch, time), device)?)
}

/// Which tokens are visible to each position: every position forgets different tokens.
///
/// # Equation
/// ```text
/// ρ_b ~ U(min, max)        v[b, t, s] = 1 where s = 0, else 1 with probability 1 − ρ_b
/// ```
/// # Shapes
/// u8 `[batch, time, time]`: row t, key s. Future keys are drawn too; the model's causal mask hides
/// them.
/// # Errors
/// As for [`forgetful_mask`].
/// # Properties
/// * The first token is always visible. Position t may be hidden from itself.
/// * A token hidden from one position may still reach it through another position that sees it.
/// # Departures
/// None from the authors' code, which uses one mask for all layers and heads.
/// # Examples
/// ```
/// use candle_align::language::forgetful::{ForgetfulConfig, forgetful_pair_mask};
/// use candle_core::Device;
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let all = ForgetfulConfig { min_ratio: 1.0, max_ratio: 1.0 };
/// let seen = forgetful_pair_mask((1, 3), &all, &mut StdRng::seed_from_u64(0), &Device::Cpu)?;
/// assert_eq!(seen.to_vec3::<u8>()?, [[[1, 0, 0], [1, 0, 0], [1, 0, 0]]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Liu et al. 2023, arXiv:2302.02676v6, §2; authors' code forhaoliu/chain-of-hindsight,
/// `coh/llama.py`, `FlaxLLaMABlockCollection`.
pub fn forgetful_pair_mask(
    (batch, time): (usize, usize),
    config: &ForgetfulConfig,
    rng: &mut impl Rng,
    device: &Device,
) -> Result<Tensor> {
    check("forgetful_pair_mask", config)?;
    let mut seen = Vec::with_capacity(batch * time * time);
    for _ in 0..batch {
        let ratio = drawn_ratio(config, rng);
        seen.extend((0..time * time).map(|i| visible(i % time, ratio, rng)));
    }
    Ok(Tensor::from_vec(seen, (batch, time, time), device)?)
}

fn check(function: &'static str, config: &ForgetfulConfig) -> Result<()> {
    let (min, max) = (config.min_ratio, config.max_ratio);
    let within = (0.0..=1.0).contains(&min);
    require(within, function, "min_ratio", "in [0, 1]", min)?;
    let within = (min..=1.0).contains(&max);
    require(within, function, "max_ratio", "in [min_ratio, 1]", max)
}

/// ρ_b ~ U(min, max).
fn drawn_ratio(config: &ForgetfulConfig, rng: &mut impl Rng) -> f64 {
    config.min_ratio + (config.max_ratio - config.min_ratio) * rng.random::<f64>()
}

/// 1 where s = 0, else 1 with probability 1 − ρ_b.
fn visible(s: usize, ratio: f64, rng: &mut impl Rng) -> u8 {
    // a draw is in [0, 1): a ratio of 0 hides nothing, one of 1 everything
    let drawn = rng.random::<f64>() >= ratio;
    u8::from(s == 0 || drawn)
}
