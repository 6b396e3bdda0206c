//! Ten objectives since the survey (`--since`): those that trainers offer by name.
//!
//! All but the last learn from DPO's pairs in DPO's order, so only the loss differs. Online DPO draws its pairs
//! from the policy itself; the learned reward labels them, by Bradley–Terry.
//!
//! | objective | a better answer is | held back by | its optimum here |
//! |---|---|---|---|
//! | IPO | a fixed lead ahead | the reference, by squares | π_ref · e^(w/β), w = the chance to be chosen |
//! | robust DPO | DPO's, less the flips | the reference | that of labels without the flips |
//! | DPO + NLL | DPO's, and likely | the reference and the chosen answers | between the two |
//! | NCA | told from the reference's | the reference, absolutely | for β = 1: π_ref · 2w |
//! | APO-zero | above the reference | the reference, by bounds | none short of certainty |
//! | KTO | above a baseline | the same | the same |
//! | SimPO | a lead ahead per token | nothing | another distribution |
//! | CPO | ahead in sum | the chosen answers | another distribution |
//! | ORPO | ahead in odds | the chosen answers | near π_ref · 2w |
//! | online DPO | DPO's, on its own answers | the reference | π_ref · e^(r̂/β) |

use super::pairs::DPO_PAIRS;
use super::{BETA, Section, Title, ppo};
use crate::Result;
use crate::lab::{Lab, Optimization, Score, generator};
use crate::report::Entry;
use crate::world::{Answer, PROMPTS};
use candle_align::ranking::*;
use candle_align::{Pair, PreferenceLoss, SftConfig, TokenLogProbs, TokenLoss, sft_loss};
use candle_core::{Device, Tensor};
use indicatif::MultiProgress;
use rand::Rng;
use serde::Serialize;
use support::transformer::Transformer;

/// An objective since the survey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Since {
    Ipo,
    Robust,
    Rpo,
    Nca,
    ApoZero,
    Kto,
    Simpo,
    Cpo,
    Orpo,
    OnlineDpo,
}

/// What a loss reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    Reference,
    NoReference,
    OwnAnswers,
}

impl Since {
    /// In the order of the table.
    pub const ALL: [Self; 10] = [
        Self::Ipo,
        Self::Robust,
        Self::Rpo,
        Self::Nca,
        Self::ApoZero,
        Self::Kto,
        Self::Simpo,
        Self::Cpo,
        Self::Orpo,
        Self::OnlineDpo,
    ];

    /// All of them belong to the survey's section on ranked answers.
    pub fn title(self) -> Title {
        let (name, label) = match self {
            Self::Ipo => ("ipo", "IPO"),
            Self::Robust => ("robust-dpo", "robust DPO"),
            Self::Rpo => ("rpo", "DPO + NLL"),
            Self::Nca => ("nca", "NCA"),
            Self::ApoZero => ("apo-zero", "APO-zero"),
            Self::Kto => ("kto", "KTO"),
            Self::Simpo => ("simpo", "SimPO"),
            Self::Cpo => ("cpo", "CPO"),
            Self::Orpo => ("orpo", "ORPO"),
            Self::OnlineDpo => ("online-dpo", "online DPO"),
        };
        Title {
            name,
            label,
            section: Section::Ranking,
        }
    }

    pub fn reads(self) -> Reads {
        match self {
            Self::Simpo | Self::Cpo | Self::Orpo => Reads::NoReference,
            Self::OnlineDpo => Reads::OwnAnswers,
            _ => Reads::Reference,
        }
    }

    /// By what it ranks answers.
    fn score(self) -> Score {
        match self {
            Self::Cpo => Score::Sum,
            Self::Simpo | Self::Orpo => Score::Mean,
            _ => Score::LogRatio,
        }
    }

    pub fn uses_reward_model(self) -> bool {
        self == Self::OnlineDpo
    }

    pub fn run(self, lab: &Lab, bars: &MultiProgress) -> Result<Entry> {
        let beta = BETA;
        let run = Run {
            lab,
            bars,
            objective: self,
        };
        match self {
            Self::Ipo => run.pairs(IpoConfig::default(), |x, config| {
                ipo_loss(&x.ratios, config)
            }),
            Self::Robust => {
                let flip_rate = RobustDpoConfig::default().flip_rate;
                run.pairs(RobustDpoConfig { beta, flip_rate }, |x, config| {
                    robust_dpo_loss(&x.ratios, config)
                })
            }
            Self::Rpo => {
                let rest = RpoConfig::default();
                run.pairs(RpoConfig { beta, ..rest }, |x, config| {
                    rpo_loss(&x.ratios, &x.likelihood()?, config)
                })
            }
            Self::Nca => run.pairs(nca_config(), |x, config| nca_pair_loss(&x.ratios, config)),
            Self::ApoZero => run.pairs(ApoConfig { beta }, |x, config| {
                apo_zero_loss(&x.ratios, config)
            }),
            Self::Simpo => run.pairs(SimpoConfig::default(), |x, config| {
                simpo_loss(&x.means()?, config)
            }),
            Self::Cpo => run.pairs(CpoConfig::default(), |x, config| {
                cpo_loss(&x.sums, &x.likelihood()?, config)
            }),
            Self::Orpo => run.pairs(OrpoConfig::default(), |x, config| {
                orpo_loss(&x.means()?, &x.likelihood()?, config)
            }),
            Self::Kto => run.kto(),
            Self::OnlineDpo => run.online_dpo(),
        }
    }
}

/// IPO's β: half a lead is worth ten win rates.
pub fn ipo_beta() -> f64 {
    IpoConfig::default().beta
}

/// β = 1, for which NCA's optimum is a distribution: 2w sums to 1 under the reference.
fn nca_config() -> NcaPairConfig {
    NcaPairConfig { beta: 1.0 }
}

/// Settings of a run on pairs.
#[derive(Serialize)]
struct SinceSettings<L> {
    loss: L,
    pairs: &'static str,
    pairs_per_step: usize,
    #[serde(flatten)]
    plan: Optimization,
}

/// The answers of a step under the policy: first those chosen, then those rejected.
struct Step {
    tokens: TokenLogProbs,
    sums: Pair<Tensor>,
    ratios: LogRatios,
}

impl Step {
    fn new(lab: &Lab, policy: &Transformer, answers: &[Answer]) -> Result<Self> {
        let tokens = lab.log_probs(policy, answers)?;
        let sums = Pair::from_rows(&tokens.sum()?)?;
        let reference = Pair::from_rows(&lab.reference_sums(answers)?)?;
        Ok(Self {
            ratios: LogRatios::sums(&sums, &reference)?,
            tokens,
            sums,
        })
    }

    fn means(&self) -> candle_align::Result<Pair<Tensor>> {
        Pair::from_rows(&self.tokens.mean()?)
    }

    /// Cross-entropy of the chosen answers.
    fn likelihood(&self) -> candle_align::Result<TokenLoss> {
        let chosen = self.sums.chosen.dim(0)?;
        let values = self.tokens.values().narrow(0, 0, chosen)?;
        let mask = self.tokens.mask().narrow(0, 0, chosen)?;
        let chosen = TokenLogProbs::new(&values, &mask)?;
        sft_loss(&chosen, None, &SftConfig::default())
    }
}

/// One objective in one lab.
struct Run<'a> {
    lab: &'a Lab,
    bars: &'a MultiProgress,
    objective: Since,
}

impl Run<'_> {
    fn settings<L>(&self, loss: L, pairs: &'static str) -> SinceSettings<L> {
        SinceSettings {
            loss,
            pairs,
            pairs_per_step: self.lab.sizes.batch,
            plan: self.lab.plan(6e-3),
        }
    }

    fn train<L: Serialize>(
        &self,
        settings: &SinceSettings<L>,
        mut loss: impl FnMut(&Transformer) -> Result<Tensor>,
    ) -> Result<Entry> {
        let (title, score) = (self.objective.title(), self.objective.score());
        let plan = settings.plan;
        self.lab
            .run(title, settings, plan, self.bars, score, |policy, _| {
                loss(policy)
            })
    }

    /// DPO's pairs in DPO's order.
    fn pairs<L: Serialize>(
        &self,
        config: L,
        loss: impl Fn(&Step, &L) -> candle_align::Result<PreferenceLoss>,
    ) -> Result<Entry> {
        let lab = self.lab;
        let settings = self.settings(config, "DPO's");
        let mut rng = generator(lab.seed, DPO_PAIRS);
        self.train(&settings, |policy| {
            let step = Step::new(lab, policy, &lab.pair_batch(&mut rng))?;
            Ok(loss(&step, &settings.loss)?.loss.mean_all()?)
        })
    }

    /// The same answers with labels of their own. The baseline is from answers after the prompts of others.
    fn kto(&self) -> Result<Entry> {
        let lab = self.lab;
        let config = KtoConfig {
            beta: BETA,
            ..Default::default()
        };
        let settings = self.settings(config, "DPO's, as answers with labels");
        let mut rng = generator(lab.seed, DPO_PAIRS);
        self.train(&settings, |policy| {
            let answers = lab.pair_batch(&mut rng);
            let policy_sums = lab.log_probs(policy, &answers)?.sum()?;
            let labels: Vec<u8> = (0..answers.len())
                .map(|i| u8::from(2 * i < answers.len()))
                .collect();
            let labels = Tensor::from_vec(labels, answers.len(), &Device::Cpu)?;
            let others: Vec<Answer> = (0..answers.len())
                .map(|i| Answer {
                    prompt: answers[i].prompt,
                    outcome: answers[(i + 1) % answers.len()].outcome,
                })
                .collect();
            let mismatched = lab.log_probs(policy, &others)?.sum()?;
            let baseline = kto_baseline(&mismatched, &lab.reference_sums(&others)?)?;
            let reference = lab.reference_sums(&answers)?;
            let config = &settings.loss;
            let out = kto_loss(&policy_sums, &reference, &labels, &baseline, config)?;
            Ok(out.loss.mean_all()?)
        })
    }

    /// Two answers of the policy to each prompt. The better one by the learned reward is chosen with the
    /// probability of Bradley–Terry, as the labels of all pairs here are.
    fn online_dpo(&self) -> Result<Entry> {
        let lab = self.lab;
        let scores = &lab.wait_for_learned()?.scores;
        let config = OnlineDpoConfig {
            beta: BETA,
            ..Default::default()
        };
        let settings = self.settings(config, "the policy's own, labeled by the learned reward");
        let mut rng = generator(lab.seed, 50);
        self.train(&settings, |policy| {
            // answers i and i + pairs are to one prompt
            let pairs = lab.sizes.batch.next_multiple_of(PROMPTS);
            let answers = ppo::generate(lab, policy, 2 * pairs, &mut rng)?;
            let of = |a: Answer| scores[a.prompt][a.outcome];
            let mut labels = Vec::with_capacity(2 * pairs);
            for i in 0..pairs {
                let lead = of(answers[i]) - of(answers[i + pairs]);
                let first = rng.random::<f64>() < 1.0 / (1.0 + (-lead).exp());
                labels.extend([f32::from(first), f32::from(!first)]);
            }
            let labels = Tensor::from_vec(labels, (pairs, 2), &Device::Cpu)?;
            let two = |x: Tensor| x.reshape((2, pairs))?.t()?.contiguous();
            let policy = two(lab.log_probs(policy, &answers)?.sum()?)?;
            let reference = two(lab.reference_sums(&answers)?)?;
            let out = online_dpo_loss(&policy, &reference, &labels, &settings.loss)?;
            Ok(out.loss.mean_all()?)
        })
    }
}
