//! The losses, each as a function of the gap alone.

use super::Result;
use candle_align::math::log_sigmoid;
use candle_align::{
    BrioConfig, Candidates, DpoConfig, ExpectedRiskConfig, Pair, ProConfig, RrhfConfig, SftConfig,
    SlicConfig, TokenLogProbs, brio_loss, dpo_loss, expected_risk_loss, pro_loss, rrhf_loss,
    sft_loss, slic_expected_reward_loss, slic_kl_regularizer, slic_list_loss, slic_margin_loss,
    slic_rank_loss,
};
use candle_core::{DType, Device, Tensor, Var};

/// One loss at one setting.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The function of the library.
    pub function: &'static str,
    /// Its text in the legend.
    pub label: &'static str,
    /// Whether it pulls back instead of pushing.
    pub regularizer: bool,
    pub(crate) of: fn(&World) -> candle_align::Result<Tensor>,
}

/// A loss at one gap.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub gap: f64,
    pub value: f64,
    pub slope: f64,
}

/// Two answers with logits z and 0, for every gap z at once.
pub(crate) struct World {
    pub(crate) gaps: Tensor,
    /// log σ(z) and log σ(−z).
    pub(crate) pair: Pair<Tensor>,
}

impl Loss {
    /// Value and slope at each gap, the slope by backward.
    pub fn at(&self, gaps: &[f64]) -> Result<Vec<Point>> {
        let z = Var::from_slice(gaps, gaps.len(), &Device::Cpu)?;
        let world = World {
            gaps: z.as_tensor().clone(),
            pair: Pair {
                chosen: log_sigmoid(&z)?,
                rejected: log_sigmoid(&z.neg()?)?,
            },
        };
        let loss = (self.of)(&world)?;
        let grads = loss.sum_all()?.backward()?;
        let slopes = grads.get(&z).ok_or("the gradient does not reach the gap")?;
        let (values, slopes) = (loss.to_vec1::<f64>()?, slopes.to_vec1::<f64>()?);
        let points = gaps.iter().zip(values).zip(slopes);
        Ok(points
            .map(|((&gap, value), slope)| Point { gap, value, slope })
            .collect())
    }
}

impl World {
    pub(crate) fn column(&self, value: f64) -> candle_align::Result<Tensor> {
        Ok(self.gaps.zeros_like()?.affine(0.0, value)?)
    }

    /// Both answers with the same number of tokens; rewards 1 and 0.
    fn list(&self, tokens: f64) -> candle_align::Result<Candidates> {
        let two = |a: &Tensor, b: &Tensor| Tensor::stack(&[a, b], 1);
        let (one, none) = (self.column(1.0)?, self.column(0.0)?);
        let length = self.column(tokens)?;
        Candidates::new(
            &two(&self.pair.chosen, &self.pair.rejected)?,
            &two(&length, &length)?,
            &two(&one, &none)?,
            None,
        )
    }

    /// Similarities ½ apart.
    fn similarity(&self) -> candle_align::Result<Pair<Tensor>> {
        Ok(Pair {
            chosen: self.column(0.75)?,
            rejected: self.column(0.25)?,
        })
    }

    /// A next token that is either answer: `[gaps, 1, 2]`, and its mask.
    fn logits(&self) -> candle_align::Result<(Tensor, Tensor)> {
        let logits = Tensor::stack(&[&self.gaps, &self.gaps.zeros_like()?], 1)?.unsqueeze(1)?;
        let mask = Tensor::ones((self.gaps.dim(0)?, 1), DType::U8, &Device::Cpu)?;
        Ok((logits, mask))
    }
}

/// In the order of the legend.
#[rustfmt::skip]
pub fn all() -> Vec<Loss> {
    let loss = |function, label, of| Loss { function, label, regularizer: false, of };
    let regularizer = |function, label, of| Loss { function, label, regularizer: true, of };
    vec![
        loss("dpo_loss", "DPO, β = ½", dpo),
        loss("pro_loss", "PRO, rewards 1 apart", pro),
        loss("slic_rank_loss", "SLiC rank, δ = 1", |w| Ok(slic_rank_loss(&w.pair, &SlicConfig::default())?.loss)),
        loss("slic_list_loss", "SLiC list, δ = 1", |w| slic_list_loss(&w.list(1.0)?, &SlicConfig::default())),
        loss("slic_margin_loss", "SLiC margin, δ = 1, similarities ½ apart",
            |w| Ok(slic_margin_loss(&w.pair, &w.similarity()?, &SlicConfig::default())?.loss)),
        loss("slic_expected_reward_loss", "SLiC expected reward, rewards 1 apart",
            |w| slic_expected_reward_loss(&w.list(1.0)?)),
        loss("rrhf_loss", "RRHF, ranking part", rrhf),
        loss("brio_loss", "BRIO, two tokens, α = 1, λ = ¾, γ = 1", brio),
        loss("expected_risk_loss", "expected risk, two tokens, rewards 1 apart",
            |w| Ok(expected_risk_loss(&w.list(2.0)?, None, &ExpectedRiskConfig::default())?.loss)),
        regularizer("slic_kl_regularizer", "holds back: KL from an even start", kl),
        regularizer("sft_loss", "holds back: cross-entropy on both evenly", cross_entropy),
    ]
}

fn dpo(world: &World) -> candle_align::Result<Tensor> {
    let config = DpoConfig {
        beta: 0.5,
        ..Default::default()
    };
    Ok(dpo_loss(&world.pair, None, &config)?.loss)
}

fn pro(world: &World) -> candle_align::Result<Tensor> {
    let config = ProConfig {
        sft_weight: 0.0,
        ..Default::default()
    };
    Ok(pro_loss(&world.list(1.0)?, &config)?.loss)
}

fn rrhf(world: &World) -> candle_align::Result<Tensor> {
    let config = RrhfConfig {
        sft_weight: 0.0,
        ..Default::default()
    };
    Ok(rrhf_loss(&world.list(1.0)?, &config)?.loss)
}

fn brio(world: &World) -> candle_align::Result<Tensor> {
    let config = BrioConfig {
        margin: 0.75,
        rank_weight: 1.0,
        length_power: 1.0,
        ..Default::default()
    };
    Ok(brio_loss(&world.list(2.0)?, None, &config)?.loss)
}

fn kl(world: &World) -> candle_align::Result<Tensor> {
    let (logits, mask) = world.logits()?;
    let even = logits.zeros_like()?;
    Ok(slic_kl_regularizer(&logits, &even, &mask)?
        .loss
        .squeeze(1)?)
}

fn cross_entropy(world: &World) -> candle_align::Result<Tensor> {
    // each answer is the reference equally often
    let both = Tensor::stack(&[&world.pair.chosen, &world.pair.rejected], 1)?;
    let mask = Tensor::ones(both.dims(), DType::U8, &Device::Cpu)?;
    let references = TokenLogProbs::new(&both, &mask)?;
    let loss = sft_loss(&references, None, &SftConfig::default())?.loss;
    Ok((loss.sum(1)? * 0.5)?)
}
