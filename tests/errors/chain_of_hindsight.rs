use crate::common::words::{END, bytes};
use crate::common::{bits, matrix};
use candle_align::language::LearnedAnswers;
use candle_align::language::chain_of_hindsight::{
    HindsightFeedback, HindsightFormat, HindsightOrder, HindsightPair, hindsight_prompt,
    hindsight_sequence,
};
use candle_align::{HindsightConfig, TokenLogProbs, chain_of_hindsight_loss};
use candle_core::DType;

fn log_probs(dtype: DType) -> TokenLogProbs {
    let values = matrix(&[&[-1.0, -2.0]]).to_dtype(dtype).unwrap();
    TokenLogProbs::new(&values, &bits(&[&[1, 1]])).unwrap()
}

#[test]
fn a_weight_out_of_range() {
    for (pretraining_weight, text) in [(-0.5, "-0.5"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let config = HindsightConfig {
            pretraining_weight: Some(pretraining_weight),
        };
        let error = chain_of_hindsight_loss(&log_probs(DType::F64), None, &config);
        assert_eq!(
            error.unwrap_err().to_string(),
            format!(
                "chain_of_hindsight_loss: `pretraining_weight` must be finite and >= 0, got {text}"
            )
        );
    }
}

#[test]
fn a_weight_without_text_to_weigh() {
    // one that was set: the default has none to weigh
    for pretraining_weight in [Some(1.5), Some(1e-9)] {
        let config = HindsightConfig { pretraining_weight };
        let error = chain_of_hindsight_loss(&log_probs(DType::F64), None, &config);
        assert_eq!(
            error.unwrap_err().to_string(),
            "chain_of_hindsight_loss: `pretraining` is None, but pretraining_weight > 0 weighs its tokens"
        );
    }
}

#[test]
fn two_batches_of_two_types() {
    let (double, single) = (log_probs(DType::F64), log_probs(DType::F32));
    // also where the text weighs nothing
    for pretraining_weight in [None, Some(1.5), Some(0.0)] {
        let config = HindsightConfig { pretraining_weight };
        let error = chain_of_hindsight_loss(&double, Some(&single), &config);
        assert_eq!(
            error.unwrap_err().to_string(),
            "chain_of_hindsight_loss: `pretraining` is f32, expected f64 (from `hindsight`)"
        );
    }
}

#[test]
fn settings_that_do_not_exist_are_refused() {
    let error = serde_json::from_str::<HindsightConfig>(r#"{"lambda": 1.0}"#).unwrap_err();
    assert!(
        error.to_string().starts_with("unknown field `lambda`"),
        "{error}"
    );
    let format =
        r#"{"feedback": {"good": "g", "bad": "b"}, "order": "good_then_bad", "learned": "last"}"#;
    let format: HindsightFormat = serde_json::from_str(format).unwrap();
    assert_eq!(format.order, HindsightOrder::GoodThenBad);
    assert_eq!(format.learned, LearnedAnswers::Last);
}

fn message(prompt: &str, good: &str, bad: &str, feedback: (&str, &str)) -> String {
    let format = HindsightFormat {
        feedback: HindsightFeedback {
            good: feedback.0.into(),
            bad: feedback.1.into(),
        },
        order: HindsightOrder::BadThenGood,
        learned: LearnedAnswers::Every,
    };
    let pair = HindsightPair { prompt, good, bad };
    let error = hindsight_sequence(&bytes, &pair, &format, END);
    error.unwrap_err().to_string()
}

#[test]
fn pieces_without_words() {
    for (found, name) in [
        (message("", "y", "n", ("g", "b")), "pair.prompt"),
        (message("x", "", "n", ("g", "b")), "pair.good"),
        (message("x", "y", "", ("g", "b")), "pair.bad"),
        (message("x", "y", "n", ("", "b")), "format.feedback.good"),
        (message("x", "y", "n", ("g", "")), "format.feedback.bad"),
    ] {
        assert_eq!(found, format!("hindsight_sequence: `{name}` has no token"));
    }
}

#[test]
fn prompts_without_words() {
    let feedback = |good: &str| HindsightFeedback {
        good: good.into(),
        bad: String::new(),
    };
    let message = |prompt, good| {
        let error = hindsight_prompt(&bytes, prompt, &feedback(good));
        error.unwrap_err().to_string()
    };
    assert_eq!(message("", "g"), "hindsight_prompt: `prompt` has no token");
    assert_eq!(
        message("x", ""),
        "hindsight_prompt: `feedback.good` has no token"
    );
}
