//! A file of rows.

use super::super::super::data::reader::Lines;
use super::super::super::error::{Error, Result};
use super::record::Record;
use super::{Prepared, Report, Settings};
use std::path::{Path, PathBuf};

/// Lines of a file and its name.
pub struct Source {
    lines: Lines,
    path: PathBuf,
}

impl Source {
    /// Opens a file of rows, plain or gzip'd.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            lines: Lines::open(path)?,
            path: path.to_path_buf(),
        })
    }

    /// Rows from a text; messages use `name` as the file.
    pub fn from_text(text: &str, name: &str) -> Result<Self> {
        let bytes = std::io::Cursor::new(text.as_bytes().to_vec());
        Ok(Self {
            lines: Lines::from_reader(bytes, Path::new(name))?,
            path: PathBuf::from(name),
        })
    }

    /// Reads every row with `read`, which counts in the report what it drops.
    pub(super) fn rows<T>(
        self,
        settings: &Settings,
        mut read: impl FnMut(Record, &mut Report) -> Result<Option<T>, String>,
    ) -> Result<Prepared<T>> {
        settings.check()?;
        let mut report = Report::default();
        let mut rows = Vec::new();
        for line in self.lines {
            let (number, bytes) = line?;
            report.rows += 1;
            let row = Record::parse(number, &bytes, settings, &mut report.ignored_fields)
                .and_then(|record| read(record, &mut report));
            rows.extend(row.map_err(|problem| Error::Row {
                file: self.path.display().to_string(),
                line: number,
                problem,
            })?);
        }
        report.kept = rows.len();
        match (report.rows, rows.is_empty()) {
            (0, _) => Err(Error::file(&self.path, "holds no rows")),
            (_, true) => Err(Error::file(
                &self.path,
                format!("no row is left to train on: {report}"),
            )),
            _ => Ok(Prepared { rows, report }),
        }
    }
}
