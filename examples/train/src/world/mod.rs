//! What a training loop needs of the other processes that train the same model.
//!
//! | file | the processes | needs |
//! |---|---|---|
//! | [`single`] | one, alone | nothing |
//! | `mpi` | those that `mpirun` starts | the feature `mpi` and an installed MPI |
//! | [`counted`] | those of another world, whose bytes and seconds it counts | – |
//!
//! | file | does |
//! |---|---|
//! | [`start`] | which world a program has |
//! | [`gradients`] | sums the gradients of all processes |
//! | [`parts`](mod@parts) | which part of some work is whose; what each process found, everywhere |
//!
//! Every process holds the whole model and the state of the optimizer, takes a part of each step's rows, and then does
//! the same update with the same sum. What the rows of a step are divided by is counted over the step and not over a
//! part, so a loss means what it means in one process.
//!
//! # Another engine
//!
//! NCCL fits behind [`World`]. It takes: a device buffer in place of the slice in [`World::sum`], since a copy to the
//! host would cost more than the sum; a call on candle's own stream, so that the sum begins when the gradient is there;
//! and another way to hand out NCCL's id, for which [`World::broadcast`] over MPI is enough. `sum_counts`, `broadcast`
//! and `barrier` can stay with MPI: they move a few bytes.

pub mod counted;
pub mod gradients;
#[cfg(feature = "mpi")]
pub mod mpi;
pub mod parts;
pub mod single;
pub mod start;

use super::error::{Error, Result};

/// The processes that train one model; each is a rank. All ranks must make the same calls in the same order.
pub trait World {
    /// The number of this process, from 0. Rank 0 writes and shows progress.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// In place of each number, its sum over all ranks. Every rank gets the same bits.
    fn sum(&self, numbers: &mut [f32]) -> Result<()>;

    /// The same for counts and for numbers that must stay exact.
    fn sum_counts(&self, counts: &mut [f64]) -> Result<()>;

    /// In place of what is there, what rank 0 has.
    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()>;

    /// Waits until every rank has come here.
    fn barrier(&self) -> Result<()>;

    /// Ends the other ranks, after an error here: they would wait for this one.
    fn abandon(&self) {}

    /// Whether this process writes files and shows progress.
    fn writes(&self) -> bool {
        self.rank() == 0
    }
}

/// An error if rank 0 has another text: `what` is what it says.
pub fn agree(world: &dyn World, what: &str, text: &str) -> Result<()> {
    let mut first = text.as_bytes().to_vec();
    world.broadcast(&mut first)?;
    match first == text.as_bytes() {
        true => Ok(()),
        false => Err(Error::Usage(format!(
            "{what} of rank {} of {} differ from those of rank 0, and all ranks must train the same",
            world.rank(),
            world.size()
        ))),
    }
}

/// Whether any rank says so.
pub fn any(world: &dyn World, says: bool) -> Result<bool> {
    let mut count = [f64::from(u8::from(says))];
    world.sum_counts(&mut count)?;
    Ok(count[0] > 0.0)
}
