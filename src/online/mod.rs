//! Learning from answers drawn by the policy itself (survey §3.1).
//!
//! First a reward model, from people's comparisons; then the policy, on its own answers.
//!
//! | reward model | eats | a prompt's share of the batch |
//! |---|---|---|
//! | [`pairwise_reward_loss`](reward_model::pairwise_reward_loss) | the scores of a better and a worse answer | one per pair |
//! | [`ranked_reward_loss`](reward_model::ranked_reward_loss) | k scores and a ranking, ties allowed | one, the mean over its pairs |
//! | [`choose_best_loss`](reward_model::choose_best_loss) | k scores and the best | one |
//! | [`plackett_luce_reward_loss`](reward_model::plackett_luce_reward_loss) | k scores and a ranking | a sum over its stages |
//!
//! Scores come from [`RewardHead`](reward_head::RewardHead), their scale from
//! [`RewardNormalisation`](reward_head::RewardNormalisation). All four losses are sums of logistic
//! losses or softmax cross-entropies of scores, and leave the constant of the reward open.

pub mod reward_head;
pub mod reward_model;
