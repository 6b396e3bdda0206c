//! Newton's method for smooth convex functions of a few hundred numbers, and the linear algebra it needs.

/// f, its gradient and its Hessian, which is symmetric; the lower half is read.
pub(super) struct Local {
    pub value: f64,
    pub gradient: Vec<f64>,
    pub hessian: Vec<Vec<f64>>,
}

/// L with L Lᵀ = A, in place; `None` unless A is positive definite.
pub(super) fn cholesky(mut a: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    for i in 0..a.len() {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| a[i][k] * a[j][k]).sum();
            let rest = a[i][j] - dot;
            a[i][j] = match i == j {
                true if rest > 0.0 => rest.sqrt(),
                true => return None,
                false => rest / a[j][j],
            };
        }
    }
    Some(a)
}

/// x with L Lᵀ x = b.
pub(super) fn solve(lower: &[Vec<f64>], b: &[f64]) -> Vec<f64> {
    let n = b.len();
    let mut x = b.to_vec();
    for i in 0..n {
        let dot: f64 = (0..i).map(|k| lower[i][k] * x[k]).sum();
        x[i] = (x[i] - dot) / lower[i][i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| lower[k][i] * x[k]).sum();
        x[i] = (x[i] - dot) / lower[i][i];
    }
    x
}

/// The minimum, and the Cholesky factor of the Hessian there; `None` if it is not reached.
pub(super) fn minimize(
    mut point: Vec<f64>,
    at: impl Fn(&[f64]) -> Local,
) -> Option<(Vec<f64>, Vec<Vec<f64>>)> {
    let mut here = at(&point);
    for _ in 0..200 {
        let lower = cholesky(here.hessian)?;
        let step = solve(&lower, &here.gradient);
        let slope: f64 = step.iter().zip(&here.gradient).map(|(a, b)| a * b).sum();
        // what a full step gains, against the rounding of f
        let done = slope <= 1e-20 * (1.0 + here.value.abs());
        // what the rounding of f hides; without it the last steps would be halved for nothing
        let hidden = 1e-12 * (1.0 + here.value.abs());
        let mut length = 1.0;
        let next = loop {
            let moved: Vec<f64> = point
                .iter()
                .zip(&step)
                .map(|(x, s)| x - length * s)
                .collect();
            let there = at(&moved);
            if there.value <= here.value - 1e-4 * length * slope + hidden {
                break Some((moved, there));
            }
            length /= 2.0;
            if length < 1e-10 {
                break None;
            }
        };
        match next {
            Some((moved, there)) if !done => (point, here) = (moved, there),
            // no further gain is measurable: the last step, and the end
            _ if slope <= 1e-9 * (1.0 + here.value.abs()) => {
                let moved = point.iter().zip(&step).map(|(x, s)| x - s);
                return Some((moved.collect(), lower));
            }
            _ => return None,
        }
    }
    None
}
