//! What stands where a file of an adapter should: each is told what it is and what to do.

use crate::common::adapters::golden;
use candle_align::peft::{AdapterFile, PeftConfig, Strictness};
use std::fs;
use std::path::{Path, PathBuf};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";

/// A file of an adapter of Python's.
fn of_python(name: &str) -> Vec<u8> {
    fs::read(golden("lora").join(name)).unwrap()
}

/// A folder with an adapter of Python's, of which files are taken or replaced.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder
            .with(CONFIG, &of_python(CONFIG))
            .with(TENSORS, &of_python(TENSORS))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn with(self, name: &str, content: &[u8]) -> Self {
        fs::write(self.path(name), content).unwrap();
        self
    }

    fn without(self, name: &str) -> Self {
        fs::remove_file(self.path(name)).unwrap();
        self
    }

    /// With `DIR` for the folder's path; by either reader.
    #[track_caller]
    fn says(&self, message: &str) {
        let folder = self.0.path().display().to_string();
        for strictness in [Strictness::Strict, Strictness::Lenient] {
            let error = AdapterFile::read(self.0.path(), strictness).unwrap_err();
            let expected = format!("AdapterFile::read: {}", message.replace("DIR", &folder));
            assert_eq!(error.to_string(), expected);
        }
    }
}

const POINTER: &[u8] =
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 13109048\n";

#[test]
fn a_file_of_another_kind_is_told_what_it_is() {
    let lfs = "is a pointer of Git LFS, not the file that it stands for: run `git lfs pull` where it was cloned";
    let page = "is a web page (HTML), not the file: the download gave a page, of an error, of a login or about the file; download the file itself";
    let pickled = "holds pickled weights, as `torch.save` writes them, which can run code and are not read: load them in Python and save them as safetensors";
    let gguf = "is a GGUF file, of llama.cpp, which is not read: save it as safetensors";
    let gzip = "is compressed (gzip): unpack it first";
    for (content, problem) in [
        (POINTER, lfs),
        (b"<!DOCTYPE html>\n<html class=\"\">", page),
        (b"\xef\xbb\xbf\r\n  <html><head>", page),
        (b"<!doctype HTML>", page),
        (
            b"PK\x03\x04\x00\x00\x08\x08\x00\x00\x00\x00archive/data.pkl",
            pickled,
        ),
        (b"\x80\x02}q\x00X\x0c\x00\x00\x00", pickled),
        (b"GGUF\x03\x00\x00\x00\x00\x00\x00\x00", gguf),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", gzip),
    ] {
        for name in [CONFIG, TENSORS] {
            Folder::new()
                .with(name, content)
                .says(&format!("`DIR/{name}` {problem}"));
        }
        let path = Folder::new().with(CONFIG, content);
        let path = path.path(CONFIG);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let error = PeftConfig::read(&path, Strictness::Strict)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            format!("PeftConfig::read: `{}` {problem}", path.display())
        );
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
    // one in the place of the other
    Folder::new()
        .with(TENSORS, &of_python(CONFIG))
        .says(&format!(
            "`DIR/{TENSORS}` is JSON text, not tensors: another file was saved under this name"
        ));
    Folder::new().with(CONFIG, &of_python(TENSORS)).says(&format!(
        "`DIR/{CONFIG}` holds tensors (safetensors), not JSON: another file was saved under this name"
    ));
}

/// What a page or a pointer begins with may stand anywhere else.
#[test]
fn a_file_is_not_taken_for_another_by_its_content() {
    let text = String::from_utf8(of_python(CONFIG)).unwrap();
    let named = text.replace(
        "\"base_model_name_or_path\": null",
        "\"base_model_name_or_path\": \"<html>PK\\u0003\\u0004version https://git-lfs\"",
    );
    assert_ne!(text, named);
    // as far into the file as the header of tensors would begin
    let named = format!("        {named}");
    let folder = Folder::new().with(CONFIG, named.as_bytes());
    let read = AdapterFile::read(folder.0.path(), Strictness::Strict).unwrap();
    assert!(
        read.config()
            .base_model
            .as_ref()
            .unwrap()
            .starts_with("<html>PK")
    );
}

#[test]
fn pickled_weights_and_parts_of_a_file_are_told_from_a_file_that_is_not_there() {
    let pickled = |name: &str| {
        format!(
            "`DIR/{TENSORS}` is not there, but `{name}`: pickled weights can run code and are not \
             read; load them in Python's PEFT and save them again, by `PeftModel.from_pretrained(base, \
             folder).save_pretrained(folder, safe_serialization=True)`"
        )
    };
    let parts = |name: &str| {
        format!(
            "`DIR/{TENSORS}` is not there, but in parts, as `{name}`, which is not supported: make one \
             file of them, in Python by `load_file` of every part and one `save_file` of all tensors, \
             of `safetensors.torch`"
        )
    };
    for (names, message) in [
        (&["adapter_model.bin"][..], pickled("adapter_model.bin")),
        (
            &[
                "adapter_model-00001-of-00002.bin",
                "adapter_model-00002-of-00002.bin",
            ],
            pickled("adapter_model-00001-of-00002.bin"),
        ),
        (
            &[
                "adapter_model-00002-of-00002.safetensors",
                "adapter_model-00001-of-00002.safetensors",
            ],
            parts("adapter_model-00001-of-00002.safetensors"),
        ),
        (
            &["adapter_model.safetensors.index.json"],
            parts("adapter_model.safetensors.index.json"),
        ),
        (
            &["model-00001-of-00002.safetensors", "pytorch_model.bin"],
            format!("`DIR/{TENSORS}` cannot be read: No such file or directory (os error 2)"),
        ),
    ] {
        let mut folder = Folder::new().without(TENSORS);
        for name in names {
            folder = folder.with(name, b"");
        }
        folder.says(&message);
    }
    // what is there is read, whatever is beside it
    let folder = Folder::new().with("adapter_model.bin", b"");
    AdapterFile::read(folder.0.path(), Strictness::Strict).unwrap();
}

#[test]
fn adapters_with_names_are_in_folders_of_these_names() {
    let folder = Folder::new().without(CONFIG);
    let named = |name: &str| {
        fs::create_dir(folder.path(name)).unwrap();
        fs::write(folder.path(name).join(CONFIG), of_python(CONFIG)).unwrap();
    };
    fs::create_dir(folder.path("runs")).unwrap();
    folder.says(&format!(
        "`DIR/{CONFIG}` cannot be read: No such file or directory (os error 2)"
    ));
    named("policy");
    folder.says(&format!(
        "`DIR/{CONFIG}` is not there, but in the folder `policy` beside it: read that folder"
    ));
    named("critic");
    folder.says(&format!(
        "`DIR/{CONFIG}` is not there, but in folders beside it, one adapter in each: read one of \
         `critic`, `policy`"
    ));
    for at in 0..8 {
        named(&format!("step{at}"));
    }
    folder.says(&format!(
        "`DIR/{CONFIG}` is not there, but in folders beside it, one adapter in each: read one of \
         `critic`, `policy`, `step0`, `step1`, `step2`, `step3`, `step4`, `step5` and 2 more"
    ));
}

#[test]
fn the_path_of_a_file_is_not_that_of_its_folder() {
    let folder = Folder::new();
    for name in [CONFIG, TENSORS] {
        let path = folder.path(name);
        let error = AdapterFile::read(&path, Strictness::Strict)
            .unwrap_err()
            .to_string();
        let problem = "is a file: name the folder that it is in";
        assert_eq!(
            error,
            format!("AdapterFile::read: `{}` {problem}", path.display())
        );
    }
    let error = PeftConfig::read(folder.0.path(), Strictness::Strict)
        .unwrap_err()
        .to_string();
    let problem = "cannot be read: it is a folder, not a file";
    let path = folder.0.path().display();
    assert_eq!(error, format!("PeftConfig::read: `{path}` {problem}"));
}

#[cfg(unix)]
mod no_file {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    /// Whoever opens a named pipe to read it waits for somebody who writes. One does here, so that a
    /// reader that opens it gets text, and goes on, to another error.
    fn with_a_pipe_in_the_place_of(path: &Path, read: impl FnOnce()) {
        fs::remove_file(path).unwrap();
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        // under a second name it stays in reach
        let elsewhere = tempfile::tempdir().unwrap();
        let pipe = elsewhere.path().join("pipe");
        fs::hard_link(path, &pipe).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| fs::write(&pipe, "{}"));
            let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
            // let the writer go if nobody did: whoever opens both ends waits for nobody
            let both = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(&pipe)
                .unwrap();
            let _ = writer.join();
            drop(both);
            read.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }

    #[test]
    fn a_named_pipe_is_not_waited_for() {
        let problem = "cannot be read: it is a named pipe, not a file";
        for name in [CONFIG, TENSORS] {
            let folder = Folder::new();
            with_a_pipe_in_the_place_of(&folder.path(name), || {
                folder.says(&format!("`DIR/{name}` {problem}"));
            });
        }
        let folder = Folder::new();
        let path = folder.path(CONFIG);
        with_a_pipe_in_the_place_of(&path, || {
            let error = PeftConfig::read(&path, Strictness::Strict)
                .unwrap_err()
                .to_string();
            assert_eq!(
                error,
                format!("PeftConfig::read: `{}` {problem}", path.display())
            );
        });
    }

    /// A writer compares its settings with those that are there.
    #[test]
    fn a_named_pipe_is_replaced_and_not_opened() {
        let folder = Folder::new();
        let file = AdapterFile::read(folder.0.path(), Strictness::Strict).unwrap();
        for name in [CONFIG, TENSORS] {
            with_a_pipe_in_the_place_of(&folder.path(name), || {
                file.write(folder.0.path()).unwrap();
                AdapterFile::read(folder.0.path(), Strictness::Strict).unwrap();
            });
        }
    }

    #[test]
    fn devices_sockets_and_folders_are_named() {
        for name in [CONFIG, TENSORS] {
            let folder = Folder::new().without(name);
            symlink("/dev/zero", folder.path(name)).unwrap();
            folder.says(&format!(
                "`DIR/{name}` cannot be read: it is a device, not a file"
            ));

            let folder = Folder::new().without(name);
            let socket = UnixListener::bind(folder.path(name)).unwrap();
            folder.says(&format!(
                "`DIR/{name}` cannot be read: it is a socket, not a file"
            ));
            drop(socket);

            let folder = Folder::new().without(name);
            fs::create_dir(folder.path(name)).unwrap();
            folder.says(&format!(
                "`DIR/{name}` cannot be read: it is a folder, not a file"
            ));
        }
    }
}
