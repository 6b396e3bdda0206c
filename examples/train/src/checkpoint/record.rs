//! What a step measured, by all ranks.

use super::super::error::Result;
use super::super::world::World;
use super::super::world::parts::gather;
use super::objective::measured::{Judged, Scored};
use super::objective::{Labels, Measured, Rewards};

/// What the parts of a step gave.
#[derive(Debug, Default)]
pub struct Record {
    pub loss: f64,
    /// Each with its micro-batch.
    pairs: Vec<(usize, Scored)>,
    judged: Vec<(usize, Judged)>,
}

impl Record {
    /// Adds what a part of a micro-batch gave, and its loss.
    pub fn add(&mut self, batch: usize, loss: f64, measured: &Measured) {
        self.loss += loss;
        let pairs = measured.pairs.iter().map(|pair| (batch, *pair));
        self.pairs.extend(pairs);
        let judged = measured.judged.iter().map(|one| (batch, *one));
        self.judged.extend(judged);
    }

    /// What all ranks have, in the order of rows.
    pub fn of_all(self, world: &dyn World) -> Result<Self> {
        if world.size() == 1 {
            return Ok(self);
        }
        let mut all = Self::default();
        for own in gather(world, self.numbers())? {
            all.read(&own);
        }
        Ok(all)
    }

    /// As numbers: the loss, how many pairs there are, the pairs, and the answers with a label.
    fn numbers(&self) -> Vec<f64> {
        let mut numbers = vec![self.loss, self.pairs.len() as f64];
        for (batch, pair) in &self.pairs {
            let [better, other] = pair.scores;
            numbers.extend([*batch as f64, pair.row as f64, better, other]);
        }
        for (batch, one) in &self.judged {
            let desirable = f64::from(u8::from(one.desirable));
            numbers.extend([*batch as f64, one.row as f64, one.reward, desirable]);
        }
        numbers
    }

    fn read(&mut self, numbers: &[f64]) {
        let [loss, pairs, rest @ ..] = numbers else {
            return;
        };
        self.loss += loss;
        for (at, four) in rest.chunks_exact(4).enumerate() {
            let (batch, row) = (four[0] as usize, four[1] as usize);
            if at < *pairs as usize {
                let scores = [four[2], four[3]];
                self.pairs.push((batch, Scored { row, scores }));
            } else {
                let (reward, desirable) = (four[2], four[3] > 0.0);
                let one = Judged {
                    row,
                    reward,
                    desirable,
                };
                self.judged.push((batch, one));
            }
        }
    }

    /// The mean over micro-batches of their pairs.
    pub fn rewards(&self, batches: usize) -> Option<Rewards> {
        let of = (0..batches).filter_map(|batch| Rewards::of(&own(&self.pairs, batch)));
        Rewards::mean(&of.collect::<Vec<_>>())
    }

    /// The mean over micro-batches of their answers with a label; `given` has the number of each micro-batch.
    pub fn labels(&self, given: &[f64]) -> Option<Labels> {
        let each = given.iter().enumerate();
        let of = each.filter_map(|(batch, given)| Labels::of(&own(&self.judged, batch), *given));
        Labels::mean(&of.collect::<Vec<_>>())
    }

    /// The rewards of all answers with a label.
    pub fn judged(&self) -> Vec<f64> {
        self.judged.iter().map(|(_, one)| one.reward).collect()
    }
}

/// Those of one micro-batch.
fn own<T: Copy>(all: &[(usize, T)], batch: usize) -> Vec<T> {
    let own = all.iter().filter(|(of, _)| *of == batch);
    own.map(|(_, one)| *one).collect()
}
