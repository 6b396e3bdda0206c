//! The model and its adapters do what their pages say.

mod adapters;
mod disturb;
mod transformer;
