use crate::common::lists::pair;
use crate::common::vector;
use candle_align::{DpoConfig, Pair, dpo_loss};
use candle_core::{DType, Tensor};

fn message(policy: &Pair<Tensor>, reference: Option<&Pair<Tensor>>, config: &DpoConfig) -> String {
    dpo_loss(policy, reference, config).unwrap_err().to_string()
}

#[test]
fn settings_out_of_range() {
    let policy = pair(&[-1.0], &[-2.0]);
    for (beta, text) in [
        (0.0, "0"),
        (-1.0, "-1"),
        (f64::INFINITY, "inf"),
        (f64::NAN, "NaN"),
    ] {
        let config = DpoConfig {
            beta,
            ..Default::default()
        };
        let want = format!("dpo_loss: `beta` must be finite and > 0, got {text}");
        assert_eq!(message(&policy, None, &config), want);
    }
    for (label_smoothing, text) in [(0.5, "0.5"), (-0.1, "-0.1"), (f64::NAN, "NaN")] {
        let config = DpoConfig {
            label_smoothing,
            ..Default::default()
        };
        let want = format!("dpo_loss: `label_smoothing` must be in [0, 0.5), got {text}");
        assert_eq!(message(&policy, None, &config), want);
    }
}

#[test]
fn shapes_that_disagree() {
    let config = DpoConfig::default();
    let policy = pair(&[-1.0, -2.0, -3.0], &[-1.0, -2.0, -3.0]);
    let reference = pair(&[-1.0, -2.0, -3.0], &[-1.0, -2.0]);
    assert_eq!(
        message(&policy, Some(&reference), &config),
        "dpo_loss: `reference.rejected` has shape [2], expected [batch=3 (from `policy.chosen`)]"
    );
    let square = Pair {
        chosen: vector(&[1.0]).unsqueeze(0).unwrap(),
        rejected: vector(&[1.0]),
    };
    assert_eq!(
        message(&square, None, &config),
        "dpo_loss: `policy.chosen` has shape [1, 1], expected [batch]"
    );
}

#[test]
fn types_that_disagree_or_are_too_narrow() {
    let config = DpoConfig::default();
    let policy = pair(&[-1.0], &[-2.0]);
    let mut reference = pair(&[-1.0], &[-2.0]);
    reference.chosen = reference.chosen.to_dtype(DType::F32).unwrap();
    assert_eq!(
        message(&policy, Some(&reference), &config),
        "dpo_loss: `reference.chosen` is f32, expected f64 (from `policy.chosen`)"
    );
    let half = Pair {
        chosen: policy.chosen.to_dtype(DType::BF16).unwrap(),
        rejected: policy.rejected.to_dtype(DType::BF16).unwrap(),
    };
    assert_eq!(
        message(&half, None, &config),
        "dpo_loss: `policy.chosen` is bf16, expected f32 or f64"
    );
}

#[test]
fn a_misspelt_setting_is_refused() {
    let error = serde_json::from_str::<DpoConfig>(r#"{"betta": 0.1}"#).unwrap_err();
    assert!(
        error.to_string().starts_with("unknown field `betta`"),
        "{error}"
    );
    let half: DpoConfig = serde_json::from_str(r#"{"beta": 0.5}"#).unwrap();
    assert_eq!((half.beta, half.label_smoothing), (0.5, 0.0));
}
