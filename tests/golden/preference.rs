//! Pairs and rankings: DPO and reward models, against TRL and the papers' sums.

use super::EXACT;
use super::reader::{Case, each};
use candle_align::{
    DpoConfig, Pair, PairwiseRewardConfig, RankedRewardConfig, Result, TokenLogProbs,
    choose_best_loss, dpo_loss, pairwise_reward_loss, plackett_luce_reward_loss,
    ranked_reward_loss,
};

/// TRL counts its accuracies in f32.
const COUNTED: f64 = 6e-8;

#[test]
fn dpo() {
    each("dpo", |case| match case.has("values") {
        true => dpo_on_tokens(case),
        false => dpo_on_sums(case),
    });
}

fn dpo_config(case: &Case) -> DpoConfig {
    DpoConfig {
        beta: case.number("beta"),
        label_smoothing: case.number("label_smoothing"),
    }
}

fn reference(case: &Case) -> Result<Option<Pair<candle_core::Tensor>>> {
    if !case.has("reference_chosen") {
        return Ok(None);
    }
    Ok(Some(Pair {
        chosen: case.input("reference_chosen")?,
        rejected: case.input("reference_rejected")?,
    }))
}

/// From token log-probabilities, chosen rows first, to the mean over pairs and its metrics.
fn dpo_on_tokens(case: &Case) -> Result<()> {
    let values = case.var("values")?;
    let log_probs = TokenLogProbs::new(&values, &case.mask("mask")?)?;
    let policy = Pair::from_rows(&log_probs.sum()?)?;
    let out = dpo_loss(&policy, reference(case)?.as_ref(), &dpo_config(case))?;
    let loss = out.loss.mean_all()?;
    case.check("loss", &loss, EXACT)?;
    case.check("rewards/chosen", &out.rewards.chosen.mean_all()?, EXACT)?;
    case.check("rewards/rejected", &out.rewards.rejected.mean_all()?, EXACT)?;
    case.check("rewards/margins", &out.rewards.margin()?.mean_all()?, EXACT)?;
    if case.gives("rewards/accuracies") {
        case.check("rewards/accuracies", &out.rewards.accuracy()?, COUNTED)?;
    }
    case.check_gradient("values", &loss, &values, EXACT)
}

fn dpo_on_sums(case: &Case) -> Result<()> {
    let (chosen, rejected) = (case.var("policy_chosen")?, case.var("policy_rejected")?);
    let policy = Pair {
        chosen: chosen.as_tensor().clone(),
        rejected: rejected.as_tensor().clone(),
    };
    let out = dpo_loss(&policy, reference(case)?.as_ref(), &dpo_config(case))?;
    case.check("loss", &out.loss, EXACT)?;
    case.check("rewards_chosen", &out.rewards.chosen, EXACT)?;
    case.check("rewards_rejected", &out.rewards.rejected, EXACT)?;
    case.check_gradient("policy_chosen", &out.loss, &chosen, EXACT)?;
    case.check_gradient("policy_rejected", &out.loss, &rejected, EXACT)
}

#[test]
fn reward_model() {
    each("reward_model", |case| match case.word("kind") {
        "pairwise" => pairwise(case),
        _ => lists(case),
    });
}

fn pairwise(case: &Case) -> Result<()> {
    let (chosen, rejected) = (case.var("chosen")?, case.var("rejected")?);
    let scores = Pair {
        chosen: chosen.as_tensor().clone(),
        rejected: rejected.as_tensor().clone(),
    };
    let margin = match case.has("margin") {
        true => Some(case.input("margin")?),
        false => None,
    };
    let config = PairwiseRewardConfig {
        centering: case.number("centring"),
    };
    let loss = pairwise_reward_loss(&scores, margin.as_ref(), &config)?
        .loss
        .mean_all()?;
    case.check("loss", &loss, EXACT)?;
    case.check("accuracy", &scores.accuracy()?, COUNTED)?;
    case.check_gradient("chosen", &loss, &chosen, EXACT)?;
    case.check_gradient("rejected", &loss, &rejected, EXACT)
}

fn lists(case: &Case) -> Result<()> {
    let (scores, mask) = (case.var("scores")?, case.mask("mask")?);
    let loss = match case.word("kind") {
        "ranked" => ranked_reward_loss(
            &scores,
            &case.input("rewards")?,
            Some(&mask),
            &RankedRewardConfig::default(),
        )?,
        "plackett_luce" => {
            plackett_luce_reward_loss(&scores, &case.input("rewards")?, Some(&mask))?
        }
        "best" => choose_best_loss(&scores, &case.index("best")?, Some(&mask))?,
        other => panic!("{}: {other}", case.name),
    };
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("scores", &loss, &scores, EXACT)
}
