//! The examples do what their headers say.

#[path = "../../examples/losses/mod.rs"]
mod losses;
#[path = "../../examples/support/mod.rs"]
mod support;
#[path = "../../examples/tour/mod.rs"]
mod tour;

#[path = "losses.rs"]
mod losses_claims;
#[path = "tour.rs"]
mod tour_claims;
mod transformer;
