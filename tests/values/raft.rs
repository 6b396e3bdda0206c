use crate::common::{EXACT, assert_close, bits, matrix, numbers};
use candle_align::RaftConfig;
use candle_align::online::raft::{RefreshedSet, best_of_k, kl_adjusted_rewards, top_share};
use candle_core::{DType, Device, Tensor};

#[test]
fn the_best_answer_to_each_prompt() {
    let rewards = matrix(&[&[0.1, 0.9, 0.5], &[-3.0, -4.0, -5.0], &[1.0, 2.0, 3.0]]);
    // row = prompt · 3 + answer
    assert_eq!(best_of_k(&rewards, None).unwrap(), [1, 3, 6 + 2]);
    let single = rewards.to_dtype(DType::F32).unwrap();
    assert_eq!(best_of_k(&single, None).unwrap(), [1, 3, 8]);
}

#[test]
fn of_equal_answers_the_first() {
    let rewards = matrix(&[&[1.0, 2.0, 2.0], &[0.0, 0.0, 0.0], &[-0.0, 0.0, -1.0]]);
    assert_eq!(best_of_k(&rewards, None).unwrap(), [1, 3, 6]);
    assert_eq!(top_share(&rewards, None, 3.0 / 9.0).unwrap(), [0, 1, 2]);
    // 2, 2, 1, and the first of the zeros
    assert_eq!(top_share(&rewards, None, 4.0 / 9.0).unwrap(), [0, 1, 2, 3]);
    let late = matrix(&[&[0.0, 0.0, 0.0, 1.0]]);
    assert_eq!(top_share(&late, None, 0.5).unwrap(), [0, 3]);
}

#[test]
fn one_answer_is_the_best_and_none_is_none() {
    let one = matrix(&[&[-7.0], &[3.0]]);
    assert_eq!(best_of_k(&one, None).unwrap(), [0, 1]);
    for shape in [(0, 3), (3, 0)] {
        let nothing = Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap();
        assert_eq!(best_of_k(&nothing, None).unwrap(), [0usize; 0]);
        assert_eq!(top_share(&nothing, None, 1.0).unwrap(), [0usize; 0]);
    }
}

#[test]
fn answers_under_the_mask_are_not_there() {
    let rewards = matrix(&[
        &[9.0, 1.0, f64::NAN],
        &[f64::INFINITY, 8.0, 8.0],
        &[0.0, 3.0, 2.0],
    ]);
    let mask = bits(&[&[0, 1, 0], &[0, 0, 0], &[1, 0, 255]]);
    // the second prompt has no answer, and no row
    assert_eq!(best_of_k(&rewards, Some(&mask)).unwrap(), [1, 8]);
    // three answers count: 1, 0 and 2
    assert_eq!(top_share(&rewards, Some(&mask), 0.34).unwrap(), [8]);
    assert_eq!(top_share(&rewards, Some(&mask), 0.67).unwrap(), [1, 8]);
    assert_eq!(top_share(&rewards, Some(&mask), 1.0).unwrap(), [1, 6, 8]);
}

#[test]
fn the_best_share_of_a_batch() {
    let rewards = matrix(&[&[0.5, 4.0], &[3.0, 2.0], &[-1.0, 1.0], &[0.0, 6.0]]);
    for (share, rows) in [
        (0.125, vec![7]),
        (0.25, vec![1, 7]),
        (0.5, vec![1, 2, 3, 7]),
        (1.0, vec![0, 1, 2, 3, 4, 5, 6, 7]),
        // 8 · 0.3 = 2.4 and 8 · 0.32 = 2.56
        (0.3, vec![1, 7]),
        (0.32, vec![1, 2, 7]),
        // never nothing
        (0.001, vec![7]),
    ] {
        assert_eq!(top_share(&rewards, None, share).unwrap(), rows, "{share}");
    }
    // 0.29 · 100 is below 29 in f64, and is 29
    let hundred = Tensor::arange(0f64, 100.0, &Device::Cpu).unwrap();
    let hundred = hundred.reshape((100, 1)).unwrap();
    let want: Vec<usize> = (71..100).collect();
    assert_eq!(top_share(&hundred, None, 0.29).unwrap(), want);
}

#[test]
fn leaving_the_reference_costs_beta_a_nat() {
    let rewards = matrix(&[&[1.0, 1.2], &[0.0, -0.5]]);
    let policy = matrix(&[&[-5.0, -2.0], &[-7.5, -1.0]]);
    let reference = matrix(&[&[-5.5, -9.0], &[-6.0, -1.0]]);
    let adjusted = |beta| {
        numbers(&kl_adjusted_rewards(&rewards, &policy, &reference, &RaftConfig { beta }).unwrap())
    };
    let want = [1.0 - 0.3 * 0.5, 1.2 - 0.3 * 7.0, 0.3 * 1.5, -0.5];
    assert_close(&adjusted(0.3), &want, EXACT, "adjusted");
    assert_eq!(adjusted(0.0), [1.0, 1.2, 0.0, -0.5]);
    assert_eq!(RaftConfig::default(), RaftConfig { beta: 0.0 });
}

#[test]
fn without_a_price_the_log_probabilities_may_be_anything() {
    let rewards = matrix(&[&[1.0, 2.0]]);
    let nowhere = matrix(&[&[f64::NEG_INFINITY, f64::NAN]]);
    let same = kl_adjusted_rewards(&rewards, &nowhere, &nowhere, &RaftConfig::default()).unwrap();
    assert_eq!(numbers(&same), [1.0, 2.0]);
}

#[test]
fn the_refreshed_set_keeps_the_best_of_all_rounds() {
    let mut set = RefreshedSet::new(3).unwrap();
    assert_eq!((set.capacity(), set.items()), (3, &[][..]));
    set.merge([("a", 1.0), ("b", -2.0)]).unwrap();
    assert_eq!(set.items(), [("a", 1.0), ("b", -2.0)]);
    set.merge([("c", 0.5), ("d", 3.0)]).unwrap();
    assert_eq!(set.items(), [("d", 3.0), ("a", 1.0), ("c", 0.5)]);
    set.merge([]).unwrap();
    assert_eq!(set.items().len(), 3);
    // equal rewards: the older stays, and stands first
    set.merge([("e", 0.5), ("f", 1.0)]).unwrap();
    assert_eq!(set.items(), [("d", 3.0), ("a", 1.0), ("f", 1.0)]);
}
