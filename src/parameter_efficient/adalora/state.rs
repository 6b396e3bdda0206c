//! The allocator's state by name: what a run saves to continue.

use super::allocator::{Factor, RankAllocator, marks};
use crate::error::{Error, Result};
use crate::math::to_host;
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;

impl RankAllocator {
    /// The allocator's whole state by name, on the CPU. Save it beside the optimizer's state.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = HashMap::from([(SCORED.to_string(), marks(&[self.scored])?)]);
        for slot in &self.slots {
            state.insert(format!("{}.kept", slot.name), marks(&slot.kept)?);
            for factor in &slot.factors {
                for (what, tensor) in factor.known() {
                    let name = format!("{}.{}.{what}", slot.name, factor.name);
                    state.insert(name, tensor.to_device(&Device::Cpu)?);
                }
            }
        }
        Ok(state)
    }

    /// Restores what [`RankAllocator::state`] returned, for layers with the same names and shapes.
    ///
    /// # Errors
    /// [`Error::Argument`] that names a tensor that is missing, has another shape or type, or is not
    /// expected; nothing has changed then.
    pub fn restore(&mut self, mut state: HashMap<String, Tensor>) -> Result<()> {
        let problem = |text: String| Error::argument("RankAllocator::restore", "state", text);
        let mut take = |name: String, shape: &[usize], dtype: DType| -> Result<Tensor> {
            match state.remove(&name) {
                None => Err(problem(format!("holds no tensor `{name}`"))),
                Some(tensor) if tensor.dims() != shape || tensor.dtype() != dtype => {
                    let (found, dims) = (tensor.dtype().as_str(), tensor.dims());
                    let expected = dtype.as_str();
                    Err(problem(format!(
                        "holds `{name}` as {found} {dims:?}, expected {expected} {shape:?}"
                    )))
                }
                Some(tensor) => Ok(tensor),
            }
        };
        let read = |tensor: Tensor| -> Result<Vec<bool>> {
            Ok(to_host::<u8>(&tensor)?
                .into_iter()
                .map(|k| k != 0)
                .collect())
        };
        let scored = read(take(SCORED.to_string(), &[1], DType::U8)?)?;
        let mut slots = self.slots.clone();
        for slot in &mut slots {
            let kept = take(format!("{}.kept", slot.name), &[slot.kept.len()], DType::U8)?;
            slot.kept = read(kept)?;
            for factor in &mut slot.factors {
                let [sensitivity, uncertainty] = factor.known().map(|(what, old)| -> Result<_> {
                    let name = format!("{}.{}.{what}", slot.name, factor.name);
                    let found = take(name, old.dims(), old.dtype())?;
                    Ok(found.to_device(old.device())?.detach())
                });
                (factor.sensitivity, factor.uncertainty) = (sensitivity?, uncertainty?);
            }
        }
        if let Some(name) = state.keys().min() {
            let text = format!("holds `{name}`, which belongs to no layer here");
            return Err(problem(text));
        }
        self.slots = slots;
        self.scored = scored[0];
        Ok(())
    }
}

/// The name of the allocator's own mark in its state; a layer's names hold a dot.
const SCORED: &str = "scored";

impl Factor {
    fn known(&self) -> [(&'static str, &Tensor); 2] {
        [
            ("sensitivity", &self.sensitivity),
            ("uncertainty", &self.uncertainty),
        ]
    }
}
