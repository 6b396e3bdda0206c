//! Attention over segments: its values, gradients and laws against a triple loop in f64 and against
//! ordinary operations with a mask.

mod case;
mod errors;
mod gradients;
mod laws;
mod random;
mod segments;
mod values;
