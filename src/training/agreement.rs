//! Whether the gradients are those of the loss.

pub use super::differences::Agreement;
use super::differences::Found;
use super::distinct;
use super::points::{Points, noise};
use crate::error::{Error, Result, require};
use candle_core::{DType, Tensor, Var};
use rand::Rng;
use std::fmt;

/// One variable's gradient beside the slope of the loss, along the most informative direction.
///
/// All three numbers are slopes along a direction of length 1, over all elements of the variable.
#[derive(Clone, Debug, PartialEq)]
pub struct VariableAgreement {
    /// The first name under which it was listed.
    pub name: String,
    /// The conclusion from the numbers.
    pub agreement: Agreement,
    /// The slope according to the gradient; 0 if there is none.
    pub gradient: f64,
    /// The slope of the loss itself, by central differences.
    pub slope: f64,
    /// How far `slope` and `gradient` may differ for reasons other than a wrong gradient.
    pub error: f64,
}

/// The result of [`gradient_agreement`], in the order in which the variables were listed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GradientAgreement {
    /// Each variable, once.
    pub variables: Vec<VariableAgreement>,
}

impl GradientAgreement {
    /// Whether every gradient agrees with the loss.
    pub fn is_complete(&self) -> bool {
        let mut all = self.variables.iter();
        all.all(|v| v.agreement == Agreement::Agrees)
    }

    /// The names of the variables with this result.
    pub fn names(&self, agreement: Agreement) -> Vec<&str> {
        let all = self.variables.iter();
        let found = all.filter(|v| v.agreement == agreement);
        found.map(|v| v.name.as_str()).collect()
    }
}

impl fmt::Display for GradientAgreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let agree = self.names(Agreement::Agrees).len();
        write!(f, "{agree} of {} gradients agree", self.variables.len())?;
        for (what, agreement) in [
            ("partial or wrong", Agreement::Differs),
            ("missing", Agreement::Missing),
            ("undetermined", Agreement::Undetermined),
        ] {
            let found = self.variables.iter().filter(|v| v.agreement == agreement);
            for (i, v) in found.enumerate() {
                let before = match i {
                    0 => format!("; {what}: "),
                    _ => ", ".to_string(),
                };
                let (name, gradient, slope, error) = (&v.name, v.gradient, v.slope, v.error);
                write!(
                    f,
                    "{before}{name} ({gradient:.2e}, the loss {slope:.2e} ± {error:.0e})"
                )?;
            }
        }
        Ok(())
    }
}

/// Compares each variable's gradient with the slope of the loss, found by moving the variable.
///
/// ```text
/// d = ±1 at random, each element        ∂L/∂θ · d   against   (L(θ + h d) − L(θ − h d)) / 2h
/// ```
/// [`grad_coverage`](super::grad_coverage) tells whether a gradient exists. This function tells whether it
/// is right, and names the variables whose gradient is partial or wrong: where candle's fused operations
/// cut the graph inside a residual branch, `x + cut(f(x))`, every variable below still gets the gradient
/// that flows past the branch (candle#3823).
///
/// `loss` computes the loss from the variables' current values: one number, the same at every call, so
/// without dropout and on one batch. It is called 10 times, and 4 times more for each variable and each of
/// the `directions`, up to 48 if the first step size is not enough: use a small batch, and check once. One
/// direction finds almost any fault, since it moves all elements at once; two or three make sure. The
/// variables are f32 or f64, and get their old values back to the bit, whether the call succeeds or not.
/// It needs memory for two more copies of them.
///
/// # What is compared
///
/// Every element moves by the same amount, up or down: h times the root mean square of the variable, or h
/// if that is 0. L is evaluated at four such points, ±h and ±2h. The slope is the combination of them that
/// is exact for polynomials of degree 4, and the gradient is multiplied by the distances between the
/// rounded values. The error is the sum of
///
/// * twice the contribution of the third and fourth differences of L: the curvature beyond a parabola, and
///   the jump of the slope at a kink;
/// * four times the noise of L, divided by h. The noise is measured: L at nine points so close
///   together that a smooth loss is a parabola between them, and at least one rounding of L;
/// * √ε of the gradient's length, for its own rounding: 3·10⁻⁴ in f32, 1.5·10⁻⁸ in f64.
///
/// A slope counts if its error is at most a twentieth of it, or of the average slope for a gradient of this
/// length. Otherwise h changes by a factor of four, up to six times: larger against noise, smaller against
/// curvature. A gradient [`Differs`](Agreement::Differs) if its distance from the slope exceeds the error at
/// two step sizes. A variable agrees if it agrees along every direction. So a gradient that is wrong by less
/// than `error` is not found, and neither is a wrong element among many right ones: a difference must show
/// in a sum over all elements with random signs. A kink or noise gives
/// [`Undetermined`](Agreement::Undetermined), not a verdict. A part that a loss detaches on purpose, such as
/// the norm of [`DoraLinear`](crate::parameter_efficient::DoraLinear), differs in the same way as one that is cut by accident.
///
/// # Errors
/// [`Error::Parameter`] unless `directions` ≥ 1; [`Error::DType`] that names a variable that is neither f32
/// nor f64; [`Error::Shape`] unless the loss is one number; [`Error::Argument`] unless it is finite; any
/// error of `loss`; candle's own.
///
/// ```
/// use candle_align::training::{Agreement, grad_coverage, gradient_agreement};
/// use candle_core::{Device, Var};
/// use rand::SeedableRng;
///
/// let x = Var::new(&[0.5f64, -1.0, 2.0], &Device::Cpu)?;
/// let scale = Var::new(&[0.3f64, 0.7, -0.2], &Device::Cpu)?;
/// let vars = [("scale".to_string(), scale.clone()), ("x".to_string(), x.clone())];
/// // a residual branch whose graph is cut: x still learns, from what flows past the branch
/// let loss = || {
///     let branch = x.tanh()?.detach();
///     Ok(((x.as_tensor() + branch)? * scale.as_tensor())?.sqr()?.sum_all()?)
/// };
/// assert!(grad_coverage(&vars, &loss()?.backward()?)?.is_complete());
///
/// let mut rng = rand::rngs::StdRng::seed_from_u64(0);
/// let agreement = gradient_agreement(loss, &vars, 2, &mut rng)?;
/// assert_eq!(agreement.names(Agreement::Differs), ["x"]);
/// assert_eq!(agreement.names(Agreement::Agrees), ["scale"]);
/// # Ok::<(), candle_align::Error>(())
/// ```
#[doc(alias = "gradcheck")]
#[doc(alias = "gradient check")]
pub fn gradient_agreement<R: Rng + ?Sized>(
    loss: impl Fn() -> Result<Tensor>,
    vars: &[(String, Var)],
    directions: usize,
    rng: &mut R,
) -> Result<GradientAgreement> {
    let function = "gradient_agreement";
    require(
        directions >= 1,
        function,
        "directions",
        "at least 1",
        directions,
    )?;
    let vars: Vec<_> = distinct(vars).collect();
    for (name, var) in &vars {
        if !matches!(var.dtype(), DType::F32 | DType::F64) {
            return Err(Error::DType {
                function,
                argument: name.clone(),
                found: var.dtype().as_str(),
                expected: "f32 or f64".to_string(),
            });
        }
    }
    let out = loss()?;
    if out.elem_count() != 1 {
        return Err(Error::Shape {
            function,
            argument: "loss".to_string(),
            shape: out.dims().to_vec(),
            expected: String::new(),
        });
    }
    let number = |out: Tensor| -> Result<f64> {
        Ok(out
            .to_dtype(DType::F64)?
            .flatten_all()?
            .get(0)?
            .to_scalar()?)
    };
    let rounding = match out.dtype() {
        DType::F64 => 2f64.powi(-53),
        DType::F32 => 2f64.powi(-24),
        DType::F16 => 2f64.powi(-11),
        _ => 2f64.powi(-8),
    };
    let grads = out.backward()?;
    let here = number(out)?;
    if !here.is_finite() {
        let problem = format!("is {here} at the variables' own values");
        return Err(Error::argument(function, "loss", problem));
    }
    let value = || number(loss()?);

    let mut points = vars
        .iter()
        .map(|(_, var)| Points::new(var, grads.get(var)))
        .collect::<Result<Vec<_>>>()?;
    // and with them the graph
    drop(grads);
    let noise = noise(&mut points, &value, rng)?.max(rounding * here.abs());
    let mut variables = Vec::new();
    for ((name, _), point) in vars.iter().zip(&mut points) {
        let mut worst = None;
        for _ in 0..directions {
            point.turn(rng)?;
            let found = point.compare(&value, here, noise)?;
            if worst.as_ref().is_none_or(|w: &Found| found.outweighs(w)) {
                worst = Some(found);
            }
        }
        let Some(found) = worst else { continue };
        variables.push(VariableAgreement {
            name: name.clone(),
            agreement: found.agreement,
            gradient: found.gradient,
            slope: found.slope,
            error: found.error,
        });
    }
    Ok(GradientAgreement { variables })
}
