//! A part of a model whose activations are not kept: the backward pass computes them again.

use super::distinct;
use crate::error::Result;
use crate::known::{Three, with_slope};
use candle_core::{Tensor, Var};
use std::sync::{Arc, Mutex, PoisonError};

/// `block(x)`, keeping only `x` and the result until the backward pass.
///
/// Candle keeps what every operation returns until the loss is dropped, so that memory grows with the
/// number of layers. Under this function a block keeps its input and its result alone. Its backward
/// pass runs the block once more, and then backward through it. A training step takes about a third longer.
///
/// `vars` are the variables inside the block that learn. A variable that the block uses and that is not
/// among them gets no gradient from it. With no variables and an `x` without history the block simply runs.
///
/// # Errors
/// Those of `block`; in the backward pass as candle's error.
///
/// # Properties
/// * Values and gradients are those of `block(x)` itself, bit for bit, as long as `block` gives the same
///   result each time. A block with dropout must draw the same numbers again: seed its generator inside.
/// * A block must not change a variable, and variables must not change between the two passes.
///
/// ```
/// use candle_align::training::recompute;
/// use candle_core::{Device, Tensor, Var};
///
/// let w = Var::new(&[[2.0f64]], &Device::Cpu)?;
/// let x = Var::new(&[[3.0f64]], &Device::Cpu)?;
/// let (vars, inside) = ([("w".to_string(), w.clone())], w.clone());
/// let y = recompute(&x, &vars, move |x: &Tensor| Ok(x.matmul(&inside)?.sqr()?))?; // (x w)²
/// let grads = y.sum_all()?.backward()?;
/// assert_eq!(grads.get(&w).unwrap().to_vec2::<f64>()?, [[2.0 * 3.0 * 2.0 * 3.0]]);
/// assert_eq!(grads.get(&x).unwrap().to_vec2::<f64>()?, [[2.0 * 3.0 * 2.0 * 2.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
#[doc(alias = "gradient checkpointing")]
#[doc(alias = "activation checkpointing")]
pub fn recompute(
    x: &Tensor,
    vars: &[(String, Var)],
    block: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    // the graph of this pass is dropped here
    let result = block(&x.detach())?.detach();
    let vars: Vec<Var> = distinct(vars).map(|(_, var)| var.clone()).collect();
    if vars.is_empty() && !x.track_op() {
        return Ok(result);
    }
    // The operation has the block's variables as its argument in the form of one number each: candle then
    // asks for their gradients after it has asked for the block's.
    let found: Arc<Mutex<Vec<Option<Tensor>>>> = Arc::new(Mutex::new(vec![None; vars.len()]));
    let mut marks = Vec::new();
    for (at, var) in vars.iter().enumerate() {
        let found = found.clone();
        let mark = Tensor::zeros(1, x.dtype(), x.device())?;
        let zeros = var.as_tensor().detach();
        marks.push(with_slope(var.as_tensor(), mark, move |_| {
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found[at].take().map_or_else(|| zeros.zeros_like(), Ok)
        })?);
    }
    let marks = match marks.is_empty() {
        true => Tensor::zeros(1, x.dtype(), x.device())?,
        false => Tensor::cat(&marks, 0)?,
    };
    let nothing = Tensor::zeros(1, x.dtype(), x.device())?;
    let wants = x.track_op();
    let op = Three::new(result, move |x: &Tensor, grad: &Tensor| {
        let input = Var::from_tensor(&x.detach())?;
        let y = block(input.as_tensor())?;
        // Σ y · grad has the gradient that is asked for
        let loss = with_slope(&y, Tensor::zeros((), y.dtype(), y.device())?, {
            let grad = grad.clone();
            move |_| Ok(grad.clone())
        })?;
        let mut grads = loss.backward()?;
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, var) in found.iter_mut().zip(&vars) {
            *place = grads.remove(var);
        }
        let to_x = match grads.remove(&input) {
            Some(grad) => grad,
            None => x.zeros_like()?,
        };
        let marks = Tensor::zeros(vars.len().max(1), x.dtype(), x.device())?;
        Ok([wants.then_some(to_x), Some(marks), None])
    });
    Ok(x.contiguous()?.apply_op3(&marks, &nothing, op)?)
}
