//! The world of a program.

use super::super::error::{Error, Result};
use super::World;
use super::single::Single;

/// The processes that share this program's run: those that `mpirun` started, or this one alone.
#[cfg(feature = "mpi")]
pub fn start() -> Result<Box<dyn World>> {
    Ok(Box::new(super::mpi::Mpi::start()?))
}

/// This process alone.
#[cfg(not(feature = "mpi"))]
pub fn start() -> Result<Box<dyn World>> {
    Ok(Box::new(alone(|name| std::env::var(name).ok())?))
}

/// One process. An error if it is one of several that a launcher started, as its variables say: each would train alone,
/// and write over the results of the others.
pub fn alone(variable: impl Fn(&str) -> Option<String>) -> Result<Single> {
    let sizes = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"].map(variable);
    let sizes = sizes.iter().flatten().filter_map(|size| size.parse().ok());
    match sizes.max() {
        Some(size @ 2usize..) => Err(Error::Usage(format!(
            "{size} processes were started, and this program was built for one: build it with --features train/mpi"
        ))),
        _ => Ok(Single),
    }
}

/// The text of an error, with the rank that has it.
pub fn blamed(world: &dyn World, error: &Error) -> String {
    match world.size() {
        1 => error.to_string(),
        size => format!("rank {} of {size}: {error}", world.rank()),
    }
}
