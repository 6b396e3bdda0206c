//! What kind of model a folder holds: its `config.json`.

use super::family::{Family, Gate};
use super::fields::{IDLE, dtype, ends, gate, labels, softcaps, special, windows};
use super::keys::Keys;
use super::rope::Rope;
use super::scaling;
use crate::error::{Error, Result};
use crate::files;
use candle_core::DType;
use serde_json::{Map, Value};
use std::path::Path;

/// The name of the file.
pub(super) const FILE: &str = "config.json";

/// What a `config.json` says about a model, in the spelling of Transformers 4 or 5.
///
/// Every key is used, known to mean nothing for training, or refused. A missing key has the default of its
/// family in Transformers.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Which family's layer.
    pub family: Family,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of queries.
    pub num_attention_heads: usize,
    /// Heads of keys and values.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// The most tokens of a row.
    pub max_position_embeddings: usize,
    /// ε of the norms.
    pub rms_norm_eps: f64,
    /// The nonlinearity of the gate.
    pub gate: Gate,
    /// Whether queries, keys and values have biases.
    pub query_key_value_bias: bool,
    /// Whether the projection behind attention has a bias.
    pub output_bias: bool,
    /// Whether the feed-forward projections have biases.
    pub mlp_bias: bool,
    /// Whether queries and keys are normalized, per head.
    pub query_key_norm: bool,
    /// The factor of the attention scores.
    pub score_scale: f64,
    /// The sliding window of each layer, in tokens including the token itself.
    pub windows: Vec<Option<usize>>,
    /// Rotary positions of layers without a window, and of all layers but Gemma's.
    pub rope: Rope,
    /// Rotary positions of Gemma 3's layers with a window.
    pub window_rope: Option<Rope>,
    /// The bound of the attention scores, if they are bounded.
    pub attn_logit_softcapping: Option<f64>,
    /// The bound of the logits, if they are bounded.
    pub final_logit_softcapping: Option<f64>,
    /// Whether the output layer is the embedding.
    pub tie_word_embeddings: bool,
    /// The standard deviation of new weights.
    pub initializer_range: f64,
    /// The token that begins a text.
    pub bos_token_id: Option<u32>,
    /// The tokens that end one.
    pub eos_token_id: Vec<u32>,
    /// The token of padding. Its row of the embedding learns nothing from look-ups, as in Transformers.
    pub pad_token_id: Option<u32>,
    /// The type in which the weights are stored, if the file says it.
    pub dtype: Option<DType>,
    /// The scores per text of a classifier, if the file describes one.
    pub num_labels: Option<usize>,
    /// The file itself, to be saved again.
    pub(super) json: Map<String, Value>,
}

impl DecoderConfig {
    /// The most tokens of a row: `max_position_embeddings`, or less where the rotary scaling is not defined for longer
    /// rows in training.
    pub fn longest_row(&self) -> usize {
        let ropes = [Some(&self.rope), self.window_rope.as_ref()];
        let most = ropes.into_iter().flatten().filter_map(Rope::most).min();
        most.map_or(self.max_position_embeddings, |most| {
            most.min(self.max_position_embeddings)
        })
    }

    /// Reads the `config.json` of a folder.
    ///
    /// # Errors
    /// [`Error::Argument`] with the path if the file cannot be read; with its key and value for what is
    /// unknown, unsupported or inconsistent.
    pub fn read(folder: impl AsRef<Path>) -> Result<Self> {
        let function = "DecoderConfig::read";
        let path = folder.as_ref().join(FILE);
        let source = path.display().to_string();
        let problem = |text: String| Error::argument(function, &source, text);
        let bytes = files::read(&path).map_err(|e| problem(format!("cannot be read: {e}")))?;
        if let Some(what) = files::not_json(&bytes) {
            return Err(problem(what.to_string()));
        }
        let json: Map<String, Value> = serde_json::from_slice(&bytes)
            .map_err(|e| problem(format!("is no JSON object: {e}")))?;
        Self::parse(function, &source, json)
    }

    fn parse(function: &'static str, source: &str, json: Map<String, Value>) -> Result<Self> {
        let mut keys = Keys::new(function, source, json.clone());
        let kind: String = keys.needed("model_type")?;
        let family = match kind.as_str() {
            "llama" => Family::Llama,
            "mistral" => Family::Mistral,
            "qwen2" => Family::Qwen2,
            "qwen3" => Family::Qwen3,
            "gemma2" => Family::Gemma2,
            "gemma3_text" => Family::Gemma3,
            "phi3" => Family::Phi3,
            other => {
                let why = "the families that can be read are llama, mistral, qwen2, qwen3, gemma2, gemma3_text and \
                           phi3";
                return Err(keys.refused("model_type", other, why));
            }
        };
        if keys.has("quantization_config") {
            let why =
                "quantized weights are not read; load the unquantized model and quantize here";
            return Err(keys.refused("quantization_config", "…", why));
        }
        let hidden_size = keys
            .count("hidden_size")?
            .ok_or_else(|| keys.problem("holds no `hidden_size`"))?;
        let mut size = |key| -> Result<usize> {
            let found = keys.count(key)?;
            found.ok_or_else(|| keys.problem(format!("holds no `{key}`")))
        };
        let vocab_size = size("vocab_size")?;
        let intermediate_size = size("intermediate_size")?;
        let num_hidden_layers = size("num_hidden_layers")?;
        let num_attention_heads = size("num_attention_heads")?;
        // null is as many as there are heads; a missing key is the default of the family
        let missing = !keys.said("num_key_value_heads");
        let num_key_value_heads = match (keys.count("num_key_value_heads")?, family) {
            (Some(heads), _) => heads,
            (None, Family::Mistral) if missing => 8,
            (None, Family::Qwen2 | Family::Qwen3) if missing => 32,
            (None, Family::Gemma2 | Family::Gemma3) if missing => 4,
            (None, _) => num_attention_heads,
        };
        if num_attention_heads % num_key_value_heads != 0 {
            let why = format!("it does not divide `num_attention_heads` = {num_attention_heads}");
            return Err(keys.refused("num_key_value_heads", num_key_value_heads, &why));
        }
        let head_dim = match (keys.count("head_dim")?, family) {
            (Some(dim), _) => dim,
            (None, Family::Qwen3) => 128,
            (None, Family::Gemma2 | Family::Gemma3) => 256,
            (None, _) if hidden_size % num_attention_heads != 0 => {
                let why = format!(
                    "`num_attention_heads` = {num_attention_heads} does not divide it, and there is no `head_dim`"
                );
                return Err(keys.refused("hidden_size", hidden_size, &why));
            }
            (None, _) => hidden_size / num_attention_heads,
        };
        if head_dim % 2 != 0 {
            return Err(keys.refused("head_dim", head_dim, "rotary positions need an even number"));
        }
        let max_position_embeddings = match (keys.count("max_position_embeddings")?, family) {
            (Some(most), _) => most,
            (None, Family::Llama) => 2048,
            (None, Family::Gemma2) => 8192,
            (None, Family::Mistral | Family::Gemma3) => 131_072,
            (None, Family::Qwen2 | Family::Qwen3) => 32_768,
            (None, Family::Phi3) => 4096,
        };
        let epsilon = if family == Family::Phi3 { 1e-5 } else { 1e-6 };
        let rms_norm_eps: f64 = keys.or("rms_norm_eps", epsilon)?;
        if !(rms_norm_eps.is_finite() && rms_norm_eps >= 0.0) {
            return Err(keys.refused(
                "rms_norm_eps",
                rms_norm_eps,
                "it must be finite and not negative",
            ));
        }

        let gate = gate(&mut keys, family)?;
        let attention_bias = match family {
            Family::Mistral | Family::Qwen2 | Family::Phi3 => {
                let why = "this family has no such setting";
                keys.only("attention_bias", family == Family::Qwen2, why)?;
                false
            }
            _ => keys.or("attention_bias", false)?,
        };
        let mlp_bias = match family {
            Family::Llama => keys.or("mlp_bias", false)?,
            _ => {
                keys.only("mlp_bias", false, "this family has no such setting")?;
                false
            }
        };
        for key in ["attention_dropout", "resid_pdrop", "embd_pdrop"] {
            let why =
                "dropout inside the model is not supported; set it to 0 (adapters have their own)";
            keys.only(key, 0.0, why)?;
        }
        let score_scale = match family {
            Family::Gemma2 | Family::Gemma3 => {
                keys.positive("query_pre_attn_scalar")?.unwrap_or(256.0)
            }
            _ => head_dim as f64,
        };
        let (attn_logit_softcapping, final_logit_softcapping) = softcaps(&mut keys, family)?;
        let why = "attention in both directions is not supported";
        keys.only("use_bidirectional_attention", false, why)?;
        keys.only(
            "rope_interleaved",
            false,
            "pairs of neighbors are not supported",
        )?;
        keys.only(
            "use_mrope",
            false,
            "positions in several directions are not supported",
        )?;
        if family == Family::Phi3 {
            keys.only(
                "lm_head_bias",
                false,
                "this family's output layer has no bias",
            )?;
            for key in ["full_attn_mod", "interpolate_factor"] {
                keys.only(key, 1, "only 1 is supported")?;
            }
        }

        let windows = windows(&mut keys, family, num_hidden_layers)?;
        let shape = scaling::Shape {
            head_dim,
            max_position_embeddings,
            phi: family == Family::Phi3,
        };
        let theta = if family == Family::Gemma3 { 1e6 } else { 1e4 };
        let (rope, window_rope) =
            scaling::ropes(&mut keys, &shape, theta, family == Family::Gemma3)?;

        let ids = special(family);
        let config = Self {
            family,
            vocab_size,
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            max_position_embeddings,
            rms_norm_eps,
            gate,
            query_key_value_bias: attention_bias || family == Family::Qwen2,
            output_bias: attention_bias,
            mlp_bias,
            query_key_norm: matches!(family, Family::Qwen3 | Family::Gemma3),
            score_scale: 1.0 / score_scale.sqrt(),
            windows,
            rope,
            window_rope,
            attn_logit_softcapping,
            final_logit_softcapping,
            tie_word_embeddings: keys.or("tie_word_embeddings", family.is_gemma())?,
            initializer_range: keys.positive("initializer_range")?.unwrap_or(0.02),
            bos_token_id: keys.token("bos_token_id", ids.bos)?,
            eos_token_id: ends(&mut keys, ids.eos)?,
            pad_token_id: keys.token("pad_token_id", ids.pad)?,
            dtype: dtype(&mut keys)?,
            num_labels: labels(&mut keys)?,
            json,
        };
        if config
            .pad_token_id
            .is_some_and(|id| id as usize >= config.vocab_size)
        {
            let id = config.pad_token_id.unwrap_or_default();
            return Err(keys.refused("pad_token_id", id, "the vocabulary has no such token"));
        }
        keys.ignore(IDLE);
        keys.none_left()?;
        Ok(config)
    }
}
