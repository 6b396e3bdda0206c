//! Log-probabilities and supervised fine-tuning, against TRL and Transformers.

use super::EXACT;
use super::reader::{Case, each};
use candle_align::{Reduction, Result, SftConfig, Statistics, TokenLogProbs, sft_loss};
use candle_core::{DType, Var};

/// Logits below f64 are computed in f32, with a relative error of 6e-8 per operation.
const SINGLE: f64 = 2e-6;
/// Gradients of half-precision logits are themselves rounded: to 8 bits in bf16 …
const BF16: f64 = 4e-3;
/// … and to 11 bits in f16.
const F16: f64 = 5e-4;
/// The label smoother of Transformers adds the vocabulary's log-probabilities up in f32.
const SMOOTHER: f64 = 1e-7;

#[test]
fn log_probs() {
    each("log_probs", |case| match case.has("targets") {
        true => aligned(case),
        false => next_token(case),
    });
}

fn next_token(case: &Case) -> Result<()> {
    let (dtype, tolerance, of_gradient) = match case.word("dtype") {
        "float64" => (DType::F64, EXACT, EXACT),
        "float32" => (DType::F32, SINGLE, SINGLE),
        "bfloat16" => (DType::BF16, SINGLE, BF16),
        "float16" => (DType::F16, SINGLE, F16),
        other => panic!("{}: {other}", case.name),
    };
    let logits = Var::from_tensor(&case.typed("logits", dtype)?)?;
    let everything = Statistics {
        entropy: true,
        vocabulary_mean: true,
        log_collision: true,
    };
    let log_probs = TokenLogProbs::next_token_with(
        &logits,
        &case.index("tokens")?,
        &case.mask("mask")?,
        everything,
    )?;
    let entropy = log_probs.entropy().expect("asked for");
    let vocabulary_mean = log_probs.vocabulary_mean().expect("asked for");
    case.check("values", log_probs.values(), tolerance)?;
    case.check("entropy", entropy, tolerance)?;
    let log_collision = log_probs.log_collision().expect("asked for");
    case.check("log_collision", log_collision, tolerance)?;
    case.check("vocabulary_mean", vocabulary_mean, tolerance)?;
    case.check("sum", &log_probs.sum()?, tolerance)?;
    case.check("mean", &log_probs.mean()?, tolerance)?;

    let loss = ((log_probs.values() + (entropy * 0.3)?)? - (vocabulary_mean * 0.2)?)?;
    let loss = (loss + (log_collision * 0.1)?)?;
    case.check("loss", &loss, tolerance)?;
    case.check_gradient("logits", &loss, &logits, of_gradient)
}

fn aligned(case: &Case) -> Result<()> {
    let logits = case.var("logits")?;
    let (targets, mask) = (case.index("targets")?, case.mask("mask")?);
    let log_probs = TokenLogProbs::aligned(&logits, &targets, &mask, Statistics::default())?;
    case.check("loss", log_probs.values(), EXACT)?;
    case.check_gradient("logits", log_probs.values(), &logits, EXACT)
}

#[test]
fn sft() {
    each("sft", |case| {
        let tolerance = match case.word("precision") {
            "float32" => SMOOTHER,
            _ => EXACT,
        };
        let reduction = match case.word("reduction") {
            "sum" => Reduction::Sum,
            "token_mean" => Reduction::TokenMean,
            "sequence_mean" => Reduction::SequenceMean,
            "mean_of_sequence_means" => Reduction::MeanOfSequenceMeans,
            "sum_over" => Reduction::SumOver {
                count: case.number("count"),
            },
            other => panic!("{}: {other}", case.name),
        };
        let config = SftConfig {
            label_smoothing: case.number("label_smoothing"),
        };
        let weights = match case.has("weights") {
            true => Some(case.input("weights")?),
            false => None,
        };
        let logits = case.var("logits")?;
        let statistics = Statistics {
            vocabulary_mean: true,
            ..Default::default()
        };
        let log_probs = TokenLogProbs::next_token_with(
            &logits,
            &case.index("tokens")?,
            &case.mask("mask")?,
            statistics,
        )?;
        let loss = sft_loss(&log_probs, weights.as_ref(), &config)?.reduce(reduction)?;
        case.check("loss", &loss, tolerance)?;
        case.check_gradient("logits", &loss, &logits, tolerance)
    });
}
