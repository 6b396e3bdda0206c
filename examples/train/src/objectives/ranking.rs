//! The objectives that compare whole answers: by their log-probabilities, or by a reward model's score.

use super::super::batch::Batch;
use super::super::comparisons::Shape;
use super::super::error::Result;
use super::super::model::Model;
use super::{Objective, RewardForm, SlicForm, Task, after_first, best_rows};
use candle_align::{
    Candidates, Pair, PreferenceLoss, TokenLogProbs, TokenLoss, brio_loss, choose_best_loss,
    dpo_loss, expected_risk_loss, pairwise_reward_loss, plackett_luce_reward_loss, pro_loss,
    ranked_reward_loss, rrhf_loss, sft_loss, slic_expected_reward_loss, slic_kl_regularizer,
    slic_list_loss, slic_margin_loss, slic_rank_loss, stable_alignment_loss,
};
use candle_core::{DType, Device, Tensor};

/// The loss of each example `[size]` from the scores of a reward model `[size, k]`.
pub fn reward_loss(task: &Task, batch: &Batch, scores: &Tensor) -> Result<Tensor> {
    let settings = task.settings;
    let (rewards, exists) = (&batch.rewards, Some(&batch.exists));
    Ok(match settings.reward_form {
        RewardForm::Pairs if task.shape == Shape::Pairs => {
            pairwise_reward_loss(&pair(scores)?, None, &settings.reward)?.loss
        }
        RewardForm::Pairs => ranked_reward_loss(scores, rewards, exists, &settings.ranked_reward)?,
        RewardForm::ChooseBest => {
            // best first
            let best = Tensor::zeros(batch.size, DType::U32, &Device::Cpu)?;
            choose_best_loss(scores, &best, exists)?
        }
        RewardForm::PlackettLuce => plackett_luce_reward_loss(scores, rewards, exists)?,
    })
}

/// The loss of each example `[size]` and the objective's score of each answer `[size, k]`.
pub fn loss(
    task: &Task,
    model: &Model,
    reference: Option<&Model>,
    batch: &Batch,
    log_probs: &TokenLogProbs,
) -> Result<(Tensor, Tensor)> {
    let settings = task.settings;
    let lists = (batch.size, batch.k);
    let sums = log_probs.sum()?.reshape(lists)?;
    let means = || log_probs.mean()?.reshape(lists);
    let candidates =
        || Candidates::from_token_log_probs(log_probs, &batch.rewards, Some(&batch.exists));
    // log P / length^power; a row that does not count has no length
    let normalized = |power: f64| -> Result<Tensor> {
        let lengths = log_probs.lengths()?.maximum(1.0)?.powf(power)?;
        Ok((&sums / lengths.reshape(lists)?)?)
    };
    Ok(match task.objective {
        Objective::Dpo => {
            let of = |model: &Model| -> Result<Pair<Tensor>> {
                pair(&model.log_probs(batch, settings)?.sum()?.reshape(lists)?)
            };
            let reference = model.against(reference, of)?;
            side_by_side(dpo_loss(&pair(&sums)?, reference.as_ref(), &settings.dpo)?)?
        }
        Objective::Pro => (pro_loss(&candidates()?, &settings.pro)?.loss, means()?),
        Objective::Rrhf => (rrhf_loss(&candidates()?, &settings.rrhf)?.loss, means()?),
        Objective::StableAlignment => {
            let out = stable_alignment_loss(&candidates()?, &settings.stable_alignment)?;
            (out.loss, means()?)
        }
        Objective::Brio => {
            let best = best_answer(task, batch, log_probs)?;
            let out = brio_loss(&candidates()?, Some(&best), &settings.brio)?;
            (out.loss, normalized(settings.brio.length_power)?)
        }
        Objective::ExpectedRisk => {
            let config = &settings.expected_risk;
            let best = best_answer(task, batch, log_probs)?;
            let out = expected_risk_loss(&candidates()?, Some(&best), config)?;
            (out.loss, normalized(config.length_power)?)
        }
        Objective::Slic => {
            let of_list = |loss: Tensor| (loss, sums.clone());
            let (calibration, scores) = match settings.slic_form {
                SlicForm::Rank => side_by_side(slic_rank_loss(&pair(&sums)?, &settings.slic)?)?,
                SlicForm::Margin => {
                    let similarity = pair(&batch.similarity)?;
                    side_by_side(slic_margin_loss(
                        &pair(&sums)?,
                        &similarity,
                        &settings.slic,
                    )?)?
                }
                SlicForm::List => of_list(slic_list_loss(&candidates()?, &settings.slic)?),
                SlicForm::ExpectedReward => of_list(slic_expected_reward_loss(&candidates()?)?),
            };
            // λ · −log P(best)
            let cross_entropy = (sums.narrow(1, 0, 1)?.squeeze(1)? * -settings.slic_sft_weight)?;
            let loss = (calibration + cross_entropy)?;
            // λ · KL from the model before the first step, on the best answer
            let kl = match settings.slic_kl_weight > 0.0 {
                true => kl_of_best(model, reference, batch)?,
                false => None,
            };
            let loss = match kl {
                Some(kl) => (loss + (kl * settings.slic_kl_weight)?)?,
                None => loss,
            };
            (loss, scores)
        }
        other => unreachable!("{other} compares no answers in its loss"),
    })
}

/// A loss over pairs and its score `[size, 2]`, the better answer first.
fn side_by_side(out: PreferenceLoss) -> Result<(Tensor, Tensor)> {
    let rewards = [&out.rewards.chosen, &out.rewards.rejected];
    Ok((out.loss, Tensor::stack(&rewards, 1)?))
}

/// KL(π‖π_ref) of each list's best answer `[size]`: Σ over its tokens. None without a π_ref.
fn kl_of_best(model: &Model, reference: Option<&Model>, batch: &Batch) -> Result<Option<Tensor>> {
    let tokens = best_rows(batch, &batch.tokens)?;
    let mask = best_rows(batch, &after_first(&batch.learned)?)?;
    let logits = |model: &Model| -> Result<Tensor> {
        let logits = model.body.forward(&tokens)?.logits;
        Ok(logits.narrow(1, 0, mask.dim(1)?)?)
    };
    let Some(reference) = model.against(reference, logits)? else {
        return Ok(None);
    };
    let kl = slic_kl_regularizer(&logits(model)?, &reference, &mask)?;
    Ok(Some(kl.loss.sum(1)?))
}

/// The cross-entropy of each list's best answer, its reference.
fn best_answer(task: &Task, batch: &Batch, log_probs: &TokenLogProbs) -> Result<TokenLoss> {
    let all = sft_loss(log_probs, None, &task.settings.sft)?;
    Ok(TokenLoss {
        loss: best_rows(batch, &all.loss)?,
        mask: best_rows(batch, &after_first(&batch.learned)?)?,
    })
}

/// `[size, 2]` as the better and the worse.
pub fn pair(scores: &Tensor) -> Result<Pair<Tensor>> {
    Ok(Pair {
        chosen: scores.narrow(1, 0, 1)?.squeeze(1)?,
        rejected: scores.narrow(1, 1, 1)?.squeeze(1)?,
    })
}
