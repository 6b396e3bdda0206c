//! Language models of the Llama family that train: from a Hugging Face folder to a trained model or a PEFT
//! adapter (beside the survey).
//!
//! In one sentence: [`Decoder`] reads a checkpoint as Transformers does, gives hidden states of rows without
//! padding, and trains all its weights or any adapter of this crate on frozen ones.
//!
//! ```
//! use candle_align::decoder::{Decoder, Load, Save};
//! use candle_align::ops::Segments;
//! use candle_align::decoder::{LanguageModel, Mode};
//! use candle_align::peft::{AdapterMethod, LoraFile};
//! use candle_align::training::{AdamW, AdamWConfig, ParameterGroup};
//! use candle_core::{Device, Tensor};
//! use rand::{SeedableRng, rngs::StdRng};
//!
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/checkpoints/llama");
//! # let out = tempfile::tempdir().unwrap();
//! # let out = out.path();
//! let mut rng = StdRng::seed_from_u64(0);
//! let mut model = Decoder::load(folder, &Load::default())?; // frozen
//! let text = r#"{"rank": 4, "alpha": 8.0, "targets": {"target_modules": "all-linear"}}"#;
//! let lora = LoraFile { model: serde_json::from_str(text).unwrap(), ..LoraFile::default() };
//! model.add_adapter("default", &AdapterMethod::Lora(lora).into(), &mut rng)?;
//! let config = AdamWConfig { learning_rate: 0.01, ..AdamWConfig::default() };
//! let mut optimizer = AdamW::new(vec![ParameterGroup::new(model.vars(), 0.0)], config)?;
//!
//! // two rows of different length, without padding; their answers begin at the second token
//! let (segments, tokens) = Segments::from_tokens(&[vec![1u32, 8, 9, 2], vec![1, 5, 2]])?;
//! let answers = Tensor::new(&[[0u8, 1, 1, 1], [0, 1, 1, 0]], &Device::Cpu)?;
//! let mut losses = Vec::new();
//! for seed in 0..3 {
//!     let log_probs = model.log_probs(&tokens, &segments, &answers, Mode::Train { seed })?;
//!     let loss = (log_probs.sum()?.sum_all()? / -5.0)?;
//!     optimizer.step(&loss.backward()?)?;
//!     losses.push(loss.to_scalar::<f32>()?);
//! }
//! assert!(losses[2] < losses[0]);
//! model.save_adapter("default", out.join("adapter"))?; // Python's PEFT loads it
//! model.merge_adapter("default")?.save(out.join("merged"), &Save::default())?; // and Transformers this
//! # Ok::<(), candle_align::Error>(())
//! ```
//!
//! # What is read
//!
//! `config.json`, in the spelling of Transformers 4 or 5, and `model.safetensors` or the shards that
//! `model.safetensors.index.json` names, in f64, f32, bf16 or f16.
//!
//! | `model_type` | models | beside Llama's layer |
//! |---|---|---|
//! | `llama` | Llama 2, 3, 3.x, SmolLM2 | |
//! | `mistral` | Mistral, Ministral | a sliding window in every layer, or in those that `layer_types` names |
//! | `qwen2` | Qwen2, Qwen2.5 | biases on queries, keys and values; windows from a layer on |
//! | `qwen3` | Qwen3 | normalized queries and keys; windows from a layer on |
//! | `gemma2` | Gemma 2 | four norms of 1 + w, a scaled embedding, bounded scores and logits, a window in every second layer |
//! | `gemma3_text` | Gemma 3's text model | four norms of 1 + w, a scaled embedding, windows and full layers with rotary positions of their own |
//! | `phi3` | Phi-3, Phi-4-mini | one matrix for queries, keys and values, one for gate and up; a part of each head turns |
//!
//! | rotary positions | trained |
//! |---|---|
//! | `default`, `linear`, `llama3`, `yarn` | up to `max_position_embeddings` |
//! | `dynamic` | up to `max_position_embeddings`, where it is the default |
//! | `longrope` (`su`) | up to `original_max_position_embeddings`, with the short factors: beyond it one long row would change the others of its batch |
//!
//! # What is trained
//!
//! | | weights | variables |
//! |---|---|---|
//! | full fine-tuning | [`Load::trained`] | all; f32 or f64 |
//! | adapters | frozen, in any type, or in four bits ([`Load::nf4`]) | those of the active adapter |
//!
//! [`Decoder::add_adapter`] makes a fresh adapter by PEFT's rules, and [`Decoder::load_adapter`] reads an
//! adapter's folder. A model has any number of adapters by name. [`Decoder::set_adapter`] makes one active, or
//! none: then it is exactly the base model, such as the reference of DPO. Switching copies nothing.
//!
//! | adapter | where | merged |
//! |---|---|---|
//! | LoRA, with `lora_only` biases | linear maps of layers | yes |
//! | LoRA over four bits: QLoRA | the same | yes, into dequantized weights |
//! | DoRA, AdaLoRA, (IA)³, VeRA | the same, not in four bits | yes |
//! | prompt tuning | vectors before the embedded rows, computed once per batch | no |
//! | prefix tuning | keys and values in every layer | no |
//!
//! The vectors of a prompt or a prefix take the first positions of every row, as in PEFT, and a window hides
//! them as it hides tokens. Hidden states are those of the tokens alone.
//!
//! [`Decoder::into_classifier`] gives the model a head of scores, as Transformers' sequence classification
//! has it; [`Decoder::scores`] is a reward model's output. Under the task `SEQ_CLS` the head is trained with the
//! adapter.
//!
//! [`Decoder::sample`] draws answers with a cache of keys and values. [`Decoder::set_recompute`] makes the
//! memory of activations flat in the number of layers; [`Decoder::without_gradients`] keeps none of them, for
//! an evaluation.
//!
//! AdaLoRA needs its allocator in the loop: [`Decoder::adapter_layers`] gives it the layers, and
//! [`Decoder::set_kept_triplets`] takes its choice, so that the file of the adapter has the triplets that are left.
//!
//! # Batches
//!
//! A batch is flat: the tokens of all rows one after another, and [`Segments`](crate::ops::Segments) that say who
//! sees whom. There is no padding, and a prompt with several answers is computed once.
//! [`Segments::to_rows`](crate::ops::Segments::to_rows) gives padded rows, where an objective wants them.
//! [`LanguageModel`] is what a loop needs of a model, and a model of yours can take the decoder's place.
//!
//! # Writing
//!
//! [`Decoder::save`] writes a folder that `AutoModelForCausalLM` or `AutoModelForSequenceClassification` loads,
//! [`Decoder::save_adapter`] one that PEFT loads. [`Decoder::merge_adapter`] makes a plain model of the two.
//!
//! # What is refused
//!
//! Every key of `config.json` is used, known to mean nothing for training, or refused by name. So is every tensor:
//! a missing, misshapen or unexpected one is an error. Two exceptions: `rotary_emb.inv_freq` of old files is
//! computed, and a tied output layer may be there or not.
//!
//! | what | why |
//! |---|---|
//! | another `model_type` | not implemented |
//! | `quantization_config` | load the unquantized model; [`Load::nf4`] quantizes it here |
//! | `attention_dropout`, `resid_pdrop`, `embd_pdrop` above 0 | no dropout inside the model; adapters have their own |
//! | `rope_interleaved`, `use_mrope`, another `rope_type` | other positions |
//! | `use_bidirectional_attention` | another attention |
//! | a row longer than `max_position_embeddings` | the model was not made for it: cut the row |
//! | half types for trained weights | the steps of an optimizer are lost in rounding |
//! | an adapter on trained weights | what it adds to would move |
//! | adapters on the embedding or the output layer, `bias` = "all", single rows of the embedding | only linear maps of layers are adapted |
//! | other adapters than LoRA on weights in four bits | they read or scale the matrix itself |
//! | a prompt or a prefix on a classifier | its head would stay as it was drawn |
//! | a model in four bits saved for Transformers | merge an adapter first: [`Decoder::merge_adapter`] dequantizes |
//!
//! Bottleneck adapters ([`bottleneck`](crate::parameter_efficient::bottleneck)) and trained biases alone
//! ([`bitfit`](crate::parameter_efficient::bitfit)) have no file of PEFT's: put them into a model of your own.
//!
//! # As in Transformers
//!
//! * The padding token's row of the embedding learns nothing from look-ups, only from a tied output layer. That
//!   matters where the end token serves as padding.
//! * A text is scored at its last token that is not the padding token. If the end token serves as padding, that
//!   is the token before the end.
//! * A tied output layer is the embedding: one variable, one tensor in the file. A file that says
//!   `tie_word_embeddings` and holds another `lm_head.weight` is not tied.
//! * A window of W tokens includes the token itself. A window of 0 or null is none.
//! * A query head h uses the key head h / (query heads / key heads).
//! * Qwen3's head has 128 coordinates and Gemma 3's 256 if the file does not say it, whatever the hidden size.
//! * A classifier whose file does not say its number of labels has two.
//! * Gemma 3 does not use `attn_logit_softcapping`, whatever the file says.
//! * A missing key of a special token is the family's default; null is none.
//!
//! **Departures**: hidden states are f32 at least, whatever the type of the weights. A tensor that is missing or
//! unexpected is an error; Transformers draws the first at random and ignores the second, with a report.
//!
//! Logits, the gradient of every weight and greedy continuations are those of Transformers 5.23 for all
//! families, to 1e-5: `tests/decoder/parity.rs::logits_at_every_position_are_those_of_transformers`,
//! `tests/decoder/parity.rs::every_weight_gets_the_gradient_of_transformers`,
//! `tests/decoder/parity.rs::greedy_continuations_are_those_of_transformers`. Prompts and prefixes are PEFT's:
//! `tests/decoder/virtual_tokens.rs::logits_and_gradients_are_those_of_peft`.

mod adapters;
mod before;
mod classifier;
mod config;
mod family;
mod fields;
mod folder;
mod fresh;
mod generate;
mod keys;
mod language_model;
mod layer;
mod load;
mod merge;
mod model;
mod norm;
mod pass;
mod projection;
mod rope;
mod save;
mod scaling;
mod start;
mod tensors;
mod trained;

pub use config::DecoderConfig;
pub use family::{Family, Gate};
pub use language_model::{LanguageModel, Mode};
pub use model::Decoder;
pub use rope::Rope;
pub use save::Save;
pub use tensors::Load;
