use crate::common::{matrix, vector};
use candle_align::{Error, Result, Sample, Samples, SamplingConfig, Sequence, sample};
use candle_core::{DType, Device, Tensor};
use rand::{SeedableRng, rngs::StdRng};

fn message(
    model: impl FnMut(&Tensor) -> Result<Tensor>,
    prompts: &[&[u32]],
    config: &SamplingConfig,
) -> String {
    let mut rng = StdRng::seed_from_u64(0);
    let out = sample(model, prompts, config, &Device::Cpu, &mut rng);
    out.unwrap_err().to_string()
}

fn even(tokens: &Tensor) -> Result<Tensor> {
    let (batch, time) = tokens.dims2()?;
    Ok(Tensor::zeros((batch, time, 3), DType::F64, &Device::Cpu)?)
}

#[test]
fn settings_out_of_range() {
    let default = SamplingConfig::default;
    let mut wrong = vec![
        (
            SamplingConfig {
                answers: 0,
                ..default()
            },
            "`answers` must be at least 1, got 0",
        ),
        (
            SamplingConfig {
                top_k: Some(0),
                ..default()
            },
            "`top_k` must be at least 1, got 0",
        ),
        (
            SamplingConfig {
                max_new_tokens: 0,
                ..default()
            },
            "`max_new_tokens` must be at least 1, got 0",
        ),
    ];
    for (temperature, text) in [
        (0.0, "`temperature` must be finite and > 0, got 0"),
        (-1.0, "`temperature` must be finite and > 0, got -1"),
        (
            f64::INFINITY,
            "`temperature` must be finite and > 0, got inf",
        ),
        (f64::NAN, "`temperature` must be finite and > 0, got NaN"),
    ] {
        wrong.push((
            SamplingConfig {
                temperature,
                ..default()
            },
            text,
        ));
    }
    for (top_p, text) in [
        (0.0, "`top_p` must be in (0, 1], got 0"),
        (-0.5, "`top_p` must be in (0, 1], got -0.5"),
        (1.5, "`top_p` must be in (0, 1], got 1.5"),
        (f64::NAN, "`top_p` must be in (0, 1], got NaN"),
    ] {
        wrong.push((SamplingConfig { top_p, ..default() }, text));
    }
    let logits = matrix(&[&[0.0, 1.0]]);
    for (config, text) in wrong {
        assert_eq!(message(even, &[&[0]], &config), format!("sample: {text}"));
        assert_eq!(
            config.probabilities(&logits).unwrap_err().to_string(),
            format!("SamplingConfig::probabilities: {text}")
        );
    }
}

#[test]
fn a_prompt_without_tokens() {
    assert_eq!(
        message(even, &[&[0], &[]], &SamplingConfig::default()),
        "sample: `prompts[1]` is empty; the first token drawn is predicted by the last one given"
    );
}

/// Even logits, but `bad` for token 2 of the last row, and NaN where nothing is read.
fn spoilt(bad: f64) -> impl Fn(&Tensor) -> Result<Tensor> {
    move |tokens| {
        let (batch, time) = tokens.dims2()?;
        let mut logits = vec![0.0; batch * time * 3];
        *logits.last_mut().unwrap() = bad;
        if time > 1 {
            logits[0] = f64::NAN;
        }
        Ok(Tensor::from_vec(logits, (batch, time, 3), &Device::Cpu)?)
    }
}

#[test]
fn logits_that_make_no_distribution() {
    let config = SamplingConfig {
        answers: 2,
        max_new_tokens: 1,
        ..Default::default()
    };
    for (bad, text) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let want = format!("sample: `logits` holds {text} in row 3 for token 2");
        assert_eq!(message(spoilt(bad), &[&[0], &[1]], &config), want);
    }
    // of a prompt of two tokens the first position is not read
    let mut rng = StdRng::seed_from_u64(0);
    let fine = sample(spoilt(0.0), &[&[0u32, 1]], &config, &Device::Cpu, &mut rng);
    assert_eq!(fine.unwrap().rows.len(), 2);

    let nothing = |tokens: &Tensor| Ok((even(tokens)? + f64::NEG_INFINITY)?);
    assert_eq!(
        message(nothing, &[&[0]], &config),
        "sample: `logits` leaves no token to draw in row 0"
    );
    let logits = matrix(&[&[0.0, 1.0], &[f64::NAN, 1.0]]);
    assert_eq!(
        config.probabilities(&logits).unwrap_err().to_string(),
        "SamplingConfig::probabilities: `logits` holds NaN in row 1 for token 0"
    );
}

#[test]
fn a_row_is_named_by_its_place_in_the_result() {
    // 1 follows 3, 0 follows 4: the first two rows end, and what the third asks alone goes wrong
    let model = |tokens: &Tensor| {
        let (batch, time) = tokens.dims2()?;
        let only = |token: u32| match (batch, token) {
            (1, _) => [f64::NAN, 0.0],
            (_, 3) => [f64::NEG_INFINITY, 0.0],
            _ => [0.0, f64::NEG_INFINITY],
        };
        let tokens = tokens.flatten_all()?.to_vec1::<u32>()?;
        let logits: Vec<f64> = tokens.into_iter().flat_map(only).collect();
        Ok(Tensor::from_vec(logits, (batch, time, 2), &Device::Cpu)?)
    };
    let config = SamplingConfig {
        ends: vec![1],
        ..Default::default()
    };
    assert_eq!(
        message(model, &[&[3], &[3], &[4]], &config),
        "sample: `logits` holds NaN in row 2 for token 0"
    );
}

#[test]
fn logits_of_another_shape_or_type() {
    let config = SamplingConfig::default();
    let flat = |tokens: &Tensor| Ok(even(tokens)?.flatten(0, 1)?);
    assert_eq!(
        message(flat, &[&[0, 1], &[2]], &config),
        "sample: `logits` has shape [4, 3], expected [batch=2 (from `tokens`), time=2 (from `tokens`), vocabulary]"
    );
    let last = |tokens: &Tensor| Ok(even(tokens)?.narrow(1, 0, 1)?);
    assert_eq!(
        message(last, &[&[0, 1], &[2]], &config),
        "sample: `logits` has shape [2, 1, 3], expected [batch=2 (from `tokens`), time=2 (from `tokens`), vocabulary]"
    );
    let whole = |tokens: &Tensor| Ok(even(tokens)?.to_dtype(DType::U32)?);
    assert_eq!(
        message(whole, &[&[0]], &config),
        "sample: `logits` is u32, expected f32, f64, bf16 or f16"
    );
    let none = |tokens: &Tensor| Ok(even(tokens)?.narrow(2, 0, 0)?);
    assert_eq!(
        message(none, &[&[0]], &config),
        "sample: `logits` has a vocabulary of 0"
    );
    assert_eq!(
        config
            .probabilities(&vector(&[0.0]))
            .unwrap_err()
            .to_string(),
        "SamplingConfig::probabilities: `logits` has shape [1], expected [batch, vocabulary]"
    );
    let index = matrix(&[&[0.0]]).to_dtype(DType::U8).unwrap();
    assert_eq!(
        config.probabilities(&index).unwrap_err().to_string(),
        "SamplingConfig::probabilities: `logits` is u8, expected f32, f64, bf16 or f16"
    );
}

#[test]
fn an_error_of_the_model_is_passed_on() {
    let broken = |_: &Tensor| Err(Error::from(candle_core::Error::Msg("out of paper".into())));
    assert!(message(broken, &[&[0]], &SamplingConfig::default()).starts_with("out of paper"));
}

#[test]
fn rows_and_types_that_are_not_there() {
    let config = SamplingConfig {
        max_new_tokens: 2,
        ..Default::default()
    };
    let mut rng = StdRng::seed_from_u64(0);
    let out = sample(even, &[[0u32]], &config, &Device::Cpu, &mut rng).unwrap();
    assert_eq!(
        out.select(&[0, 1]).unwrap_err().to_string(),
        "Samples::select: `rows` holds 1, and there are 1"
    );
    assert_eq!(
        out.log_probs(DType::BF16, &Device::Cpu)
            .unwrap_err()
            .to_string(),
        "TokenLogProbs::new: `values` is bf16, expected f32 or f64"
    );
}

#[test]
fn a_misspelt_setting_is_refused() {
    let error = serde_json::from_str::<SamplingConfig>(r#"{"topp": 0.9}"#).unwrap_err();
    assert!(
        error.to_string().starts_with("unknown field `topp`"),
        "{error}"
    );
    let config: SamplingConfig = serde_json::from_str(r#"{"answers": 8, "top_k": 50}"#).unwrap();
    let want = SamplingConfig {
        answers: 8,
        top_k: Some(50),
        ..Default::default()
    };
    assert_eq!(config, want);
    let written = serde_json::to_string(&want).unwrap();
    assert_eq!(
        serde_json::from_str::<SamplingConfig>(&written).unwrap(),
        want
    );
}

#[test]
fn an_end_that_the_model_cannot_say() {
    let ending = |end| SamplingConfig {
        ends: vec![end],
        max_new_tokens: 2,
        ..Default::default()
    };
    for end in [3, u32::MAX] {
        assert_eq!(
            message(even, &[&[0]], &ending(end)),
            format!("sample: `ends` holds {end}, but the logits have a vocabulary of 3")
        );
    }
    let mut rng = StdRng::seed_from_u64(0);
    let out = sample(even, &[&[0u32]], &ending(2), &Device::Cpu, &mut rng);
    assert_eq!(out.unwrap().rows.len(), 1);
}

#[test]
fn log_probabilities_that_are_not_one_for_each_learned_token() {
    let row = |sequence: Sequence, log_probs: &[f64]| Sample {
        sequence,
        ended: false,
        log_probs: log_probs.to_vec(),
        proposal_log_probs: Vec::new(),
    };
    let message = |sequence: Sequence, log_probs: &[f64]| {
        let fine = row(Sequence::new().given(&[1]).learned(&[2]), &[-0.5]);
        let rows = vec![fine, row(sequence, log_probs)];
        let out = Samples { rows }.log_probs(DType::F64, &Device::Cpu);
        out.unwrap_err().to_string()
    };
    let problem = |held, learned| {
        format!(
            "Samples::log_probs: `rows[1].log_probs` holds {held}, but the sequence learns {learned} token(s) after its first"
        )
    };
    let answer = || Sequence::new().given(&[1]).learned(&[2, 3]);
    assert_eq!(message(answer(), &[-1.0; 9]), problem(9, 2));
    assert_eq!(message(answer(), &[-1.0]), problem(1, 2));
    // the first token of all is predicted by nothing
    let no_prompt = Sequence::new().learned(&[2, 3]);
    assert_eq!(message(no_prompt, &[-1.0; 2]), problem(2, 1));
    assert_eq!(message(Sequence::new(), &[-1.0]), problem(1, 0));
    let none = Samples {
        rows: vec![row(answer(), &[-1.0; 2])],
    };
    assert!(matches!(
        none.log_probs(DType::U8, &Device::Cpu),
        Err(Error::DType { .. })
    ));
}
