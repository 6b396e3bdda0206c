//! LoRA on a base in four bits (survey §3.3).
//!
//! In one sentence: keep the frozen weight quantized, dequantize it wherever it is used, and train
//! the two factors of LoRA beside it in full precision.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | W^NF4, c₁, c₂ | [`QloraLinear::base`]: frozen | `[out, in]` in 4.127 bits each |
//! | L₁, L₂ | [`QloraLinear::a`], [`QloraLinear::b`], transposed | `[rank, in]`, `[out, rank]` |
//! | s | [`LoraConfig::scale`] | number |
//! | X, Y | argument and result of `forward` | `[.., in]`, `[.., out]` |
//!
//! Read next: [`nf4`](crate::parameter_efficient::nf4) (the four bits), [`lora`](crate::parameter_efficient::lora) (the factors).

use crate::error::Result;
use crate::parameter_efficient::LoraConfig;
use crate::parameter_efficient::adapter::names;
use crate::parameter_efficient::frozen_linear::compute_type;
use crate::parameter_efficient::lora::Lora;
use crate::parameter_efficient::lora::update::Update;
use crate::parameter_efficient::nf4::{BlockScale, Nf4Linear};
use candle_core::Device;
use candle_nn::Linear;
use rand::Rng;

/// A frozen linear layer in four bits with a trained low-rank change.
///
/// # Equation
/// ```text
/// h = doubleDequant(c₁, c₂, W^NF4) x + b + s · B A dropout(x)                        eq. 5
/// doubleDequant(c₁, c₂, W) = dequant(dequant(c₁, c₂), W)                             eq. 6
/// ```
/// A, B, s and the trained biases are those of [`LoraLinear`](crate::parameter_efficient::LoraLinear).
/// # Shapes
/// `x` `[.., in]`, the result `[.., out]`, in types as for [`Nf4Linear`]. A, B and a trained bias
/// are f64 over a base quantized from f64, and f32 over any other.
/// # Errors
/// Those of [`Nf4Linear::quantize`]. From [`QloraLinear::new`] and [`QloraLinear::over`]
/// [`Error::Parameter`] unless r ≥ 1 and [within the limits](super#sizes), α > 0 and 0 ≤ p < 1;
/// [`Error::Argument`] for [`LoraBias::Base`] over a base without a bias. From
/// [`LinearAdapter::merged_linear`](crate::parameter_efficient::LinearAdapter::merged_linear) [`Error::Argument`] if a merged weight would not be finite.
/// # Properties
/// * At the start h is the quantized layer's output, not that of the original layer; ∂L/∂A = 0 and
///   ∂L/∂B ≠ 0.
/// * It is [`LoraLinear`](crate::parameter_efficient::LoraLinear) over [`Nf4Tensor::dequantize`] with the same A and B, up to
///   the rounding of a sum in another order: in values, gradients and initial distribution.
/// * r(in + out) numbers are trained. Nothing frozen gets a gradient.
/// * Disabled, the layer is its quantized base bit for bit, however long it was trained.
/// * Merged and unmerged layers agree to rounding. While merged, the layer holds an ordinary weight beside
///   the four bits.
/// * Trained toward the layer that was quantized, it repairs what quantization lost: completely if the
///   rank is full, else by the best change of rank r, weighted by the inputs' covariance.
/// * Quantizing the merged weight again loses the adapter: a change much smaller than the gaps between
///   the values of its block changes no index, and the error of those that it does change is as large as
///   the adapter. Nor does the adapter fit the weight before quantization. Keep the 16 bits.
/// # Departures
/// The survey has no equation for QLoRA; it names its four-bit backbone and its paged optimizer. The
/// paged optimizer moves memory between devices and changes no number; this crate does not have it. Eq. 5
/// is computed in bf16; here A, B and the sum are in f32, and the result is rounded once. The paper's
/// settings, which are not the default of [`LoraConfig`]: r = 64, α = 16, dropout 0.1 (0.05 from 33B on),
/// on every linear layer.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{Adapter, BlockScale, LoraConfig, NF4, QloraLinear};
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Linear, Module};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let at = |data: &[f64], shape| Tensor::from_slice(data, shape, &Device::Cpu);
/// let base = Linear::new(at(&[0.5, -1.0, 2.0, 0.2], (2, 2))?, None);
/// let config = LoraConfig { rank: 1, alpha: 3.0, ..Default::default() };
/// let scale = BlockScale::Single;
/// let mut layer = QloraLinear::new(&base, scale, &config, &mut StdRng::seed_from_u64(0))?;
///
/// // training would do this: A = (5, 6), B = (7, 8)ᵀ
/// layer.a().set(&at(&[5.0, 6.0], (1, 2))?)?;
/// layer.b().set(&at(&[7.0, 8.0], (2, 1))?)?;
/// let q = |i: usize| 2.0 * NF4[i] as f64; // the block's scale is 2
/// let update = 3.0 / 1.0 * (5.0 * 10.0 + 6.0 * 100.0);
/// let (first, second) = (q(10) * 10.0 + q(2) * 100.0, 2.0 * 10.0 + q(8) * 100.0);
/// let h = layer.forward(&at(&[10.0, 100.0], (1, 2))?)?.to_vec2::<f64>()?;
/// assert!((h[0][0] - (first + 7.0 * update)).abs() < 1e-3); // values of a block are rounded to f32
/// assert!((h[0][1] - (second + 8.0 * update)).abs() < 1e-3);
///
/// layer.set_enabled(false); // the quantized base
/// let h = layer.forward(&at(&[10.0, 100.0], (1, 2))?)?.to_vec2::<f64>()?;
/// assert!((h[0][0] - first).abs() < 1e-3);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The loss before training, quantized and not: the difference is the cost of four bits. The first
///   steps may only repair it.
/// * The KL to the reference at the first step. It is 0 for the disabled layer, but not for the model
///   before quantization.
/// * After merging, the loss of the saved model: it must agree with the unmerged one, so do not quantize
///   it again.
/// # Try
/// * Let the adapter repair the quantization error.
///   `tests/optimum/qlora.rs::at_full_rank_the_error_of_quantization_is_repaired`
/// * Quantize a merged weight: what is left of the adapter?
///   `tests/identities/qlora.rs::quantizing_the_merged_weight_again_loses_the_adapter`
/// # Source
/// Dettmers et al. 2023, arXiv:2305.14314v1, eqs 5 and 6; authors' code artidoro/qlora, `qlora.py`.
/// Equations and settings come from notes on the paper. PEFT 0.21.2, `tuners/lora/bnb.py`, with which
/// values and gradients were compared.
///
/// [`Error::Parameter`]: crate::Error::Parameter
/// [`Error::Argument`]: crate::Error::Argument
/// [`LoraBias::Base`]: crate::parameter_efficient::LoraBias::Base
/// [`Nf4Tensor::dequantize`]: crate::parameter_efficient::Nf4Tensor::dequantize
#[doc(alias = "QLoRA")]
#[doc(alias = "QLoRA NF4")]
#[doc(alias = "4-bit LoRA")]
pub type QloraLinear = Lora<Nf4Linear>;

impl QloraLinear {
    /// A layer at its start, over `base`, which is quantized here; `rng` draws A.
    ///
    /// # Errors
    /// Those of [`Nf4Linear::quantize`] and of [`QloraLinear::over`].
    pub fn new(
        base: &Linear,
        scale: BlockScale,
        config: &LoraConfig,
        rng: &mut impl Rng,
    ) -> Result<Self> {
        let function = "QloraLinear::new";
        config.check(function)?;
        let base = Nf4Linear::quantized(function, base, scale)?;
        Self::start(function, base, config, rng)
    }

    /// A layer at its start, over a base that is already quantized. The base is shared, not copied.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) for a setting out of its range;
    /// [`Error::Argument`](crate::Error::Argument) for
    /// [`LoraBias::Base`](crate::parameter_efficient::LoraBias::Base) over a base without a bias.
    pub fn over(base: Nf4Linear, config: &LoraConfig, rng: &mut impl Rng) -> Result<Self> {
        let function = "QloraLinear::over";
        config.check(function)?;
        Self::start(function, base, config, rng)
    }

    fn start(
        function: &'static str,
        base: Nf4Linear,
        config: &LoraConfig,
        rng: &mut impl Rng,
    ) -> Result<Self> {
        let kind = (compute_type(base.weight().dtype()), &Device::Cpu);
        let update = Update::start(function, config, base.sizes(), base.bias(), kind, rng)?;
        let names = names!("QloraLinear");
        Ok(Self::over_base(names, base, update, config.dropout))
    }
}
