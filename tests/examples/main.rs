//! The examples do what their headers say.

#[path = "../../examples/support/mod.rs"]
mod support;
#[path = "../../examples/tour/mod.rs"]
mod tour;

#[path = "tour.rs"]
mod tour_claims;
mod transformer;
