//! Design space.
