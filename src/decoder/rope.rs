//! Rotary positions: how far each pair of a head's coordinates turns at each position.

use crate::error::{Error, Result};
use candle_core::{Device, Tensor};

/// The angles of one kind of layer.
///
/// # Equation
/// ```text
/// angle(position, i) = position · inv_freq[i]      i < rotary / 2
/// ```
/// The tables hold `scale · cos` and `scale · sin`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// The angle by which each pair turns from one position to the next.
    pub inv_freq: Vec<f32>,
    /// The factor of cosine and sine; 1 except for `yarn` and `longrope`.
    pub scale: f32,
    /// The first position that the table is not meant for, if there is one, and why.
    pub(super) limit: Option<(usize, &'static str)>,
}

/// A kind of rotary scaling with its numbers, as `rope_parameters` has them.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scaling {
    Default,
    Linear {
        factor: f64,
    },
    /// As the default, up to the length that the model was made for.
    Dynamic {
        length: usize,
    },
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    Yarn {
        factor: f64,
        fast: f64,
        slow: f64,
        original: f64,
        truncate: bool,
        scale: f64,
    },
    /// The factors for rows up to the original length.
    Long {
        factors: Vec<f64>,
        scale: f64,
        original: usize,
    },
}

impl Rope {
    /// Of `rotary` coordinates, with base θ.
    pub(super) fn new(rotary: usize, theta: f64, scaling: &Scaling) -> Self {
        // f_i = θ^(−2i/d), in single precision as Transformers computes it
        let plain: Vec<f32> = (0..rotary / 2)
            .map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / rotary as f32))
            .collect();
        let (inv_freq, scale, limit) = match scaling {
            Scaling::Default => (plain, 1.0, None),
            Scaling::Linear { factor } => {
                let slower = |f: f32| f / *factor as f32;
                (plain.into_iter().map(slower).collect(), 1.0, None)
            }
            Scaling::Dynamic { length } => {
                let why = "`dynamic` rotary scaling changes with the longest row beyond it";
                (plain, 1.0, Some((*length, why)))
            }
            Scaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => {
                let one = |f: f32| llama3(f, *factor, *low, *high, *original);
                (plain.into_iter().map(one).collect(), 1.0, None)
            }
            Scaling::Yarn {
                factor,
                fast,
                slow,
                original,
                truncate,
                scale,
            } => {
                let (mut from, mut to) = (
                    turns(*fast, rotary, theta, *original),
                    turns(*slow, rotary, theta, *original),
                );
                if *truncate {
                    (from, to) = (from.floor(), to.ceil());
                }
                let (from, mut to) = (from.max(0.0), to.min(rotary as f64 - 1.0));
                if from == to {
                    to += 0.001;
                }
                let mixed = plain.into_iter().enumerate().map(|(i, f)| {
                    let ramp = (((i as f64 - from) / (to - from)) as f32).clamp(0.0, 1.0);
                    let kept = 1.0 - ramp;
                    f / *factor as f32 * (1.0 - kept) + f * kept
                });
                (mixed.collect(), *scale as f32, None)
            }
            Scaling::Long {
                factors,
                scale,
                original,
            } => {
                let slower = plain.into_iter().zip(factors);
                let slower = slower.map(|(f, factor)| 1.0 / (*factor as f32 * (1.0 / f)));
                let why = "`longrope` takes other factors for all rows of a batch beyond it";
                (slower.collect(), *scale as f32, Some((*original, why)))
            }
        };
        Self {
            inv_freq,
            scale,
            limit,
        }
    }

    /// The most tokens of a row in training, if the scaling bounds them.
    pub(super) fn most(&self) -> Option<usize> {
        self.limit.map(|(limit, _)| limit)
    }

    /// The tables of cosines and sines, each `[positions, rotary/2]` in f32.
    ///
    /// # Errors
    /// [`Error::Argument`] for a position that the scaling is not defined for in training.
    pub fn tables(&self, positions: &[u32], device: &Device) -> Result<(Tensor, Tensor)> {
        if let Some((limit, why)) = self.limit
            && let Some(far) = positions.iter().find(|&&at| at as usize >= limit)
        {
            let text = format!("hold position {far}, and rows may have {limit} tokens: {why}");
            return Err(Error::argument("Rope::tables", "positions", text));
        }
        let of = |function: fn(f32) -> f32| -> Result<Tensor> {
            let turned = positions.iter().flat_map(|&at| {
                let angles = self.inv_freq.iter().map(move |f| at as f32 * f);
                angles.map(|angle| function(angle) * self.scale)
            });
            let shape = (positions.len(), self.inv_freq.len());
            Ok(Tensor::from_vec(turned.collect(), shape, device)?)
        };
        Ok((of(f32::cos)?, of(f32::sin)?))
    }
}

/// Slow turns are slowed by the factor, fast ones stay, and between the two kinds it is a mixture.
fn llama3(f: f32, factor: f64, low: f64, high: f64, original: f64) -> f32 {
    let wavelength = 2.0 * std::f32::consts::PI / f;
    if wavelength < (original / high) as f32 {
        return f;
    }
    if wavelength > (original / low) as f32 {
        return f / factor as f32;
    }
    let smooth = (original as f32 / wavelength - low as f32) / (high - low) as f32;
    (1.0 - smooth) * (f / factor as f32) + smooth * f
}

/// The pair that turns this often within the original length.
fn turns(count: f64, rotary: usize, theta: f64, original: f64) -> f64 {
    rotary as f64 * (original / (count * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln())
}
