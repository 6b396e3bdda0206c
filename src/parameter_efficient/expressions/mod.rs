//! The regular expressions of a configuration: compiled within one budget, read as Python reads them.
//!
//! A configuration may come from anywhere, so its expressions and their matches may cost no more than a
//! model's own names would. Names without operators, which is what PEFT writes, are compared and cost
//! nothing.

mod plain;
mod weight;

use crate::error::{Error, Result, cut, shown};
use fancy_regex::{CompileError, Error as Refused, Expr, ParseError, Regex, RegexBuilder};
use plain::{Atom, Place, found, plain};
use weight::weight;

/// The most that all expressions of one configuration may weigh together: some tens of megabytes
/// compiled. One in `target_modules` weighs a few hundred, or its length if it is a list of names.
const BUDGET: usize = 1 << 17;
/// The most bytes that a part of an expression may take when it is compiled.
const COMPILED: usize = 4 << 20;
/// The most backtracking steps that one match may take.
const STEPS: usize = 20_000;

/// Compiles the expressions of one configuration.
pub(crate) struct Expressions {
    function: &'static str,
    left: usize,
}

/// One expression, compiled.
pub(crate) struct Expression {
    function: &'static str,
    field: &'static str,
    /// As the user wrote it, shortened for a message.
    written: String,
    form: Form,
}

enum Form {
    /// Only characters and dots, and where they must match.
    Plain(Vec<Atom>, Place),
    Regex(Regex),
}

impl Expressions {
    pub(crate) fn new(function: &'static str) -> Self {
        Self {
            function,
            left: BUDGET,
        }
    }

    pub(crate) fn function(&self) -> &'static str {
        self.function
    }

    /// For a whole path: Python's `re.fullmatch`.
    pub(crate) fn whole(&mut self, field: &'static str, pattern: &str) -> Result<Expression> {
        self.compiled(field, pattern, Place::Whole, |pattern| {
            format!(r"\A(?:{pattern})\z")
        })
    }

    /// For the last segments of a path: PEFT's keys.
    pub(crate) fn end(&mut self, field: &'static str, key: &str) -> Result<Expression> {
        self.compiled(field, key, Place::End, |key| {
            format!(r"\A(?:(.*\.)?({key})$)")
        })
    }

    /// For segments anywhere, combined as in PEFT, without brackets around what the user wrote.
    pub(crate) fn segments(&mut self, field: &'static str, pattern: &str) -> Result<Expression> {
        self.compiled(field, pattern, Place::Segments, |pattern| {
            format!(r"\A(?:(^|.*\.){pattern}($|\..*))")
        })
    }

    /// For the name before the layer numbers; [`Expression::layer`] reads the number.
    pub(crate) fn layers(&mut self, field: &'static str, pattern: &str) -> Result<Expression> {
        let whole = format!(r"\A(?:(?:^|.*?\.){pattern}\.(?P<{LAYER}>\d+)\.)");
        self.weigh(field, pattern)?;
        let regex = self.built(field, pattern, &whole)?;
        Ok(self.expression(field, pattern, Form::Regex(regex)))
    }

    fn compiled(
        &mut self,
        field: &'static str,
        written: &str,
        place: Place,
        put_together: impl Fn(&str) -> String,
    ) -> Result<Expression> {
        if let Some((atoms, place)) = plain(written, place) {
            return Ok(self.expression(field, written, Form::Plain(atoms, place)));
        }
        self.weigh(field, written)?;
        if let Place::Whole = place {
            // `a)(b` is not an expression, though it would be one between brackets
            let parsed = Expr::parse_tree(written);
            parsed.map_err(|error| self.refused(field, written, &error))?;
        }
        let regex = self.built(field, written, &put_together(written))?;
        Ok(self.expression(field, written, Form::Regex(regex)))
    }

    fn expression(&self, field: &'static str, written: &str, form: Form) -> Expression {
        Expression {
            function: self.function,
            field,
            written: shown(written).into_owned(),
            form,
        }
    }

    /// Subtracts the weight of an expression from the budget, before it is compiled.
    fn weigh(&mut self, field: &'static str, written: &str) -> Result<()> {
        let weight = weight(written).map_err(|problem| self.problem(field, written, &problem))?;
        let Some(left) = self.left.checked_sub(weight) else {
            let text = format!(
                "holds `{}`, which weighs {weight} where {} of {BUDGET} are left for the \
                 expressions of one configuration: write names without operators, or smaller counts",
                shown(written),
                self.left
            );
            return Err(Error::argument(self.function, field, text));
        };
        self.left = left;
        Ok(())
    }

    fn built(&self, field: &'static str, written: &str, whole: &str) -> Result<Regex> {
        let mut builder = RegexBuilder::new(whole);
        builder.backtrack_limit(STEPS);
        builder.delegate_size_limit(COMPILED);
        let built = builder.build();
        built.map_err(|error| self.refused(field, written, &error))
    }

    fn refused(&self, field: &'static str, written: &str, error: &Refused) -> Error {
        let reason = match error {
            // positions are those of the combined expression
            Refused::ParseError(_, ParseError::GeneralParseError(text)) if text == REST => {
                "a parenthesis was not opened".to_string()
            }
            Refused::ParseError(_, error) => error.to_string(),
            Refused::CompileError(error) => match &**error {
                CompileError::InnerError(error) => match error.size_limit() {
                    Some(limit) => format!("it grows over {limit} bytes when it is compiled"),
                    None => last_line(error),
                },
                error => error.to_string(),
            },
            error => error.to_string(),
        };
        self.problem(field, written, &reason)
    }

    fn problem(&self, field: &'static str, written: &str, reason: &str) -> Error {
        let (written, reason) = (shown(written), cut(reason, 200));
        let text = format!("holds `{written}`, which is not an expression here: {reason}");
        Error::argument(self.function, field, text)
    }
}

/// The engine's message whenever it stops before the end.
const REST: &str = "end of string not reached";
/// The group of a layer's number.
const LAYER: &str = "layer";

/// The innermost cause, without the expression that the engine prints above it.
fn last_line(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    let reason = text.lines().last().unwrap_or_default();
    reason.trim_start_matches("error: ").to_string()
}

impl Expression {
    pub(crate) fn is_match(&self, path: &str) -> Result<bool> {
        match &self.form {
            Form::Plain(atoms, place) => Ok(found(atoms, *place, path)),
            Form::Regex(regex) => {
                let found = regex.is_match(path);
                found.map_err(|_| self.too_slow(path))
            }
        }
    }

    /// Whether an expression of [`Expressions::layers`] matches, and the number if it is one.
    pub(crate) fn layer(&self, path: &str) -> Result<Option<Option<usize>>> {
        let Form::Regex(regex) = &self.form else {
            return Ok(None);
        };
        let found = regex.captures(path);
        let found = found.map_err(|_| self.too_slow(path))?;
        let number = |found: fancy_regex::Captures| found.name(LAYER)?.as_str().parse().ok();
        Ok(found.map(number))
    }

    /// The only error of a match.
    fn too_slow(&self, path: &str) -> Error {
        let text = format!(
            "holds `{}`, which takes more than {STEPS} steps back on `{}`: write it with fewer ways \
             to match",
            self.written,
            shown(path)
        );
        Error::argument(self.function, self.field, text)
    }
}
