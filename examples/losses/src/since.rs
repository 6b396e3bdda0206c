//! The losses since the survey, each as a function of the gap alone.
//!
//! The reference gives both answers ½. The log-ratios are then ρ_w = log 2σ(z) and ρ_l = log 2σ(−z), and their
//! difference is the gap z.

use super::curves::{Loss, World};
use candle_align::ranking::*;
use candle_align::{
    Candidates, DpoConfig, Pair, Result, SftConfig, TokenLogProbs, TokenLoss, dpo_loss, sft_loss,
};
use candle_core::{DType, Device, Tensor};
use std::f64::consts::LN_2;

/// Losses that belong into one row of the picture.
pub struct Group {
    pub title: &'static str,
    pub losses: Vec<Loss>,
}

/// A loss that draws the curve of another one.
pub struct Same {
    pub loss: Loss,
    /// The function whose curve it is.
    pub drawn: &'static str,
}

/// By what a loss reads of the two answers. The first loss is the survey's, for comparison.
#[rustfmt::skip]
pub fn groups() -> [Group; 3] {
    [
        Group {
            title: "Losses of the difference of the log-ratios",
            losses: vec![
                loss("dpo_loss", "DPO, β = 1", |w| dpo(w, 1.0)),
                loss("hinge_dpo_loss", "hinge, β = 1", |w| of(hinge_dpo_loss(&w.ratios()?, &HingeDpoConfig { beta: 1.0 }))),
                loss("ipo_loss", "IPO, β = ½", |w| of(ipo_loss(&w.ratios()?, &IpoConfig { beta: 0.5 }))),
                loss("robust_dpo_loss", "robust DPO, β = 1, ε = 1/10",
                    |w| of(robust_dpo_loss(&w.ratios()?, &RobustDpoConfig { beta: 1.0, flip_rate: 0.1 }))),
                loss("exo_pair_loss", "EXO, β = 1, ε = 1/10",
                    |w| of(exo_pair_loss(&w.ratios()?, &ExoConfig { beta: 1.0, label_smoothing: 0.1 }))),
                loss("f_dpo_loss", "f-DPO, forward KL, β = 1",
                    |w| of(f_dpo_loss(&w.ratios()?, &FDpoConfig { beta: 1.0, divergence: FDivergence::ForwardKl }))),
                loss("discopop_loss", "DiscoPOP, β = 1, τ = 1/20",
                    |w| of(discopop_loss(&w.ratios()?, &DiscopopConfig { beta: 1.0, tau: 0.05 }))),
            ],
        },
        Group {
            title: "Losses of the log-ratio of each answer",
            losses: vec![
                loss("nca_pair_loss", "NCA, β = 1", |w| of(nca_pair_loss(&w.ratios()?, &NcaPairConfig { beta: 1.0 }))),
                loss("bco_pair_loss", "BCO, β = 1, δ = 0",
                    |w| of(bco_pair_loss(&w.ratios()?, &zero()?, &BcoConfig { beta: 1.0 }))),
                loss("sppo_loss", "SPPO, β = ½, a certain win",
                    |w| of(sppo_loss(&w.ratios()?, &w.columns(1.0, 0.0)?, &SppoConfig { beta: 0.5 }))),
                loss("apo_zero_loss", "APO-zero, β = 1", |w| of(apo_zero_loss(&w.ratios()?, &ApoConfig { beta: 1.0 }))),
                loss("apo_down_loss", "APO-down, β = 1", |w| of(apo_down_loss(&w.ratios()?, &ApoConfig { beta: 1.0 }))),
                loss("dpop_loss", "DPOP, β = 1, λ = 1",
                    |w| of(dpop_loss(&w.ratios()?, &DpopConfig { beta: 1.0, lambda: 1.0 }))),
            ],
        },
        Group {
            title: "Losses without a reference",
            losses: vec![
                loss("simpo_loss", "SimPO, β = 2, γ = 1",
                    |w| of(simpo_loss(&w.pair, &SimpoConfig { beta: 2.0, margin: RequiredLead::Gamma(1.0) }))),
                loss("alpha_po_loss", "AlphaPO, β = 2, γ = 1, α = ¼",
                    |w| of(alpha_po_loss(&w.pair, &AlphaPoConfig { beta: 2.0, alpha: 0.25, margin: RequiredLead::Gamma(1.0) }))),
                loss("simper_loss", "SimPER", |w| of(simper_loss(&w.pair))),
                loss("odds_ratio_loss", "ORPO, odds alone", |w| of(odds_ratio_loss(&w.pair))),
                loss("orpo_loss", "ORPO, λ = 1/10",
                    |w| of(orpo_loss(&w.pair, &w.likelihood()?, &OrpoConfig::default()))),
                loss("cpo_loss", "CPO, β = ½, α = 1",
                    |w| of(cpo_loss(&w.pair, &w.likelihood()?, &CpoConfig { beta: 0.5, ..Default::default() }))),
            ],
        },
    ]
}

/// In the order of the legend.
pub fn all() -> Vec<Loss> {
    groups().into_iter().flat_map(|g| g.losses).collect()
}

/// Losses whose curve is drawn already, under the condition that the label names.
#[rustfmt::skip]
pub fn same() -> Vec<Same> {
    let same = |function, drawn, label, of| Same { loss: loss(function, label, of), drawn };
    vec![
        same("length_normalized_dpo_loss", "dpo_loss", "one token each",
            |w| of(length_normalized_dpo_loss(&w.ratios()?, &w.columns(1.0, 1.0)?, &LengthNormalizedDpoConfig { beta: 1.0 }))),
        same("ld_dpo_loss", "dpo_loss", "one token each",
            |w| of(ld_dpo_loss(&w.tokens(&w.pair)?, &w.tokens(&w.even()?)?, &LdDpoConfig { beta: 1.0, alpha: 0.5 }))),
        same("r_dpo_loss", "dpo_loss", "two answers of one length",
            |w| of(r_dpo_loss(&w.ratios()?, &w.columns(3.0, 3.0)?, &RDpoConfig { beta: 1.0, alpha: 0.1 }))),
        same("tdpo1_loss", "dpo_loss", "divergences alike",
            |w| of(tdpo1_loss(&w.ratios()?, &w.columns(0.3, 0.3)?, &Tdpo1Config { beta: 1.0 }))),
        same("tdpo2_loss", "dpo_loss", "divergences alike",
            |w| of(tdpo2_loss(&w.ratios()?, &w.columns(0.3, 0.3)?, &Tdpo2Config { beta: 1.0, alpha: 0.5 }))),
        same("aot_loss", "dpo_loss", "a batch of one pair",
            |w| of(aot_loss(&w.pair, &w.even()?, &AotConfig { beta: 1.0, label_smoothing: 0.0 }))),
        same("aot_unpaired_loss", "dpo_loss", "a batch of one pair",
            |w| of(aot_unpaired_loss(&w.ratios()?, &AotConfig { beta: 1.0, label_smoothing: 0.0 }))),
        same("info_nca_loss", "dpo_loss", "two answers, all the reward on one",
            |w| info_nca_loss(&w.rewarded(1.0)?, &w.even_list()?, &NcaConfig { beta: 1.0, alpha: 1e-3 })),
        same("online_dpo_loss", "dpo_loss", "the better answer has the higher score",
            |w| of(online_dpo_loss(w.rewarded(1.0)?.sums(), &w.even_list()?, w.rewarded(1.0)?.rewards(),
                &OnlineDpoConfig { beta: 1.0, ..Default::default() }))),
        same("spin_loss", "dpo_loss", "the better answer is the data's",
            |w| of(spin_loss(&w.ratios()?, &SpinConfig { beta: 1.0 }))),
        same("xpo_loss", "dpo_loss", "without its bonus",
            |w| of(xpo_loss(&w.ratios()?, &w.column(-1.0)?, &XpoConfig { beta: 1.0, alpha: 0.0 }))),
        same("rebel_loss", "ipo_loss", "η = 1, rewards 1 apart",
            |w| of(rebel_loss(&w.ratios()?, &w.columns(1.0, 0.0)?, &RebelConfig { eta: 1.0 }))),
        same("exo_loss", "exo_pair_loss", "two answers, rewards log 9 apart",
            |w| exo_loss(&w.rewarded(9f64.ln())?, &w.even_list()?, &ExoListConfig { beta: 1.0, reward_beta: 1.0 })),
        same("nca_loss", "nca_pair_loss", "two answers, all the reward on one",
            |w| nca_loss(&w.rewarded(1.0)?, &w.even_list()?, &NcaConfig { beta: 1.0, alpha: 1e-3 })),
        same("bco_loss", "bco_pair_loss", "both answers, one of each label", |w| {
            let config = BcoConfig { beta: 1.0 };
            w.of_both(|policy, reference, labels| Ok(bco_loss(policy, reference, labels, &zero()?, &config)?.loss))
        }),
        same("kto_loss", "apo_zero_loss", "both answers, one of each label, z₀ = 0", |w| {
            let config = KtoConfig { beta: 1.0, ..Default::default() };
            w.of_both(|policy, reference, labels| Ok(kto_loss(policy, reference, labels, &zero()?, &config)?.loss))
        }),
        same("apo_zero_unpaired_loss", "apo_zero_loss", "both answers, one of each label", |w| {
            let config = ApoUnpairedConfig { beta: 1.0 };
            w.of_both(|policy, reference, labels| Ok(apo_zero_unpaired_loss(policy, reference, labels, &config)?.loss))
        }),
        same("rpo_loss", "cpo_loss", "an even reference",
            |w| of(rpo_loss(&w.ratios()?, &w.likelihood()?, &RpoConfig { beta: 0.5, alpha: 1.0, ..Default::default() }))),
        same("tpo_loss", "cpo_loss", "the chosen answer is the gold one",
            |w| of(tpo_loss(&w.pair, &w.likelihood()?, &TpoConfig { beta: 0.5, ..Default::default() }))),
    ]
}

/// A loss whose curve is the sum of two that are drawn.
pub struct Sum {
    pub loss: Loss,
    pub drawn: [&'static str; 2],
}

/// The losses that are not drawn because their curve is the sum of two others.
pub fn sums() -> Vec<Sum> {
    let of_both: fn(&World) -> Result<Tensor> =
        |w| of(cal_dpo_loss(&w.ratios()?, &CalDpoConfig { beta: 0.5 }));
    vec![Sum {
        loss: loss("cal_dpo_loss", "β = ½", of_both),
        drawn: ["dpo_loss", "sppo_loss"],
    }]
}

fn loss(
    function: &'static str,
    label: &'static str,
    of: fn(&World) -> candle_align::Result<Tensor>,
) -> Loss {
    Loss {
        function,
        label,
        regularizer: false,
        of,
    }
}

fn of(out: Result<candle_align::PreferenceLoss>) -> Result<Tensor> {
    Ok(out?.loss)
}

fn dpo(world: &World, beta: f64) -> Result<Tensor> {
    let config = DpoConfig {
        beta,
        ..Default::default()
    };
    of(dpo_loss(&world.pair, Some(&world.even()?), &config))
}

fn zero() -> Result<Tensor> {
    Ok(Tensor::new(0f64, &Device::Cpu)?)
}

impl World {
    fn columns(&self, chosen: f64, rejected: f64) -> Result<Pair<Tensor>> {
        Ok(Pair {
            chosen: self.column(chosen)?,
            rejected: self.column(rejected)?,
        })
    }

    /// The reference: ½ for both answers.
    fn even(&self) -> Result<Pair<Tensor>> {
        self.columns(-LN_2, -LN_2)
    }

    fn ratios(&self) -> Result<LogRatios> {
        LogRatios::sums(&self.pair, &self.even()?)
    }

    /// Each answer as one token.
    fn tokens(&self, pair: &Pair<Tensor>) -> Result<Pair<TokenLogProbs>> {
        let mask = Tensor::ones((self.gaps.dim(0)?, 1), DType::U8, &Device::Cpu)?;
        let of = |x: &Tensor| TokenLogProbs::new(&x.unsqueeze(1)?, &mask);
        Ok(Pair {
            chosen: of(&pair.chosen)?,
            rejected: of(&pair.rejected)?,
        })
    }

    /// The likelihood term of the better answer.
    fn likelihood(&self) -> Result<TokenLoss> {
        sft_loss(
            &self.tokens(&self.pair)?.chosen,
            None,
            &SftConfig::default(),
        )
    }

    /// Both answers as a list, with this reward for the better one and 0 for the other.
    fn rewarded(&self, reward: f64) -> Result<Candidates> {
        let two = |a: &Tensor, b: &Tensor| Tensor::stack(&[a, b], 1);
        let (one, none) = (self.column(1.0)?, self.column(0.0)?);
        Candidates::new(
            &two(&self.pair.chosen, &self.pair.rejected)?,
            &two(&one, &one)?,
            &two(&self.column(reward)?, &none)?,
            None,
        )
    }

    fn even_list(&self) -> Result<Tensor> {
        let even = self.even()?;
        Ok(Tensor::stack(&[&even.chosen, &even.rejected], 1)?)
    }

    /// The sum of a loss over both answers, the better one desirable and the other not.
    fn of_both(&self, of: impl Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let labels = |label: u8| Tensor::full(label, self.gaps.dim(0)?, &Device::Cpu);
        let even = self.even()?;
        let better = of(&self.pair.chosen, &even.chosen, &labels(1)?)?;
        let worse = of(&self.pair.rejected, &even.rejected, &labels(0)?)?;
        Ok((better + worse)?)
    }
}
