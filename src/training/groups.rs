//! The settings of [`AdamW`](super::AdamW), and the groups of variables that share a rate and a decay.

use candle_core::Var;
use serde::{Deserialize, Serialize};

/// What [`AdamW::step`](super::AdamW::step) does when a gradient holds NaN or an infinity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// An error that names the variable; nothing changes.
    #[default]
    Error,
    /// No variable changes and [`AdamW::skipped`](super::AdamW::skipped) grows by one.
    Skip,
}

/// Settings of [`AdamW`](super::AdamW). The defaults are those of the common libraries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// η > 0, the learning rate. Default 1e-3.
    pub learning_rate: f64,
    /// β₁ in [0, 1), the decay rate of the mean of gradients. Default 0.9.
    pub beta1: f64,
    /// β₂ in [0, 1), the decay rate of the mean of their squares. Default 0.999.
    pub beta2: f64,
    /// ε > 0, added to the square root. Default 1e-8.
    pub epsilon: f64,
    /// What happens at a gradient that is not finite. Default: an error.
    pub non_finite: NonFinite,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            non_finite: NonFinite::Error,
        }
    }
}

/// Variables that share a learning rate and a weight decay.
#[doc(alias = "parameter groups")]
#[doc(alias = "param_groups")]
#[derive(Clone, Debug)]
pub struct ParameterGroup {
    /// The variables with their names, which are unique across all groups.
    pub vars: Vec<(String, Var)>,
    /// A factor on the learning rate of the config, > 0.
    pub rate: f64,
    /// λ ≥ 0, the decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
}

impl ParameterGroup {
    /// One group at the config's own rate.
    pub fn new(vars: Vec<(String, Var)>, weight_decay: f64) -> Self {
        Self {
            vars,
            rate: 1.0,
            weight_decay,
        }
    }

    /// Two groups: matrices with `weight_decay`, vectors and scalars (biases, norms) without.
    #[doc(alias = "no_decay")]
    pub fn decay_matrices(vars: Vec<(String, Var)>, weight_decay: f64) -> Vec<Self> {
        let (matrices, vectors) = vars.into_iter().partition(|(_, var)| var.rank() >= 2);
        vec![Self::new(matrices, weight_decay), Self::new(vectors, 0.0)]
    }
}
