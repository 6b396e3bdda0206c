//! Methods of a whole model, on the examples' decoder: every number that is trained.

use crate::common::adapters::{assert_gradients, disturb, objective};
use candle_align::parameter_efficient::{
    Activation, BottleneckConfig, DesignSpaceConfig, MamConfig, PrefixConfig, Reparametrization,
};
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use support::adapters::{AdapterSettings, adapt};
use support::transformer::{Config, Transformer};

fn check(what: &str, layers: usize, config: &AdapterSettings) {
    let sizes = Config {
        vocabulary: 5,
        dim: 4,
        heads: 2,
        layers,
        max_len: 3,
        feed_forward: 3,
    };
    let mut rng = StdRng::seed_from_u64(1);
    let base = Transformer::new(&sizes, DType::F64, &mut rng).unwrap();
    let adapted = adapt(&base.frozen().unwrap(), config, &mut rng).unwrap();
    disturb(&adapted.vars());
    let tokens = Tensor::new(&[[1u32, 4, 0], [3, 3, 2]], &Device::Cpu).unwrap();
    assert_gradients(what, &adapted.vars(), || {
        objective(&adapted.model.forward(&tokens).unwrap().logits)
    });
}

#[test]
fn the_mam_adapter() {
    for (reparametrization, activation) in [
        (Reparametrization::Direct, Activation::Relu),
        (Reparametrization::Mlp { inner: 3 }, Activation::Gelu),
    ] {
        let config = MamConfig {
            prefix: PrefixConfig {
                length: 2,
                reparametrization,
            },
            adapter: BottleneckConfig {
                width: 3,
                activation,
                ..MamConfig::default().adapter
            },
        };
        check(&format!("{config:?}"), 2, &AdapterSettings::Mam(config));
    }
}

#[test]
fn the_s4_design() {
    let space = DesignSpaceConfig::default();
    let config = AdapterSettings::DesignSpace {
        space,
        per_layer: 60,
    };
    check("S4", 6, &config);
}
