//! Time and memory of attention, forward and backward, against candle's operations and, with `--python`,
//! against PyTorch's `scaled_dot_product_attention`: each variant in its own process, medians of one run.
//!
//! ```text
//! cargo bench --bench attention                                 # everything against candle
//! cargo bench --bench attention -- --only equal                 # one group
//! cargo bench --bench attention -- --python venv/bin/python     # and against PyTorch
//! ```
//! Groups: `equal`, four rows of 256 tokens; `long`, one row of 1024; `shared`, two prompts of 192 tokens with
//! four answers of 64 each, once per prompt or once per row. Heads of width 64, f32, causal.

#[allow(dead_code)]
mod harness;

use candle_align::Result;
use candle_align::ops::{AttentionConfig, Segments, attention};
use candle_core::{D, Device, Tensor, Var};
use harness::{Group, Measured, compare, measure, numbers};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DIM: usize = 64;

/// What is compared, by group. A variant is named by its heads and key heads.
const GROUPS: [Group; 3] = [
    (
        "equal",
        &["9/3 ours", "9/3 candle", "32/8 ours", "32/8 candle"],
        &["9/3 sdpa", "32/8 sdpa"],
    ),
    ("long", &["9/3 ours", "9/3 candle"], &["9/3 sdpa"]),
    (
        "shared",
        &["9/3 once per prompt", "9/3 once per row", "9/3 candle"],
        &["9/3 sdpa"],
    ),
];

/// Rows and the tokens of each, as a batch without shared tokens.
fn rows(group: &str) -> (usize, usize) {
    match group {
        "equal" => (4, 256),
        "long" => (1, 1024),
        _ => (8, 256),
    }
}

/// Causal attention from candle's operations, `[batch, heads, time, dim]`.
fn composed(q: &Tensor, k: &Tensor, v: &Tensor, hidden: &Tensor) -> candle_core::Result<Tensor> {
    let (batch, heads, time, dim) = q.dims4()?;
    let kv_heads = k.dim(1)?;
    let wide = |x: &Tensor| {
        let x = x.unsqueeze(2)?;
        let x = x.expand((batch, kv_heads, heads / kv_heads, time, dim))?;
        x.reshape((batch, heads, time, dim))
    };
    let scores = (q.matmul(&wide(k)?.t()?)? * (1.0 / (dim as f64).sqrt()))?;
    let weights = candle_nn::ops::softmax(&scores.broadcast_add(hidden)?, D::Minus1)?;
    weights.matmul(&wide(v)?)
}

fn variant(group: &str, name: &str) -> Result<Measured> {
    let (heads, kind) = name.split_once(' ').unwrap_or_default();
    let (heads, kv_heads) = match heads {
        "9/3" => (9, 3),
        _ => (32, 8),
    };
    let (batch, time) = rows(group);
    let var = |shape: &[usize], scale| Var::from_tensor(&numbers(shape, scale));
    if kind == "candle" {
        let q = var(&[batch, heads, time, DIM], 4.0)?;
        let k = var(&[batch, kv_heads, time, DIM], 4.0)?;
        let v = var(&[batch, kv_heads, time, DIM], 2.0)?;
        let weights = numbers(&[batch, heads, time, DIM], 2.0);
        let hidden = (0..time)
            .flat_map(|i| (0..time).map(move |j| if j > i { f32::NEG_INFINITY } else { 0.0 }));
        let hidden = Tensor::from_vec(hidden.collect::<Vec<f32>>(), (time, time), &Device::Cpu)?;
        return measure(
            || Ok((composed(&q, &k, &v, &hidden)? * &weights)?.sum_all()?),
            |sum| {
                sum.backward()?;
                Ok(())
            },
        );
    }
    let segments = match kind {
        "once per prompt" => Segments::from_prompts(&[192; 2], &[[64; 4]; 2])?,
        _ => Segments::from_lengths(&vec![time; batch])?,
    };
    let tokens = segments.tokens();
    let q = var(&[tokens, heads, DIM], 4.0)?;
    let k = var(&[tokens, kv_heads, DIM], 4.0)?;
    let v = var(&[tokens, kv_heads, DIM], 2.0)?;
    let weights = numbers(&[tokens, heads, DIM], 2.0);
    let config = AttentionConfig::default();
    measure(
        || Ok((attention(&q, &k, &v, &segments, &config)? * &weights)?.sum_all()?),
        |sum| {
            sum.backward()?;
            Ok(())
        },
    )
}

fn main() {
    let results = compare(&GROUPS, variant);
    println!("\n| ratio | time | extra memory |\n|---|---|---|");
    for (other, ours) in [
        ("equal 9/3 candle", "equal 9/3 ours"),
        ("equal torch 9/3 sdpa", "equal 9/3 ours"),
        ("equal 32/8 candle", "equal 32/8 ours"),
        ("equal torch 32/8 sdpa", "equal 32/8 ours"),
        ("long 9/3 candle", "long 9/3 ours"),
        ("long torch 9/3 sdpa", "long 9/3 ours"),
        ("shared 9/3 once per row", "shared 9/3 once per prompt"),
        ("shared 9/3 candle", "shared 9/3 once per prompt"),
        ("shared torch 9/3 sdpa", "shared 9/3 once per prompt"),
    ] {
        if let (Some(a), Some(b)) = (results.get(other), results.get(ours)) {
            println!("| {other} / {ours} | {:.2} | {:.2} |", a.1 / b.1, a.2 / b.2);
        }
    }
}
