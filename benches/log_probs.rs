//! Log-probabilities of chosen tokens, forward and backward, against candle's own operations.
//!
//! `cargo bench --bench log_probs`

use candle_align::{Statistics, TokenLogProbs};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::ops::log_softmax;
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn logits(rows: usize, vocabulary: usize) -> Var {
    let data: Vec<f32> = (0..rows * vocabulary)
        .map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / 1e6 - 8.0)
        .collect();
    let data = Tensor::from_vec(data, (1, rows, vocabulary), &Device::Cpu).unwrap();
    Var::from_tensor(&data).unwrap()
}

fn log_probs(c: &mut Criterion) {
    for (rows, vocabulary) in [(2048, 32000), (512, 151_936)] {
        let logits = logits(rows, vocabulary);
        let targets: Vec<u32> = (0..rows).map(|i| (i * 7919 % vocabulary) as u32).collect();
        let targets = Tensor::from_vec(targets, (1, rows), &Device::Cpu).unwrap();
        let mask = Tensor::ones((1, rows), DType::U8, &Device::Cpu).unwrap();
        let (flat_targets, column) = (
            targets.flatten_all().unwrap(),
            targets.unsqueeze(2).unwrap(),
        );
        // candle's cross_entropy takes two axes; the variable is made in that shape, not reshaped
        let flat = Var::from_tensor(&logits.squeeze(0).unwrap()).unwrap();

        let mut group = c.benchmark_group(format!("[{rows}, {vocabulary}] f32"));
        group.sample_size(10);
        let none = Statistics::default();
        let ours = || TokenLogProbs::aligned(&logits, &targets, &mask, none).unwrap();
        group.bench_function("TokenLogProbs, forward", |b| b.iter(|| black_box(ours())));
        group.bench_function("TokenLogProbs, forward and backward", |b| {
            b.iter(|| black_box(ours().sum().unwrap().backward().unwrap()))
        });
        let all = Statistics {
            entropy: true,
            vocabulary_mean: true,
            log_collision: true,
        };
        group.bench_function(
            "TokenLogProbs with all statistics, forward and backward",
            |b| {
                b.iter(|| {
                    let out = TokenLogProbs::aligned(&logits, &targets, &mask, all).unwrap();
                    let loss =
                        (out.sum().unwrap() - out.entropy().unwrap().sum(1).unwrap()).unwrap();
                    black_box(loss.backward().unwrap())
                })
            },
        );
        group.bench_function("candle cross_entropy, forward and backward", |b| {
            b.iter(|| {
                let loss = candle_nn::loss::cross_entropy(&flat, &flat_targets).unwrap();
                black_box(loss.backward().unwrap())
            })
        });
        group.bench_function("candle log_softmax and gather, forward and backward", |b| {
            b.iter(|| {
                let log_p = log_softmax(logits.as_tensor(), 2).unwrap();
                let loss = log_p.gather(&column, 2).unwrap().sum_all().unwrap();
                black_box(loss.backward().unwrap())
            })
        });
        group.finish();
    }
}

criterion_group!(benches, log_probs);
criterion_main!(benches);
