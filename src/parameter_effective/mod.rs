//! Training few parameters (survey §3.3).
//!
//! | method | what is added | trained, for a weight `[d, k]` | at the start | afterwards |
//! |---|---|---|---|---|
//! | full fine-tuning | nothing | dk | the base model | – |
//! | [LoRA](lora), [`LoraLinear`] | s·B·A·x beside W₀x | r(d + k) | the base model: B = 0 | merged into W₀ |
//! | [LoRA](lora_embedding), [`LoraEmbedding`] | s·B·A's column of each token | r(vocabulary + dim) | the base model: A = 0 | merged into the table |
//! | [QLoRA](qlora), [`QloraLinear`] | s·B·A·x beside W₀x, W₀ in 4.127 bits | r(d + k) | the quantised base: B = 0 | a 16-bit weight |
//! | [AdaLoRA](adalora), [`AdaLoraLinear`] | s·P·Λ·Q·x beside W₀x, [so many](rank_allocator) λ ≠ 0 over all layers | r(d + k + 1) | the base model: Λ = 0 | merged into W₀ |
//! | [frozen layer](frozen_linear), [`FrozenLinear`] | nothing | 0 | the base model | – |
//! | [in four bits](quantise), [`Nf4Linear`] | nothing | 0 | the quantised base | – |
//!
//! Not in the survey:
//!
//! | method | what is added | trained, for a weight `[d, k]` | at the start | afterwards |
//! |---|---|---|---|---|
//! | [LoRA+](lora_plus) | nothing: B learns faster than A | as LoRA | as LoRA | as LoRA |
//! | [DoRA](dora), [`DoraLinear`] | LoRA inside, then a length for each row | r(d + k) + d | the base model: B = 0, m = ‖W₀‖ | merged into W₀ |
//! | [(IA)³](ia3), [`Ia3Linear`] | a factor for each output, or for each input | d, or k | the base model: l = 1 | merged into W₀ |
//! | [VeRA](vera), [`VeraLinear`] | λ_b ⊙ B(λ_d ⊙ A·x) beside W₀x, A and B random, frozen and shared | d + r | the base model: λ_b = 0 | merged into W₀ |
//!
//! Which modules of a model get one of them, and with which rank, is said by [`targets`] and
//! [`LoraConfig`].
//!
//! What was trained goes into [files](adapter_files) that Python's PEFT loads, and PEFT's files come
//! back as layers: [`AdapterFile`].
//!
//! LoRA is trained by any objective of this crate: it changes which numbers move, not the loss.
//! With its adapters disabled a model is its own reference policy. [`lora_plus`] splits the trained
//! numbers into two groups with a learning rate each.
//!
//! Read next: [`lora`]; then [`frozen_linear`], without which none of it would save memory on candle.

pub mod adalora;
pub mod adapter;
pub mod adapter_files;
pub mod bitfit;
pub mod design_space;
pub mod dora;
pub mod frozen_linear;
pub mod ia3;
pub mod lora;
mod lora_config;
pub mod lora_embedding;
pub mod lora_plus;
mod lora_update;
mod low_rank;
pub mod prefix;
pub mod prefix_attention;
pub mod prompt;
pub mod qlora;
pub mod quantise;
pub mod rank_allocator;
mod rank_schedule;
mod switches;
pub mod targets;
pub mod vera;

pub use adalora::{
    AdaLoraConfig, AdaLoraLinear, AdaLoraScaling, Orthogonality, orthogonality_penalty,
};
pub use adapter::{
    Activation, AdaptedLayer, BottleneckAdapter, BottleneckConfig, Insertion, MamConfig, Placement,
};
pub use adapter_files::{
    AdaLoraFile, AdapterConfig, AdapterFile, AdapterLayer, AdapterLayers, AdapterMethod, Ia3File,
    LoraFile, PrefixFile, PromptFile, Strictness, TaskType, VeraFile,
};
pub use bitfit::BiasLinear;
pub use design_space::{DesignSpaceConfig, Grouping, LayerPlan, LayerSize, Strategy};
pub use dora::DoraLinear;
pub use frozen_linear::FrozenLinear;
pub use ia3::{Ia3Config, Ia3Linear, Ia3Place};
pub use lora::LoraLinear;
pub use lora_config::{LoraBias, LoraConfig, LoraInit, Scaling};
pub use lora_embedding::LoraEmbedding;
pub use lora_plus::{LoraPlusGroups, lora_plus_groups};
pub use prefix::{PrefixConfig, PrefixEncoder, PrefixLayer, PrefixShape, Reparametrisation};
pub use prefix_attention::{PrefixMixture, prefix_attention, prefix_mixing};
pub use prompt::{PromptConfig, PromptEmbedding, PromptInit};
pub use qlora::QloraLinear;
pub use quantise::{BlockScale, NF4, Nf4Linear, Nf4Tensor};
pub use rank_allocator::{Allocation, RankAllocator};
pub use rank_schedule::RankAllocatorConfig;
pub use targets::{TargetModules, Targets};
pub use vera::{VeraConfig, VeraLinear, VeraProjections};

use crate::Error;

/// Lets a layer of this crate stand inside a model whose functions return candle's own result; the
/// message is unchanged.
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Tensor(error) => error,
            other => candle_core::Error::Wrapped(Box::new(other)),
        }
    }
}
