//! A layout with its sizes, its numbers, and two other ways to compute it: a loop and a masked softmax.

use candle_align::Result;
use candle_align::ops::{AttentionConfig, Segments, attention, attention_with_prefix};
use candle_core::{D, DType, Device, Tensor, Var};

#[derive(Clone, Debug)]
pub struct Case {
    pub lengths: Vec<usize>,
    pub parents: Vec<Option<usize>>,
    pub heads: usize,
    pub kv_heads: usize,
    pub dim: usize,
    pub value_dim: usize,
    pub window: Option<usize>,
    pub scale: Option<f64>,
    pub softcap: Option<f64>,
    pub prefix: usize,
    pub own_prefix: bool,
}

/// q, k, v, prefix_k, prefix_v.
pub const NAMES: [&str; 5] = ["q", "k", "v", "prefix_k", "prefix_v"];

impl Case {
    pub fn new(lengths: &[usize], parents: &[Option<usize>]) -> Self {
        Self {
            lengths: lengths.to_vec(),
            parents: parents.to_vec(),
            heads: 2,
            kv_heads: 1,
            dim: 3,
            value_dim: 2,
            window: None,
            scale: None,
            softcap: None,
            prefix: 0,
            own_prefix: false,
        }
    }

    pub fn segments(&self) -> Segments {
        Segments::new(&self.lengths, &self.parents).unwrap()
    }

    pub fn config(&self) -> AttentionConfig {
        AttentionConfig {
            scale: self.scale,
            window: self.window,
            softcap: self.softcap,
        }
    }

    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    fn roots(&self) -> usize {
        self.parents.iter().filter(|p| p.is_none()).count()
    }

    pub fn shapes(&self) -> [Vec<usize>; 5] {
        let (t, p) = (self.tokens(), self.prefix);
        let prefix = |dim| match self.own_prefix {
            true => vec![self.roots(), p, self.kv_heads, dim],
            false => vec![p, self.kv_heads, dim],
        };
        [
            vec![t, self.heads, self.dim],
            vec![t, self.kv_heads, self.dim],
            vec![t, self.kv_heads, self.value_dim],
            prefix(self.dim),
            prefix(self.value_dim),
        ]
    }

    /// Some numbers between −1 and 1 for every argument, and for the gradient of the result.
    pub fn numbers(&self, seed: usize) -> Vec<Vec<f64>> {
        let out = vec![self.tokens(), self.heads, self.value_dim];
        let shapes = self.shapes().into_iter().chain([out]);
        let of = |(i, shape): (usize, Vec<usize>)| {
            let count: usize = shape.iter().product();
            let number =
                |j: usize| ((j * 7919 + i * 104_729 + seed * 31 + 17) as f64 * 0.618_034).fract();
            (0..count).map(|j| 2.0 * number(j) - 1.0).collect()
        };
        shapes.enumerate().map(of).collect()
    }

    /// The row of a token: flat indices, up to itself.
    pub fn path(&self, token: usize) -> Vec<usize> {
        let starts: Vec<usize> = self
            .lengths
            .iter()
            .scan(0, |start, length| {
                *start += length;
                Some(*start - length)
            })
            .collect();
        let mut at = (0..starts.len())
            .find(|i| (starts[*i]..starts[*i] + self.lengths[*i]).contains(&token))
            .unwrap();
        let mut path: Vec<usize> = (starts[at]..=token).rev().collect();
        while let Some(parent) = self.parents[at] {
            path.extend((starts[parent]..starts[parent] + self.lengths[parent]).rev());
            at = parent;
        }
        path.reverse();
        path
    }

    fn root(&self, token: usize) -> usize {
        let first = self.path(token)[0];
        let firsts: Vec<usize> = (0..self.tokens()).map(|t| self.path(t)[0]).collect();
        let mut distinct = firsts.clone();
        distinct.dedup();
        distinct.sort();
        distinct.dedup();
        distinct.iter().position(|f| *f == first).unwrap()
    }

    /// The keys that a token sees: rows of the prefix, then tokens.
    fn seen(&self, token: usize) -> (Vec<usize>, Vec<usize>) {
        let first = if self.own_prefix {
            self.root(token) * self.prefix
        } else {
            0
        };
        let mut path = self.path(token);
        if let Some(window) = self.window {
            path.drain(..path.len().saturating_sub(window));
        }
        ((first..first + self.prefix).collect(), path)
    }

    /// One number after another, in f64.
    pub fn loops(&self, numbers: &[Vec<f64>]) -> Vec<f64> {
        let [q, k, v, pk, pv] = [0, 1, 2, 3, 4].map(|i| &numbers[i]);
        let (g, d, dv) = (self.heads / self.kv_heads, self.dim, self.value_dim);
        let scale = self.scale.unwrap_or(1.0 / (d as f64).sqrt());
        let mut out = vec![];
        for token in 0..self.tokens() {
            let (prefix, tokens) = self.seen(token);
            for head in 0..self.heads {
                let kv = head / g;
                let row = |data: &[f64], at: usize, width: usize| -> Vec<f64> {
                    data[(at * self.kv_heads + kv) * width..][..width].to_vec()
                };
                let keys = prefix.iter().map(|p| (row(pk, *p, d), row(pv, *p, dv)));
                let keys = keys.chain(tokens.iter().map(|t| (row(k, *t, d), row(v, *t, dv))));
                let q = &q[(token * self.heads + head) * d..][..d];
                let (mut total, mut sum) = (0.0, vec![0.0; dv]);
                let scored: Vec<(f64, Vec<f64>)> = keys
                    .map(|(k, v)| (q.iter().zip(&k).map(|(a, b)| a * b).sum::<f64>() * scale, v))
                    .map(|(s, v)| (self.softcap.map_or(s, |c| c * (s / c).tanh()), v))
                    .collect();
                let most = scored.iter().map(|s| s.0).fold(f64::NEG_INFINITY, f64::max);
                for (score, v) in scored {
                    let e = (score - most).exp();
                    total += e;
                    sum.iter_mut().zip(v).for_each(|(s, v)| *s += e * v);
                }
                out.extend(sum.iter().map(|s| s / total));
            }
        }
        out
    }

    pub fn vars(&self, numbers: &[Vec<f64>], dtype: DType) -> Vec<Var> {
        let of = |(data, shape): (&Vec<f64>, Vec<usize>)| {
            let x = Tensor::from_vec(data.clone(), shape, &Device::Cpu).unwrap();
            Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap()
        };
        numbers.iter().zip(self.shapes()).map(of).collect()
    }

    pub fn ours(&self, x: &[Tensor]) -> Result<Tensor> {
        let (segments, config) = (self.segments(), self.config());
        match self.prefix {
            0 => attention(&x[0], &x[1], &x[2], &segments, &config),
            _ => attention_with_prefix(&x[0], &x[1], &x[2], (&x[3], &x[4]), &segments, &config),
        }
    }

    /// A masked softmax of candle's operations.
    pub fn dense(&self, x: &[Tensor]) -> candle_core::Result<Tensor> {
        let (tokens, group) = (self.tokens(), self.heads / self.kv_heads);
        let rows = x[3].elem_count() / (self.kv_heads * self.dim).max(1);
        let join = |prefix: &Tensor, rest: &Tensor, dim: usize| match rows {
            0 => Ok(rest.clone()),
            _ => Tensor::cat(&[&prefix.reshape((rows, self.kv_heads, dim))?, rest], 0),
        };
        let (k, v) = (
            join(&x[3], &x[1], self.dim)?,
            join(&x[4], &x[2], self.value_dim)?,
        );
        let keys = rows + tokens;
        let wide = |x: &Tensor| -> candle_core::Result<Tensor> {
            let (rows, heads, dim) = x.dims3()?;
            let x = x.unsqueeze(2)?.expand((rows, heads, group, dim))?;
            x.reshape((rows, heads * group, dim))?
                .transpose(0, 1)?
                .contiguous()
        };
        let scale = self.scale.unwrap_or(1.0 / (self.dim as f64).sqrt());
        let q = x[0].transpose(0, 1)?.contiguous()?;
        let scores = (q.matmul(&wide(&k)?.t()?)? * scale)?;
        let scores = match self.softcap {
            Some(cap) => ((scores / cap)?.tanh()? * cap)?,
            None => scores,
        };
        let mut mask = vec![0u8; tokens * keys];
        for token in 0..tokens {
            let (prefix, seen) = self.seen(token);
            prefix.iter().for_each(|p| mask[token * keys + p] = 1);
            seen.iter().for_each(|t| mask[token * keys + rows + t] = 1);
        }
        let mask = Tensor::from_vec(mask, (tokens, keys), &Device::Cpu)?;
        let hidden = Tensor::full(f64::NEG_INFINITY, scores.shape(), &Device::Cpu)?;
        let hidden = hidden.to_dtype(scores.dtype())?;
        let scores = mask
            .broadcast_as(scores.shape())?
            .where_cond(&scores, &hidden)?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
        weights.matmul(&wide(&v)?)?.transpose(0, 1)?.contiguous()
    }
}

pub fn tensors(vars: &[Var]) -> Vec<Tensor> {
    vars.iter().map(|v| v.as_tensor().clone()).collect()
}

pub fn host(x: &Tensor) -> Vec<f64> {
    match x.elem_count() {
        0 => vec![],
        _ => {
            let x = x.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
            x.to_vec1().unwrap()
        }
    }
}

/// The result, and the gradients of Σ result · weights; empty where there is none.
pub fn passes(out: &Tensor, weights: &[f64], of: &[Var]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let weights = Tensor::from_vec(weights.to_vec(), out.shape(), &Device::Cpu).unwrap();
    let weights = weights.to_dtype(out.dtype()).unwrap();
    let gradients = (out * weights)
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    let of = of
        .iter()
        .map(|v| gradients.get(v).map(host).unwrap_or_default());
    (host(out), of.collect())
}

/// The largest difference, relative to 1 or the largest number. NaN is the largest of all.
pub fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let size = b.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
    let of = a.iter().zip(b).map(|(a, b)| (a - b).abs() / size);
    of.fold(0.0, |m, d| if d <= m { m } else { d })
}
