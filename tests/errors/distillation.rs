use crate::common::{bits, matrix, says};
use candle_align::distillation::divergence::{
    ChosenBy, Direction, DivergenceConfig, TopK, divergence, divergence_from_hidden,
};
use candle_align::distillation::gkd::gkd_loss;
use candle_align::distillation::iw_opd::{IwOpdConfig, iw_opd_weights};
use candle_align::distillation::minillm::{
    minillm_loss, teacher_mixed_log_probs, teacher_mixed_weights,
};
use candle_align::distillation::on_policy::{ReverseKlConfig, reverse_kl_advantages};
use candle_align::sft::eaft::{EaftConfig, eaft_loss};
use candle_align::{OutputHead, TokenLogProbs, TokenLoss};
use candle_core::{DType, Device, Tensor};

fn zeros(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::zeros(shape, dtype, &Device::Cpu).unwrap()
}

fn log_probs() -> TokenLogProbs {
    TokenLogProbs::new(&matrix(&[&[-1.0, -2.0]]), &bits(&[&[1, 1]])).unwrap()
}

#[test]
fn settings_out_of_range() {
    let logits = zeros(&[1, 2, 3], DType::F64);
    let of = |config: &DivergenceConfig| divergence(&logits, &logits, &bits(&[&[1, 1]]), config);
    let plain = DivergenceConfig::default();
    let config = DivergenceConfig {
        temperature: 0.0,
        ..plain.clone()
    };
    says(
        of(&config),
        "divergence: `temperature` must be finite and > 0, got 0",
    );
    for (weight, text) in [(0.0, "0"), (1.0, "1"), (f64::NAN, "NaN"), (-0.5, "-0.5")] {
        let config = DivergenceConfig {
            direction: Direction::JensenShannon { weight },
            ..plain.clone()
        };
        says(
            of(&config),
            &format!(
                "divergence: `direction.weight` must be in (0, 1); its ends are the directions \
                 forward and reverse, got {text}"
            ),
        );
    }
    let config = DivergenceConfig {
        top_k: Some(TopK {
            k: 0,
            of: ChosenBy::Teacher,
        }),
        ..plain
    };
    says(of(&config), "divergence: `top_k.k` must be >= 1, got 0");

    let teacher = matrix(&[&[-1.0, -2.0]]);
    let config = ReverseKlConfig {
        discount: 1.5,
        ..Default::default()
    };
    says(
        reverse_kl_advantages(&log_probs(), &teacher, &config),
        "reverse_kl_advantages: `discount` must be in [0, 1], got 1.5",
    );
    let mask = bits(&[&[1, 1]]);
    for (gamma, shown) in [(-0.1, "-0.1"), (f64::NAN, "NaN")] {
        says(
            iw_opd_weights(&teacher, &mask, &IwOpdConfig { gamma }),
            &format!("iw_opd_weights: `gamma` must be finite and >= 0, got {shown}"),
        );
    }
    says(
        iw_opd_weights(&teacher, &bits(&[&[1]]), &IwOpdConfig::default()),
        "iw_opd_weights: `mask` has shape [1, 1], expected [batch=1 (from `advantages`), time=2 (from `advantages`)]",
    );
    says(
        teacher_mixed_weights(&log_probs(), &teacher, 1.0),
        "teacher_mixed_weights: `alpha` must be in [0, 1), got 1",
    );
    says(
        teacher_mixed_log_probs(&teacher, &teacher, -0.1),
        "teacher_mixed_log_probs: `alpha` must be in [0, 1), got -0.1",
    );
    let of = |config| eaft_loss(&log_probs(), &logits, &config);
    let plain = EaftConfig::default();
    let (k, scale, power) = (plain.k, plain.scale, plain.power);
    says(
        of(EaftConfig { k: 0, ..plain }),
        "eaft_loss: `k` must be >= 1, got 0",
    );
    says(
        of(EaftConfig {
            k,
            scale: 0.0,
            power,
        }),
        "eaft_loss: `scale` must be finite and > 0, got 0",
    );
    says(
        of(EaftConfig {
            k,
            scale,
            power: -1.0,
        }),
        "eaft_loss: `power` must be finite and > 0, got -1",
    );
}

#[test]
fn models_that_do_not_fit() {
    let config = DivergenceConfig::default();
    let logits = zeros(&[1, 2, 3], DType::F32);
    let mask = bits(&[&[1, 1]]);
    says(
        divergence(&logits, &zeros(&[1, 2, 4], DType::F32), &mask, &config),
        "divergence: `teacher` has shape [1, 2, 4], expected [batch=1 (from `student`), time=2 (from \
         `student`), vocabulary=3 (from `student`)]",
    );
    says(
        divergence(&logits, &zeros(&[1, 2, 3], DType::F64), &mask, &config),
        "divergence: `teacher` is f64, expected f32, bf16 or f16 (from `student`)",
    );
    says(
        divergence(&zeros(&[1, 2, 3], DType::F64), &logits, &mask, &config),
        "divergence: `teacher` is f32, expected f64 (from `student`)",
    );
    says(
        divergence(&zeros(&[1, 2, 3], DType::U32), &logits, &mask, &config),
        "divergence: `student` is u32, expected f32, f64, bf16 or f16",
    );
    says(
        divergence(
            &zeros(&[1, 2, 0], DType::F32),
            &zeros(&[1, 2, 0], DType::F32),
            &mask,
            &config,
        ),
        "divergence: `student` has a vocabulary of 0",
    );
    says(
        gkd_loss(
            &zeros(&[1, 1, 3], DType::F32),
            &zeros(&[1, 1, 3], DType::F32),
            &bits(&[&[1]]),
            &config,
        ),
        "gkd_loss: `mask` has 1 position(s); the first predicts the second, so two are needed",
    );
    let head =
        |vocabulary, dim| OutputHead::new(&zeros(&[vocabulary, dim], DType::F32), None).unwrap();
    let hidden = |dim| zeros(&[1, 2, dim], DType::F32);
    says(
        divergence_from_hidden(
            (&hidden(2), &head(5, 2)),
            (&hidden(3), &head(6, 3)),
            &mask,
            &config,
        ),
        "divergence_from_hidden: `teacher.head` has shape [6, 3], expected [vocabulary=5 (from \
         `student.head`), teacher dim=3 (from `teacher.hidden`)]",
    );
    says(
        divergence_from_hidden(
            (&hidden(2), &head(5, 3)),
            (&hidden(3), &head(5, 3)),
            &mask,
            &config,
        ),
        "divergence_from_hidden: `student.head` has shape [5, 3], expected [vocabulary, dim=2 (from \
         `student.hidden`)]",
    );
}

#[test]
fn tokens_that_do_not_fit() {
    let single_step = TokenLoss {
        loss: matrix(&[&[0.0]]),
        mask: bits(&[&[1]]),
    };
    says(
        minillm_loss(&log_probs(), &single_step, &matrix(&[&[0.0, 0.0]]), None),
        "minillm_loss: `single_step.loss` has shape [1, 1], expected [batch=1 (from `policy`), time=2 \
         (from `policy`)]",
    );
    says(
        eaft_loss(
            &log_probs(),
            &zeros(&[1, 5, 3], DType::F64),
            &EaftConfig::default(),
        ),
        "eaft_loss: `logits` has shape [1, 5, 3], expected [batch=1 (from `log_probs`), time=2 (from \
         `log_probs`), vocabulary]",
    );
}

#[test]
fn settings_are_read_from_their_names_alone() {
    let config: DivergenceConfig = serde_json::from_str(
        r#"{"direction": {"jensen_shannon": {"weight": 0.1}}, "top_k": {"k": 8, "of": "either"}}"#,
    )
    .unwrap();
    let want = DivergenceConfig {
        direction: Direction::JensenShannon { weight: 0.1 },
        temperature: 1.0,
        top_k: Some(TopK {
            k: 8,
            of: ChosenBy::Either,
        }),
    };
    assert_eq!(config, want);
    let reverse: DivergenceConfig = serde_json::from_str(r#"{"direction": "reverse"}"#).unwrap();
    assert_eq!(reverse.direction, Direction::Reverse);
    for text in [
        r#"{"beta": 0.5}"#,
        r#"{"direction": {"jensen_shannon": {"beta": 0.5}}}"#,
        r#"{"top_k": {"k": 8, "of": "either", "tail": false}}"#,
    ] {
        let error = serde_json::from_str::<DivergenceConfig>(text).unwrap_err();
        assert!(error.to_string().starts_with("unknown field"), "{error}");
    }
}
