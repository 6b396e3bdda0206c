//! Lists of different lengths as one padded table.

use super::super::super::error::Result;
use candle_core::{DType, Device, Tensor};

/// Where the entries of lists are in a flat tensor `[n]`: the first of each list, then the second of each,
/// as TRL orders the answers of pairs.
pub struct Grid {
    size: usize,
    k: usize,
    /// List and entry of each place in the flat tensor.
    order: Vec<(usize, usize)>,
    /// Which entries exist: u8 `[size, k]`.
    pub exists: Tensor,
}

impl Grid {
    pub fn new(lengths: &[usize]) -> Result<Self> {
        let (size, k) = (lengths.len(), lengths.iter().copied().max().unwrap_or(0));
        let column = |entry| (0..size).map(move |list| (list, entry));
        let all = (0..k).flat_map(column);
        let order: Vec<_> = all
            .filter(|(list, entry)| *entry < lengths[*list])
            .collect();
        let row = |length: &usize| (0..k).map(|entry| u8::from(entry < *length)).collect();
        let exists: Vec<Vec<u8>> = lengths.iter().map(row).collect();
        Ok(Self {
            size,
            k,
            order,
            exists: Tensor::from_vec(exists.concat(), (size, k), &Device::Cpu)?,
        })
    }

    /// The entries in the order of the flat tensor.
    pub fn flat<'a, T>(&self, lists: &[&'a [T]]) -> Vec<&'a T> {
        let entry = |(list, entry): &(usize, usize)| &lists[*list][*entry];
        self.order.iter().map(entry).collect()
    }

    /// `[n]` as `[size, k]`, 0 where there is no entry.
    pub fn of(&self, flat: &Tensor) -> Result<Tensor> {
        let zero = Tensor::zeros(1, flat.dtype(), flat.device())?;
        let all = Tensor::cat(&[flat, &zero], 0)?;
        let mut places = vec![self.order.len() as u32; self.size * self.k];
        for (place, (list, entry)) in self.order.iter().enumerate() {
            places[list * self.k + entry] = place as u32;
        }
        let places = Tensor::new(places, flat.device())?;
        let table = all.index_select(&places, 0)?;
        Ok(table.reshape((self.size, self.k))?)
    }

    /// The numbers of lists as `[size, k]`.
    pub fn numbers(&self, lists: &[&[f32]], dtype: DType) -> Result<Tensor> {
        let flat: Vec<f32> = self.flat(lists).into_iter().copied().collect();
        self.of(&Tensor::new(flat, &Device::Cpu)?.to_dtype(dtype)?)
    }
}
