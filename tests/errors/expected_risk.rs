use crate::common::{bits, matrix};
use candle_align::ranking::ReferenceTokens;
use candle_align::{Candidates, ExpectedRiskConfig, TokenLoss, expected_risk_loss};

fn candidates() -> Candidates {
    let x = matrix(&[&[-1.0, -2.0], &[-1.0, -2.0]]);
    Candidates::new(&x, &x.ones_like().unwrap(), &x, None).unwrap()
}

#[track_caller]
fn message(reference: Option<&TokenLoss>, config: &ExpectedRiskConfig) -> String {
    match expected_risk_loss(&candidates(), reference, config) {
        Ok(_) => panic!("no error"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn settings() {
    for (length_power, found) in [(-0.5, "-0.5"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let config = ExpectedRiskConfig {
            length_power,
            ..Default::default()
        };
        assert_eq!(
            message(None, &config),
            format!("expected_risk_loss: `length_power` must be finite and >= 0, got {found}")
        );
    }
    for (token_weight, found) in [(-0.1, "-0.1"), (1.5, "1.5"), (f64::NAN, "NaN")] {
        let config = ExpectedRiskConfig {
            token_weight,
            ..Default::default()
        };
        assert_eq!(
            message(None, &config),
            format!("expected_risk_loss: `token_weight` must be in [0, 1], got {found}")
        );
    }
}

#[test]
fn the_reference_answers() {
    let config = ExpectedRiskConfig {
        token_weight: 0.3,
        ..Default::default()
    };
    assert_eq!(
        message(None, &config),
        "expected_risk_loss: `reference` is None, but token_weight > 0 weighs its tokens"
    );
    let reference = TokenLoss {
        loss: matrix(&[&[0.5, 1.0]]),
        mask: bits(&[&[1, 1]]),
    };
    assert_eq!(
        message(Some(&reference), &config),
        "expected_risk_loss: `reference.loss` has shape [1, 2], expected [batch=2 (from `candidates`), time]"
    );
    // also where it weighs nothing
    assert_eq!(
        message(Some(&reference), &ExpectedRiskConfig::default()),
        "expected_risk_loss: `reference.loss` has shape [1, 2], expected [batch=2 (from `candidates`), time]"
    );
}

#[test]
fn the_configuration_as_json() {
    let config: ExpectedRiskConfig = serde_json::from_str("{}").unwrap();
    assert_eq!(config, ExpectedRiskConfig::default());
    let text = r#"{"token_weight":0.3,"reference":"mean","length_power":0.0}"#;
    let config: ExpectedRiskConfig = serde_json::from_str(text).unwrap();
    let want = ExpectedRiskConfig {
        token_weight: 0.3,
        reference: ReferenceTokens::Mean,
        length_power: 0.0,
    };
    assert_eq!(config, want);
    let error = serde_json::from_str::<ExpectedRiskConfig>(r#"{"alpha":1.0}"#).unwrap_err();
    assert!(
        error.to_string().starts_with("unknown field `alpha`"),
        "{error}"
    );
}
