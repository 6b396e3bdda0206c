//! A low-rank product, added in place to what a base layer gave.
//!
//! As separate operations the product and the sum would each fill memory as large as the result.

use crate::simd::{Fused, Real, widest};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, InplaceOp3, Layout, Result, op};
use rayon::prelude::*;
use std::borrow::Cow;

/// Above this rank a general product is faster.
const RANK: usize = 64;
/// Numbers of the result that a thread takes at a time; fewer are not shared out.
const EACH: usize = 1 << 14;
/// Summands that are added to a number of the result at a time.
const TILE: usize = 4;

/// y + t M for t `[rows, rank]` and M `[rank, width]`, by candle's operations.
pub(super) fn added<S: BackendStorage>(
    y: S,
    (t, t_layout): (&S, &Layout),
    (m, m_layout): (&S, &Layout),
) -> Result<S> {
    let (rows, rank) = t_layout.shape().dims2()?;
    let (_, width) = m_layout.shape().dims2()?;
    let update = t.matmul(m, (1, rows, width, rank), t_layout, m_layout)?;
    let layout = Layout::contiguous((rows, width));
    y.binary_impl::<op::Add>(&update, &layout, &layout)
}

/// The same on the CPU, where y stands.
pub(super) fn added_in_place(
    mut y: CpuStorage,
    t: (&CpuStorage, &Layout),
    m: (&CpuStorage, &Layout),
) -> Result<CpuStorage> {
    let (rows, rank) = t.1.shape().dims2()?;
    if rank > RANK {
        return added(y, t, m);
    }
    let layout = Layout::contiguous((rows, m.1.shape().dims2()?.1));
    Accumulate.cpu_fwd(&mut y, &layout, t.0, t.1, m.0, m.1)?;
    Ok(y)
}

/// Whether [`Accumulate`] adds such a product faster than candle's own operations.
pub(super) fn pays(rank: usize, on_cpu: bool) -> bool {
    on_cpu && rank <= RANK
}

/// y ← y + t M, for a contiguous y `[rows, width]`.
pub(super) struct Accumulate;

impl InplaceOp3 for Accumulate {
    fn name(&self) -> &'static str {
        "lora-accumulate"
    }

    fn cpu_fwd(
        &self,
        y: &mut CpuStorage,
        y_layout: &Layout,
        t: &CpuStorage,
        t_layout: &Layout,
        m: &CpuStorage,
        m_layout: &Layout,
    ) -> Result<()> {
        let (t, m) = ((t, t_layout), (m, m_layout));
        match y {
            CpuStorage::F32(y) => accumulate(y, y_layout, t, m),
            CpuStorage::F64(y) => accumulate(y, y_layout, t, m),
            _ => candle_core::bail!("lora-accumulate: the result is neither f32 nor f64"),
        }
    }
}

fn accumulate<T: Real + candle_core::WithDType>(
    y: &mut [T],
    y_layout: &Layout,
    (t, t_layout): (&CpuStorage, &Layout),
    (m, m_layout): (&CpuStorage, &Layout),
) -> Result<()> {
    let (rank, width) = m_layout.shape().dims2()?;
    let Some((first, last)) = y_layout.contiguous_offsets() else {
        candle_core::bail!("lora-accumulate: the result is not contiguous")
    };
    let t = contiguous(t.as_slice::<T>()?, t_layout)?;
    let m = contiguous(m.as_slice::<T>()?, m_layout)?;
    let y = &mut y[first..last];
    let each = (EACH / width.max(1)).max(1);
    let task = |(y, t): (&mut [T], &[T])| {
        widest(
            #[inline(always)]
            |fused| rows(fused, y, t, &m, rank, width),
        )
    };
    match y.len() <= EACH {
        true => task((y, &t)),
        false => y
            .par_chunks_mut(each * width)
            .zip(t.par_chunks(each * rank))
            .for_each(task),
    }
    Ok(())
}

/// The numbers of a matrix, row by row.
fn contiguous<'a, T: Copy>(data: &'a [T], layout: &Layout) -> Result<Cow<'a, [T]>> {
    if let Some((first, last)) = layout.contiguous_offsets() {
        return Ok(Cow::Borrowed(&data[first..last]));
    }
    let (rows, columns) = layout.shape().dims2()?;
    let (start, steps) = (layout.start_offset(), layout.stride());
    let row =
        |row| (0..columns).map(move |column| data[start + row * steps[0] + column * steps[1]]);
    Ok((0..rows).flat_map(row).collect())
}

#[inline(always)]
fn rows<T: Real>(fused: Fused, y: &mut [T], t: &[T], m: &[T], rank: usize, width: usize) {
    for (y, t) in y.chunks_exact_mut(width).zip(t.chunks_exact(rank)) {
        let (t_tiles, t_rest) = t.as_chunks::<TILE>();
        let (m_tiles, m_rest) = m.split_at(t_tiles.len() * TILE * width);
        for (t, m) in t_tiles.iter().zip(m_tiles.chunks_exact(TILE * width)) {
            tile(fused, y, *t, m);
        }
        for (t, m) in t_rest.iter().zip(m_rest.chunks_exact(width)) {
            tile(fused, y, [*t], m);
        }
    }
}

/// Adds Σₖ tₖ Mₖ to a row.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // the compiler vectorizes loops over numbers, not over iterators
fn tile<T: Real, const K: usize>(fused: Fused, y: &mut [T], t: [T; K], m: &[T]) {
    let width = y.len();
    let m: [&[T]; K] = std::array::from_fn(|k| &m[k * width..][..width]);
    for i in 0..width {
        let mut sum = t[0] * m[0][i];
        for k in 1..K {
            sum = fused.multiply_add(t[k], m[k][i], sum);
        }
        y[i] = y[i] + sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};

    fn numbers(shape: (usize, usize), seed: usize, dtype: DType) -> Tensor {
        let numbers: Vec<f64> = (0..shape.0 * shape.1)
            .map(|i| ((i + seed) as f64).sin())
            .collect();
        let all = Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap();
        all.to_dtype(dtype).unwrap()
    }

    #[test]
    fn what_is_added_in_place_is_the_product() {
        for (rows, rank, width) in [(1, 1, 1), (3, 4, 7), (5, 6, 33), (40, 8, 700), (2, 65, 9)] {
            for (dtype, bound) in [(DType::F32, 2e-5), (DType::F64, 1e-13)] {
                let y = numbers((rows, width), 1, dtype);
                let t = numbers((rows, rank), 2, dtype);
                let m = numbers((width, rank), 3, dtype).t().unwrap();
                let want = (&y + t.matmul(&m).unwrap()).unwrap();
                for m in [&m, &m.contiguous().unwrap()] {
                    let found = y.copy().unwrap();
                    found.inplace_op3(&t, m, &Accumulate).unwrap();
                    let error = (&found - &want).unwrap().abs().unwrap().max_all().unwrap();
                    let error = error.to_dtype(DType::F64).unwrap();
                    let error = error.to_scalar::<f64>().unwrap();
                    assert!(error < bound, "{rows} {rank} {width} {dtype:?}: {error}");
                }
            }
        }
    }

    /// Parts of wider matrices.
    #[test]
    fn factors_of_any_layout_are_read_as_they_stand() {
        let wide = numbers((6, 14), 3, DType::F64);
        let m = wide.narrow(1, 2, 7).unwrap().narrow(0, 1, 4).unwrap();
        let t = numbers((5, 9), 2, DType::F64).narrow(1, 3, 4).unwrap();
        let y = numbers((5, 7), 1, DType::F64);
        let want = (&y
            + t.contiguous()
                .unwrap()
                .matmul(&m.contiguous().unwrap())
                .unwrap())
        .unwrap();
        y.inplace_op3(&t, &m, &Accumulate).unwrap();
        let error = (&y - &want).unwrap().abs().unwrap().max_all().unwrap();
        assert!(error.to_scalar::<f64>().unwrap() < 1e-13);
    }

    #[test]
    fn rows_of_a_view_are_added_where_they_stand() {
        let y = numbers((6, 3), 1, DType::F64);
        let t = numbers((4, 2), 2, DType::F64);
        let (of_t, m) = (t.narrow(0, 2, 2).unwrap(), numbers((2, 3), 3, DType::F64));
        let part = y.narrow(0, 4, 2).unwrap();
        let want = (&part + of_t.matmul(&m).unwrap()).unwrap();
        let before = y.narrow(0, 0, 4).unwrap().copy().unwrap();
        part.inplace_op3(&of_t, &m, &Accumulate).unwrap();
        let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for (found, want) in numbers(&y.narrow(0, 4, 2).unwrap())
            .iter()
            .zip(numbers(&want))
        {
            assert!((found - want).abs() < 1e-14, "{found} {want}");
        }
        assert_eq!(numbers(&y.narrow(0, 0, 4).unwrap()), numbers(&before));
    }
}
