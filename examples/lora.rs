//! §3.3, parameter-efficient: LoRA of rank r finds the best change for the data, not for the matrix.
//!
//! ```text
//! cargo run --example lora
//! ```
//! A layer with four inputs must change by Δ = U diag(3, 2½, 2, 1½), U orthogonal: most in its response
//! to the first input, least in its response to the last. But the inputs differ in size, with standard
//! deviations of ½, ¾, 1¼, 2. The table shows how much of Δ is learned, half the mean squared error
//! that remains, and the same error if Δ itself is cut to rank r:
//!
//! ```text
//! rank input 1 input 2 input 3 input 4   error   cut Δ
//! 1      0.000   0.000   0.000   1.500   6.008   9.383
//! 2      0.000   0.000   2.000   1.500   2.883   7.625
//! 3      0.000   2.500   2.000   1.500   1.125   4.500
//! 4      3.000   2.500   2.000   1.500   0.000   0.000
//! ```
//! What you should see: rank 1 learns the response to the last input, where the change is smallest but
//! the input is largest. Every further rank adds the input before it. This is the truncated singular
//! value decomposition of Δ Σ^½, with Σ the covariance of the inputs. Cutting Δ itself to rank r, as if
//! LoRA compressed a matrix, keeps the first inputs and leaves 1.6 to 4 times the error.
//!
//! Change `SIZES` to `[1.0; 4]` and see: with equal inputs rank 1 learns the first input, and `error`
//! equals `cut Δ`.

#[path = "tabular/policy.rs"]
mod policy;

use candle_align::parameter_efficient::{Adapter, LoraConfig, LoraLinear};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module};
use policy::{Result, table};
use rand::{SeedableRng, rngs::StdRng};

/// The singular values of Δ, one per input.
pub const CHANGE: [f64; 4] = [3.0, 2.5, 2.0, 1.5];
/// The standard deviation of each input.
pub const SIZES: [f64; 4] = [0.5, 0.75, 1.25, 2.0];

/// One rank.
pub struct Adapted {
    pub rank: usize,
    /// The norm of the learned change for each input; Δ has [`CHANGE`].
    pub learned: Vec<f64>,
    /// Half the remaining mean squared error.
    pub error: f64,
    /// The same for Δ cut to this rank.
    pub cut: f64,
}

pub struct Report {
    pub ranks: Vec<Adapted>,
}

pub fn run() -> Result<Report> {
    let ranks = (1..=4).map(train).collect::<Result<_>>()?;
    Ok(Report { ranks })
}

fn train(rank: usize) -> Result<Adapted> {
    // orthogonal: every output depends on every input
    let u = [
        [0.5, 0.5, 0.5, 0.5],
        [0.5, -0.5, 0.5, -0.5],
        [0.5, 0.5, -0.5, -0.5],
        [0.5, -0.5, -0.5, 0.5],
    ];
    let change = Tensor::new(&CHANGE, &Device::Cpu)?;
    let change = Tensor::new(&u, &Device::Cpu)?.broadcast_mul(&change)?;
    // four rows with XᵀX / 4 = diag(SIZES²)
    let x = (Tensor::new(&SIZES, &Device::Cpu)? * 2.0)?;
    let x = x.broadcast_mul(&Tensor::eye(4, DType::F64, &Device::Cpu)?)?;
    let weight = change.sin()?; // arbitrary, because it is frozen
    let y = x.matmul(&(&weight + &change)?.t()?)?;

    let config = LoraConfig {
        rank,
        alpha: rank as f64,
        ..Default::default()
    };
    let mut rng = StdRng::seed_from_u64(1);
    let layer = LoraLinear::new(&Linear::new(weight, None), &config, &mut rng)?;
    let error = || (layer.forward(&x)? - &y)?.sqr()?.sum_all()? * (0.5 / 4.0);
    for _ in 0..800 {
        let grads = error()?.backward()?;
        for (_, var) in layer.trainable("") {
            let gradient = grads.get(&var).ok_or("no gradient reaches the adapter")?;
            var.set(&(var.as_tensor() - (gradient * 0.12)?)?)?;
        }
    }
    let left = (rank..4).map(|input| (CHANGE[input] * SIZES[input]).powi(2));
    Ok(Adapted {
        rank,
        learned: layer.delta()?.sqr()?.sum(0)?.sqrt()?.to_vec1()?,
        error: error()?.to_scalar()?,
        cut: 0.5 * left.sum::<f64>(),
    })
}

impl Report {
    pub fn table(&self) -> String {
        let row = |a: &Adapted| [a.learned.as_slice(), &[a.error, a.cut]].concat();
        let rows: Vec<_> = self.ranks.iter().map(|a| (a.rank, row(a))).collect();
        let head = [
            "rank", "input 1", "input 2", "input 3", "input 4", "error", "cut Δ",
        ];
        table(&head, &rows)
    }
}

fn main() -> Result<()> {
    println!("{}", run()?.table());
    Ok(())
}
