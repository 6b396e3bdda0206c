//! LoRA+: B learns faster than A (not in the survey).
//!
//! In one sentence: with one learning rate, A and B cannot both learn well in a wide layer, so B gets
//! λ times the rate of A.
//!
//! | paper | here |
//! |---|---|
//! | η_A | [`AdamWConfig::learning_rate`](crate::training::AdamWConfig::learning_rate) |
//! | λ = η_B / η_A | `ratio` of [`lora_plus_groups`], the [`ParameterGroup::rate`] of its second group |
//!
//! Read next: [`crate::training`].

use crate::error::{Error, Result, non_negative, positive};
use crate::training::ParameterGroup;
use candle_core::Var;
use std::collections::HashMap;

/// Splits named variables into the two groups of LoRA+, for [`AdamW`](crate::training::AdamW): first A, both
/// factors of embeddings, and every other matrix, at the optimizer's own rate; then B and every bias, at
/// `ratio` times that rate. Both groups have this weight decay.
///
/// # Equation
/// ```text
/// A ← A − η·g_A,      B ← B − λη·g_B
/// ```
/// `g` is the optimizer's direction, made from the gradient; the paper's argument is for Adam.
/// # Shapes
/// Any. A variable belongs to B if one of the dot-separated parts of its name is `lora_B`, or if it has
/// one axis (a bias).
/// # Errors
/// [`Error::Parameter`] unless `ratio` is finite and positive, and `weight_decay` finite and not negative;
/// [`Error::Argument`] for one variable under two names that belong to different groups.
/// # Properties
/// * λ = 1 is LoRA with one rate.
/// * Every variable is in exactly one group, once, and a group keeps the order of `vars`. One that is listed under several names (a tied
///   embedding) has the first of them.
/// # Departures
/// The paper asks for λ ≫ 1 and uses 2⁴ for most of its runs; there is no default here. The authors' code
/// gives the factors of an embedding a third rate, 10⁻⁶ unless told otherwise. Here they are in the slow
/// group, since the paper's argument does not cover which of the two is the narrow output layer. The
/// authors' code leaves biases without weight decay; here they have that of their group, unless the caller
/// moves them into a third one.
/// # Examples
/// ```
/// use candle_align::training::{AdamW, AdamWConfig};
/// use candle_align::parameter_efficient::{Adapter, LoraConfig, LoraLinear, lora_plus_groups};
/// use candle_core::{DType, Device, Tensor};
/// use rand::SeedableRng;
///
/// let base = candle_nn::Linear::new(Tensor::zeros((3, 5), DType::F32, &Device::Cpu)?, None);
/// let config = LoraConfig { rank: 2, alpha: 4.0, ..Default::default() };
/// let layer = LoraLinear::new(&base, &config, &mut rand::rngs::StdRng::seed_from_u64(0))?;
///
/// let groups = lora_plus_groups(layer.trainable("q_proj"), 16.0, 0.01)?;
/// assert_eq!(groups[0].vars[0].0, "q_proj.lora_A.weight");
/// assert_eq!(groups[1].vars[0].0, "q_proj.lora_B.weight");
/// assert_eq!([groups[0].rate, groups[1].rate], [1.0, 16.0]);
///
/// let config = AdamWConfig { learning_rate: 1e-4, ..Default::default() };
/// let optimizer = AdamW::new(groups, config)?; // B at 1.6e-3
/// # let _ = optimizer;
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The names in the second group: every `lora_B` and every bias, and nothing else. Variables with
///   names of another form all end up in the slow group.
/// * The loss of the first steps. If it rises, B's rate η_B = λη is too high: lower the
///   optimizer's `learning_rate` and keep the ratio.
/// # Try
/// * To which group do a bias and the factors of an embedding belong?
///   `tests/values/lora.rs::lora_plus_gives_b_and_biases_the_faster_rate`
/// * What happens to a variable with two names?
///   `tests/values/training.rs::a_variable_under_two_names_is_in_one_group_of_lora_plus_once`
/// # Source
/// Hayou, Ghosh and Yu 2024, arXiv:2402.12354v2; authors' code nikhil-ghosh-berkeley/loraplus,
/// `lora_plus.py`, `create_loraplus_optimizer`; PEFT 0.21.2, `optimizers/loraplus.py`, with which the
/// steps were compared.
#[doc(alias = "LoRA+")]
#[doc(alias = "loraplus")]
pub fn lora_plus_groups(
    vars: Vec<(String, Var)>,
    ratio: f64,
    weight_decay: f64,
) -> Result<Vec<ParameterGroup>> {
    let function = "lora_plus_groups";
    positive(function, "ratio", ratio)?;
    non_negative(function, "weight_decay", weight_decay)?;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let mut seen = HashMap::new();
    for (name, var) in vars {
        let fast = name.split('.').any(|part| part == "lora_B") || var.rank() == 1;
        match seen.get(&var.id()) {
            None => {
                seen.insert(var.id(), (name.clone(), fast));
                if fast { &mut b } else { &mut a }.push((name, var));
            }
            Some((_, same)) if *same == fast => {}
            Some((other, _)) => {
                let problem = format!(
                    "holds one variable as `{other}` and as `{name}`, which belong to different \
                     groups: list it once"
                );
                return Err(Error::argument(function, "vars", problem));
            }
        }
    }
    let group = |vars, rate| ParameterGroup {
        vars,
        rate,
        weight_decay,
    };
    Ok(vec![group(a, 1.0), group(b, ratio)])
}
