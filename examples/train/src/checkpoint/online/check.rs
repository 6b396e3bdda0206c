//! Which settings go together.

use super::super::super::error::{Error, Result};
use super::super::settings::{Learned, Settings};
use super::rewards::Reward;
use super::settings::{Aggregation, LossType, Online};

impl Settings {
    /// How many prompts a round asks: a step, unless there are several on the same answers.
    pub fn prompts_per_round(&self) -> usize {
        let answers = self.answers_per_step().saturating_mul(self.mini_batches());
        answers / self.online.generations(self.objective).max(1)
    }

    /// How many answers a step learns from.
    pub fn answers_per_step(&self) -> usize {
        self.fit.batch.saturating_mul(self.fit.accumulation)
    }

    /// How many steps the answers of a round are shared among before they are taken again.
    fn mini_batches(&self) -> usize {
        match self.objective {
            Learned::Ppo => self.online.ppo.num_mini_batches,
            _ => 1,
        }
    }

    /// The steps on the answers of a round.
    pub fn steps_per_round(&self) -> usize {
        match self.objective {
            Learned::Ppo => self.online.ppo.num_ppo_epochs * self.online.ppo.num_mini_batches,
            _ => self.online.num_iterations,
        }
    }

    /// Checks the settings of objectives that draw answers.
    pub(in super::super) fn check_online(&self) -> Result<()> {
        let usage = |text: String| Err(Error::Usage(text));
        let (online, objective) = (&self.online, self.objective);
        if !objective.is_online() {
            return match *online == Online::default() {
                true => Ok(()),
                false => usage(format!(
                    "`online` and --reward are for objectives that draw answers, and this is `{objective}`"
                )),
            };
        }
        if self.fit.dataloader_drop_last {
            return usage(
                "`fit.dataloader_drop_last` is for rows of a file, and the prompts that fill no step are always left out: \
                 leave it out"
                    .to_string(),
            );
        }
        if online.rewards.is_empty() {
            return usage(format!(
                "`{objective}` needs a reward for the model's answers: --reward NAME, one of {}",
                Reward::NAMES
            ));
        }
        let weights = online.weights();
        if weights.len() != online.rewards.len() || !weights.iter().all(|w| w.is_finite()) {
            return usage(format!(
                "`online.reward_weights` must hold a finite number for each of the {} rewards, got {weights:?}",
                online.rewards.len()
            ));
        }
        for reward in &online.rewards {
            reward.check()?;
        }
        let own_steps = [
            ("online.max_completion_length", online.max_completion_length),
            ("online.num_iterations", online.num_iterations),
            ("online.sample_batch", online.sample_batch.unwrap_or(1)),
            (
                "online.num_generations_eval",
                online.num_generations_eval.unwrap_or(1),
            ),
            ("fit.batch", self.fit.batch),
            ("fit.accumulation", self.fit.accumulation),
        ];
        for (name, value) in own_steps {
            if value == 0 {
                return usage(format!("`{name}` must be at least 1, got 0"));
            }
        }
        let parts = self.fit.batch.checked_mul(self.fit.accumulation);
        let Some(answers) = parts.and_then(|step| step.checked_mul(self.mini_batches())) else {
            return usage(format!(
                "`fit.batch` times `fit.accumulation` is too large: {} times {}",
                self.fit.batch, self.fit.accumulation
            ));
        };
        let generations = online.generations(objective);
        if generations == 0 {
            return usage("`online.num_generations` must be at least 1, got 0".to_string());
        }
        if generations < 2 && objective != Learned::Ppo {
            return usage(format!(
                "`online.num_generations` must be at least 2 for `{objective}`, got {generations}: answers to one \
                 prompt are compared"
            ));
        }
        if !answers.is_multiple_of(generations) {
            return usage(format!(
                "`fit.batch` times `fit.accumulation`{} is {answers} answers a {}, which must be a multiple of \
                 `online.num_generations`, {generations}",
                if objective == Learned::Ppo {
                    " times `online.ppo.num_mini_batches`"
                } else {
                    ""
                },
                if objective == Learned::Ppo {
                    "round"
                } else {
                    "step"
                },
            ));
        }
        let beta = online.beta(objective);
        if !(beta.is_finite() && beta >= 0.0) {
            return usage(format!("`online.beta` must be finite and >= 0, got {beta}"));
        }
        if objective == Learned::OnlineDpo && beta == 0.0 {
            return usage("`online.beta` must be > 0 for `online_dpo`, got 0".to_string());
        }
        if objective == Learned::Raft && online.beta.is_some_and(|beta| beta > 0.0) {
            return usage(format!(
                "`online.beta` is {beta}, and `raft` here has no reference"
            ));
        }
        if objective == Learned::Ppo {
            online.ppo.check()?;
        }
        online.check_around()?;
        self.check_numbers()?;
        self.check_rows()?;
        self.check_unread()
    }

    /// Checks what the library would only refuse once answers are drawn.
    fn check_numbers(&self) -> Result<()> {
        let online = &self.online;
        let above = |least: f64, number: f64| number.is_finite() && number > least;
        let share = online.top_p > 0.0 && online.top_p <= 1.0;
        let high = online.epsilon_high.unwrap_or(1.0);
        let delta = online.delta.unwrap_or(2.0);
        let temperature = online.temperature;
        let all = [
            (
                "temperature",
                "finite and > 0",
                temperature,
                above(0.0, temperature),
            ),
            ("top_p", "in (0, 1]", online.top_p, share),
            (
                "epsilon",
                "finite and > 0",
                online.epsilon,
                above(0.0, online.epsilon),
            ),
            ("epsilon_high", "finite and > 0", high, above(0.0, high)),
            ("delta", "finite and > 1", delta, above(1.0, delta)),
        ];
        match all.iter().find(|(.., holds)| !holds) {
            None => Ok(()),
            Some((name, must, found, _)) => Err(Error::Usage(format!(
                "`online.{name}` must be {must}, got {found}"
            ))),
        }
    }

    /// An error for a setting of rows or losses that objectives which draw answers do not read.
    fn check_rows(&self) -> Result<()> {
        let default = Self::default();
        let given = [
            ("completion_only", self.completion_only.is_some()),
            ("turns", self.turns != default.turns),
            ("text_field", self.text_field != default.text_field),
            ("truncation", self.truncation != default.truncation),
            ("max_pairs", self.max_pairs != default.max_pairs),
            ("max_answers", self.max_answers != default.max_answers),
            ("sft", self.sft != default.sft),
            ("sft_form", self.sft_form != default.sft_form),
            ("eaft", self.eaft != default.eaft),
            ("dpo", self.dpo != default.dpo),
            ("since", self.since != default.since),
        ];
        let Some((name, _)) = given.iter().find(|(_, given)| *given) else {
            return Ok(());
        };
        let instead = match (*name, self.objective) {
            ("dpo", Learned::OnlineDpo) => ": β is `online.beta`",
            _ => "",
        };
        Err(Error::Usage(format!(
            "`{name}` is not read by `{}`, which draws answers{instead}; leave it out",
            self.objective
        )))
    }

    /// An error for a setting that the objective does not read.
    fn check_unread(&self) -> Result<()> {
        let (online, objective, default) = (&self.online, self.objective, Online::default());
        let grpo = objective == Learned::Grpo;
        let soft = matches!(
            online.loss_type,
            LossType::Cispo | LossType::Sapo | LossType::Vespo
        );
        let ppo = objective == Learned::Ppo;
        let surrogate = grpo && !soft || objective == Learned::Rloo || ppo;
        let cispo = grpo && online.loss_type == LossType::Cispo;
        let vespo = grpo && online.loss_type == LossType::Vespo;
        let given = [
            ("ppo", online.ppo != default.ppo, ppo),
            (
                "num_iterations",
                online.num_iterations != default.num_iterations,
                !ppo,
            ),
            ("loss_type", online.loss_type != default.loss_type, grpo),
            (
                "scale_rewards",
                online.scale_rewards != default.scale_rewards,
                grpo && online.multi_objective_aggregation == Aggregation::SumThenNormalize,
            ),
            (
                "importance_sampling_level",
                online.importance_sampling_level != default.importance_sampling_level,
                grpo && !vespo,
            ),
            (
                "multi_objective_aggregation",
                online.multi_objective_aggregation != default.multi_objective_aggregation,
                grpo,
            ),
            (
                "use_bias_correction_kl",
                !online.use_bias_correction_kl,
                grpo && self.online.beta(objective) > 0.0,
            ),
            ("epsilon", online.epsilon != default.epsilon, surrogate),
            (
                "epsilon_high",
                online.epsilon_high.is_some(),
                surrogate || cispo,
            ),
            ("delta", online.delta.is_some(), grpo && !soft),
            (
                "top_entropy_quantile",
                online.top_entropy_quantile != default.top_entropy_quantile,
                grpo,
            ),
            (
                "entropy_coef",
                online.entropy_coef != default.entropy_coef,
                grpo,
            ),
            (
                "off_policy_mask_threshold",
                online.off_policy_mask_threshold.is_some(),
                grpo,
            ),
            (
                "importance_sampling_mode",
                online.importance_sampling_mode.is_some(),
                grpo,
            ),
            (
                "importance_sampling_clip_max",
                online.importance_sampling_clip_max != default.importance_sampling_clip_max,
                online.importance_sampling_mode.is_some(),
            ),
            (
                "importance_sampling_clip_min",
                online.importance_sampling_clip_min.is_some(),
                online.importance_sampling_mode.is_some(),
            ),
            (
                "max_num_gen_batches",
                online.max_num_gen_batches != default.max_num_gen_batches,
                grpo && online.completions_file.is_none(),
            ),
            (
                "normalize_advantages",
                online.normalize_advantages,
                objective == Learned::Rloo,
            ),
        ];
        match given.iter().find(|(_, given, read)| *given && !read) {
            None => Ok(()),
            Some((name, ..)) => Err(Error::Usage(format!(
                "`online.{name}` is not read by `{objective}` with these settings: leave it out"
            ))),
        }
    }
}
