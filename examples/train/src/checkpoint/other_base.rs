//! Adapters that were made for another model than the one that they are put on.
//!
//! Their settings name the base, `base_model_name_or_path`. PEFT does not compare it with the model, and an adapter
//! fits every model with the same shapes: a user should know.

use super::fresh_settings;
use super::load::TRAINED;
use super::online::rewards::Reward;
use super::settings::Settings;
use candle_align::decoder::Decoder;
use candle_align::peft::{PeftConfig, Strictness};
use std::fs;
use std::path::Path;

/// The file of PEFT's settings.
const CONFIG: &str = "adapter_config.json";

/// A sentence for each adapter of a run that names another model.
pub fn other_bases(settings: &Settings, decoder: &Decoder) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(folder) = &settings.adapter_dir {
        let config = decoder.adapter_config(TRAINED).ok();
        let named = config.and_then(|config| config.base_model.as_deref());
        found.extend(other_base(folder, named, &settings.model));
    }
    if let Some(adapter) = &settings.adapter {
        let named = fresh_settings::base_model(adapter);
        let of = fresh_settings::place(adapter);
        found.extend(other_base(of, named.as_deref(), &settings.model));
    }
    for reward in &settings.online.rewards {
        if let Reward::RewardModel(model) = reward
            && let Ok((config, _)) =
                PeftConfig::read(model.folder.join(CONFIG), Strictness::Lenient)
        {
            let named = config.base_model.as_deref();
            found.extend(other_base(&model.folder, named, &settings.model));
        }
    }
    found
}

/// The sentence, if the name is that of another model.
pub fn other_base(adapter: &Path, named: Option<&str>, model: &Path) -> Option<String> {
    let named = named.filter(|named| !named.is_empty() && !is_same(named, model))?;
    Some(format!(
        "{}: made for `{named}`, and used on {}: nothing but the shapes says that it fits",
        adapter.display(),
        model.display()
    ))
}

/// Whether a name of a model, its path or its name on the hub, is that of a folder: the same folder, or the same last
/// component.
pub fn is_same(named: &str, model: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).ok();
    let (other, own) = (Path::new(named), real(model));
    let names = |path: &Path| [Some(last(path)), real(path).map(|path| last(&path))];
    let own_names = names(model);
    own.is_some() && real(other) == own
        || names(other)
            .iter()
            .flatten()
            .any(|name| !name.is_empty() && own_names.iter().flatten().any(|own| own == name))
}

/// The last component of a path; in the cache of the hub, of the name that the folder stands for, such as
/// `models--HuggingFaceTB--SmolLM2-135M-Instruct/snapshots/…`.
fn last(path: &Path) -> String {
    let parts = path.iter().map(|part| part.to_string_lossy());
    let mut of_cache = parts.rev().filter_map(|part| {
        let name = part.strip_prefix("models--")?;
        Some(name.rsplit("--").next().unwrap_or(name).to_string())
    });
    let own = || path.file_name().unwrap_or_default().to_string_lossy();
    of_cache.next().unwrap_or_else(|| own().into_owned())
}
