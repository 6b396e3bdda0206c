use candle_align::ForgetfulConfig;
use candle_align::language::forgetful::{forgetful_mask, forgetful_pair_mask};
use candle_core::Device;
use rand::SeedableRng;
use rand::rngs::StdRng;

#[test]
fn ratios_out_of_range() {
    for (min_ratio, max_ratio, text) in [
        (-0.1, 0.5, "`min_ratio` must be in [0, 1], got -0.1"),
        (1.5, 2.0, "`min_ratio` must be in [0, 1], got 1.5"),
        (f64::NAN, 0.5, "`min_ratio` must be in [0, 1], got NaN"),
        (0.2, 0.1, "`max_ratio` must be in [min_ratio, 1], got 0.1"),
        (0.2, 1.1, "`max_ratio` must be in [min_ratio, 1], got 1.1"),
        (
            0.2,
            f64::NAN,
            "`max_ratio` must be in [min_ratio, 1], got NaN",
        ),
    ] {
        let config = ForgetfulConfig {
            min_ratio,
            max_ratio,
        };
        // also where there is nothing to draw
        for batch in [0, 1] {
            let mut rng = StdRng::seed_from_u64(0);
            let error = forgetful_mask((batch, 3), &config, &mut rng, &Device::Cpu);
            assert_eq!(
                error.unwrap_err().to_string(),
                format!("forgetful_mask: {text}")
            );
            let error = forgetful_pair_mask((batch, 3), &config, &mut rng, &Device::Cpu);
            let message = error.unwrap_err().to_string();
            assert_eq!(message, format!("forgetful_pair_mask: {text}"));
        }
    }
}

#[test]
fn a_misspelt_setting_is_refused() {
    let error = serde_json::from_str::<ForgetfulConfig>(r#"{"ratio": 0.1}"#).unwrap_err();
    assert!(
        error.to_string().starts_with("unknown field `ratio`"),
        "{error}"
    );
}
