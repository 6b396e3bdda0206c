//! Files of settings.

use super::error::{Error, Result};
use crate::files;
use std::path::Path;

/// The text of a JSON file, or an error that says what the file is instead.
pub fn json(path: &Path) -> Result<String> {
    let unread = |error: String| Error::file(path, format!("cannot be read: {error}"));
    let bytes = files::read(path).map_err(|error| unread(error.to_string()))?;
    match files::not_json(&bytes) {
        Some(problem) => Err(Error::file(path, problem)),
        None => String::from_utf8(bytes).map_err(|error| unread(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::Model;
    use super::super::settings::Settings;
    use super::*;
    use std::fs;

    #[test]
    fn what_is_no_file_of_settings_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings.json");
        let says = |problem: &str| {
            let expected = format!("{}: {problem}", path.display());
            assert_eq!(json(&path).unwrap_err().to_string(), expected);
            assert_eq!(Settings::read(&path).unwrap_err().to_string(), expected);
        };
        for (content, problem) in [
            (
                &b"version https://git-lfs.github.com/spec/v1\n"[..],
                "is a pointer of Git LFS, not the file that it stands for: run `git lfs pull` where \
                 it was cloned",
            ),
            (
                b"\x10\x00\x00\x00\x00\x00\x00\x00{\"a\": {}}",
                "holds tensors (safetensors), not JSON: another file was saved under this name",
            ),
            (
                b"\"\xff\"",
                "cannot be read: invalid utf-8 sequence of 1 bytes from index 1",
            ),
        ] {
            fs::write(&path, content).unwrap();
            says(problem);
        }
        fs::remove_file(&path).unwrap();
        says("cannot be read: No such file or directory (os error 2)");
        fs::create_dir(&path).unwrap();
        says("cannot be read: it is a folder, not a file");
    }

    /// The test holds the pipe's other end, so that a reader that opens it would get a text.
    #[cfg(unix)]
    #[test]
    fn a_named_pipe_is_not_waited_for() {
        use super::super::data::reader::Lines;
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let both = fs::OpenOptions::new().read(true).write(true).open(&path);
        let mut both = both.unwrap();
        both.write_all(b"{}\n").unwrap();
        let at = path.display();
        let problem = "it is a named pipe, not a file";
        let error = Lines::open(&path).err().unwrap().to_string();
        assert_eq!(error, format!("{at}: cannot be opened: {problem}"));
        let error = json(&path).unwrap_err().to_string();
        assert_eq!(error, format!("{at}: cannot be read: {problem}"));
    }

    #[test]
    fn weights_of_another_kind_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base.safetensors");
        let settings = Settings {
            base: Some(path.clone()),
            width: 4,
            heads: 1,
            layers: 1,
            ..Settings::default()
        };
        let sizes = format!(
            r#"{{"vocabulary": {}, "dim": 4, "heads": 1, "layers": 1, "max_len": {}, "feed_forward": 16}}"#,
            settings.objective.vocabulary(),
            settings.max_len
        );
        fs::write(dir.path().join("model.json"), sizes).unwrap();
        let mut rng = rand::SeedableRng::seed_from_u64(0);
        for (content, problem) in [
            (
                &b"<!DOCTYPE html>"[..],
                "is a web page (HTML), not the file: ",
            ),
            (b"PK\x03\x04\x00\x00\x08\x08", "holds pickled weights, "),
        ] {
            fs::write(&path, content).unwrap();
            let error = Model::new(&settings, &mut rng).err().unwrap().to_string();
            let start = format!("{}: {problem}", path.display());
            assert!(error.starts_with(&start), "{error}");
        }
    }
}
