//! Causal attention over rows of different length, without padding and without a matrix of scores.
//!
//! In one sentence: a batch is a flat sequence of tokens, [`Segments`] says which of them see each other,
//! and both passes compute the scores a block at a time, so that memory grows with the tokens and not with
//! their square.
//!
//! | symbol | here | shape |
//! |---|---|---|
//! | Q | `q` | `[tokens, heads, dim]` |
//! | K, V | `k`, `v` | `[tokens, kv_heads, dim]` |
//! | P_k, P_v | `prefix_k`, `prefix_v` | `[prefix, kv_heads, dim]` |
//! | σ | [`AttentionConfig::scale`] | |
//! | w | [`AttentionConfig::window`] | |
//! | c | [`AttentionConfig::softcap`] | |
//!
//! # Equation
//! For a query i of one head and the keys j that it sees, forward and backward:
//! ```text
//! sᵢⱼ = σ qᵢ·kⱼ        mᵢ = maxⱼ sᵢⱼ        lᵢ = Σⱼ e^{sᵢⱼ − mᵢ}
//! pᵢⱼ = e^{sᵢⱼ − mᵢ} / lᵢ                   oᵢ = Σⱼ pᵢⱼ vⱼ
//!
//! dvⱼ = Σᵢ pᵢⱼ doᵢ                          Dᵢ = Σⱼ pᵢⱼ (doᵢ·vⱼ) = doᵢ·oᵢ
//! dsᵢⱼ = pᵢⱼ (doᵢ·vⱼ − Dᵢ)
//! dqᵢ = σ Σⱼ dsᵢⱼ kⱼ                        dkⱼ = σ Σᵢ dsᵢⱼ qᵢ
//! ```
//! With a soft cap c the scores are c tanh(sᵢⱼ / c) in place of sᵢⱼ, and dsᵢⱼ is multiplied by
//! 1 − tanh²(sᵢⱼ / c).
//!
//! The forward pass reads the keys block by block. When a block raises mᵢ to m′ᵢ, what was summed so far is
//! multiplied by e^{mᵢ − m′ᵢ}. It keeps mᵢ and 1/lᵢ, two numbers per query, from which the backward pass
//! computes each block of p again. The sums over i run over all queries that see j: the queries of the heads
//! that share a key head, and those of every answer that shares a prompt.
//!
//! Source: Dao 2023, arXiv:2307.08691, algorithms 1 and 2.

mod composed;
mod kernel;
mod segments;
mod shared;

use crate::error::{Error, Result, require};
use crate::known::with_slope;
use crate::shape::Axes;
use candle_core::{DType, Tensor};
pub use segments::Segments;

/// Settings of [`attention`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AttentionConfig {
    /// σ, what the products of queries and keys are multiplied by. Default: 1 / √dim.
    pub scale: Option<f64>,
    /// w: a token sees itself and the w − 1 tokens before it in its row (Mistral, Gemma). Default: all.
    #[doc(alias = "sliding_window")]
    pub window: Option<usize>,
    /// c: a score s becomes c·tanh(s / c), before anything is hidden (Gemma 2). Default: none.
    #[doc(alias = "attn_logit_softcapping")]
    pub softcap: Option<f64>,
}

/// Attention of every token over itself and the tokens before it in its rows.
///
/// The equations are on the [module's page](mod@crate::ops::attention).
///
/// # Shapes
/// `q` `[tokens, heads, dim]`; `k` `[tokens, kv_heads, dim]`; `v` `[tokens, kv_heads, value_dim]`; the result
/// `[tokens, heads, value_dim]`. kv_heads divides heads: query head i reads the keys of head
/// ⌊i · kv_heads / heads⌋. All are f32, f64, bf16 or f16, in any layout; bf16 and f16 are computed in f32.
/// Rotary positions ([`Segments::positions`]) are already applied to `q` and `k`.
/// # Errors
/// [`Error::Shape`] and [`Error::DType`] as above, [`Error::Argument`] if kv_heads does not divide heads,
/// [`Error::Parameter`] unless the scale is finite, the window at least 1, and the soft cap finite and above 0.
/// # Properties
/// * A segment with K children gives what K separate rows give, and the gradient of its tokens is the sum of
///   theirs.
/// * On the CPU no token reaches another row, whatever it holds, even NaN. NaN in a key reaches only queries that see it.
/// * The number of threads changes no bit.
/// * Extra memory grows with the tokens. Two numbers per query are kept. The backward pass holds its gradients
///   twice, and those of keys and values up to five times, whatever the number of threads.
/// # Departures
/// Off the CPU, ordinary operations compute the same values from a matrix of scores `[heads, tokens, tokens]`. There a NaN
/// or ∞ in a value reaches every row, because the hidden weights are multiplied by it: 0 · NaN is NaN.
/// # Examples
/// ```
/// use candle_align::ops::{AttentionConfig, Segments, attention};
/// use candle_core::{DType, Device, Tensor};
///
/// // keys of 0: every visible key has the same weight
/// let segments = Segments::from_prompts(&[2], &[vec![1, 1]])?;
/// let zeros = Tensor::zeros((4, 1, 1), DType::F64, &Device::Cpu)?;
/// let v = Tensor::new(&[1.0, 2.0, 6.0, 9.0], &Device::Cpu)?.reshape((4, 1, 1))?;
/// let out = attention(&zeros, &zeros, &v, &segments, &AttentionConfig::default())?;
/// let means = [1.0, (1.0 + 2.0) / 2.0, (1.0 + 2.0 + 6.0) / 3.0, (1.0 + 2.0 + 9.0) / 3.0];
/// for (out, mean) in out.flatten_all()?.to_vec1::<f64>()?.iter().zip(means) {
///     assert!((out - mean).abs() < 1e-15);
/// }
/// # Ok::<(), candle_align::Error>(())
/// ```
#[doc(alias = "scaled_dot_product_attention")]
#[doc(alias = "sdpa")]
#[doc(alias = "flash attention")]
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segments: &Segments,
    config: &AttentionConfig,
) -> Result<Tensor> {
    let checked = Checked::new("attention", [q, k, v], segments, config)?;
    checked.compute(segments, config, 0, false)
}

/// As [`attention`], with keys and values that every token sees in addition: prefix tuning.
///
/// They have no position, and no window hides them.
///
/// # Shapes
/// `prefix_k` `[prefix, kv_heads, dim]` and `prefix_v` `[prefix, kv_heads, value_dim]`, the same for every
/// row; or with an axis in front, `[trees, prefix, kv_heads, dim]`, one prefix per [tree](Segments::trees), which
/// is one per row if no row shares anything. The rest as for [`attention`].
/// # Errors
/// As [`attention`], and [`Error::Shape`] as above.
pub fn attention_with_prefix(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    (prefix_k, prefix_v): (&Tensor, &Tensor),
    segments: &Segments,
    config: &AttentionConfig,
) -> Result<Tensor> {
    let function = "attention_with_prefix";
    let mut checked = Checked::new(function, [q, k, v], segments, config)?;
    let own = prefix_k.rank() == 4;
    let axes = &mut checked.axes;
    let mut of = |argument: &str, tensor: &Tensor, dim: &'static str| match own {
        true => axes.axes(argument, tensor, &["trees", "prefix", "kv_heads", dim]),
        false => axes.axes(argument, tensor, &["prefix", "kv_heads", dim]),
    };
    let prefix_k = of("prefix_k", prefix_k, "dim")?;
    let prefix_v = of("prefix_v", prefix_v, "value_dim")?;
    if own && prefix_k.dim(0)? != segments.trees() {
        return Err(Error::Shape {
            function,
            argument: "prefix_k".to_string(),
            shape: prefix_k.dims().to_vec(),
            expected: format!(
                "trees={} (from `segments`), prefix, kv_heads, dim",
                segments.trees()
            ),
        });
    }
    let [q, k, v] = &checked.tensors;
    for (argument, prefix) in [("prefix_k", &prefix_k), ("prefix_v", &prefix_v)] {
        same_type(function, argument, prefix, q)?;
    }
    let prefix = prefix_k.dim(own as usize)?;
    let joined = |prefix: &Tensor, rest: &Tensor| match own {
        true => joined(&prefix.flatten(0, 1)?, rest),
        false => joined(prefix, rest),
    };
    checked.tensors = [q.clone(), joined(&prefix_k, k)?, joined(&prefix_v, v)?];
    checked.compute(segments, config, prefix, own)
}

/// Arguments whose axes and types fit each other.
struct Checked {
    axes: Axes,
    tensors: [Tensor; 3],
}

impl Checked {
    fn new(
        function: &'static str,
        [q, k, v]: [&Tensor; 3],
        segments: &Segments,
        config: &AttentionConfig,
    ) -> Result<Self> {
        let mut axes = Axes::new(function);
        let q = segments.axes(&mut axes, "q", q, &["tokens", "heads", "dim"])?;
        let k = axes.axes("k", k, &["tokens", "kv_heads", "dim"])?;
        let v = axes.axes("v", v, &["tokens", "kv_heads", "value_dim"])?;
        if !matches!(
            q.dtype(),
            DType::F32 | DType::F64 | DType::BF16 | DType::F16
        ) {
            return Err(Error::DType {
                function,
                argument: "q".to_string(),
                found: q.dtype().as_str(),
                expected: "f32, f64, bf16 or f16".to_string(),
            });
        }
        same_type(function, "k", &k, &q)?;
        same_type(function, "v", &v, &q)?;
        let (heads, kv_heads) = (q.dim(1)?, k.dim(1)?);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(Error::argument(
                function,
                "k",
                format!("has {kv_heads} heads, which do not divide the {heads} of `q`"),
            ));
        }
        if q.dim(2)? == 0 {
            return Err(Error::argument(function, "q", "has heads of width 0"));
        }
        if let Some(scale) = config.scale {
            require(scale.is_finite(), function, "scale", "finite", scale)?;
        }
        if let Some(window) = config.window {
            require(window >= 1, function, "window", ">= 1", window)?;
        }
        if let Some(cap) = config.softcap {
            let valid = cap.is_finite() && cap > 0.0;
            require(valid, function, "softcap", "finite and > 0", cap)?;
        }
        Ok(Self {
            axes,
            tensors: [q, k, v],
        })
    }

    /// `prefix` keys of each tree are in front of those of the tokens; with `own_prefix`, each tree's are its
    /// own.
    fn compute(
        &self,
        segments: &Segments,
        config: &AttentionConfig,
        prefix: usize,
        own_prefix: bool,
    ) -> Result<Tensor> {
        let [q, k, v] = &self.tensors;
        let (tokens, heads, dim) = q.dims3()?;
        let value_dim = v.dim(2)?;
        if tokens * heads * value_dim == 0 {
            return Ok(Tensor::zeros(
                (tokens, heads, value_dim),
                q.dtype(),
                q.device(),
            )?);
        }
        let settings = kernel::Settings {
            scale: config.scale.unwrap_or(1.0 / (dim as f64).sqrt()),
            window: config.window,
            softcap: config.softcap,
            prefix,
            own_prefix,
        };
        let [q, k, v] = [q.contiguous()?, k.contiguous()?, v.contiguous()?];
        match q.device().is_cpu() {
            true => Ok(kernel::attention(&q, &k, &v, segments, &settings)?),
            false => composed::attention(&q, &k, &v, segments, &settings),
        }
    }
}

/// `rest` behind `prefix`. A constant gets no gradient, as candle's `cat` would give it.
fn joined(prefix: &Tensor, rest: &Tensor) -> Result<Tensor> {
    if prefix.elem_count() == 0 {
        return Ok(rest.clone());
    }
    let (before, after) = (prefix.dim(0)?, rest.dim(0)?);
    if prefix.track_op() == rest.track_op() {
        return Ok(Tensor::cat(&[prefix, rest], 0)?);
    }
    let value = Tensor::cat(&[&prefix.detach(), &rest.detach()], 0)?;
    Ok(match prefix.track_op() {
        true => with_slope(prefix, value, move |grad| grad.narrow(0, 0, before))?,
        false => with_slope(rest, value, move |grad| grad.narrow(0, before, after))?,
    })
}

fn same_type(function: &'static str, argument: &str, tensor: &Tensor, q: &Tensor) -> Result<()> {
    match tensor.dtype() == q.dtype() {
        true => Ok(()),
        false => Err(Error::DType {
            function,
            argument: argument.to_string(),
            found: tensor.dtype().as_str(),
            expected: format!("{} (from `q`)", q.dtype().as_str()),
        }),
    }
}
