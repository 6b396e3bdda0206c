//! Second thoughts.
