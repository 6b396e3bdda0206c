//! Learning from answers drawn by the policy itself (survey §3.1).
//!
//! Reinforcement learning from human feedback has three steps. First, fine-tune on demonstrations
//! ([`crate::sft`]). Second, learn a reward from comparisons. Third, draw answers, score them, and
//! move the policy towards the better ones, at a price for leaving the point where it started.
//!
//! # The reward model
//!
//! | reward model | takes | weight of a prompt in the batch |
//! |---|---|---|
//! | [`pairwise_reward_loss`](reward_model::pairwise_reward_loss) | the scores of a better and a worse answer | one per pair |
//! | [`ranked_reward_loss`](reward_model::ranked_reward_loss) | k scores and a ranking, ties allowed | one, the mean over its pairs |
//! | [`choose_best_loss`](reward_model::choose_best_loss) | k scores and the best | one |
//! | [`plackett_luce_reward_loss`](reward_model::plackett_luce_reward_loss) | k scores and a ranking | a sum over its stages |
//!
//! Scores come from [`RewardHead`](reward_head::RewardHead), their scale from
//! [`RewardNormalization`](reward_head::RewardNormalization). All four losses are logistic losses or
//! softmax cross-entropies of scores. Without centering they do not determine the additive constant
//! of the reward.
//!
//! # The policy
//!
//! | what | takes | gives | compares | regularizer |
//! |---|---|---|---|---|
//! | [`sample`](sampling::sample) | a causal model, prompts | answers, log-probabilities | – | – |
//! | [`missing_eos_penalty`](rewards::missing_eos_penalty) | scores, which answers ended | scores | – | – |
//! | [`shaped_rewards`](rewards::shaped_rewards) | scores, log-probabilities of the old policy and the reference | a reward per token | – | KL(π‖π_ref) inside the reward |
//! | [`KlController`](controller::KlController) | the measured KL | β | – | – |
//! | [`gae`](advantages::gae) | rewards, values | an advantage and a return per token | an answer with what was expected of it | – |
//! | [`ppo_policy_loss`](ppo::ppo_policy_loss) | new and old log-probabilities, advantages | a loss per token | by advantage | a clip on the ratio to the old policy |
//! | [`ppo_value_loss`](ppo::ppo_value_loss) | values, returns | a loss per token | – | a clip around the old values |
//! | [`kl_loss`](kl::kl_loss) | new log-probabilities, the reference | a loss per token | – | KL(π‖π_ref) outside the reward, with k₂ |
//! | [`entropy_loss`](auxiliary::entropy_loss), [`ptx_loss`](auxiliary::ptx_loss) | log-probabilities | a loss per token | – | entropy; the pretraining text |
//! | [`kl_adjusted_rewards`](raft::kl_adjusted_rewards) | rewards, log-probabilities of the policy and the reference | rewards to rank by | – | KL(π‖π_ref) inside the reward |
//! | [`best_of_k`](raft::best_of_k) | rewards of k answers to each prompt | the rows to train on with [`sft_loss`](crate::sft_loss) | the best answer with the others to its prompt | – |
//! | [`top_share`](raft::top_share), [`RefreshedSet`](raft::RefreshedSet) | the same | the same | the best answers with the rest of the batch, or of all batches | – |
//! | [`Rollout::experience`](rollout::Rollout::experience), [`rlhf_loss`](rlhf::rlhf_loss) | a batch of answers; a minibatch of it | all of the above in one training step | by advantage | as above |
//!
//! Scores are per answer, `[batch]`. Rewards, values and losses are per token, `[batch, time]`. The
//! caller weighs the losses and adds them up. [`rlhf`] describes the whole loop, what each KL estimator
//! does, and what whitening does to β. With k₁ inside the reward the third step ends at
//! π* ∝ π_ref · e^{r/β}, the policy that [`crate::ranking`]'s DPO fits without drawing an answer. RAFT
//! has no such equilibrium: every round moves further towards the answers of the highest reward.
//!
//! # Since the survey
//!
//! | module | what it holds |
//! |---|---|
//! | [`group_advantages`] | answers to one prompt judge each other: GRPO, RLOO, REINFORCE++, MaxRL and others |
//! | [`ratio`] | the level of the ratio: a token, the mean or the sum over an answer |
//! | [`policy_gradient`] | losses without a critic: GRPO, DAPO, Dr. GRPO, GSPO, CISPO, SAPO, GMPO and others |
//! | [`rollout_correction`] | between sampler and trainer: weights, masks, a KL that is right on old answers |
//! | [`shaping`] | long answers and those cut off, dynamic sampling, entropy |
//! | [`reward_models`] | reward models of other labels than comparisons |
//!
//! A step of GRPO is [`sample`](sampling::sample) several answers to each prompt, score them,
//! [`grpo_advantages`](group_advantages::grpo_advantages), and [`grpo_loss`](policy_gradient::grpo_loss) under a
//! [`Reduction`](crate::Reduction). [`crate::since`] says which call is which setting of TRL, verl, OpenRLHF and NeMo-RL.
//!
//! The losses, their settings and the types of a batch are exported at the crate's root. The rest is
//! imported from its module: `use candle_align::online::raft::best_of_k;`.

pub mod advantages;
pub mod auxiliary;
pub mod controller;
pub mod group_advantages;
pub mod kl;
pub mod policy_gradient;
pub mod ppo;
pub mod raft;
pub mod ratio;
pub mod reward_head;
pub mod reward_model;
pub mod reward_models;
pub mod rewards;
pub mod rlhf;
pub mod rollout;
pub mod rollout_correction;
pub mod samples;
pub mod sampling;
pub mod shaping;
mod surrogate;
