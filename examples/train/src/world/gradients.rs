//! The sum of the gradients of all ranks.
//!
//! Candle's `backward` returns when every gradient is there and calls nothing before, so the sum comes after it: what
//! other frameworks hide behind the backward pass is seen here in full.

use super::super::error::Result;
use super::{World, agree};
use candle_align::training::GradAccumulator;
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

/// The most numbers that are summed at a time: 32 MiB.
const BUCKET: usize = 1 << 23;

/// The gradients of `vars`, summed over all ranks in f32. A rank without rows adds zeros.
pub fn sum_gradients(
    world: &dyn World,
    vars: &[(String, Var)],
    mut total: GradAccumulator,
) -> Result<GradStore> {
    let own = total.take();
    if world.size() == 1 {
        return Ok(own);
    }
    world.barrier()?;
    let mut summed = GradStore::default();
    let mut seen = std::collections::HashSet::new();
    // a tied weight has two names and one gradient
    let vars: Vec<&Var> = vars
        .iter()
        .map(|(_, var)| var)
        .filter(|var| seen.insert(var.id()))
        .collect();
    let mut bucket = Vec::new();
    for together in buckets(&vars) {
        bucket.clear();
        for var in together {
            match own.get(var) {
                Some(grad) => {
                    let flat = grad.to_dtype(DType::F32)?.flatten_all()?;
                    bucket.extend(flat.to_vec1::<f32>()?);
                }
                None => bucket.resize(bucket.len() + var.elem_count(), 0.0),
            }
        }
        for numbers in bucket.chunks_mut(BUCKET) {
            world.sum(numbers)?;
        }
        let mut rest = bucket.as_slice();
        for var in together {
            let (numbers, after) = rest.split_at(var.elem_count());
            rest = after;
            let grad = Tensor::from_slice(numbers, var.dims(), var.device())?;
            summed.insert(var, grad);
        }
    }
    Ok(summed)
}

/// The variables whose gradients are in one bucket. One that is larger is alone, and is summed in pieces.
fn buckets<'a, 'b>(vars: &'b [&'a Var]) -> Vec<&'b [&'a Var]> {
    let (mut all, mut from, mut sum) = (Vec::new(), 0, 0);
    for (at, var) in vars.iter().enumerate() {
        if at > from && sum + var.elem_count() > BUCKET {
            all.push(&vars[from..at]);
            (from, sum) = (at, 0);
        }
        sum += var.elem_count();
    }
    all.push(&vars[from..]);
    all
}

/// An error if a rank's weights are not those of rank 0. One rank alone has nothing to compare, and reads no weight.
pub fn same_weights(world: &dyn World, vars: &[(String, Var)]) -> Result<()> {
    match world.size() {
        1 => Ok(()),
        _ => agree(world, "the weights", &weights_number(vars)?),
    }
}

/// A number of all bits of the weights: ranks that drifted apart have another one.
fn weights_number(vars: &[(String, Var)]) -> Result<String> {
    let mut number: u64 = 0xcbf2_9ce4_8422_2325;
    for (_, var) in vars {
        let flat = var.as_tensor().to_dtype(DType::F32)?.flatten_all()?;
        for value in flat.to_vec1::<f32>()? {
            number = (number ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok(format!("{number:016x}"))
}
