//! What the library refuses of an objective's settings, before anything is written and by the name of the setting.
//!
//! The library's losses check their settings where they are called. So the loss of one row is computed before the
//! first step: no second list of limits can then differ from the library's.

use super::super::error::{Error, Result};
use super::objective::{Objective, Reference};
use super::settings::{Learned, Settings};
use candle_align::decoder::Decoder;

/// An error if the loss refuses a setting; other errors belong to the step that meets them.
pub fn refused(
    settings: &Settings,
    rows: &Objective,
    decoder: &Decoder,
    reference: &Reference,
) -> Result<()> {
    let loss = || -> Result<()> {
        let mut cheapest: Option<usize> = None;
        for row in 0..rows.len() {
            let less = |best: usize| rows.tokens(row) < rows.tokens(best);
            if rows.weight(row)? > 0.0 && cheapest.is_none_or(less) {
                cheapest = Some(row);
            }
        }
        let Some(row) = cheapest else {
            return Ok(());
        };
        let quiet = decoder.without_gradients();
        rows.loss(&quiet, reference, &[row], &[vec![row]], None)?;
        Ok(())
    };
    match loss() {
        Err(Error::Align(candle_align::Error::Parameter {
            function,
            field,
            expected,
            found,
        })) => {
            let name = name(settings.objective, function, field);
            Err(Error::Usage(format!(
                "`{name}` must be {expected}, got {found}"
            )))
        }
        _ => Ok(()),
    }
}

/// The name of a setting that a function reads as a field.
fn name(objective: Learned, function: &str, field: &str) -> String {
    let of = |place: &str| format!("{place}.{field}");
    match (function, objective) {
        ("sft_loss", _) => of("sft"),
        ("eaft_loss", _) => of("eaft"),
        ("ranked_reward_loss", _) => of("ranked_reward"),
        (_, Learned::CRlft) => of("c_rlft.loss.weighting.exponential"),
        (_, Learned::Gkd) if field == "direction.weight" => {
            "since.gkd.direction.jensen_shannon.weight".to_string()
        }
        _ if objective.is_since() => format!("since.{objective}.{field}"),
        _ => of(&objective.to_string()),
    }
}
