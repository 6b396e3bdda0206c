//! Conditional sft.
