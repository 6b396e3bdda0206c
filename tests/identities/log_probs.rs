//! Hidden states and logits lead to the same log-probabilities, and to the same gradients.

use crate::common::{ALL_STATISTICS, assert_close, bits, numbers};
use candle_align::{OutputHead, Statistics, TokenLogProbs};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

/// Two orders of the same double-precision arithmetic.
const DOUBLE: f64 = 1e-11;

struct Case {
    hidden: Var,
    weight: Var,
    bias: Var,
    tokens: Tensor,
    mask: Tensor,
}

fn wave(shape: &[usize], step: f64) -> Var {
    let n: usize = shape.iter().product();
    let data: Vec<f64> = (0..n).map(|i| (i as f64 * step).sin() * 1.5).collect();
    Var::from_tensor(&Tensor::from_vec(data, shape, &Device::Cpu).unwrap()).unwrap()
}

fn case() -> Case {
    let (batch, time, dim, vocabulary) = (3, 30, 4, 7);
    let tokens: Vec<u32> = (0..batch * time)
        .map(|i| (i * 5 % vocabulary) as u32)
        .collect();
    let mut mask = vec![1u8; batch * time];
    for (i, m) in mask.iter_mut().enumerate() {
        *m = (i % 4 != 1) as u8;
    }
    Case {
        hidden: wave(&[batch, time, dim], 0.7),
        weight: wave(&[vocabulary, dim], 1.3),
        bias: wave(&[vocabulary], 2.1),
        tokens: Tensor::from_vec(tokens, (batch, time), &Device::Cpu).unwrap(),
        mask: Tensor::from_vec(mask, (batch, time), &Device::Cpu).unwrap(),
    }
}

/// Every column with weights of its own, so that no gradient can hide behind another.
fn mixed(out: &TokenLogProbs) -> Tensor {
    let mut total = Tensor::new(0f64, &Device::Cpu).unwrap();
    let columns = [
        Some(out.values()),
        out.entropy(),
        out.vocabulary_mean(),
        out.log_collision(),
    ];
    for (i, column) in columns.into_iter().flatten().enumerate() {
        let weights = wave(column.dims(), 0.3 + i as f64)
            .to_dtype(column.dtype())
            .unwrap();
        total = (total
            + (column * weights)
                .unwrap()
                .to_dtype(DType::F64)
                .unwrap()
                .sum_all()
                .unwrap())
        .unwrap();
    }
    total
}

fn gradients(loss: &Tensor, case: &Case) -> (GradStore, [Option<Vec<f64>>; 3]) {
    let grads = loss.backward().unwrap();
    let of = [&case.hidden, &case.weight, &case.bias].map(|v| grads.get(v).map(numbers));
    (grads, of)
}

/// The logits as ordinary operations make them.
fn logits(case: &Case, bias: bool, temperature: f64, cap: Option<f64>) -> Tensor {
    let mut logits = case
        .hidden
        .broadcast_matmul(&case.weight.t().unwrap())
        .unwrap();
    if bias {
        logits = logits.broadcast_add(&case.bias).unwrap();
    }
    if let Some(cap) = cap {
        logits = ((logits / cap).unwrap().tanh().unwrap() * cap).unwrap();
    }
    (logits / temperature).unwrap()
}

#[test]
fn hidden_states_and_logits_agree_in_values_and_gradients() {
    for (with_bias, temperature, cap, ask) in [
        (false, 1.0, None, Statistics::default()),
        (true, 1.0, None, Statistics::default()),
        (true, 0.7, Some(2.0), ALL_STATISTICS),
        (false, 1.9, None, ALL_STATISTICS),
        (true, 1.0, Some(0.8), Statistics::default()),
    ] {
        let case = case();
        let plain = logits(&case, with_bias, temperature, cap);
        let want = TokenLogProbs::next_token_with(&plain, &case.tokens, &case.mask, ask).unwrap();

        let bias = with_bias.then(|| case.bias.as_tensor());
        let mut head = OutputHead::new(&case.weight, bias)
            .unwrap()
            .with_temperature(temperature)
            .unwrap();
        if let Some(cap) = cap {
            head = head.with_soft_cap(cap).unwrap();
        }
        let got =
            TokenLogProbs::from_hidden(&case.hidden, &head, &case.tokens, &case.mask, ask).unwrap();
        assert_close(
            &numbers(got.values()),
            &numbers(want.values()),
            DOUBLE,
            "values",
        );
        assert_eq!(numbers(got.mask()), numbers(want.mask()));
        let (loss, expected) = (mixed(&got), mixed(&want));
        assert_close(&numbers(&loss), &numbers(&expected), DOUBLE, "all columns");
        let ((grads, got), (_, want)) = (gradients(&loss, &case), gradients(&expected, &case));
        // one with a history would hold the logits of its tiles
        let bias = grads.get(&case.bias);
        assert!(bias.is_none_or(|gradient| !gradient.track_op()));
        for (i, name) in ["hidden", "weight", "bias"].iter().enumerate() {
            if i == 2 && !with_bias {
                continue;
            }
            assert_close(
                got[i].as_ref().unwrap(),
                want[i].as_ref().unwrap(),
                DOUBLE,
                name,
            );
        }
    }
}

#[test]
fn a_frozen_matrix_gets_no_gradient_and_changes_no_other() {
    for ask in [Statistics::default(), ALL_STATISTICS] {
        let case = case();
        let plain = logits(&case, false, 1.0, None);
        let want = TokenLogProbs::next_token_with(&plain, &case.tokens, &case.mask, ask).unwrap();
        let frozen = case.weight.as_detached_tensor();
        let head = OutputHead::new(&frozen, None).unwrap();
        let got =
            TokenLogProbs::from_hidden(&case.hidden, &head, &case.tokens, &case.mask, ask).unwrap();
        let (_, want) = gradients(&mixed(&want), &case);
        let (grads, got) = gradients(&mixed(&got), &case);
        assert_close(
            got[0].as_ref().unwrap(),
            want[0].as_ref().unwrap(),
            DOUBLE,
            "hidden",
        );
        assert!(got[1].is_none() && grads.get(&frozen).is_none());
    }
}

#[test]
fn hidden_states_that_are_constant_train_the_matrix_alone() {
    let case = case();
    let hidden = case.hidden.as_detached_tensor();
    let head = OutputHead::new(&case.weight, Some(&case.bias.as_detached_tensor())).unwrap();
    let ask = Statistics::default();
    let got = TokenLogProbs::from_hidden(&hidden, &head, &case.tokens, &case.mask, ask).unwrap();
    let plain = logits(&case, true, 1.0, None);
    let want = TokenLogProbs::next_token_with(&plain, &case.tokens, &case.mask, ask).unwrap();
    let ((_, got), (_, want)) = (
        gradients(&mixed(&got), &case),
        gradients(&mixed(&want), &case),
    );
    assert!(got[0].is_none() && got[2].is_none());
    assert_close(
        got[1].as_ref().unwrap(),
        want[1].as_ref().unwrap(),
        DOUBLE,
        "weight",
    );

    // and with nothing to train there is no graph
    let frozen = OutputHead::new(&case.weight.as_detached_tensor(), None).unwrap();
    let out = TokenLogProbs::from_hidden(&hidden, &frozen, &case.tokens, &case.mask, ask).unwrap();
    assert!(!out.values().track_op());
}

#[test]
fn nothing_counted_and_nan_under_the_mask() {
    let case = case();
    let head = OutputHead::new(&case.weight, None).unwrap();
    let ask = Statistics::default();
    let none = case.mask.zeros_like().unwrap();
    let out = TokenLogProbs::from_hidden(&case.hidden, &head, &case.tokens, &none, ask).unwrap();
    assert!(numbers(out.values()).iter().all(|v| *v == 0.0));

    // hidden states of positions whose next token does not count may be anything
    let spoilt = Tensor::full(f64::NAN, (3, 1, 4), &Device::Cpu).unwrap();
    let hidden = Tensor::cat(&[case.hidden.as_tensor(), &spoilt], 1).unwrap();
    let hidden = Var::from_tensor(&hidden).unwrap();
    let tokens = Tensor::cat(&[&case.tokens, &case.tokens.narrow(1, 0, 1).unwrap()], 1).unwrap();
    let mask = Tensor::cat(&[&case.mask, &none.narrow(1, 0, 1).unwrap()], 1).unwrap();
    let out = TokenLogProbs::from_hidden(&hidden, &head, &tokens, &mask, ask).unwrap();
    let grads = out.sum().unwrap().sum_all().unwrap().backward().unwrap();
    assert!(
        numbers(grads.get(&hidden).unwrap())
            .iter()
            .all(|g| g.is_finite())
    );
    assert!(
        numbers(grads.get(&case.weight).unwrap())
            .iter()
            .all(|g| g.is_finite())
    );
}

#[test]
fn narrow_hidden_states_are_computed_in_single_precision() {
    let case = case();
    for dtype in [DType::BF16, DType::F16] {
        let narrow = |v: &Var| v.to_dtype(dtype).unwrap();
        let (hidden, weight) = (narrow(&case.hidden), narrow(&case.weight));
        let bias = narrow(&case.bias);
        let head = OutputHead::new(&weight, Some(&bias)).unwrap();
        let ask = Statistics::default();
        let got =
            TokenLogProbs::from_hidden(&hidden, &head, &case.tokens, &case.mask, ask).unwrap();
        assert_eq!(got.values().dtype(), DType::F32);
        let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
        let plain = wide(&hidden)
            .broadcast_matmul(&wide(&weight).t().unwrap())
            .and_then(|logits| logits.broadcast_add(&wide(&bias)))
            .unwrap();
        let want = TokenLogProbs::next_token(&plain, &case.tokens, &case.mask).unwrap();
        assert_close(
            &numbers(got.values()),
            &numbers(want.values()),
            1e-5,
            "values",
        );
        let grads = got.sum().unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&case.hidden).unwrap().dtype(), DType::F64);
        assert!(grads.get(&case.weight).is_some());
    }
}

#[test]
fn logits_of_any_layout_give_the_same() {
    // a view of a transposed and of a broadcast tensor
    let data = wave(&[5, 3, 2], 0.9);
    let tokens = Tensor::new(&[[0u32, 4, 2], [1, 1, 3]], &Device::Cpu).unwrap();
    let mask = bits(&[&[1, 1, 1], &[1, 1, 0]]);
    let view = data.permute((2, 1, 0)).unwrap();
    let (a, b) = (
        TokenLogProbs::next_token(&view, &tokens, &mask).unwrap(),
        TokenLogProbs::next_token(&view.contiguous().unwrap(), &tokens, &mask).unwrap(),
    );
    assert_eq!(numbers(a.values()), numbers(b.values()));
    let grads = a.sum().unwrap().sum_all().unwrap().backward().unwrap();
    assert_eq!(grads.get(&data).unwrap().dims(), [5, 3, 2]);

    let one = wave(&[1, 1, 5], 0.4);
    let spread = one.broadcast_as((2, 3, 5)).unwrap();
    let (a, b) = (
        TokenLogProbs::next_token(&spread, &tokens, &mask).unwrap(),
        TokenLogProbs::next_token(&spread.contiguous().unwrap(), &tokens, &mask).unwrap(),
    );
    assert_eq!(numbers(a.values()), numbers(b.values()));
}
