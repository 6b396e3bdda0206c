//! Sums of large tensors without a new one for each.

use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor, bail};
use rayon::prelude::*;

/// A sum of tensors, added up in the memory of the first.
#[derive(Default)]
pub(super) struct Sum(pub(super) Option<Tensor>);

impl Sum {
    /// One more term.
    pub(super) fn add(&mut self, term: Tensor) -> candle_core::Result<()> {
        match &self.0 {
            None => self.0 = Some(term),
            Some(total) if total.device().is_cpu() => {
                total.inplace_op2(&term.contiguous()?, &AddTo)?
            }
            Some(total) => self.0 = Some((total + term)?),
        }
        Ok(())
    }
}

struct AddTo;

impl InplaceOp2 for AddTo {
    fn name(&self) -> &'static str {
        "add-to"
    }

    fn cpu_fwd(
        &self,
        total: &mut CpuStorage,
        total_layout: &Layout,
        term: &CpuStorage,
        term_layout: &Layout,
    ) -> candle_core::Result<()> {
        fn add<T: Copy + Send + Sync + std::ops::AddAssign>(
            total: &mut [T],
            total_layout: &Layout,
            term: &[T],
            term_layout: &Layout,
        ) -> candle_core::Result<()> {
            let (Some((a, b)), Some((c, d))) = (
                total_layout.contiguous_offsets(),
                term_layout.contiguous_offsets(),
            ) else {
                bail!("add-to: a term is not contiguous")
            };
            total[a..b]
                .par_chunks_mut(1 << 14)
                .zip(term[c..d].par_chunks(1 << 14))
                .for_each(|(total, term)| {
                    for (t, x) in total.iter_mut().zip(term) {
                        *t += *x;
                    }
                });
            Ok(())
        }
        match (total, term) {
            (CpuStorage::F32(a), CpuStorage::F32(b)) => add(a, total_layout, b, term_layout),
            (CpuStorage::F64(a), CpuStorage::F64(b)) => add(a, total_layout, b, term_layout),
            _ => bail!("add-to: terms of different types"),
        }
    }
}
