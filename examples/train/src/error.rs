//! The errors of a run, each with the place where it happened.

use std::path::Path;

/// The result of everything in this example.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A row of a file that cannot be read as what it claims to be.
    #[error("{file}:{line}: {problem}")]
    Row {
        /// The file, as the user named it.
        file: String,
        /// Its line, counted from 1.
        line: usize,
        /// The field in backticks, and what is wrong with it.
        problem: String,
    },
    /// A file or folder that cannot be opened, read or written.
    #[error("{path}: {problem}")]
    File {
        /// The path, as the user named it.
        path: String,
        /// What could not be done, and why.
        problem: String,
    },
    /// Settings that make no sense, or do not fit the data.
    #[error("{0}")]
    Usage(String),
    /// The library's own error.
    #[error(transparent)]
    Align(#[from] candle_align::Error),
    /// Candle's error.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    pub fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File {
            path: path.display().to_string(),
            problem: cut(&problem.into(), LONGEST),
        }
    }

    /// `serde_json`'s message about a file's text, with the setting that it is about.
    pub fn json(path: &Path, text: &str, error: &serde_json::Error) -> Self {
        let mut problem = cut(&error.to_string(), LONGEST);
        let at = open_at(text, error.line(), error.column());
        if !at.is_empty() {
            problem.push_str(&format!(", in `{}`", cut(&at, 80)));
        }
        Self::file(path, problem)
    }
}

/// The most characters of a problem, whatever a file holds.
const LONGEST: usize = 1_000;

/// A text for a message: complete up to `most` characters, else its two ends and the number of
/// characters between them.
pub fn cut(text: &str, most: usize) -> String {
    let all: Vec<char> = text.chars().collect();
    if all.len() <= most {
        return text.to_string();
    }
    let (first, last) = (most / 2, most / 4);
    let part = |chars: &[char]| chars.iter().collect::<String>();
    let between = all.len() - first - last;
    let (head, tail) = (part(&all[..first]), part(&all[all.len() - last..]));
    format!("{head} … {between} characters … {tail}")
}

/// The keys between the root of a JSON text and this place in it, as `method.lora.rank`.
fn open_at(text: &str, line: usize, column: usize) -> String {
    let before: usize = text
        .split_inclusive('\n')
        .take(line - line.min(1))
        .map(str::len)
        .sum();
    let end = (before + column).min(text.len());
    // one entry for every open bracket: of an object, its last key
    let mut open: Vec<Option<String>> = Vec::new();
    let mut bytes = text.bytes().enumerate().take(end);
    let mut word = None;
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'{' | b'[' => open.push(None),
            b'}' | b']' => {
                open.pop();
            }
            b',' => {
                if let Some(last) = open.last_mut() {
                    *last = None;
                }
            }
            b':' => {
                if let Some(last) = open.last_mut() {
                    *last = word.take();
                }
            }
            b'"' => {
                while let Some((to, byte)) = bytes.next() {
                    match byte {
                        b'\\' => {
                            bytes.next();
                        }
                        b'"' => {
                            word = text.get(at + 1..to).map(str::to_string);
                            break;
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let keys: Vec<String> = open.into_iter().flatten().collect();
    keys.join(".")
}
