//! Learning a teacher's distributions: distillation, which came after the survey.
//!
//! A teacher says more about a position than the token that was chosen there. The methods differ in how
//! much of it they see, on whose answers, and in which direction they measure the distance.
//!
//! | method | sees of the teacher | on answers of | direction | credit for later tokens | gradient of |
//! |---|---|---|---|---|---|
//! | [`sft_loss`](crate::sft_loss) on the teacher's answers | the sampled token | the teacher | forward | none needed | KL(π_T‖π_S), one draw |
//! | [`gkd_loss`](gkd::gkd_loss) | the whole distribution, or its top k and the rest | anyone | forward, reverse, Jensen–Shannon | none | the positions' divergences |
//! | [`reverse_kl_advantages`](on_policy::reverse_kl_advantages), γ = 0 | the sampled token | the student | reverse | none | the positions' divergences, one draw |
//! | [`reverse_kl_advantages`](on_policy::reverse_kl_advantages), γ = 1 | the sampled token | the student | reverse | full | KL(π_S‖π_T), one draw |
//! | [`minillm_loss`](minillm::minillm_loss) | the whole distribution, and the sampled token | the student, mixed with the teacher | reverse | full | KL(π_S‖π_T), less variance |
//!
//! [`iw_opd_weights`](iw_opd::iw_opd_weights) weighs the advantages of an answer's tokens: the more was disagreed on
//! before a token, the less.
//!
//! [`divergence`](divergence::divergence) is what they share: one number per position from two sets of
//! logits, or from hidden states and output layers of both. It stores no probability, and its gradient is
//! computed where it is needed.
//!
//! The teacher is always a constant. Both models must have one vocabulary.
//!
//! Read next: [`divergence`](mod@divergence), [`gkd`], [`on_policy`], [`iw_opd`], [`minillm`].

mod composed;
mod direction;
pub mod divergence;
pub mod gkd;
pub mod iw_opd;
mod kernel;
pub mod minillm;
pub mod on_policy;
mod tiles;
mod whole;
