//! Logistic regression with an L1 penalty, targets in [0, 1] and weights: the problem that liblinear solves.

use crate::evaluation::statistics::mean;
use crate::math::logistic;

/// One observation.
#[derive(Clone, Copy)]
pub(super) struct Observation {
    pub features: [f64; 3],
    pub target: f64,
    pub weight: f64,
}

impl Observation {
    fn logit(&self, w: &[f64; 3]) -> f64 {
        self.features.iter().zip(w).map(|(x, w)| x * w).sum()
    }
}

/// w = argmin Σ│wⱼ│ + C Σᵢ sᵢ ( log(1 + e^{zᵢ}) − pᵢ zᵢ ), z = x·w, by proximal Newton steps.
pub(super) fn fit(data: &[Observation], c: f64) -> [f64; 3] {
    let softplus = |z: f64| z.max(0.0) + (-z.abs()).exp().ln_1p();
    let value = |w: &[f64; 3]| -> f64 {
        let loss = |o: &Observation| o.weight * (softplus(o.logit(w)) - o.target * o.logit(w));
        w.iter().map(|w| w.abs()).sum::<f64>() + c * data.iter().map(loss).sum::<f64>()
    };
    let mut w = [0.0; 3];
    let mut here = value(&w);
    for _ in 0..200 {
        let (gradient, hessian) = slopes(data, c, &w);
        let aim = quadratic(&w, &gradient, &hessian);
        let mut length = 1.0;
        let mut moved = aim;
        let mut there = value(&moved);
        while there > here && length > 1e-8 {
            length /= 2.0;
            moved = std::array::from_fn(|j| w[j] + length * (aim[j] - w[j]));
            there = value(&moved);
        }
        let step: f64 = (0..3).map(|j| (aim[j] - w[j]).abs()).sum();
        let size: f64 = w.iter().map(|w| w.abs()).sum();
        // at the minimum f no longer tells a full step from none
        if there > here {
            return if step < 1e-6 * (1.0 + size) { aim } else { w };
        }
        (w, here) = (moved, there);
        if step < 1e-13 * (1.0 + size) {
            break;
        }
    }
    w
}

/// The gradient and the Hessian of the smooth part.
fn slopes(data: &[Observation], c: f64, w: &[f64; 3]) -> ([f64; 3], [[f64; 3]; 3]) {
    let (mut gradient, mut hessian) = ([0.0; 3], [[0.0; 3]; 3]);
    for o in data {
        let p = logistic(o.logit(w));
        let curve = c * o.weight * p * (1.0 - p);
        for (j, x) in o.features.into_iter().enumerate() {
            gradient[j] += c * o.weight * (p - o.target) * x;
            for (h, y) in hessian[j].iter_mut().zip(o.features) {
                *h += curve * x * y;
            }
        }
    }
    (gradient, hessian)
}

/// The minimum of Σ│wⱼ│ + the quadratic model at `w`, one coordinate after the other.
fn quadratic(w: &[f64; 3], gradient: &[f64; 3], hessian: &[[f64; 3]; 3]) -> [f64; 3] {
    let mut aim = *w;
    for _ in 0..10_000 {
        let mut change: f64 = 0.0;
        for j in 0..3 {
            let h = hessian[j][j];
            let slope: f64 =
                gradient[j] + (0..3).map(|k| hessian[j][k] * (aim[k] - w[k])).sum::<f64>();
            let next = match h > 0.0 {
                // soft threshold of the free minimum
                true => {
                    let free = aim[j] - slope / h;
                    free.signum() * (free.abs() - 1.0 / h).max(0.0)
                }
                false => 0.0,
            };
            change = change.max((next - aim[j]).abs());
            aim[j] = next;
        }
        if change < 1e-15 * (1.0 + aim.iter().map(|w| w.abs()).sum::<f64>()) {
            break;
        }
    }
    aim
}

/// The C of a grid with the lowest loss on held-out folds, by the rules of scikit-learn's
/// `LogisticRegressionCV` under `GroupKFold`: items whose numbers differ by a multiple of `folds` are a fold.
pub(super) fn choose_c(data: &[Observation], folds: usize) -> f64 {
    let part = |wanted: bool, which: usize| -> Vec<Observation> {
        let kept = data
            .iter()
            .enumerate()
            .filter(|(at, _)| (at % folds == which) == wanted);
        kept.map(|(_, o)| *o).collect()
    };
    let held_out = |c: f64, which: usize| {
        let w = fit(&part(false, which), c);
        let log = |p: f64| p.clamp(1e-15, 1.0 - 1e-15).ln();
        let losses = part(true, which).into_iter().map(|o| {
            let p = logistic(o.logit(&w));
            -o.weight * (o.target * log(p) + (1.0 - o.target) * log(1.0 - p))
        });
        mean(&losses.collect::<Vec<_>>())
    };
    let mut best = (f64::INFINITY, 1.0);
    for step in 0..10 {
        // NumPy's logspace(-4, 4, 10)
        let c = 10f64.powf(-4.0 + 8.0 * f64::from(step) / 9.0);
        let loss: f64 = (0..folds).map(|which| held_out(c, which)).sum();
        if loss < best.0 {
            best = (loss, c);
        }
    }
    best.1
}
