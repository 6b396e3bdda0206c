//! Detects what a file really is, before it is read as what it should be.
//!
//! The examples include this file too, so it uses nothing else from the crate.

use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::path::Path;

/// Opens a regular file, and nothing else. Opening a named pipe would wait for a writer that may never come,
/// and a device may have no end.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let found = fs::metadata(path)?;
    match found.is_file() {
        true => File::open(path),
        false => {
            let text = format!("it is {}, not a file", kind(found.file_type()));
            Err(io::Error::other(text))
        }
    }
}

/// The bytes of a regular file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The name of what is not a regular file.
fn kind(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a named pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    match kind.is_dir() {
        true => "a folder",
        false => "something else",
    }
}

/// For bytes that should be a safetensors file and are not: what they are, and what to do.
pub(crate) fn not_tensors(bytes: &[u8]) -> Option<&'static str> {
    if begins_as_tensors(bytes) {
        return None;
    }
    foreign(bytes).or_else(|| {
        let json = text(bytes).starts_with(b"{");
        json.then_some("is JSON text, not tensors: another file was saved under this name")
    })
}

/// For bytes that should be JSON and are not: what they are.
pub(crate) fn not_json(bytes: &[u8]) -> Option<&'static str> {
    if begins_as_tensors(bytes) {
        let text = "holds tensors (safetensors), not JSON: another file was saved under this name";
        return Some(text);
    }
    foreign(bytes)
}

/// Whether the bytes begin with the length of a header and then a header. No text begins like this, because
/// the length contains bytes of 0.
fn begins_as_tensors(bytes: &[u8]) -> bool {
    let length = bytes.first_chunk::<8>().map(|n| u64::from_le_bytes(*n));
    length.is_some_and(|n| n <= 100_000_000) && matches!(bytes.get(8), Some(b'{' | b'[' | b' '))
}

/// Kinds of files that are often found in place of the right one.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    let start = text(bytes);
    let start = start[..start.len().min(32)].to_ascii_lowercase();
    let is = |first: &[u8]| start.starts_with(first);
    if is(b"version https://git-lfs") {
        return Some(
            "is a pointer of Git LFS, not the file that it stands for: run `git lfs pull` where it \
             was cloned",
        );
    }
    if is(b"<!doctype html") || is(b"<html") {
        return Some(
            "is a web page (HTML), not the file: the download gave a page, of an error, of a login \
             or about the file; download the file itself",
        );
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02") {
        return Some(
            "holds pickled weights, as `torch.save` writes them, which can run code and are not \
             read: load them in Python and save them as safetensors",
        );
    }
    if bytes.starts_with(b"GGUF") {
        return Some("is a GGUF file, of llama.cpp, which is not read: save it as safetensors");
    }
    if bytes.starts_with(b"\x1f\x8b") {
        return Some("is compressed (gzip): unpack it first");
    }
    None
}

/// The bytes without a byte order mark or white space at the start.
fn text(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes.trim_ascii_start()
}
