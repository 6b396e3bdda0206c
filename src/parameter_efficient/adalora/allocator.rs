//! AdaLoRA's budget: which triplets of all matrices keep their singular value (survey §3.3).
//!
//! In one sentence: score every triplet by how much the loss depends on it and how uncertain that
//! estimate is, and keep the best b⁽ᵗ⁾ over all matrices.
//!
//! | paper | here |
//! |---|---|
//! | I, Ī, Ū | sensitivity, its smoothed value, its uncertainty: kept for every element |
//! | β₁, β₂ | [`RankAllocatorConfig::beta1`], [`RankAllocatorConfig::beta2`] |
//! | S⁽ᵗ⁾ₖ,ᵢ | [`RankAllocator::scores`] |
//! | b⁽ᵗ⁾ | [`RankAllocator::budget`] |
//! | b⁽⁰⁾, b⁽ᵀ⁾ | all triplets at the start; [`RankAllocatorConfig::target_rank`] for each matrix |
//! | tᵢ, t_f, Δ_T, T | [`RankAllocatorConfig::initial_steps`], `final_steps`, `interval`, `total_steps` |
//!
//! Read next: [`adalora`](crate::parameter_efficient::adalora), the layer it works on.

use crate::error::{Error, Result};
use crate::math::to_host;
use crate::parameter_efficient::{AdaLoraLinear, RankAllocatorConfig};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

/// What [`RankAllocator::update`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// b⁽ᵗ⁾: how many triplets the schedule leaves at this step.
    pub budget: usize,
    /// Whether the λ over the budget were set to 0; this happens only at the interval's steps.
    pub pruned: bool,
}

/// Gives the rank to the triplets that need it, across all matrices.
///
/// # Equation
/// ```text
/// I = │w · ∂L/∂w│
/// Ī ← β₁ Ī + (1 − β₁) I
/// Ū ← β₂ Ū + (1 − β₂) │I − Ī│
/// s(w) = Ī · Ū
/// Sₖ,ᵢ = s(λᵢ) + 1/d₁ · Σⱼ s(Pⱼᵢ) + 1/d₂ · Σⱼ s(Qᵢⱼ)
/// b⁽ᵗ⁾ = b⁽⁰⁾                                              t ≤ tᵢ
///      = ⌊ b⁽ᵀ⁾ + (b⁽⁰⁾ − b⁽ᵀ⁾)·( 1 − (t − tᵢ)/(T − tᵢ − t_f) )³ ⌋
///      = b⁽ᵀ⁾                                              t ≥ T − t_f
/// λₖ,ᵢ ← λₖ,ᵢ if Sₖ,ᵢ is among the b⁽ᵗ⁾ greatest of all matrices, else 0
/// ```
/// # Shapes
/// Any number of layers, of any sizes and ranks.
/// # Errors
/// [`Error::Parameter`] for a setting out of its range; [`Error::Argument`] for two layers with one
/// name, a target above the number of triplets, a gradient that is missing or not finite (nothing
/// has changed then), and pruning before any gradient was seen.
/// # Properties
/// * b⁽ᵗ⁾ falls from b⁽⁰⁾ at tᵢ to b⁽ᵀ⁾ at T − t_f, without a jump, fast first, and never rises.
/// * Exactly b⁽ᵗ⁾ triplets are kept. Among equal scores the earlier layer and the lower index win.
/// * A pruned triplet keeps P, Q and its scores, and its λ gets a gradient: an optimizer's step gives
///   it a value again, and the next pruning can keep it. From T − t_f on the choice is final.
/// * A target equal to the initial rank prunes nothing.
/// * The score does not change if a vector is scaled up and its λ down: w·∂L/∂w does not.
/// * At a minimum of the loss every I is 0 and the scores fade: they remember the path to the minimum,
///   not the size of λ. Prune while the loss still falls.
/// * If one of two matrices needs rank 3 and the other rank 1, a budget of 4 gives 3 to the first and
///   1 to the second.
/// # Departures
/// Eq. 14 in the paper's appendix prints 1 − (t − tᵢ − t_f)/(T − tᵢ − t_f), which is above 1 at tᵢ. The
/// authors' code and PEFT have the form above, which is continuous at both ends. The floor is taken of
/// the exact fraction; PEFT truncates a rounded one. PEFT prunes everything that is not above a
/// threshold: equal scores, such as zeros, are pruned together, however many there are, and a target
/// equal to the initial rank is an error. PEFT does not notice if the training loop forgets the call;
/// neither does this crate.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{AdaLoraConfig, AdaLoraLinear, RankAllocator,
///     RankAllocatorConfig};
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{Linear, Module};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let base = Linear::new(Tensor::ones((3, 5), DType::F64, &Device::Cpu)?, None);
/// let config = AdaLoraConfig { rank: 4, ..Default::default() };
/// let mut rng = StdRng::seed_from_u64(0);
/// let q = AdaLoraLinear::new(&base, &config, &mut rng)?;
/// let v = AdaLoraLinear::new(&base, &config, &mut rng)?;
///
/// let schedule = RankAllocatorConfig {
///     target_rank: 2, initial_steps: 3, final_steps: 5, total_steps: 20, interval: 2,
///     ..Default::default()
/// };
/// let layers = [("q".to_string(), q.clone()), ("v".to_string(), v.clone())];
/// let mut allocator = RankAllocator::new(&layers, &schedule)?;
/// assert_eq!(allocator.budget(3), 8);
/// assert_eq!(allocator.budget(6), 4 + 1); // 4 + 4·(1 − 3/12)³ = 5.69
/// assert_eq!(allocator.budget(15), 4);
///
/// // in a training loop: backward, the optimizer's step, then this
/// let x = Tensor::ones((1, 5), DType::F64, &Device::Cpu)?;
/// let loss = (q.forward(&x)?.sqr()? + v.forward(&x)?.sqr()?)?.sum_all()?;
/// let step = allocator.update(6, &loss.backward()?)?;
/// assert_eq!((step.budget, step.pruned), (5, true));
/// assert_eq!(allocator.kept().iter().flat_map(|(_, kept)| kept).filter(|k| **k).count(), 5);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * [`RankAllocator::kept`] by layer: where the rank goes. A choice that changes until T − t_f is
///   normal.
/// * [`RankAllocator::scores`]: if they are all near 0 long before T − t_f, training has converged and
///   the remaining choices are close to ties, which earlier layers win.
/// * The number of λ ≠ 0. Between prunings it may exceed the budget, since the optimizer moves pruned
///   λ. If it does so right after [`RankAllocator::update`] returned `pruned`, the optimizer's step
///   came after the call and not before it.
/// # Try
/// * Which ranks do two matrices get that need 3 and 1?
///   `tests/optimum/adalora.rs::the_rank_goes_to_the_matrix_that_needs_it`
/// * What happens to the scores where the loss has no slope?
///   `tests/values/adalora.rs::where_there_is_no_slope_scores_fade`
/// # Source
/// Zhang et al. 2023, arXiv:2303.10512, eqs. 8–13 and appendix A; authors' code QingruZhang/AdaLoRA,
/// `loralib/adalora.py`, `RankAllocator`; PEFT 0.21.2, `tuners/adalora/layer.py`, with whose runs every
/// budget, every choice and every λ was compared.
#[doc(alias = "AdaLoRA rank allocation")]
#[doc(alias = "rank pruning")]
#[derive(Clone, Debug)]
pub struct RankAllocator {
    config: RankAllocatorConfig,
    pub(super) slots: Vec<Slot>,
    /// Whether a gradient was seen.
    pub(super) scored: bool,
}

/// One layer: its factors, the statistics of their elements, and which triplets are kept.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) factors: [Factor; 3],
    pub(super) kept: Vec<bool>,
}

/// Λ, P or Q.
#[derive(Clone, Debug)]
pub(super) struct Factor {
    pub(super) name: &'static str,
    var: Var,
    /// The axis along which a triplet's elements lie.
    axis: usize,
    pub(super) sensitivity: Tensor,
    pub(super) uncertainty: Tensor,
}

impl RankAllocator {
    /// An allocator for these layers. It shares their variables and sets λ in them. The names appear in
    /// messages and in the state.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a setting out of its range; [`Error::Argument`] for two layers with one
    /// name, or a target above the number of triplets.
    pub fn new(layers: &[(String, AdaLoraLinear)], config: &RankAllocatorConfig) -> Result<Self> {
        let function = "RankAllocator::new";
        config.check(function)?;
        let mut slots: Vec<Slot> = Vec::new();
        for (name, layer) in layers {
            if slots.iter().any(|slot| slot.name == *name) {
                let text = format!("names `{name}` twice");
                return Err(Error::argument(function, "layers", text));
            }
            let factor = |name, var: &Var, axis| -> Result<Factor> {
                Ok(Factor {
                    name,
                    var: var.clone(),
                    axis,
                    sensitivity: var.zeros_like()?.detach(),
                    uncertainty: var.zeros_like()?.detach(),
                })
            };
            slots.push(Slot {
                name: name.clone(),
                factors: [
                    factor("lora_E", layer.lambda(), 1)?,
                    factor("lora_B", layer.p(), 0)?,
                    factor("lora_A", layer.q(), 1)?,
                ],
                kept: vec![true; layer.rank()],
            });
        }
        let allocator = Self {
            config: config.clone(),
            slots,
            scored: false,
        };
        let (start, target) = (allocator.at_start(), allocator.at_end());
        if target > start {
            let text = format!("hold {start} triplets, and `target_rank` asks for {target}");
            return Err(Error::argument(function, "layers", text));
        }
        Ok(allocator)
    }

    /// b⁽⁰⁾
    fn at_start(&self) -> usize {
        self.slots.iter().map(|slot| slot.kept.len()).sum()
    }

    /// b⁽ᵀ⁾
    fn at_end(&self) -> usize {
        self.config.target_rank.saturating_mul(self.slots.len())
    }

    /// b⁽ᵗ⁾, the number of triplets that remain at step t.
    pub fn budget(&self, step: usize) -> usize {
        self.config.budget(step, self.at_start(), self.at_end())
    }

    /// Takes the gradients of step t, and prunes if it is time. Call it after the optimizer's step, with
    /// the gradients that the step used. Steps count from 0 or 1, as the schedule's numbers do.
    ///
    /// From T − t_f on, gradients are ignored; the pruned λ are set to 0 again at every call.
    ///
    /// # Errors
    /// [`Error::Argument`] for a gradient that is missing or not finite (nothing has changed then), and
    /// for pruning before any gradient was seen.
    pub fn update(&mut self, step: usize, grads: &GradStore) -> Result<Allocation> {
        let settling = self.config.settles(step);
        if !settling {
            self.observe(grads)?;
        }
        let budget = self.budget(step);
        let pruned = self.config.prunes(step);
        if pruned {
            // while settling, the scores do not change, and so the choice does not
            self.choose(step, budget)?;
            self.prune()?;
        }
        Ok(Allocation { budget, pruned })
    }

    fn observe(&mut self, grads: &GradStore) -> Result<()> {
        let (beta1, beta2) = (self.config.beta1, self.config.beta2);
        let mut seen = Vec::new();
        for slot in self.slots.iter().filter(|slot| !slot.kept.is_empty()) {
            for factor in &slot.factors {
                let problem = |what: &str| {
                    let text = format!("{what} `{}.{}`", slot.name, factor.name);
                    Error::argument("RankAllocator::update", "grads", text)
                };
                let grad = grads.get(&factor.var);
                let grad = grad.ok_or_else(|| problem("holds no gradient of"))?;
                // I = │w · ∂L/∂w│
                let now = (factor.var.as_detached_tensor() * grad.detach())?.abs()?;
                if !now
                    .sum_all()?
                    .to_dtype(DType::F64)?
                    .to_scalar::<f64>()?
                    .is_finite()
                {
                    return Err(problem("holds no finite gradient of"));
                }
                // Ī ← β₁ Ī + (1 − β₁) I
                let sensitivity = ((&factor.sensitivity * beta1)? + (&now * (1.0 - beta1))?)?;
                // Ū ← β₂ Ū + (1 − β₂) │I − Ī│
                let off = (now - &sensitivity)?.abs()?;
                let uncertainty = ((&factor.uncertainty * beta2)? + (off * (1.0 - beta2))?)?;
                seen.push((sensitivity, uncertainty));
            }
        }
        let slots = self.slots.iter_mut().filter(|slot| !slot.kept.is_empty());
        let factors = slots.flat_map(|slot| &mut slot.factors);
        for (factor, (sensitivity, uncertainty)) in factors.zip(seen) {
            factor.sensitivity = sensitivity;
            factor.uncertainty = uncertainty;
        }
        self.scored = true;
        Ok(())
    }

    /// S of every triplet, by layer.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn scores(&self) -> Result<Vec<(String, Vec<f64>)>> {
        let mut scores = Vec::new();
        for slot in &self.slots {
            let mut sum = vec![0.0; slot.kept.len()];
            for factor in slot.factors.iter().filter(|_| !slot.kept.is_empty()) {
                // s(w) = Ī · Ū, and its mean over the triplet's elements
                let score = (&factor.sensitivity * &factor.uncertainty)?.mean(factor.axis)?;
                let score = to_host::<f64>(&score.to_dtype(DType::F64)?)?;
                sum.iter_mut()
                    .zip(score)
                    .for_each(|(sum, score)| *sum += score);
            }
            scores.push((slot.name.clone(), sum));
        }
        Ok(scores)
    }

    /// Marks the `budget` triplets with the highest scores.
    fn choose(&mut self, step: usize, budget: usize) -> Result<()> {
        if !self.scored {
            return Err(Error::argument(
                "RankAllocator::update",
                "step",
                format!("{step} prunes, but no gradient was seen before it"),
            ));
        }
        let scores = self.scores()?.into_iter().enumerate();
        let mut all: Vec<(f64, usize, usize)> = scores
            .flat_map(|(layer, (_, scores))| {
                let scores = scores.into_iter().enumerate();
                scores.map(move |(i, score)| (score, layer, i))
            })
            .collect();
        // a stable sort: equal scores stay in the order of layers and indices
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (place, (_, layer, i)) in all.into_iter().enumerate() {
            self.slots[layer].kept[i] = place < budget;
        }
        Ok(())
    }

    /// λ ← 0 for what is not kept.
    fn prune(&self) -> Result<()> {
        for slot in self.slots.iter().filter(|slot| !slot.kept.is_empty()) {
            let var = &slot.factors[0].var;
            let lambda = var.as_detached_tensor();
            let kept = marks(&slot.kept)?.reshape(lambda.shape())?;
            let kept = kept.to_device(lambda.device())?;
            var.set(&kept.where_cond(&lambda, &lambda.zeros_like()?)?)?;
        }
        Ok(())
    }

    /// Which triplets the last pruning kept, by layer; all of them before the first pruning. This is
    /// PEFT's `rank_pattern`.
    pub fn kept(&self) -> Vec<(String, Vec<bool>)> {
        let slots = self.slots.iter();
        slots
            .map(|slot| (slot.name.clone(), slot.kept.clone()))
            .collect()
    }
}

/// One number for each triplet: whether it is kept.
pub(super) fn marks(kept: &[bool]) -> Result<Tensor> {
    let marks: Vec<u8> = kept.iter().map(|&kept| u8::from(kept)).collect();
    Ok(Tensor::from_vec(marks, kept.len(), &Device::Cpu)?)
}
