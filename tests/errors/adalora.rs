//! Adalora.
