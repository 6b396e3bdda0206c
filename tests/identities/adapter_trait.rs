//! What [`Adapter`] promises for every layer, seen through `dyn Adapter` as a model holds its layers.

use crate::common::adapted::starts;
use crate::common::adapters::disturb;
use crate::common::lora::*;
use crate::common::{EXACT, assert_close, numbers};
use candle_align::Result;
use candle_align::parameter_efficient::{
    Adapter, AdapterState, BiasLinear, BlockScale, FrozenBase, FrozenLinear, LoraBias, LoraConfig,
    LoraEmbedding, LoraLinear, QloraLinear,
};
use candle_align::peft::AnyAdapter;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Embedding, Module};

/// A user's own adapter: h = g · (W x + b).
struct Gain {
    gain: Var,
    state: AdapterState,
}

impl Gain {
    fn new(dropout: f64) -> Self {
        let base = base(DType::F64);
        let base = FrozenLinear::new(base.weight().clone(), base.bias().cloned()).unwrap();
        Self {
            gain: Var::new(1f64, &Device::Cpu).unwrap(),
            state: AdapterState::new(base, dropout).unwrap(),
        }
    }
}

impl Adapter for Gain {
    fn state(&self) -> &AdapterState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut AdapterState {
        &mut self.state
    }

    fn vars(&self) -> Vec<(&'static str, &Var)> {
        vec![("gain", &self.gain)]
    }

    fn adapted(&self, _: &Tensor, dropped: &Tensor) -> Result<Tensor> {
        Ok(self.frozen().forward(dropped)?.broadcast_mul(&self.gain)?)
    }

    fn merge_weight(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(weight.broadcast_mul(&self.gain)?))
    }

    fn merge_bias(&self, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
        Ok(bias.map(|b| b.broadcast_mul(&self.gain)).transpose()?)
    }
}

impl Module for Gain {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(self.forward_eval(x)?)
    }
}

/// Every kind of layer after some training, with an input.
fn layers() -> Vec<(&'static str, Box<dyn Adapter>, Tensor)> {
    let (base, x) = (base(DType::F64), tensor(&X));
    let mut layers: Vec<(&'static str, Box<dyn Adapter>, Tensor)> = Vec::new();
    for bias in [LoraBias::Frozen, LoraBias::Base, LoraBias::Update] {
        let config = LoraConfig { bias, ..config() };
        let lora = LoraLinear::new(&base, &config, &mut rng(7)).unwrap();
        let qlora = QloraLinear::new(&base, BlockScale::Double, &config, &mut rng(7)).unwrap();
        layers.push(("LoRA", Box::new(lora.clone()), x.clone()));
        layers.push(("of a file", Box::new(AnyAdapter::Lora(lora)), x.clone()));
        layers.push(("QLoRA", Box::new(qlora), x.clone()));
    }
    let bias = BiasLinear::new(&base).unwrap();
    layers.push(("BitFit", Box::new(bias), x.clone()));
    layers.push(("a user's own", Box::new(Gain::new(0.0)), x.clone()));
    for (name, layer) in starts(DType::F64) {
        layers.push((name, layer, x.clone()));
    }
    let table = Embedding::new(irregular(&[5, 3]), 3);
    let embedding = LoraEmbedding::new(&table, &config(), &mut rng(7)).unwrap();
    let tokens = Tensor::new(&[[4u32, 0], [2, 2]], &Device::Cpu).unwrap();
    layers.push(("LoRA of a table", Box::new(embedding), tokens));
    for (_, layer, _) in &layers {
        disturb(&layer.trainable(""));
    }
    layers
}

/// What is beneath the layer.
fn beneath(layer: &dyn Adapter, x: &Tensor) -> Vec<u64> {
    bits(&match layer.frozen() {
        FrozenBase::Linear(base) => base.forward(x).unwrap(),
        FrozenBase::Nf4(base) => base.forward(x).unwrap(),
        FrozenBase::Embedding(base) => base.forward(x).unwrap(),
    })
}

#[test]
fn every_layer_merges_and_comes_back_to_the_bit() {
    for (name, mut layer, x) in layers() {
        let beside = layer.forward(&x).unwrap();
        assert_ne!(bits(&beside), beneath(&*layer, &x), "{name}");
        assert!(layer.is_enabled() && !layer.is_merged(), "{name}");
        for _ in 0..2 {
            layer.merge().unwrap();
            assert!(layer.is_merged(), "{name}");
            let merged = layer.forward(&x).unwrap();
            assert_eq!(merged.dims(), beside.dims(), "{name}");
            assert_close(&numbers(&merged), &numbers(&beside), 4.0 * EXACT, name);
        }
        layer.unmerge();
        assert!(!layer.is_merged(), "{name}");
        assert_eq!(bits(&layer.forward(&x).unwrap()), bits(&beside), "{name}");
    }
}

#[test]
fn the_merged_weights_are_those_that_a_merged_layer_uses() {
    for (name, mut layer, x) in layers() {
        let (weight, bias) = layer.merged_weights().unwrap();
        assert!(!weight.track_op(), "{name}");
        layer.merge().unwrap();
        let want = layer.forward(&x).unwrap();
        let found = match layer.frozen() {
            FrozenBase::Embedding(_) => Embedding::new(weight, 3).forward(&x),
            _ => FrozenLinear::new(weight, bias).unwrap().forward(&x),
        };
        assert_eq!(bits(&found.unwrap()), bits(&want), "{name}");
    }
}

#[test]
fn every_disabled_layer_is_its_base_to_the_bit_merged_or_not() {
    for (name, mut layer, x) in layers() {
        for merged in [false, true] {
            if merged {
                layer.merge().unwrap();
            }
            layer.set_enabled(false);
            assert!(!layer.is_enabled(), "{name}");
            let off = bits(&layer.forward(&x).unwrap());
            assert_eq!(off, beneath(&*layer, &x), "{name}");
            let trained = layer.forward_train(&x, &mut rng(1)).unwrap();
            assert_eq!(bits(&trained), off, "{name}");
            layer.set_enabled(true);
        }
    }
}

#[test]
fn no_layer_trains_while_it_is_merged_and_none_drops_what_it_was_not_told_to() {
    for (name, mut layer, x) in layers() {
        let trained = layer.forward_train(&x, &mut rng(1)).unwrap();
        let plain = layer.forward(&x).unwrap();
        assert_eq!(bits(&trained), bits(&plain), "{name}");
        layer.merge().unwrap();
        let error = layer.forward_train(&x, &mut rng(1)).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("::forward_train: `self` is merged"),
            "{error}"
        );
        assert!(error.ends_with("call `unmerge` first"), "{error}");
    }
}

#[test]
fn the_trained_numbers_are_counted_and_named_in_order() {
    for (name, layer, _) in layers() {
        let vars = layer.trainable("m.q");
        let sum: usize = vars.iter().map(|(_, var)| var.elem_count()).sum();
        assert_eq!(layer.parameters(), sum, "{name}");
        assert!(vars.is_sorted_by(|a, b| a.0 < b.0), "{name}");
        for ((long, one), (short, other)) in vars.iter().zip(layer.vars()) {
            assert_eq!(long, &format!("m.q.{short}"), "{name}");
            assert_eq!(one.id(), other.id(), "{name}");
        }
    }
}

#[test]
fn a_users_own_adapter_is_given_dropout_and_names_in_errors() {
    let x = tensor(&X);
    let mut layer = Gain::new(0.5);
    let mean = (0..2000).fold(vec![0.0; 6], |mut sum, seed| {
        let h = layer.forward_train(&x, &mut rng(seed)).unwrap();
        sum.iter_mut()
            .zip(numbers(&h))
            .for_each(|(sum, h)| *sum += h / 2000.0);
        sum
    });
    // the seeds are fixed: five standard errors of a sum of four products
    assert_close(&mean, &numbers(&layer.forward(&x).unwrap()), 0.8, "mean");
    layer
        .gain
        .set(&Tensor::new(f64::NAN, &Device::Cpu).unwrap())
        .unwrap();
    assert_eq!(
        layer.merge().unwrap_err().to_string(),
        "Adapter::merge: `weight` would hold NaN at flat position 0 after the merge; nothing was changed"
    );
    assert!(!layer.is_merged());
    let short = x.narrow(1, 0, 3).unwrap();
    assert_eq!(
        layer.forward_eval(&short).unwrap_err().to_string(),
        "Adapter::forward: `x` has shape [2, 3], expected [.., in=4 (from `weight`)]"
    );
    assert_eq!(
        AdapterState::new(layer.frozen().clone(), 1.0)
            .unwrap_err()
            .to_string(),
        "AdapterState::new: `dropout` must be in [0, 1), got 1"
    );
}
