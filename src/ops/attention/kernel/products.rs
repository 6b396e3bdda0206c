//! Products of small matrices whose sums stay in registers.
//!
//! A block of [`ROWS`] rows and one panel of columns is summed at a time, each element from the first
//! product to the last. So an element's bits depend neither on the block that it is in nor on the number of
//! threads, and scores that are computed again are the same scores.

use crate::simd::{Fused, Real};

/// Rows of the result that are summed at a time.
const ROWS: usize = 6;
/// Products between two checks of a row's bounds. Padded lengths are multiples of it.
const STEP: usize = 8;

/// A row-major matrix in a slice: element (i, j) is at `i · stride + j`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, F> {
    pub(super) data: &'a [F],
    pub(super) stride: usize,
}

/// Whether a product replaces the result or is added to it.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Into {
    Replaced,
    Added,
}

/// The place of a result: rows of `stride` numbers, and what happens to the old ones.
pub(super) struct Sum<'a, F> {
    pub(super) data: &'a mut [F],
    pub(super) stride: usize,
    pub(super) into: Into,
}

impl<F: Real + Default> Sum<'_, F> {
    #[inline(always)]
    fn take<const M: usize, const N: usize>(&mut self, i: usize, j: usize, sums: &[[F; N]; M]) {
        for (m, sums) in sums.iter().enumerate() {
            let place = &mut self.data[(i + m) * self.stride + j..][..N];
            match self.into {
                Into::Replaced => place.copy_from_slice(sums),
                Into::Added => {
                    for (old, new) in place.iter_mut().zip(sums) {
                        *old = *old + *new;
                    }
                }
            }
        }
    }
}

/// out[i][j] = Σ_p a[i][p] · b[p][j] for i < `rows`, j < `columns`, p < `length`.
///
/// `columns` is a multiple of N, `length` one of [`STEP`].
#[inline(always)]
pub(super) fn plain<F: Real + Default, const N: usize>(
    fused: Fused,
    mut out: Sum<F>,
    (rows, columns, length): (usize, usize, usize),
    a: Matrix<F>,
    b: Matrix<F>,
) {
    for i in (0..rows).step_by(ROWS) {
        let a = Matrix {
            data: &a.data[i * a.stride..],
            ..a
        };
        for j in (0..columns).step_by(N) {
            let b = Matrix {
                data: &b.data[j..],
                ..b
            };
            match rows - i {
                1 => out.take(i, j, &plain_sums::<F, 1, N>(fused, length, a, b)),
                2 => out.take(i, j, &plain_sums::<F, 2, N>(fused, length, a, b)),
                3 => out.take(i, j, &plain_sums::<F, 3, N>(fused, length, a, b)),
                4 => out.take(i, j, &plain_sums::<F, 4, N>(fused, length, a, b)),
                5 => out.take(i, j, &plain_sums::<F, 5, N>(fused, length, a, b)),
                _ => out.take(i, j, &plain_sums::<F, ROWS, N>(fused, length, a, b)),
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // with iterators in place of s and m it is 13 % slower
fn plain_sums<F: Real + Default, const M: usize, const N: usize>(
    fused: Fused,
    length: usize,
    a: Matrix<F>,
    b: Matrix<F>,
) -> [[F; N]; M] {
    let mut sums = [[F::default(); N]; M];
    let mut rows: [&[[F; STEP]]; M] = [&[]; M];
    for (m, row) in rows.iter_mut().enumerate() {
        *row = a.data[m * a.stride..][..length].as_chunks::<STEP>().0;
    }
    for chunk in 0..length / STEP {
        let mut factors: [&[F; STEP]; M] = [&rows[0][chunk]; M];
        for m in 0..M {
            factors[m] = &rows[m][chunk];
        }
        for s in 0..STEP {
            let row = &b.data[(chunk * STEP + s) * b.stride..][..N];
            for m in 0..M {
                for n in 0..N {
                    sums[m][n] = fused.multiply_add(factors[m][s], row[n], sums[m][n]);
                }
            }
        }
    }
    sums
}

/// out[i][j] = Σ_p a[p][i] · b[p][j] for i < `rows`, j < `columns`, p < `length`.
///
/// `columns` is a multiple of N.
#[inline(always)]
pub(super) fn transposed<F: Real + Default, const N: usize>(
    fused: Fused,
    mut out: Sum<F>,
    (rows, columns, length): (usize, usize, usize),
    a: Matrix<F>,
    b: Matrix<F>,
) {
    for i in (0..rows).step_by(ROWS) {
        let a = Matrix {
            data: &a.data[i..],
            ..a
        };
        for j in (0..columns).step_by(N) {
            let b = Matrix {
                data: &b.data[j..],
                ..b
            };
            match rows - i {
                1 => out.take(i, j, &transposed_sums::<F, 1, N>(fused, length, a, b)),
                2 => out.take(i, j, &transposed_sums::<F, 2, N>(fused, length, a, b)),
                3 => out.take(i, j, &transposed_sums::<F, 3, N>(fused, length, a, b)),
                4 => out.take(i, j, &transposed_sums::<F, 4, N>(fused, length, a, b)),
                5 => out.take(i, j, &transposed_sums::<F, 5, N>(fused, length, a, b)),
                _ => out.take(i, j, &transposed_sums::<F, ROWS, N>(fused, length, a, b)),
            }
        }
    }
}

#[inline(always)]
fn transposed_sums<F: Real + Default, const M: usize, const N: usize>(
    fused: Fused,
    length: usize,
    a: Matrix<F>,
    b: Matrix<F>,
) -> [[F; N]; M] {
    let mut sums = [[F::default(); N]; M];
    for p in 0..length {
        let factors = &a.data[p * a.stride..][..M];
        let row = &b.data[p * b.stride..][..N];
        for m in 0..M {
            for n in 0..N {
                sums[m][n] = fused.multiply_add(factors[m], row[n], sums[m][n]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Width;

    /// Both products at every width, for every number of rows that is left over, against a loop.
    #[test]
    fn products_are_sums_of_products() {
        let (columns, length) = (32, 2 * STEP);
        let number = |i: usize| (i as f64 * 0.7).sin();
        for (width, rows) in Width::all()
            .into_iter()
            .flat_map(|w| (0..=13).map(move |r| (w, r)))
        {
            let (a, b): (Vec<f64>, Vec<f64>) = (
                (0..13 * length).map(number).collect(),
                (0..length * columns).map(|i| number(i + 9)).collect(),
            );
            for (is_transposed, into) in [
                (false, Into::Replaced),
                (false, Into::Added),
                (true, Into::Replaced),
                (true, Into::Added),
            ] {
                let mut got = vec![0.5; rows * columns];
                let stride = if is_transposed { 13 } else { length };
                let factor = |i: usize, p: usize| match is_transposed {
                    true => a[p * stride + i],
                    false => a[i * stride + p],
                };
                let old = if into == Into::Added { 0.5 } else { 0.0 };
                let want: Vec<f64> = (0..rows * columns)
                    .map(|at| {
                        let (i, j) = (at / columns, at % columns);
                        old + (0..length)
                            .map(|p| factor(i, p) * b[p * columns + j])
                            .sum::<f64>()
                    })
                    .collect();
                width.run(
                    #[inline(always)]
                    |fused| {
                        let out = Sum {
                            data: &mut got,
                            stride: columns,
                            into,
                        };
                        let a = Matrix { data: &a, stride };
                        let b = Matrix {
                            data: &b,
                            stride: columns,
                        };
                        let size = (rows, columns, length);
                        match is_transposed {
                            true => transposed::<f64, 8>(fused, out, size, a, b),
                            false => plain::<f64, 8>(fused, out, size, a, b),
                        }
                    },
                );
                for (got, want) in got.iter().zip(&want) {
                    assert!(
                        (got - want).abs() < 1e-13,
                        "{width:?} {rows} {is_transposed}"
                    );
                }
            }
        }
    }
}
