//! How a `config.json` spells rotary positions, in the old form and the new one.

use super::keys::Keys;
use super::rope::{Rope, Scaling};
use crate::error::Result;

/// What the angles depend on beside their own settings.
pub(super) struct Shape {
    pub(super) head_dim: usize,
    pub(super) max_position_embeddings: usize,
    /// Whether this is Phi-3, which has names and rules of its own.
    pub(super) phi: bool,
}

/// Settings that may stand outside the object of the rotary positions.
#[derive(Clone, Copy)]
struct Outside {
    theta: f64,
    partial: Option<f64>,
    original: Option<usize>,
}

/// The base of the sliding layers of Gemma 3, unless the file says another.
const LOCAL: f64 = 10_000.0;

/// The rotary positions of a model; for `two`, also those of the layers with a window.
pub(super) fn ropes(
    keys: &mut Keys,
    shape: &Shape,
    theta: f64,
    two: bool,
) -> Result<(Rope, Option<Rope>)> {
    let outside = Outside {
        theta: keys.or("rope_theta", theta)?,
        partial: keys.take("partial_rotary_factor")?,
        // Phi-3's own default stands outside, where it precedes the one inside
        original: keys
            .count("original_max_position_embeddings")?
            .or(shape.phi.then_some(4096)),
    };
    let local = Outside {
        theta: match two {
            true => keys.or("rope_local_base_freq", LOCAL)?,
            false => LOCAL,
        },
        ..outside
    };
    // the old name replaces the new one, unless it says nothing
    let (old, new) = (
        keys.object("rope_scaling")?,
        keys.object("rope_parameters")?,
    );
    let Some(mut given) = old.filter(|old| !old.is_empty()).or(new) else {
        let full = plain(keys, shape, outside)?;
        let sliding = two.then(|| plain(keys, shape, local)).transpose()?;
        return Ok((full, sliding));
    };
    if two && (given.has("full_attention") || given.has("sliding_attention")) {
        let mut one = |key, outside| match given.object(key)? {
            Some(inner) => scaled(inner, shape, outside),
            None => plain(keys, shape, outside),
        };
        let full = one("full_attention", outside)?;
        let sliding = one("sliding_attention", local)?;
        given.none_left()?;
        return Ok((full, Some(sliding)));
    }
    // in the old form the scaling is that of the layers without a window
    let full = scaled(given, shape, outside)?;
    let sliding = two.then(|| plain(keys, shape, local)).transpose()?;
    Ok((full, sliding))
}

/// Without scaling.
fn plain(keys: &Keys, shape: &Shape, outside: Outside) -> Result<Rope> {
    let partial = outside.partial.filter(|_| shape.phi);
    let rotary = rotary(keys, shape, partial)?;
    base(keys, outside.theta)?;
    Ok(Rope::new(rotary, outside.theta, &Scaling::Default))
}

fn base(keys: &Keys, theta: f64) -> Result<()> {
    match theta.is_finite() && theta > 1.0 {
        true => Ok(()),
        false => Err(keys.refused("rope_theta", theta, "it must be finite and above 1")),
    }
}

/// How many coordinates of a head turn.
fn rotary(keys: &Keys, shape: &Shape, partial: Option<f64>) -> Result<usize> {
    let Some(partial) = partial else {
        return Ok(shape.head_dim);
    };
    let rotary = (shape.head_dim as f64 * partial) as usize;
    match partial > 0.0 && partial <= 1.0 && rotary >= 2 && rotary.is_multiple_of(2) {
        true => Ok(rotary),
        false => {
            let why = format!(
                "an even number of the {} coordinates of a head must turn",
                shape.head_dim
            );
            Err(keys.refused("partial_rotary_factor", partial, &why))
        }
    }
}

/// From the object that names a kind.
fn scaled(mut keys: Keys, shape: &Shape, outside: Outside) -> Result<Rope> {
    let old: Option<String> = keys.take("type")?;
    let kind = keys
        .take("rope_type")?
        .or(old)
        .unwrap_or("default".to_string());
    let theta = keys.or("rope_theta", outside.theta)?;
    base(&keys, theta)?;
    let partial = keys.take("partial_rotary_factor")?.or(outside.partial);
    let kind = match kind.as_str() {
        "su" | "yarn" if shape.phi => "longrope",
        other => other,
    };
    let partial = partial.filter(|_| shape.phi || kind != "default");
    let rotary = rotary(&keys, shape, partial)?;
    let inner: Option<usize> = keys.count("original_max_position_embeddings")?;
    let original = outside
        .original
        .or(inner)
        .unwrap_or(shape.max_position_embeddings);
    let stretch = shape.max_position_embeddings as f64 / original as f64;
    let at_least_one = |keys: &Keys, key: &str, value: f64| match value.is_finite() && value >= 1.0
    {
        true => Ok(value),
        false => Err(keys.refused(key, value, "it must be finite and at least 1")),
    };
    let scaling = match kind {
        "default" => {
            keys.ignore(&["factor"]);
            Scaling::Default
        }
        "linear" => {
            let factor = keys.needed("factor")?;
            let factor = at_least_one(&keys, "factor", factor)?;
            Scaling::Linear { factor }
        }
        "dynamic" => {
            let factor = keys.needed("factor")?;
            at_least_one(&keys, "factor", factor)?;
            let length = shape.max_position_embeddings;
            Scaling::Dynamic { length }
        }
        "llama3" => {
            let factor = keys.needed("factor")?;
            let factor = at_least_one(&keys, "factor", factor)?;
            let low: f64 = keys.needed("low_freq_factor")?;
            let high: f64 = keys.needed("high_freq_factor")?;
            if !(low > 0.0 && high > low && high.is_finite()) {
                let why = format!("it must be above `low_freq_factor` = {low}, and both above 0");
                return Err(keys.refused("high_freq_factor", high, &why));
            }
            Scaling::Llama3 {
                factor,
                low,
                high,
                original: original as f64,
            }
        }
        "yarn" => {
            let factor = keys.or("factor", stretch)?;
            let factor = at_least_one(&keys, "factor", factor)?;
            let attention: Option<f64> = keys.take("attention_factor")?;
            let mscale: Option<f64> = keys.take("mscale")?;
            let all: Option<f64> = keys.take("mscale_all_dim")?;
            let grown = |mscale: f64| match factor <= 1.0 {
                true => 1.0,
                false => 0.1 * mscale * factor.ln() + 1.0,
            };
            let scale = match (attention, mscale, all) {
                (Some(scale), _, _) => scale,
                (None, Some(mscale), Some(all)) if mscale != 0.0 && all != 0.0 => {
                    grown(mscale) / grown(all)
                }
                _ => grown(1.0),
            };
            Scaling::Yarn {
                factor,
                fast: keys.positive("beta_fast")?.unwrap_or(32.0),
                slow: keys.positive("beta_slow")?.unwrap_or(1.0),
                original: original as f64,
                truncate: keys.or("truncate", true)?,
                scale,
            }
        }
        "longrope" => {
            let factor = keys.or("factor", stretch)?;
            let grown = (1.0 + factor.ln() / (original as f64).ln()).sqrt();
            let grown = if factor <= 1.0 { 1.0 } else { grown };
            let scale = keys.or("attention_factor", grown)?;
            let factors: Vec<f64> = keys.needed("short_factor")?;
            keys.ignore(&["long_factor"]);
            if factors.len() != rotary / 2 {
                let why = format!("it must hold {} numbers", rotary / 2);
                return Err(keys.refused(
                    "short_factor",
                    format!("{} numbers", factors.len()),
                    &why,
                ));
            }
            Scaling::Long {
                factors,
                scale,
                original,
            }
        }
        other => {
            let why = "the kinds are default, linear, dynamic, llama3, yarn and longrope";
            return Err(keys.refused("rope_type", other, why));
        }
    };
    let rope = Rope::new(rotary, theta, &scaling);
    if !rope
        .inv_freq
        .iter()
        .chain([&rope.scale])
        .all(|number| number.is_finite())
    {
        return Err(keys.refused(
            "rope_type",
            kind,
            "with these numbers the angles are not finite",
        ));
    }
    keys.none_left()?;
    Ok(rope)
}
