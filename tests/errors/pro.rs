use crate::common::matrix;
use candle_align::{Candidates, ProConfig, ProTemperature, pro_loss};

fn candidates() -> Candidates {
    let x = matrix(&[&[-1.0, -2.0]]);
    Candidates::new(&x, &matrix(&[&[1.0, 1.0]]), &x, None).unwrap()
}

#[test]
fn the_weight() {
    for (sft_weight, found) in [(-0.05, "-0.05"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let config = ProConfig {
            sft_weight,
            ..Default::default()
        };
        assert_eq!(
            pro_loss(&candidates(), &config).unwrap_err().to_string(),
            format!("pro_loss: `sft_weight` must be finite and >= 0, got {found}")
        );
    }
}

#[test]
fn the_configuration_as_json() {
    let config: ProConfig = serde_json::from_str("{}").unwrap();
    assert_eq!(config, ProConfig::default());
    assert_eq!(config.temperature, ProTemperature::RewardGaps);
    assert_eq!(config.sft_weight, 0.05);
    let json = r#"{"temperature":"one","sft_weight":0.2}"#;
    let config: ProConfig = serde_json::from_str(json).unwrap();
    assert_eq!(config.temperature, ProTemperature::One);
    assert_eq!(serde_json::to_string(&config).unwrap(), json);
    assert_eq!(
        serde_json::to_string(&ProConfig::default()).unwrap(),
        r#"{"temperature":"reward_gaps","sft_weight":0.05}"#
    );
    assert!(serde_json::from_str::<ProConfig>(r#"{"beta":0.1}"#).is_err());
}
