use crate::common::adapted::*;
use crate::common::lora::*;
use crate::common::{says, vector};
use candle_align::parameter_efficient::{Adapter, DoraLinear, LoraBias, LoraConfig};
use candle_core::DType;
use candle_nn::{Linear, Module};

#[test]
fn settings_and_base_are_checked() {
    let new = |config: LoraConfig| DoraLinear::new(&base(DType::F64), &config, &mut rng(1));
    says(
        new(LoraConfig {
            rank: 0,
            ..config()
        }),
        "DoraLinear::new: `rank` must be >= 1, got 0",
    );
    let bias = LoraBias::Update;
    says(
        new(LoraConfig { bias, ..config() }),
        "DoraLinear::new: `bias` must be Frozen or Base: DoRA has no bias of B, got Update",
    );
    let bare = Linear::new(base(DType::F64).weight().clone(), None);
    let bias = LoraBias::Base;
    says(
        DoraLinear::new(&bare, &LoraConfig { bias, ..config() }, &mut rng(1)),
        "DoraLinear::new: `base` has no bias, which LoraBias::Base would train",
    );
    let line = Linear::new(vector(&[1.0]), None);
    says(
        DoraLinear::new(&line, &config(), &mut rng(1)),
        "DoraLinear::new: `base.weight` has shape [1], expected [out, in]",
    );
}

#[test]
fn inputs_and_merges_are_checked() {
    let mut layer = dora(&config(), DType::F64);
    let single = tensor(&X).to_dtype(DType::F32).unwrap();
    says(
        layer.forward(&single),
        "DoraLinear::forward: `x` is f32, expected f64 (from `weight`)",
    );
    layer.merge().unwrap();
    says(
        layer.forward_train(&tensor(&X), &mut rng(1)),
        "DoraLinear::forward_train: `self` is merged, so that nothing would get a gradient; call \
         `unmerge` first",
    );
    set(layer.magnitude(), vector(&[1.0, f64::INFINITY, 1.0]));
    says(
        layer.merge(),
        "DoraLinear::merge: `weight` would hold -inf at flat position 4 after the merge; nothing was \
         changed",
    );
}
