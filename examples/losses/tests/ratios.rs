//! The pictures of the policy losses: the claims that they make, and that the kept ones are those drawn.

use losses::ratios::{Loss, Point, all};
use losses::{policy_gradient, ratios, utilities};

fn loss(function: &str) -> Loss {
    let found = all().into_iter().find(|l| l.function == function);
    found.unwrap_or_else(|| panic!("no {function}"))
}

fn at(function: &str, ratio: f64, advantage: f64) -> Point {
    loss(function).at(&[ratio], advantage).expect("computed")[0]
}

#[test]
fn every_slope_at_ratio_one_is_the_policy_gradient() {
    for loss in all() {
        for advantage in [1.0, -1.0] {
            let point = loss.at(&[1.0], advantage).expect("computed")[0];
            assert!((point.slope + advantage).abs() < 1e-12, "{}", loss.function);
        }
    }
}

#[test]
fn what_becomes_of_a_good_token_that_grew() {
    for ratio in [1.25, 1.4, 2.5] {
        assert_eq!(at("grpo_loss", ratio, 1.0).slope, 0.0);
        // the weight stays at its bound
        let slope = at("cispo_loss", ratio, 1.0).slope;
        assert!((slope + ratio.min(1.5)).abs() < 1e-12);
    }
    assert!(at("grpo_loss, dapo", 1.25, 1.0).slope < -1.2);
    // from 0.3 by 0.2: up to a ratio of 5/3
    assert!(at("dppo_loss", 1.6, 1.0).slope < -1.5);
    assert_eq!(at("dppo_loss", 1.7, 1.0).slope, 0.0);
    // fading, not stopped
    let [near, far] = [1.5, 3.0].map(|ratio| at("vespo_loss", ratio, 1.0).slope);
    assert!(near < far && far < 0.0);
    // pulled back beyond e
    assert!(at("token_dro_loss", 2.9, 1.0).slope > 0.0);
}

#[test]
fn what_becomes_of_a_bad_token_that_grew() {
    // GRPO pushes ever harder; δ stops it
    assert!((at("grpo_loss", 2.9, -1.0).slope - 2.9).abs() < 1e-12);
    assert_eq!(at("grpo_loss, dapo", 2.9, -1.0).slope, 0.0);
}

/// The mean gradient of groups of eight is near the slope of the utility, and exactly that for two of them.
#[test]
fn each_kind_of_advantage_ascends_its_utility() {
    for (utility, tolerance) in utilities::all().iter().zip([0.25, 1e-9, 1e-9, 0.25]) {
        for p in [0.3, 0.5, 0.7] {
            let step = 1e-5;
            let want = ((utility.value)(p + step) - (utility.value)(p - step)) / (2.0 * step);
            let got = utility.slopes(&[p]).expect("computed")[0];
            let off = (got / want - 1.0).abs();
            assert!(off < tolerance, "{}: {got}, {want}", utility.style.label);
        }
    }
}

#[test]
fn the_pictures_of_the_docs_are_those_drawn() {
    for (drawn, kept, labels) in [
        (
            ratios::drawn(),
            include_str!("../../../src/online/policy_gradient/ratios.svg"),
            all().iter().map(|l| l.style.label).collect::<Vec<_>>(),
        ),
        (
            utilities::drawn(),
            include_str!("../../../src/online/policy_gradient/utilities.svg"),
            utilities::all().iter().map(|u| u.style.label).collect(),
        ),
    ] {
        assert!(
            drawn.expect("drawn") == kept,
            "write them again: cargo run --example losses -- --policy-gradient src/online/policy_gradient"
        );
        assert!(labels.iter().all(|label| kept.contains(label)));
        assert!(kept.len() < 80_000 && !kept.contains("\n\n") && !kept.contains("NaN"));
    }
}

#[test]
fn the_pictures_are_written_where_they_are_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = policy_gradient::write(&dir.path().join("not/yet/there")).expect("written");
    assert!(files.len() == 2 && files.iter().all(|file| file.is_file()));
}
