use crate::common::{EXACT, assert_close, bits, matrix, numbers};
use candle_align::distillation::divergence::{
    ChosenBy, Direction, DivergenceConfig, TopK, divergence, divergence_from_hidden,
};
use candle_align::distillation::gkd::{gkd_loss, gkd_loss_from_hidden};
use candle_align::distillation::iw_opd::{IwOpdConfig, iw_opd_weights};
use candle_align::distillation::minillm::{
    minillm_loss, teacher_mixed_log_probs, teacher_mixed_weights,
};
use candle_align::distillation::on_policy::{Credit, ReverseKlConfig, reverse_kl_advantages};
use candle_align::{OutputHead, TokenLogProbs, TokenLoss};
use candle_core::{DType, Device, Tensor, Var};

/// A row's own numbers, in the order of the vocabulary.
const Q: [f64; 4] = [0.4, 0.3, 0.2, 0.1];
const P: [f64; 4] = [0.1, 0.2, 0.1, 0.6];

/// Logits `[1, 1, 4]` of a distribution, off its logarithm by a constant.
fn logits(p: [f64; 4], by: f64) -> Tensor {
    Tensor::new(&[[p.map(|p| p.ln() + by)]], &Device::Cpu).unwrap()
}

fn config(direction: Direction) -> DivergenceConfig {
    DivergenceConfig {
        direction,
        ..Default::default()
    }
}

fn of(student: &Tensor, teacher: &Tensor, config: &DivergenceConfig) -> f64 {
    let loss = divergence(student, teacher, &bits(&[&[1]]), config).unwrap();
    numbers(&loss.loss)[0]
}

#[test]
fn every_direction_is_its_sum() {
    let (student, teacher) = (logits(Q, 2.0), logits(P, -7.0));
    let forward = 0.1 * (0.1f64 / 0.4).ln()
        + 0.2 * (0.2f64 / 0.3).ln()
        + 0.1 * (0.1f64 / 0.2).ln()
        + 0.6 * (0.6f64 / 0.1).ln();
    let reverse = 0.4 * (0.4f64 / 0.1).ln()
        + 0.3 * (0.3f64 / 0.2).ln()
        + 0.2 * (0.2f64 / 0.1).ln()
        + 0.1 * (0.1f64 / 0.6).ln();
    // m = 0.75 q + 0.25 p
    let m = [0.325, 0.275, 0.175, 0.225];
    let to = |x: [f64; 4]| -> f64 { (0..4).map(|v| x[v] * (x[v] / m[v]).ln()).sum() };
    let mixed = 0.25 * to(P) + 0.75 * to(Q);
    for (direction, want) in [
        (Direction::Forward, forward),
        (Direction::Reverse, reverse),
        (Direction::JensenShannon { weight: 0.25 }, mixed),
    ] {
        let got = of(&student, &teacher, &config(direction));
        assert_close(&[got], &[want], EXACT, "divergence");
    }
    // the default is a half of each, as in TRL
    let half = Direction::JensenShannon { weight: 0.5 };
    assert_eq!(DivergenceConfig::default(), config(half));
}

#[test]
fn the_temperature_divides_both_and_no_square_multiplies() {
    // p^{1/2} and q^{1/2}, normalized
    let flat = |p: [f64; 4]| {
        let total: f64 = p.iter().map(|p| p.sqrt()).sum();
        p.map(|p| p.sqrt() / total)
    };
    let (q, p) = (flat(Q), flat(P));
    let want: f64 = (0..4).map(|v| p[v] * (p[v] / q[v]).ln()).sum();
    let config = DivergenceConfig {
        temperature: 2.0,
        ..config(Direction::Forward)
    };
    let got = of(&logits(Q, 0.0), &logits(P, 0.0), &config);
    assert_close(&[got], &[want], EXACT, "temperature 2");
}

#[test]
fn the_others_count_together() {
    let with = |k, of| DivergenceConfig {
        top_k: Some(TopK { k, of }),
        ..config(Direction::Forward)
    };
    let (student, teacher) = (logits(Q, 0.0), logits(P, 0.0));
    let term = |p: f64, q: f64| p * (p / q).ln();
    // the teacher's two are the fourth and the second symbol
    let teachers = term(0.6, 0.1) + term(0.2, 0.3) + term(0.2, 0.6);
    // the student's are the first and the second
    let students = term(0.1, 0.4) + term(0.2, 0.3) + term(0.7, 0.3);
    let either = term(0.6, 0.1) + term(0.2, 0.3) + term(0.1, 0.4) + term(0.1, 0.2);
    for (by, want) in [
        (ChosenBy::Teacher, teachers),
        (ChosenBy::Student, students),
        (ChosenBy::Either, either),
    ] {
        assert_close(
            &[of(&student, &teacher, &with(2, by))],
            &[want],
            EXACT,
            "top 2",
        );
    }
    // the student's slope at a symbol among the others: q − q (Σ p of the others)/(Σ q of the others)
    let student = Var::from_tensor(&student).unwrap();
    let loss = divergence(
        &student,
        &teacher,
        &bits(&[&[1]]),
        &with(2, ChosenBy::Teacher),
    )
    .unwrap();
    let grads = loss.loss.sum_all().unwrap().backward().unwrap();
    let want = [
        0.4 * (1.0 - 0.2 / 0.6),
        0.3 - 0.2,
        0.2 * (1.0 - 0.2 / 0.6),
        0.1 - 0.6,
    ];
    assert_close(
        &numbers(grads.get(&student).unwrap()),
        &want,
        EXACT,
        "slope",
    );
}

#[test]
fn impossible_symbols() {
    let none = f64::NEG_INFINITY;
    let row = |z: [f64; 3]| Tensor::new(&[[z]], &Device::Cpu).unwrap();
    let slope = |student: &Tensor, teacher: &Tensor, direction| {
        let student = Var::from_tensor(student).unwrap();
        let loss = divergence(&student, teacher, &bits(&[&[1]]), &config(direction)).unwrap();
        let grads = loss.loss.sum_all().unwrap().backward().unwrap();
        let slope = numbers(grads.get(&student).unwrap());
        (numbers(&loss.loss)[0], slope)
    };
    let mixed = Direction::JensenShannon { weight: 0.25 };
    // padding of the vocabulary, impossible for both
    let (q, p) = (row([0.0, 0.0, none]), row([3f64.ln(), 0.0, none]));
    let (loss, slopes) = slope(&q, &p, Direction::Reverse);
    assert_close(
        &[loss],
        &[0.5 * (0.5f64 / 0.75).ln() + 0.5 * 2f64.ln()],
        EXACT,
        "reverse",
    );
    assert_eq!(slopes[2], 0.0);
    assert!(slopes.iter().all(|s| s.is_finite()), "{slopes:?}");
    // for the student alone: the teacher's share of it is lost
    let (loss, slopes) = slope(&q, &row([0.0, 0.0, 0.0]), Direction::Forward);
    assert_eq!(loss, f64::INFINITY);
    assert_close(
        &slopes,
        &[0.5 - 1.0 / 3.0, 0.5 - 1.0 / 3.0, -1.0 / 3.0],
        EXACT,
        "q - p",
    );
    // for the teacher alone
    let (loss, slopes) = slope(&row([0.0, 0.0, 0.0]), &q, Direction::Reverse);
    assert_eq!(loss, f64::INFINITY);
    assert_eq!(slopes, [-f64::INFINITY, -f64::INFINITY, f64::INFINITY]);
    let (loss, slopes) = slope(&row([0.0, 0.0, 0.0]), &q, mixed);
    // m = (0.75/3 + 0.25/2, the same, 0.75/3)
    let to = |x: f64, m: f64| x * (x / m).ln();
    let (third, half) = (1.0 / 3.0, 0.5);
    let want = 0.75 * (2.0 * to(third, 0.375) + to(third, 0.25)) + 0.25 * 2.0 * to(half, 0.375);
    assert_close(&[loss], &[want], EXACT, "mixed");
    assert!(slopes.iter().all(|s| s.is_finite()), "{slopes:?}");
    // no distribution at all
    let (loss, _) = slope(&row([none, none, none]), &p, mixed);
    assert!(loss.is_nan());
}

/// Rows of many symbols: several blocks, and a last one that is not whole.
fn wave(shape: (usize, usize, usize), step: f64) -> Tensor {
    let n = shape.0 * shape.1 * shape.2;
    let data: Vec<f64> = (0..n).map(|i| (i as f64 * step).sin() * 7.0).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

#[test]
fn every_type_gives_the_numbers_of_double_precision_on_its_own_logits() {
    let shape = (2, 3, 2500);
    let mask = bits(&[&[1, 1, 0], &[1, 1, 1]]);
    for (dtype, of_value, of_gradient) in [
        (DType::F32, 2e-6, 2e-6),
        // gradients of half-precision logits are rounded to their type
        (DType::BF16, 2e-6, 4e-3),
        (DType::F16, 2e-6, 5e-4),
    ] {
        let rounded = |step| wave(shape, step).to_dtype(dtype).unwrap();
        let (student, teacher) = (rounded(0.7), rounded(1.3));
        for direction in [
            Direction::Forward,
            Direction::Reverse,
            Direction::JensenShannon { weight: 0.3 },
        ] {
            for top_k in [
                None,
                Some(TopK {
                    k: 30,
                    of: ChosenBy::Either,
                }),
            ] {
                let config = DivergenceConfig {
                    direction,
                    temperature: 1.5,
                    top_k,
                };
                let both = |student: &Tensor, teacher: &Tensor| {
                    let student = Var::from_tensor(student).unwrap();
                    let loss = divergence(&student, teacher, &mask, &config).unwrap().loss;
                    let grads = loss.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                    (numbers(&loss), numbers(grads.get(&student).unwrap()))
                };
                let got = both(&student, &teacher);
                let double = |x: &Tensor| x.to_dtype(DType::F64).unwrap();
                let want = both(&double(&student), &double(&teacher));
                let close = |got: &[f64], want: &[f64], tolerance: f64| {
                    for (g, w) in got.iter().zip(want) {
                        // relative, and for what underflows in this type absolute
                        let near = (g - w).abs() <= tolerance * w.abs().max(0.1);
                        assert!(near, "{dtype:?} {config:?}: {g} against {w}");
                    }
                };
                close(&got.0, &want.0, of_value * 10.0);
                close(&got.1, &want.1, of_gradient);
                assert!(
                    want.0[0] > 1e-3 && got.0[2] == 0.0,
                    "{config:?} {:?}",
                    want.0
                );
            }
        }
    }
}

#[test]
fn a_position_predicts_the_next_token() {
    let (student, teacher) = (wave((2, 4, 5), 0.7), wave((2, 4, 5), 1.3));
    let mask = bits(&[&[1, 0, 1, 1], &[0, 1, 0, 0]]);
    let settings = config(Direction::Forward);
    let loss = gkd_loss(&student, &teacher, &mask, &settings).unwrap();
    assert_eq!(numbers(&loss.mask), [0.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
    let all = bits(&[&[1; 4], &[1; 4]]);
    let each = numbers(
        &divergence(&student, &teacher, &all, &settings)
            .unwrap()
            .loss,
    );
    let want = [0.0, each[1], each[2], each[4], 0.0, 0.0];
    assert_close(&numbers(&loss.loss), &want, EXACT, "shifted");
}

#[test]
fn from_hidden_states_the_logits_are_products() {
    let (h, w) = ([0.5, -1.0], [[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]]);
    let (g, u) = ([2.0], [[0.3], [-0.1], [0.0]]);
    let tensor = |x: &[f64]| Tensor::from_slice(x, (1, 1, x.len()), &Device::Cpu).unwrap();
    let student = OutputHead::new(&Tensor::new(&w, &Device::Cpu).unwrap(), None).unwrap();
    let teacher = OutputHead::new(&Tensor::new(&u, &Device::Cpu).unwrap(), None).unwrap();
    let student = student.with_temperature(2.0).unwrap();
    // h Wᵀ / 2 and g Uᵀ
    let (s, t) = ([0.25, -1.0, -0.75], [0.6, -0.2, 0.0]);
    let (h, g) = (tensor(&h), tensor(&g));
    let mask = bits(&[&[1]]);
    for direction in [Direction::Forward, Direction::Reverse] {
        let config = config(direction);
        let (models, others) = ((&h, &student), (&g, &teacher));
        let got = divergence_from_hidden(models, others, &mask, &config).unwrap();
        let want = divergence(&tensor(&s), &tensor(&t), &mask, &config).unwrap();
        assert_close(&numbers(&got.loss), &numbers(&want.loss), EXACT, "hidden");
    }
    let two = |x: &Tensor| Tensor::cat(&[x, x], 1).unwrap();
    let (h, g) = (two(&h), two(&g));
    let config = DivergenceConfig::default();
    let mask = bits(&[&[0, 1]]);
    let got = gkd_loss_from_hidden((&h, &student), (&g, &teacher), &mask, &config).unwrap();
    let want = of(&tensor(&s), &tensor(&t), &config);
    assert_close(&numbers(&got.loss), &[want], EXACT, "next token");
}

#[test]
fn advantages_are_the_teachers_opinion_from_a_token_on() {
    let mask = bits(&[&[1, 0, 1, 1]]);
    let student = TokenLogProbs::new(&matrix(&[&[-1.0, 0.0, -2.0, -0.5]]), &mask).unwrap();
    let teacher = matrix(&[&[-0.5, f64::NAN, -2.25, -1.5]]);
    // r = (0.5, ·, −0.25, −1)
    let of = |discount, length_normalization, credit| {
        let config = ReverseKlConfig {
            discount,
            length_normalization,
            credit,
        };
        numbers(&reverse_kl_advantages(&student, &teacher, &config).unwrap())
    };
    let from = |discount, normalized| of(discount, normalized, Credit::FromToken);
    let after = |discount, normalized| of(discount, normalized, Credit::AfterToken);
    let close = |got: &[f64], want: &[f64; 4]| assert_close(got, want, EXACT, "advantages");
    close(&from(0.0, false), &[0.5, 0.0, -0.25, -1.0]);
    close(&from(0.0, true), &[0.5, 0.0, -0.25, -1.0]);
    close(&from(1.0, false), &[-0.75, 0.0, -1.25, -1.0]);
    close(&from(0.5, false), &[0.5 - 0.125 - 0.25, 0.0, -0.75, -1.0]);
    close(&from(0.5, true), &[0.125 / 1.75, 0.0, -0.75 / 1.5, -1.0]);
    close(&after(1.0, false), &[-1.25, 0.0, -1.0, 0.0]);
    close(&after(1.0, true), &[-1.25 / 2.0, 0.0, -1.0, 0.0]);
    close(&after(0.5, true), &[-0.75 / 1.5, 0.0, -1.0, 0.0]);
}

#[test]
fn a_token_weighs_less_the_more_was_disagreed_on_before_it() {
    let mask = bits(&[&[0, 1, 1, 0, 1], &[1, 1, 1, 1, 1], &[1, 1, 0, 0, 0]]);
    let advantages = matrix(&[
        &[f64::NAN, -0.5, 2.0, 7.0, 1.5],
        &[0.0, 0.0, 4.0, -4.0, 0.0],
        &[0.0, 0.0, 1.0, 1.0, 1.0],
    ]);
    let of = |gamma| numbers(&iw_opd_weights(&advantages, &mask, &IwOpdConfig { gamma }).unwrap());
    #[rustfmt::skip]
    let want = [
        0.0, 1.6, 1.0 + 0.6 * (1.0 - 0.125), 0.0, 1.0 + 0.6 * (1.0 - 0.625),
        1.6, 1.6, 1.6, 1.3, 1.0,
        // nothing of nothing
        1.6, 1.6, 0.0, 0.0, 0.0,
    ];
    assert_close(&of(0.6), &want, EXACT, "weights");
    let ones: Vec<f64> = want.iter().map(|w| f64::from(u8::from(*w > 0.0))).collect();
    assert_eq!(of(0.0), ones);
    assert_eq!(IwOpdConfig::default().gamma, 0.5);
    // a token that the teacher excludes
    let advantages = matrix(&[&[1.0, f64::NEG_INFINITY, -2.0]]);
    let all = bits(&[&[1, 1, 1]]);
    let found = iw_opd_weights(&advantages, &all, &IwOpdConfig { gamma: 0.6 });
    assert_eq!(numbers(&found.unwrap()), [1.6, 1.6, 1.0]);
}

#[test]
fn a_teacher_that_excludes_a_token_is_heard_where_it_has_a_weight() {
    let mask = bits(&[&[1, 1]]);
    let student = TokenLogProbs::new(&matrix(&[&[-1.0, -2.0]]), &mask).unwrap();
    let teacher = matrix(&[&[-0.5, f64::NEG_INFINITY]]);
    let of = |discount| {
        let config = ReverseKlConfig {
            discount,
            ..Default::default()
        };
        numbers(&reverse_kl_advantages(&student, &teacher, &config).unwrap())
    };
    assert_eq!(of(0.0), [0.5, f64::NEG_INFINITY]);
    assert_eq!(of(1.0), [f64::NEG_INFINITY, f64::NEG_INFINITY]);
}

#[test]
fn minillm_is_the_single_step_less_the_later_ones() {
    let mask = bits(&[&[1, 1, 0]]);
    let policy = TokenLogProbs::new(&matrix(&[&[-1.0, f64::NEG_INFINITY, 0.0]]), &mask).unwrap();
    let single_step = TokenLoss {
        loss: matrix(&[&[0.5, 0.25, 9.0]]),
        mask: mask.clone(),
    };
    let advantages = matrix(&[&[-0.5, 0.0, 9.0]]);
    let loss = minillm_loss(&policy, &single_step, &advantages, None).unwrap();
    assert_close(&numbers(&loss.loss), &[0.5 - 0.5, 0.25, 0.0], EXACT, "loss");
    let weights = matrix(&[&[0.0, 1.25, 9.0]]);
    let loss = minillm_loss(&policy, &single_step, &advantages, Some(&weights)).unwrap();
    assert_close(
        &numbers(&loss.loss),
        &[0.0, 1.25 * 0.25, 0.0],
        EXACT,
        "weighted",
    );
    assert_eq!(numbers(&loss.mask), [1.0, 1.0, 0.0]);
}

#[test]
fn minillm_counts_where_policy_and_single_step_do() {
    let policy = TokenLogProbs::new(&matrix(&[&[-1.0, -2.0, -3.0]]), &bits(&[&[1, 1, 0]]));
    let single_step = TokenLoss {
        loss: matrix(&[&[0.5, 0.25, 1.0]]),
        mask: bits(&[&[0, 2, 1]]),
    };
    let advantages = matrix(&[&[0.5, 0.5, 0.5]]);
    let loss = minillm_loss(&policy.unwrap(), &single_step, &advantages, None).unwrap();
    assert_eq!(numbers(&loss.mask), [0.0, 1.0, 0.0]);
    assert_close(&numbers(&loss.loss), &[0.0, 0.25 + 1.0, 0.0], EXACT, "loss");
}

#[test]
fn any_number_but_0_counts_a_token() {
    let (one, two) = (bits(&[&[1, 0, 1]]), bits(&[&[2, 0, 255]]));
    let student = Tensor::new(&[[Q, P, Q]], &Device::Cpu).unwrap();
    let teacher = Tensor::new(&[[P, P, P]], &Device::Cpu).unwrap();
    let config = config(Direction::Forward);
    let of = |mask| numbers(&divergence(&student, &teacher, mask, &config).unwrap().loss);
    let found = of(&two);
    assert_eq!(found, of(&one));
    assert!(found[0] > 0.0 && found[1] == 0.0 && found[2] > 0.0);
    let teacher = matrix(&[&[-0.5, -1.0, -2.0]]);
    let of = |mask| {
        let student = TokenLogProbs::new(&matrix(&[&[-1.0, -2.0, -1.5]]), mask).unwrap();
        let weights = iw_opd_weights(&teacher, mask, &IwOpdConfig::default()).unwrap();
        let all = reverse_kl_advantages(&student, &teacher, &ReverseKlConfig::default()).unwrap();
        [numbers(&all), numbers(&weights)].concat()
    };
    assert_eq!(of(&two), of(&one));
}

/// The largest logit rises from block to block of the vocabulary.
#[test]
fn a_vocabulary_of_many_blocks_is_one_distribution() {
    let size = 2500;
    let row = |slope: f64, step: f64| -> Vec<f64> {
        (0..size)
            .map(|v| slope * v as f64 + (step * v as f64).sin())
            .collect()
    };
    let (s, t) = (row(0.002, 0.7), row(0.001, 1.3));
    let shares = |z: &[f64]| -> Vec<f64> {
        let total: f64 = z.iter().map(|z| z.exp()).sum();
        z.iter().map(|z| z.exp() / total).collect()
    };
    let (q, p) = (shares(&s), shares(&t));
    let mix: Vec<f64> = q.iter().zip(&p).map(|(q, p)| 0.7 * q + 0.3 * p).collect();
    let kl = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * (a / b).ln()).sum() };
    let tensor = |z: &[f64]| Tensor::from_vec(z.to_vec(), (1, 1, size), &Device::Cpu).unwrap();
    let mean = kl(&q, &mix);
    let reverse = kl(&q, &p);
    let forward_slope = |v: usize| q[v] - p[v];
    let reverse_slope = |v: usize| q[v] * ((q[v] / p[v]).ln() - reverse);
    let mixed_slope = |v: usize| 0.7 * q[v] * ((q[v] / mix[v]).ln() - mean);
    let slopes = |of: &dyn Fn(usize) -> f64| -> Vec<f64> { (0..size).map(of).collect() };
    let weight = 0.3;
    for (direction, value, want) in [
        (Direction::Forward, kl(&p, &q), slopes(&forward_slope)),
        (Direction::Reverse, reverse, slopes(&reverse_slope)),
        (
            Direction::JensenShannon { weight },
            weight * kl(&p, &mix) + 0.7 * mean,
            slopes(&mixed_slope),
        ),
    ] {
        let student = Var::from_tensor(&tensor(&s)).unwrap();
        let mask = bits(&[&[1]]);
        let loss = divergence(&student, &tensor(&t), &mask, &config(direction)).unwrap();
        assert_close(&numbers(&loss.loss), &[value], EXACT, "divergence");
        let grads = loss.loss.sum_all().unwrap().backward().unwrap();
        let found = numbers(grads.get(&student).unwrap());
        assert_close(&found, &want, EXACT, "slope");
    }
}

/// The output matrix is frozen, and its bias is not.
#[test]
fn a_bias_alone_can_be_learned() {
    let hidden = Tensor::new(&[[[0.3f64, -0.5]]], &Device::Cpu).unwrap();
    let weight = matrix(&[&[0.2, 1.0], &[-0.7, 0.4], &[0.9, 0.1], &[0.0, -0.3]]);
    let bias = Var::new(&[0.1f64, -0.2, 0.3, 0.0], &Device::Cpu).unwrap();
    let head = OutputHead::new(&weight, Some(&bias)).unwrap();
    let outputs = matrix(&[&[0.5], &[-0.5], &[0.1], &[0.8]]);
    let teacher = OutputHead::new(&outputs, None).unwrap();
    let (other, mask) = (
        Tensor::new(&[[[0.6f64]]], &Device::Cpu).unwrap(),
        bits(&[&[1]]),
    );
    let config = config(Direction::Reverse);
    let models = ((&hidden, &head), (&other, &teacher));
    let from_hidden = divergence_from_hidden(models.0, models.1, &mask, &config).unwrap();
    let of_logits = {
        let flat = hidden.squeeze(0).unwrap();
        let logits = flat.matmul(&weight.t().unwrap()).unwrap();
        let student = logits.broadcast_add(&bias).unwrap().unsqueeze(0).unwrap();
        let theirs = other.squeeze(0).unwrap();
        let theirs = theirs.matmul(&outputs.t().unwrap()).unwrap();
        divergence(&student, &theirs.unsqueeze(0).unwrap(), &mask, &config).unwrap()
    };
    let slope = |loss: &TokenLoss| {
        let grads = loss.loss.sum_all().unwrap().backward().unwrap();
        numbers(grads.get(&bias).expect("a gradient"))
    };
    assert_close(&slope(&from_hidden), &slope(&of_logits), EXACT, "bias");
}

#[test]
fn answers_of_the_mixture_are_weighted_by_the_policys_share_of_it() {
    let mask = bits(&[&[1, 1, 1, 0]]);
    let log = |p: f64| p.ln();
    let (q, p) = ([0.4, 0.5, 0.1], [0.2, 0.0, 0.9]);
    let policy = matrix(&[&[log(q[0]), log(q[1]), log(q[2]), f64::NAN]]);
    let policy = TokenLogProbs::new(&policy, &mask).unwrap();
    let teacher = matrix(&[&[log(p[0]), log(p[1]), log(p[2]), 0.0]]);
    let got = numbers(&teacher_mixed_weights(&policy, &teacher, 0.25).unwrap());
    let want = [0.4 / 0.35, 0.5 / 0.375, 0.1 / 0.3, 0.0];
    assert_close(&got, &want, EXACT, "weights");
    let none = numbers(&teacher_mixed_weights(&policy, &teacher, 0.0).unwrap());
    assert_eq!(none, [1.0, 1.0, 1.0, 0.0]);

    let of = |p: [f64; 3]| matrix(&[&[log(p[0]), log(p[1]), log(p[2])]]);
    let mixed = numbers(&teacher_mixed_log_probs(&of(q), &of([0.1, 0.0, 0.9]), 0.25).unwrap());
    let want = [log(0.3 + 0.025), log(0.375), log(0.075 + 0.225)];
    assert_close(&mixed, &want, EXACT, "mixture");
}
