//! The two files of an adapter, read and written.

use super::config::{AdapterMethod, PeftConfig, PrefixFile};
use super::{DEFAULT, PROMPT, Strictness, TENSORS};
use super::{finite, pair, read, tensors, write};
use crate::error::{Error, Result};
use crate::parameter_efficient::prefix::PrefixEncoder;
use crate::parameter_efficient::prompt::PromptEmbedding;
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

/// An adapter: settings and tensors, as in a folder.
///
/// # Equation
/// None: a file holds numbers. The page of each method says what they mean.
/// # Shapes
/// Those of the table above, in f32, f64, bf16 or f16, and finite.
/// # Errors
/// All are [`Error::Argument`]: with its path for a file that cannot be read or does not match its name;
/// with key and value for a setting; with its name for a tensor.
/// # Properties
/// * What was written is read back bit for bit. So are the settings, except how a fresh adapter starts.
/// * A model adapted or merged here gives PEFT's logits to 10⁻⁵ from PEFT's files; PEFT gives this
///   crate's from files written here.
/// * No file makes the reader panic or allocate more than a small multiple of its own size. The claims of
///   a header are checked before anything is allocated for them.
/// * After an interrupted [`AdapterFile::write`] this reader finds the old adapter or the new one in the
///   folder, never settings of one beside tensors of the other. Where the settings changed, Python may
///   find no `adapter_config.json` until the next write.
/// * Only regular files are read: no named pipe, folder or device.
/// # Departures
/// PEFT's loader accepts missing and unexpected tensors; see the page above.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{LoraConfig, LoraForModel, LoraLinear, TargetModules, Targets};
/// use candle_align::peft::{AdapterFile, AdapterMethod, AnyAdapter, ModelAdapters, PeftConfig};
/// use candle_align::peft::{LoraFile, Strictness};
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Linear, Module};
/// use rand::{SeedableRng, rngs::StdRng};
/// use std::collections::{BTreeMap, HashMap};
///
/// // a base model, as a state dict
/// let weight = Tensor::new(&[[1.0f32, 2.0], [3.0, 4.0]], &Device::Cpu)?;
/// let base = HashMap::from([("layers.0.q_proj.weight".to_string(), weight.clone())]);
///
/// // an adapter, as training leaves it
/// let config = LoraConfig { rank: 1, alpha: 3.0, ..Default::default() };
/// let layer = LoraLinear::new(&Linear::new(weight, None), &config, &mut StdRng::seed_from_u64(0))?;
/// layer.b().set(&Tensor::new(&[[7.0f32], [8.0]], &Device::Cpu)?)?;
///
/// // to a folder that Python can load
/// let targets = Targets { target_modules: TargetModules::Names(vec!["q_proj".into()]), ..Default::default() };
/// let model = LoraForModel { config, targets, ..Default::default() };
/// let method = AdapterMethod::Lora(LoraFile { model, ..Default::default() });
/// let layers = BTreeMap::from([("layers.0.q_proj".to_string(), AnyAdapter::Lora(layer.clone()))]);
/// let layers = ModelAdapters { layers, ..Default::default() };
/// let folder = std::env::temp_dir().join("candle-align-adapter");
/// AdapterFile::from_layers(PeftConfig::from(method), &layers)?.write(&folder)?;
///
/// // and back
/// let file = AdapterFile::read(&folder, Strictness::Strict)?;
/// let read = file.layers(&base, Strictness::Strict)?;
/// let x = Tensor::new(&[[10.0f32, 100.0]], &Device::Cpu)?;
/// let h = read.layers["layers.0.q_proj"].forward(&x)?;
/// assert_eq!(h.to_vec2::<f32>()?, layer.forward(&x)?.to_vec2::<f32>()?);
/// # std::fs::remove_dir_all(&folder).ok();
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// PEFT 0.21.2, `utils/save_and_load.py`, `config.py` and each method's `config.py`: the files it
/// wrote, and what it read from files written here; the safetensors format, by its reference
/// implementation.
#[doc(alias = "adapter_config.json")]
#[doc(alias = "adapter_model.safetensors")]
#[doc(alias = "PeftModel")]
#[derive(Clone, Debug)]
pub struct AdapterFile {
    pub(super) config: PeftConfig,
    pub(super) tensors: BTreeMap<String, Tensor>,
    pub(super) left_out: Vec<String>,
}

impl AdapterFile {
    /// Reads the two files of a folder: a pair that was written together, even while another program
    /// writes there. If the two files do not belong together, it looks again, up to 100 times.
    ///
    /// # Errors
    /// [`Error::Argument`] with the path for a file that cannot be read or parsed, with key and value for a
    /// setting, with its name for a tensor. Whether the tensors match the settings is checked on a base
    /// model, by [`AdapterFile::layers`].
    #[doc(alias = "from_pretrained")]
    pub fn read(folder: impl AsRef<Path>, strictness: Strictness) -> Result<Self> {
        let function = "AdapterFile::read";
        let pair = pair::read(function, folder.as_ref())?;
        let (source, text) = pair.settings;
        let (config, mut left_out) = read::parse(function, &source, &text, strictness)?;
        let (source, content) = pair.tensors;
        let mut tensors = tensors::parse(function, &source, &content)?;
        match strictness {
            Strictness::Strict => finite::require(function, &source, &tensors)?,
            Strictness::Lenient => {
                tensors = without_adapter_name(tensors);
                left_out.extend(finite::problems(&tensors)?);
            }
        }
        Ok(Self {
            config,
            tensors,
            left_out,
        })
    }

    /// Writes the two files into a folder, which is created if it does not exist.
    ///
    /// Both are first written beside their places, under temporary names. Over an adapter with the same
    /// settings, as when training continues, the tensors then replace the old ones in one step. Otherwise the
    /// old settings are moved aside, then the tensors are replaced, and the new settings come last: for
    /// Python, which does not know the marks, the folder holds no adapter in between.
    ///
    /// # Errors
    /// [`Error::Parameter`] for settings that a file cannot hold; [`Error::Argument`] with the path if the
    /// file system fails: the folder then still holds what it held before.
    #[doc(alias = "save_pretrained")]
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<()> {
        let function = "AdapterFile::write";
        finite::require(function, TENSORS, &self.tensors)?;
        let text = write::text(function, &self.config)?;
        let content = tensors::serialize(&self.tensors, &text)?;
        pair::write(folder.as_ref(), &text, &content).map_err(|failure| {
            let problem = format!("cannot be written: {}", failure.cause);
            Error::argument(function, failure.path, problem)
        })
    }

    /// The settings.
    pub fn config(&self) -> &PeftConfig {
        &self.config
    }

    /// The tensors, under their names in the file.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// The keys of the settings that a lenient reader left out, and descriptions of the tensors that it read
    /// although they hold a number that is not finite.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The prompt of a prompt-tuning file.
    ///
    /// # Errors
    /// [`Error::Argument`] if the file is of another method, or holds anything but the one tensor with
    /// the shape that its settings give.
    pub fn prompt(&self) -> Result<PromptEmbedding> {
        let function = "AdapterFile::prompt";
        let AdapterMethod::Prompt(file) = &self.config.method else {
            return Err(Error::argument(function, "self", "is not of prompt tuning"));
        };
        PromptEmbedding::from_values(&self.vectors(function, [file.length, file.dim])?)
    }

    /// The prefix of a prefix-tuning file.
    ///
    /// # Errors
    /// As [`AdapterFile::prompt`].
    pub fn prefix(&self) -> Result<PrefixEncoder> {
        let function = "AdapterFile::prefix";
        let AdapterMethod::Prefix(PrefixFile { length, shape }) = &self.config.method else {
            return Err(Error::argument(function, "self", "is not of prefix tuning"));
        };
        let width = 2usize
            .checked_mul(shape.layers)
            .and_then(|n| n.checked_mul(shape.width()));
        let Some(width) = width else {
            return Err(Error::argument(
                function,
                "self",
                "names layers without end",
            ));
        };
        PrefixEncoder::from_values(*shape, &self.vectors(function, [*length, width])?)
    }

    /// The only tensor of a prompt or a prefix, in f32 unless it is f64.
    fn vectors(&self, function: &'static str, shape: [usize; 2]) -> Result<Tensor> {
        let problem = |text: String| Error::argument(function, TENSORS, text);
        if let Some(name) = self.tensors.keys().find(|name| *name != PROMPT) {
            return Err(problem(format!(
                "holds `{name}`, which the settings give no place"
            )));
        }
        let found = self.tensors.get(PROMPT);
        let found =
            found.ok_or_else(|| problem(format!("holds no `{PROMPT}`, of shape {shape:?}")))?;
        if found.dims() != shape {
            return Err(problem(format!(
                "holds `{PROMPT}` of shape {:?}, expected {shape:?}",
                found.dims()
            )));
        }
        finite::require(function, TENSORS, &self.tensors)?;
        Ok(match found.dtype() {
            DType::F64 => found.clone(),
            _ => found.to_dtype(DType::F32)?,
        })
    }
}

/// The tensors, with the adapter's own name, `default`, removed from their names.
fn without_adapter_name(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let rename = |name: String| {
        let mut parts: Vec<&str> = name.split('.').collect();
        let of_adapter = |part: &str| {
            ["lora_", "ia3_", "vera_"]
                .iter()
                .any(|start| part.starts_with(start))
        };
        let at = (1..parts.len()).find(|&at| parts[at] == DEFAULT && of_adapter(parts[at - 1]));
        match at {
            Some(at) => {
                parts.remove(at);
                // a module in PEFT's memory, a number in its files
                if parts[at - 1] == "lora_magnitude_vector" && parts.get(at) == Some(&"weight") {
                    parts.remove(at);
                }
                parts.join(".")
            }
            None => name,
        }
    };
    let mut renamed = BTreeMap::new();
    for (name, tensor) in &tensors {
        let meant = rename(name.clone());
        // if a name without the adapter's own exists already, it stays as it is
        let taken = meant != *name && tensors.contains_key(&meant);
        let name = if taken { name.clone() } else { meant };
        renamed.insert(name, tensor.clone());
    }
    renamed
}
