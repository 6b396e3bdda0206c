//! LoRA+: B learns faster than A (not in the survey).
//!
//! In one sentence: with one learning rate, A and B cannot both learn well in a wide layer, so B gets
//! λ times the rate of A.
//!
//! | paper | here |
//! |---|---|
//! | η_A, η_B | [`LoraPlusGroups::a_learning_rate`], [`LoraPlusGroups::b_learning_rate`] |
//! | λ = η_B / η_A | `ratio` of [`lora_plus_groups`] |
//!
//! Read next: [`crate::training`].

use crate::error::{Error, Result, positive};
use candle_core::Var;
use std::collections::HashMap;

/// Trained variables in two groups, each with its learning rate. Each group becomes one
/// [`ParameterGroup`](crate::training::ParameterGroup), with `rate` 1 for A and λ for B.
#[derive(Clone, Debug)]
pub struct LoraPlusGroups {
    /// A, both factors of embeddings, and every other matrix, in their original order.
    pub a: Vec<(String, Var)>,
    /// η_A.
    pub a_learning_rate: f64,
    /// B and every bias, in their original order.
    pub b: Vec<(String, Var)>,
    /// η_B = λ·η_A.
    pub b_learning_rate: f64,
}

/// Splits named variables into the two groups of LoRA+.
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
/// [`Error::Parameter`] unless `learning_rate` and `ratio` are finite and positive;
/// [`Error::Argument`] for one variable under two names that belong to different groups.
/// # Properties
/// * λ = 1 is LoRA with one rate.
/// * Every variable is in exactly one group, once. One that is listed under several names (a tied
///   embedding) has the first of them.
/// # Departures
/// The paper asks for λ ≫ 1 and uses 2⁴ for most of its runs; there is no default here. The authors' code
/// gives the factors of an embedding a third rate, 10⁻⁶ unless told otherwise. Here they are in the slow
/// group, since the paper's argument does not cover which of the two is the narrow output layer. The
/// authors' code leaves biases without weight decay; here that is a setting of the optimizer.
/// # Examples
/// ```
/// use candle_align::{LoraConfig, LoraLinear, lora_plus_groups};
/// use candle_core::{DType, Device, Tensor};
/// use rand::SeedableRng;
///
/// let base = candle_nn::Linear::new(Tensor::zeros((3, 5), DType::F32, &Device::Cpu)?, None);
/// let config = LoraConfig { rank: 2, alpha: 4.0, ..Default::default() };
/// let layer = LoraLinear::new(&base, &config, &mut rand::rngs::StdRng::seed_from_u64(0))?;
///
/// let groups = lora_plus_groups(layer.trainable("q_proj"), 1e-4, 16.0)?;
/// assert_eq!(groups.a[0].0, "q_proj.lora_A.weight");
/// assert_eq!(groups.b[0].0, "q_proj.lora_B.weight");
/// assert_eq!(groups.b_learning_rate, 1e-4 * 16.0);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The names in [`LoraPlusGroups::b`]: every `lora_B` and every bias, and nothing else. Variables with
///   names of another form all end up in the slow group.
/// * The loss of the first steps. If it rises, B's rate η_B = λη is too high: lower `learning_rate`
///   and keep the ratio.
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
    learning_rate: f64,
    ratio: f64,
) -> Result<LoraPlusGroups> {
    let function = "lora_plus_groups";
    positive(function, "learning_rate", learning_rate)?;
    positive(function, "ratio", ratio)?;
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
    Ok(LoraPlusGroups {
        a,
        a_learning_rate: learning_rate,
        b,
        b_learning_rate: learning_rate * ratio,
    })
}
