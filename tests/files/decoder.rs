//! A decoder and its adapter on a disk that is full, and in a process that is killed in mid-save: the last good
//! folder stays whole, and nothing is half-written.
//!
//! A limit on the size of a file takes the place of the disk's end. Where its signal is ignored, a write behind
//! the limit is an error, as on a full disk; else it kills the process in the middle of the write.

use super::names;
use candle_align::decoder::{Decoder, Load, Save};
use candle_align::peft::{AdapterMethod, LoraFile, Strictness};
use candle_core::Tensor;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Set in the process that saves: what it saves, and where.
const SAVES: &str = "FILES_DECODER_SAVES";
/// SIGXFSZ.
const TOO_LARGE: i32 = 25;
/// `ulimit` counts blocks of 512 or of 1024 bytes; what is saved is larger than eight of either.
const BLOCKS: usize = 8;

fn base() -> Decoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoints/llama");
    Decoder::load(folder, &Load::default()).unwrap()
}

/// The model under an adapter of this rank, of which every number is `value`.
fn adapted(value: f64) -> Decoder {
    let mut model = base();
    let text = r#"{"rank": 16, "targets": {"target_modules": "all-linear"}}"#;
    let file = LoraFile {
        model: serde_json::from_str(text).unwrap(),
        ..LoraFile::default()
    };
    let mut rng = StdRng::seed_from_u64(0);
    let config = AdapterMethod::Lora(file).into();
    model.add_adapter("default", &config, &mut rng).unwrap();
    for (_, var) in model.vars() {
        let full = (Tensor::ones_like(&var).unwrap() * value).unwrap();
        var.set(&full).unwrap();
    }
    model
}

fn save(kind: &str, folder: &Path, value: f64) -> candle_align::Result<()> {
    match kind {
        "model" => base().save(folder, &Save::default()),
        _ => adapted(value).save_adapter("default", folder),
    }
}

/// The child: saves, and says what came of it.
#[test]
fn a_process_that_saves() {
    let Ok(what) = std::env::var(SAVES) else {
        return;
    };
    let (kind, folder) = what.split_once(' ').unwrap();
    match save(kind, Path::new(folder), 2.0) {
        Ok(()) => println!("SAVED"),
        Err(error) => println!("ERROR {error}"),
    }
}

/// Saves in a process whose files are limited; it is killed behind the limit, or gets an error.
fn limited(kind: &str, folder: &Path, killed: bool) -> Output {
    let ignore = if killed { "" } else { "trap '' XFSZ; " };
    let run = r#"exec "$0" --exact decoder::a_process_that_saves --nocapture --test-threads 1"#;
    Command::new("sh")
        .arg("-c")
        .arg(format!("{ignore}ulimit -c 0; ulimit -f {BLOCKS}; {run}"))
        .arg(std::env::current_exe().unwrap())
        .env(SAVES, format!("{kind} {}", folder.display()))
        .output()
        .unwrap()
}

/// All files of a folder, with what they hold.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = names(folder)
        .into_iter()
        .filter(|name| !name.starts_with('.'));
    let read = |name: String| {
        let bytes = fs::read(folder.join(&name)).unwrap();
        (name, bytes)
    };
    files.map(read).collect()
}

/// A folder of saves, with the last good one.
fn good(kind: &str) -> (tempfile::TempDir, PathBuf) {
    let out = tempfile::tempdir().unwrap();
    let at = out.path().join("good");
    save(kind, &at, 1.0).unwrap();
    (out, at)
}

/// Where the next save goes: a model is a new folder, an adapter replaces the old one.
fn next(kind: &str, good: &Path) -> PathBuf {
    match kind {
        "model" => good.with_file_name("next"),
        _ => good.to_path_buf(),
    }
}

fn whole(kind: &str, at: &Path) {
    match kind {
        "model" => drop(Decoder::load(at, &Load::default()).unwrap()),
        _ => drop(base().load_adapter("a", at, Strictness::Strict).unwrap()),
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_the_last_good_folder() {
    for kind in ["model", "adapter"] {
        let (out, at) = good(kind);
        let (before, to) = (content(&at), next(kind, &at));
        let child = limited(kind, &to, false);
        let said = String::from_utf8(child.stdout).unwrap();
        assert!(child.status.success(), "{kind}: {said}");
        let error = said.lines().find(|line| line.contains("ERROR"));
        let error = error.unwrap_or_else(|| panic!("{kind}: {said}"));
        let named = match kind {
            "model" => format!("Decoder::save: `{}` cannot be written: ", to.display()),
            _ => format!("{}` cannot be written: ", to.join(super::TENSORS).display()),
        };
        assert!(
            error.contains(&named) && error.contains("too large"),
            "{error}"
        );
        // nothing new, nothing changed, nothing beside
        assert_eq!(content(&at), before, "{kind}");
        assert_eq!(names(out.path()), ["good"], "{kind}");
        let hidden = names(&at).into_iter().filter(|name| name.starts_with('.'));
        assert_eq!(hidden.count(), 0, "{kind}");
        whole(kind, &at);
        // with room again, the same save goes through
        save(kind, &to, 2.0).unwrap();
        whole(kind, &to);
    }
}

#[test]
fn a_process_killed_in_mid_save_leaves_the_last_good_folder() {
    for kind in ["model", "adapter"] {
        let (out, at) = good(kind);
        let (before, to) = (content(&at), next(kind, &at));
        let child = limited(kind, &to, true);
        assert_eq!(child.status.signal(), Some(TOO_LARGE), "{kind}: {child:?}");
        assert_eq!(content(&at), before, "{kind}");
        assert!(kind == "adapter" || !to.exists());
        whole(kind, &at);
        // what the dead process began is gone after the next save
        save(kind, &to, 2.0).unwrap();
        whole(kind, &to);
        for folder in [out.path(), &at] {
            let left = names(folder)
                .into_iter()
                .filter(|name| name.starts_with('.'));
            assert_eq!(left.count(), 0, "{kind}");
        }
    }
}
