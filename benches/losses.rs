//! Every objective, forward and backward, at batch 64 and at list length 8: sums over
//! log-probabilities that are already computed, so microseconds against the milliseconds of a model.
//!
//! `cargo bench --bench losses`

use candle_align::parameter_efficient::{LoraConfig, LoraLinear};
use candle_align::*;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Linear, Module};
use criterion::{Criterion, criterion_group, criterion_main};
use rand::SeedableRng;
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 64;
const LIST: usize = 8;
const TIME: usize = 128;

/// Numbers in (−3, 0), the same in every run.
fn values(shape: &[usize], step: f32) -> Var {
    let n: usize = shape.iter().product();
    let data: Vec<f32> = (0..n)
        .map(|i| 1.5 * (i as f32 * step).sin() - 1.6)
        .collect();
    Var::from_tensor(&Tensor::from_vec(data, shape, &Device::Cpu).unwrap()).unwrap()
}

fn constant(shape: &[usize], step: f32) -> Tensor {
    values(shape, step).as_detached_tensor()
}

fn ones(shape: &[usize]) -> Tensor {
    Tensor::ones(shape, DType::U8, &Device::Cpu).unwrap()
}

fn pair(step: f32) -> Pair<Tensor> {
    Pair {
        chosen: values(&[BATCH], step).as_tensor().clone(),
        rejected: values(&[BATCH], step + 0.1).as_tensor().clone(),
    }
}

fn tokens(step: f32) -> TokenLogProbs {
    TokenLogProbs::new(&values(&[BATCH, TIME], step), &ones(&[BATCH, TIME])).unwrap()
}

fn candidates() -> Candidates {
    let shape = [BATCH, LIST];
    let lengths = (constant(&shape, 0.3) * 4.0)
        .unwrap()
        .abs()
        .unwrap()
        .ceil()
        .unwrap();
    Candidates::new(&values(&shape, 0.7), &lengths, &constant(&shape, 1.1), None).unwrap()
}

fn bench(c: &mut Criterion, group: &str, name: &str, loss: impl Fn() -> Result<Tensor>) {
    c.benchmark_group(group).bench_function(name, |b| {
        b.iter(|| black_box(loss().unwrap().mean_all().unwrap().backward().unwrap()))
    });
}

fn losses(c: &mut Criterion) {
    let log_probs = tokens(0.4);
    bench(c, "sft", "batch 64 x 128 tokens", || {
        sft_loss(&log_probs, None, &SftConfig::default())?.reduce(Reduction::TokenMean)
    });

    let scores = pair(0.2);
    bench(c, "reward model", "pairs, batch 64", || {
        Ok(pairwise_reward_loss(&scores, None, &PairwiseRewardConfig::default())?.loss)
    });
    let (list, labels) = (values(&[BATCH, LIST], 0.9), constant(&[BATCH, LIST], 1.7));
    bench(c, "reward model", "ranked, batch 64 x 8", || {
        ranked_reward_loss(&list, &labels, None, &RankedRewardConfig::default())
    });
    bench(c, "reward model", "Plackett-Luce, batch 64 x 8", || {
        plackett_luce_reward_loss(&list, &labels, None)
    });

    let (old, advantages) = (
        constant(&[BATCH, TIME], 0.41),
        constant(&[BATCH, TIME], 2.0),
    );
    bench(c, "ppo", "policy, batch 64 x 128 tokens", || {
        Ok(
            ppo_policy_loss(&log_probs, &old, &advantages, &PpoConfig::default())?
                .loss
                .loss,
        )
    });
    let (estimates, mask) = (values(&[BATCH, TIME], 0.6), ones(&[BATCH, TIME]));
    bench(c, "ppo", "value, batch 64 x 128 tokens", || {
        let config = PpoValueConfig::default();
        Ok(ppo_value_loss(&estimates, &old, &advantages, &mask, &config)?.loss)
    });
    c.benchmark_group("ppo")
        .bench_function("gae, batch 64 x 128 tokens", |b| {
            b.iter(|| black_box(gae(&advantages, &old, &mask, &GaeConfig::default()).unwrap()))
        });

    let reference = pair(0.5).detach();
    bench(c, "dpo", "batch 64", || {
        Ok(dpo_loss(&scores, Some(&reference), &DpoConfig::default())?.loss)
    });
    let answers = candidates();
    bench(c, "pro", "batch 64 x 8", || {
        Ok(pro_loss(&answers, &ProConfig::default())?.loss)
    });
    bench(c, "slic", "rank, batch 64", || {
        Ok(slic_rank_loss(&scores, &SlicConfig::default())?.loss)
    });
    bench(c, "slic", "list, batch 64 x 8", || {
        slic_list_loss(&answers, &SlicConfig::default())
    });
    bench(c, "slic", "expected reward, batch 64 x 8", || {
        slic_expected_reward_loss(&answers)
    });
    bench(c, "rrhf", "batch 64 x 8", || {
        Ok(rrhf_loss(&answers, &RrhfConfig::default())?.loss)
    });

    // a layer of 512 x 512 on 64 x 16 rows, the base linear trained, and LoRA of rank 8 over it
    let base = Linear::new(values(&[512, 512], 0.77).as_tensor().clone(), None);
    let mut rng = rand::rngs::StdRng::seed_from_u64(0);
    let lora = LoraLinear::new(&base, &LoraConfig::default(), &mut rng).unwrap();
    let x = values(&[BATCH * 16, 512], 0.33);
    bench(c, "lora", "ordinary linear, 1024 rows", || {
        Ok(base.forward(&x)?)
    });
    bench(c, "lora", "rank 8 over a frozen linear, 1024 rows", || {
        Ok(lora.forward(&x)?)
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = losses
}
criterion_main!(benches);
