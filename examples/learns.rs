//! Beside the survey: with candle's fused operations a model's loss falls while most of it learns nothing.
//!
//! ```text
//! cargo run --example learns
//! ```
//! One block of a decoder in candle's own style (embedding, rms_norm, rope, softmax attention, swiglu,
//! output) learns to repeat the symbol of two positions ago, which only attention can see. It is compiled
//! three times from the same source, with different `use` lines. The table shows how many of its 11 variables
//! a backward pass reaches, how many of the gradients are those of the loss, and the loss before and after
//! training; a guess has ln 8 = 2.079:
//!
//! ```text
//! operations       reached   right  before   after
//! candle_nn          1.000   1.000   2.089   1.583
//! but for rms_norm   9.000   7.000   2.089   1.278
//! candle_align      11.000  11.000   2.089   0.000
//! ```
//! What you should see: candle's last `rms_norm` cuts everything but the output matrix, and the loss falls all
//! the same. With the norms replaced, all variables but the queries' and keys' matrices get a gradient, but
//! attention is still cut inside: what is below it, the embedding and the first norm, gets only the part that
//! flows past the cut. `grad_coverage` finds what is missing, `gradient_agreement` what is partial. With all
//! operations replaced, the task is learned.
//!
//! Change `BACK` to 0 and see: the symbol at the position itself needs no attention. All three models learn it,
//! and no loss shows the fault.

#[path = "tabular/policy.rs"]
mod policy;

use candle_align::training::{
    AdamW, AdamWConfig, Agreement, ParameterGroup, grad_coverage, gradient_agreement,
};
use candle_core::{D, Device, Tensor, Var};
use policy::{Result, table};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// How far back the symbol is that the model must repeat.
pub const BACK: usize = 2;
const SYMBOLS: usize = 8;
const TIME: usize = 8;
const HEADS: usize = 2;
const DIM: usize = 32;
const ROWS: usize = 32;
const STEPS: usize = 200;

/// The model, with the operations that the `use` lines bring.
macro_rules! model {
    ($name:ident: $($line:item)*) => {
        mod $name {
            use super::{DIM, HEADS, Model};
            use candle_core::{Result, Tensor};
            $($line)*

            pub fn logits(model: &Model, tokens: &Tensor) -> Result<Tensor> {
                let (batch, time) = tokens.dims2()?;
                let map = |x: &Tensor, name: &str| x.broadcast_matmul(&model.get(name).t()?);
                let h = model.get("embedding").index_select(&tokens.flatten_all()?, 0)?;
                let h = h.reshape((batch, time, DIM))?;

                // attention
                let x = ops::rms_norm(&h, model.get("norm1"), 1e-5)?;
                let heads = |x: Tensor| {
                    let x = x.reshape((batch, time, HEADS, DIM / HEADS))?;
                    x.transpose(1, 2)?.contiguous()
                };
                let (cos, sin) = model.angles(time)?;
                let q = rotary_emb::rope(&heads(map(&x, "query")?)?, &cos, &sin)?;
                let k = rotary_emb::rope(&heads(map(&x, "key")?)?, &cos, &sin)?;
                let v = heads(map(&x, "value")?)?;
                let scores = (q.matmul(&k.t()?)? / ((DIM / HEADS) as f64).sqrt())?;
                let shares = ops::softmax_last_dim(&scores.broadcast_add(&model.causal(time)?)?)?;
                let seen = shares.matmul(&v)?.transpose(1, 2)?.reshape((batch, time, DIM))?;
                let h = (h + map(&seen, "mix")?)?;

                // feed-forward
                let x = ops::rms_norm(&h, model.get("norm2"), 1e-5)?;
                let h = (&h + map(&ops::swiglu(&map(&x, "gate_up")?)?, "down")?)?;

                map(&ops::rms_norm(&h, model.get("norm3"), 1e-5)?, "output")
            }
        }
    };
}

model!(candle: use candle_nn::{ops, rotary_emb};);
model!(but_for_the_norm:
    use candle_nn::rotary_emb;
    mod ops {
        pub use candle_align::ops::rms_norm;
        pub use candle_nn::ops::{softmax_last_dim, swiglu};
    }
);
model!(here: use candle_align::ops; use candle_align::ops as rotary_emb;);

/// The variables, by name, from one seed.
pub struct Model {
    vars: Vec<(String, Var)>,
}

impl Model {
    fn new() -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(1);
        let mut vars = Vec::new();
        let shapes: [(&str, &[usize], f32); 11] = [
            ("down", &[DIM, 2 * DIM], 0.2),
            ("embedding", &[SYMBOLS, DIM], 1.0),
            ("gate_up", &[4 * DIM, DIM], 0.2),
            ("key", &[DIM, DIM], 0.2),
            ("mix", &[DIM, DIM], 0.2),
            ("norm1", &[DIM], 0.0),
            ("norm2", &[DIM], 0.0),
            ("norm3", &[DIM], 0.0),
            ("output", &[SYMBOLS, DIM], 0.05),
            ("query", &[DIM, DIM], 0.2),
            ("value", &[DIM, DIM], 0.2),
        ];
        for (name, shape, size) in shapes {
            let n: usize = shape.iter().product();
            let data: Vec<f32> = match size {
                0.0 => vec![1.0; n],
                _ => (0..n).map(|_| rng.random_range(-size..size)).collect(),
            };
            let var = Var::from_vec(data, shape, &Device::Cpu)?;
            vars.push((name.to_string(), var));
        }
        Ok(Self { vars })
    }

    fn get(&self, name: &str) -> &Tensor {
        let found = self.vars.iter().find(|(n, _)| n == name);
        found.expect("a variable of the model").1.as_tensor()
    }

    /// Angles of position t and pair i: t / 100^{i / pairs}.
    fn angles(&self, time: usize) -> candle_core::Result<(Tensor, Tensor)> {
        let pairs = DIM / HEADS / 2;
        let angle = |t: usize, i: usize| t as f32 / 100f32.powf(i as f32 / pairs as f32);
        let all = (0..time).flat_map(|t| (0..pairs).map(move |i| angle(t, i)));
        let all = Tensor::from_vec(all.collect(), (time, pairs), &Device::Cpu)?;
        Ok((all.cos()?, all.sin()?))
    }

    /// 0 where a position may look, −∞ where it may not.
    fn causal(&self, time: usize) -> candle_core::Result<Tensor> {
        let one = |(t, s): (usize, usize)| if s <= t { 0.0 } else { f32::NEG_INFINITY };
        let all = (0..time).flat_map(|t| (0..time).map(move |s| one((t, s))));
        Tensor::from_vec(all.collect(), (time, time), &Device::Cpu)
    }
}

/// A model's way from tokens to logits.
type Logits = fn(&Model, &Tensor) -> candle_core::Result<Tensor>;

/// −log p of the symbol of `BACK` positions ago, on average.
fn loss(logits: Logits, model: &Model, tokens: &Tensor) -> candle_align::Result<Tensor> {
    let tail = logits(model, tokens)?.narrow(1, BACK, TIME - BACK)?;
    let log_p = candle_nn::ops::log_softmax(&tail, D::Minus1)?;
    let answers = tokens.narrow(1, 0, TIME - BACK)?.contiguous()?;
    let chosen = log_p.gather(&answers.unsqueeze(2)?, D::Minus1)?;
    Ok(chosen.mean_all()?.neg()?)
}

fn batch(rng: &mut StdRng) -> Result<Tensor> {
    let symbols: Vec<u32> = (0..ROWS * TIME)
        .map(|_| rng.random_range(0..SYMBOLS as u32))
        .collect();
    Ok(Tensor::from_vec(symbols, (ROWS, TIME), &Device::Cpu)?)
}

/// One set of `use` lines.
pub struct Trained {
    pub operations: &'static str,
    /// Variables that a backward pass reaches.
    pub reached: Vec<String>,
    /// Variables whose gradient is that of the loss.
    pub right: Vec<String>,
    pub before: f64,
    pub after: f64,
}

pub struct Report {
    pub models: Vec<Trained>,
}

pub fn run() -> Result<Report> {
    let models = [
        train("candle_nn", candle::logits)?,
        train("but for rms_norm", but_for_the_norm::logits)?,
        train("candle_align", here::logits)?,
    ];
    Ok(Report {
        models: models.into(),
    })
}

fn train(operations: &'static str, logits: Logits) -> Result<Trained> {
    let (model, mut rng) = (Model::new()?, StdRng::seed_from_u64(2));
    let held_out = batch(&mut rng)?;
    let on = |tokens: &Tensor| loss(logits, &model, tokens);
    let before = on(&held_out)?;
    let coverage = grad_coverage(&model.vars, &before.backward()?)?;
    let agreement = gradient_agreement(|| on(&held_out), &model.vars, 2, &mut rng)?;

    let groups = vec![ParameterGroup::new(model.vars.clone(), 0.0)];
    let config = AdamWConfig {
        learning_rate: 1e-2,
        ..Default::default()
    };
    let mut optimizer = AdamW::new(groups, config)?;
    for _ in 0..STEPS {
        optimizer.step(&on(&batch(&mut rng)?)?.backward()?)?;
    }
    let right = agreement.names(Agreement::Agrees);
    let number = |loss: Tensor| loss.to_scalar::<f32>().map(f64::from);
    Ok(Trained {
        operations,
        reached: coverage.learning,
        right: right.into_iter().map(str::to_string).collect(),
        before: number(before)?,
        after: number(on(&held_out)?)?,
    })
}

impl Report {
    pub fn table(&self) -> String {
        let row = |m: &Trained| {
            vec![
                m.reached.len() as f64,
                m.right.len() as f64,
                m.before,
                m.after,
            ]
        };
        let rows: Vec<_> = self.models.iter().map(|m| (m.operations, row(m))).collect();
        table(
            &["operations", "reached", "right", "before", "after"],
            &rows,
        )
    }
}

fn main() -> Result<()> {
    println!("{}", run()?.table());
    Ok(())
}
