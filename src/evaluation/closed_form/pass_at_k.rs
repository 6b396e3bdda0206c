//! pass@k: the chance that one of k programs passes the tests, from n of which c did.
//!
//! In one sentence: of all ways to draw k of the n programs, the share that draws at least one good one.

use crate::error::{Error, Result, require};
use crate::evaluation::statistics::Estimate;

/// The unbiased estimate of pass@k for one problem.
///
/// # Equation
/// ```text
/// pass@k = 1 − C(n − c, k) / C(n, k) = 1 − Π_{i = n−c+1}^{n} (1 − k/i),     and 1 where n − c < k
/// ```
/// # Shapes
/// `samples` n, `correct` c and `k` are counts for one problem; the result is in [0, 1].
/// # Errors
/// [`Error::Parameter`] unless c ≤ n and 1 ≤ k ≤ n.
/// # Properties
/// * Unbiased: if each program passes with probability p, the mean over c is 1 − (1 − p)ᵏ exactly. The
///   shorter 1 − (1 − c/n)ᵏ is not: it is too low, for every k > 1.
/// * k = 1 is c/n. It grows with c and with k, and is 0 for c = 0.
/// * The product has c factors, so no binomial coefficient overflows: n may be a million.
/// # Departures
/// None from the authors' code, which returns 1 where n − c < k as well. It has no answer for k > n, where
/// its product is still 1 for any c > 0; here this is an error.
/// # Examples
/// ```
/// use candle_align::evaluation::closed_form::pass_at_k;
///
/// // two of five programs pass; three are drawn: 1 − C(3, 3)/C(5, 3)
/// assert!((pass_at_k(5, 2, 3)? - 0.9).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Chen et al. 2021, arXiv:2107.03374v2, eq. 1 and figure 3; authors' code openai/human-eval at
/// commit 9d3aa8b, `evaluation.py`, `estimate_pass_at_k`.
///
/// [`Error::Parameter`]: crate::Error::Parameter
#[doc(alias = "HumanEval")]
pub fn pass_at_k(samples: usize, correct: usize, k: usize) -> Result<f64> {
    checked("pass_at_k", samples, correct, k)
}

/// pass@k of a benchmark: the mean over its problems, with its standard error over problems.
///
/// `problems` holds (n, c) of each problem; n may differ. See [`pass_at_k`].
///
/// # Errors
/// As [`pass_at_k`]; [`Error::Argument`] if there is no problem.
pub fn mean_pass_at_k(problems: &[(usize, usize)], k: usize) -> Result<Estimate> {
    let function = "mean_pass_at_k";
    if problems.is_empty() {
        return Err(Error::argument(function, "problems", "is empty"));
    }
    let each = |&(samples, correct): &(usize, usize)| checked(function, samples, correct, k);
    let shares = problems.iter().map(each).collect::<Result<Vec<_>>>()?;
    Ok(Estimate::of_mean(&shares))
}

fn checked(function: &'static str, samples: usize, correct: usize, k: usize) -> Result<f64> {
    let holds = correct <= samples;
    require(holds, function, "correct", "at most `samples`", correct)?;
    let holds = (1..=samples).contains(&k);
    require(holds, function, "k", "from 1 to `samples`", k)?;
    if samples - correct < k {
        return Ok(1.0);
    }
    // Π (1 − k/i) over the last c numbers up to n
    let miss: f64 = (samples - correct + 1..=samples)
        .map(|i| 1.0 - k as f64 / i as f64)
        .product();
    Ok(1.0 - miss)
}
