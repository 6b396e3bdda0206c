//! The tour does what its header says.

#[path = "../../../support/tests/support/disturb.rs"]
mod disturb;
mod parameters;
#[path = "../../../tabular/policy.rs"]
mod policy;
mod policy_gradients;
mod since;
mod tour_claims;

// as in the tour itself
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
