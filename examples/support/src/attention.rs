//! Attention of the decoder, over the positions that are visible.

use super::softmax::{Visible, visible_softmax};
use candle_align::Result;
use candle_align::parameter_efficient::{PrefixLayer, prefix_attention};
use candle_core::{Device, Tensor};

/// The positions before each position that are `visible`: `[batch · heads, time, time]`.
pub(super) fn shown(visible: &Tensor, batch: usize, time: usize, heads: usize) -> Result<Visible> {
    let square = (batch, time, time);
    let visible = match visible.dims() {
        &[b, t] if (b, t) == (batch, time) => visible.unsqueeze(1)?.broadcast_as(square)?,
        &[b, t, s] if (b, t, s) == square => visible.clone(),
        other => fail!("`visible` has shape {other:?}, but the tokens [{batch}, {time}]"),
    };
    let visible = visible.flatten_all()?.to_vec1::<u8>()?;
    if visible.iter().step_by(time).any(|&first| first == 0) {
        fail!("`visible` hides a first token: its position would see nothing");
    }
    let causal = Visible::causal(time);
    let each_head = visible.chunks(time * time).flat_map(|one| {
        let both = one.iter().zip(causal.mask()).map(|(v, c)| *v != 0 && *c);
        std::iter::repeat_n(both, heads).flatten()
    });
    Ok(Visible::new(each_head.collect(), time))
}

/// softmax(q kᵀ / √width) v, from `[batch · time, 3 · dim]` to `[batch · time, dim]`.
pub(super) fn attend(
    qkv: &Tensor,
    batch: usize,
    time: usize,
    heads: usize,
    shown: &Visible,
    prefix: Option<&PrefixLayer>,
) -> Result<Tensor> {
    let dim = qkv.dim(1)? / 3;
    let width = dim / heads;
    // One copy brings all three into the order [3, batch · heads, time, width].
    let qkv = qkv
        .reshape((batch, time, 3, heads, width))?
        .permute((2, 0, 3, 1, 4))?
        .contiguous()?
        .reshape((3, batch * heads, time, width))?;
    let (q, k, v) = (qkv.get(0)?, qkv.get(1)?, qkv.get(2)?);
    if let Some(prefix) = prefix {
        let heads = |x: &Tensor| x.reshape((batch, heads, time, width));
        let mask: Vec<u8> = shown.mask().iter().map(|&m| m as u8).collect();
        let visible = Tensor::from_vec(mask, (time, time), &Device::Cpu)?;
        let mixed = prefix_attention(
            &heads(&q)?,
            &heads(&k)?,
            &heads(&v)?,
            prefix,
            Some(&visible),
        )?;
        return Ok(mixed.transpose(1, 2)?.reshape((batch * time, dim))?);
    }
    let q = (q * (1.0 / (width as f64).sqrt()))?;
    let weights = visible_softmax(&q.matmul(&k.t()?)?, shown)?;
    let mixed = weights.matmul(&v)?;
    Ok(mixed
        .reshape((batch, heads, time, width))?
        .transpose(1, 2)?
        .contiguous()?
        .reshape((batch * time, dim))?)
}
