//! Attention with a prefix, also written as a gated mixture (He et al. 2022, eq. 5 to 10).
//!
//! In one sentence: attention with a prefix mixes the layer's own output with the output of the prefix
//! alone, by a gate that depends on the query.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | x W_q | `q` | `[batch, heads, time, head_dim]` |
//! | C W_k, C W_v | `k`, `v` | `[batch, kv_heads, keys, head_dim]` |
//! | P_k, P_v | [`PrefixLayer`] | `[kv_heads, length, head_dim]` |
//! | λ(x) | [`PrefixMixture::gate`] | `[batch, heads, time, 1]` |
//! | h, Δh | [`PrefixMixture::content`], [`PrefixMixture::prefix`] | `[batch, heads, time, head_dim]` |
//!
//! Read next: [`bottleneck`](crate::parameter_efficient::bottleneck), where Δh has another form and the gate is a number.

use crate::error::{Error, Result};
use crate::known::readable;
use crate::math::{MASKED, log_sigmoid};
use crate::parameter_efficient::prefix::PrefixLayer;
use crate::shape::Axes;
use candle_core::{D, Tensor};

/// Attention over the content and a prefix before it.
///
/// # Equation
/// ```text
/// head = Attn(q, [P_k; K], [P_v; V]) = softmax( q [P_k; K]ᵀ / √head_dim ) [P_v; V]       eq. 5
/// ```
/// # Shapes
/// `q` `[batch, heads, time, head_dim]`; `k`, `v` `[batch, kv_heads, keys, head_dim]`; the prefix
/// `[kv_heads, length, head_dim]`; the result has the shape of `q`. kv_heads divides heads: query head i
/// reads the keys of head ⌊i · kv_heads / heads⌋. `visible` is u8 `[time, keys]` or `[batch, time, keys]`:
/// a 0 hides a key from a query; every query sees the prefix. All floats are f32, or all are f64.
///
/// Rotary positions are already applied to `q` and `k`, and the content's positions start at the
/// prefix's length ([`PrefixEncoder::virtual_positions`](crate::parameter_efficient::PrefixEncoder::virtual_positions)). The
/// prefix's keys are used as they are.
/// # Errors
/// [`Error::Shape`] and [`Error::DType`] as above, [`Error::Argument`] if kv_heads does not divide
/// heads.
/// # Properties
/// * It equals [`prefix_mixing`]'s (1 − λ)·h + λ·Δh.
/// * The weights of the content's keys keep their ratios: a prefix can add a direction, but it never
///   reorders what its own layer attends to.
/// * A prefix whose scores tend to −∞ leaves the layer unchanged. Keys of 0 do not: then
///   λ = p/(p + Σe^{qk}).
/// * For a query that sees no content the output is that of the prefix alone.
/// * The order of the prefix's positions makes no difference.
/// # Departures
/// The paper's eq. 5 omits √head_dim. The values at hidden keys must be finite.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{PrefixLayer, prefix_attention};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: &[f64], shape: (usize, usize, usize)| Tensor::from_slice(x, shape, &Device::Cpu);
/// // one head of width 1, one query, one key; scores q·k: 2 for the prefix, 1 for the content
/// let prefix = PrefixLayer { key: at(&[2.0], (1, 1, 1))?, value: at(&[10.0], (1, 1, 1))? };
/// let (q, k, v) = (at(&[1.0], (1, 1, 1))?, at(&[1.0], (1, 1, 1))?, at(&[4.0], (1, 1, 1))?);
/// let wide = |x: Tensor| x.unsqueeze(0);
/// let head = prefix_attention(&wide(q)?, &wide(k)?, &wide(v)?, &prefix, None)?;
///
/// let e = |x: f64| x.exp();
/// let want = (e(2.0) * 10.0 + e(1.0) * 4.0) / (e(2.0) + e(1.0));
/// assert!((head.flatten_all()?.to_vec1::<f64>()?[0] - want).abs() < 1e-14);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// He et al. 2022, arXiv:2110.04366v3, eq. 5; Li and Liang 2021, arXiv:2101.00190v1.
#[doc(alias = "prefix tuning")]
pub fn prefix_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    prefix: &PrefixLayer,
    visible: Option<&Tensor>,
) -> Result<Tensor> {
    let scores = Scores::new("prefix_attention", q, k, v, prefix, visible)?;
    // softmax( q [P_k; K]ᵀ / √head_dim )
    let all = Tensor::cat(&[&scores.prefix, &scores.content], D::Minus1)?;
    let weights = softmax(&all)?;
    // … [P_v; V]
    let length = prefix.key.dim(1)?;
    let of_prefix = scores.mix(&weights.narrow(D::Minus1, 0, length)?, &prefix.value)?;
    let keys = k.dim(2)?;
    let of_content = scores.mix(&weights.narrow(D::Minus1, length, keys)?, v)?;
    Ok((of_prefix + of_content)?)
}

/// The three parts of attention with a prefix.
#[derive(Clone, Debug)]
pub struct PrefixMixture {
    /// log λ and log(1 − λ), so that neither is lost next to the other.
    log_gates: (Tensor, Tensor),
    content: Tensor,
    prefix: Tensor,
}

impl PrefixMixture {
    /// λ `[batch, heads, time, 1]`: the share of the attention that goes to the prefix.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn gate(&self) -> Result<Tensor> {
        Ok(self.log_gates.0.exp()?)
    }

    /// h: attention without a prefix, `[batch, heads, time, head_dim]`.
    pub fn content(&self) -> &Tensor {
        &self.content
    }

    /// Δh: attention to the prefix alone, `[batch, heads, time, head_dim]`.
    pub fn prefix(&self) -> &Tensor {
        &self.prefix
    }

    /// (1 − λ)·h + λ·Δh.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn output(&self) -> Result<Tensor> {
        let content = self.content.broadcast_mul(&self.log_gates.1.exp()?)?;
        Ok((content + self.prefix.broadcast_mul(&self.gate()?)?)?)
    }
}

/// Attention with a prefix, split into its parts.
///
/// # Equation
/// ```text
/// head = (1 − λ) · Attn(q, K, V) + λ · Attn(q, P_k, P_v)                                   eq. 7
/// λ    = Σᵢ e^{qP_kᵢ} / ( Σᵢ e^{qP_kᵢ} + Σⱼ e^{qKⱼ} )                                       eq. 8
///      = σ( log Σᵢ e^{qP_kᵢ} − log Σⱼ e^{qKⱼ} )
/// Δh   = softmax(q P_kᵀ) P_v,       h ← (1 − λ) h + λ Δh                              eq. 9, 10
/// ```
/// with every score divided by √head_dim.
/// # Shapes
/// As [`prefix_attention`].
/// # Errors
/// As [`prefix_attention`].
/// # Properties
/// * [`PrefixMixture::output`] is [`prefix_attention`], to rounding.
/// * Δh is a two-layer network with softmax as its activation: W₁ = P_k, W₂ = P_v. That is an adapter
///   parallel to the attention, whose scale is λ(x) and which reduces h by the share λ.
/// * For a query that sees no content λ = 1.
/// # Departures
/// The paper's eq. 8 omits √head_dim.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{PrefixLayer, prefix_mixing};
/// use candle_core::{DType, Device, Tensor};
///
/// // two keys of 0 against three of 0: every score is 0
/// let zeros = |n| Tensor::zeros((1, n, 4), DType::F64, &Device::Cpu);
/// let prefix = PrefixLayer { key: zeros(2)?, value: zeros(2)? };
/// let (q, k) = (zeros(1)?.unsqueeze(0)?, zeros(3)?.unsqueeze(0)?);
/// let mixture = prefix_mixing(&q, &k, &k, &prefix, None)?;
/// let gate = mixture.gate()?.flatten_all()?.to_vec1::<f64>()?[0];
/// assert!((gate - 2.0 / (2.0 + 3.0)).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// He et al. 2022, arXiv:2110.04366v3, eq. 7 to 10.
pub fn prefix_mixing(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    prefix: &PrefixLayer,
    visible: Option<&Tensor>,
) -> Result<PrefixMixture> {
    let scores = Scores::new("prefix_mixing", q, k, v, prefix, visible)?;
    let total = |x: &Tensor| -> Result<Tensor> {
        if x.elem_count() == 0 {
            let (batch, heads, time, _) = x.dims4()?;
            let none = Tensor::full(MASKED, (batch, heads, time, 1), x.device())?;
            return Ok(none.to_dtype(x.dtype())?);
        }
        Ok(x.log_sum_exp(D::Minus1)?.unsqueeze(3)?)
    };
    // λ = σ( log Σᵢ e^{qP_kᵢ} − log Σⱼ e^{qKⱼ} )
    let odds = (total(&scores.prefix)? - total(&scores.content)?)?;
    Ok(PrefixMixture {
        log_gates: (log_sigmoid(&odds)?, log_sigmoid(&odds.neg()?)?),
        content: scores.mix(&softmax(&scores.content)?, v)?,
        prefix: scores.mix(&softmax(&scores.prefix)?, &prefix.value)?,
    })
}

/// q·k/√head_dim for both kinds of keys, `[batch, heads, time, ·]`.
struct Scores {
    prefix: Tensor,
    content: Tensor,
    /// batch, kv_heads, queries of one kv head (groups · time), head_dim.
    grouped: (usize, usize, usize, usize),
}

impl Scores {
    fn new(
        function: &'static str,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        prefix: &PrefixLayer,
        visible: Option<&Tensor>,
    ) -> Result<Self> {
        let mut axes = Axes::new(function);
        axes.float("q", q, &["batch", "heads", "time", "head_dim"])?;
        axes.float("k", k, &["batch", "kv_heads", "keys", "head_dim"])?;
        axes.float("v", v, &["batch", "kv_heads", "keys", "head_dim"])?;
        let own = ["kv_heads", "length", "head_dim"];
        axes.float("prefix.key", &prefix.key, &own)?;
        axes.float("prefix.value", &prefix.value, &own)?;
        match visible {
            Some(visible) if visible.rank() == 2 => {
                axes.mask("visible", visible, &["time", "keys"])?;
            }
            Some(visible) => {
                axes.mask("visible", visible, &["batch", "time", "keys"])?;
            }
            None => {}
        }
        let (q, k) = (&readable(q)?, &readable(k)?);
        let (batch, heads, time, head_dim) = q.dims4()?;
        let kv_heads = k.dim(1)?;
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(Error::argument(
                function,
                "k",
                format!("has {kv_heads} heads, which do not divide the {heads} of `q`"),
            ));
        }

        // the queries that read one head's keys, next to each other
        let grouped = (batch, kv_heads, heads / kv_heads * time, head_dim);
        let q = (q.contiguous()?.reshape(grouped)? * (1.0 / (head_dim as f64).sqrt()))?;
        let score = |keys: &Tensor| -> Result<Tensor> {
            let number = keys.dim(D::Minus2)?;
            let keys = keys.contiguous()?.transpose(D::Minus1, D::Minus2)?;
            Ok(q.broadcast_matmul(&keys)?
                .reshape((batch, heads, time, number))?)
        };
        let mut content = score(k)?;
        if let Some(visible) = visible {
            let visible = match visible.rank() {
                3 => readable(visible)?.unsqueeze(1)?,
                _ => readable(visible)?,
            };
            let hidden = (content.zeros_like()? + MASKED)?;
            content = visible
                .broadcast_as(content.shape())?
                .where_cond(&content, &hidden)?;
        }
        Ok(Self {
            prefix: score(&prefix.key.unsqueeze(0)?)?,
            content,
            grouped,
        })
    }

    /// Weights of keys times their values, `[batch, heads, time, head_dim]`.
    fn mix(&self, weights: &Tensor, values: &Tensor) -> Result<Tensor> {
        let (batch, kv_heads, queries, head_dim) = self.grouped;
        let (_, heads, time, keys) = weights.dims4()?;
        let weights = readable(weights)?
            .contiguous()?
            .reshape((batch, kv_heads, queries, keys))?;
        let mixed = match values.rank() {
            3 => weights.broadcast_matmul(&values.unsqueeze(0)?)?,
            _ => weights.matmul(&readable(values)?.contiguous()?)?,
        };
        Ok(mixed.reshape((batch, heads, time, head_dim))?)
    }
}

/// softmax over the last axis, from operations that have a backward pass.
fn softmax(scores: &Tensor) -> Result<Tensor> {
    if scores.elem_count() == 0 {
        return Ok(scores.clone()); // an empty batch has no largest score
    }
    // The largest score is a constant shift: no gradient flows through it.
    let shift = scores.max_keepdim(D::Minus1)?.detach();
    let weights = scores.broadcast_sub(&shift)?.exp()?;
    Ok(weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?)
}
