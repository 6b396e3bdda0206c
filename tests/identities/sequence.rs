use crate::common::{EXACT, assert_close, numbers};
use candle_align::{Reduction, Sequence, SequenceBatch, SftConfig, TokenLogProbs, sft_loss};
use candle_core::{D, Device, Tensor};

/// Logits that depend on the position alone, so that a row's loss is a sum over what it learns.
fn loss(batch: &SequenceBatch) -> Vec<f64> {
    let (rows, time) = batch.tokens.dims2().unwrap();
    let logits: Vec<f64> = (0..time * 5).map(|i| ((i * 7) % 11) as f64 / 3.0).collect();
    let logits = Tensor::from_vec(logits, (1, time, 5), &Device::Cpu).unwrap();
    let logits = logits.broadcast_as((rows, time, 5)).unwrap();
    let log_probs = TokenLogProbs::next_token(&logits, &batch.tokens, &batch.mask).unwrap();
    let loss = sft_loss(&log_probs, None, &SftConfig::default()).unwrap();
    let total = numbers(&loss.reduce(Reduction::Sum).unwrap())[0];
    let rows = numbers(&loss.loss.sum(D::Minus1).unwrap());
    assert_close(&[rows.iter().sum()], &[total], EXACT, "sum");
    rows
}

#[test]
fn padding_changes_no_loss_whatever_it_is() {
    let short = Sequence::new().given(&[0]).learned(&[1, 2]);
    let long = Sequence::new().given(&[3]).learned(&[4, 0, 1, 2, 3]);
    let alone = loss(&SequenceBatch::new(std::slice::from_ref(&short), 0, &Device::Cpu).unwrap());
    // 4 is a symbol, 99 is none: neither is read
    for padding in [4, 99] {
        let both = [short.clone(), long.clone()];
        let both = loss(&SequenceBatch::new(&both, padding, &Device::Cpu).unwrap());
        assert_close(&both[..1], &alone, EXACT, "the short one");
    }
}

#[test]
fn what_is_learned_adds_up_to_what_learns_all_of_it() {
    let parts = [
        Sequence::new().given(&[0]).learned(&[1, 2]).given(&[3]),
        Sequence::new().given(&[0, 1, 2]).learned(&[3]),
    ];
    let whole = [Sequence::new().given(&[0]).learned(&[1, 2, 3])];
    let parts = loss(&SequenceBatch::new(&parts, 0, &Device::Cpu).unwrap());
    let whole = loss(&SequenceBatch::new(&whole, 0, &Device::Cpu).unwrap());
    assert_close(&[parts.iter().sum()], &whole, EXACT, "loss");
}
