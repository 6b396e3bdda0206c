//! The library's call of each loss over lists that came after the survey.

use super::super::super::error::{Error, Result};
use super::super::super::objectives::Objective;
use super::super::settings::since::{Since, Tpo};
use super::grid::Grid;
use super::lists::{List, Lists, pair};
use super::measured::Measured;
use super::text::{Pass, Text, log_probs};
use super::{micro_batch, share};
use candle_align::ranking::{
    LogRatios, ReferenceTokens, TpoConfig, exo_loss, info_nca_loss, nca_loss, rebel_loss, tpo_loss,
};
use candle_align::{Candidates, Pair, SftConfig, TokenLogProbs, TokenLoss, sft_loss};
use candle_core::Tensor;

/// A micro-batch of lists under the trained model.
pub(super) struct Answered<'a> {
    pub(super) pass: &'a Pass<'a>,
    pub(super) rows: &'a [usize],
    pub(super) window: &'a [Vec<usize>],
    pub(super) grid: &'a Grid,
    pub(super) texts: &'a [&'a Text],
    pub(super) candidates: &'a Candidates,
    pub(super) log_probs: &'a TokenLogProbs,
}

impl Lists {
    /// The mean over lists; of `tpo` every micro-batch of a step counts as much as another, as in TRL.
    pub(super) fn since(
        &self,
        objective: Objective,
        all: &Since,
        answered: &Answered,
    ) -> Result<Measured> {
        if objective == Objective::Tpo {
            return self.tpo(&all.tpo, answered);
        }
        let (rows, candidates) = (answered.rows, answered.candidates);
        let reference = answered.reference()?;
        let ratios = || candidates.sums() - &reference;
        let (loss, scores) = match objective {
            Objective::Nca => {
                let loss = nca_loss(candidates, &reference, &all.nca)?;
                (loss, (ratios()? * all.nca.beta)?)
            }
            Objective::InfoNca => {
                let loss = info_nca_loss(candidates, &reference, &all.info_nca)?;
                (loss, (ratios()? * all.info_nca.beta)?)
            }
            Objective::Exo => {
                let loss = exo_loss(candidates, &reference, &all.exo)?;
                (loss, (ratios()? * all.exo.beta)?)
            }
            Objective::Rebel => {
                let ratios = LogRatios::sums(&pair(candidates.sums())?, &pair(&reference)?)?;
                let out = rebel_loss(&ratios, &pair(candidates.rewards())?, &all.rebel)?;
                let scores = Tensor::stack(&[out.rewards.chosen, out.rewards.rejected], 1)?;
                (out.loss, scores)
            }
            other => {
                let problem = format!("`{other}` is no loss over lists since the survey");
                return Err(Error::Usage(problem));
            }
        };
        let lists: usize = answered.window.iter().map(Vec::len).sum();
        let loss = (loss.sum_all()? / lists as f64)?;
        let rewards = rows.iter().map(|row| self.rows[*row].rewards.as_slice());
        Measured::of_lists(loss, rows, &scores.detach(), rewards)
    }

    /// A list is the gold answer, the chosen and the rejected one.
    fn tpo(&self, settings: &Tpo, answered: &Answered) -> Result<Measured> {
        let (rows, window) = (answered.rows, answered.window);
        let all = match settings.log_prob {
            ReferenceTokens::Sum => answered.candidates.sums().clone(),
            ReferenceTokens::Mean => answered.candidates.means()?,
        };
        let of = |at: usize| all.narrow(1, at, 1)?.squeeze(1);
        let policy = Pair {
            chosen: of(1)?,
            rejected: of(2)?,
        };
        let tokens = settings.likelihood.of_each();
        let config = TpoConfig {
            beta: settings.beta,
            label_smoothing: settings.label_smoothing,
            alpha: if tokens.is_some() {
                settings.alpha
            } else {
                0.0
            },
            margin: settings.margin,
            tokens: tokens.unwrap_or_default(),
        };
        let gold = answered.first()?;
        let out = tpo_loss(&policy, &gold, &config)?;
        let mut loss = out.loss.mean_all()?;
        if tokens.is_none() {
            // these rows' part of one mean over the tokens of all gold answers of the micro-batch
            let batch = micro_batch(rows, window);
            let covered = batch.iter().map(|row| gold_of(&self.rows[*row]));
            let tokens = covered.sum::<usize>().max(1) as f64;
            let part = rows.len() as f64 / batch.len() as f64;
            let nll = (gold.loss.sum_all()? * (settings.alpha / tokens / part))?;
            loss = (loss + nll)?;
        }
        Measured::of_pairs((loss * share(rows, window))?, rows, &out.rewards)
    }
}

fn gold_of(list: &List) -> usize {
    list.answers.first().map_or(0, Text::covered)
}

impl Answered<'_> {
    /// The reference's sums `[size, k]`.
    fn reference(&self) -> Result<Tensor> {
        let sums = |model: &_, mode| Ok(log_probs(model, self.texts, mode)?.sum()?.detach());
        let flat = self.pass.reference.compute(self.pass.decoder, &sums)?;
        self.grid.of(&flat)
    }

    /// The cross-entropy of each list's first answer: the first texts are those.
    fn first(&self) -> Result<TokenLoss> {
        let all = sft_loss(self.log_probs, None, &SftConfig::default())?;
        let lists = self.rows.len();
        Ok(TokenLoss {
            loss: all.loss.narrow(0, 0, lists)?,
            mask: all.mask.narrow(0, 0, lists)?,
        })
    }
}
