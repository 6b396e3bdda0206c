//! The processes that `mpirun` starts.

use super::super::error::{Error, Result};
use super::World;
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};

/// The most bytes that are broadcast at a time.
const PIECE: usize = 1 << 26;

/// MPI, from the program's start to its end. An error inside MPI ends all ranks.
pub struct Mpi {
    world: SimpleCommunicator,
    _universe: Universe,
}

impl Mpi {
    /// Called once. A program that was started without `mpirun` is alone.
    pub fn start() -> Result<Self> {
        let started = mpi::initialize_with_threading(Threading::Funneled);
        let (universe, _) =
            started.ok_or_else(|| Error::Usage("MPI is running already".to_string()))?;
        Ok(Self {
            world: universe.world(),
            _universe: universe,
        })
    }
}

impl World for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn sum(&self, numbers: &mut [f32]) -> Result<()> {
        let own = numbers.to_vec();
        self.world
            .all_reduce_into(&own[..], numbers, SystemOperation::sum());
        Ok(())
    }

    fn sum_counts(&self, counts: &mut [f64]) -> Result<()> {
        let own = counts.to_vec();
        self.world
            .all_reduce_into(&own[..], counts, SystemOperation::sum());
        Ok(())
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let first = self.world.process_at_rank(0);
        let mut length = bytes.len() as u64;
        first.broadcast_into(&mut length);
        bytes.resize(length as usize, 0);
        for piece in bytes.chunks_mut(PIECE) {
            first.broadcast_into(piece);
        }
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        self.world.barrier();
        Ok(())
    }

    fn abandon(&self) {
        if self.size() > 1 {
            self.world.abort(1)
        }
    }
}
