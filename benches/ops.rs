//! Time of the operations of `ops`, forward and backward, against candle's composed forms and, with
//! `--python`, against PyTorch's: each variant in its own process, medians and ratios of one run.
//!
//! ```text
//! cargo bench --bench ops                                             # everything against candle
//! cargo bench --bench ops -- --python venv/bin/python --rounds 3      # and against PyTorch
//! cargo bench --bench ops -- --only rms_norm
//! ```
//! Shapes of a decoder of 135 million parameters (hidden 576, inner 1536, 9 heads of 64), and 2048 x 2048.

#[allow(dead_code)] // the other benches use the rest
mod harness;

use candle_align::{Result, ops};
use candle_core::{D, Tensor, Var};
use candle_nn::{ops as theirs, rotary_emb};
use harness::{Group, Measured, compare, measure, numbers};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const GROUPS: [Group; 5] = [
    (
        "rms_norm",
        &[
            "1024x576 ours",
            "1024x576 candle",
            "2048x2048 ours",
            "2048x2048 candle",
        ],
        &["1024x576", "2048x2048"],
    ),
    (
        "layer_norm",
        &[
            "1024x576 ours",
            "1024x576 candle",
            "2048x2048 ours",
            "2048x2048 candle",
        ],
        &["1024x576", "2048x2048"],
    ),
    (
        "softmax",
        &[
            "9216x256 ours",
            "9216x256 candle",
            "2048x2048 ours",
            "2048x2048 candle",
        ],
        &["9216x256", "2048x2048"],
    ),
    (
        "silu_mul",
        &[
            "1024x1536 ours",
            "1024x1536 candle",
            "2048x2048 ours",
            "2048x2048 candle",
        ],
        &["1024x1536", "2048x2048"],
    ),
    (
        "rope",
        &[
            "9216x64 ours",
            "9216x64 candle",
            "36864x64 ours",
            "36864x64 candle",
        ],
        &["9216x64", "36864x64"],
    ),
];

fn sizes(name: &str) -> (usize, usize) {
    let size = name.split(' ').next().unwrap_or_default();
    let mut numbers = size.split('x').filter_map(|n| n.parse().ok());
    (numbers.next().unwrap_or(1), numbers.next().unwrap_or(1))
}

/// Elements that a sample works on, so that it takes long enough for the clock.
const SAMPLE: usize = 1 << 25;

/// How often a sample repeats the operation.
fn repeats((rows, width): (usize, usize)) -> usize {
    (SAMPLE / (rows * width)).max(1)
}

fn var(shape: &[usize], scale: f32) -> Result<Var> {
    Ok(Var::from_tensor(&numbers(shape, scale))?)
}

/// Every repetition runs the operation forward, then forward and backward.
fn variant(group: &str, name: &str) -> Result<Measured> {
    let (rows, width) = sizes(name);
    let ours = name.ends_with("ours");
    let x = match group {
        // batch, heads, time, dim
        "rope" => var(&[4, 9, rows / 36, width], 2.0)?,
        _ => var(&[rows, width], 2.0)?,
    };
    let (alpha, beta) = (var(&[width], 2.0)?, var(&[width], 2.0)?);
    let up = match group {
        "silu_mul" => var(&[rows, width], 2.0)?,
        _ => beta.clone(),
    };
    let angles = numbers(&[x.dims()[x.rank() - 2], width / 2], 6.0);
    let (cos, sin) = (angles.cos()?, angles.sin()?);
    let operation = || -> Result<Tensor> {
        Ok(match (group, ours) {
            ("rms_norm", true) => ops::rms_norm(&x, &alpha, 1e-5)?,
            ("rms_norm", false) => theirs::rms_norm_slow(&x, &alpha, 1e-5)?,
            ("layer_norm", true) => ops::layer_norm(&x, &alpha, &beta, 1e-5)?,
            ("layer_norm", false) => theirs::layer_norm_slow(&x, &alpha, &beta, 1e-5)?,
            ("softmax", true) => ops::softmax_last_dim(&x)?,
            ("softmax", false) => theirs::softmax(&x, D::Minus1)?,
            ("silu_mul", true) => ops::silu_mul(&x, &up)?,
            ("silu_mul", false) => (x.silu()? * up.as_tensor())?,
            (_, true) => ops::rope(&x, &cos, &sin)?,
            (_, false) => rotary_emb::rope_slow(&x, &cos, &sin)?,
        })
    };
    let repeats = repeats((rows, width));
    measure(
        || {
            for _ in 0..repeats {
                operation()?;
            }
            Ok(())
        },
        |()| {
            for _ in 0..repeats {
                operation()?.backward()?;
            }
            Ok(())
        },
    )
}

fn main() {
    let results = compare(&GROUPS, variant);
    println!(
        "\n| operation | forward ms | forward and backward ms | candle / here | here / PyTorch |"
    );
    println!("|---|---|---|---|---|");
    for (group, _, torch) in GROUPS {
        for size in torch {
            // a sample's total is that of both its halves
            let of = |name: String| {
                let (forward, total, _) = results.get(&name)?;
                let each = 1e3 / repeats(sizes(size)) as f64;
                Some((forward * each, (total - forward) * each))
            };
            let Some((forward, both)) = of(format!("{group} {size} ours")) else {
                continue;
            };
            let ratio = |over: Option<f64>| over.map_or("".into(), |r| format!("{r:.2}"));
            let candle = of(format!("{group} {size} candle")).map(|(_, c)| c / both);
            let torch = of(format!("{group} torch {size}")).map(|(_, t)| both / t);
            let (candle, torch) = (ratio(candle), ratio(torch));
            println!("| {group} {size} | {forward:.2} | {both:.2} | {candle} | {torch} |");
        }
    }
}
