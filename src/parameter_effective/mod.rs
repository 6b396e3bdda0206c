//! Training few parameters (survey §3.3).
