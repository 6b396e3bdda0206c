//! Design spaces: different methods for different layers (survey §3.3).
//!
//! In one sentence: cut the layers into consecutive groups, give each group a set of methods, and let
//! every layer train the same number of parameters.
//!
//! | paper | here |
//! |---|---|
//! | layer grouping | [`DesignSpaceConfig::grouping`] |
//! | strategy assignment U_i of group G_i | [`DesignSpaceConfig::strategies`] |
//! | tunable groups | those whose set is not empty |
//! | allocation of trained parameters, uniform | `per_layer` of [`DesignSpaceConfig::plan`] |
//! | A, P, B, L | [`Strategy`] |
//!
//! Read next: [`bottleneck`](crate::parameter_efficient::bottleneck), [`prefix`](crate::parameter_efficient::prefix),
//! [`bitfit`](crate::parameter_efficient::bitfit), [`lora`](crate::parameter_efficient::lora).

use crate::error::{Error, Result, require};
use crate::shape::{at_most, count};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A method that a group of layers can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// A: a [bottleneck adapter](crate::parameter_efficient::bottleneck).
    Adapter,
    /// P: a [prefix](crate::parameter_efficient::prefix).
    Prefix,
    /// B: [trained biases](crate::parameter_efficient::bitfit).
    BitFit,
    /// L: [LoRA](crate::parameter_efficient::lora).
    Lora,
}

/// How layers are cut into consecutive groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// N₁ < N₂ = N₃ > N₄: each inner group is a third of the layers, to the nearest whole number. The
    /// outer groups share the rest; the last one takes an odd layer.
    Spindle,
    /// Explicit sizes, each ≥ 1, one per group.
    Sizes(Vec<usize>),
}

/// A point in the design space.
///
/// # Equation
/// ```text
/// layers = G₁ ∪ … ∪ G₄,   N₁ < N₂ = N₃ > N₄
/// U₁ = {A, L},   U₂ = {A, P},   U₃ = {A, P, B},   U₄ = {P, B, L}
/// trained numbers of each layer ≈ the same
/// ```
/// # Shapes
/// [`DesignSpaceConfig::assign`] gives one set per layer, [`DesignSpaceConfig::plan`] one
/// [`LayerPlan`] per layer.
/// # Errors
/// [`Error::Parameter`] unless there is one set of strategies per group, every size is ≥ 1, and
/// layers, sizes and `per_layer` are [within the limits](super#sizes); [`Error::Argument`] if the sizes
/// do not add up to the number of layers, if no spindle has that many layers (it needs 6, or 8 and
/// more), or if `per_layer` is too small for one unit of every strategy of a layer.
/// # Properties
/// * Every layer is in exactly one group; groups are consecutive.
/// * One strategy for all groups is that method on its own.
/// * A layer of a plan trains at most `per_layer` numbers, and falls short by less than one unit of each
///   of its strategies. A layer whose only strategy is BitFit trains its biases, whatever `per_layer`
///   says.
/// # Departures
/// The paper says how the group sizes compare, not what they are: a third for the inner groups is a
/// choice of this crate. The paper spreads the numbers evenly over layers; sharing a layer's numbers
/// evenly among its strategies is a choice of this crate too. The released code sets no grouping.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{DesignSpaceConfig, LayerSize, Strategy};
///
/// let space = DesignSpaceConfig::default();
/// let layers = space.assign(12)?; // 2 + 4 + 4 + 2
/// assert!(layers[1].contains(&Strategy::Lora) && !layers[2].contains(&Strategy::Lora));
///
/// // width 64, keys of 64, LoRA on one map from 64 to 192, 512 biases
/// let size = LayerSize { dim: 64, kv_dim: 64, lora: 64 + 192, biases: 512 };
/// let plan = space.plan(12, 2048, &size)?;
/// // {A, L}: 1024 for each
/// assert_eq!((plan[0].adapter, plan[0].rank), (1024 / (2 * 64), 1024 / (64 + 192)));
/// assert_eq!(plan[0].parameters(&size), 2 * 8 * 64 + 4 * 256);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * [`LayerPlan::parameters`] of each layer beside `per_layer`. A plan with large gaps has units that
///   are too coarse: raise `per_layer`, or drop a strategy from that group.
/// * A group with an empty set: its layers train nothing.
/// # Try
/// * What do biases leave for the other strategies of a layer?
///   `tests/values/design_space.rs::a_plan_shares_what_the_biases_leave`
/// * For which numbers of layers is there a spindle?
///   `tests/identities/design_space.rs::every_spindle_covers_its_layers_and_is_one`
/// # Source
/// Chen et al. 2023, arXiv:2301.01821v1, §3 and §4: the S₄ space of T5-base.
#[doc(alias = "S4")]
#[doc(alias = "parameter-efficient design space")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DesignSpaceConfig {
    /// Default: the spindle, the paper's first finding.
    pub grouping: Grouping,
    /// One set per group. Default: the paper's last finding.
    pub strategies: Vec<BTreeSet<Strategy>>,
}

impl Default for DesignSpaceConfig {
    fn default() -> Self {
        use Strategy::{Adapter, BitFit, Lora, Prefix};
        let groups: [&[Strategy]; 4] = [
            &[Adapter, Lora],
            &[Adapter, Prefix],
            &[Adapter, Prefix, BitFit],
            &[Prefix, BitFit, Lora],
        ];
        Self {
            grouping: Grouping::Spindle,
            strategies: groups.map(|g| g.iter().copied().collect()).to_vec(),
        }
    }
}

/// What one unit of each strategy costs in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSize {
    /// d: an adapter of width 1 without biases costs 2·d.
    pub dim: usize,
    /// d_kv: one position of a prefix costs 2·d_kv.
    pub kv_dim: usize,
    /// Σ (in + out) over the maps with LoRA: what rank 1 costs.
    pub lora: usize,
    /// The biases of all maps: what BitFit costs.
    pub biases: usize,
}

/// The sizes of a layer's strategies; 0 for those that it does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerPlan {
    /// r of the adapter.
    pub adapter: usize,
    /// p of the prefix.
    pub prefix: usize,
    /// r of LoRA.
    pub rank: usize,
    /// Whether the biases are trained.
    pub biases: bool,
}

impl LayerPlan {
    /// How many numbers are trained; `usize::MAX` if there are more.
    pub fn parameters(&self, size: &LayerSize) -> usize {
        [
            self.adapter.saturating_mul(size.dim).saturating_mul(2),
            self.prefix.saturating_mul(size.kv_dim).saturating_mul(2),
            self.rank.saturating_mul(size.lora),
            if self.biases { size.biases } else { 0 },
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }
}

impl DesignSpaceConfig {
    /// The strategies of each layer, from the first to the last.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless there is one set of strategies per group and every size is ≥ 1;
    /// [`Error::Argument`] if the sizes do not add up to `layers`, or no spindle has that many.
    pub fn assign(&self, layers: usize) -> Result<Vec<BTreeSet<Strategy>>> {
        self.assigned("DesignSpaceConfig::assign", layers)
    }

    fn assigned(&self, function: &'static str, layers: usize) -> Result<Vec<BTreeSet<Strategy>>> {
        at_most(function, "layers", layers)?;
        let sizes = match &self.grouping {
            Grouping::Spindle => spindle(function, layers)?.to_vec(),
            Grouping::Sizes(sizes) => {
                let smallest = sizes.iter().min().copied().unwrap_or_default();
                require(
                    smallest >= 1,
                    function,
                    "grouping",
                    "of sizes >= 1",
                    smallest,
                )?;
                let total = sizes.iter().fold(0usize, |n, &size| n.saturating_add(size));
                if total != layers {
                    return Err(Error::argument(
                        function,
                        "layers",
                        format!("is {layers}, but the groups hold {total}"),
                    ));
                }
                sizes.clone()
            }
        };
        require(
            self.strategies.len() == sizes.len(),
            function,
            "strategies",
            "one set per group",
            format!("{} for {} groups", self.strategies.len(), sizes.len()),
        )?;
        let groups = self.strategies.iter().zip(sizes);
        Ok(groups
            .flat_map(|(set, size)| std::iter::repeat_n(set.clone(), size))
            .collect())
    }

    /// The sizes for which every layer trains about `per_layer` numbers.
    ///
    /// # Errors
    /// As [`DesignSpaceConfig::assign`]; [`Error::Parameter`] for a size or a `per_layer` [beyond the
    /// limits](super#sizes); [`Error::Argument`] if `per_layer` is too small for one unit of every strategy.
    pub fn plan(
        &self,
        layers: usize,
        per_layer: usize,
        size: &LayerSize,
    ) -> Result<Vec<LayerPlan>> {
        let function = "DesignSpaceConfig::plan";
        count(function, "per_layer", per_layer)?;
        at_most(function, "size.dim", size.dim)?;
        at_most(function, "size.kv_dim", size.kv_dim)?;
        count(function, "size.lora", size.lora)?;
        count(function, "size.biases", size.biases)?;
        let mut plans = Vec::new();
        for (layer, set) in self.assigned(function, layers)?.iter().enumerate() {
            let biases = set.contains(&Strategy::BitFit);
            let sized = set.len() - usize::from(biases);
            let fixed = if biases { size.biases } else { 0 };
            // what is left after the biases, in equal shares
            let share = per_layer.saturating_sub(fixed) / sized.max(1);
            let units = |strategy, cost: usize| {
                if !set.contains(&strategy) {
                    return Ok(0);
                }
                match share / cost.max(1) {
                    0 => Err(Error::argument(
                        function,
                        "per_layer",
                        format!("is {per_layer}, too few for {strategy:?} in layer {layer}"),
                    )),
                    units => Ok(units),
                }
            };
            plans.push(LayerPlan {
                adapter: units(Strategy::Adapter, 2 * size.dim)?,
                prefix: units(Strategy::Prefix, 2 * size.kv_dim)?,
                rank: units(Strategy::Lora, size.lora)?,
                biases,
            });
        }
        Ok(plans)
    }
}

/// N₁ < N₂ = N₃ > N₄, all ≥ 1.
fn spindle(function: &'static str, layers: usize) -> Result<[usize; 4]> {
    let inner = (layers + 1) / 3; // to the nearest
    let rest = layers - 2 * inner;
    let (first, last) = (rest / 2, rest - rest / 2);
    match first >= 1 && last < inner {
        true => Ok([first, inner, inner, last]),
        false => Err(Error::argument(
            function,
            "layers",
            format!("is {layers}, of which no spindle can be made: give the sizes"),
        )),
    }
}
