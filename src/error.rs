//! The crate's only error type, and the checks of settings that return it.
//!
//! A user's mistake is an [`Err`] that names the function and the argument. Nothing panics.

use candle_core::DType;
use std::borrow::Cow;

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor does not have the axes that the function's page names.
    #[error("{function}: `{argument}` has shape {shape:?}, expected [{expected}]")]
    Shape {
        /// The public function that was called.
        function: &'static str,
        /// The argument, as it is spelled in the function's signature.
        argument: String,
        /// The shape that was passed.
        shape: Vec<usize>,
        /// The axes that were expected, with the argument that fixed each size.
        expected: String,
    },
    /// A tensor has the wrong element type.
    #[error("{function}: `{argument}` is {found}, expected {expected}")]
    DType {
        /// The public function that was called.
        function: &'static str,
        /// The argument, as it is spelled in the function's signature.
        argument: String,
        /// The element type that was passed.
        found: &'static str,
        /// The element types that are accepted.
        expected: String,
    },
    /// A tensor's values, or two arguments together, make no sense.
    #[error("{function}: `{argument}` {problem}")]
    Argument {
        /// The public function that was called.
        function: &'static str,
        /// The argument, as it is spelled in the function's signature.
        argument: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A setting is out of its range.
    #[error("{function}: `{field}` must be {expected}, got {found}")]
    Parameter {
        /// The public function or type that reads the setting.
        function: &'static str,
        /// The setting.
        field: &'static str,
        /// Its range.
        expected: &'static str,
        /// Its value.
        found: String,
    },
    /// An error of candle itself: out of memory, tensors on two devices, an operation without a kernel.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    pub(crate) fn argument(
        function: &'static str,
        argument: impl Into<String>,
        problem: impl Into<String>,
    ) -> Self {
        Self::Argument {
            function,
            argument: argument.into(),
            problem: cut(&problem.into(), LONGEST).into_owned(),
        }
    }

    pub(crate) fn dtype(
        function: &'static str,
        argument: &str,
        found: DType,
        expected: impl Into<String>,
    ) -> Self {
        Self::DType {
            function,
            argument: argument.to_string(),
            found: found.as_str(),
            expected: expected.into(),
        }
    }
}

/// The most characters in one part of a message, whatever a user's file holds.
const LONGEST: usize = 1_000;

/// A text of any length, shortened for a message: whole up to `most` characters, otherwise its two ends
/// and the number of characters between them.
pub(crate) fn cut(text: &str, most: usize) -> Cow<'_, str> {
    // a text never has more characters than bytes
    let count = match text.len() <= most {
        true => return text.into(),
        false => text.chars().count(),
    };
    if count <= most {
        return text.into();
    }
    let (first, last) = (most / 2, most / 4);
    let at = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
    let (head, tail) = (&text[..at(first)], &text[at(count - last)..]);
    let between = count - first - last;
    format!("{head} … {between} characters … {tail}").into()
}

/// What a message shows of a name or a value that came from a user.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    cut(text, SHOWN)
}

const SHOWN: usize = 80;

/// `Ok` if `holds`, else the error that names the setting.
pub(crate) fn require(
    holds: bool,
    function: &'static str,
    field: &'static str,
    expected: &'static str,
    found: impl std::fmt::Display,
) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::Parameter {
        function,
        field,
        expected,
        found: cut(&found.to_string(), LONGEST).into_owned(),
    })
}

/// Requires a finite number above zero.
pub(crate) fn positive(function: &'static str, field: &'static str, value: f64) -> Result<()> {
    require(
        value.is_finite() && value > 0.0,
        function,
        field,
        "finite and > 0",
        value,
    )
}

/// Requires a finite number that is not negative.
pub(crate) fn non_negative(function: &'static str, field: &'static str, value: f64) -> Result<()> {
    require(
        value.is_finite() && value >= 0.0,
        function,
        field,
        "finite and >= 0",
        value,
    )
}

/// Lets a layer of this crate be part of a model whose functions return candle's own result. The message
/// is unchanged.
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Tensor(error) => error,
            other => candle_core::Error::Wrapped(Box::new(other)),
        }
    }
}
