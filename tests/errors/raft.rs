use crate::common::{bits, matrix};
use candle_align::RaftConfig;
use candle_align::online::raft::{RefreshedSet, best_of_k, kl_adjusted_rewards, top_share};
use candle_core::DType;

#[test]
fn settings_out_of_range() {
    let x = matrix(&[&[1.0, 2.0]]);
    for (beta, text) in [(-0.1, "-0.1"), (f64::INFINITY, "inf"), (f64::NAN, "NaN")] {
        let error = kl_adjusted_rewards(&x, &x, &x, &RaftConfig { beta }).unwrap_err();
        let want = format!("kl_adjusted_rewards: `beta` must be finite and >= 0, got {text}");
        assert_eq!(error.to_string(), want);
    }
    for (share, text) in [(0.0, "0"), (-0.5, "-0.5"), (1.5, "1.5"), (f64::NAN, "NaN")] {
        let error = top_share(&x, None, share).unwrap_err();
        let want = format!("top_share: `share` must be in (0, 1], got {text}");
        assert_eq!(error.to_string(), want);
    }
    assert_eq!(
        RefreshedSet::<u32>::new(0).unwrap_err().to_string(),
        "RefreshedSet::new: `capacity` must be at least 1, got 0"
    );
}

#[test]
fn rewards_that_cannot_be_ranked() {
    let rewards = matrix(&[&[1.0, 2.0], &[f64::NAN, 3.0]]);
    let problem = "`rewards` holds NaN at flat position 2; it must be finite where the mask counts";
    assert_eq!(
        best_of_k(&rewards, None).unwrap_err().to_string(),
        format!("best_of_k: {problem}")
    );
    assert_eq!(
        top_share(&rewards, None, 0.5).unwrap_err().to_string(),
        format!("top_share: {problem}")
    );
    let infinite = matrix(&[&[1.0, f64::NEG_INFINITY]]);
    assert_eq!(
        best_of_k(&infinite, None).unwrap_err().to_string(),
        "best_of_k: `rewards` holds -inf at flat position 1; it must be finite where the mask counts"
    );
}

#[test]
fn shapes_and_types_that_disagree() {
    let rewards = matrix(&[&[1.0, 2.0], &[0.0, 3.0]]);
    let flat = rewards.flatten_all().unwrap();
    assert_eq!(
        best_of_k(&flat, None).unwrap_err().to_string(),
        "best_of_k: `rewards` has shape [4], expected [batch, k]"
    );
    assert_eq!(
        top_share(&flat, None, 0.5).unwrap_err().to_string(),
        "top_share: `rewards` has shape [4], expected [batch, k]"
    );
    let narrow = bits(&[&[1], &[1]]);
    assert_eq!(
        best_of_k(&rewards, Some(&narrow)).unwrap_err().to_string(),
        "best_of_k: `mask` has shape [2, 1], expected [batch=2 (from `rewards`), k=2 (from `rewards`)]"
    );
    assert_eq!(
        top_share(&rewards, Some(&rewards), 0.5)
            .unwrap_err()
            .to_string(),
        "top_share: `mask` is f64, expected u8"
    );
    let half = rewards.to_dtype(DType::BF16).unwrap();
    assert_eq!(
        best_of_k(&half, None).unwrap_err().to_string(),
        "best_of_k: `rewards` is bf16, expected f32 or f64"
    );

    let config = RaftConfig { beta: 0.1 };
    let one = matrix(&[&[1.0, 2.0]]);
    assert_eq!(
        kl_adjusted_rewards(&rewards, &one, &rewards, &config)
            .unwrap_err()
            .to_string(),
        "kl_adjusted_rewards: `policy` has shape [1, 2], expected [batch=2 (from `rewards`), k=2 (from `rewards`)]"
    );
    let single = rewards.to_dtype(DType::F32).unwrap();
    assert_eq!(
        kl_adjusted_rewards(&rewards, &rewards, &single, &config)
            .unwrap_err()
            .to_string(),
        "kl_adjusted_rewards: `reference` is f32, expected f64 (from `rewards`)"
    );
    // also where β = 0 would not read it
    assert_eq!(
        kl_adjusted_rewards(&rewards, &rewards, &one, &RaftConfig::default())
            .unwrap_err()
            .to_string(),
        "kl_adjusted_rewards: `reference` has shape [1, 2], expected [batch=2 (from `rewards`), k=2 (from `rewards`)]"
    );
    assert_eq!(
        kl_adjusted_rewards(&flat, &flat, &flat, &config)
            .unwrap_err()
            .to_string(),
        "kl_adjusted_rewards: `rewards` has shape [4], expected [batch, k]"
    );
}

#[test]
fn a_refused_batch_leaves_the_set_as_it_was() {
    let mut set = RefreshedSet::new(2).unwrap();
    set.merge([("a", 1.0)]).unwrap();
    let error = set.merge([("b", 2.0), ("c", f64::NAN)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "RefreshedSet::merge: `batch[1]` has the reward NaN; it must be finite"
    );
    assert_eq!(set.items(), [("a", 1.0)]);
}

#[test]
fn a_misspelt_setting_is_refused() {
    let error = serde_json::from_str::<RaftConfig>(r#"{"betta": 0.1}"#).unwrap_err();
    assert!(
        error.to_string().starts_with("unknown field `betta`"),
        "{error}"
    );
    let config: RaftConfig = serde_json::from_str(r#"{"beta": 0.01}"#).unwrap();
    assert_eq!(config.beta, 0.01);
}
