//! The model of a run: frozen under an adapter or trained as a whole, with a reward head where one is asked
//! for, and DPO's reference.

use super::super::error::{Error, Result};
use super::context::Context;
use super::fresh_settings::fresh;
use super::objective::Reference;
use super::settings::{Learned, Settings};
use super::sound::{self, SCORE, language_adapter, language_model};
use super::tokenizer::Tokenizer;
use candle_align::decoder::{Decoder, Load};
use candle_align::peft::Strictness;
use candle_core::Device;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::path::Path;

/// The adapter that is trained.
pub const TRAINED: &str = "default";
/// A frozen copy of the adapter that the run goes on from.
const REFERENCE: &str = "ref";

/// The model at the start, and DPO's reference. If that is asked only before the first step, it is the trained
/// model itself and no copy.
pub fn start(settings: &Settings) -> Result<(Decoder, Reference)> {
    // one generator per purpose
    let rng =
        |purpose: u64| StdRng::seed_from_u64(settings.seed.wrapping_mul(8).wrapping_add(purpose));
    let load = Load {
        dtype: settings.dtype.dtype(),
        nf4: settings.dtype.nf4(),
        trained: !settings.is_adapted(),
        device: Device::Cpu,
    };
    let mut decoder = sound::load(&settings.model, &load)?;
    let needs = format!("`{}`", settings.objective);
    if settings.objective != Learned::Reward {
        language_model(&decoder, &settings.model, &needs)?;
        if let Some(folder) = &settings.adapter_dir {
            language_adapter(folder, &needs)?;
        }
    } else {
        if !decoder.state_dict().contains_key(SCORE) {
            decoder = decoder.into_classifier(1, &mut rng(1))?;
        }
        if let Some(labels) = decoder.config().num_labels.filter(|labels| *labels != 1) {
            let problem = format!("gives a text {labels} scores, and a reward model gives one");
            return Err(Error::file(&settings.model, problem));
        }
        pads(&mut decoder, &settings.model)?;
    }
    // of a model without an adapter, the model itself
    let mut reference = Reference::AdapterOff;
    let copies = !settings.precompute_ref_log_probs;
    if let Some(adapter) = &settings.adapter {
        decoder.add_adapter(TRAINED, &fresh(adapter, settings)?, &mut rng(2))?;
    }
    if let Some(folder) = &settings.adapter_dir {
        if settings.has_reference() {
            let name = if copies { REFERENCE } else { TRAINED };
            reference = Reference::Adapter(name.to_string());
            if copies {
                decoder.load_adapter(REFERENCE, folder, Strictness::Strict)?;
            }
        }
        decoder.load_adapter(TRAINED, folder, Strictness::Strict)?;
    }
    if settings.is_adapted() && settings.objective == Learned::Reward {
        let trains_score = decoder.vars().iter().any(|(name, _)| name == SCORE);
        if !trains_score {
            let problem =
                "the adapter does not train the reward head: its `task_type` must be SEQ_CLS";
            return Err(Error::Usage(problem.to_string()));
        }
    }
    if !settings.is_adapted() && settings.has_reference() && copies {
        let frozen = Load {
            trained: false,
            ..load.clone()
        };
        reference = Reference::Frozen(Box::new(Decoder::load(&settings.model, &frozen)?));
    }
    if let Some(folder) = &settings.teacher {
        let teacher = sound::load(
            folder,
            &Load {
                trained: false,
                ..load
            },
        )?;
        language_model(&teacher, folder, "a teacher")?;
        let [own, others] = [&decoder, &teacher].map(|model| model.config().vocab_size);
        if own != others {
            let problem = format!(
                "has {others} tokens and the model {own}: the teacher of `gkd` must have the same vocabulary"
            );
            return Err(Error::file(folder, problem));
        }
        let [own, others] = [&decoder, &teacher].map(|model| Context::of(model).most());
        let longest = settings.max_length.map_or(own, |most| most.min(own));
        if others < longest {
            let problem = format!(
                "was made for {others} tokens, and rows may have {longest}: set `max_length` to {others} or less"
            );
            return Err(Error::file(folder, problem));
        }
        reference = Reference::Frozen(Box::new(teacher));
    }
    decoder.set_recompute(settings.recompute);
    Ok((decoder, reference))
}

/// Texts are scored before the padding token of the tokenizer in a folder, as in TRL, whatever `config.json` names.
pub fn pads(decoder: &mut Decoder, folder: &Path) -> Result<()> {
    match Tokenizer::open(folder)?.pad() {
        Some(pad) => Ok(decoder.set_pad_token(pad.id)?),
        None => Ok(()),
    }
}
