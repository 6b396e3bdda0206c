//! One layer: attention and a gated feed-forward part, each behind a norm and beside the residual stream.

use super::config::DecoderConfig;
use super::family::{Family, Gate};
use super::norm::Norm;
use super::projection::{Pass, Projection, Weight};
use super::tensors::Tensors;
use crate::error::Result;
use crate::ops::{self, AttentionConfig, Segments};
use candle_core::{D, Tensor};

/// What maps hidden states to queries, keys and values.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one per layer
enum Inputs {
    Each([Projection; 3]),
    /// Phi-3: rows of one matrix, in the order q, k, v.
    One(Projection),
}

/// What maps hidden states to the gate and what it multiplies.
#[derive(Clone, Debug)]
enum Gated {
    Each([Projection; 2]),
    /// Phi-3: rows of one matrix, the gate first.
    One(Projection),
}

/// A layer with all its weights.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    input_norm: Norm,
    inputs: Inputs,
    query_key_norms: Option<[Norm; 2]>,
    output: Projection,
    /// Gemma: on what attention returns.
    after_attention: Option<Norm>,
    feed_forward_norm: Norm,
    gated: Gated,
    down: Projection,
    /// Gemma: on what the feed-forward part returns.
    after_feed_forward: Option<Norm>,
    gate: Gate,
    /// Heads of queries, heads of keys, width of a head.
    heads: [usize; 3],
    pub(super) attention: AttentionConfig,
}

/// The tables of rotary positions, for the tokens of a batch.
pub(super) type Tables = (Tensor, Tensor);

impl Layer {
    pub(super) fn new(
        tensors: &mut Tensors,
        config: &DecoderConfig,
        number: usize,
    ) -> Result<Self> {
        let path = format!("model.layers.{number}");
        let attention = format!("{path}.self_attn");
        let mlp = format!("{path}.mlp");
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (heads, kv_heads, dim) = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        );
        let (queries, keys) = (heads * dim, kv_heads * dim);
        let bias = config.query_key_value_bias;
        let inputs = match config.family {
            Family::Phi3 => Inputs::One(tensors.linear(
                format!("{attention}.qkv_proj"),
                queries + 2 * keys,
                hidden,
                bias,
            )?),
            _ => Inputs::Each([
                tensors.linear(format!("{attention}.q_proj"), queries, hidden, bias)?,
                tensors.linear(format!("{attention}.k_proj"), keys, hidden, bias)?,
                tensors.linear(format!("{attention}.v_proj"), keys, hidden, bias)?,
            ]),
        };
        let gated = match config.family {
            Family::Phi3 => Gated::One(tensors.linear(
                format!("{mlp}.gate_up_proj"),
                2 * inner,
                hidden,
                config.mlp_bias,
            )?),
            _ => Gated::Each([
                tensors.linear(format!("{mlp}.gate_proj"), inner, hidden, config.mlp_bias)?,
                tensors.linear(format!("{mlp}.up_proj"), inner, hidden, config.mlp_bias)?,
            ]),
        };
        let query_key_norms = match config.query_key_norm {
            true => Some([
                Norm::new(tensors, config, &format!("{attention}.q_norm"), dim)?,
                Norm::new(tensors, config, &format!("{attention}.k_norm"), dim)?,
            ]),
            false => None,
        };
        let four = config.family.is_gemma();
        let mut norm = |name: &str| Norm::new(tensors, config, &format!("{path}.{name}"), hidden);
        let after_attention = norm("post_attention_layernorm")?;
        let (after_attention, feed_forward_norm, after_feed_forward) = match four {
            true => (
                Some(after_attention),
                norm("pre_feedforward_layernorm")?,
                Some(norm("post_feedforward_layernorm")?),
            ),
            false => (None, after_attention, None),
        };
        Ok(Self {
            input_norm: norm("input_layernorm")?,
            inputs,
            query_key_norms,
            output: tensors.linear(
                format!("{attention}.o_proj"),
                hidden,
                queries,
                config.output_bias,
            )?,
            after_attention,
            feed_forward_norm,
            gated,
            down: tensors.linear(format!("{mlp}.down_proj"), hidden, inner, config.mlp_bias)?,
            after_feed_forward,
            gate: config.gate,
            heads: [heads, kv_heads, dim],
            attention: AttentionConfig {
                scale: Some(config.score_scale),
                window: config.windows[number],
                softcap: config.attn_logit_softcapping,
            },
        })
    }

    /// Queries, keys and values `[tokens, heads, dim]`, normalized and turned to their positions.
    pub(super) fn queries_keys_values(
        &self,
        h: &Tensor,
        (cos, sin): &Tables,
        pass: &Pass,
    ) -> Result<[Tensor; 3]> {
        let [heads, kv_heads, dim] = self.heads;
        let tokens = h.dim(0)?;
        let x = self.input_norm.forward(h)?;
        let [q, k, v] = match &self.inputs {
            Inputs::Each([q, k, v]) => [
                q.forward(&x, pass)?,
                k.forward(&x, pass)?,
                v.forward(&x, pass)?,
            ],
            Inputs::One(all) => {
                let all = all.forward(&x, pass)?;
                let (queries, keys) = (heads * dim, kv_heads * dim);
                [
                    all.narrow(1, 0, queries)?,
                    all.narrow(1, queries, keys)?,
                    all.narrow(1, queries + keys, keys)?,
                ]
            }
        };
        let q = q.contiguous()?.reshape((tokens, heads, dim))?;
        let k = k.contiguous()?.reshape((tokens, kv_heads, dim))?;
        let v = v.contiguous()?.reshape((tokens, kv_heads, dim))?;
        let (q, k) = match &self.query_key_norms {
            Some([of_q, of_k]) => (of_q.forward(&q)?, of_k.forward(&k)?),
            None => (q, k),
        };
        Ok([turned(&q, cos, sin)?, turned(&k, cos, sin)?, v])
    }

    /// The residual stream after attention, whose output is `attended` `[tokens, heads, dim]`, and after the
    /// feed-forward part.
    pub(super) fn after(&self, h: &Tensor, attended: &Tensor, pass: &Pass) -> Result<Tensor> {
        let attended = attended.flatten_from(1)?;
        let mut branch = self.output.forward(&attended, pass)?;
        if let Some(norm) = &self.after_attention {
            branch = norm.forward(&branch)?;
        }
        let h = (h + branch)?;

        let x = self.feed_forward_norm.forward(&h)?;
        let (gate, up) = match &self.gated {
            Gated::Each([gate, up]) => (gate.forward(&x, pass)?, up.forward(&x, pass)?),
            Gated::One(both) => {
                let both = both.forward(&x, pass)?;
                let inner = both.dim(D::Minus1)? / 2;
                (both.narrow(1, 0, inner)?, both.narrow(1, inner, inner)?)
            }
        };
        let inner = match self.gate {
            Gate::Silu => ops::silu_mul(&gate, &up)?,
            Gate::GeluTanh => (gate.contiguous()?.gelu()? * up)?,
        };
        let mut branch = self.down.forward(&inner, pass)?;
        if let Some(norm) = &self.after_feed_forward {
            branch = norm.forward(&branch)?;
        }
        Ok((h + branch)?)
    }

    /// Heads of keys and values.
    pub(super) fn kv_heads(&self) -> usize {
        self.heads[1]
    }

    /// The factor of the scores.
    pub(super) fn scale(&self) -> f64 {
        let default = 1.0 / (self.heads[2] as f64).sqrt();
        self.attention.scale.unwrap_or(default)
    }

    /// The whole layer over a batch of segments.
    pub(super) fn forward(
        &self,
        h: &Tensor,
        segments: &Segments,
        tables: &Tables,
        pass: &Pass,
    ) -> Result<Tensor> {
        let qkv = self.queries_keys_values(h, tables, pass)?;
        let attended = self.attend(&qkv, segments, pass)?;
        self.after(h, &attended, pass)
    }

    /// Attention over a batch of segments, and over the prefix of the pass.
    pub(super) fn attend(
        &self,
        [q, k, v]: &[Tensor; 3],
        segments: &Segments,
        pass: &Pass,
    ) -> Result<Tensor> {
        let Some((prefix, number)) = &pass.prefix else {
            return ops::attention(q, k, v, segments, &self.attention);
        };
        let (keys, values) = prefix.of_layer(*number)?;
        if self.attention.window.is_none() {
            let prefix = (&keys, &values);
            return ops::attention_with_prefix(q, k, v, prefix, segments, &self.attention);
        }
        // a window hides a prefix as it hides tokens: here the prefix is tokens, whose own outputs are dropped
        let (tokens, heads, dim) = q.dims3()?;
        let length = keys.dim(0)?;
        let none = Tensor::zeros((length, heads, dim), q.dtype(), q.device())?;
        let behind = |first: &Tensor, rest: &Tensor| Tensor::cat(&[first, rest], 0);
        let out = ops::attention(
            &behind(&none, q)?,
            &behind(&keys, k)?,
            &behind(&values, v)?,
            &segments.below(length)?,
            &self.attention,
        )?;
        Ok(out.narrow(0, length, tokens)?)
    }

    /// All linear maps, in the order of Transformers.
    pub(super) fn projections(&self) -> Vec<&Projection> {
        let mut all: Vec<&Projection> = match &self.inputs {
            Inputs::Each(each) => each.iter().collect(),
            Inputs::One(one) => vec![one],
        };
        all.push(&self.output);
        match &self.gated {
            Gated::Each(each) => all.extend(each),
            Gated::One(one) => all.push(one),
        }
        all.push(&self.down);
        all
    }

    pub(super) fn projections_mut(&mut self) -> Vec<&mut Projection> {
        let mut all: Vec<&mut Projection> = match &mut self.inputs {
            Inputs::Each(each) => each.iter_mut().collect(),
            Inputs::One(one) => vec![one],
        };
        all.push(&mut self.output);
        match &mut self.gated {
            Gated::Each(each) => all.extend(each),
            Gated::One(one) => all.push(one),
        }
        all.push(&mut self.down);
        all
    }

    fn norms(&self) -> impl Iterator<Item = &Norm> {
        let pairs = self.query_key_norms.iter().flatten();
        [&self.input_norm, &self.feed_forward_norm]
            .into_iter()
            .chain(&self.after_attention)
            .chain(&self.after_feed_forward)
            .chain(pairs)
    }

    /// The model's own tensors, by name.
    pub(super) fn tensors(&self) -> Vec<(String, &Weight)> {
        let norms = self.norms().map(Norm::tensor);
        let maps = self.projections().into_iter().flat_map(Projection::tensors);
        norms.chain(maps).collect()
    }
}

/// The first coordinates of each head turned by the tables; the rest as they are. `[tokens, heads, dim]`.
fn turned(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let rotary = 2 * cos.dim(1)?;
    let dim = x.dim(2)?;
    let turn = |x: &Tensor| -> Result<Tensor> {
        Ok(ops::rope_thd(&x.unsqueeze(0)?, cos, sin)?.squeeze(0)?)
    };
    match rotary == dim {
        true => turn(x),
        false => {
            let first = turn(&x.narrow(2, 0, rotary)?.contiguous()?)?;
            Ok(Tensor::cat(
                &[first, x.narrow(2, rotary, dim - rotary)?],
                2,
            )?)
        }
    }
}
