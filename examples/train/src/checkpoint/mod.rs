//! wip
pub mod fit;
pub mod objective;
pub mod order;
pub mod schedule;
