//! Training few parameters (survey §3.3).
//!
//! | method | what is added | trained, for a weight `[d, k]` | at the start | afterwards |
//! |---|---|---|---|---|
//! | full fine-tuning | nothing | dk | the base model | – |
//! | [LoRA](lora), [`LoraLinear`] | s·B·A·x beside W₀x | r(d + k) | the base model: B = 0 | merged into W₀ |
//! | [LoRA](lora::embedding), [`LoraEmbedding`] | s·B·A's column of each token | r(vocabulary + dim) | the base model: A = 0 | merged into the table |
//! | [QLoRA](qlora), [`QloraLinear`] | s·B·A·x beside W₀x, W₀ in 4.127 bits | r(d + k) | the quantized base: B = 0 | a 16-bit weight |
//! | [AdaLoRA](adalora), [`AdaLoraLinear`] | s·P·Λ·Q·x beside W₀x, [so many](adalora::allocator) λ ≠ 0 over all layers | r(d + k + 1) | the base model: Λ = 0 | merged into W₀ |
//! | [frozen layer](frozen_linear), [`FrozenLinear`] | nothing | 0 | the base model | – |
//! | [in four bits](nf4), [`Nf4Linear`] | nothing | 0 | the quantized base | – |
//!
//! Beside the model instead of in place of a weight; d is the model's width, d_kv that of its keys:
//!
//! | method | what is added | trained | at the start | afterwards |
//! |---|---|---|---|---|
//! | [prompt tuning](prompt), [`PromptEmbedding`] | p vectors before the embedded input | p·d | another model | p positions stay |
//! | [prefix tuning](prefix), [`PrefixEncoder`] | p keys and p values in each of L layers | 2·L·p·d_kv; [more](PrefixEncoder) with its network | another model | the network is dropped, p positions of the cache stay |
//! | [adapter](bottleneck), [`BottleneckAdapter`] | s·W_up f(W_down h) to the h of a sub-layer, or of its input x | 2·r·d, or 2·r·d + r + d with biases | the base model: W_up = 0 | stays |
//! | [MAM](bottleneck), [`MamConfig`] | a prefix, and a parallel adapter at the feed-forward part | 2·p·d_kv + 2·r·d a layer | another model | prefix and adapter stay |
//! | [BitFit](bitfit), [`BiasLinear`] | b to each W₀x | d_out for each map | the base model | merged into the layer's bias |
//! | [design space](design_space), [`DesignSpaceConfig`] | some of these, by groups of layers | nearly the same for each layer | that of its methods | that of its methods |
//!
//! Not in the survey:
//!
//! | method | what is added | trained, for a weight `[d, k]` | at the start | afterwards |
//! |---|---|---|---|---|
//! | [LoRA+](lora::plus) | nothing: B learns faster than A | as LoRA | as LoRA | as LoRA |
//! | [DoRA](dora), [`DoraLinear`] | LoRA inside, then a length for each row | r(d + k) + d | the base model: B = 0, m = ‖W₀‖ | merged into W₀ |
//! | [(IA)³](ia3), [`Ia3Linear`] | a factor for each output, or for each input | d, or k | the base model: l = 1 | merged into W₀ |
//! | [VeRA](vera), [`VeraLinear`] | λ_b ⊙ B(λ_d ⊙ A·x) beside W₀x, A and B random, frozen and shared | d + r | the base model: λ_b = 0 | merged into W₀ |
//!
//! Every layer over a frozen base is an [`Adapter`]: it can be switched off, merged and trained with dropout.
//! A model holds its layers as `Box<dyn Adapter>`, [your own](adapter) among them.
//!
//! Import from here: `use candle_align::parameter_efficient::{Adapter, LoraConfig, LoraLinear};`. None of
//! these names is exported at the crate's root.
//!
//! [`targets`] says which modules of a model get which layer, and with which settings.
//!
//! In your own model they take a few lines, inside the forward pass that you write anyway:
//!
//! ```
//! use candle_align::parameter_efficient::{Adapter, BottleneckAdapter, BottleneckConfig,
//!     FrozenLinear, LoraConfig, LoraLinear, PrefixConfig, PrefixEncoder, PrefixShape,
//!     PromptConfig, PromptEmbedding, PromptInit, prefix_attention};
//! use candle_align::training::grad_coverage;
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{Linear, Module};
//! use rand::{SeedableRng, rngs::StdRng};
//!
//! // yours: an embedding table, and one layer of attention with two heads of width 4
//! let (cpu, dtype, mut rng) = (Device::Cpu, DType::F32, StdRng::seed_from_u64(0));
//! let weight = |rows: usize| Tensor::randn(0f32, 1.0, (rows, 8), &cpu);
//! let (table, q, k, v) = (weight(9)?, weight(8)?, weight(8)?, weight(8)?);
//!
//! // what is added: before the input, in place of a map, inside the attention, around it
//! let config = PromptConfig { length: 3, init: PromptInit::Vocabulary { common: 9 } };
//! let prompt = PromptEmbedding::new(&table, &config, &mut rng)?;
//! let q = LoraLinear::new(&Linear::new(q, None), &LoraConfig::default(), &mut rng)?;
//! let (k, v) = (FrozenLinear::new(k, None)?, FrozenLinear::new(v, None)?); // no gradient for them
//! let shape = PrefixShape { layers: 1, heads: 2, head_dim: 4 };
//! let prefix = PrefixEncoder::new(shape, &PrefixConfig::default(), dtype, &cpu, &mut rng)?;
//! let adapter = BottleneckAdapter::new(8, 8, &BottleneckConfig::default(), dtype, &cpu, &mut rng)?;
//!
//! // the forward pass: five tokens, and three virtual positions before them
//! let tokens = Tensor::new(&[1u32, 2, 3, 4, 5], &cpu)?;
//! let x = prompt.prepend(&table.index_select(&tokens, 0)?.unsqueeze(0)?)?;
//! let heads = |x: Tensor| x.reshape((1, 8, 2, 4))?.transpose(1, 2)?.contiguous();
//! let (q_, k_, v_) = (heads(q.forward(&x)?)?, heads(k.forward(&x)?)?, heads(v.forward(&x)?)?);
//! let layer = prefix.layers()?.remove(0).expect("enabled");
//! let causal: Vec<u8> = (0..64).map(|i| u8::from(i % 8 <= i / 8)).collect();
//! let causal = Tensor::from_vec(causal, (8, 8), &cpu)?;
//! let h = prefix_attention(&q_, &k_, &v_, &layer, Some(&causal))?;
//! let h = h.transpose(1, 2)?.contiguous()?.reshape((1, 8, 8))?;
//! let h = adapter.insert(&x, &h)?;
//! let out = prompt.cut(&h)?; // of the five tokens
//! assert_eq!(out.dims(), [1, 5, 8]);
//!
//! // the optimizer's variables, and a check that none was forgotten; the first maps of LoRA and of the
//! // adapter have no gradient yet, since their second maps start at 0
//! let mut vars = prompt.trainable("prompt");
//! vars.extend(q.trainable("q"));
//! vars.extend(prefix.trainable("prefix"));
//! vars.extend(adapter.trainable("adapter"));
//! let coverage = grad_coverage(&vars, &out.sqr()?.sum_all()?.backward()?)?;
//! assert!(coverage.missing.is_empty());
//! assert_eq!(coverage.zero, ["adapter.down_proj.bias", "adapter.down_proj.weight", "q.lora_A.weight"]);
//! # Ok::<(), candle_align::Error>(())
//! ```
//!
//! What was trained goes into [files](crate::peft) that Python's PEFT loads, and PEFT's files become
//! layers again: [`AdapterFile`](crate::peft::AdapterFile).
//!
//! Any objective of this crate can train any of these methods: the method decides which numbers change,
//! not the loss. With its adapters disabled, a model is its own reference policy. [`lora::plus`] splits
//! the trained variables into two groups, each with its learning rate.
//!
//! # Sizes
//! Every size in the settings is checked before anything is allocated: a rank, a width, a length, a
//! number of layers or heads is at most 2²⁰ = 1 048 576, four times the longest vocabulary of a known
//! model, and no tensor whose size comes from settings has more than 2³¹ elements, 8 GiB in f32. More is
//! an [`Error::Parameter`](crate::Error::Parameter) that names the setting, or for a file an
//! [`Error::Argument`](crate::Error::Argument) that names file and key. A rank above both sides of a
//! layer is pointless but allowed, as in PEFT.
//!
//! Empty inputs are valid: an empty batch or zero time steps, in any layout, give an output without rows.
//!
//! Read next: [`lora`]; then [`frozen_linear`], without which none of these would save memory on candle.

pub mod adalora;
pub mod adapter;
pub mod bitfit;
pub mod bottleneck;
pub mod design_space;
pub mod dora;
pub(crate) mod expressions;
pub mod frozen_linear;
pub mod ia3;
pub mod lora;
pub(crate) mod low_rank;
pub mod nf4;
pub mod prefix;
pub mod prompt;
pub mod qlora;
pub mod targets;
pub mod vera;

pub use adalora::allocator::{Allocation, RankAllocator};
pub use adalora::schedule::RankAllocatorConfig;
pub use adalora::{
    AdaLoraConfig, AdaLoraLinear, AdaLoraScaling, Orthogonality, orthogonality_penalty,
};
pub use adapter::{Adapter, AdapterState, FrozenBase, LinearAdapter};
pub use bitfit::BiasLinear;
pub use bottleneck::{
    Activation, BottleneckAdapter, BottleneckConfig, BottleneckLayer, Insertion, MamConfig,
    Placement,
};
pub use design_space::{DesignSpaceConfig, Grouping, LayerPlan, LayerSize, Strategy};
pub use dora::DoraLinear;
pub use frozen_linear::FrozenLinear;
pub use ia3::{Ia3ForModel, Ia3Linear, Ia3Place};
pub use lora::config::{LoraBias, LoraConfig, LoraInit, Scaling};
pub use lora::embedding::LoraEmbedding;
pub use lora::for_model::LoraForModel;
pub use lora::plus::lora_plus_groups;
pub use lora::{Lora, LoraLinear};
pub use nf4::{BlockScale, NF4, Nf4Linear, Nf4Scales, Nf4Tensor};
pub use prefix::attention::{PrefixMixture, prefix_attention, prefix_mixing};
pub use prefix::{PrefixConfig, PrefixEncoder, PrefixLayer, PrefixShape, Reparametrization};
pub use prompt::{PromptConfig, PromptEmbedding, PromptInit};
pub use qlora::QloraLinear;
pub use targets::{ForModel, TargetModules, Targets};
pub use vera::{VeraConfig, VeraLinear, VeraProjections};
