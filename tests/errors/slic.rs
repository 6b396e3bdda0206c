use crate::common::lists::pair;
use crate::common::{bits, matrix, vector};
use candle_align::{
    Candidates, Pair, SlicConfig, slic_kl_regularizer, slic_list_loss, slic_margin_loss,
    slic_rank_loss,
};
use candle_core::{DType, Device, Tensor};

fn good() -> Pair<Tensor> {
    pair(&[-1.0, -2.0], &[-2.0, -3.0])
}

#[track_caller]
fn message<T>(result: candle_align::Result<T>) -> String {
    match result {
        Ok(_) => panic!("no error"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn delta() {
    let x = matrix(&[&[-1.0, -2.0]]);
    let c = Candidates::new(&x, &matrix(&[&[1.0, 1.0]]), &x, None).unwrap();
    for (delta, found) in [(-0.5, "-0.5"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let config = SlicConfig { delta };
        let tail = format!("`delta` must be finite and >= 0, got {found}");
        assert_eq!(
            message(slic_rank_loss(&good(), &config)),
            format!("slic_rank_loss: {tail}")
        );
        assert_eq!(
            message(slic_margin_loss(&good(), &good(), &config)),
            format!("slic_margin_loss: {tail}")
        );
        assert_eq!(
            message(slic_list_loss(&c, &config)),
            format!("slic_list_loss: {tail}")
        );
    }
}

#[test]
fn the_configuration_as_json() {
    let config: SlicConfig = serde_json::from_str("{}").unwrap();
    assert_eq!(config, SlicConfig { delta: 1.0 });
    assert!(serde_json::from_str::<SlicConfig>(r#"{"beta":1.0}"#).is_err());
}

#[test]
fn rank_shapes_and_types() {
    let config = SlicConfig::default();
    let matrix_pair = Pair {
        chosen: matrix(&[&[-1.0]]),
        rejected: matrix(&[&[-1.0]]),
    };
    assert_eq!(
        message(slic_rank_loss(&matrix_pair, &config)),
        "slic_rank_loss: `policy.chosen` has shape [1, 1], expected [batch]"
    );
    assert_eq!(
        message(slic_rank_loss(&pair(&[-1.0, -2.0], &[-1.0]), &config)),
        "slic_rank_loss: `policy.rejected` has shape [1], expected [batch=2 (from `policy.chosen`)]"
    );
    let mixed = Pair {
        chosen: vector(&[-1.0]),
        rejected: Tensor::new(&[-1.0f32], &Device::Cpu).unwrap(),
    };
    assert_eq!(
        message(slic_rank_loss(&mixed, &config)),
        "slic_rank_loss: `policy.rejected` is f32, expected f64 (from `policy.chosen`)"
    );
}

#[test]
fn margin_shapes() {
    let config = SlicConfig::default();
    assert_eq!(
        message(slic_margin_loss(&good(), &pair(&[1.0], &[0.0]), &config)),
        "slic_margin_loss: `similarity.chosen` has shape [1], expected [batch=2 (from `policy.chosen`)]"
    );
    assert_eq!(
        message(slic_margin_loss(
            &good(),
            &pair(&[1.0, 1.0], &[0.0]),
            &config
        )),
        "slic_margin_loss: `similarity.rejected` has shape [1], expected [batch=2 (from `policy.chosen`)]"
    );
}

#[test]
fn kl_shapes_and_types() {
    let logits =
        |shape: (usize, usize, usize), dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    let mask = bits(&[&[1, 1, 0]]);
    let policy = logits((1, 3, 5), DType::F64);
    assert_eq!(
        message(slic_kl_regularizer(&matrix(&[&[0.0, 1.0]]), &policy, &mask)),
        "slic_kl_regularizer: `policy_logits` has shape [1, 2], expected [batch, time, vocabulary]"
    );
    assert_eq!(
        message(slic_kl_regularizer(
            &policy,
            &logits((1, 3, 4), DType::F64),
            &mask
        )),
        "slic_kl_regularizer: `reference_logits` has shape [1, 3, 4], expected [batch=1 (from `policy_logits`), time=3 (from `policy_logits`), vocabulary=5 (from `policy_logits`)]"
    );
    assert_eq!(
        message(slic_kl_regularizer(&policy, &policy, &bits(&[&[1, 1]]))),
        "slic_kl_regularizer: `mask` has shape [1, 2], expected [batch=1 (from `policy_logits`), time=3 (from `policy_logits`)]"
    );
    // half precision is raised to single, never beside double
    assert_eq!(
        message(slic_kl_regularizer(
            &policy,
            &logits((1, 3, 5), DType::BF16),
            &mask
        )),
        "slic_kl_regularizer: `reference_logits` is bf16, expected f64 (from `policy_logits`)"
    );
    assert_eq!(
        message(slic_kl_regularizer(
            &logits((1, 3, 5), DType::U32),
            &policy,
            &mask
        )),
        "slic_kl_regularizer: `policy_logits` is u32, expected f32 or f64"
    );
    assert_eq!(
        message(slic_kl_regularizer(
            &policy,
            &policy,
            &matrix(&[&[1.0, 1.0, 0.0]])
        )),
        "slic_kl_regularizer: `mask` is f64, expected u8"
    );
}
