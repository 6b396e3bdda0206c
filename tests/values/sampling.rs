use crate::common::draws::{SYMBOLS, history};
use crate::common::{EXACT, assert_close, matrix, numbers, vector};
use candle_align::{Result, Sample, Samples, SamplingConfig, Sequence, sample};
use candle_core::{DType, Device, Tensor};
use rand::{SeedableRng, rngs::StdRng};
use std::cell::RefCell;

/// Logits of the probabilities 0.1, 0.2, 0.3, 0.4.
fn tenths() -> Tensor {
    matrix(&[&[1.0f64, 2.0, 3.0, 4.0].map(f64::ln)])
}

fn probabilities(config: &SamplingConfig, logits: &Tensor) -> Vec<f64> {
    numbers(&config.probabilities(logits).unwrap())
}

/// A model that says these logits whatever it reads.
fn always(logits: Vec<f64>) -> impl Fn(&Tensor) -> Result<Tensor> {
    move |tokens| {
        let (batch, time) = tokens.dims2()?;
        Ok(vector(&logits).broadcast_as((batch, time, logits.len()))?)
    }
}

/// A model of five symbols to which token + 1, round and round, is the only one that can follow.
fn next_one(tokens: &Tensor) -> Result<Tensor> {
    let read = tokens.flatten_all()?.to_vec1::<u32>()?;
    let mut logits = vec![f64::NEG_INFINITY; 5 * read.len()];
    for (at, token) in read.iter().enumerate() {
        logits[5 * at + (*token as usize + 1) % 5] = 0.0;
    }
    let (batch, time) = tokens.dims2()?;
    Ok(Tensor::from_vec(logits, (batch, time, 5), &Device::Cpu)?)
}

fn drawn(prompts: &[&[u32]], config: &SamplingConfig) -> Samples {
    let mut rng = StdRng::seed_from_u64(3);
    sample(next_one, prompts, config, &Device::Cpu, &mut rng).unwrap()
}

#[test]
fn temperature_is_a_power_of_the_probabilities() {
    let at = |temperature| {
        let config = SamplingConfig {
            temperature,
            ..Default::default()
        };
        probabilities(&config, &tenths())
    };
    assert_close(&at(1.0), &[0.1, 0.2, 0.3, 0.4], EXACT, "λ = 1");
    let squares = [1.0, 4.0, 9.0, 16.0].map(|x| x / 30.0);
    assert_close(&at(0.5), &squares, EXACT, "λ = ½");
    let roots = [1.0f64, 2.0, 3.0, 4.0].map(f64::sqrt);
    let total: f64 = roots.iter().sum();
    assert_close(&at(2.0), &roots.map(|x| x / total), EXACT, "λ = 2");
    // neither end overflows, though log 4 / 1e-320 would
    assert_eq!(at(1e-320), [0.0, 0.0, 0.0, 1.0]);
    assert_close(&at(1e300), &[0.25; 4], EXACT, "λ → ∞");
}

#[test]
fn top_k_keeps_the_likeliest() {
    let at = |k, logits: &Tensor| {
        let config = SamplingConfig {
            top_k: Some(k),
            ..Default::default()
        };
        probabilities(&config, logits)
    };
    let ninths = [0.0, 2.0, 3.0, 4.0].map(|x| x / 9.0);
    assert_close(&at(3, &tenths()), &ninths, EXACT, "k = 3");
    assert_eq!(at(1, &tenths()), [0.0, 0.0, 0.0, 1.0]);
    for k in [4, 5, usize::MAX] {
        assert_close(&at(k, &tenths()), &[0.1, 0.2, 0.3, 0.4], EXACT, "all");
    }
    // exactly k of those that tie, the lowest numbers; and the order of the logits does not matter
    let tied = matrix(&[&[0.0, 3.0, 0.0, 0.0], &[2.0, 2.0, 2.0, 2.0]]);
    let e = 3f64.exp();
    let want = [1.0 / (e + 1.0), e / (e + 1.0), 0.0, 0.0, 0.5, 0.5, 0.0, 0.0];
    assert_close(&at(2, &tied), &want, EXACT, "ties");
}

#[test]
fn top_p_keeps_the_fewest_that_hold_the_share() {
    let at = |top_p, logits: &Tensor| {
        let config = SamplingConfig {
            top_p,
            ..Default::default()
        };
        probabilities(&config, logits)
    };
    let sevenths = [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0];
    // 0.4 is too little, 0.4 + 0.3 is enough
    assert_close(&at(0.41, &tenths()), &sevenths, EXACT, "0.41");
    assert_close(&at(0.69, &tenths()), &sevenths, EXACT, "0.69");
    assert_eq!(at(0.39, &tenths()), [0.0, 0.0, 0.0, 1.0]);
    assert_eq!(at(1e-9, &tenths()), [0.0, 0.0, 0.0, 1.0]);
    let ninths = [0.0, 2.0, 3.0, 4.0].map(|x| x / 9.0);
    assert_close(&at(0.71, &tenths()), &ninths, EXACT, "0.71");
    // exactly the share is enough; ties by their number
    let even = matrix(&[&[1.0; 4]]);
    assert_close(&at(0.5, &even), &[0.5, 0.5, 0.0, 0.0], EXACT, "½ of even");
    assert_close(
        &at(0.51, &even),
        &[1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0],
        EXACT,
        "more",
    );
    // logits whose exponential overflows
    let high = matrix(&[&[1e4, 1e4 + 2f64.ln(), 1e4 - 9.0]]);
    assert_close(
        &at(0.99, &high),
        &[1.0 / 3.0, 2.0 / 3.0, 0.0],
        1e-11,
        "high",
    );
    // at 1 not even the least is cut off, though all before it add up to 1 in f64
    for top_k in [None, Some(2)] {
        let config = SamplingConfig {
            top_k,
            ..Default::default()
        };
        let least = probabilities(&config, &matrix(&[&[0.0, -50.0]]))[1];
        assert_close(&[least * 50f64.exp()], &[1.0], EXACT, "the least");
    }
}

#[test]
fn temperature_then_top_k_then_top_p() {
    let at = |temperature, top_k, top_p| {
        let config = SamplingConfig {
            temperature,
            top_k,
            top_p,
            ..Default::default()
        };
        probabilities(&config, &tenths())
    };
    // squares over 30; of three over 29: 16/29 ≥ 0.54, where 16/30 would not be
    assert_eq!(at(0.5, Some(3), 0.54), [0.0, 0.0, 0.0, 1.0]);
    assert_close(
        &at(0.5, None, 0.54),
        &[0.0, 0.0, 9.0 / 25.0, 16.0 / 25.0],
        EXACT,
        "no k",
    );
    // roots: 2 / 6.15 < 0.35, where 0.4 would be enough
    let (three, four) = (3f64.sqrt(), 2.0);
    let want = [0.0, 0.0, three / (three + four), four / (three + four)];
    assert_close(&at(2.0, None, 0.35), &want, EXACT, "hot");
}

#[test]
fn a_token_at_minus_infinity_is_never_drawn() {
    let logits = matrix(&[&[0.0, f64::NEG_INFINITY, 2f64.ln()]]);
    let config = SamplingConfig::default();
    assert_close(
        &probabilities(&config, &logits),
        &[1.0 / 3.0, 0.0, 2.0 / 3.0],
        EXACT,
        "−∞",
    );
    let wide = SamplingConfig {
        temperature: 2.0,
        top_k: Some(3),
        top_p: 0.999,
        ..Default::default()
    };
    let root = 2f64.sqrt();
    let want = [1.0 / (1.0 + root), 0.0, root / (1.0 + root)];
    assert_close(&probabilities(&wide, &logits), &want, EXACT, "−∞, cut");
}

#[test]
fn narrower_types_are_read_as_they_are() {
    let config = SamplingConfig::default();
    let logits = matrix(&[&[0.5, -1.25, 2.0], &[1.0, 0.0, -3.5]]);
    let want = probabilities(&config, &logits);
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let out = config
            .probabilities(&logits.to_dtype(dtype).unwrap())
            .unwrap();
        assert_eq!((out.dims(), out.dtype()), (&[2, 3][..], DType::F64));
        assert_close(&numbers(&out), &want, EXACT, dtype.as_str());
    }
    let nothing = Tensor::zeros((0, 3), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(config.probabilities(&nothing).unwrap().dims(), [0, 3]);
}

#[test]
fn the_numbers_of_what_was_drawn() {
    let config = SamplingConfig {
        temperature: 0.5,
        top_k: Some(3),
        max_new_tokens: 40,
        ..Default::default()
    };
    let model = always([1.0f64, 2.0, 3.0, 4.0].map(f64::ln).to_vec());
    let mut rng = StdRng::seed_from_u64(1);
    let out = sample(model, &[[9u32, 8]], &config, &Device::Cpu, &mut rng).unwrap();
    let row = &out.rows[0];
    assert_eq!(row.answer().len(), 40);
    assert_eq!(row.sequence.tokens()[..2], [9, 8]);
    assert_eq!(row.answer(), &row.sequence.tokens()[2..]);
    for (at, &token) in row.answer().iter().enumerate() {
        let p = f64::from(token + 1) / 10.0;
        let q = f64::from((token + 1) * (token + 1)) / 29.0;
        assert!(token > 0, "cut off by top-k");
        assert_close(&[row.log_probs[at]], &[p.ln()], EXACT, "log p");
        assert_close(&[row.proposal_log_probs[at]], &[q.ln()], EXACT, "log q");
    }
    let seen = |token| row.answer().contains(&token);
    assert!(seen(1) && seen(2) && seen(3), "{:?}", row.answer());
}

#[test]
fn an_answer_ends_with_its_end_or_is_cut_off() {
    let config = SamplingConfig {
        max_new_tokens: 3,
        ends: vec![4],
        ..Default::default()
    };
    let out = drawn(&[&[2], &[0, 3], &[0], &[4, 1]], &config);
    let answers: Vec<&[u32]> = out.rows.iter().map(Sample::answer).collect();
    // an end in the prompt ends nothing
    assert_eq!(answers, [&[3, 4][..], &[4], &[1, 2, 3], &[2, 3, 4]]);
    let ended: Vec<bool> = out.rows.iter().map(|row| row.ended).collect();
    assert_eq!(ended, [true, true, false, true]);
    assert_eq!(
        out.rows[1].sequence,
        Sequence::new().given(&[0, 3]).learned(&[4]),
        "the end is learned"
    );
    assert_eq!(out.rows[2].log_probs, [0.0; 3]);

    // any of several ends
    let several = SamplingConfig {
        ends: vec![4, 2],
        ..config.clone()
    };
    let out = drawn(&[&[2], &[0]], &several);
    let answers: Vec<&[u32]> = out.rows.iter().map(Sample::answer).collect();
    assert_eq!(answers, [&[3, 4][..], &[1, 2]]);
    assert!(out.rows.iter().all(|row| row.ended));

    let endless = SamplingConfig {
        max_new_tokens: 7,
        ends: Vec::new(),
        ..config
    };
    let out = drawn(&[&[2]], &endless);
    assert_eq!(out.rows[0].answer(), [3, 4, 0, 1, 2, 3, 4]);
    assert!(!out.rows[0].ended);
}

#[test]
fn the_model_sees_the_rows_that_go_on_padded_on_the_right() {
    let calls = RefCell::new(Vec::new());
    let model = |tokens: &Tensor| {
        calls.borrow_mut().push(tokens.to_vec2::<u32>()?);
        next_one(tokens)
    };
    let config = SamplingConfig {
        ends: vec![4],
        ..Default::default()
    };
    let mut rng = StdRng::seed_from_u64(0);
    let prompts: [&[u32]; 3] = [&[1, 2], &[3], &[3, 0, 1]];
    sample(model, &prompts, &config, &Device::Cpu, &mut rng).unwrap();
    assert_eq!(
        calls.into_inner(),
        [
            vec![vec![1, 2, 0], vec![3, 0, 0], vec![3, 0, 1]],
            vec![vec![1, 2, 3, 0], vec![3, 0, 1, 2]],
            vec![vec![3, 0, 1, 2, 3]],
        ]
    );
}

#[test]
fn answers_to_one_prompt_stand_side_by_side() {
    let config = SamplingConfig {
        answers: 3,
        max_new_tokens: 6,
        ..Default::default()
    };
    let mut rng = StdRng::seed_from_u64(2);
    let out = sample(history, &[[0u32], [1]], &config, &Device::Cpu, &mut rng).unwrap();
    let first: Vec<u32> = out
        .rows
        .iter()
        .map(|row| row.sequence.tokens()[0])
        .collect();
    assert_eq!(first, [0, 0, 0, 1, 1, 1]);
    let answers: std::collections::BTreeSet<&[u32]> = out.rows.iter().map(Sample::answer).collect();
    assert_eq!(answers.len(), 6, "six answers of their own: {answers:?}");
}

#[test]
fn one_candidate_is_greedy_decoding() {
    let config = SamplingConfig {
        top_k: Some(1),
        max_new_tokens: 9,
        ..Default::default()
    };
    let mut rng = StdRng::seed_from_u64(4);
    let out = sample(history, &[[2u32, 4]], &config, &Device::Cpu, &mut rng).unwrap();
    let mut tokens = vec![2u32, 4];
    for _ in 0..9 {
        let read = Tensor::new(tokens.as_slice(), &Device::Cpu)
            .unwrap()
            .unsqueeze(0)
            .unwrap();
        let logits = numbers(&history(&read).unwrap());
        let last = &logits[logits.len() - SYMBOLS..];
        let best = (0..SYMBOLS)
            .max_by(|&a, &b| last[a].total_cmp(&last[b]))
            .unwrap();
        tokens.push(best as u32);
    }
    assert_eq!(out.rows[0].sequence.tokens(), tokens);
    assert_eq!(out.rows[0].proposal_log_probs, [0.0; 9]);
    assert!(out.rows[0].log_probs.iter().all(|p| *p < -0.01));
}

#[test]
fn log_probabilities_stand_where_their_token_is_predicted() {
    let row = |given: &[u32], learned: &[u32], log_probs: &[f64]| Sample {
        sequence: Sequence::new().given(given).learned(learned),
        ended: false,
        log_probs: log_probs.to_vec(),
        proposal_log_probs: log_probs.to_vec(),
    };
    let out = Samples {
        rows: vec![
            row(&[5, 6, 7], &[1], &[-1.5]),
            row(&[5], &[1, 2], &[-0.5, -0.25]),
        ],
    };
    let values = out.log_probs(DType::F32, &Device::Cpu).unwrap();
    assert_eq!(values.values().dtype(), DType::F32);
    assert_eq!(numbers(values.values()), [0.0, 0.0, -1.5, -0.5, -0.25, 0.0]);
    assert_eq!(numbers(values.mask()), [0.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
    let batch = out.batch(9, &Device::Cpu).unwrap();
    assert_eq!(
        batch.tokens.to_vec2::<u32>().unwrap(),
        [[5, 6, 7, 1], [5, 1, 2, 9]]
    );
    assert_eq!(
        batch.mask.to_vec2::<u8>().unwrap(),
        [[0, 0, 0, 1], [0, 1, 1, 0]]
    );

    let chosen = out.select(&[1, 0, 1]).unwrap();
    let lengths: Vec<usize> = chosen.rows.iter().map(|row| row.answer().len()).collect();
    assert_eq!(lengths, [2, 1, 2]);
}

#[test]
fn a_row_of_ones_own_is_read_by_its_mask() {
    let row = |sequence: Sequence, log_probs: &[f64]| Sample {
        sequence,
        ended: false,
        log_probs: log_probs.to_vec(),
        proposal_log_probs: Vec::new(),
    };
    // what a tool returned stands in the middle of an answer; a row without a token; one without a prompt
    let tool = Sequence::new().given(&[5]).learned(&[1, 2]).given(&[8, 8]);
    let rows = vec![
        row(tool.learned(&[3]), &[-0.5, -0.25, -2.0]),
        row(Sequence::new(), &[]),
        row(Sequence::new().learned(&[6, 7]), &[-4.0]),
        row(Sequence::new().given(&[6, 7]), &[]),
    ];
    let answers: Vec<&[u32]> = rows.iter().map(Sample::answer).collect();
    assert_eq!(answers, [&[3][..], &[], &[6, 7], &[]]);
    let out = Samples { rows }
        .log_probs(DType::F64, &Device::Cpu)
        .unwrap();
    let want = [-0.5, -0.25, 0.0, 0.0, -2.0];
    assert_eq!(numbers(out.values())[..5], want);
    assert_eq!(numbers(out.mask())[..5], want.map(|p| f64::from(p != 0.0)));
    assert_eq!(numbers(out.values())[5..10], [0.0; 5]);
    assert_eq!(numbers(out.values())[10..15], [-4.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(numbers(out.mask())[5..].iter().sum::<f64>(), 1.0);
}

#[test]
fn no_prompts_are_no_answers() {
    let model = |_: &Tensor| -> Result<Tensor> { panic!("nobody to ask for") };
    let mut rng = StdRng::seed_from_u64(0);
    let none: [&[u32]; 0] = [];
    let out = sample(
        model,
        &none,
        &SamplingConfig::default(),
        &Device::Cpu,
        &mut rng,
    )
    .unwrap();
    assert!(out.rows.is_empty());
    let values = out.log_probs(DType::F64, &Device::Cpu).unwrap();
    assert_eq!(values.values().dims(), [0, 0]);
}
