//! Attention from ordinary operations, for devices without the kernel.

use super::kernel::Settings;
use super::segments::Segments;
use crate::error::Result;
use candle_core::{D, DType, Tensor};

/// As the kernel's, with all scores at once: `[heads, tokens, keys]`.
pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segments: &Segments,
    settings: &Settings,
) -> Result<Tensor> {
    let stored = q.dtype();
    let compute = match stored {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    let (tokens, heads, _) = q.dims3()?;
    let (keys, kv_heads, _) = k.dims3()?;
    // heads in front, and the queries that share a key head one after another
    let by_head = |x: &Tensor| x.to_dtype(compute)?.transpose(0, 1)?.contiguous();
    let (q, k, v) = (by_head(q)?, by_head(k)?, by_head(v)?);
    let group = heads / kv_heads;
    let q = q.reshape((kv_heads, group * tokens, q.dim(2)?))?;
    let scores = (q.matmul(&k.t()?)? * settings.scale)?.reshape((heads, tokens, keys))?;
    let scores = match settings.softcap {
        Some(cap) => ((scores / cap)?.tanh()? * cap)?,
        None => scores,
    };
    // a select, so that what is hidden has neither a value nor a gradient
    let visible = Tensor::from_vec(
        visible(segments, settings, keys),
        (tokens, keys),
        q.device(),
    )?;
    let hidden = Tensor::full(f64::NEG_INFINITY, scores.shape(), q.device())?.to_dtype(compute)?;
    let scores = visible
        .broadcast_as(scores.shape())?
        .where_cond(&scores, &hidden)?;
    // a constant shift, through which no gradient flows
    let shift = scores.max_keepdim(D::Minus1)?.detach();
    let weights = scores.broadcast_sub(&shift)?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    let out = weights
        .reshape((kv_heads, group * tokens, keys))?
        .matmul(&v)?;
    let out = out.reshape((heads, tokens, v.dim(2)?))?;
    Ok(out.transpose(0, 1)?.contiguous()?.to_dtype(stored)?)
}

/// Which key each token sees, row by row.
fn visible(segments: &Segments, settings: &Settings, keys: usize) -> Vec<u8> {
    let all = segments.all();
    let prefixes = keys - segments.tokens();
    let window = settings.window.unwrap_or(usize::MAX);
    let mut out = vec![0u8; segments.tokens() * keys];
    for (i, segment) in all.iter().enumerate() {
        let path = segments.path(i);
        for token in segment.bounds() {
            let row = &mut out[token * keys..][..keys];
            let first = if settings.own_prefix {
                segment.tree * settings.prefix
            } else {
                0
            };
            row[first..first + settings.prefix].fill(1);
            let position = segment.position + token - segment.start;
            for above in &path {
                let above = &all[*above];
                for (key, at) in above.bounds().zip(above.position..) {
                    row[prefixes + key] = (at <= position && position - at < window) as u8;
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::kernel;
    use super::*;
    use candle_core::{Device, Var};

    /// What *Departures* says: a weight of 0 does not hide NaN.
    #[test]
    fn a_value_that_is_no_number_reaches_every_row() {
        let segments = Segments::new(&[1, 2], &[None, None]).unwrap();
        let settings = Settings {
            scale: 1.0,
            window: None,
            softcap: None,
            prefix: 0,
            own_prefix: false,
        };
        let ones = Tensor::ones((3, 1, 1), DType::F64, &Device::Cpu).unwrap();
        let v = Tensor::new(&[1.0, 2.0, f64::NAN], &Device::Cpu).unwrap();
        let v = v.reshape((3, 1, 1)).unwrap();
        let row = |out: Tensor| out.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let dense = row(attention(&ones, &ones, &v, &segments, &settings).unwrap());
        assert!(dense.iter().all(|out| out.is_nan()), "{dense:?}");
        let ours = row(kernel::attention(&ones, &ones, &v, &segments, &settings).unwrap());
        assert_eq!(ours[..2], [1.0, 2.0]);
    }

    #[test]
    fn both_forms_have_the_same_values_and_gradients() {
        let parents = [None, Some(0), Some(0), None, Some(2)];
        let segments = Segments::new(&[5, 3, 0, 4, 6], &parents).unwrap();
        for (prefix, own_prefix, window, softcap) in [
            (0, false, None, None),
            (2, false, Some(4), None),
            (3, true, None, Some(0.3)),
            (3, true, Some(1), None),
            (0, false, Some(4), Some(1.5)),
        ] {
            let settings = Settings {
                scale: 0.4,
                window,
                softcap,
                prefix,
                own_prefix,
            };
            let keys = 18 + prefix * if own_prefix { 2 } else { 1 };
            let var = |shape: (usize, usize, usize), by: f64| {
                let count = shape.0 * shape.1 * shape.2;
                let data: Vec<f64> = (0..count).map(|i| (i as f64 * by).sin()).collect();
                Var::from_tensor(&Tensor::from_vec(data, shape, &Device::Cpu).unwrap()).unwrap()
            };
            let (q, k) = (var((18, 4, 3), 0.7), var((keys, 2, 3), 1.1));
            let (v, weights) = (var((keys, 2, 5), 1.9), var((18, 4, 5), 0.3));
            let passes = |out: Tensor| {
                let sum = (&out * weights.detach()).unwrap().sum_all().unwrap();
                let gradients = sum.backward().unwrap();
                let of = [&q, &k, &v].map(|x| gradients.get(x).unwrap().clone());
                [vec![out], of.to_vec()].concat()
            };
            let ours = passes(kernel::attention(&q, &k, &v, &segments, &settings).unwrap());
            let dense = passes(attention(&q, &k, &v, &segments, &settings).unwrap());
            for (a, b) in ours.iter().zip(&dense) {
                let off = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
                let off = off.max(0).unwrap().to_scalar::<f64>().unwrap();
                assert!(off < 1e-14, "{off}");
            }
        }
    }
}
