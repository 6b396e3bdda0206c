//! What the constructors check, and how tokens and a mask become the targets of the rows.

use super::kernel::IGNORE;
use crate::error::{Error, Result};
use crate::known::readable;
use crate::math::to_host;
use crate::shape::Axes;
use candle_core::{DType, Tensor};

/// What a mask belongs to: all tokens of a row, or the predicted ones, which are one fewer.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Ahead {
    Tokens,
    Predicted,
}

/// A mask `[batch, time]` for the positions of `of`. If the mask fits the other case of [`Ahead`], the error
/// says so.
pub(super) fn mask_of(axes: &mut Axes, mask: &Tensor, of: &Tensor, ahead: Ahead) -> Result<Tensor> {
    let wrong = axes.mask("mask", mask, &["batch", "time"]);
    let (&[rows, columns], &[batch, time]) = (mask.dims(), of.dims()) else {
        return wrong;
    };
    let hint = match ahead {
        _ if rows != batch => return wrong,
        Ahead::Tokens if columns + 1 == time => {
            "one for each token, the first included: this mask is shifted already"
        }
        Ahead::Predicted if columns == time + 1 => {
            "one for each predicted token: this mask holds the first one too, so leave its first \
             column out, by `mask.narrow(1, 1, time)`"
        }
        _ => return wrong,
    };
    wrong.map_err(|error| match error {
        Error::Shape {
            function,
            argument,
            shape,
            expected,
        } => Error::Shape {
            function,
            argument,
            shape,
            expected: format!("{expected}; {hint}"),
        },
        other => other,
    })
}

/// Tokens and mask without the first position, which nothing predicts.
pub(super) fn after_the_first(
    function: &'static str,
    tokens: &Tensor,
    mask: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let time = tokens.dim(1)?;
    if time < 2 {
        return Err(Error::argument(
            function,
            "tokens",
            format!("has {time} position(s); the first predicts the second, so two are needed"),
        ));
    }
    let rest = |x: &Tensor| readable(&x.narrow(1, 1, time - 1)?);
    Ok((rest(tokens)?, rest(mask)?))
}

pub(super) fn logits_type(function: &'static str, argument: &str, found: DType) -> Error {
    Error::DType {
        function,
        argument: argument.to_string(),
        found: found.as_str(),
        expected: "f32, f64, bf16 or f16".to_string(),
    }
}

pub(super) fn not_empty(function: &'static str, logits: &Tensor) -> Result<()> {
    match logits.dim(2)? {
        0 => Err(Error::argument(function, "logits", "has a vocabulary of 0")),
        _ => Ok(()),
    }
}

/// One target per position of `mask`, followed in each row by `unpredicted` positions that predict
/// nothing. An error if a token that counts is outside the vocabulary.
pub(super) fn row_targets(
    function: &'static str,
    argument: &str,
    tokens: &Tensor,
    mask: &Tensor,
    unpredicted: usize,
    vocabulary: usize,
) -> Result<Vec<u32>> {
    let time = tokens.dim(1)?.max(1);
    let tokens = to_host::<i64>(&tokens.to_dtype(DType::I64)?)?;
    let mask = to_host::<u8>(mask)?;
    let mut targets = Vec::new();
    for (row, (tokens, mask)) in tokens.chunks(time).zip(mask.chunks(time)).enumerate() {
        for (&token, &counts) in tokens.iter().zip(mask) {
            if counts == 0 {
                targets.push(IGNORE);
                continue;
            }
            // Checked here, because candle reads some indices out of range as "ignore" without an error.
            match u32::try_from(token) {
                Ok(target) if (target as usize) < vocabulary => targets.push(target),
                _ => {
                    return Err(Error::argument(
                        function,
                        argument,
                        format!(
                            "holds {token} in row {row}, outside the vocabulary of {vocabulary}"
                        ),
                    ));
                }
            }
        }
        targets.extend(std::iter::repeat_n(IGNORE, unpredicted));
    }
    Ok(targets)
}
