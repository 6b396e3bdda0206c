use crate::common::words::{END, bytes};
use crate::common::{bits, matrix, vector};
use candle_align::language::LearnedAnswers;
use candle_align::language::conditional_sft::{ClassPrompt, ClassWeighting, Turn};
use candle_align::{CRlftConfig, Error, TokenLogProbs, c_rlft_loss};
use candle_core::{DType, Tensor};

fn message(rewards: &Tensor, weighting: ClassWeighting) -> String {
    let log_probs = TokenLogProbs::new(&matrix(&[&[-1.0, -2.0]]), &bits(&[&[1, 1]])).unwrap();
    c_rlft_loss(&log_probs, rewards, &CRlftConfig { weighting })
        .unwrap_err()
        .to_string()
}

#[test]
fn settings_out_of_range() {
    for (beta, text) in [
        (0.0, "0"),
        (-1.0, "-1"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
    ] {
        assert_eq!(
            message(&vector(&[1.0]), ClassWeighting::Exponential { beta }),
            format!("c_rlft_loss: `beta` must be finite and > 0, got {text}")
        );
    }
}

#[test]
fn weights_that_are_no_divisor() {
    let log_probs = TokenLogProbs::new(&matrix(&[&[-1.0, -2.0]]), &bits(&[&[1, 1]])).unwrap();
    let config = CRlftConfig {
        weighting: ClassWeighting::Linear,
    };
    let out = c_rlft_loss(&log_probs, &vector(&[-0.5]), &config).unwrap();
    assert_eq!(
        out.token_mean().unwrap_err().to_string(),
        "Reduction::apply: `count` must be finite and > 0, got -1"
    );
    assert_eq!(
        out.sequence_mean().unwrap_err().to_string(),
        "Reduction::apply: `count` must be finite and > 0, got -0.5"
    );
}

#[test]
fn rewards_of_another_batch_or_type() {
    assert_eq!(
        message(&vector(&[1.0, 2.0]), ClassWeighting::Linear),
        "c_rlft_loss: `rewards` has shape [2], expected [batch=1 (from `log_probs`)]"
    );
    let single = vector(&[1.0]).to_dtype(DType::F32).unwrap();
    assert_eq!(
        message(&single, ClassWeighting::Linear),
        "c_rlft_loss: `rewards` is f32, expected f64 (from `log_probs`)"
    );
}

#[test]
fn settings_that_do_not_exist_are_refused() {
    let read = |text| serde_json::from_str::<CRlftConfig>(text);
    let misspelt = read(r#"{"weighing": "linear"}"#).unwrap_err().to_string();
    assert!(
        misspelt.starts_with("unknown field `weighing`"),
        "{misspelt}"
    );
    let misspelt = read(r#"{"weighting": {"exponential": {"bata": 1.0}}}"#).unwrap_err();
    let misspelt = misspelt.to_string();
    assert!(misspelt.starts_with("unknown field `bata`"), "{misspelt}");
    let config = read(r#"{"weighting": {"exponential": {"beta": 0.5}}}"#).unwrap();
    assert_eq!(config.weighting, ClassWeighting::Exponential { beta: 0.5 });
    assert_eq!(
        read(r#"{"weighting": "linear"}"#).unwrap().weighting,
        ClassWeighting::Linear
    );
    assert_eq!(read("{}").unwrap(), CRlftConfig::default());
}

#[test]
fn conversations_without_words() {
    let prompt = ClassPrompt::prefix("GPT4");
    let written = |turns: &[Turn]| {
        prompt
            .sequence(&bytes, turns, END, LearnedAnswers::Every)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(written(&[]), "ClassPrompt::sequence: `turns` is empty");
    let turn = |user, assistant| Turn { user, assistant };
    assert_eq!(
        written(&[turn("a", "b"), turn("", "b")]),
        "ClassPrompt::sequence: `turns[1].user` has no token"
    );
    assert_eq!(
        written(&[turn("a", ""), turn("a", "b")]),
        "ClassPrompt::sequence: `turns[0].assistant` has no token"
    );
    let question = prompt.prompt(&bytes, "", END).unwrap_err().to_string();
    assert_eq!(question, "ClassPrompt::prompt: `user` has no token");
}

#[test]
fn the_tokenizers_own_error_comes_through() {
    let broken = |text: &str| match text {
        "bad" => Err(Error::Tensor(candle_core::Error::Msg(
            "no such word".into(),
        ))),
        other => bytes(other),
    };
    let turn = Turn {
        user: "a",
        assistant: "bad",
    };
    let error = ClassPrompt::prefix("GPT4").sequence(&broken, &[turn], END, LearnedAnswers::Every);
    assert_eq!(error.unwrap_err().to_string(), "no such word");
}

#[test]
fn an_encoder_that_finds_no_token_is_named() {
    let mute = |text: &str| match text {
        "a" => Ok(Vec::new()),
        other => bytes(other),
    };
    let error = ClassPrompt::prefix("GPT4").prompt(&mute, "a", END);
    let message = error.unwrap_err().to_string();
    assert_eq!(message, "ClassPrompt::prompt: `user` has no token");
}
