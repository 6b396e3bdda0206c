//! Bottleneck adapters, and the unified view of everything that is added to a frozen model (survey §3.3).
//!
//! In one sentence: add to a sub-layer's output what a small two-layer network computes from that output
//! (sequential) or from the sub-layer's input (parallel).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | h, x | output and input of a sub-layer: `h`, `x` of [`BottleneckAdapter::insert`] | `[.., out]`, `[.., in]` |
//! | W_down, W_up | [`BottleneckAdapter::down`], [`BottleneckAdapter::up`] | `[width, in]`, `[out, width]` |
//! | r | [`BottleneckConfig::width`] | number |
//! | f | [`Activation`] | |
//! | s | [`BottleneckConfig::scale`] | number |
//! | sequential, parallel | [`Insertion`] | |
//! | MAM adapter | [`MamConfig`] | |
//!
//! # The unified view
//!
//! Prefix, adapter and LoRA all change a representation h of a frozen model by some Δh. They differ
//! in four choices (He et al. 2022, Table 1, here with the √head_dim that it omits):
//!
//! | method | functional form of Δh | insertion | modified representation | composition |
//! |---|---|---|---|---|
//! | prefix tuning, [`prefix_mixing`](crate::parameter_efficient::prefix_mixing) | softmax(x W_q P_kᵀ/√head_dim) P_v | parallel | head attention | (1 − λ)h + λΔh |
//! | adapter | relu(h W_down) W_up | sequential | feed-forward, attention | h + Δh |
//! | LoRA, [`LoraLinear`](crate::parameter_efficient::LoraLinear) | x W_down W_up | parallel | a linear map | h + s·Δh |
//! | parallel adapter | relu(x W_down) W_up | parallel | feed-forward, attention | h + Δh |
//! | scaled parallel adapter | relu(x W_down) W_up | parallel | feed-forward, attention | h + s·Δh |
//! | MAM adapter, [`MamConfig`] | a prefix of 30 in the attention, and a scaled parallel adapter with r = 512, s = 4 at the feed-forward part | | | |
//!
//! Trained numbers of one attention sub-layer of width d: prefix 2·l·d, adapter 2·r·d, LoRA on two
//! maps 4·r·d; at a feed-forward part of inner width m: adapter 2·r·d, LoRA 2·r·(d + m).
//!
//! Read next: [`prefix_attention`](mod@crate::parameter_efficient::prefix::attention) (the gate λ),
//! [`design_space`](crate::parameter_efficient::design_space) (different methods for different layers).

mod config;

pub use config::{Activation, BottleneckConfig, Insertion, MamConfig, Placement};

use crate::error::{Error, Result, positive};
use crate::known::readable;
use crate::parameter_efficient::frozen_linear::rows;
use crate::parameter_efficient::low_rank::{counted, named, uniform};
use crate::shape::{at_most, fits_trained, last_axis, made, size, trained_type};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::Module;
use rand::Rng;

/// A small trained network beside or after a frozen sub-layer.
///
/// # Equation
/// ```text
/// h ← h + s · W_up f( W_down h + b_down ) + s · b_up          sequential
/// h ← h + s · W_up f( W_down x + b_down ) + s · b_up          parallel
/// W_down ~ U(±1/√in),   W_up = 0,   b_down = b_up = 0         at the start
/// ```
/// # Shapes
/// W_down `[width, in]`, W_up `[out, width]`; sequential: in = out. `x` `[.., in]` and `h`
/// `[.., out]` have the same leading axes, any number of them. They are in the type of the maps (f32 or
/// f64) or, where that is f32, in a half type. The result has the shape and type of `h`, rounded once.
/// # Errors
/// [`Error::Shape`] and [`Error::DType`] as above. From [`BottleneckAdapter::new`]
/// [`Error::Parameter`] unless r ≥ 1, r and both sides are [within the limits](super#sizes), and s > 0;
/// [`Error::Argument`] for a sequential adapter whose sides differ.
/// # Properties
/// * At the start h is returned bit for bit (except that −0 may become 0), ∂L/∂W_down = 0 and
///   ∂L/∂W_up ≠ 0.
/// * r·(in + out) numbers are trained, and r + out more with biases: 2·r·d, or 2·r·d + r + d.
/// * Parallel, linear and without biases around a linear layer, it is LoRA with A = W_down, B = W_up and
///   α/r = s. With another activation it cannot be merged.
/// * Sequential around the identity is parallel around the identity.
/// * s and W_up can be traded: (s, W_up) and (1, s·W_up) are the same layer, but they train
///   differently.
/// * Disabled, it returns h, however long it was trained.
/// * A clone shares the trained variables with its original.
/// # Departures
/// He et al.'s Table 1 prints h where a parallel adapter reads x; their text and code read x.
/// Houlsby et al. start both maps near 0, from a truncated N(0, 0.01²), so their model starts near the
/// base, not at it. The start here is that of the unified view's code for its parallel adapters, which
/// is LoRA's. That code also has biases, which the paper's counts omit; [`MamConfig`] omits them too.
/// Pfeiffer et al. put the adapter after the residual sum and a norm of its own; here it is inside the
/// sum.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{BottleneckAdapter, BottleneckConfig, Insertion};
/// use candle_core::{DType, Device, Tensor};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let config = BottleneckConfig {
///     width: 1, scale: 4.0, insertion: Insertion::Parallel, bias: false, ..Default::default()
/// };
/// let (cpu, mut rng) = (Device::Cpu, StdRng::seed_from_u64(0));
/// let adapter = BottleneckAdapter::new(2, 2, &config, DType::F64, &cpu, &mut rng)?;
/// let x = Tensor::new(&[[1.0f64, 2.0], [-1.0, 0.0]], &cpu)?; // the sub-layer's input
/// let h = Tensor::new(&[[0.5f64, 0.5], [0.5, 0.5]], &cpu)?; // its output
/// assert_eq!(adapter.insert(&x, &h)?.to_vec2::<f64>()?, h.to_vec2::<f64>()?);
///
/// // training would do this
/// adapter.down().set(&Tensor::new(&[[3.0f64, 5.0]], &cpu)?)?;
/// adapter.up().set(&Tensor::new(&[[7.0f64], [8.0]], &cpu)?)?;
/// let inner = 3.0 * 1.0 + 5.0 * 2.0; // the second row: relu(−3) = 0
/// let want = [[0.5 + 4.0 * 7.0 * inner, 0.5 + 4.0 * 8.0 * inner], [0.5, 0.5]];
/// assert_eq!(adapter.insert(&x, &h)?.to_vec2::<f64>()?, want);
/// assert_eq!(adapter.parameters(), 2 * 1 * 2);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * [`grad_coverage`](crate::training::grad_coverage) after the first backward pass: `zero` lists
///   `down_proj.weight` and its bias, since W_up is 0, and `learning` lists `up_proj`. If `zero` still
///   lists them after a step, W_up was not updated.
/// * The norm of the change beside that of h. It starts at 0.
/// * With relu, inner units that are ≤ 0 for every input: they get no gradient and stay as they are.
/// # Try
/// * What can two relus learn that a linear adapter cannot?
///   `tests/optimum/adapter.rs::two_relus_learn_what_no_linear_adapter_does`
/// * Which settings turn an adapter into LoRA?
///   `tests/identities/adapter.rs::linear_and_parallel_around_a_linear_layer_it_is_lora`
/// * Count the trained numbers of a MAM adapter.
///   `tests/identities/adapter.rs::the_counts_of_the_unified_view`
/// # Source
/// He et al. 2022, arXiv:2110.04366v3, eq. 4, Table 1 and §4.6; authors' code
/// jxhe/unify-parameter-efficient-tuning, `petl/petl_factory.py`, `Adapter_Layer`. Houlsby et al.
/// 2019, arXiv:1902.00751v2. Pfeiffer et al. 2021, arXiv:2005.00247v3.
#[doc(alias = "Houlsby adapter")]
#[doc(alias = "Pfeiffer adapter")]
#[doc(alias = "adapter tuning")]
#[derive(Clone, Debug)]
pub struct BottleneckAdapter {
    down: Var,
    up: Var,
    /// b_down and b_up.
    biases: Option<(Var, Var)>,
    activation: Activation,
    scale: f64,
    insertion: Insertion,
    enabled: bool,
}

impl BottleneckAdapter {
    /// An adapter at its start, for a sub-layer from `inputs` to `outputs`; `rng` draws W_down.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless r ≥ 1, r and both sides are [within the limits](super#sizes), and s > 0;
    /// [`Error::DType`] unless `dtype` is f32 or f64; [`Error::Argument`] for a sequential adapter whose
    /// sides differ.
    pub fn new(
        inputs: usize,
        outputs: usize,
        config: &BottleneckConfig,
        dtype: DType,
        device: &Device,
        rng: &mut impl Rng,
    ) -> Result<Self> {
        let function = "BottleneckAdapter::new";
        let width = config.width;
        size(function, "width", width)?;
        at_most(function, "inputs", inputs)?;
        at_most(function, "outputs", outputs)?;
        positive(function, "scale", config.scale)?;
        trained_type(function, dtype)?;
        if config.insertion == Insertion::Sequential && inputs != outputs {
            return Err(Error::argument(
                function,
                "inputs",
                format!(
                    "is {inputs}, but a sequential adapter reads the sub-layer's {outputs} outputs"
                ),
            ));
        }
        made(function, "width", &[width, inputs])?;
        made(function, "width", &[outputs, width])?;
        let bound = 1.0 / (inputs.max(1) as f64).sqrt();
        Ok(Self {
            down: uniform(bound, (width, inputs), dtype, device, rng)?,
            up: Var::zeros((outputs, width), dtype, device)?,
            biases: match config.bias {
                true => Some((
                    Var::zeros(width, dtype, device)?,
                    Var::zeros(outputs, dtype, device)?,
                )),
                false => None,
            },
            activation: config.activation,
            scale: config.scale,
            insertion: config.insertion,
            enabled: true,
        })
    }

    /// The new h, for a sub-layer with the input `x` and the output `h`.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] unless `x` is `[.., in]` and `h` `[.., out]` in the adapter's
    /// types; [`Error::Argument`] if their leading axes differ.
    pub fn insert(&self, x: &Tensor, h: &Tensor) -> Result<Tensor> {
        let function = "BottleneckAdapter::insert";
        let (inputs, outputs) = (self.down.dims()[1], self.up.dims()[0]);
        self.check(function, "x", x, "in", inputs)?;
        self.check(function, "h", h, "out", outputs)?;
        let leading = |x: &Tensor| x.dims()[..x.rank() - 1].to_vec();
        if leading(x) != leading(h) {
            return Err(Error::argument(
                function,
                "h",
                format!("has shape {:?}, but `x` {:?}", h.dims(), x.dims()),
            ));
        }
        let (x, h) = (&readable(x)?, &readable(h)?);
        if !self.enabled {
            return Ok(h.clone());
        }
        let change = match self.insertion {
            Insertion::Sequential => self.change(h)?,
            Insertion::Parallel => self.change(x)?,
        };
        let wide = h.to_dtype(self.up.dtype())?;
        Ok((&wide + change.reshape(h.shape())?)?.to_dtype(h.dtype())?)
    }

    /// s · (W_up f(W_down x + b_down) + b_up) for rows of x: `[n, out]`.
    fn change(&self, x: &Tensor) -> Result<Tensor> {
        let x = x
            .to_dtype(self.down.dtype())?
            .reshape((rows(x), self.down.dim(1)?))?;
        let bias = |x: Tensor, bias: Option<&Var>| match bias {
            Some(bias) => x.broadcast_add(bias),
            None => Ok(x),
        };
        let biases = self.biases.as_ref();
        // f( W_down x + b_down )
        let inner = bias(x.matmul(&self.down.t()?)?, biases.map(|b| &b.0))?;
        let inner = self.activation.apply(&inner)?;
        // s · ( W_up … + b_up )
        let change = bias(inner.matmul(&self.up.t()?)?, biases.map(|b| &b.1))?;
        Ok((change * self.scale)?)
    }

    fn check(
        &self,
        function: &'static str,
        argument: &str,
        x: &Tensor,
        axis: &str,
        size: usize,
    ) -> Result<()> {
        last_axis(function, argument, x, (axis, size), "the adapter")?;
        fits_trained(function, argument, x, (self.down.dtype(), "the adapter"))
    }

    /// W_down `[width, in]`.
    pub fn down(&self) -> &Var {
        &self.down
    }

    /// W_up `[out, width]`.
    pub fn up(&self) -> &Var {
        &self.up
    }

    /// s.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// What the network reads.
    pub fn insertion(&self) -> Insertion {
        self.insertion
    }

    /// How many numbers are trained.
    pub fn parameters(&self) -> usize {
        counted(&self.trainable(""))
    }

    /// What is trained, sorted by name: `down_proj.weight`, `up_proj.weight`, and their `.bias`, as
    /// in the unified view's code. `prefix` as for
    /// [`Adapter::trainable`](crate::parameter_efficient::Adapter::trainable).
    pub fn trainable(&self, prefix: &str) -> Vec<(String, Var)> {
        let mut vars = vec![
            named(prefix, "down_proj.weight", &self.down),
            named(prefix, "up_proj.weight", &self.up),
        ];
        if let Some((down, up)) = &self.biases {
            vars.insert(0, named(prefix, "down_proj.bias", down));
            vars.insert(2, named(prefix, "up_proj.bias", up));
        }
        vars
    }

    /// Switches the adapter off, which gives exactly the sub-layer's output, or on again.
    pub fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    /// Whether the adapter changes anything.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Combines the adapter and a sub-layer into one layer.
    pub fn around<M: Module>(self, layer: M) -> BottleneckLayer<M> {
        BottleneckLayer {
            layer,
            adapter: self,
        }
    }
}

/// A sub-layer, such as a linear map or a whole feed-forward part, with an adapter around it.
#[derive(Clone, Debug)]
pub struct BottleneckLayer<M> {
    /// The frozen part: use [`FrozenLinear`](crate::parameter_efficient::FrozenLinear)s in it.
    pub layer: M,
    /// The trained part.
    pub adapter: BottleneckAdapter,
}

impl<M: Module> Module for BottleneckLayer<M> {
    /// [`BottleneckAdapter::insert`] with the input and the sub-layer's output.
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(self.adapter.insert(x, &self.layer.forward(x)?)?)
    }
}
