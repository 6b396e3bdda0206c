//! Chain of hindsight.
