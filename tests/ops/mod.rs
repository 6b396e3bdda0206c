//! candle's fused operations, with a backward: values, gradients, laws, and candle's own as a witness.

mod any;
mod differences;
mod errors;
mod laws;
mod table;
mod values;
