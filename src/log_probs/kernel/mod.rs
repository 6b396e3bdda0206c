//! Log-probabilities of chosen tokens in one pass over the logits, and their gradient in another.
//!
//! ```text
//! forward:   one read       log p_c = (z_c − max) − log Σᵥ e^{zᵥ − max}
//! backward:  one read, one write        dzᵥ = g · ([v = c] − pᵥ)
//! ```
//! Rows that do not count are neither read nor computed. They hold 0, and their gradient is exactly 0.
//! Each row is computed by one thread, so the number of threads changes no result. A small number of
//! logits stays on the calling thread.

mod blocks;
mod double;
mod element;
mod in_place;
mod infinite;
mod row;
mod select;
mod single;
mod slopes;

use super::statistics::Statistics;
use candle_core::{Result, Tensor};
pub(super) use in_place::RowGradients;
pub(super) use row::Row;
pub(super) use select::Select;
pub(super) use slopes::columns;
use std::sync::Arc;

/// The target of a row that does not count.
pub(super) const IGNORE: u32 = u32::MAX;

/// Up to this many logits no other thread is woken, because waking one takes longer than reading them.
pub(super) const FEW: usize = 1 << 15;

/// log p of the chosen token, and the other statistics requested, side by side: `[…, columns]`.
///
/// `logits` `[…, vocabulary]`, contiguous, on the CPU; one target per row, in range or [`IGNORE`].
pub(super) fn select(logits: &Tensor, targets: Arc<Vec<u32>>, ask: Statistics) -> Result<Tensor> {
    logits.apply_op1(Select::new(targets, ask))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn a_backward_pass_fits_its_forward_pass() {
        let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap();
        let (logits, grad) = (zeros((2, 3)), zeros((2, 1)));
        let op = Select::new(Arc::new(vec![0, 1]), Statistics::default());
        let refused = |logits: &Tensor, grad: &Tensor| {
            let error = op.gradient(logits, grad).unwrap_err().to_string();
            assert!(error.contains("are not of one number"), "{error}");
        };
        // nothing has run forward
        refused(&logits, &grad);
        logits.apply_op1_no_bwd(&op).unwrap();
        assert!(op.gradient(&logits, &grad).is_ok());
        refused(&logits, &zeros((1, 1)));
        refused(&zeros((3, 3)), &grad);
    }

    #[test]
    fn few_logits_and_many_give_the_same_bits() {
        let (rows, vocabulary) = (40, 1000);
        assert!(rows * vocabulary > FEW && vocabulary <= FEW);
        let data: Vec<f32> = (0..rows * vocabulary)
            .map(|i| (i as f32 * 0.7).sin() * 9.0)
            .collect();
        let logits = Tensor::from_vec(data, (rows, vocabulary), &Device::Cpu).unwrap();
        let ask = Statistics {
            entropy: true,
            vocabulary_mean: true,
            log_collision: true,
        };
        let passes = |logits: &Tensor, targets: Vec<u32>| {
            let op = Select::new(Arc::new(targets.clone()), ask);
            let columns = logits.apply_op1_no_bwd(&op).unwrap();
            let gradient = op.gradient(logits, &columns).unwrap();
            let place = logits.copy().unwrap();
            let rows = RowGradients::new(ask, op.rows(), Arc::new(targets), &columns).unwrap();
            rows.write_over(&place, 0, 0).unwrap();
            [columns, gradient, place].map(|t| t.to_vec2::<f32>().unwrap())
        };
        let targets: Vec<u32> = (0..rows as u32).map(|row| row * 7).collect();
        let many = passes(&logits, targets.clone());
        for (row, target) in targets.into_iter().enumerate() {
            let few = passes(&logits.narrow(0, row, 1).unwrap(), vec![target]);
            for (few, many) in few.iter().zip(&many) {
                assert_eq!(few[0], many[row], "row {row}");
            }
        }
    }
}
