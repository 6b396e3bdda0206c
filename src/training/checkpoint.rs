//! The optimizer's state in a file.

use super::adamw::AdamW;
use super::state_file::StateFile;
use crate::atomic::Staged;
use crate::error::{Error, Result};
use candle_core::{DType, Device, Shape, Tensor};
use std::collections::HashMap;
use std::path::Path;

impl AdamW {
    /// Writes steps, moments and master copies as safetensors: first to a temporary file, which then
    /// replaces `path`. The program must keep the settings itself.
    ///
    /// # Errors
    /// [`Error::Argument`] that names the file and says why it cannot be written; `path` is then unchanged.
    /// Candle's own.
    #[doc(alias = "optimizer checkpoint")]
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut tensors: HashMap<String, Tensor> = HashMap::new();
        for slot in &self.slots {
            let steps = Tensor::new(slot.steps as i64, &Device::Cpu)?;
            tensors.insert(format!("{}.step", slot.name), steps);
            for (part, tensor) in slot.moments.tensors(slot.var.shape())? {
                tensors.insert(format!("{}.{part}", slot.name), tensor);
            }
        }
        Staged::new(path, |part| candle_core::safetensors::save(&tensors, part))
            .and_then(Staged::put)
            .map_err(|failure| {
                let problem = format!("cannot be written: {}", failure.cause);
                Error::argument("AdamW::save", failure.path, problem)
            })
    }

    /// Reads what [`AdamW::save`] wrote, for the same variables. Only a regular file is read.
    ///
    /// # Errors
    /// [`Error::Argument`] that names the file, and the tensor that is missing, has another shape or type,
    /// belongs to no variable, or holds what no step leaves behind: NaN, a negative count, a negative mean of
    /// squares. Nothing has changed then. Candle's own.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let mut file = StateFile::open("AdamW::load", path.as_ref())?;
        let mut loaded = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let name = format!("{}.step", slot.name);
            let steps = file.take(&name, DType::I64, &Shape::from(()))?;
            let steps = steps.to_scalar::<i64>()?;
            let steps = u64::try_from(steps)
                .map_err(|_| file.problem(format!("holds `{name}` = {steps}")))?;
            let (dtype, names) = slot.moments.parts();
            let mut parts = Vec::new();
            for part in names {
                let name = format!("{}.{part}", slot.name);
                let tensor = file.take(&name, dtype, slot.var.shape())?;
                let values = tensor
                    .flatten_all()?
                    .to_dtype(DType::F64)?
                    .to_vec1::<f64>()?;
                let squares = *part == "exp_avg_sq";
                if let Some(x) = values.iter().find(|x| x.is_nan() || (squares && **x < 0.0)) {
                    return Err(file.problem(format!("holds {x} in `{name}`")));
                }
                parts.push(tensor);
            }
            loaded.push((steps, slot.moments.restored(parts)?));
        }
        if let Some(name) = file.rest() {
            return Err(file.problem(format!("holds `{name}`, which belongs to no variable here")));
        }
        for (slot, (steps, moments)) in self.slots.iter_mut().zip(loaded) {
            (slot.steps, slot.moments) = (steps, moments);
        }
        Ok(())
    }
}
