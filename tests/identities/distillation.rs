use crate::common::{EXACT, assert_close, bits, matrix, numbers, var};
use candle_align::distillation::divergence::{
    ChosenBy, Direction, DivergenceConfig, TopK, divergence, divergence_from_hidden,
};
use candle_align::distillation::gkd::{gkd_loss, gkd_loss_from_hidden};
use candle_align::distillation::iw_opd::{IwOpdConfig, iw_opd_weights};
use candle_align::distillation::minillm::minillm_loss;
use candle_align::distillation::on_policy::{Credit, ReverseKlConfig, reverse_kl_advantages};
use candle_align::{OutputHead, Reduction, Result, Statistics, TokenLogProbs, TokenLoss};
use candle_core::{Device, Tensor, Var};

const DIRECTIONS: [Direction; 3] = [
    Direction::Forward,
    Direction::Reverse,
    Direction::JensenShannon { weight: 0.3 },
];

fn wave(shape: &[usize], step: f64) -> Var {
    let n: usize = shape.iter().product();
    let data: Vec<f64> = (0..n).map(|i| (i as f64 * step).sin() * 2.0).collect();
    Var::from_tensor(&Tensor::from_vec(data, shape, &Device::Cpu).unwrap()).unwrap()
}

fn config(direction: Direction) -> DivergenceConfig {
    DivergenceConfig {
        direction,
        ..Default::default()
    }
}

/// Values and the student's gradient of the sum.
fn both(student: &Var, teacher: &Tensor, config: &DivergenceConfig) -> (Vec<f64>, Vec<f64>) {
    let mask = bits(&[&[1, 1, 1], &[1, 0, 1]]);
    let loss = divergence(student, teacher, &mask, config).unwrap().loss;
    let grads = loss.sum_all().unwrap().backward().unwrap();
    (numbers(&loss), numbers(grads.get(student).unwrap()))
}

#[test]
fn jensen_shannon_over_its_weight_tends_to_a_kl_divergence_at_either_end() {
    let (student, teacher) = (wave(&[2, 3, 5], 0.7), wave(&[2, 3, 5], 1.3));
    let small = 1e-6;
    for (weight, over, end) in [
        (small, small, Direction::Forward),
        (1.0 - small, small, Direction::Reverse),
    ] {
        let near = both(
            &student,
            &teacher,
            &config(Direction::JensenShannon { weight }),
        );
        let end = both(&student, &teacher, &config(end));
        for (near, end) in [(&near.0, &end.0), (&near.1, &end.1)] {
            let near: Vec<f64> = near.iter().map(|x| x / over).collect();
            // the next term is of the order of the weight
            assert_close(&near, end, 2e-4, "limit");
            assert!(end.iter().any(|x| x.abs() > 0.1));
        }
    }
}

#[test]
fn the_top_of_all_symbols_is_the_full_divergence_and_a_smaller_top_never_exceeds_it() {
    let (student, teacher) = (wave(&[2, 3, 5], 0.7), wave(&[2, 3, 5], 1.3));
    for direction in DIRECTIONS {
        let full = both(&student, &teacher, &config(direction));
        for of in [ChosenBy::Student, ChosenBy::Teacher, ChosenBy::Either] {
            let mut last = vec![0.0; 6];
            for k in 1..=6 {
                let config = DivergenceConfig {
                    top_k: Some(TopK { k, of }),
                    ..config(direction)
                };
                let top = both(&student, &teacher, &config);
                if k >= 5 {
                    assert_close(&top.0, &full.0, EXACT, "value");
                    assert_close(&top.1, &full.1, EXACT, "gradient");
                }
                // more symbols that stand alone tell more apart
                for (now, last) in top.0.iter().zip(&last) {
                    assert!(now >= &(last - EXACT), "{k}: {now} after {last}");
                }
                last = top.0;
            }
        }
    }
}

#[test]
fn models_that_agree_are_at_distance_zero_with_slope_zero() {
    let student = wave(&[2, 3, 5], 0.7);
    let teacher = (student.as_tensor() + 3.0).unwrap();
    for direction in DIRECTIONS {
        let (value, slope) = both(&student, &teacher, &config(direction));
        assert_close(&value, &[0.0; 6], EXACT, "value");
        assert_close(&slope, &[0.0; 30], EXACT, "slope");
    }
}

#[test]
fn exchanging_the_models_exchanges_the_directions() {
    let (student, teacher) = (wave(&[2, 3, 5], 0.7), wave(&[2, 3, 5], 1.3));
    for (one, other) in [
        (Direction::Forward, Direction::Reverse),
        (
            Direction::JensenShannon { weight: 0.3 },
            Direction::JensenShannon { weight: 0.7 },
        ),
    ] {
        let one = both(&student, &teacher, &config(one)).0;
        let other = both(&teacher, &student, &config(other)).0;
        assert_close(&one, &other, EXACT, "exchanged");
    }
}

#[test]
fn the_temperature_is_a_division_of_both_sets_of_logits() {
    let (student, teacher) = (wave(&[2, 3, 5], 0.7), wave(&[2, 3, 5], 1.3));
    let flat = Var::from_tensor(&(student.as_tensor() / 2.5).unwrap()).unwrap();
    let flat_teacher = (teacher.as_tensor() / 2.5).unwrap();
    for direction in DIRECTIONS {
        let at = |temperature| DivergenceConfig {
            temperature,
            ..config(direction)
        };
        let hot = both(&student, &teacher, &at(2.5));
        let cold = both(&flat, &flat_teacher, &at(1.0));
        assert_close(&hot.0, &cold.0, EXACT, "value");
        let slopes: Vec<f64> = cold.1.iter().map(|x| x / 2.5).collect();
        assert_close(&hot.1, &slopes, EXACT, "slope");
        // τ² D settles
        let [a, b] = [1e3, 1e4].map(|tau| both(&student, &teacher, &at(tau)).0[0] * tau * tau);
        assert!(a > 0.01 && (a / b - 1.0).abs() < 1e-2, "{a} {b}");
    }
}

/// Values and the gradients of what is given, of Σ loss².
fn with_gradients(loss: &TokenLoss, of: &[&Var]) -> Vec<Vec<f64>> {
    let grads = loss
        .loss
        .sqr()
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    let mut all = vec![numbers(&loss.loss)];
    all.extend(of.iter().filter_map(|v| grads.get(v).map(numbers)));
    all
}

#[test]
fn from_hidden_states_is_from_the_logits_of_their_heads() {
    let (hidden, weight, bias) = (wave(&[2, 3, 4], 0.7), wave(&[6, 4], 1.1), wave(&[6], 0.4));
    let (other, matrix) = (wave(&[2, 3, 2], 0.9), wave(&[6, 2], 0.3));
    let mask = bits(&[&[1, 0, 1], &[1, 1, 1]]);
    let teacher = OutputHead::new(&matrix, None).unwrap();
    let teacher = teacher.with_soft_cap(1.5).unwrap();
    let product = |h: &Tensor, w: &Tensor| {
        let logits = h.broadcast_matmul(&w.t().unwrap()).unwrap();
        logits.broadcast_add(&bias.zeros_like().unwrap()).unwrap()
    };
    let capped = |x: Tensor| ((x / 1.5).unwrap().tanh().unwrap() * 1.5).unwrap();
    let teacher_logits = capped(product(&other, &matrix));
    for direction in DIRECTIONS {
        for top_k in [
            None,
            Some(TopK {
                k: 2,
                of: ChosenBy::Teacher,
            }),
        ] {
            let config = DivergenceConfig {
                direction,
                temperature: 1.3,
                top_k,
            };
            for trained in [true, false] {
                let (w, b) = match trained {
                    true => (weight.as_tensor().clone(), bias.as_tensor().clone()),
                    false => (weight.as_detached_tensor(), bias.as_detached_tensor()),
                };
                let student = OutputHead::new(&w, Some(&b)).unwrap();
                let student = student.with_soft_cap(2.0).unwrap();
                let logits = product(&hidden, &w).broadcast_add(&b).unwrap();
                let logits = ((logits / 2.0).unwrap().tanh().unwrap() * 2.0).unwrap();
                let (models, others) = ((&*hidden, &student), (&*other, &teacher));
                // the teacher's are among them, and get none
                let vars = [&hidden, &weight, &bias, &other, &matrix];
                let found = |loss| with_gradients(&loss, &vars);
                let got = found(divergence_from_hidden(models, others, &mask, &config).unwrap());
                let want = found(divergence(&logits, &teacher_logits, &mask, &config).unwrap());
                assert_eq!(got.len(), if trained { 4 } else { 2 });
                assert_eq!(got.len(), want.len());
                for (got, want) in got.iter().zip(&want) {
                    assert_close(got, want, EXACT, "divergence");
                }
                let got = found(gkd_loss_from_hidden(models, others, &mask, &config).unwrap());
                let want = found(gkd_loss(&logits, &teacher_logits, &mask, &config).unwrap());
                for (got, want) in got.iter().zip(&want) {
                    assert_close(got, want, EXACT, "next token");
                }
            }
        }
    }
}

#[test]
fn nothing_that_counts_is_a_loss_of_zero_from_hidden_states() {
    let (hidden, weight) = (wave(&[1, 2, 3], 0.7), wave(&[4, 3], 1.1));
    let head = OutputHead::new(&weight, None).unwrap();
    let mask = bits(&[&[0, 0]]);
    let config = DivergenceConfig::default();
    let (model, other) = ((&*hidden, &head), (&*hidden, &head));
    let loss = divergence_from_hidden(model, other, &mask, &config).unwrap();
    assert_eq!(numbers(&loss.loss), [0.0, 0.0]);
}

/// All nine answers of two tokens out of three, from four next-token distributions: after nothing and after
/// each first token.
struct Answers {
    tokens: Tensor,
    mask: Tensor,
    /// Which distribution each position uses.
    rows: Tensor,
}

fn answers() -> Answers {
    let all: Vec<(u32, u32)> = (0..9).map(|i| (i / 3, i % 3)).collect();
    let tokens: Vec<u32> = all.iter().flat_map(|(a, b)| [*a, *b]).collect();
    let rows: Vec<u32> = all.iter().flat_map(|(a, _)| [0, 1 + a]).collect();
    Answers {
        tokens: Tensor::from_vec(tokens, (9, 2), &Device::Cpu).unwrap(),
        mask: bits(&[&[1u8, 1] as &[u8]; 9]),
        rows: Tensor::from_vec(rows, 18, &Device::Cpu).unwrap(),
    }
}

impl Answers {
    fn logits(&self, theta: &Tensor) -> Tensor {
        let rows = theta.reshape((4, 3)).unwrap().index_select(&self.rows, 0);
        rows.unwrap().reshape((9, 2, 3)).unwrap()
    }

    fn log_probs(&self, theta: &Tensor) -> TokenLogProbs {
        let logits = self.logits(theta);
        TokenLogProbs::aligned(&logits, &self.tokens, &self.mask, Statistics::default()).unwrap()
    }

    /// The expectation over the student's own answers, which are drawn, so without a gradient.
    fn expectation(&self, theta: &Tensor, loss: &Tensor) -> Tensor {
        let often = self.log_probs(theta).sum().unwrap().exp().unwrap().detach();
        (loss.sum(1).unwrap() * often).unwrap().sum_all().unwrap()
    }

    /// KL of the student's answers from the teacher's, with its gradient.
    fn kl(&self, theta: &Tensor, teacher: &Tensor) -> Tensor {
        let (log_q, log_p) = (self.log_probs(theta), self.log_probs(teacher));
        let (log_q, log_p) = (log_q.sum().unwrap(), log_p.sum().unwrap().detach());
        let ratio = (&log_q - log_p).unwrap();
        (log_q.exp().unwrap() * ratio).unwrap().sum_all().unwrap()
    }
}

fn slope(theta: &Var, loss: &Tensor) -> Vec<f64> {
    numbers(loss.backward().unwrap().get(theta).unwrap())
}

fn world() -> (Answers, Var, Tensor) {
    let theta = var(&[
        0.3, -1.0, 0.8, 1.0, 0.1, -0.4, 0.0, 0.7, 0.2, -0.9, 0.5, 0.6,
    ]);
    let teacher = var(&[
        -0.5, 0.4, 0.1, 0.2, 0.9, -1.1, 1.4, -0.3, 0.0, 0.3, -0.2, 0.8,
    ]);
    (answers(), theta, teacher.as_detached_tensor())
}

#[test]
fn advantages_with_full_credit_have_the_gradient_of_the_divergence_of_answers() {
    let (answers, theta, teacher) = world();
    let want = slope(&theta, &answers.kl(&theta, &teacher));
    let policy = answers.log_probs(&theta);
    let of = |discount| {
        let config = ReverseKlConfig {
            discount,
            ..Default::default()
        };
        let log_p = answers.log_probs(&teacher);
        let advantages = reverse_kl_advantages(&policy, log_p.values(), &config).unwrap();
        let loss = (advantages.neg().unwrap() * policy.values()).unwrap();
        slope(&theta, &answers.expectation(&theta, &loss))
    };
    assert_close(&of(1.0), &want, EXACT, "full credit");

    // without the later tokens it is the sum of the positions' own divergences
    let each = divergence(
        &answers.logits(&theta),
        &answers.logits(&teacher),
        &answers.mask,
        &config(Direction::Reverse),
    );
    let each = slope(&theta, &answers.expectation(&theta, &each.unwrap().loss));
    assert_close(&of(0.0), &each, EXACT, "no credit");
    // which is another gradient, though only at the first token
    let gap: Vec<f64> = want.iter().zip(&each).map(|(a, b)| a - b).collect();
    assert!(gap[..3].iter().any(|g| g.abs() > 0.01), "{gap:?}");
    assert_close(&gap[3..], &[0.0; 9], EXACT, "last token");
}

#[test]
fn the_mean_weight_of_an_answer_does_not_depend_on_the_order() {
    let mask = bits(&[&[1, 1, 1, 1]]);
    let config = IwOpdConfig { gamma: 0.7 };
    let sizes = [0.5f64, -2.0, 0.25, 1.25];
    let total: f64 = sizes.iter().map(|a| a.abs()).sum();
    let squares: f64 = sizes.iter().map(|a| a * a).sum();
    let want = 1.0 + 0.35 * (1.0 + squares / (total * total));
    for order in [[0, 1, 2, 3], [3, 1, 0, 2], [2, 0, 3, 1]] {
        for scale in [1.0, -8.0] {
            let own = order.map(|at: usize| scale * sizes[at]);
            let weights = iw_opd_weights(&matrix(&[&own]), &mask, &config).unwrap();
            let weights = numbers(&weights);
            let mean = weights.iter().zip(own).map(|(w, a)| w * a.abs());
            let mean = mean.sum::<f64>() / (total * scale.abs());
            assert_close(&[mean], &[want], EXACT, "mean weight");
            assert!(weights[0] == 1.7 && weights.is_sorted_by(|a, b| a >= b));
            assert!(weights.iter().all(|w| *w >= 1.0));
        }
    }
}

#[test]
fn the_expected_loss_on_own_answers_is_the_divergence_of_answers() {
    let (answers, theta, teacher) = world();
    let each = divergence(
        &answers.logits(&theta),
        &answers.logits(&teacher),
        &answers.mask,
        &config(Direction::Reverse),
    );
    let got = numbers(&answers.expectation(&theta, &each.unwrap().loss));
    assert_close(
        &got,
        &numbers(&answers.kl(&theta, &teacher)),
        EXACT,
        "expectation",
    );
}

#[test]
fn minillm_is_the_gradient_of_the_divergence_of_answers() {
    let (answers, theta, teacher) = world();
    let policy = answers.log_probs(&theta);
    let single_step = divergence(
        &answers.logits(&theta),
        &answers.logits(&teacher),
        &answers.mask,
        &config(Direction::Reverse),
    )
    .unwrap();
    let of = |credit| {
        let config = ReverseKlConfig {
            discount: 1.0,
            length_normalization: false,
            credit,
        };
        let log_p = answers.log_probs(&teacher);
        let advantages = reverse_kl_advantages(&policy, log_p.values(), &config).unwrap();
        let loss = minillm_loss(&policy, &single_step, &advantages, None).unwrap();
        slope(&theta, &answers.expectation(&theta, &loss.loss))
    };
    let want = slope(&theta, &answers.kl(&theta, &teacher));
    assert_close(&of(Credit::AfterToken), &want, EXACT, "after the token");
    // from the token on, the positions' own divergences count twice
    let each = slope(&theta, &answers.expectation(&theta, &single_step.loss));
    let twice: Vec<f64> = want.iter().zip(&each).map(|(a, b)| a + b).collect();
    assert_close(&of(Credit::FromToken), &twice, EXACT, "from the token");
}

#[test]
fn without_advantages_minillm_is_the_reverse_divergence() {
    let (answers, theta, teacher) = world();
    let single_step = divergence(
        &answers.logits(&theta),
        &answers.logits(&teacher),
        &answers.mask,
        &config(Direction::Reverse),
    )
    .unwrap();
    let policy = answers.log_probs(&theta);
    let none = policy.values().zeros_like().unwrap();
    let loss = minillm_loss(&policy, &single_step, &none, None).unwrap();
    assert_eq!(numbers(&loss.loss), numbers(&single_step.loss));
}

#[test]
fn gkd_over_micro_batches_is_gkd_over_the_batch() -> Result<()> {
    let (student, teacher) = (wave(&[3, 4, 5], 0.7), wave(&[3, 4, 5], 1.3));
    let mask = bits(&[&[0, 1, 1, 1], &[0, 0, 0, 1], &[0, 1, 1, 0]]);
    let config = DivergenceConfig::default();
    let loss = gkd_loss(&student, &teacher, &mask, &config)?;
    let whole = numbers(&loss.reduce(Reduction::TokenMean)?)[0];
    let count = Reduction::TokenMean.count(&loss.mask)?;
    let mut total = 0.0;
    for row in 0..3 {
        let of = |x: &Tensor| x.narrow(0, row, 1);
        let part = gkd_loss(&of(&student)?, &of(&teacher)?, &of(&mask)?, &config)?;
        total += numbers(&part.reduce(Reduction::SumOver { count })?)[0];
    }
    assert_close(&[total], &[whole], EXACT, "window");
    Ok(())
}
