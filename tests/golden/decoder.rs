//! Methods that change a whole model, on the examples' decoder, against one written out in torch.

use super::EXACT;
use super::reader::{Case, each};
use candle_align::parameter_efficient::{
    BottleneckConfig, DesignSpaceConfig, MamConfig, PrefixConfig, Reparametrization,
};
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Deserialize;
use support::adapters::{AdapterSettings, adapt};
use support::transformer::{Config, Transformer};

#[test]
fn decoder() {
    each("decoder", |case| {
        let mut rng = StdRng::seed_from_u64(0);
        let base = Transformer::new(&case.part::<Config>("sizes"), DType::F64, &mut rng)?;
        let weights = base.vars();
        assert_eq!(case.below("base ").len(), weights.len());
        for (name, var) in &weights {
            var.set(&case.input(&format!("base {name}"))?)?;
        }

        let adapted = adapt(&base.frozen()?, &method(case), &mut rng)?;
        let vars = adapted.vars();
        let names: Vec<&str> = vars.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, case.below("trained "), "{}", case.name);
        for (name, var) in &vars {
            var.set(&case.input(&format!("trained {name}"))?)?;
        }
        let trained = Tensor::new(adapted.parameters() as f64, &Device::Cpu)?;
        case.check("trained", &trained, 0.0)?;

        let logits = adapted.model.forward(&case.index("ids")?)?.logits;
        case.check("logits", &logits, EXACT)?;
        let loss = (logits * case.input("upstream")?)?;
        case.check("loss", &loss.sum_all()?, EXACT)?;
        for (name, var) in &vars {
            case.check_gradient(name, &loss, var, EXACT)?;
        }
        Ok(())
    });
}

/// The sizes of a case; the rest of the settings are the crate's defaults.
#[derive(Deserialize)]
#[serde(untagged)]
enum Sizes {
    Mam {
        length: usize,
        inner: usize,
        width: usize,
    },
    DesignSpace {
        per_layer: usize,
    },
    Other(AdapterSettings),
}

fn method(case: &Case) -> AdapterSettings {
    match case.part("adapter") {
        Sizes::Mam {
            length,
            inner,
            width,
        } => AdapterSettings::Mam(MamConfig {
            prefix: PrefixConfig {
                length,
                reparametrization: Reparametrization::Mlp { inner },
            },
            adapter: BottleneckConfig {
                width,
                ..MamConfig::default().adapter
            },
        }),
        Sizes::DesignSpace { per_layer } => AdapterSettings::DesignSpace {
            space: DesignSpaceConfig::default(),
            per_layer,
        },
        Sizes::Other(method) => method,
    }
}
