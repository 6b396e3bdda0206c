//! Orders, steps, and going on from a step.

use proptest::prelude::*;
use train::checkpoint::order::{Order, Steps, parts, permutation};
use train::checkpoint::schedule::{Kind, schedule};

const SEED: Order = Order::Random { seed: 42 };

#[test]
fn permutations_are_torchs() {
    assert_eq!(permutation(12, 42), [6, 8, 1, 7, 0, 2, 10, 11, 4, 3, 5, 9]);
    assert_eq!(SEED.epoch(12, 1), [4, 6, 7, 2, 9, 8, 1, 5, 0, 10, 11, 3]);
    assert_eq!(permutation(12, 7), [3, 4, 0, 5, 7, 9, 11, 6, 8, 1, 10, 2]);
    assert!(permutation(0, 1).is_empty());
    assert_eq!(permutation(1, 1), [0]);
    assert_eq!(Order::Sequential.epoch(3, 5), [0, 1, 2]);
}

#[test]
fn the_last_step_of_an_epoch_has_what_is_left() {
    let steps = Steps::new(11, 2, 4, Order::Sequential).unwrap();
    assert_eq!((steps.batches_per_epoch(), steps.per_epoch()), (6, 2));
    let sizes: Vec<Vec<usize>> = steps
        .from(0)
        .take(3)
        .map(|step| step.micro_batches.iter().map(Vec::len).collect())
        .collect();
    assert_eq!(sizes, [vec![2, 2, 2, 2], vec![2, 1], vec![2, 2, 2, 2]]);
    assert_eq!(steps.of_epochs(3.0).unwrap(), 6);
    assert_eq!(steps.of_epochs(0.6).unwrap(), 2);
    // as in TRL's log
    let epochs = [0, 1, 2, 3].map(|done| steps.epochs_after(done));
    assert_eq!(epochs, [0.0, 4.0 / 6.0, 1.0, 1.0 + 4.0 / 6.0]);
}

// ms-swift#10050, transformers#40691
#[test]
fn a_run_that_goes_on_in_the_second_epoch_takes_the_rest_of_it() {
    let steps = Steps::new(12, 2, 2, SEED).unwrap();
    let rest: Vec<usize> = steps
        .from(4)
        .take(2)
        .flat_map(|step| step.micro_batches.concat())
        .collect();
    assert_eq!(rest, SEED.epoch(12, 1)[4..]);
    let first = steps.from(4).next().unwrap();
    assert_eq!((first.step, first.epoch), (4, 1));
}

proptest! {
    #[test]
    fn each_epoch_takes_each_row_once(
        rows in 1_usize..60, batch in 1_usize..8, accumulation in 1_usize..5, seed in any::<u64>(), first in 0_usize..40,
    ) {
        let steps = Steps::new(rows, batch, accumulation, Order::Random { seed }).unwrap();
        let all: Vec<_> = steps.from(0).take(first + steps.per_epoch()).collect();
        for epoch in all.chunk_by(|a, b| a.epoch == b.epoch).filter(|e| e.len() == steps.per_epoch()) {
            let mut taken: Vec<usize> = epoch.iter().flat_map(|step| step.micro_batches.concat()).collect();
            prop_assert_eq!(&taken, &permutation(rows, seed.wrapping_add(epoch[0].epoch as u64)));
            taken.sort_unstable();
            prop_assert_eq!(taken, (0..rows).collect::<Vec<_>>());
            for step in &epoch[..epoch.len() - 1] {
                prop_assert_eq!(step.micro_batches.len(), accumulation);
            }
        }
        // a run that goes on sees what the whole run sees
        let rest: Vec<_> = steps.from(first).take(steps.per_epoch()).collect();
        prop_assert_eq!(&rest[..], &all[first..]);
    }
}

#[test]
fn rows_go_through_the_model_up_to_a_number_of_tokens() {
    let tokens = [4, 6, 11, 1, 9, 1];
    let of = |most| parts(&[0, 1, 2, 3, 4, 5], most, |row| tokens[row]);
    assert_eq!(of(None), [[0, 1, 2, 3, 4, 5]]);
    let expected: [&[usize]; 4] = [&[0, 1], &[2], &[3, 4], &[5]];
    assert_eq!(of(Some(10)), expected);
    assert_eq!(of(Some(1)).len(), 6);
    assert_eq!(of(Some(32)).len(), 1);
}

proptest! {
    #[test]
    fn parts_are_the_rows_and_as_long_as_they_can_be(
        tokens in prop::collection::vec(1_usize..30, 1..20), most in 1_usize..60,
    ) {
        let rows: Vec<usize> = (0..tokens.len()).rev().collect();
        let parts = parts(&rows, Some(most), |row| tokens[row]);
        prop_assert_eq!(parts.concat(), &rows[..]);
        let sum = |part: &[usize]| part.iter().map(|row| tokens[*row]).sum::<usize>();
        for (at, part) in parts.iter().enumerate() {
            prop_assert!(part.len() == 1 || sum(part) <= most);
            if let Some(next) = parts.get(at + 1) {
                prop_assert!(sum(part) + tokens[next[0]] > most);
            }
        }
    }
}

#[test]
fn sizes_of_zero_are_errors() {
    let message = |rows, batch, accumulation| {
        let steps = Steps::new(rows, batch, accumulation, SEED);
        steps.unwrap_err().to_string()
    };
    assert_eq!(message(0, 1, 1), "`rows` must be at least 1, got 0");
    assert_eq!(message(1, 0, 1), "`batch` must be at least 1, got 0");
    assert_eq!(message(1, 1, 0), "`accumulation` must be at least 1, got 0");
    let epochs = |epochs| {
        let steps = Steps::new(4, 1, 1, SEED).unwrap();
        steps.of_epochs(epochs).unwrap_err().to_string()
    };
    assert_eq!(epochs(0.0), "`epochs` must be finite and > 0, got 0");
    assert_eq!(epochs(f64::NAN), "`epochs` must be finite and > 0, got NaN");
    assert_eq!(
        epochs(1e300),
        format!("`epochs` must be finite and > 0, got {}", 1e300)
    );
}

#[test]
fn a_micro_batch_larger_than_any_file_is_all_rows() {
    let most = usize::MAX;
    for (batch, accumulation) in [(most, 1), (1, most), (most, most)] {
        let steps = Steps::new(5, batch, accumulation, Order::Sequential).unwrap();
        for step in steps.from(0).take(2) {
            assert_eq!(step.micro_batches.concat(), [0, 1, 2, 3, 4]);
        }
    }
}

#[test]
fn schedules_are_those_of_transformers() {
    let factors = |kind, warmup, steps| {
        let schedule = schedule(kind, warmup, steps).unwrap();
        (0..steps)
            .map(|step| schedule.factor(step))
            .collect::<Vec<_>>()
    };
    assert_eq!(factors(Kind::Linear, 0.0, 3), [1.0, 2.0 / 3.0, 1.0 / 3.0]);
    assert_eq!(factors(Kind::Cosine, 1.0, 3), [0.0, 1.0, 0.5]);
    assert_eq!(factors(Kind::Constant, 0.0, 2), [1.0, 1.0]);
    assert_eq!(factors(Kind::ConstantWithWarmup, 2.0, 3), [0.0, 0.5, 1.0]);
    // a share is rounded up, a number of steps down
    assert_eq!(schedule(Kind::Linear, 0.1, 11).unwrap().warmup, 2);
    assert_eq!(schedule(Kind::Linear, 2.9, 11).unwrap().warmup, 2);
    let message = |kind, warmup| schedule(kind, warmup, 3).unwrap_err().to_string();
    assert_eq!(
        message(Kind::Constant, 2.0),
        "`constant` has no warm-up, got `warmup_steps` 2; use `constant_with_warmup`"
    );
    assert_eq!(
        message(Kind::Linear, -0.5),
        "`fit.warmup_steps` must be finite and >= 0, got -0.5"
    );
    assert!(message(Kind::Linear, 4.0).contains("`warmup` must be at most `steps`"));
}
