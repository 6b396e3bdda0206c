use candle_align::{Sequence, SequenceBatch};
use candle_core::Device;

fn message(sequences: &[Sequence]) -> String {
    SequenceBatch::new(sequences, 0, &Device::Cpu)
        .unwrap_err()
        .to_string()
}

#[test]
fn a_batch_of_nothing() {
    assert_eq!(message(&[]), "SequenceBatch::new: `sequences` is empty");
}

#[test]
fn a_sequence_that_teaches_nothing() {
    let good = Sequence::new().given(&[1]).learned(&[2]);
    let given = Sequence::new().given(&[1, 2, 3]);
    // the first token is predicted by nothing
    let first = Sequence::new().learned(&[1]).given(&[2]);
    for bad in [given, first, Sequence::new()] {
        assert_eq!(
            message(&[good.clone(), bad]),
            "SequenceBatch::new: `sequences[1]` has no learned token after its first"
        );
    }
}
