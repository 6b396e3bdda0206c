//! Drawing answers with a cache of keys and values: every token goes through the layers once.

use super::layer::Layer;
use super::model::Decoder;
use super::projection::Pass;
use crate::error::Result;
use crate::online::samples::Samples;
use crate::online::sampling::{Open, SamplingConfig, draw, rows_on_host};
use crate::ops::Segments;
use crate::simd::{Fused, widest};
use candle_core::{DType, Tensor};
use rand::Rng;
use rayon::prelude::*;
use std::ops::Range;

impl Decoder {
    /// Draws answers to prompts, as [`sample`](crate::sample) does, with a cache of keys and values.
    ///
    /// Equal beginnings of prompts go through the model once, and so does a prompt with several answers.
    /// The active adapter is used, without dropout. Rows that have ended cost nothing.
    ///
    /// The tokens are those of [`sample`](crate::sample) over this model's logits with the same `rng`, as
    /// far as rounding does not decide.
    ///
    /// # Errors
    /// As [`sample`](crate::sample), and as [`Decoder::hidden`] for the prompts. A row that reaches the end
    /// of the context is an error; `max_new_tokens` bounds it.
    #[doc(alias = "generate")]
    #[doc(alias = "KV cache")]
    pub fn sample<P: AsRef<[u32]>>(
        &self,
        prompts: &[P],
        config: &SamplingConfig,
        rng: &mut impl Rng,
    ) -> Result<Samples> {
        let function = "Decoder::sample";
        let table = self.embedding.tensor();
        let cached = table.device().is_cpu() && table.dtype() != DType::F64;
        let mut cache: Option<Cache> = None;
        self.head_weight()?;
        draw(function, prompts, config, rng, |open| {
            let last = match (&mut cache, cached) {
                (Some(cache), true) => self.next(function, cache, open)?,
                (cache, _) => {
                    let rows: Vec<&[u32]> = open.iter().map(|open| open.tokens).collect();
                    let (segments, tokens) = Segments::from_tokens(&rows)?;
                    self.check(function, &tokens, &segments, self.virtual_tokens())?;
                    let (hidden, filled) = self.fill(&tokens, &segments, open, cached)?;
                    *cache = filled;
                    hidden
                }
            };
            rows_on_host(function, &self.next_logits(&last)?)
        })
    }

    /// Runs whole rows, and keeps their keys and values. The last hidden state of each row.
    fn fill(
        &self,
        tokens: &[u32],
        segments: &Segments,
        open: &[Open],
        keep: bool,
    ) -> Result<(Tensor, Option<Cache>)> {
        let start = self.start(tokens, segments, self.before())?;
        let (mut h, segments) = (start.h.detach(), start.segments);
        let tables = self.tables(&start.positions)?;
        let paths = segments.rows();
        let mut cache = Cache {
            shared: Vec::new(),
            rows: vec![Row::default(); open.iter().map(|open| open.row + 1).max().unwrap_or(0)],
        };
        for (open, path) in open.iter().zip(&paths) {
            cache.rows[open.row].shared = ranges(path, start.cached);
        }
        for (number, layer) in self.layers.iter().enumerate() {
            let tables = tables.of(&self.config, number);
            let pass = self.pass_in_evaluation(number, false);
            let qkv = layer.queries_keys_values(&h, tables, &pass)?;
            if keep {
                let mut cached = KeysValues::of(&qkv[1], &qkv[2])?;
                if let Some((prefix, number)) = &pass.prefix {
                    let (keys, values) = prefix.of_layer(*number)?;
                    cached.put_first(KeysValues::of(&keys, &values)?);
                }
                cache.shared.push(cached);
            }
            let attended = layer.attend(&qkv, &segments, &pass)?;
            h = layer.after(&h, &attended, &pass)?.detach();
        }
        let last: Vec<u32> = paths
            .iter()
            .filter_map(|path| path.last().copied())
            .collect();
        let last = Tensor::new(last, h.device())?;
        let hidden = self.norm.forward(&h.index_select(&last, 0)?)?;
        Ok((hidden, keep.then_some(cache)))
    }

    /// Runs the last token of each open row. Its hidden state.
    fn next(&self, function: &'static str, cache: &mut Cache, open: &[Open]) -> Result<Tensor> {
        let tokens: Vec<u32> = open
            .iter()
            .filter_map(|open| open.tokens.last().copied())
            .collect();
        let lengths: Vec<usize> = open.iter().map(|open| open.tokens.len()).collect();
        self.check_vocabulary(function, &tokens)?;
        let before = self.virtual_tokens();
        self.check_lengths(function, &lengths, before)?;
        let position = |length: &usize| (length + before) as u32 - 1;
        let positions: Vec<u32> = lengths.iter().map(position).collect();
        let tables = self.tables(&positions)?;
        let mut h = self.embed(&tokens)?.detach();
        for (number, layer) in self.layers.iter().enumerate() {
            let tables = tables.of(&self.config, number);
            let pass = self.pass_in_evaluation(number, true);
            let [q, k, v] = layer.queries_keys_values(&h, tables, &pass)?;
            let new = KeysValues::of(&k, &v)?;
            for (at, row) in open.iter().enumerate() {
                let own = &mut cache.rows[row.row].own;
                own.resize_with(self.layers.len(), KeysValues::default);
                own[number].append(&new, at, open.len());
            }
            let attended = cache.attend(layer, number, open, &q)?;
            h = layer.after(&h, &attended, &pass)?.detach();
        }
        self.norm.forward(&h)
    }

    /// `few`: one token of each row.
    fn pass_in_evaluation(&self, layer: usize, few: bool) -> Pass {
        Pass {
            adapter: self.adapter.clone(),
            dropout: None,
            prefix: self.before().and_then(|before| before.in_layer(layer)),
            few,
        }
    }
}

/// Keys and values of one layer, token after token.
#[derive(Clone, Debug, Default)]
struct KeysValues {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl KeysValues {
    fn of(k: &Tensor, v: &Tensor) -> Result<Self> {
        let numbers = |t: &Tensor| t.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>();
        Ok(Self {
            keys: numbers(k)?,
            values: numbers(v)?,
        })
    }

    /// Puts what no token has made before the rest.
    fn put_first(&mut self, mut first: Self) {
        first.keys.append(&mut self.keys);
        first.values.append(&mut self.values);
        *self = first;
    }

    /// Adds one token, the `at`-th of `count` new ones.
    fn append(&mut self, new: &Self, at: usize, count: usize) {
        let one = |all: &[f32]| {
            let width = all.len() / count;
            at * width..(at + 1) * width
        };
        self.keys.extend_from_slice(&new.keys[one(&new.keys)]);
        self.values.extend_from_slice(&new.values[one(&new.values)]);
    }
}

/// What a row has beside the shared tokens.
#[derive(Clone, Debug, Default)]
struct Row {
    /// Its tokens among the shared ones.
    shared: Vec<Range<usize>>,
    /// Those that were drawn, by layer.
    own: Vec<KeysValues>,
}

/// The keys and values of all rows.
#[derive(Clone, Debug, Default)]
struct Cache {
    /// Those of the prompts, by layer.
    shared: Vec<KeysValues>,
    rows: Vec<Row>,
}

impl Cache {
    /// The output of attention for one query per open row: `[rows, heads, dim]`.
    fn attend(&self, layer: &Layer, number: usize, open: &[Open], q: &Tensor) -> Result<Tensor> {
        let (count, heads, dim) = q.dims3()?;
        let kv_heads = layer.kv_heads();
        let (group, width) = (heads / kv_heads, kv_heads * dim);
        let scale = layer.scale() as f32;
        let queries = q.flatten_all()?.to_vec1::<f32>()?;
        let mut out = vec![0f32; count * heads * dim];
        // one task for each row and head of keys
        let tasks = out
            .par_chunks_mut(group * dim)
            .zip(queries.par_chunks(group * dim));
        tasks.enumerate().for_each(|(at, (out, queries))| {
            let (row, head) = (at / kv_heads, at % kv_heads);
            let row = &self.rows[open[row].row];
            let (shared, own) = (&self.shared[number], &row.own[number]);
            let length = row.shared.iter().map(Range::len).sum::<usize>() + own.keys.len() / width;
            let first = layer
                .attention
                .window
                .map_or(0, |window| length.saturating_sub(window));
            let own_tokens = 0..own.keys.len() / width;
            let parts = row.shared.iter().map(|range| (shared, range.clone()));
            let (keys, values): (Vec<&[f32]>, Vec<&[f32]>) = parts
                .chain([(own, own_tokens)])
                .flat_map(|(part, range)| {
                    range.map(move |token| (part, token * width + head * dim))
                })
                .skip(first)
                .map(|(part, at)| (&part.keys[at..at + dim], &part.values[at..at + dim]))
                .unzip();
            for (out, query) in out.chunks_mut(dim).zip(queries.chunks(dim)) {
                let mut scores = scores(query, &keys, scale);
                if let Some(cap) = layer.attention.softcap {
                    let cap = cap as f32;
                    scores.iter_mut().for_each(|s| *s = cap * (*s / cap).tanh());
                }
                let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let mut sum = 0.0;
                for score in &mut scores {
                    *score = (*score - highest).exp();
                    sum += *score;
                }
                scores.iter_mut().for_each(|score| *score /= sum);
                add_weighted(out, &values, &scores);
            }
        });
        Ok(Tensor::from_vec(out, (count, heads, dim), q.device())?)
    }
}

/// scale · q k for every key.
fn scores(query: &[f32], keys: &[&[f32]], scale: f32) -> Vec<f32> {
    widest(
        #[inline(always)]
        |fused| {
            let mut scores = vec![0f32; keys.len()];
            for (score, key) in scores.iter_mut().zip(keys) {
                *score = scale * dot(fused, query, key);
            }
            scores
        },
    )
}

/// out + Σ weight · value.
fn add_weighted(out: &mut [f32], values: &[&[f32]], weights: &[f32]) {
    widest(
        #[inline(always)]
        |fused| {
            for (value, weight) in values.iter().zip(weights) {
                for (out, value) in out.iter_mut().zip(*value) {
                    *out = fused.multiply_add(*weight, *value, *out);
                }
            }
        },
    )
}

/// Σ aᵢ bᵢ in sixteen partial sums.
#[allow(clippy::needless_range_loop)] // the compiler vectorizes loops over numbers, not over iterators
#[inline(always)]
fn dot(fused: Fused, a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        // a new array, so that the compiler keeps it in registers
        let mut new = [0f32; 16];
        for i in 0..16 {
            new[i] = fused.multiply_add(a[i], b[i], sums[i]);
        }
        sums = new;
    }
    let mut sum = 0.0;
    for (a, b) in a_rest.iter().zip(b_rest) {
        sum = fused.multiply_add(*a, *b, sum);
    }
    for part in sums {
        sum += part;
    }
    sum
}

/// A path's tokens as ranges, behind the first `before` places, which all paths have.
fn ranges(path: &[u32], before: usize) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let path = path.iter().map(|&token| token as usize + before);
    for token in (0..before).chain(path) {
        match ranges.last_mut() {
            Some(last) if last.end == token => last.end += 1,
            _ => ranges.push(token..token + 1),
        }
    }
    ranges
}
