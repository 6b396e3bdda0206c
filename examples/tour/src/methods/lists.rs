//! Lists: four answers of the reference to one prompt, scored by the reward model.
//!
//! PRO, RRHF, BRIO, expected risk and the list and reward losses of SLiC (§3.2.1), and Stable
//! Alignment (§3.2.2), which uses the scores as ratings. They differ in what they compare and in what
//! holds the policy back: the best answer of the list (PRO, RRHF, Stable Alignment), demonstrations (BRIO,
//! expected risk), or the KL to the reference (SLiC).

use super::Title;
use super::pairs::{KlRegularizer, SLIC_KL, along};
use crate::Result;
use crate::lab::{Lab, Optimization, Score, generator, look_up, rows};
use crate::report::Entry;
use crate::world::{Answer, PROMPTS};
use candle_align::online::raft::best_of_k;
use candle_align::{
    BrioConfig, Candidates, ExpectedRiskConfig, ProConfig, RrhfConfig, SftConfig, SlicConfig,
    StableAlignmentConfig, TokenLogProbs, TokenLoss, brio_loss, expected_risk_loss, pro_loss,
    rrhf_loss, sft_loss, slic_expected_reward_loss, slic_list_loss, stable_alignment_loss,
};
use candle_core::Tensor;
use indicatif::MultiProgress;
use rand::Rng;
use rand::rngs::StdRng;
use serde::Serialize;
use support::transformer::Transformer;

/// Answers in a list.
const LIST: usize = 4;

/// Settings of a run on lists.
#[derive(Serialize)]
struct ListSettings<L> {
    loss: L,
    #[serde(skip_serializing_if = "Option::is_none")]
    regularizer: Option<KlRegularizer>,
    /// Where the reference answers come from, if the loss has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference_answers: Option<&'static str>,
    rewards: &'static str,
    lists_per_step: usize,
    answers_per_list: usize,
    #[serde(flatten)]
    plan: Optimization,
}

impl<L> ListSettings<L> {
    fn new(lab: &Lab, loss: L) -> Self {
        Self {
            loss,
            regularizer: None,
            reference_answers: None,
            rewards: "scores of the reward model",
            // The same number of answers per step as for the methods that learn from pairs.
            lists_per_step: lab.sizes.batch * 2 / LIST,
            answers_per_list: LIST,
            plan: lab.plan(6e-3),
        }
    }
}

pub fn pro(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let config = ProConfig::default();
    let settings = ListSettings::new(lab, &config);
    on_lists(lab, title, bars, (settings, 12, Score::Mean), |step| {
        Ok(pro_loss(&step.candidates, &config)?.loss.mean_all()?)
    })
}

pub fn rrhf(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let config = RrhfConfig::default();
    let settings = ListSettings::new(lab, &config);
    on_lists(lab, title, bars, (settings, 13, Score::Mean), |step| {
        Ok(rrhf_loss(&step.candidates, &config)?.loss.mean_all()?)
    })
}

pub fn stable_alignment(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let config = StableAlignmentConfig::default();
    let settings = ListSettings::new(lab, &config);
    on_lists(lab, title, bars, (settings, 31, Score::Mean), |step| {
        let loss = stable_alignment_loss(&step.candidates, &config)?.loss;
        Ok(loss.mean_all()?)
    })
}

/// The paper divides by the square of the length, for summaries of sixty words. For answers of at
/// most four tokens the length itself is enough.
pub fn brio(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let config = BrioConfig {
        length_power: 1.0,
        rank_weight: 10.0,
        ..Default::default()
    };
    let mut settings = ListSettings::new(lab, &config);
    settings.reference_answers = Some("demonstrations");
    on_lists(lab, title, bars, (settings, 32, Score::Mean), |step| {
        let out = brio_loss(&step.candidates, Some(&step.demonstrations()?), &config)?;
        Ok(out.loss.mean_all()?)
    })
}

pub fn risk(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let config = ExpectedRiskConfig {
        token_weight: 0.2,
        ..Default::default()
    };
    let mut settings = ListSettings::new(lab, &config);
    settings.reference_answers = Some("demonstrations");
    on_lists(lab, title, bars, (settings, 33, Score::Mean), |step| {
        let out = expected_risk_loss(&step.candidates, Some(&step.demonstrations()?), &config)?;
        Ok(out.loss.mean_all()?)
    })
}

pub fn slic_list(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let config = SlicConfig::default();
    let mut settings = ListSettings::new(lab, &config);
    settings.regularizer = Some(SLIC_KL);
    on_lists(lab, title, bars, (settings, 34, Score::Sum), |step| {
        let calibration = slic_list_loss(&step.candidates, &config)?.mean_all()?;
        Ok((calibration + step.kl()?)?)
    })
}

pub fn slic_reward(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let mut settings = ListSettings::new(lab, "minus the expected reward within the list");
    settings.regularizer = Some(SLIC_KL);
    on_lists(lab, title, bars, (settings, 35, Score::Sum), |step| {
        let calibration = slic_expected_reward_loss(&step.candidates)?.mean_all()?;
        Ok((calibration + step.kl()?)?)
    })
}

/// The inputs of a loss at one step.
struct Step<'a> {
    lab: &'a Lab,
    policy: &'a Transformer,
    answers: Vec<Answer>,
    logits: Tensor,
    log_probs: TokenLogProbs,
    candidates: Candidates,
    /// A demonstration to the prompt of each list.
    demonstrated: Vec<Answer>,
}

impl Step<'_> {
    /// Cross-entropy of a demonstration beside each list.
    fn demonstrations(&self) -> Result<TokenLoss> {
        let log_probs = self.lab.log_probs(self.policy, &self.demonstrated)?;
        Ok(sft_loss(&log_probs, None, &SftConfig::default())?)
    }

    /// SLiC's weighted regularizer, along the best answer of each list.
    fn kl(&self) -> Result<Tensor> {
        let best = best_of_k(self.candidates.rewards(), None)?;
        let kl = along(
            self.lab,
            &self.answers,
            &best,
            &self.logits,
            &self.log_probs,
        )?;
        Ok((kl * SLIC_KL.kl_weight)?)
    }
}

fn on_lists<L: Serialize>(
    lab: &Lab,
    title: Title,
    bars: &MultiProgress,
    (settings, purpose, score): (ListSettings<L>, u64, Score),
    loss: impl Fn(&Step) -> Result<Tensor>,
) -> Result<Entry> {
    let learned = &lab.wait_for_learned()?.scores;
    let lists = settings.lists_per_step;
    let mut rng = generator(lab.seed, purpose);
    lab.run(title, &settings, settings.plan, bars, score, |policy, _| {
        let answers = draw_lists(lab, lists, &mut rng);
        let demonstrated = demonstrate(lab, &answers, &mut rng);
        let rewards = look_up(learned, &answers)?.reshape((lists, LIST))?;
        let (tokens, mask) = lab.world.batch(&answers)?;
        let (logits, log_probs) = rows(policy, &tokens, &mask)?;
        let candidates = Candidates::from_token_log_probs(&log_probs, &rewards, None)?;
        loss(&Step {
            lab,
            policy,
            answers,
            logits,
            log_probs,
            candidates,
            demonstrated,
        })
    })
}

/// Lists of answers of the reference, each to one prompt.
fn draw_lists(lab: &Lab, lists: usize, rng: &mut StdRng) -> Vec<Answer> {
    (0..lists)
        .flat_map(|_| {
            let prompt = rng.random_range(0..PROMPTS);
            [(); LIST].map(|()| lab.draw(prompt, rng))
        })
        .collect()
}

/// A demonstration to the prompt of each list.
fn demonstrate(lab: &Lab, answers: &[Answer], rng: &mut StdRng) -> Vec<Answer> {
    let prompts = answers.chunks(LIST).map(|list| list[0].prompt);
    let demonstrations = &lab.world.demonstrations;
    prompts
        .map(|prompt| lab.world.sample(demonstrations, prompt, rng))
        .collect()
}
