//! The steps: answers, rewards, and updates on them.

use super::super::super::error::Result;
use super::super::super::world::World;
use super::super::super::world::parts::{of_each, part};
use super::super::objective::text::log_probs;
use super::super::objective::{Reference, Text};
use super::super::order::parts;
use super::super::settings::Settings;
use super::super::update::Update;
use super::files::Times;
use super::given::Given;
use super::learned::{Part, units};
use super::look_back::look_back;
use super::loss::{Divisors, Round, counts, loss};
use super::ppo::critic::Critic;
use super::ppo::lesson::{Lesson, mini_batch};
use super::ppo::loss as ppo_loss;
use super::prompts::Prompt;
use super::rewards::{Rewards, Scored};
use super::rollout::{Answer, Purpose, Sampler};
use super::settings::Online;
use super::shared::{Found, of_tokens};
use candle_align::decoder::{Decoder, Mode};
use candle_align::training::GradAccumulator;
use candle_core::{DType, Tensor};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// One line of the log, with TRL's meaning of each number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Logged {
    /// Counted from 1.
    pub step: usize,
    pub loss: f64,
    /// Before clipping.
    pub grad_norm: f64,
    /// The rate of this step.
    pub learning_rate: f64,
    /// AdaLoRA's penalty, which is not part of `loss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub penalty: Option<f64>,
    #[serde(flatten)]
    pub drawn: Drawn,
    /// The share of tokens that the clip changed: their gradient stops, except CISPO's, whose weight is capped.
    pub clipped: f64,
    /// The mean over tokens of the KL to the model at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Of PPO: the value model's part of the loss, before its weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_loss: Option<f64>,
    /// The mean entropy of the tokens that `online.entropy_coef` acts on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropy: Option<f64>,
}

/// What the answers of a round are.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Drawn {
    /// The mean of the weighted sums; none if no answer was scored.
    pub reward: Option<f64>,
    /// Their deviation.
    pub reward_std: Option<f64>,
    /// The mean of each reward.
    pub rewards: BTreeMap<String, f64>,
    /// The share of prompts whose answers all have one reward: they teach nothing.
    pub equal_groups: f64,
    /// Rows of the loss.
    pub learned: usize,
    /// The mean number of tokens.
    pub length: f64,
    /// The share of answers that were cut off.
    pub truncated: f64,
    /// The mean log-probability of a token when it was drawn. Its negative estimates the entropy where answers are drawn at
    /// temperature 1 with nothing cut off.
    pub log_prob: f64,
    /// Prompts whose answers made room for those of others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced: Option<usize>,
}

/// A round that is ready to be learned from.
pub struct Ready {
    pub round: Round,
    pub units: Vec<Vec<usize>>,
    pub scored: Vec<Scored>,
    pub drawn: Drawn,
    /// PPO's.
    pub lesson: Option<Lesson>,
}

/// A run between two steps.
pub struct Learner<'a> {
    pub settings: &'a Settings,
    pub prompts: &'a [Prompt],
    pub sampler: &'a Sampler<'a>,
    pub rewards: &'a Rewards,
    pub given: Option<Given>,
    pub reference: Reference,
    /// PPO's value model.
    pub critic: Option<Critic>,
    pub update: Update,
    pub world: &'a dyn World,
    /// Whether a gradient other than 0 reached every trained weight.
    pub checked: bool,
}

impl Learner<'_> {
    /// Draws and scores the answers to some prompts: each rank those to whole prompts. `before` prompts were asked in
    /// earlier rounds.
    pub fn round(
        &self,
        decoder: &Decoder,
        asked: &[usize],
        round: usize,
        before: usize,
        times: &mut Times,
    ) -> Result<Ready> {
        let (settings, online) = (self.settings, &self.settings.online);
        let generations = online.generations(settings.objective);
        let begun = Instant::now();
        let own = part(&vec![1; asked.len()], self.world.rank(), self.world.size());
        let answers = match &self.given {
            Some(given) => given.take(
                decoder,
                self.sampler,
                self.prompts,
                &asked[own.clone()],
                before + own.start,
            )?,
            None => {
                let purpose = Purpose::Round(round);
                self.sampler
                    .draw(decoder, self.prompts, &asked[own], generations, purpose)?
            }
        };
        times.generation += begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let scored = self.rewards.score(self.prompts, &answers)?;
        // what follows is over the answers of all ranks
        let Found {
            mut answers,
            mut scored,
        } = Found { answers, scored }.of_all(self.world, self.sampler)?;
        times.scoring += begun.elapsed().as_secs_f64();
        let replaced = self.redraw(decoder, &mut answers, &mut scored, round, times)?;
        let begun = Instant::now();
        let forking = self.forking(decoder, &answers)?;
        let reference = match online.has_reference(settings.objective) {
            // as each step asks for them
            true if !Online::pays_in_reward(settings.objective) => {
                Some(vec![Vec::new(); answers.len()])
            }
            true => {
                let quiet = decoder.without_gradients();
                let compute = |texts: &[&Text]| {
                    let of = |model: &Decoder, mode| log_probs(model, texts, mode);
                    Ok(self.reference.compute(&quiet, &of)?.values().clone())
                };
                Some(self.of_tokens(&compute, &answers)?)
            }
            false => None,
        };
        let mut found = units(settings, &answers, &scored, reference.as_deref())?;
        let mut lesson = None;
        if let Some(critic) = &self.critic {
            let quiet = critic.without_gradients();
            let values =
                self.of_tokens(&|texts| quiet.values(texts, Mode::Evaluation), &answers)?;
            let of = Lesson::new(
                settings,
                &answers,
                &scored,
                &found.units,
                reference.as_deref(),
                values,
            )?;
            for unit in found.units.iter().flatten() {
                found.parts[*unit] = Part::Advantage(of.mean_advantage(*unit));
            }
            lesson = Some(of);
        }
        times.scoring += begun.elapsed().as_secs_f64();
        let n = answers.len() as f64;
        let tokens: usize = answers.iter().map(|answer| answer.ids.len()).sum();
        let old = answers.iter().flat_map(|answer| &answer.old);
        let (reward, reward_std) = mean_and_deviation(scored.iter().filter_map(|one| one.sum));
        let each = self
            .rewards
            .names()
            .iter()
            .enumerate()
            .filter_map(|(k, name)| {
                let (mean, _) = mean_and_deviation(scored.iter().filter_map(|one| one.each[k]));
                Some((name.clone(), mean?))
            });
        let drawn = Drawn {
            reward,
            reward_std,
            rewards: each.collect(),
            equal_groups: found.equal as f64 / asked.len() as f64,
            learned: found.units.len(),
            length: tokens as f64 / n,
            truncated: answers.iter().filter(|answer| !answer.ended).count() as f64 / n,
            log_prob: old.sum::<f64>() / tokens as f64,
            replaced,
        };
        Ok(Ready {
            round: Round {
                answers,
                parts: found.parts,
                reference,
                forking,
            },
            units: found.units,
            scored,
            drawn,
            lesson,
        })
    }

    /// A number for each token of the answers of all ranks, of which each rank computes a part.
    pub(super) fn of_tokens(
        &self,
        compute: &dyn Fn(&[&Text]) -> Result<Tensor>,
        answers: &[Answer],
    ) -> Result<Vec<Vec<f64>>> {
        let most = self.settings.fit.max_tokens;
        of_tokens(self.world, compute, self.prompts, answers, most)
    }

    /// One step on these answers, counted from 0.
    pub fn step(
        &mut self,
        decoder: &Decoder,
        ready: &mut Ready,
        step: usize,
        times: &mut Times,
    ) -> Result<Logged> {
        let begun = Instant::now();
        let settings = self.settings;
        let fit = &settings.fit;
        let Plan {
            chosen,
            batches,
            passes,
        } = self.plan(ready, step);
        if !Online::pays_in_reward(settings.objective) {
            look_back(
                settings,
                decoder,
                &self.reference,
                self.prompts,
                &mut ready.round,
                &passes.concat(),
            )?;
        }
        times.scoring += begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let round = &ready.round;
        let tokens = |units: &[Vec<usize>]| {
            let answers = units.iter().flatten().map(|row| &round.answers[*row]);
            let counted = answers.filter(|answer| counts(settings, answer));
            counted.map(|answer| answer.ids.len()).sum::<usize>() as f64
        };
        let uncertain = |units: &[Vec<usize>]| match &round.forking {
            None => tokens(units),
            Some(all) => units
                .iter()
                .flatten()
                .map(|row| all[*row].iter().sum::<f64>())
                .sum(),
        };
        let window = tokens(&chosen);
        let mut total = GradAccumulator::new();
        // the loss and the clipped tokens; the KL, the entropy and the value model's loss, each with how often there is one
        let mut sums = [0.0; 8];
        // ranks draw other dropout
        let mut drawn = (self.world.rank() as u64) << 10;
        for (batch, passes) in batches.iter().zip(&passes) {
            let divisors = Divisors {
                rows: chosen.len() as f64,
                tokens: window,
                uncertain: uncertain(&chosen),
                of_batch: tokens(&chosen[batch[0]..batch[batch.len() - 1] + 1]),
                batches: batches.len() as f64,
            };
            for units in passes {
                let seed = fit
                    .seed
                    .wrapping_add((step as u64) << 20)
                    .wrapping_add(drawn);
                // answers were drawn without dropout, and so are they compared
                let mode = match fit.disable_dropout.unwrap_or(true) {
                    true => Mode::Evaluation,
                    false => Mode::Train { seed },
                };
                let measured = match self.critic.as_ref().zip(ready.lesson.as_ref()) {
                    Some((critic, lesson)) => {
                        let models = (decoder, critic);
                        let given = (round, lesson);
                        ppo_loss(settings, models, self.prompts, given, units, window, mode)?
                    }
                    None => loss(
                        settings,
                        decoder,
                        self.prompts,
                        round,
                        units,
                        &divisors,
                        mode,
                    )?,
                };
                let grads = measured.loss.backward()?;
                let loss = measured.loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
                if !self.checked {
                    self.update.check_first(&grads, loss)?;
                }
                drawn += 1;
                total.add(self.update.vars(), &grads)?;
                sums[0] += loss;
                sums[1] += measured.clipped;
                for (at, one) in [(2, measured.kl), (4, measured.entropy), (6, measured.value)] {
                    if let Some(one) = one {
                        sums[at] += one;
                        sums[at + 1] += 1.0;
                    }
                }
            }
        }
        let applied = match batches.is_empty() {
            true => self.update.rest(step)?,
            false => self.update.apply(step, total, self.world)?,
        };
        // zeros would show neither a weight that nothing reaches nor a number that is not finite
        self.checked |= applied.grad_norm > 0.0;
        self.world.sum_counts(&mut sums)?;
        let measured = |at: usize| (sums[at + 1] > 0.0).then_some(sums[at]);
        times.update += begun.elapsed().as_secs_f64();
        let share = |sum: f64| sum / window.max(1.0);
        Ok(Logged {
            step: step + 1,
            loss: sums[0],
            grad_norm: applied.grad_norm,
            learning_rate: applied.learning_rate,
            penalty: applied.penalty,
            drawn: ready.drawn.clone(),
            clipped: share(sums[1]),
            kl: measured(2).map(share),
            value_loss: measured(6),
            entropy: measured(4).map(|sum| sum / uncertain(&chosen).max(1.0)),
        })
    }
}

/// What goes through the model in a step.
struct Plan {
    /// The rows of the loss.
    chosen: Vec<Vec<usize>>,
    /// Their numbers by micro-batch, of all ranks.
    batches: Vec<Vec<usize>>,
    /// The rows of each pass of this rank, by micro-batch. One whose tokens the loss does not cover is left out.
    passes: Vec<Vec<Vec<Vec<usize>>>>,
}

impl Learner<'_> {
    fn plan(&self, ready: &Ready, step: usize) -> Plan {
        let (settings, answers) = (self.settings, &ready.round.answers);
        let chosen = match &ready.lesson {
            Some(_) => mini_batch(settings, &ready.units, step),
            None => ready.units.clone(),
        };
        let size = |unit: usize| {
            let rows = chosen[unit].iter().map(|row| &answers[*row]);
            let whole = rows.map(|one| self.prompts[one.prompt].ids.len() + one.ids.len());
            whole.sum::<usize>()
        };
        let all: Vec<usize> = (0..chosen.len()).collect();
        let batches = micro_batches(&all, &chosen, settings.fit.batch);
        let own = of_each(&batches, size, self.world);
        let counted = |units: &Vec<Vec<usize>>| {
            let mut rows = units.iter().flatten();
            rows.any(|row| counts(settings, &answers[*row]))
        };
        let of_batch = |(batch, own): (&Vec<usize>, _)| {
            let parts = parts(&batch[own], settings.fit.max_tokens, size).into_iter();
            let units = parts.map(|part| part.iter().map(|unit| chosen[*unit].clone()).collect());
            units.filter(counted).collect()
        };
        let passes = batches.iter().zip(own).map(of_batch).collect();
        Plan {
            chosen,
            batches,
            passes,
        }
    }
}

/// Units in sequence, so many answers together: a pair is two.
pub fn micro_batches(all: &[usize], units: &[Vec<usize>], answers: usize) -> Vec<Vec<usize>> {
    let width = units.first().map_or(1, Vec::len).max(1);
    let batches = all.chunks((answers / width).max(1));
    batches.map(<[usize]>::to_vec).collect()
}

/// The mean of numbers and their deviation, over n − 1.
fn mean_and_deviation(numbers: impl Iterator<Item = f64>) -> (Option<f64>, Option<f64>) {
    let all: Vec<f64> = numbers.collect();
    let n = all.len() as f64;
    if all.is_empty() {
        return (None, None);
    }
    let mean = all.iter().sum::<f64>() / n;
    let squares: f64 = all.iter().map(|x| (x - mean).powi(2)).sum();
    (Some(mean), (n > 1.0).then(|| (squares / (n - 1.0)).sqrt()))
}
