//! Sums of large tensors without a new tensor for each term.

use super::kernel::FEW;
use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor, bail};
use rayon::prelude::*;

/// A sum of tensors, accumulated in the memory of the first.
#[derive(Default)]
pub(crate) struct Sum(pub(crate) Option<Tensor>);

impl Sum {
    /// One more term.
    pub(crate) fn add(&mut self, term: Tensor) -> candle_core::Result<()> {
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
            let add_all = |(total, term): (&mut [T], &[T])| {
                for (t, x) in total.iter_mut().zip(term) {
                    *t += *x;
                }
            };
            let (total, term) = (&mut total[a..b], &term[c..d]);
            match total.len() <= FEW {
                true => add_all((total, term)),
                false => total
                    .par_chunks_mut(1 << 14)
                    .zip(term.par_chunks(1 << 14))
                    .for_each(add_all),
            }
            Ok(())
        }
        match (total, term) {
            (CpuStorage::F32(a), CpuStorage::F32(b)) => add(a, total_layout, b, term_layout),
            (CpuStorage::F64(a), CpuStorage::F64(b)) => add(a, total_layout, b, term_layout),
            _ => bail!("add-to: terms of different types"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn terms_of_any_layout_are_added_in_both_types() {
        // more than one task's share, and too many for one thread alone
        let (rows, columns) = (230, 240);
        let count = (rows * columns) as u32;
        for dtype in [DType::F32, DType::F64] {
            let term = Tensor::arange(0, count, &Device::Cpu).unwrap();
            let term = term.to_dtype(dtype).unwrap();
            let upright = term.reshape((rows, columns)).unwrap();
            let turned = term.reshape((columns, rows)).unwrap().t().unwrap();
            let mut sum = Sum::default();
            for term in [upright.copy().unwrap(), turned, upright] {
                sum.add(term).unwrap();
            }
            let got = sum.0.unwrap().to_dtype(DType::F64).unwrap();
            let got = got.to_vec2::<f64>().unwrap();
            for (i, row) in got.iter().enumerate() {
                for (j, x) in row.iter().enumerate() {
                    let want = 2 * (i * columns + j) + j * rows + i;
                    assert_eq!(*x, want as f64, "{dtype:?}, at {i}, {j}");
                }
            }
        }
    }

    #[test]
    fn terms_of_two_types_are_refused() {
        let zeros = |dtype| Tensor::zeros(3, dtype, &Device::Cpu).unwrap();
        let mut sum = Sum::default();
        sum.add(zeros(DType::F32)).unwrap();
        let error = sum.add(zeros(DType::F64)).unwrap_err().to_string();
        assert!(
            error.contains("add-to: terms of different types"),
            "{error}"
        );
    }
}
