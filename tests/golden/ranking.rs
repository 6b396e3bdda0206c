//! Lists of ranked answers: PRO, SLiC and RRHF, against the papers' sums.

use super::EXACT;
use super::reader::{Case, each};
use candle_align::{
    Candidates, ListLoss, Pair, ProConfig, ProTemperature, Result, RrhfConfig, SlicConfig,
    TokenLogProbs, pro_loss, rrhf_loss, slic_expected_reward_loss, slic_kl_regularizer,
    slic_list_loss, slic_margin_loss, slic_rank_loss,
};
use candle_core::{Device, Tensor, Var};

/// The answers of a case, from the log-probability of every token.
pub fn candidates(case: &Case) -> Result<(Var, Candidates)> {
    let values = case.var("values")?;
    let log_probs = TokenLogProbs::new(&values, &case.mask("tokens")?)?;
    let mask = case.mask("mask")?;
    let rewards = case.input("rewards")?;
    let candidates = Candidates::from_token_log_probs(&log_probs, &rewards, Some(&mask))?;
    Ok((values, candidates))
}

pub fn check_list(case: &Case, out: &ListLoss, values: &Var) -> Result<()> {
    case.check("loss", &out.loss, EXACT)?;
    case.check("ranking", &out.ranking, EXACT)?;
    case.check("sft", &out.sft, EXACT)?;
    case.check_gradient("values", &out.loss, values, EXACT)
}

#[test]
fn pro() {
    each("pro", |case| {
        let config = ProConfig {
            temperature: match case.word("temperature") {
                "reward_gap" => ProTemperature::RewardGaps,
                "none" => ProTemperature::One,
                other => panic!("{}: {other}", case.name),
            },
            sft_weight: case.number("sft"),
        };
        let (values, candidates) = candidates(case)?;
        check_list(case, &pro_loss(&candidates, &config)?, &values)
    });
}

#[test]
fn rrhf() {
    each("rrhf", |case| {
        let (values, candidates) = candidates(case)?;
        let out = rrhf_loss(&candidates, &RrhfConfig::default())?;
        check_list(case, &out, &values)
    });
}

#[test]
fn slic() {
    each("slic", |case| {
        if case.word("kind") == "kl" {
            return kl(case);
        }
        let (values, candidates) = candidates(case)?;
        let config = SlicConfig {
            delta: case.optional("beta").unwrap_or_default(),
        };
        let loss = match case.word("kind") {
            "rank" => each_pair(&candidates, |policy, _| {
                Ok(slic_rank_loss(policy, &config)?.loss)
            })?,
            "margin" => each_pair(&candidates, |policy, similarity| {
                Ok(slic_margin_loss(policy, similarity, &config)?.loss)
            })?,
            "list" => slic_list_loss(&candidates, &config)?,
            "reward" => slic_expected_reward_loss(&candidates)?,
            other => panic!("{}: {other}", case.name),
        };
        case.check("loss", &loss, EXACT)?;
        case.check_gradient("values", &loss, &values, EXACT)
    });
}

/// A loss over pairs, summed over all pairs of each list that differ in reward.
fn each_pair(
    candidates: &Candidates,
    loss: impl Fn(&Pair<Tensor>, &Pair<Tensor>) -> Result<Tensor>,
) -> Result<Tensor> {
    let preferences = candidates.preferences()?.to_vec3::<u8>()?;
    let mut sums = Vec::new();
    for (row, square) in preferences.iter().enumerate() {
        let k = square.len();
        let pairs: Vec<(usize, usize)> = (0..k * k)
            .map(|at| (at / k, at % k))
            .filter(|&(chosen, rejected)| square[chosen][rejected] == 1)
            .collect();
        let chosen: Vec<u32> = pairs.iter().map(|&(chosen, _)| chosen as u32).collect();
        let rejected: Vec<u32> = pairs.iter().map(|&(_, rejected)| rejected as u32).collect();
        let pick = |of: &Tensor| -> Result<Pair<Tensor>> {
            let of = of.get(row)?;
            Ok(Pair {
                chosen: of.index_select(&Tensor::new(chosen.as_slice(), &Device::Cpu)?, 0)?,
                rejected: of.index_select(&Tensor::new(rejected.as_slice(), &Device::Cpu)?, 0)?,
            })
        };
        let pairs = loss(&pick(candidates.sums())?, &pick(candidates.rewards())?)?;
        sums.push(pairs.sum_all()?);
    }
    Ok(Tensor::stack(&sums, 0)?)
}

fn kl(case: &Case) -> Result<()> {
    let policy = case.var("policy")?;
    let kl = slic_kl_regularizer(&policy, &case.input("reference")?, &case.mask("mask")?)?;
    case.check("loss", &kl.loss, EXACT)?;
    case.check_gradient("policy", &kl.loss, &policy, EXACT)
}
