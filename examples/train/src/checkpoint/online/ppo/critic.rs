//! The value model.

use super::super::super::super::error::{Error, Result};
use super::super::super::load::TRAINED;
use super::super::super::objective::Text;
use super::super::super::objective::text::values;
use super::super::super::save;
use super::super::super::settings::{Learned, Settings};
use super::super::super::staged::staged;
use candle_align::decoder::{Decoder, Load, Mode};
use candle_align::peft::{AdapterMethod, TaskType};
use candle_core::{Device, Tensor, Var};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::path::Path;

/// Its adapter, its weights among those that are trained, and the folder it is written to.
const NAME: &str = "value";

/// The value model.
pub struct Critic {
    model: Decoder,
}

impl Critic {
    /// The value model of `ppo` at the start; none for other objectives.
    pub fn of(settings: &Settings, policy: &Decoder) -> Result<Option<Self>> {
        if settings.objective != Learned::Ppo {
            return Ok(None);
        }
        // one generator per purpose; the policy has the first ones
        let seed = |purpose: u64| settings.seed.wrapping_mul(8).wrapping_add(purpose);
        let head = &mut StdRng::seed_from_u64(seed(3));
        if !settings.is_adapted() {
            let load = Load {
                dtype: settings.dtype.dtype(),
                nf4: settings.dtype.nf4(),
                trained: true,
                device: Device::Cpu,
            };
            let mut model = Decoder::load(&settings.model, &load)?.into_classifier(1, head)?;
            model.set_recompute(settings.recompute);
            return Ok(Some(Self { model }));
        }
        let mut config = policy.adapter_config(TRAINED)?.clone();
        match config.method {
            AdapterMethod::Lora(_) | AdapterMethod::Ia3(_) | AdapterMethod::Vera(_) => {}
            AdapterMethod::AdaLora(_) | AdapterMethod::Prompt(_) | AdapterMethod::Prefix(_) => {
                let problem = "the value model of `ppo` has an adapter with the settings of the policy's: it must be one \
                               of LORA, IA3, VERA";
                return Err(Error::Usage(problem.to_string()));
            }
        }
        config.task = Some(TaskType::SequenceClassification);
        let mut model = policy.clone().into_classifier(1, head)?;
        model.add_adapter(NAME, &config, &mut StdRng::seed_from_u64(seed(4)))?;
        Ok(Some(Self { model }))
    }

    /// What is trained, by name.
    pub fn vars(&self) -> Vec<(String, Var)> {
        let vars = self.model.vars().into_iter();
        vars.map(|(name, var)| (format!("{NAME}.{name}"), var))
            .collect()
    }

    /// The value before each token of some texts `[texts, time − 1]`.
    pub fn values(&self, texts: &[&Text], mode: Mode) -> Result<Tensor> {
        values(&self.model, texts, mode)
    }

    /// The same model, which keeps no graph.
    pub fn without_gradients(&self) -> Self {
        Self {
            model: self.model.without_gradients(),
        }
    }

    /// Writes it into a folder of results: an adapter with a head, or a whole model, as `--objective reward` writes them.
    pub fn save(&self, from: &Path, out: &Path) -> Result<()> {
        let folder = out.join(NAME);
        if self.model.adapter().is_some() {
            return Ok(self.model.save_adapter(NAME, &folder)?);
        }
        staged(&folder, |part| save::model(&self.model, from, part))
    }
}
