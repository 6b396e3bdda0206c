use crate::common::matrix;
use candle_align::{Candidates, RrhfConfig, rrhf_loss};

fn candidates() -> Candidates {
    let x = matrix(&[&[-1.0, -2.0]]);
    Candidates::new(&x, &matrix(&[&[1.0, 1.0]]), &x, None).unwrap()
}

#[test]
fn the_weights() {
    for (value, found) in [(-1.0, "-1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let rank = RrhfConfig {
            rank_weight: value,
            ..Default::default()
        };
        assert_eq!(
            rrhf_loss(&candidates(), &rank).unwrap_err().to_string(),
            format!("rrhf_loss: `rank_weight` must be finite and >= 0, got {found}")
        );
        let sft = RrhfConfig {
            sft_weight: value,
            ..Default::default()
        };
        assert_eq!(
            rrhf_loss(&candidates(), &sft).unwrap_err().to_string(),
            format!("rrhf_loss: `sft_weight` must be finite and >= 0, got {found}")
        );
    }
}

#[test]
fn the_configuration_as_json() {
    let config: RrhfConfig = serde_json::from_str(r#"{"rank_weight":10.0}"#).unwrap();
    let want = RrhfConfig {
        rank_weight: 10.0,
        sft_weight: 1.0,
    };
    assert_eq!(config, want);
    let config: RrhfConfig = serde_json::from_str("{}").unwrap();
    assert_eq!((config.rank_weight, config.sft_weight), (1.0, 1.0));
    assert!(serde_json::from_str::<RrhfConfig>(r#"{"rrhf_weight":1.0}"#).is_err());
}
