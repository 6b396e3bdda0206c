use candle_align::language::edits::{EditCosts, edit_script, edit_scripts};
use candle_align::language::second_thoughts::{
    EditTokens, second_thoughts_prompt, second_thoughts_sequence,
};
use candle_align::{Reduction, Result, SequenceBatch, SftConfig, TokenLogProbs, sft_loss};
use candle_core::{D, DType, Device, IndexOp, Tensor, Var};
use candle_nn::ops::softmax;

const TOKENS: EditTokens = EditTokens {
    separator: 8,
    insert: 9,
    delete: 10,
    replace: 11,
    content: 12,
    target: 13,
    digits: [14, 15, 16, 17, 18, 19, 20, 21, 22, 23],
};
const END: u32 = 24;
const VOCABULARY: usize = 25;

/// Descends the mean loss per token on free logits, one row for each position of each sequence; the
/// next-token probabilities at the end.
fn trained(batch: &SequenceBatch, shared: bool, alpha: f64, steps: usize) -> Tensor {
    let (rows, time) = batch.tokens.dims2().unwrap();
    let shape = (if shared { 1 } else { rows }, time, VOCABULARY);
    let logits = Var::zeros(shape, DType::F64, &Device::Cpu).unwrap();
    for _ in 0..steps {
        let step = || -> Result<Tensor> {
            let all = logits.broadcast_as((rows, time, VOCABULARY))?;
            let log_probs = TokenLogProbs::next_token(&all, &batch.tokens, &batch.mask)?;
            let loss = sft_loss(&log_probs, None, &SftConfig::default())?;
            let grads = loss.reduce(Reduction::SequenceMean)?.backward()?;
            Ok((grads.get(&logits).expect("a gradient") * alpha)?)
        };
        let next = (logits.as_tensor() - step().unwrap()).unwrap();
        logits.set(&next).unwrap();
    }
    softmax(logits.as_tensor(), D::Minus1).unwrap()
}

#[test]
fn what_was_learned_reads_as_the_script_and_leads_to_the_target() {
    let pairs: [(&[u32], &[u32]); 3] = [
        (&[1, 2, 3, 4], &[1, 5, 3]),
        (&[2, 2], &[6, 2, 2, 7]),
        (&[3, 4], &[3, 4]),
    ];
    let context = [0];
    let sequences: Vec<_> = pairs
        .iter()
        .map(|(source, target)| {
            let script = edit_script(source, target, &EditCosts::default()).unwrap();
            let sequence = second_thoughts_sequence(&context, source, &script, &TOKENS);
            sequence.unwrap().learned(&[END])
        })
        .collect();
    let batch = SequenceBatch::new(&sequences, END, &Device::Cpu).unwrap();
    let probabilities = trained(&batch, false, 3.0, 60);

    for (row, (source, target)) in pairs.iter().enumerate() {
        let prompt = second_thoughts_prompt(&context, source, &TOKENS).unwrap();
        // nothing of the prompt was learned
        for position in 0..prompt.len() - 1 {
            let next = probabilities.i((row, position)).unwrap();
            let even = next.to_vec1::<f64>().unwrap();
            assert!(even.iter().all(|p| (p - 1.0 / 25.0).abs() < 1e-15));
        }
        // the likeliest token after each, from the prompt's end on
        let mut generated = vec![];
        while generated.last() != Some(&END) {
            let at = prompt.len() - 1 + generated.len();
            let next = probabilities.i((row, at)).unwrap();
            let likeliest = next.argmax(0).unwrap().to_scalar::<u32>().unwrap();
            let probability = next.to_vec1::<f64>().unwrap()[likeliest as usize];
            assert!(probability > 0.95, "{row}, {at}: {probability}");
            generated.push(likeliest);
        }
        let (script, rest) = TOKENS.parse(&generated).unwrap();
        assert_eq!(rest.split_last(), Some((&END, *target)));
        assert_eq!(script.apply(source).unwrap(), *target);
    }
}

#[test]
fn scripts_of_several_cost_sets_are_learned_in_their_shares() {
    // two ways from 1 to 2: replace; insert and delete. A model that sees the prompt alone gives
    // each way's first token the share of the data: a half here
    let costs = |replace| EditCosts {
        replace,
        ..Default::default()
    };
    let scripts = edit_scripts(&[1], &[2], &[costs(1.0), costs(3.0)]).unwrap();
    assert_eq!(scripts.len(), 2);
    let sequences: Vec<_> = scripts
        .iter()
        .map(|script| second_thoughts_sequence(&[], &[1], script, &TOKENS).unwrap())
        .collect();
    let batch = SequenceBatch::new(&sequences, END, &Device::Cpu).unwrap();
    // one table for both: after the prompt they have seen the same
    let probabilities = trained(&batch, true, 2.0, 400);
    let first = probabilities.i((0, 1)).unwrap().to_vec1::<f64>().unwrap();
    for operation in [TOKENS.replace, TOKENS.insert] {
        let share = first[operation as usize];
        // what the 23 other symbols keep together falls like 1/((½ + 1/23) α N)
        let others = 1.0 / ((0.5 + 1.0 / 23.0) * 2.0 * 400.0);
        assert!(
            (share - (0.5 - others / 2.0)).abs() < 0.1 * others,
            "{share}"
        );
    }
}
