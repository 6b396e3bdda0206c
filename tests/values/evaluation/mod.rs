//! The evaluation of answers: each value is the formula with the numbers in it.

mod by_model;
mod closed_form;
mod human;
mod likelihood;
mod meta;
mod reference_based;

#[track_caller]
fn close(got: f64, want: f64) {
    let error = (got - want).abs() / want.abs().max(1.0);
    assert!(error <= 1e-12, "{got}, but {want}");
}
