//! The regular expressions of a configuration: compiled within one budget, read as Python reads them.
//!
//! A configuration may come from anywhere, so neither its expressions nor their matches may cost more
//! than a model's own names would. Names without operators, which is what PEFT writes, are compared
//! and cost nothing.

use crate::error::cut;
use crate::{Error, Result};
use fancy_regex::{CompileError, Error as Refused, Expr, ParseError, Regex, RegexBuilder};

/// What all expressions of one configuration may weigh together: some tens of megabytes compiled.
/// One of a `target_modules` weighs some hundreds; as much as its length, if it is a list of names.
const BUDGET: usize = 1 << 17;
/// Characters of a count that are read: two numbers, of any size, and a comma.
const COUNT_LENGTH: usize = 64;
/// The most that the counts `{n}` of an expression may come to, multiplied.
const COUNTS: usize = 1000;
/// Bytes that a part of an expression may grow to when it is compiled.
const COMPILED: usize = 4 << 20;
/// Steps back that one match may take.
const STEPS: usize = 20_000;

/// Weights, in characters: of a part that an engine of its own runs, of an expression that may step
/// back, of the classes of Unicode, and of a dot or brackets.
const ENGINE: usize = 100;
const BACKTRACKING: usize = 1000;
const WORD: usize = 600;
const DIGIT: usize = 150;
const SPACE: usize = 50;
const ANY: usize = 10;

/// Compiles the expressions of one configuration.
pub(crate) struct Expressions {
    function: &'static str,
    left: usize,
}

/// One expression, compiled.
pub(crate) struct Expression {
    function: &'static str,
    field: &'static str,
    /// As the user wrote it, cut to a length for a message.
    written: String,
    form: Form,
}

enum Form {
    /// Characters and dots alone, and where they must stand.
    Plain(Vec<Atom>, Place),
    Regex(Regex),
}

#[derive(Clone, Copy, PartialEq)]
enum Atom {
    One(char),
    /// `.`
    Any,
}

#[derive(Clone, Copy)]
enum Place {
    Whole,
    /// The whole, or behind a dot.
    End,
    /// Whole segments anywhere.
    Segments,
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

    /// For segments anywhere, put together as in PEFT, without brackets around what the user wrote.
    pub(crate) fn segments(&mut self, field: &'static str, pattern: &str) -> Result<Expression> {
        self.compiled(field, pattern, Place::Segments, |pattern| {
            format!(r"\A(?:(^|.*\.){pattern}($|\..*))")
        })
    }

    /// For what the layers are numbered under; [`Expression::layer`] reads the number.
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
            // `a)(b` is none, though it is one between brackets
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
            written: cut(written),
            form,
        }
    }

    /// Takes the weight of an expression from the budget, before anything is made of it.
    fn weigh(&mut self, field: &'static str, written: &str) -> Result<()> {
        let weight = weight(written).map_err(|problem| self.problem(field, written, &problem))?;
        let Some(left) = self.left.checked_sub(weight) else {
            let text = format!(
                "holds `{}`, which weighs {weight} where {} of {BUDGET} are left for the \
                 expressions of one configuration: write names without operators, or smaller counts",
                cut(written),
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
            // positions are those of the expression that was put together
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
        let (written, reason) = (cut(written), cut(reason));
        let text = format!("holds `{written}`, which is not an expression here: {reason}");
        Error::argument(self.function, field, text)
    }
}

/// What the engine says of all that it stops before.
const REST: &str = "end of string not reached";
/// The group of a layer's number.
const LAYER: &str = "layer";

/// The innermost cause, without the expression that is printed above it.
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

    /// Whether [`Expressions::layers`] is found, and the number if it is one.
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
            cut(path)
        );
        Error::argument(self.function, self.field, text)
    }
}

/// The atoms of an expression of characters and dots, and where they must stand: one at whose start
/// is `^` is the whole path. `None` for any other expression.
fn plain(written: &str, place: Place) -> Option<(Vec<Atom>, Place)> {
    let (rest, place) = match (written.strip_prefix('^'), place) {
        (None, place) => (written, place),
        (Some(rest), Place::Whole | Place::End) => (rest, Place::Whole),
        (Some(_), Place::Segments) => return None,
    };
    let mut atoms = Vec::new();
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        atoms.push(match character {
            '.' => Atom::Any,
            '\\' => match characters.next()? {
                escaped @ ('.' | '-' | '_' | '/' | ':') => Atom::One(escaped),
                _ => return None,
            },
            '^' | '$' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' => return None,
            other => Atom::One(other),
        });
    }
    Some((atoms, place))
}

fn found(atoms: &[Atom], place: Place, path: &str) -> bool {
    let fits = |part: &str| {
        let mut characters = part.chars();
        let mut fits = atoms.iter().all(|atom| match (atom, characters.next()) {
            (Atom::One(one), Some(found)) => *one == found,
            (Atom::Any, Some(found)) => found != '\n',
            (_, None) => false,
        });
        fits &= characters.next().is_none();
        fits
    };
    let starts = || {
        [0].into_iter()
            .chain(path.match_indices('.').map(|(at, _)| at + 1))
    };
    // what stands before and behind is `.*`, without line breaks
    match place {
        Place::Whole => fits(path),
        Place::End => starts().any(|at| fits(&path[at..]) && !path[..at].contains('\n')),
        Place::Segments => {
            let ends = || {
                path.match_indices('.')
                    .map(|(at, _)| at)
                    .chain([path.len()])
            };
            starts().any(|from| {
                ends().any(|to| from <= to && fits(&path[from..to]) && !path[..from].contains('\n'))
            })
        }
    }
}

/// What an expression weighs: its characters, more for what the engine makes much of, times its
/// counts. An error for what Python reads otherwise, or not at all.
fn weight(written: &str) -> Result<usize, String> {
    let mut scan = Scan::default();
    let mut characters = written.chars().peekable();
    let mut before = ' ';
    while let Some(character) = characters.next() {
        match character {
            '\\' => scan.escape(characters.next(), characters.peek().copied())?,
            '[' => {
                scan.parts += 1;
                scan.weight += ANY;
                scan.class(&mut characters)?;
            }
            '.' => {
                scan.weight += ANY;
            }
            '(' => {
                scan.weight += 1;
                scan.parts += 1;
                let rest: String = characters.clone().take(3).collect();
                let special = ["?=", "?!", "?<", "?>", "?(", "?P="];
                scan.hard |= special.iter().any(|start| rest.starts_with(start));
                let mut flags = characters.clone().skip(1);
                scan.any_case |= rest.starts_with('?')
                    && flags
                        .by_ref()
                        .take_while(|flag| flag.is_ascii_alphabetic() || *flag == '-')
                        .any(|flag| flag == 'i');
            }
            '{' => {
                let inside = characters.clone().take(COUNT_LENGTH);
                scan.count(&inside.take_while(|c| *c != '}').collect::<String>());
            }
            '+' if matches!(before, '*' | '+' | '?' | '}') => scan.hard = true,
            _ => {
                scan.weight += 1;
                scan.letters += 1;
            }
        }
        before = character;
    }
    scan.total()
}

#[derive(Default)]
struct Scan {
    weight: usize,
    letters: usize,
    /// What runs on an engine of its own, if the whole does not run on one.
    parts: usize,
    /// The counts, multiplied.
    counts: Option<usize>,
    hard: bool,
    any_case: bool,
}

impl Scan {
    fn total(&self) -> Result<usize, String> {
        let counts = self.counts.unwrap_or(1);
        if counts > COUNTS {
            return Err(format!("its counts come to more than {COUNTS}, multiplied"));
        }
        let mut extra = ENGINE;
        if self.hard {
            extra += BACKTRACKING + self.parts * ENGINE;
            if self.any_case {
                extra += self.letters * ENGINE;
            }
        }
        let weight = self.weight.saturating_mul(counts);
        Ok(weight.saturating_add(extra))
    }

    fn escape(&mut self, escaped: Option<char>, next: Option<char>) -> Result<(), String> {
        let weight = match escaped {
            Some('w' | 'W') => WORD,
            Some('d' | 'D') => DIGIT,
            Some('s' | 'S') => SPACE,
            Some('0') => return Err("octal escapes are not supported".to_string()),
            Some('1'..='9') => {
                self.hard = true;
                1
            }
            Some('b' | 'B') if next == Some('{') => {
                return Err(r"write `\b(?:\{)` for a brace behind a boundary".to_string());
            }
            Some(
                'A' | 'B' | 'Z' | 'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | 'x' | 'u' | 'U' | 'z',
            ) => 1,
            // with another meaning there
            Some(other) if other.is_ascii_alphabetic() || matches!(other, '<' | '>') => {
                return Err(format!(r"`\{other}` is no escape of Python's"));
            }
            Some(_) => 1,
            None => return Err("a backslash ends it".to_string()),
        };
        self.weight += weight;
        self.parts += usize::from(weight > 1);
        Ok(())
    }

    /// What stands in brackets.
    fn class(
        &mut self,
        characters: &mut std::iter::Peekable<std::str::Chars>,
    ) -> Result<(), String> {
        if characters.peek() == Some(&'^') {
            characters.next();
        }
        let mut before = ' ';
        let mut first = true;
        while let Some(character) = characters.next() {
            match character {
                ']' if !first => return Ok(()),
                '\\' => {
                    let escaped = characters.next();
                    self.escape(escaped, None)?;
                    before = ' ';
                    first = false;
                    continue;
                }
                // operations on sets there, and themselves in Python
                '[' => return Err(r"write `\[` for a bracket in brackets".to_string()),
                '&' | '-' | '~' if before == character => {
                    return Err(format!(r"write `\{character}` in brackets, not twice"));
                }
                _ => self.weight += 1,
            }
            (before, first) = (character, false);
        }
        Err("a bracket is not closed".to_string())
    }

    /// `{n}`, `{n,}`, `{,m}` or `{n,m}`; anything else is itself.
    fn count(&mut self, inside: &str) {
        self.weight += 1;
        let (low, high) = inside.split_once(',').unwrap_or((inside, ""));
        let number = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true if digits.is_empty() => Some(0),
            true => Some(digits.parse::<usize>().unwrap_or(usize::MAX)),
            false => None,
        };
        if let (Some(low), Some(high)) = (number(low), number(high)) {
            let most = low.max(high).max(1);
            self.counts = Some(self.counts.unwrap_or(1).saturating_mul(most));
        }
    }
}
