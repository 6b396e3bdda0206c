//! Where a model in half precision arrives whose gradient is a sum over micro-batches.

use crate::common::numbers;
use candle_align::training::{
    AdamW, AdamWConfig, Decay, GradAccumulator, ParameterGroup, Schedule, clip_grad_norm,
};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

/// ½ (w − 1)² in one micro-batch, ½ (w + 1)² / 512 in each of 512 more: the optimum is 0. A sum that
/// loses what is small goes to 1.
#[test]
fn many_small_micro_batches_weigh_what_they_weigh_in_half_precision() {
    const SMALL: usize = 512;
    for dtype in [DType::BF16, DType::F16] {
        let start = Tensor::full(0.5f64, 1, &Device::Cpu).unwrap();
        let w = Var::from_tensor(&start.to_dtype(dtype).unwrap()).unwrap();
        let vars = vec![("w".to_string(), w.clone())];
        let group = ParameterGroup::new(vars.clone(), 0.0);
        let mut adamw = AdamW::new(vec![group], AdamWConfig::default()).unwrap();
        let steps = 120;
        let schedule = Schedule::new(steps, 5, Decay::Linear, 0.0).unwrap();
        for step in 0..steps {
            let here = numbers(&w)[0];
            let part = |slope: f64| {
                let mut grads = GradStore::default();
                let grad = Tensor::full(slope, 1, &Device::Cpu).unwrap();
                grads.insert(&w, grad.to_dtype(dtype).unwrap());
                grads
            };
            let (large, small) = (part(here - 1.0), part((here + 1.0) / SMALL as f64));
            let mut sum = GradAccumulator::new();
            sum.add(&vars, &large).unwrap();
            for _ in 0..SMALL {
                sum.add(&vars, &small).unwrap();
            }
            let mut grads = sum.take();
            clip_grad_norm(&vars, &mut grads, 1.0).unwrap();
            adamw
                .set_learning_rate(0.05 * schedule.factor(step))
                .unwrap();
            adamw.step(&grads).unwrap();
        }
        let found = numbers(&w)[0];
        assert!(found.abs() < 0.02, "{dtype:?}: {found}");
    }
}
