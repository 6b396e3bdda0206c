//! Learning from the model's own answers: draw, score, update.
//!
//! | objective | answers to one prompt | loss | reference |
//! |---|---|---|---|
//! | `grpo` | judge each other: `grpo_advantages` or `gdpo_advantages` | by `loss_type`: `grpo_loss`, `cispo_loss`, `sapo_loss`, `vespo_loss`, and the KL in the loss | if `beta` > 0 |
//! | `rloo` | the mean of the others is the baseline: `rloo_advantages`, the KL in the reward | `grpo_loss` on whole answers | if `beta` > 0 |
//! | `ppo` | [`ppo`]: a value model judges each token: `Rollout::experience`, the KL in the reward | `ppo_policy_loss`, `ppo_value_loss` | if `beta` > 0 |
//! | `raft` | the best is kept: `best_of_k` | `sft_loss` | – |
//! | `online_dpo` | the best and the worst are a pair | `dpo_loss` | always |
//!
//! | file | does |
//! |---|---|
//! | [`settings`], `check` | every setting with its default, and which go together |
//! | [`prompts`] | rows to prompts, some held out |
//! | [`rollout`], [`given`] | answers, drawn or from a file |
//! | [`rewards`] | rewards from rules, commands and reward models |
//! | [`redraw`] | prompts that teach nothing make room for others |
//! | [`shared`] | the answers of all ranks, on every rank |
//! | [`learned`] | rewards to advantages; which answers the loss covers |
//! | [`loss`] | the loss of a part of a step |
//! | [`around`], [`sampler_weights`] | what GRPO's terms are multiplied by: tokens of high entropy, off-policy masks, the sampler's weights |
//! | [`fit`] | the steps |
//! | [`evaluate`] | the rewards of held-out prompts |
//! | [`files`] | `samples.jsonl` and `times.jsonl` |
//! | [`run`] | a run from start to end; [`summary`] is its result |
//!
//! A run is the same whatever the order and the batch in which answers are drawn, as far as rounding does not decide: each
//! answer has random numbers of its own, from the run's seed, the round, the prompt and the answer's number.

pub mod around;
mod check;
pub mod evaluate;
pub mod files;
pub mod fit;
pub mod given;
pub mod learned;
pub mod look_back;
pub mod loss;
pub mod ppo;
pub mod prompts;
pub mod redraw;
pub mod rewards;
pub mod rollout;
pub mod run;
pub mod sampler_weights;
pub mod settings;
pub mod shared;
pub mod summary;

pub use evaluate::Answered;
pub use fit::Logged;
pub use summary::Summary;
