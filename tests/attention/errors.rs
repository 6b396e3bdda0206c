//! Every message, word for word, and every empty axis.

use super::case::Case;
use candle_align::ops::{AttentionConfig, Segments, attention, attention_with_prefix};
use candle_core::{DType, Device, Tensor};

fn zeros(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::zeros(shape, dtype, &Device::Cpu).unwrap()
}

#[test]
fn arguments_that_do_not_fit_are_named() {
    let x = |shape: &[usize]| zeros(shape, DType::F32);
    let segments = Segments::from_lengths(&[2, 3]).unwrap();
    let plain = AttentionConfig::default();
    let error = |q: &Tensor, k: &Tensor, v: &Tensor, config: &AttentionConfig| {
        attention(q, k, v, &segments, config)
            .unwrap_err()
            .to_string()
    };
    let (q, k, v) = (x(&[5, 4, 8]), x(&[5, 2, 8]), x(&[5, 2, 6]));
    assert!(attention(&q, &k, &v, &segments, &plain).is_ok());
    assert_eq!(
        error(&x(&[6, 4, 8]), &k, &v, &plain),
        "attention: `q` has shape [6, 4, 8], expected [tokens=5 (from `segments`), heads, dim]"
    );
    assert_eq!(
        error(&x(&[5, 4]), &k, &v, &plain),
        "attention: `q` has shape [5, 4], expected [tokens, heads, dim]"
    );
    assert_eq!(
        error(&q, &x(&[5, 2, 7]), &v, &plain),
        "attention: `k` has shape [5, 2, 7], expected [tokens=5 (from `q`), kv_heads, dim=8 (from `q`)]"
    );
    assert_eq!(
        error(&q, &k, &x(&[5, 4, 6]), &plain),
        "attention: `v` has shape [5, 4, 6], expected [tokens=5 (from `q`), kv_heads=2 (from `k`), value_dim]"
    );
    assert_eq!(
        error(&q, &x(&[5, 3, 8]), &x(&[5, 3, 8]), &plain),
        "attention: `k` has 3 heads, which do not divide the 4 of `q`"
    );
    assert_eq!(
        error(&q, &x(&[5, 0, 8]), &x(&[5, 0, 8]), &plain),
        "attention: `k` has 0 heads, which do not divide the 4 of `q`"
    );
    assert_eq!(
        error(&x(&[5, 4, 0]), &x(&[5, 2, 0]), &v, &plain),
        "attention: `q` has heads of width 0"
    );
    assert_eq!(
        error(&zeros(&[5, 4, 8], DType::U32), &k, &v, &plain),
        "attention: `q` is u32, expected f32, f64, bf16 or f16"
    );
    assert_eq!(
        error(&q, &k, &zeros(&[5, 2, 6], DType::BF16), &plain),
        "attention: `v` is bf16, expected f32 (from `q`)"
    );
    assert_eq!(
        error(&q, &zeros(&[5, 2, 8], DType::F64), &v, &plain),
        "attention: `k` is f64, expected f32 (from `q`)"
    );
    assert_eq!(
        error(
            &q,
            &k,
            &v,
            &AttentionConfig {
                window: Some(0),
                ..plain
            }
        ),
        "attention: `window` must be >= 1, got 0"
    );
    assert_eq!(
        error(
            &q,
            &k,
            &v,
            &AttentionConfig {
                scale: Some(f64::NAN),
                ..plain
            }
        ),
        "attention: `scale` must be finite, got NaN"
    );
    for cap in [0.0, -1.0, f64::INFINITY, f64::NAN] {
        let softcap = AttentionConfig {
            softcap: Some(cap),
            ..plain
        };
        assert_eq!(
            error(&q, &k, &v, &softcap),
            format!("attention: `softcap` must be finite and > 0, got {cap}")
        );
    }
}

#[test]
fn prefixes_that_do_not_fit_are_named() {
    let x = |shape: &[usize]| zeros(shape, DType::F32);
    let segments = Segments::from_lengths(&[2, 3]).unwrap();
    let error = |prefix_k: &Tensor, prefix_v: &Tensor| {
        let (q, k, v) = (x(&[5, 4, 8]), x(&[5, 2, 8]), x(&[5, 2, 6]));
        let prefix = (prefix_k, prefix_v);
        let result =
            attention_with_prefix(&q, &k, &v, prefix, &segments, &AttentionConfig::default());
        result.unwrap_err().to_string()
    };
    let name = "attention_with_prefix";
    assert_eq!(
        error(&x(&[3, 4, 8]), &x(&[3, 2, 6])),
        format!(
            "{name}: `prefix_k` has shape [3, 4, 8], expected [prefix, kv_heads=2 (from `k`), dim=8 (from `q`)]"
        )
    );
    assert_eq!(
        error(&x(&[3, 2, 8]), &x(&[4, 2, 6])),
        format!(
            "{name}: `prefix_v` has shape [4, 2, 6], expected [prefix=3 (from `prefix_k`), kv_heads=2 (from `k`), \
             value_dim=6 (from `v`)]"
        )
    );
    assert_eq!(
        error(&x(&[3, 3, 2, 8]), &x(&[3, 3, 2, 6])),
        format!(
            "{name}: `prefix_k` has shape [3, 3, 2, 8], expected [trees=2 (from `segments`), prefix, kv_heads, dim]"
        )
    );
    assert_eq!(
        error(&x(&[3, 2, 8]), &zeros(&[3, 2, 6], DType::F16)),
        format!("{name}: `prefix_v` is f16, expected f32 (from `q`)")
    );
}

#[test]
fn layouts_that_make_no_sense_are_named() {
    let message = |result: candle_align::Result<Segments>| result.unwrap_err().to_string();
    assert_eq!(
        message(Segments::new(&[1, 2], &[None])),
        "Segments::new: `parents` has 1 entries for 2 lengths"
    );
    assert_eq!(
        message(Segments::new(&[1, 2], &[None, Some(1)])),
        "Segments::new: `parents` names segment 1 before segment 1; a parent is earlier"
    );
    assert_eq!(
        message(Segments::from_prompts(&[1, 2], &[vec![3]])),
        "Segments::from_prompts: `answers` has 1 lists for 2 prompts"
    );
    for lengths in [vec![u32::MAX as usize], vec![usize::MAX, 2]] {
        assert_eq!(
            message(Segments::from_lengths(&lengths)),
            "Segments::from_lengths: `lengths` holds more tokens than fit in u32"
        );
    }
    let error = Segments::from_lengths(&[2])
        .unwrap()
        .to_rows(&zeros(&[3, 1], DType::F32))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Segments::to_rows: `flat` has shape [3, 1], expected [tokens=2 (from `self`), …]"
    );
    let scalar = Segments::from_lengths(&[])
        .unwrap()
        .to_rows(&zeros(&[], DType::F32));
    assert!(scalar.is_err());
}

#[test]
fn an_empty_axis_is_a_result() {
    let none: [&[usize]; 4] = [&[], &[0], &[0, 0], &[0, 0, 0]];
    for (lengths, prefix) in none.iter().flat_map(|lengths| [(lengths, 0), (lengths, 2)]) {
        let parents = vec![None; lengths.len()];
        let case = Case {
            prefix,
            ..Case::new(lengths, &parents)
        };
        let vars = case.vars(&case.numbers(0), DType::F32);
        let x: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let out = case.ours(&x).unwrap();
        assert_eq!(out.dims(), [0, 2, 2]);
        out.sum_all().unwrap().backward().unwrap();
    }
    // no heads, no width of values, no prefix, one token
    let segments = Segments::from_lengths(&[1]).unwrap();
    let x = |shape: &[usize]| zeros(shape, DType::F32);
    let config = AttentionConfig::default();
    let out = attention(
        &x(&[1, 0, 3]),
        &x(&[1, 1, 3]),
        &x(&[1, 1, 3]),
        &segments,
        &config,
    )
    .unwrap();
    assert_eq!(out.dims(), [1, 0, 3]);
    let out = attention(
        &x(&[1, 2, 3]),
        &x(&[1, 1, 3]),
        &x(&[1, 1, 0]),
        &segments,
        &config,
    )
    .unwrap();
    assert_eq!(out.dims(), [1, 2, 0]);
    let (k, v) = (x(&[1, 1, 3]), x(&[1, 1, 4]));
    for prefix in [
        (x(&[0, 1, 3]), x(&[0, 1, 4])),
        (x(&[1, 0, 1, 3]), x(&[1, 0, 1, 4])),
    ] {
        let prefix = (&prefix.0, &prefix.1);
        let out =
            attention_with_prefix(&x(&[1, 2, 3]), &k, &v, prefix, &segments, &config).unwrap();
        assert_eq!(out.dims(), [1, 2, 4]);
    }
    // an empty view that starts past its memory
    let empty = x(&[4, 2, 3]).narrow(0, 4, 0).unwrap();
    let nothing = Segments::from_lengths(&[0]).unwrap();
    assert_eq!(
        attention(&empty, &empty, &empty, &nothing, &config)
            .unwrap()
            .dims(),
        [0, 2, 3]
    );
}
