use crate::common::{bits, matrix, vector};
use candle_align::{SftConfig, TokenLogProbs, sft_loss};

fn log_probs() -> TokenLogProbs {
    TokenLogProbs::new(&matrix(&[&[-1.0, -2.0]]), &bits(&[&[1, 1]])).unwrap()
}

fn message(weights: Option<&candle_core::Tensor>, label_smoothing: f64) -> String {
    let config = SftConfig { label_smoothing };
    sft_loss(&log_probs(), weights, &config)
        .unwrap_err()
        .to_string()
}

#[test]
fn settings_out_of_range() {
    for (value, text) in [(1.0, "1"), (-0.1, "-0.1"), (f64::NAN, "NaN")] {
        assert_eq!(
            message(None, value),
            format!("sft_loss: `label_smoothing` must be in [0, 1), got {text}")
        );
    }
}

#[test]
fn label_smoothing_without_the_statistic_it_needs() {
    assert_eq!(
        message(None, 0.1),
        "sft_loss: `log_probs` was computed without Statistics::vocabulary_mean, which \
         label_smoothing > 0 needs"
    );
}

#[test]
fn weights_of_another_batch() {
    assert_eq!(
        message(Some(&vector(&[1.0, 2.0])), 0.0),
        "sft_loss: `weights` has shape [2], expected [batch=1 (from `log_probs`)]"
    );
}

#[test]
fn a_misspelt_setting_is_refused() {
    let error = serde_json::from_str::<SftConfig>(r#"{"label_smothing": 0.1}"#).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("unknown field `label_smothing`"),
        "{error}"
    );
}
