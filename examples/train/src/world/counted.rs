//! The bytes and the seconds that ranks spend on each other.

use super::super::error::Result;
use super::World;
use serde::Serialize;
use std::cell::Cell;
use std::fmt;
use std::time::Instant;

/// What a rank spent on the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spent {
    /// Of the numbers that it gave to sums, and of what was broadcast.
    pub bytes: u64,
    /// In sums and broadcasts.
    pub seconds: f64,
    /// At barriers: for ranks that were slower.
    pub waiting: f64,
}

impl Spent {
    pub fn add(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.seconds += more.seconds;
        self.waiting += more.waiting;
    }
}

/// What the steps of a run cost rank 0 beyond its own part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shared {
    pub ranks: usize,
    pub spent: Spent,
}

impl Shared {
    /// None where there is one rank.
    pub fn of(world: &dyn World, spent: Spent) -> Option<Self> {
        let ranks = world.size();
        (ranks > 1).then_some(Self { ranks, spent })
    }

    /// A line of a report, by so many steps.
    pub fn line(&self, f: &mut fmt::Formatter, steps: f64) -> fmt::Result {
        let Spent {
            bytes,
            seconds,
            waiting,
        } = self.spent;
        writeln!(
            f,
            "  ranks     {}; in a step {:.3} MiB are summed in {:.4} s, after {:.4} s of waiting for the slowest",
            self.ranks,
            bytes as f64 / steps / f64::from(1 << 20),
            seconds / steps,
            waiting / steps
        )
    }
}

/// Another world, whose bytes and seconds are counted.
pub struct Counted<'a> {
    world: &'a dyn World,
    spent: Cell<Spent>,
}

impl<'a> Counted<'a> {
    pub fn new(world: &'a dyn World) -> Self {
        Self {
            world,
            spent: Cell::default(),
        }
    }

    /// Since the last call.
    pub fn take(&self) -> Spent {
        self.spent.take()
    }

    fn count<T>(&self, bytes: usize, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let result = call();
        let mut spent = self.spent.get();
        spent.bytes += bytes as u64;
        spent.seconds += begun.elapsed().as_secs_f64();
        self.spent.set(spent);
        result
    }
}

impl World for Counted<'_> {
    fn rank(&self) -> usize {
        self.world.rank()
    }

    fn size(&self) -> usize {
        self.world.size()
    }

    fn sum(&self, numbers: &mut [f32]) -> Result<()> {
        self.count(size_of_val(numbers), || self.world.sum(numbers))
    }

    fn sum_counts(&self, counts: &mut [f64]) -> Result<()> {
        self.count(size_of_val(counts), || self.world.sum_counts(counts))
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        self.count(bytes.len(), || self.world.broadcast(bytes))
    }

    fn barrier(&self) -> Result<()> {
        let begun = Instant::now();
        let result = self.world.barrier();
        let mut spent = self.spent.get();
        spent.waiting += begun.elapsed().as_secs_f64();
        self.spent.set(spent);
        result
    }
}
