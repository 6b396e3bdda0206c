//! Which rows each step takes.
//!
//! The order of an epoch depends on the seed and the epoch alone, and a step's rows on the step alone:
//! a run that goes on from a step continues with the rows that it would have seen.

use super::super::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The order of rows in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// As in the file.
    Sequential,
    /// `torch.randperm` of a generator whose seed is this one plus the epoch.
    Random { seed: u64 },
}

impl Order {
    /// The same by TRL's sampler of prompts: one generator draws an epoch's order after another's.
    pub fn repeated(self, rows: usize, epoch: usize) -> Vec<usize> {
        match self {
            Order::Sequential => (0..rows).collect(),
            Order::Random { seed } => {
                let mut twister = Twister::new(seed as u32);
                let mut order = permuted(rows, &mut twister);
                for _ in 0..epoch {
                    order = permuted(rows, &mut twister);
                }
                order
            }
        }
    }

    /// The rows of an epoch, counted from 0.
    pub fn epoch(self, rows: usize, epoch: usize) -> Vec<usize> {
        match self {
            Order::Sequential => (0..rows).collect(),
            Order::Random { seed } => permutation(rows, seed.wrapping_add(epoch as u64)),
        }
    }
}

/// `torch.randperm(rows)` of a CPU generator with this seed, for fewer than 2³²/20 rows.
pub fn permutation(rows: usize, seed: u64) -> Vec<usize> {
    permuted(rows, &mut Twister::new(seed as u32))
}

fn permuted(rows: usize, twister: &mut Twister) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    for i in 0..rows.saturating_sub(1) {
        let ahead = twister.draw() as usize % (rows - i);
        order.swap(i, i + ahead);
    }
    order
}

/// How rows become micro-batches and steps.
///
/// A micro-batch has `batch` rows in sequence, a step has `accumulation` micro-batches in sequence.
/// What is left at the end of an epoch makes a smaller micro-batch and a smaller step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    rows: usize,
    batch: usize,
    accumulation: usize,
    order: Order,
    /// Whether the order is [`Order::repeated`].
    repeated: bool,
    /// Whether what fills no micro-batch is left out.
    drop_last: bool,
}

/// The rows of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The step, counted from 0.
    pub step: usize,
    pub epoch: usize,
    /// Rows by micro-batch.
    pub micro_batches: Vec<Vec<usize>>,
}

impl Steps {
    pub fn new(rows: usize, batch: usize, accumulation: usize, order: Order) -> Result<Self> {
        let sizes = [
            ("rows", rows),
            ("batch", batch),
            ("accumulation", accumulation),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(Error::Usage(format!("`{name}` must be at least 1, got 0")));
        }
        let rows_at_most = u32::MAX as usize / 20;
        if rows > rows_at_most {
            let problem = format!("`rows` must be at most {rows_at_most}, got {rows}");
            return Err(Error::Usage(problem));
        }
        Ok(Self {
            rows,
            batch,
            accumulation,
            order,
            repeated: false,
            drop_last: false,
        })
    }

    /// Steps of whole batches, in the order of TRL's sampler of prompts: what is left at the end of an epoch is left out.
    pub fn of_prompts(prompts: usize, batch: usize, order: Order) -> Result<Self> {
        if prompts < batch {
            let problem = format!(
                "a step takes {batch} prompts, and there are {prompts}: lower `fit.batch` or `fit.accumulation`, or give \
                 more prompts"
            );
            return Err(Error::Usage(problem));
        }
        Ok(Self {
            repeated: true,
            drop_last: true,
            ..Self::new(prompts, batch, 1, order)?
        })
    }

    /// The same, and an epoch leaves out its last micro-batch if that is smaller than the others.
    pub fn dropping_last(self, drop_last: bool) -> Result<Self> {
        if drop_last && self.rows < self.batch {
            return Err(Error::Usage(format!(
                "`fit.dataloader_drop_last` leaves nothing to train on: there are {} rows, and a micro-batch takes {}",
                self.rows, self.batch
            )));
        }
        Ok(Self { drop_last, ..self })
    }

    /// The number of micro-batches of an epoch.
    pub fn batches_per_epoch(&self) -> usize {
        match self.drop_last {
            true => self.rows / self.batch,
            false => self.rows.div_ceil(self.batch),
        }
    }

    /// The number of steps of an epoch.
    pub fn per_epoch(&self) -> usize {
        self.batches_per_epoch().div_ceil(self.accumulation)
    }

    /// The number of steps of so many epochs, rounded up.
    pub fn of_epochs(&self, epochs: f64) -> Result<usize> {
        of_epochs(epochs, self.per_epoch())
    }

    /// The steps from `first` on, counted from 0, without end.
    pub fn from(self, first: usize) -> impl Iterator<Item = Step> {
        let mut known: Option<(usize, Vec<usize>)> = None;
        (first..).map(move |step| {
            let epoch = step / self.per_epoch();
            let order = match known.take() {
                Some((of, order)) if of == epoch => order,
                _ if self.repeated => self.order.repeated(self.rows, epoch),
                _ => self.order.epoch(self.rows, epoch),
            };
            let micro_batches = self.batches(step).map(|batch| {
                let from = batch * self.batch;
                order[from..from.saturating_add(self.batch).min(self.rows)].to_vec()
            });
            let micro_batches = micro_batches.collect();
            known = Some((epoch, order));
            Step {
                step,
                epoch,
                micro_batches,
            }
        })
    }

    /// The micro-batches of a step, counted within its epoch.
    fn batches(&self, step: usize) -> Range<usize> {
        let from = step % self.per_epoch() * self.accumulation;
        from..from
            .saturating_add(self.accumulation)
            .min(self.batches_per_epoch())
    }

    /// The number of epochs after so many steps, as TRL's log has it.
    pub fn epochs_after(&self, steps: usize) -> f64 {
        let (whole, rest) = (steps / self.per_epoch(), steps % self.per_epoch());
        whole as f64 + (rest * self.accumulation) as f64 / self.batches_per_epoch() as f64
    }
}

/// The number of steps of so many epochs, rounded up.
pub fn of_epochs(epochs: f64, per_epoch: usize) -> Result<usize> {
    let steps = (epochs * per_epoch as f64).ceil();
    // an integer above is not exact
    match epochs > 0.0 && steps < 2f64.powi(53) {
        true => Ok(steps as usize),
        false => Err(Error::Usage(format!(
            "`fit.num_train_epochs` must be > 0 and make less than 2^53 steps, got {epochs}"
        ))),
    }
}

/// The rows of a micro-batch in parts that go through the model one after another: each takes rows, in order,
/// up to `most` tokens. A longer row is a part of its own; no rows are no parts.
pub fn parts(
    rows: &[usize],
    most: Option<usize>,
    tokens: impl Fn(usize) -> usize,
) -> Vec<&[usize]> {
    if rows.is_empty() {
        return Vec::new();
    }
    let Some(most) = most else {
        return vec![rows];
    };
    let (mut parts, mut from, mut sum) = (Vec::new(), 0, 0);
    for (at, row) in rows.iter().enumerate() {
        let more = tokens(*row);
        if at > from && sum + more > most {
            parts.push(&rows[from..at]);
            (from, sum) = (at, 0);
        }
        sum += more;
    }
    parts.push(&rows[from..]);
    parts
}

/// The generator MT19937.
struct Twister {
    state: Vec<u32>,
    at: usize,
}

const WORDS: usize = 624;

impl Twister {
    fn new(seed: u32) -> Self {
        let mut state = vec![seed];
        for i in 1..WORDS {
            let last = state[i - 1];
            let mixed = (last ^ (last >> 30)).wrapping_mul(1_812_433_253);
            state.push(mixed.wrapping_add(i as u32));
        }
        Self { state, at: WORDS }
    }

    fn draw(&mut self) -> u32 {
        if self.at == WORDS {
            self.twist();
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..WORDS {
            let high = self.state[i] & 0x8000_0000;
            let low = self.state[(i + 1) % WORDS] & 0x7fff_ffff;
            let y = high | low;
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + 397) % WORDS] ^ (y >> 1) ^ odd;
        }
        self.at = 0;
    }
}
