//! Whole losses since the survey, with the rewards beside them, against papers in scalars.

use super::EXACT;
use super::reader::{Case, each};
use candle_align::ranking::*;
use candle_align::{Pair, PreferenceLoss, Result, SftConfig, TokenLogProbs, sft_loss};
use candle_core::Tensor;

#[test]
fn whole_losses_in_scalars() {
    each("since_whole", |case| match case.word("kind") {
        "online_dpo" => online_dpo(case),
        _ => on_pairs(case),
    });
}

fn check(case: &Case, out: &PreferenceLoss) -> Result<()> {
    case.check("loss", &out.loss, EXACT)?;
    case.check("reward_chosen", &out.rewards.chosen, EXACT)?;
    case.check("reward_rejected", &out.rewards.rejected, EXACT)
}

fn on_pairs(case: &Case) -> Result<()> {
    let (chosen, rejected) = (case.var("chosen")?, case.var("rejected")?);
    let masks = [case.mask("chosen_mask")?, case.mask("rejected_mask")?];
    let tokens = |chosen: &Tensor, rejected: &Tensor| -> Result<Pair<TokenLogProbs>> {
        Ok(Pair {
            chosen: TokenLogProbs::new(chosen, &masks[0])?,
            rejected: TokenLogProbs::new(rejected, &masks[1])?,
        })
    };
    let policy = tokens(&chosen, &rejected)?;
    let reference = tokens(&case.input("ref_chosen")?, &case.input("ref_rejected")?)?;
    let likelihood = sft_loss(&policy.chosen, None, &SftConfig::default())?;
    let out = match case.word("kind") {
        "rpo" => {
            let sums = |of: &Pair<TokenLogProbs>| -> Result<Pair<Tensor>> {
                Ok(Pair {
                    chosen: of.chosen.sum()?,
                    rejected: of.rejected.sum()?,
                })
            };
            let ratios = LogRatios::sums(&sums(&policy)?, &sums(&reference)?)?;
            let config = RpoConfig {
                beta: case.number("beta"),
                alpha: case.number("alpha"),
                tokens: case.part("tokens"),
            };
            rpo_loss(&ratios, &likelihood, &config)?
        }
        "orpo" => {
            let means = Pair {
                chosen: policy.chosen.mean()?,
                rejected: policy.rejected.mean()?,
            };
            let config = OrpoConfig {
                lambda: case.number("lambda"),
                tokens: case.part("tokens"),
            };
            orpo_loss(&means, &likelihood, &config)?
        }
        "ld_dpo" => {
            let config = LdDpoConfig {
                beta: case.number("beta"),
                alpha: case.number("alpha"),
            };
            ld_dpo_loss(&policy, &reference, &config)?
        }
        other => panic!("{}: {other}", case.name),
    };
    check(case, &out)?;
    case.check_gradient("chosen", &out.loss, &chosen, EXACT)?;
    case.check_gradient("rejected", &out.loss, &rejected, EXACT)
}

fn online_dpo(case: &Case) -> Result<()> {
    let policy = case.var("policy")?;
    let (reference, scores) = (case.input("reference")?, case.input("scores")?);
    let config = OnlineDpoConfig {
        beta: case.number("beta"),
        ties: case.part("ties"),
    };
    let out = online_dpo_loss(&policy, &reference, &scores, &config)?;
    check(case, &out)?;
    case.check_gradient("policy", &out.loss, &policy, EXACT)
}
