//! The training objectives of "Aligning Large Language Models with Human: A Survey"
//! ([arXiv:2307.12966](https://arxiv.org/abs/2307.12966)) as small functions over candle tensors.
//!
//! Every objective is a pure function: it takes tensors and a config, and returns one loss per example
//! (or per token) with named, detached metrics. It depends on no model, tokenizer or training loop.
//!
//! ```
//! use candle_align::{DpoConfig, Pair, TokenLogProbs, dpo_loss};
//! use candle_core::{DType, Device, Tensor, Var};
//!
//! // a model's output for two answers to one prompt: [2 answers, 4 positions, 8 symbols]
//! let logits = Var::zeros((2, 4, 8), DType::F32, &Device::Cpu)?;
//! let tokens = Tensor::new(&[[0u32, 3, 5, 7], [0, 3, 2, 7]], &Device::Cpu)?;
//! let answer = Tensor::new(&[[0u8, 0, 1, 1], [0, 0, 1, 1]], &Device::Cpu)?;
//!
//! // position t predicts token t + 1; the prompt does not count
//! let log_probs = TokenLogProbs::next_token(&logits, &tokens, &answer)?;
//! let policy = Pair::from_rows(&log_probs.sum()?)?;
//! let reference = policy.detach();
//!
//! let out = dpo_loss(&policy, Some(&reference), &DpoConfig::default())?;
//! let loss = out.loss.mean_all()?; // the reduction is yours, and visible
//! assert!((loss.to_scalar::<f32>()? - 2f32.ln()).abs() < 1e-6);
//! assert!(loss.backward()?.get(&logits).is_some());
//! # Ok::<(), candle_align::Error>(())
//! ```
//!
//! # Where to find what
//!
//! | survey | module | objectives |
//! |---|---|---|
//! | §2 | [`data`] | templates, Self-Instruct, Evol-Instruct, conversations, mixing, selection, rankings |
//! | §3 | [`sft`] | supervised fine-tuning |
//! | §3.1 | [`online`] | sampling, reward models, PPO, RAFT |
//! | §3.2.1 | [`ranking`] | DPO, PRO, SLiC, RRHF, BRIO, expected risk |
//! | §3.2.2 | [`language`] | conditional SFT, Chain of Hindsight, Second Thoughts, Stable Alignment, SelFee, self-debug |
//! | since | [`distillation`] | learning a teacher's distributions: GKD, on-policy distillation, MiniLLM |
//! | §3.3 | [`parameter_efficient`] | LoRA, AdaLoRA, QLoRA, prompts, prefixes, adapters, frozen layers; DoRA, (IA)³, VeRA |
//! | §4 | [`evaluation`] | closed form, references, people, language models as judges, meta-evaluation |
//! | | [`peft`] | adapter files that Python's PEFT reads and writes |
//! | | [`log_probs`] | from logits and tokens to log-probabilities, the start of every objective |
//! | | [`reduction`] | how losses become one number, and which count divides them |
//! | | [`decoder`] | language models of the Llama family from Hugging Face folders, trained or under adapters |
//! | | [`training`] | gradient coverage and agreement, clipping, accumulation, AdamW, schedules |
//! | | [`ops`] | candle's fused operations (norms, softmax, rotary embeddings, gates), with a backward pass |
//! | | [`math`] | the delicate primitives, tested at their kinks and at infinity |
//! | | [`guide`] | an hour through §3 in seven steps, with code, examples and exercises |
//! | | [`mod@survey`] | the survey section by section, with the evidence for each item |
//! | | [`since`] | preference objectives and reward models after it, by date and by TRL's names |
//!
//! The losses, their settings and results, and the core types are exported at the crate's root:
//! `use candle_align::{DpoConfig, Pair, dpo_loss}`. Everything else is reached through its module:
//! `parameter_efficient::LoraLinear`, `peft::AdapterFile`, `training::AdamW`, `online::raft::best_of_k`,
//! `language::edits::edit_script`. So are the losses since the survey: `ranking::ipo_loss`.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | policy | the model that is trained |
//! | reference | a frozen model that the policy is compared with, usually its own start |
//! | prompt, answer | the given tokens, and the tokens that the policy should produce |
//! | chosen, rejected | the better and the worse of two answers to one prompt: a pair |
//! | mask | u8; 0 leaves a position out, whatever its value, even NaN |
//! | counts | a position counts if its mask is not 0: it enters the loss and the divisor |
//! | reward | a number for an answer, higher is better; an implicit reward is computed from log-probabilities |
//! | margin | the reward of the chosen answer minus that of the rejected one |
//!
//! # Names
//!
//! `<method>_loss` is an objective and `<Method>Config` its settings, with the paper's values as
//! defaults. Greek letters are spelled out; each page's table gives the symbol.
//!
//! # Numbers
//!
//! Losses take f32 or f64; log-probabilities are computed in at least f32, whatever the model's
//! type. Every value is tested against a formula with numbers in it, every gradient against central
//! differences, and each objective against the optimum that theory predicts.
//!
//! # Speed on a CPU
//!
//! Two choices belong to the program, so this library does not make them.
//!
//! * **Allocator.** With the allocator of most Linux systems, every operation page-faults its large
//!   tensors again. A program that trains runs up to three times faster with
//!   `#[global_allocator] static A: mimalloc::MiMalloc = mimalloc::MiMalloc;`.
//! * **Threads.** Candle reads its thread counts from `RAYON_NUM_THREADS` (matrix products) and
//!   `CANDLE_NUM_THREADS` (the rest). Set both: to 1 for small models, whose threads would spin waiting for
//!   each other, otherwise to the number of cores. Without `RAYON_NUM_THREADS`, candle asks the system
//!   for the number of cores at every matrix product.
//!
//! # Not here
//!
//! There is no trainer, tokenizer or downloader: loops and plots are in the examples.

#![deny(unsafe_code, missing_docs, missing_debug_implementations)]
#![deny(rustdoc::broken_intra_doc_links)]
#![doc(test(attr(deny(warnings))))]

mod atomic;
pub mod data;
pub mod decoder;
pub mod distillation;
mod error;
pub mod evaluation;
mod exp;
mod files;
pub mod guide;
mod in_order;
mod known;
pub mod language;
pub mod log_probs;
pub mod math;
pub mod online;
pub mod ops;
mod outputs;
#[doc(alias = "parameter-effective training")]
pub mod parameter_efficient;
pub mod peft;
pub mod ranking;
pub mod reduction;
mod sequence;
pub mod sft;
mod shape;
mod simd;
pub mod since;
pub mod survey;
mod tensor_file;
mod text;
pub mod training;

pub use error::{Error, Result};
pub use language::chain_of_hindsight::{HindsightConfig, HindsightLoss, chain_of_hindsight_loss};
pub use language::conditional_sft::{CRlftConfig, ClassWeightedLoss, c_rlft_loss};
pub use language::forgetful::ForgetfulConfig;
pub use language::stable_alignment::{
    StableAlignmentConfig, StableAlignmentForm, stable_alignment_loss,
};
pub use log_probs::{Candidates, OutputHead, Pair, Statistics, TokenLogProbs};
pub use online::advantages::{Advantages, GaeConfig, gae};
pub use online::auxiliary::{EntropyConfig, PtxConfig, entropy_loss, ptx_loss};
pub use online::kl::{KlEstimator, kl_loss};
pub use online::ppo::{
    PolicyLoss, PolicyMetrics, PpoConfig, PpoValueConfig, ppo_policy_loss, ppo_value_loss,
};
pub use online::raft::RaftConfig;
pub use online::reward_model::{
    PairwiseRewardConfig, RankedRewardConfig, choose_best_loss, pairwise_reward_loss,
    plackett_luce_reward_loss, ranked_reward_loss,
};
pub use online::rewards::{ShapedRewardsConfig, shaped_rewards};
pub use online::rlhf::{RlhfConfig, RlhfLoss, RlhfMetrics, rlhf_loss};
pub use online::rollout::{Experience, ExperienceConfig, Rollout};
pub use online::samples::{Sample, Samples};
pub use online::sampling::{SamplingConfig, sample};
pub use outputs::{ListLoss, PreferenceLoss, TokenLoss};
pub use ranking::brio::{BrioConfig, brio_loss};
pub use ranking::dpo::{DpoConfig, dpo_loss};
pub use ranking::expected_risk::{ExpectedRiskConfig, expected_risk_loss};
pub use ranking::pro::{ProConfig, ProTemperature, pro_loss};
pub use ranking::rrhf::{RrhfConfig, rrhf_loss};
pub use ranking::slic::{
    SlicConfig, slic_expected_reward_loss, slic_kl_regularizer, slic_list_loss, slic_margin_loss,
    slic_rank_loss,
};
pub use reduction::Reduction;
pub use sequence::{Encode, Sequence, SequenceBatch};
pub use sft::{SftConfig, sft_loss};

/// Runs the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
