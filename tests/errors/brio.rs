use crate::common::{bits, matrix};
use candle_align::ranking::ReferenceTokens;
use candle_align::ranking::brio::BrioPairs;
use candle_align::{BrioConfig, Candidates, TokenLoss, brio_loss};
use candle_core::{DType, Tensor};

fn candidates() -> Candidates {
    let x = matrix(&[&[-1.0, -2.0], &[-1.0, -2.0]]);
    Candidates::new(&x, &x.ones_like().unwrap(), &x, None).unwrap()
}

#[track_caller]
fn message(loss: &Tensor, mask: &Tensor, config: &BrioConfig) -> String {
    let reference = TokenLoss {
        loss: loss.clone(),
        mask: mask.clone(),
    };
    match brio_loss(&candidates(), Some(&reference), config) {
        Ok(_) => panic!("no error"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn settings() {
    type Set = fn(&mut BrioConfig, f64);
    let fields: [(&str, Set); 3] = [
        ("margin", |c, x| c.margin = x),
        ("rank_weight", |c, x| c.rank_weight = x),
        ("length_power", |c, x| c.length_power = x),
    ];
    for (field, set) in fields {
        for (value, found) in [(-0.5, "-0.5"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
            let mut config = BrioConfig::default();
            set(&mut config, value);
            let error = brio_loss(&candidates(), None, &config).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("brio_loss: `{field}` must be finite and >= 0, got {found}")
            );
        }
        let mut config = BrioConfig::default();
        set(&mut config, 0.0);
        assert!(brio_loss(&candidates(), None, &config).is_ok());
    }
}

#[test]
fn the_reference_answers() {
    let config = BrioConfig::default();
    let (loss, mask) = (
        matrix(&[&[0.5, 1.0], &[0.5, 1.0]]),
        bits(&[&[1, 1], &[1, 0]]),
    );
    assert_eq!(
        message(&matrix(&[&[0.5, 1.0]]), &mask, &config),
        "brio_loss: `reference.loss` has shape [1, 2], expected [batch=2 (from `candidates`), time]"
    );
    assert_eq!(
        message(&loss.to_dtype(DType::F32).unwrap(), &mask, &config),
        "brio_loss: `reference.loss` is f32, expected f64 (from `candidates`)"
    );
    assert_eq!(
        message(&loss, &bits(&[&[1], &[1]]), &config),
        "brio_loss: `reference.mask` has shape [2, 1], expected [batch=2 (from `candidates`), time=2 (from `reference.loss`)]"
    );
    assert_eq!(
        message(&loss, &loss, &config),
        "brio_loss: `reference.mask` is f64, expected u8"
    );
}

#[test]
fn the_configuration_as_json() {
    let config: BrioConfig = serde_json::from_str("{}").unwrap();
    assert_eq!(config, BrioConfig::default());
    let text = r#"{"pairs":"mean_per_distance","reference":"mean","length_power":0.6}"#;
    let config: BrioConfig = serde_json::from_str(text).unwrap();
    let want = BrioConfig {
        pairs: BrioPairs::MeanPerDistance,
        reference: ReferenceTokens::Mean,
        length_power: 0.6,
        ..Default::default()
    };
    assert_eq!(config, want);
    let error = serde_json::from_str::<BrioConfig>(r#"{"lambda":1.0}"#).unwrap_err();
    assert!(
        error.to_string().starts_with("unknown field `lambda`"),
        "{error}"
    );
}
