use crate::common::matrix;
use candle_align::{Candidates, StableAlignmentConfig, StableAlignmentForm, stable_alignment_loss};

fn message(config: &StableAlignmentConfig) -> String {
    let x = matrix(&[&[-1.0, -2.0]]);
    let c = Candidates::new(&x, &matrix(&[&[1.0, 1.0]]), &x, None).unwrap();
    stable_alignment_loss(&c, config).unwrap_err().to_string()
}

#[test]
fn the_settings() {
    for (value, found) in [(-1.0, "-1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let config = StableAlignmentConfig {
            margin: value,
            ..Default::default()
        };
        assert_eq!(
            message(&config),
            format!("stable_alignment_loss: `margin` must be finite and >= 0, got {found}")
        );
        let config = StableAlignmentConfig {
            ratio: value,
            ..Default::default()
        };
        assert_eq!(
            message(&config),
            format!("stable_alignment_loss: `ratio` must be finite and >= 0, got {found}")
        );
    }
    for (value, found) in [(0.0, "0"), (-7.0, "-7"), (f64::NAN, "NaN")] {
        let config = StableAlignmentConfig {
            rating_scale: value,
            ..Default::default()
        };
        assert_eq!(
            message(&config),
            format!("stable_alignment_loss: `rating_scale` must be finite and > 0, got {found}")
        );
    }
}

#[test]
fn the_configuration_as_json() {
    let config: StableAlignmentConfig = serde_json::from_str("{}").unwrap();
    assert_eq!(config, StableAlignmentConfig::default());
    assert_eq!(
        (
            config.margin,
            config.ratio,
            config.rating_scale,
            config.form
        ),
        (10.0, 0.2, 7.0, StableAlignmentForm::Mean)
    );
    let json = r#"{"margin":1.0,"ratio":0.5,"rating_scale":7.0,"form":"max"}"#;
    let config: StableAlignmentConfig = serde_json::from_str(json).unwrap();
    assert_eq!(config.form, StableAlignmentForm::Max);
    assert_eq!(serde_json::to_string(&config).unwrap(), json);
    assert!(serde_json::from_str::<StableAlignmentConfig>(r#"{"max_flow":true}"#).is_err());
}
