//! Lines of a file, plain or gzip'd, one at a time.

use super::super::error::{Error, Result};
use crate::files;
use flate2::bufread::MultiGzDecoder;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

/// The longest line that is read; a longer line means that the file does not have rows.
const LONGEST_LINE: u64 = 64 << 20;

/// The non-empty lines of a file, with their numbers.
pub struct Lines {
    inner: Box<dyn BufRead>,
    path: String,
    number: usize,
    failed: bool,
}

impl Lines {
    /// Opens a file. Its first two bytes say whether it is compressed, not its name.
    pub fn open(path: &Path) -> Result<Self> {
        let file = files::open(path)
            .map_err(|error| Error::file(path, format!("cannot be opened: {error}")))?;
        Self::from_reader(BufReader::new(file), path)
    }

    /// From any source of bytes; `path` is its name in messages.
    pub fn from_reader(mut reader: impl BufRead + 'static, path: &Path) -> Result<Self> {
        let start = reader
            .fill_buf()
            .map_err(|error| Error::file(path, format!("cannot be read: {error}")))?;
        let inner: Box<dyn BufRead> = match start {
            [0x1f, 0x8b, ..] => Box::new(BufReader::new(MultiGzDecoder::new(reader))),
            _ => Box::new(reader),
        };
        Ok(Self {
            inner,
            path: path.display().to_string(),
            number: 0,
            failed: false,
        })
    }

    /// Reads past blank lines, as many at a time as the buffer holds.
    fn skip_blank(&mut self) -> std::io::Result<()> {
        loop {
            let mut end = 0;
            for (at, byte) in self.inner.fill_buf()?.iter().enumerate() {
                match byte {
                    b'\n' => (self.number, end) = (self.number + 1, at + 1),
                    b' ' | b'\t' | b'\r' | b'\x0c' => {}
                    _ => break,
                }
            }
            // the beginning of a line that holds something belongs to it
            self.inner.consume(end);
            if end == 0 {
                return Ok(());
            }
        }
    }

    fn next_line(&mut self) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let read = self.skip_blank().and_then(|()| {
            let most = (&mut self.inner).take(LONGEST_LINE + 1);
            { most }.read_until(b'\n', &mut line)
        });
        let problem = match read {
            Ok(0) => return Ok(None),
            Ok(_) if line.len() as u64 > LONGEST_LINE => {
                format!("is longer than {} MiB", LONGEST_LINE >> 20)
            }
            Ok(_) => return Ok(Some(line)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                "the compressed file ends too early".to_string()
            }
            Err(error) => format!("cannot be read: {error}"),
        };
        Err(Error::Row {
            file: self.path.clone(),
            line: self.number + 1,
            problem,
        })
    }
}

impl Iterator for Lines {
    /// The number of the line, from 1, and its bytes without the line's end.
    type Item = Result<(usize, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            let mut line = match self.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => return None,
                Err(error) => {
                    // do not trust anything after a broken stream
                    self.failed = true;
                    return Some(Err(error));
                }
            };
            self.number += 1;
            if self.number == 1 && line.starts_with(b"\xef\xbb\xbf") {
                line.drain(..3);
            }
            while line.last().is_some_and(|byte| b"\r\n".contains(byte)) {
                line.pop();
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Some(Ok((self.number, line)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::cell::Cell;
    use std::io::{Cursor, Write};
    use std::rc::Rc;

    fn lines(bytes: Vec<u8>) -> Vec<Result<(usize, Vec<u8>)>> {
        Lines::from_reader(Cursor::new(bytes), Path::new("rows.jsonl"))
            .unwrap()
            .collect()
    }

    fn good(bytes: &[u8]) -> Vec<(usize, String)> {
        lines(bytes.to_vec())
            .into_iter()
            .map(|line| line.map(|(at, text)| (at, String::from_utf8(text).unwrap())))
            .collect::<Result<_>>()
            .unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn marks_line_ends_and_blank_lines_do_not_reach_the_rows() {
        let bytes = b"\xef\xbb\xbf{}\r\n\r\n  \n[1]\n\n2";
        let expected = [(1, "{}"), (4, "[1]"), (6, "2")];
        assert_eq!(good(bytes), expected.map(|(at, s)| (at, s.to_string())));
        assert_eq!(good(b""), []);
        assert_eq!(good(b"\n\n"), []);
    }

    /// A buffer that counts how often it is read from.
    struct Counted(BufReader<Cursor<Vec<u8>>>, Rc<Cell<usize>>);

    impl Read for Counted {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(into)
        }
    }

    impl BufRead for Counted {
        fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
            self.1.set(self.1.get() + 1);
            self.0.fill_buf()
        }

        fn consume(&mut self, amount: usize) {
            self.0.consume(amount);
        }
    }

    #[test]
    fn blank_lines_are_passed_by_the_buffer_and_counted() {
        let blank = ["\n", "\r\n", "  \n", "\t\n"].concat();
        let bytes = format!("1\n{}  2\n{}", blank.repeat(50_000), blank.repeat(50_000));
        let calls = Rc::new(Cell::new(0));
        let reader = Counted(BufReader::new(Cursor::new(bytes.into())), calls.clone());
        let lines = Lines::from_reader(reader, Path::new("rows.jsonl")).unwrap();
        let read: Vec<_> = lines.map(Result::unwrap).collect();
        let expected = [(1, b"1".to_vec()), (200_002, b"  2".to_vec())];
        assert_eq!(read, expected);
        // 900 kB in buffers of 8 kB
        assert!(calls.get() < 1000, "{}", calls.get());
    }

    #[test]
    fn a_blank_line_without_end_is_too_long() {
        let bytes = vec![b' '; LONGEST_LINE as usize + 2];
        let message = lines(bytes).pop().unwrap().unwrap_err().to_string();
        assert_eq!(message, "rows.jsonl:1: is longer than 64 MiB");
    }

    #[test]
    fn gzip_is_told_by_its_bytes_and_may_have_several_members() {
        let mut bytes = gzip(b"one\ntwo\n");
        bytes.extend(gzip(b"three"));
        let expected = [(1, "one"), (2, "two"), (3, "three")];
        assert_eq!(good(&bytes), expected.map(|(at, s)| (at, s.to_string())));
    }

    #[test]
    fn a_truncated_gzip_gives_its_rows_and_then_an_error() {
        let text: String = (0..2000)
            .map(|i| format!("row {}\n", i * 7919 % 2003))
            .collect();
        let bytes = gzip(text.as_bytes());
        let mut read = lines(bytes[..bytes.len() / 2].to_vec());
        let last = read.pop().unwrap().unwrap_err().to_string();
        let at = read.len() + 1;
        assert!(at > 1 && at < 2000, "{at}");
        assert!(read.iter().all(Result::is_ok));
        assert_eq!(
            last,
            format!("rows.jsonl:{at}: the compressed file ends too early")
        );
    }
}
