//! What every loss over lists guarantees: answers in any order, ragged lists, lists of one, ties.

use crate::common::{EXACT, assert_close, logistic_loss, numbers};
use candle_align::math::plackett_luce;
use candle_align::online::reward_model::Ties;
use candle_align::ranking::brio::BrioPairs;
use candle_align::ranking::{ExoListConfig, NcaConfig, exo_loss, info_nca_loss, nca_loss};
use candle_align::{
    BrioConfig, Candidates, ExpectedRiskConfig, Pair, ProConfig, ProTemperature,
    RankedRewardConfig, Result, RrhfConfig, SlicConfig, StableAlignmentConfig, StableAlignmentForm,
    brio_loss, choose_best_loss, expected_risk_loss, plackett_luce_reward_loss, pro_loss,
    ranked_reward_loss, rrhf_loss, slic_expected_reward_loss, slic_list_loss, slic_margin_loss,
    slic_rank_loss, stable_alignment_loss,
};
use candle_core::{Device, Tensor, Var};
use std::fs;
use std::path::Path;

/// One list: an answer is a log-probability (or a score), a length and a reward; or it is left out.
#[derive(Clone, Debug)]
struct List(Vec<(f64, f64, f64, bool)>);

/// The list as tensors `[1, k]`.
struct Lists {
    sums: Var,
    lengths: Tensor,
    rewards: Tensor,
    mask: Tensor,
}

impl List {
    fn new(rewards: [f64; 4]) -> Self {
        let sums = [-2.5, -4.1, -3.3, -0.9];
        let lengths = [2.0, 3.0, 5.0, 1.0];
        Self(
            (0..4)
                .map(|i| (sums[i], lengths[i], rewards[i], true))
                .collect(),
        )
    }

    fn picked(&self, order: &[usize]) -> Self {
        Self(order.iter().map(|&i| self.0[i]).collect())
    }

    fn tensors(&self) -> Lists {
        let k = self.0.len();
        let row = |of: fn(&(f64, f64, f64, bool)) -> f64| {
            let data: Vec<f64> = self.0.iter().map(of).collect();
            Tensor::from_vec(data, (1, k), &Device::Cpu).unwrap()
        };
        Lists {
            sums: Var::from_tensor(&row(|a| a.0)).unwrap(),
            lengths: row(|a| a.1),
            rewards: row(|a| a.2),
            mask: row(|a| a.3 as u8 as f64)
                .to_dtype(candle_core::DType::U8)
                .unwrap(),
        }
    }
}

impl Lists {
    fn candidates(&self) -> Result<Candidates> {
        Candidates::new(&self.sums, &self.lengths, &self.rewards, Some(&self.mask))
    }

    /// Every (better, worse) of the list that counts, as indices.
    fn pairs(&self) -> Result<(Tensor, Tensor)> {
        let square = candle_align::math::preferences(&self.rewards, &self.mask)?;
        let square = square.squeeze(0)?.to_vec2::<u8>()?;
        let mut pairs: (Vec<u32>, Vec<u32>) = Default::default();
        for (i, row) in square.iter().enumerate() {
            for (j, _) in row.iter().enumerate().filter(|(_, p)| **p == 1) {
                pairs.0.push(i as u32);
                pairs.1.push(j as u32);
            }
        }
        let index = |side: Vec<u32>| Tensor::new(side, &Device::Cpu);
        Ok((index(pairs.0)?, index(pairs.1)?))
    }

    /// A loss over pairs, summed over all pairs that differ in reward.
    fn over_pairs(
        &self,
        loss: impl Fn(&Pair<Tensor>, &Pair<Tensor>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (better, worse) = self.pairs()?;
        let pick = |of: &Tensor| -> Result<Pair<Tensor>> {
            let of = of.squeeze(0)?;
            Ok(Pair {
                chosen: of.index_select(&better, 0)?,
                rejected: of.index_select(&worse, 0)?,
            })
        };
        let losses = loss(&pick(&self.sums)?, &pick(&self.rewards)?)?;
        Ok(losses.sum_all()?.reshape(1)?)
    }

    /// The counted answer of the highest reward; 0 if there is none.
    fn best(&self) -> Result<Tensor> {
        let (rewards, mask) = (numbers(&self.rewards), numbers(&self.mask));
        let best = (0..rewards.len())
            .filter(|&i| mask[i] != 0.0)
            .max_by(|&i, &j| rewards[i].total_cmp(&rewards[j]));
        Ok(Tensor::new(&[best.unwrap_or(0) as u32], &Device::Cpu)?)
    }
}

/// From log-probabilities, lengths and the reward that all answers have.
type OfEquals = fn(&[f64], &[f64], f64) -> f64;

/// A loss over lists, and what it is worth on the lists that a ranking says nothing about.
struct ListLaw {
    /// The public function.
    function: &'static str,
    setting: &'static str,
    loss: fn(&Lists) -> Result<Tensor>,
    /// Of one answer with log-probability ℓ, length and reward: the loss, and its slope in ℓ.
    one: fn(f64, f64, f64) -> (f64, f64),
    /// Of answers of one reward. `None` where the label is no reward, so that there are no ties.
    equals: Option<OfEquals>,
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

fn no_ranking(_: &[f64], _: &[f64], _: f64) -> f64 {
    0.0
}

fn pro(x: &Lists, temperature: ProTemperature) -> Result<Tensor> {
    let config = ProConfig {
        temperature,
        ..Default::default()
    };
    Ok(pro_loss(&x.candidates()?, &config)?.loss)
}

/// Of equals only imitation remains: the mean over the best, and all are best.
fn pro_of_equals(sums: &[f64], _: &[f64], _: f64) -> f64 {
    -0.05 * (sums.len() as f64 - 1.0).powi(2) * mean(sums)
}

fn brio(x: &Lists, pairs: BrioPairs) -> Result<Tensor> {
    let config = BrioConfig {
        margin: 0.3,
        rank_weight: 2.0,
        length_power: 0.6,
        pairs,
        ..Default::default()
    };
    Ok(brio_loss(&x.candidates()?, None, &config)?.loss)
}

fn ranked(x: &Lists, ties: Ties) -> Result<Tensor> {
    let config = RankedRewardConfig {
        ties,
        margin: 0.3,
        centering: 0.0,
    };
    ranked_reward_loss(&x.sums, &x.rewards, Some(&x.mask), &config)
}

/// Each pair half won by each.
fn ranked_of_equals(scores: &[f64], _: &[f64], _: f64) -> f64 {
    let pairs: Vec<f64> = (0..scores.len())
        .flat_map(|i| (0..i).map(move |j| (i, j)))
        .map(|(i, j)| scores[i] - scores[j])
        .map(|z| 0.5 * (logistic_loss(z) + logistic_loss(-z)))
        .collect();
    mean(&pairs)
}

fn stable(x: &Lists, form: StableAlignmentForm) -> Result<Tensor> {
    let config = StableAlignmentConfig {
        form,
        ..Default::default()
    };
    Ok(stable_alignment_loss(&x.candidates()?, &config)?.loss)
}

/// No answer is worse than the best: imitation alone, the mean over them.
fn stable_of_equals(sums: &[f64], lengths: &[f64], _: f64) -> f64 {
    let means: Vec<f64> = sums.iter().zip(lengths).map(|(s, n)| s / n).collect();
    -mean(&means)
}

fn nca_settings() -> NcaConfig {
    NcaConfig {
        beta: 0.5,
        alpha: 0.8,
    }
}

/// log(1 + eˣ) + log(1 + e⁻ˣ) of x = β ℓ, and its slope in ℓ.
fn nca_of_one(l: f64, _: f64, _: f64) -> (f64, f64) {
    let x = 0.5 * l;
    let slope = 0.5 * ((-logistic_loss(x)).exp() - (-logistic_loss(-x)).exp());
    (logistic_loss(x) + logistic_loss(-x), slope)
}

fn nca_of_equals(sums: &[f64], _: &[f64], _: f64) -> f64 {
    let each: Vec<f64> = sums.iter().map(|l| nca_of_one(*l, 1.0, 0.0).0).collect();
    mean(&each)
}

/// log softmax(β ℓ) of each answer.
fn log_shares(sums: &[f64]) -> Vec<f64> {
    let total: f64 = sums.iter().map(|l| (0.5 * l).exp()).sum();
    sums.iter().map(|l| 0.5 * l - total.ln()).collect()
}

fn info_nca_of_equals(sums: &[f64], _: &[f64], _: f64) -> f64 {
    -mean(&log_shares(sums))
}

/// KL to equal shares.
fn exo_of_equals(sums: &[f64], _: &[f64], _: f64) -> f64 {
    let each = log_shares(sums)
        .into_iter()
        .map(|log_q| log_q.exp() * log_q);
    each.sum::<f64>() + (sums.len() as f64).ln()
}

fn exo(x: &Lists) -> Result<Tensor> {
    let config = ExoListConfig {
        beta: 0.5,
        reward_beta: 0.8,
    };
    exo_loss(&x.candidates()?, &x.lengths.zeros_like()?, &config)
}

#[rustfmt::skip]
fn laws() -> Vec<ListLaw> {
    vec![
        ListLaw { function: "pro_loss", setting: "reward gaps", loss: |x| pro(x, ProTemperature::RewardGaps),
            one: |_, _, _| (0.0, 0.0), equals: Some(pro_of_equals) },
        ListLaw { function: "pro_loss", setting: "T = 1", loss: |x| pro(x, ProTemperature::One),
            one: |_, _, _| (0.0, 0.0), equals: Some(pro_of_equals) },
        ListLaw { function: "stable_alignment_loss", setting: "mean", loss: |x| stable(x, StableAlignmentForm::Mean),
            one: |l, n, _| (-l / n, -1.0 / n), equals: Some(stable_of_equals) },
        ListLaw { function: "stable_alignment_loss", setting: "max", loss: |x| stable(x, StableAlignmentForm::Max),
            one: |l, n, _| (-l / n, -1.0 / n), equals: Some(stable_of_equals) },
        ListLaw { function: "rrhf_loss", setting: "", loss: |x| Ok(rrhf_loss(&x.candidates()?, &RrhfConfig::default())?.loss),
            one: |l, _, _| (-l, -1.0), equals: Some(|sums, _, _| -mean(sums)) },
        ListLaw { function: "slic_rank_loss", setting: "on all pairs",
            loss: |x| x.over_pairs(|policy, _| Ok(slic_rank_loss(policy, &SlicConfig { delta: 0.7 })?.loss)),
            one: |_, _, _| (0.0, 0.0), equals: Some(no_ranking) },
        ListLaw { function: "slic_margin_loss", setting: "on all pairs",
            loss: |x| x.over_pairs(|policy, similarity| Ok(slic_margin_loss(policy, similarity, &SlicConfig { delta: 0.7 })?.loss)),
            one: |_, _, _| (0.0, 0.0), equals: Some(no_ranking) },
        ListLaw { function: "slic_list_loss", setting: "", loss: |x| slic_list_loss(&x.candidates()?, &SlicConfig { delta: 0.7 }),
            one: |_, _, _| (0.0, 0.0), equals: Some(no_ranking) },
        ListLaw { function: "slic_expected_reward_loss", setting: "", loss: |x| slic_expected_reward_loss(&x.candidates()?),
            one: |_, _, r| (-r, 0.0), equals: Some(|_, _, r| -r) },
        ListLaw { function: "brio_loss", setting: "sum", loss: |x| brio(x, BrioPairs::Sum),
            one: |_, _, _| (0.0, 0.0), equals: Some(no_ranking) },
        ListLaw { function: "brio_loss", setting: "mean per distance", loss: |x| brio(x, BrioPairs::MeanPerDistance),
            one: |_, _, _| (0.0, 0.0), equals: Some(no_ranking) },
        ListLaw { function: "expected_risk_loss", setting: "",
            loss: |x| Ok(expected_risk_loss(&x.candidates()?, None, &ExpectedRiskConfig::default())?.loss),
            one: |_, _, r| (1.0 - r, 0.0), equals: Some(|_, _, r| 1.0 - r) },
        ListLaw { function: "ranked_reward_loss", setting: "ties skipped", loss: |x| ranked(x, Ties::Skip),
            one: |_, _, _| (0.0, 0.0), equals: Some(no_ranking) },
        ListLaw { function: "ranked_reward_loss", setting: "ties by half", loss: |x| ranked(x, Ties::Half),
            one: |_, _, _| (0.0, 0.0), equals: Some(ranked_of_equals) },
        ListLaw { function: "plackett_luce_reward_loss", setting: "",
            loss: |x| plackett_luce_reward_loss(&x.sums, &x.rewards, Some(&x.mask)),
            one: |_, _, _| (0.0, 0.0), equals: Some(no_ranking) },
        ListLaw { function: "plackett_luce", setting: "", loss: |x| plackett_luce(&x.sums, &x.rewards, &x.mask),
            one: |_, _, _| (0.0, 0.0), equals: Some(no_ranking) },
        ListLaw { function: "choose_best_loss", setting: "the best by reward",
            loss: |x| choose_best_loss(&x.sums, &x.best()?, Some(&x.mask)),
            one: |_, _, _| (0.0, 0.0), equals: None },
        ListLaw { function: "nca_loss", setting: "a reference of 0",
            loss: |x| nca_loss(&x.candidates()?, &x.lengths.zeros_like()?, &nca_settings()),
            one: nca_of_one, equals: Some(nca_of_equals) },
        ListLaw { function: "info_nca_loss", setting: "a reference of 0",
            loss: |x| info_nca_loss(&x.candidates()?, &x.lengths.zeros_like()?, &nca_settings()),
            one: |_, _, _| (0.0, 0.0), equals: Some(info_nca_of_equals) },
        ListLaw { function: "exo_loss", setting: "a reference of 0", loss: exo,
            one: |_, _, _| (0.0, 0.0), equals: Some(exo_of_equals) },
    ]
}

impl ListLaw {
    /// The loss of one list, and its gradient with respect to every log-probability or score.
    fn of(&self, list: &List) -> (f64, Vec<f64>) {
        let x = list.tensors();
        let loss = (self.loss)(&x).unwrap_or_else(|e| panic!("{self}: {e}"));
        assert_eq!(loss.dims(), [1], "{self}");
        let grads = loss.sum_all().unwrap().backward().unwrap();
        let gradient = match grads.get(&x.sums) {
            Some(gradient) => numbers(gradient),
            None => vec![0.0; list.0.len()],
        };
        (numbers(&loss)[0], gradient)
    }

    #[track_caller]
    fn assert(&self, list: &List, loss: f64, gradient: &[f64], what: &str) {
        let (got, slopes) = self.of(list);
        let what = format!("{self}: {what}: {list:?}");
        assert_close(&[got], &[loss], EXACT, &what);
        assert_close(&slopes, gradient, EXACT, &what);
    }
}

impl std::fmt::Display for ListLaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.function, self.setting)
    }
}

/// Without ties, with a tie at the top, with two ties, all equal.
const REWARDS: [[f64; 4]; 4] = [
    [0.2, 1.5, -0.3, 0.8],
    [1.5, 0.8, 1.5, -0.3],
    [0.4, 1.0, 0.4, 1.0],
    [0.6; 4],
];

/// Every list that a loss is defined on.
fn lists(law: &ListLaw) -> impl Iterator<Item = List> {
    let ties = law.equals.is_some();
    REWARDS
        .into_iter()
        .take(if ties { 4 } else { 1 })
        .map(List::new)
}

#[test]
fn answers_may_stand_in_any_order_and_tied_ones_are_interchangeable() {
    for law in laws() {
        for list in lists(&law) {
            let (loss, gradient) = law.of(&list);
            for order in crate::common::rankings::orders(4) {
                let moved: Vec<f64> = order.iter().map(|&i| gradient[i]).collect();
                law.assert(&list.picked(&order), loss, &moved, "in another order");
            }
        }
    }
}

#[test]
fn an_answer_under_the_mask_is_one_left_out_wherever_it_stands() {
    for law in laws() {
        for list in lists(&law) {
            for subset in 0..16usize {
                let kept: Vec<usize> = (0..4).filter(|i| subset >> i & 1 == 1).collect();
                let mut hidden = list.clone();
                for i in (0..4).filter(|i| !kept.contains(i)) {
                    hidden.0[i] = (f64::NAN, f64::NAN, f64::NAN, false);
                }
                let (loss, gradient) = match kept.is_empty() {
                    true => (0.0, vec![]),
                    false => law.of(&list.picked(&kept)),
                };
                let mut spread = vec![0.0; 4];
                for (i, g) in kept.iter().zip(gradient) {
                    spread[*i] = g;
                }
                law.assert(&hidden, loss, &spread, "ragged");
            }
        }
    }
}

#[test]
fn a_list_of_one_is_worth_what_its_page_says() {
    for law in laws() {
        for (l, n, r) in [(-2.5, 2.0, 0.7), (-0.1, 1.0, -3.0), (-9.0, 7.0, 0.0)] {
            let (loss, slope) = (law.one)(l, n, r);
            law.assert(&List(vec![(l, n, r, true)]), loss, &[slope], "one answer");
        }
    }
}

#[test]
fn a_list_of_equals_is_worth_what_its_page_says() {
    for law in laws() {
        let Some(equals) = law.equals else { continue };
        for k in 2..=4 {
            let list = List::new([0.6; 4]).picked(&[3, 1, 0, 2][..k]);
            let sums: Vec<f64> = list.0.iter().map(|a| a.0).collect();
            let lengths: Vec<f64> = list.0.iter().map(|a| a.1).collect();
            let want = equals(&sums, &lengths, 0.6);
            assert_close(&[law.of(&list).0], &[want], EXACT, &format!("{law}"));
        }
    }
}

#[test]
fn a_tie_makes_no_preference_between_the_two() {
    // of two tied answers each is compared with the third as if the other were not there: true of
    // every loss that sums over pairs and takes no account of places
    let additive = ["slic_rank_loss", "slic_margin_loss", "plackett_luce"];
    let list = List::new([0.9, 0.2, 0.9, 0.0]).picked(&[0, 1, 2]);
    for law in laws().iter().filter(|l| additive.contains(&l.function)) {
        let (first, second) = (law.of(&list.picked(&[0, 1])), law.of(&list.picked(&[2, 1])));
        let want = [first.1[0], first.1[1] + second.1[1], second.1[0]];
        law.assert(&list, first.0 + second.0, &want, "tied bests");
    }
}

/// Every public function whose arguments are lists of answers to be ranked.
fn functions(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for item in text.split("\npub fn ").skip(1) {
            let (name, rest) = item.split_once('(').unwrap();
            let arguments = rest.split_once("->").map_or(rest, |(a, _)| a);
            let lists = arguments.contains("&Candidates")
                || arguments.contains("best: &Tensor")
                || arguments.contains("scores: &Tensor") && arguments.contains("rewards: &Tensor");
            if lists && (name.ends_with("_loss") || name == "plackett_luce") {
                found.push(name.to_string());
            }
        }
    }
}

#[test]
fn every_list_loss_of_the_crate_is_held_to_these() {
    let mut found = Vec::new();
    functions(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut found,
    );
    assert!(found.len() >= 10, "{found:?}");
    let known: Vec<&str> = laws().iter().map(|l| l.function).collect();
    for name in found {
        assert!(known.contains(&name.as_str()), "{name} is not in the table");
    }
}
