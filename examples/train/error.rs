//! What can go wrong in a run, each with the place where it did.

use std::path::Path;

/// The result of everything in this example.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A row of a file that cannot be read as what it claims to be.
    #[error("{file}:{line}: {problem}")]
    Row {
        /// The file, as the user named it.
        file: String,
        /// Its line, counted from 1.
        line: usize,
        /// The field in backticks, and what is wrong with it.
        problem: String,
    },
    /// A file or folder that cannot be opened, read or written.
    #[error("{path}: {problem}")]
    File {
        /// The path, as the user named it.
        path: String,
        /// What could not be done, and why.
        problem: String,
    },
    /// Settings that make no sense, or do not fit the data.
    #[error("{0}")]
    Usage(String),
    /// The library's own error.
    #[error(transparent)]
    Align(#[from] candle_align::Error),
    /// Candle's error.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    pub fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File {
            path: path.display().to_string(),
            problem: problem.into(),
        }
    }
}
