//! A loss along one direction of one variable: its slope by central differences, and its noise.

use crate::error::Result;
use candle_core::{DType, Tensor, Var};
use rand::Rng;

/// A variable, the direction in which it moves, and its old value, which it gets back on drop.
pub(super) struct Points<'a> {
    pub(super) var: &'a Var,
    start: Tensor,
    pub(super) gradient: Option<Tensor>,
    /// ±`scale`, in the type of the variable.
    direction: Tensor,
    /// The root of the mean of squares, or 1.
    pub(super) scale: f64,
    /// The length of the gradient times `scale`: its slope along ±`scale`, on average.
    pub(super) size: f64,
}

impl Drop for Points<'_> {
    fn drop(&mut self) {
        // on the path of an error, which is the one to report; otherwise `back` has been called
        let _ = self.var.set(&self.start);
    }
}

/// The result of the four points around the start at one step size.
pub(super) struct Slope {
    pub(super) slope: f64,
    pub(super) gradient: f64,
    /// From the third and the fourth difference.
    pub(super) bend: f64,
    /// From the noise of the loss.
    pub(super) noise: f64,
    /// Whether the loss differed anywhere.
    pub(super) moved: bool,
}

/// Σ x², in f64.
fn squares(x: &Tensor) -> Result<f64> {
    let x = x.to_dtype(DType::F64)?;
    Ok(x.sqr()?.sum_all()?.to_scalar()?)
}

impl<'a> Points<'a> {
    pub(super) fn new(var: &'a Var, gradient: Option<&Tensor>) -> Result<Self> {
        let start = var.as_detached_tensor().copy()?;
        let count = var.elem_count().max(1) as f64;
        let scale = match (squares(&start)? / count).sqrt() {
            0.0 => 1.0,
            scale => scale,
        };
        let length = match gradient {
            Some(g) => squares(g)?.sqrt(),
            None => 0.0,
        };
        Ok(Self {
            var,
            direction: start.zeros_like()?,
            start,
            gradient: gradient.map(Tensor::detach),
            scale,
            size: length * scale,
        })
    }

    /// Draws a direction.
    pub(super) fn turn<R: Rng + ?Sized>(&mut self, rng: &mut R) -> Result<()> {
        let signs = (0..self.var.elem_count()).map(|_| match rng.random::<bool>() {
            true => self.scale,
            false => -self.scale,
        });
        let signs = Tensor::from_vec(
            signs.collect::<Vec<f64>>(),
            self.var.shape(),
            self.var.device(),
        )?;
        self.direction = signs.to_dtype(self.var.dtype())?;
        Ok(())
    }

    /// Moves the variable to the start plus `by` times the direction.
    fn go(&self, by: f64) -> Result<Tensor> {
        let there = (&self.start + (&self.direction * by)?)?;
        self.var.set(&there)?;
        Ok(there)
    }

    fn back(&self) -> Result<()> {
        Ok(self.var.set(&self.start)?)
    }

    /// The slope at step size `h`; `None` where the loss is not finite.
    pub(super) fn slope(
        &self,
        loss: &impl Fn() -> Result<f64>,
        here: f64,
        noise: f64,
        h: f64,
    ) -> Result<Option<Slope>> {
        let (mut values, mut gradient) = ([here; 5], 0.0);
        let start = self.start.to_dtype(DType::F64)?;
        // (L(−2h) − 8 L(−h) + 8 L(h) − L(2h)) / 12h, and the same combination of the distances
        for (i, weight) in [(0, 1.0), (1, -8.0), (3, 8.0), (4, -1.0)] {
            let there = self.go((i as f64 - 2.0) * h)?;
            values[i] = loss()?;
            if let Some(g) = &self.gradient {
                let distance = (there.to_dtype(DType::F64)? - &start)?;
                let along = (distance * g.to_dtype(DType::F64)?)?.sum_all()?;
                let along = along.to_scalar::<f64>()?;
                gradient += weight * along / (12.0 * h);
            }
        }
        self.back()?;
        let [a, b, c, d, e] = values;
        if !values.iter().all(|x| x.is_finite()) {
            return Ok(None);
        }
        let third = e - 2.0 * d + 2.0 * b - a;
        let fourth = e - 4.0 * d + 6.0 * c - 4.0 * b + a;
        Ok(Some(Slope {
            slope: (a - 8.0 * b + 8.0 * d - e) / (12.0 * h),
            gradient,
            bend: 2.0 * (third.abs() + fourth.abs()) / (4.0 * h),
            noise: 4.0 * noise / h,
            moved: values.iter().any(|&x| x != here),
        }))
    }
}

/// The noise of a loss, as a standard deviation: from the fourth differences of nine values so close
/// together that a smooth loss leaves nothing in them. Infinite if a value is not finite.
///
/// J. J. Moré and S. M. Wild 2011, "Estimating computational noise".
pub(super) fn noise<R: Rng + ?Sized>(
    points: &mut [Points],
    loss: &impl Fn() -> Result<f64>,
    rng: &mut R,
) -> Result<f64> {
    for point in points.iter_mut() {
        point.turn(rng)?;
    }
    let mut values = Vec::new();
    for i in -4..=4 {
        for point in points.iter() {
            let tiny = match point.var.dtype() {
                DType::F64 => 2f64.powi(-40),
                _ => 2f64.powi(-18),
            };
            point.go(f64::from(i) * tiny)?;
        }
        values.push(loss()?);
    }
    for point in points.iter() {
        point.back()?;
    }
    let fourth = |v: &[f64]| v[4] - 4.0 * v[3] + 6.0 * v[2] - 4.0 * v[1] + v[0];
    // for independent numbers the fourth difference has 1 + 16 + 36 + 16 + 1 times the variance
    let sum: f64 = values.windows(5).map(|v| fourth(v).powi(2) / 70.0).sum();
    match (sum / 5.0).sqrt() {
        noise if noise.is_finite() => Ok(noise),
        _ => Ok(f64::INFINITY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn var(values: &[f64]) -> Var {
        Var::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn a_variable_moves_along_the_direction_and_back() {
        let w = var(&[1.0, -2.0, 2.0]);
        let mut points = [Points::new(&w, None).unwrap()];
        let [point] = &mut points;
        point.turn(&mut StdRng::seed_from_u64(0)).unwrap();
        let direction = point.direction.to_vec1::<f64>().unwrap();
        // the root of the mean of squares
        assert!(direction.iter().all(|x| x.abs() == 3f64.sqrt()));
        for by in [0.5, -2.0] {
            let there = point.go(by).unwrap().to_vec1::<f64>().unwrap();
            let [x, y, z] = [0, 1, 2].map(|i| by * direction[i]);
            assert_eq!(there, [1.0 + x, -2.0 + y, 2.0 + z]);
            assert_eq!(w.to_vec1::<f64>().unwrap(), there);
        }
        point.back().unwrap();
        assert_eq!(w.to_vec1::<f64>().unwrap(), [1.0, -2.0, 2.0]);
    }

    #[test]
    fn a_steep_smooth_loss_has_no_noise() {
        let w = var(&[0.0]);
        let mut points = [Points::new(&w, None).unwrap()];
        let loss = || -> Result<f64> {
            let x = (w.as_tensor() * 2f64.powi(16))?.powf(4.0)?;
            Ok(x.sum_all()?.to_scalar()?)
        };
        let found = noise(&mut points, &loss, &mut StdRng::seed_from_u64(0)).unwrap();
        assert!(found < 1e-20, "{found}");
    }

    #[test]
    fn where_a_loss_has_no_value_its_noise_is_infinite() {
        let w = var(&[0.0]);
        for value in [f64::NAN, f64::INFINITY] {
            let mut points = [Points::new(&w, None).unwrap()];
            let found = noise(&mut points, &|| Ok(value), &mut StdRng::seed_from_u64(0));
            assert_eq!(found.unwrap(), f64::INFINITY);
        }
    }
}
