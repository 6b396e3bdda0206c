//! What central differences say about a gradient: step sizes are tried until the slope is known well enough.

use super::points::{Points, Slope};
use crate::error::Result;
use candle_core::DType;

/// What central differences say about one gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// It is the slope of the loss, within `error`.
    Agrees,
    /// It is not the slope of the loss: a part of the graph is cut, or a backward pass is wrong.
    Differs,
    /// It does not exist, and the loss depends on the variable.
    Missing,
    /// The slope could not be determined well enough: the loss is noisy (dropout, half types), has a kink
    /// here, or hardly depends on the variable.
    Undetermined,
}

/// The largest error of a slope, as a share of what it is compared with.
const SHARE: f64 = 0.05;
/// How many step sizes are tried.
const TRIES: usize = 6;

/// One direction's verdict. The numbers are slopes along a direction of length 1.
pub(super) struct Found {
    pub(super) agreement: Agreement,
    pub(super) gradient: f64,
    pub(super) slope: f64,
    pub(super) error: f64,
}

impl Found {
    /// Whether this is stronger evidence against a gradient, or weaker evidence for it.
    pub(super) fn outweighs(&self, other: &Self) -> bool {
        let weight = |found: &Self| {
            let verdict = match found.agreement {
                Agreement::Agrees => 0,
                Agreement::Undetermined => 1,
                Agreement::Differs | Agreement::Missing => 2,
            };
            (verdict, (found.slope - found.gradient).abs())
        };
        weight(self) > weight(other)
    }
}

impl Points<'_> {
    /// Changes the step size until the slope is known well enough, or no step size is left.
    pub(super) fn compare(
        &self,
        loss: &impl Fn() -> Result<f64>,
        here: f64,
        noise: f64,
    ) -> Result<Found> {
        let (mut h, root) = match self.var.dtype() {
            DType::F64 => (2f64.powi(-9), f64::EPSILON.sqrt()),
            _ => (2f64.powi(-5), f64::from(f32::EPSILON).sqrt()),
        };
        let length = self.scale * (self.var.elem_count().max(1) as f64).sqrt();
        let differs = match self.gradient {
            Some(_) => Agreement::Differs,
            None => Agreement::Missing,
        };
        // what this step size says, if anything, and the numbers
        let look = |h: f64| -> Result<Option<(Option<Agreement>, Slope, f64)>> {
            let Some(s) = self.slope(loss, here, noise, h)? else {
                return Ok(None);
            };
            // NaN where the gradient is NaN: no number is then within the error
            let size = s.slope.abs().max(self.size);
            let error = s.bend + s.noise + root * size;
            let known = s.bend <= s.noise.max(SHARE * s.slope.abs()) && error <= SHARE * size;
            let within = (s.slope - s.gradient).abs() <= error;
            let agreement = match (known, within) {
                (false, _) => None,
                (true, true) => Some(Agreement::Agrees),
                (true, false) => Some(differs),
            };
            Ok(Some((agreement, s, error)))
        };
        let found = |agreement, s: &Slope, error: f64| Found {
            agreement,
            gradient: s.gradient / length,
            slope: s.slope / length,
            error: error / length,
        };

        let mut tried = Vec::new();
        let mut unsettled = Vec::new();
        let mut moved = false;
        while tried.len() < TRIES && !tried.contains(&h) {
            tried.push(h);
            let Some((agreement, s, error)) = look(h)? else {
                // the loss has no value there
                moved = true;
                h /= 4.0;
                continue;
            };
            moved |= s.moved;
            match agreement {
                Some(Agreement::Agrees) => return Ok(found(Agreement::Agrees, &s, error)),
                Some(agreement) => {
                    if let Some((Some(again), s, error)) = look(h / 2.0)?
                        && again == agreement
                    {
                        return Ok(found(agreement, &s, error));
                    }
                }
                None => {}
            }
            unsettled.push(found(Agreement::Undetermined, &s, error));
            h = match s.noise > s.bend {
                true => h * 4.0,
                false => h / 4.0,
            };
        }
        // `abs`, since NaN has a sign too
        let best = unsettled
            .into_iter()
            .min_by(|a, b| a.error.abs().total_cmp(&b.error.abs()));
        let mut best = best.unwrap_or(Found {
            agreement: Agreement::Undetermined,
            gradient: f64::NAN,
            slope: f64::NAN,
            error: f64::INFINITY,
        });
        if !moved && self.size == 0.0 {
            best.agreement = Agreement::Agrees;
        }
        if !self.size.is_finite() {
            best.agreement = Agreement::Differs;
        }
        Ok(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_against_a_gradient_outweighs_then_the_larger_distance() {
        let found = |agreement, gradient, slope| Found {
            agreement,
            gradient,
            slope,
            error: 0.0,
        };
        // each outweighs all before it; the distances are 5, 8, 1, 5, 6
        let rising = [
            found(Agreement::Agrees, 10.0, 5.0),
            found(Agreement::Agrees, -4.0, 4.0),
            found(Agreement::Undetermined, 7.0, 8.0),
            found(Agreement::Differs, 10.0, 15.0),
            found(Agreement::Missing, 10.0, 4.0),
        ];
        for (i, one) in rising.iter().enumerate() {
            for (j, other) in rising.iter().enumerate() {
                assert_eq!(one.outweighs(other), i > j, "{i} and {j}");
            }
        }
    }
}
