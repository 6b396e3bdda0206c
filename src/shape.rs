//! Named axes, checked once at the start of every public function.
//!
//! The first argument that has an axis fixes its size. A later argument that disagrees is an error that
//! names both. Each check returns the tensor in a layout that candle can read. Use the returned tensor, so
//! that an empty view does not panic.

use crate::error::{Error, Result, require};
use crate::known::readable;
use candle_core::{DType, Tensor};

/// The axes and the element type that a call has fixed so far.
pub(crate) struct Axes {
    function: &'static str,
    sizes: Vec<(&'static str, usize, String)>,
    float: Option<(DType, String)>,
}

impl Axes {
    /// Starts the checks of one call of `function`.
    pub(crate) fn new(function: &'static str) -> Self {
        Self {
            function,
            sizes: Vec::new(),
            float: None,
        }
    }

    /// Requires an f32 or f64 tensor with these axes. All floats of a call must have the same type.
    pub(crate) fn float(
        &mut self,
        argument: &str,
        tensor: &Tensor,
        axes: &[&'static str],
    ) -> Result<Tensor> {
        let found = tensor.dtype();
        let expected = match &self.float {
            Some((dtype, from)) if found != *dtype => {
                Some(format!("{} (from `{from}`)", dtype.as_str()))
            }
            None if !matches!(found, DType::F32 | DType::F64) => Some("f32 or f64".to_string()),
            _ => None,
        };
        if let Some(expected) = expected {
            return Err(self.dtype_error(argument, found, expected));
        }
        self.float
            .get_or_insert_with(|| (found, argument.to_string()));
        self.axes(argument, tensor, axes)
    }

    /// Requires a u8 tensor with these axes. A 0 leaves a position out, and any other value counts it.
    pub(crate) fn mask(
        &mut self,
        argument: &str,
        tensor: &Tensor,
        axes: &[&'static str],
    ) -> Result<Tensor> {
        if tensor.dtype() != DType::U8 {
            return Err(self.dtype_error(argument, tensor.dtype(), "u8".to_string()));
        }
        self.axes(argument, tensor, axes)
    }

    /// Requires a u32 or i64 tensor with these axes.
    pub(crate) fn index(
        &mut self,
        argument: &str,
        tensor: &Tensor,
        axes: &[&'static str],
    ) -> Result<Tensor> {
        if !matches!(tensor.dtype(), DType::U32 | DType::I64) {
            return Err(self.dtype_error(argument, tensor.dtype(), "u32 or i64".to_string()));
        }
        self.axes(argument, tensor, axes)
    }

    /// Requires these axes, whatever the element type.
    pub(crate) fn axes(
        &mut self,
        argument: &str,
        tensor: &Tensor,
        axes: &[&'static str],
    ) -> Result<Tensor> {
        let shape = tensor.dims();
        let agrees = shape.len() == axes.len()
            && axes
                .iter()
                .zip(shape)
                .all(|(axis, size)| self.bound(axis).is_none_or(|(bound, _)| bound == *size));
        if !agrees {
            let expected = axes
                .iter()
                .map(|axis| match self.bound(axis) {
                    Some((size, from)) => format!("{axis}={size} (from `{from}`)"),
                    None => axis.to_string(),
                })
                .collect::<Vec<_>>()
                .join(", ");
            return Err(Error::Shape {
                function: self.function,
                argument: argument.to_string(),
                shape: shape.to_vec(),
                expected,
            });
        }
        for (axis, size) in axes.iter().zip(shape) {
            if self.bound(axis).is_none() {
                self.sizes.push((axis, *size, argument.to_string()));
            }
        }
        readable(tensor)
    }

    /// The function that was called.
    pub(crate) fn function(&self) -> &'static str {
        self.function
    }

    fn bound(&self, axis: &str) -> Option<(usize, &str)> {
        self.sizes
            .iter()
            .find(|(name, _, _)| *name == axis)
            .map(|(_, size, from)| (*size, from.as_str()))
    }

    fn dtype_error(&self, argument: &str, found: DType, expected: String) -> Error {
        Error::dtype(self.function, argument, found, expected)
    }
}

/// The longest axis that a setting may ask for: four times the largest vocabulary of a known model, and a
/// hundred times its longest other axis.
pub(crate) const LONGEST: usize = 1 << 20;

/// The most elements of a tensor whose size is given by settings: 8 GiB in f32, several times the largest
/// factor of a known model at full rank.
const MOST: usize = 1 << 31;

/// Requires a size that a setting may ask for: 1 to [`LONGEST`].
pub(crate) fn size(function: &'static str, field: &'static str, value: usize) -> Result<()> {
    require(value >= 1, function, field, ">= 1", value)?;
    at_most(function, field, value)
}

/// As [`size`], but 0 is allowed.
pub(crate) fn at_most(function: &'static str, field: &'static str, value: usize) -> Result<()> {
    require(value <= LONGEST, function, field, "at most 1048576", value)
}

/// Requires a count of numbers that one tensor could hold.
pub(crate) fn count(function: &'static str, field: &'static str, value: usize) -> Result<()> {
    require(value <= MOST, function, field, "at most 2147483648", value)
}

/// Requires that a tensor of these axes may be created. Call this before creating it, with the setting that
/// is most likely the cause.
pub(crate) fn made(function: &'static str, field: &'static str, axes: &[usize]) -> Result<()> {
    let mut sizes = axes.iter();
    let count = sizes.try_fold(1usize, |n, size| n.checked_mul(*size));
    require(
        count.is_some_and(|count| count <= MOST),
        function,
        field,
        "small enough that no tensor has more than 2147483648 elements",
        format!("one of {axes:?}"),
    )
}

/// Requires a type in which variables are trained.
pub(crate) fn trained_type(function: &'static str, dtype: DType) -> Result<()> {
    match dtype {
        DType::F32 | DType::F64 => Ok(()),
        other => Err(Error::dtype(function, "dtype", other, "f32 or f64")),
    }
}

/// Requires the type that another argument, `from`, has fixed.
pub(crate) fn same_type(
    function: &'static str,
    argument: &str,
    x: &Tensor,
    (dtype, from): (DType, &str),
) -> Result<()> {
    if x.dtype() == dtype {
        return Ok(());
    }
    let expected = format!("{} (from {from})", dtype.as_str());
    Err(Error::dtype(function, argument, x.dtype(), expected))
}

/// Requires x in the type of the variables that it meets or, where that is f32, in a half type.
pub(crate) fn fits_trained(
    function: &'static str,
    argument: &str,
    x: &Tensor,
    (trained, from): (DType, &str),
) -> Result<()> {
    let found = x.dtype();
    let half = matches!(found, DType::BF16 | DType::F16);
    if found == trained || (half && trained == DType::F32) {
        return Ok(());
    }
    let expected = match trained {
        DType::F32 => format!("f32, bf16 or f16 (from {from})"),
        other => format!("{} (from {from})", other.as_str()),
    };
    Err(Error::dtype(function, argument, found, expected))
}

/// Requires this size of the last axis, whatever stands before it.
pub(crate) fn last_axis(
    function: &'static str,
    argument: &str,
    x: &Tensor,
    (axis, size): (&str, usize),
    from: &str,
) -> Result<()> {
    match x.dims().last() == Some(&size) {
        true => Ok(()),
        false => Err(Error::Shape {
            function,
            argument: argument.to_string(),
            shape: x.dims().to_vec(),
            expected: format!(".., {axis}={size} (from {from})"),
        }),
    }
}
