use crate::common::numbers;
use crate::common::words::{bytes, learned, text};
use candle_align::{Encode, Sequence, SequenceBatch};
use candle_core::{DType, Device};

#[test]
fn tokens_stand_in_their_order_with_a_mask() {
    let sequence = Sequence::new()
        .given(&[1, 2])
        .learned(&[3])
        .given(&[])
        .given(&[4])
        .learned(&[5, 6]);
    assert_eq!(sequence.tokens(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(sequence.mask(), [0, 0, 1, 0, 1, 1]);
    assert_eq!(sequence.len(), 6);
    assert!(!sequence.is_empty());
    assert!(Sequence::new().is_empty());
    assert_eq!(Sequence::new().len(), 0);
}

#[test]
fn sequences_are_joined() {
    let first = Sequence::new().given(&bytes("a").unwrap());
    let second = Sequence::new()
        .learned(&bytes("b").unwrap())
        .given(&bytes("c").unwrap());
    let joined = first.followed_by(&second);
    assert_eq!(
        (text(&joined), learned(&joined)),
        ("abc".into(), "_b_".into())
    );
    assert_eq!(joined.clone().followed_by(&Sequence::new()), joined);
}

#[test]
fn a_batch_is_padded_on_the_right() {
    let sequences = [
        Sequence::new().given(&[1]).learned(&[2]),
        Sequence::new().given(&[3]).learned(&[4, 5, 6]),
        Sequence::new().learned(&[7, 8]).given(&[9]),
    ];
    let batch = SequenceBatch::new(&sequences, 99, &Device::Cpu).unwrap();
    assert_eq!(batch.tokens.dims(), [3, 4]);
    assert_eq!(
        (batch.tokens.dtype(), batch.mask.dtype()),
        (DType::U32, DType::U8)
    );
    let tokens = [1., 2., 99., 99., 3., 4., 5., 6., 7., 8., 9., 99.];
    assert_eq!(numbers(&batch.tokens), tokens);
    let mask = [0., 1., 0., 0., 0., 1., 1., 1., 1., 1., 0., 0.];
    assert_eq!(numbers(&batch.mask), mask);
}

#[test]
fn a_closure_is_a_tokenizer() {
    let upper = |text: &str| bytes(&text.to_uppercase());
    assert_eq!(upper.encode("ab").unwrap(), [65, 66]);
}
