//! Objectives over answers one by one, each with a label: desirable, or not.

use super::super::super::error::Result;
use super::super::super::world::parts::gather;
use super::super::order::parts;
use super::super::rows;
use super::super::settings::since::ApoUnpaired;
use super::measured::{Judged, Measured};
use super::text::{Pass, Text, log_probs};
use super::{Part, Reference, share};
use candle_align::decoder::{Decoder, Mode};
use candle_align::ranking::{
    ApoUnpairedConfig, BcoConfig, KtoConfig, RewardShift, apo_zero_unpaired_loss, bco_loss,
    kto_baseline, kto_loss,
};
use candle_core::{DType, Device, Tensor};

/// An answer and its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labeled {
    /// What is learned, cut if it was too long.
    pub text: Text,
    /// All tokens of the prompt, and all of the answer.
    pub prompt: Vec<u32>,
    pub answer: Vec<u32>,
    pub desirable: bool,
}

/// Answers, and their loss.
#[derive(Clone, Debug)]
pub struct Unpaired {
    pub rows: Vec<Labeled>,
    pub loss: UnpairedLoss,
    /// How a prompt with the answer of another row is cut.
    pub cut: rows::Settings,
}

/// The loss of an answer with a label.
#[derive(Clone, Debug)]
pub enum UnpairedLoss {
    /// Around a baseline from each micro-batch, as in TRL: the mean log-ratio of its prompts with the answers
    /// of other rows.
    Kto(KtoConfig),
    /// Around the mean reward of all answers of the steps before.
    Bco(BcoConfig),
    ApoZero(ApoUnpaired),
}

impl Unpaired {
    /// The answers to some rows.
    pub fn texts(&self, rows: &[usize]) -> Vec<&Text> {
        rows.iter().map(|row| &self.rows[*row].text).collect()
    }

    /// Each prompt of a micro-batch with the answer of the row before it, the first with the last one's.
    pub fn mismatched(&self, batch: &[usize]) -> Vec<Text> {
        let before = batch.iter().cycle().skip(batch.len().saturating_sub(1));
        let text = |(row, before): (&usize, &usize)| {
            let answer = &self.rows[*before].answer;
            let text = Text::answer(&self.rows[*row].prompt, answer);
            let kept = self.cut.kept(text.ids.len());
            Text {
                ids: text.ids[kept.clone()].to_vec(),
                learned: text.learned[kept].to_vec(),
            }
        };
        batch.iter().zip(before).map(text).collect()
    }

    /// The number of the loss that is not of one answer: z₀ of a micro-batch for KTO, and for BCO δ, the mean
    /// reward so far.
    pub fn given(
        &self,
        decoder: &Decoder,
        reference: &Reference,
        part: &Part,
        most: Option<usize>,
        shift: &RewardShift,
    ) -> Result<f64> {
        match &self.loss {
            UnpairedLoss::ApoZero(_) => return Ok(0.0),
            UnpairedLoss::Bco(_) => return Ok(shift.mean),
            UnpairedLoss::Kto(_) => {}
        }
        let (quiet, texts) = (decoder.without_gradients(), self.mismatched(part.batch));
        let numbers = |sums: Tensor| sums.to_dtype(DType::F64)?.to_vec1::<f64>();
        let own: Vec<usize> = part.own.clone().collect();
        let mut sums = Vec::new();
        for rows in parts(&own, most, |text| texts[text].ids.len()) {
            let texts: Vec<&Text> = rows.iter().map(|text| &texts[*text]).collect();
            let policy = numbers(log_probs(&quiet, &texts, Mode::Evaluation)?.sum()?)?;
            let of = |model: &Decoder, mode| Ok(log_probs(model, &texts, mode)?.sum()?);
            let of_reference = numbers(reference.compute(&quiet, &of)?)?;
            sums.extend(
                policy
                    .into_iter()
                    .zip(of_reference)
                    .flat_map(<[f64; 2]>::from),
            );
        }
        let sums = gather(part.world, sums)?.concat();
        let sums = Tensor::from_vec(sums, (texts.len(), 2), &Device::Cpu)?;
        let side = |at: usize| sums.narrow(1, at, 1)?.squeeze(1);
        let baseline = kto_baseline(&side(0)?, &side(1)?)?;
        Ok(baseline.to_dtype(DType::F64)?.to_scalar()?)
    }

    /// The mean over the answers; every micro-batch of a step counts as much as another, as in TRL.
    pub fn measure(
        &self,
        pass: &Pass,
        rows: &[usize],
        window: &[Vec<usize>],
        given: f64,
    ) -> Result<Measured> {
        let texts = self.texts(rows);
        let policy = pass.log_probs(&texts)?.sum()?;
        let reference = pass.reference.each(pass.decoder, rows, &texts)?;
        let labels: Vec<bool> = rows.iter().map(|row| self.rows[*row].desirable).collect();
        let bits: Vec<u8> = labels.iter().map(|label| u8::from(*label)).collect();
        let desirable = Tensor::new(bits, &Device::Cpu)?;
        let number = Tensor::new(given, &Device::Cpu)?.to_dtype(policy.dtype())?;
        let out = match &self.loss {
            UnpairedLoss::Kto(config) => {
                kto_loss(&policy, &reference, &desirable, &number, config)?
            }
            UnpairedLoss::Bco(config) => {
                bco_loss(&policy, &reference, &desirable, &number, config)?
            }
            UnpairedLoss::ApoZero(all) => {
                let config = ApoUnpairedConfig { beta: all.beta };
                let mut out = apo_zero_unpaired_loss(&policy, &reference, &desirable, &config)?;
                let weight = |label: &bool| match label {
                    true => all.desirable_weight,
                    false => all.undesirable_weight,
                };
                let weights: Vec<f64> = labels.iter().map(weight).collect();
                let weights = Tensor::new(weights, &Device::Cpu)?.to_dtype(policy.dtype())?;
                out.loss = (out.loss * weights)?;
                out
            }
        };
        let rewards = out.rewards.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let each = rows.iter().zip(rewards).zip(labels);
        let judged = each.map(|((row, reward), desirable)| Judged {
            row: *row,
            reward,
            desirable,
        });
        Ok(Measured {
            judged: judged.collect(),
            ..Measured::alone((out.loss.mean_all()? * share(rows, window))?)
        })
    }
}
