use crate::common::policy::{descend, descend_free, distance, log};
use crate::common::{assert_close, bits, numbers, vector};
use candle_align::Result;
use candle_align::TokenLogProbs;
use candle_align::distillation::divergence::{Direction, DivergenceConfig, divergence};
use candle_align::distillation::on_policy::{ReverseKlConfig, reverse_kl_advantages};
use candle_core::{Device, Tensor};

/// What gradient descent reaches where the objective is smooth.
const REACHED: f64 = 1e-9;
const TEACHER: [f64; 4] = [0.1, 0.2, 0.1, 0.6];

fn config(direction: Direction) -> DivergenceConfig {
    DivergenceConfig {
        direction,
        ..Default::default()
    }
}

/// The divergence of one position, whole.
fn of(student: &Tensor, teacher: &[f64], direction: Direction) -> Result<Tensor> {
    let row = |x: &Tensor| x.unsqueeze(0)?.unsqueeze(0);
    let teacher = row(&vector(&log(teacher)))?;
    let loss = divergence(&row(student)?, &teacher, &bits(&[&[1]]), &config(direction))?;
    Ok(loss.loss.sum_all()?)
}

#[test]
fn a_student_that_can_is_the_teacher_in_every_direction() {
    let start = log(&[0.4, 0.3, 0.2, 0.1]);
    for (direction, alpha) in [
        (Direction::Forward, 1.0),
        (Direction::Reverse, 1.0),
        (Direction::JensenShannon { weight: 0.3 }, 4.0),
        (Direction::JensenShannon { weight: 0.9 }, 9.0),
    ] {
        let pi = descend(&start, alpha, 600, |l| of(l, &TEACHER, direction));
        assert!(distance(&pi, &TEACHER) < REACHED, "{direction:?}: {pi:?}");
    }
}

/// Seven symbols in a row, and a student with one bump: logits −(v − c)²/2 around its one parameter c.
fn bump(center: &Tensor) -> Result<Tensor> {
    let places = Tensor::arange(0u32, 7, &Device::Cpu)?.to_dtype(candle_core::DType::F64)?;
    let away = places.broadcast_sub(center)?;
    Ok((away.sqr()? * -0.5)?)
}

/// Two bumps, at 1 and at 5, the second somewhat smaller.
const BUMPS: [f64; 7] = [0.12, 0.30, 0.10, 0.02, 0.09, 0.26, 0.11];

fn at(center: f64, direction: Direction) -> f64 {
    let center = vector(&[center]);
    numbers(&of(&bump(&center).unwrap(), &BUMPS, direction).unwrap())[0]
}

#[test]
fn reverse_seeks_a_mode_and_forward_covers_both() {
    let from = |start: f64, direction| {
        let loss = |theta: &Tensor| of(&bump(theta)?, &BUMPS, direction);
        descend_free(&[start], 0.3, 400, loss)[0]
    };
    // where each is least, on a fine grid
    let least = |direction| {
        let grid = (0..=6000).map(|i| i as f64 / 1000.0);
        grid.min_by(|a, b| at(*a, direction).total_cmp(&at(*b, direction)))
            .unwrap()
    };

    // forward: one minimum from everywhere, where the means agree
    let mean: f64 = (0..7).map(|v| v as f64 * BUMPS[v]).sum();
    for start in [0.5, 3.0, 5.5] {
        let center = from(start, Direction::Forward);
        let q = numbers(&candle_nn::ops::softmax(&bump(&vector(&[center])).unwrap(), 0).unwrap());
        let own: f64 = (0..7).map(|v| v as f64 * q[v]).sum();
        assert_close(&[own], &[mean], REACHED, "mean");
        assert!(
            (center - least(Direction::Forward)).abs() < 1e-3,
            "{center}"
        );
        // between the bumps, where the teacher says next to nothing
        assert!((center - 3.0).abs() < 0.5, "{center}");
    }
    // reverse: a minimum at each bump, the larger one the lower
    let (left, right) = (from(0.5, Direction::Reverse), from(5.5, Direction::Reverse));
    assert!(
        (left - 1.0).abs() < 0.3 && (right - 5.0).abs() < 0.3,
        "{left} {right}"
    );
    assert!((left - least(Direction::Reverse)).abs() < 1e-3, "{left}");
    let [here, there, between] = [left, right, 3.0].map(|c| at(c, Direction::Reverse));
    assert!(here < there && there < between, "{here} {there} {between}");
}

#[test]
fn on_policy_distillation_with_exact_expectations_ends_at_the_teacher() {
    let log_p = vector(&log(&TEACHER)).unsqueeze(1).unwrap();
    let pi = descend(&log(&[0.4, 0.3, 0.2, 0.1]), 1.0, 600, |l| {
        let policy = TokenLogProbs::new(&l.unsqueeze(1)?, &bits(&[&[1u8] as &[u8]; 4]))?;
        let advantages = reverse_kl_advantages(&policy, &log_p, &ReverseKlConfig::default())?;
        let often = policy.values().exp()?.detach();
        Ok((((advantages * policy.values())? * often)?.sum_all()?).neg()?)
    });
    assert!(distance(&pi, &TEACHER) < REACHED, "{pi:?}");
}
