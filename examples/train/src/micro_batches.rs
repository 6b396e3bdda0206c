//! Which examples come next, and which go through the model together.

use super::batch::{Batch, Example};
use super::error::Result;
use super::objectives::{Task, counted};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Batches of examples with similar lengths, so that there is little padding.
pub fn micro_batches(examples: &[&Example], size: usize) -> Result<Vec<Batch>> {
    let mut sorted = examples.to_vec();
    sorted.sort_by_key(|example| (example.answers.len(), example.longest()));
    sorted.chunks(size).map(Batch::new).collect()
}

/// The common divisor of the losses of all these batches.
pub fn window(task: &Task, batches: &[Batch]) -> Result<f64> {
    batches.iter().map(|batch| counted(task, batch)).sum()
}

/// Indices in random order; each occurs once before any occurs again.
pub struct Order {
    indices: Vec<usize>,
    at: usize,
}

impl Order {
    pub fn new(count: usize) -> Self {
        Self {
            indices: (0..count).collect(),
            at: 0,
        }
    }

    pub fn next(&mut self, rng: &mut StdRng) -> usize {
        if self.at == 0 {
            self.indices.shuffle(rng);
        }
        let index = self.indices[self.at];
        self.at = (self.at + 1) % self.indices.len();
        index
    }
}
