//! Runs that are really killed, and disks that are really full: the last checkpoint stays whole.

use super::whole_runs::{quiet, same, steps, tiny, whole};
use clap::Parser;
use indicatif::ProgressBar;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use train::Arguments;
use train::arguments::Asked;
use train::checkpoint::run::run;
use train::checkpoint::settings::{Learned, Settings};
use train::checkpoint::staged::staged;

/// The file of settings of a child that trains, and of a folder that a child begins to write.
pub const TRAINS: &str = "TRAIN_TEST_SETTINGS";
const WRITES: &str = "TRAIN_TEST_FOLDER";

pub fn moment() {
    std::thread::sleep(Duration::from_millis(1));
}

/// Other tests start it as a process. It goes on with a run, and waits before the end of it until a file
/// exists.
#[test]
fn child_that_trains() {
    let Some(config) = std::env::var_os(TRAINS).map(PathBuf::from) else {
        return;
    };
    let arguments = ["train", "--resume", "--config", config.to_str().unwrap()];
    let asked = Arguments::parse_from(arguments).asked().unwrap();
    let Asked::Checkpoint { settings, resume } = asked else {
        panic!("the small model");
    };
    let gate = config.with_extension("gate");
    let stop = |step: usize| {
        while Some(step + 1) == settings.fit.max_steps && !gate.exists() {
            moment();
        }
        false
    };
    if let Err(error) = run(&settings, resume, &ProgressBar::hidden(), &stop) {
        eprintln!("error: {error}");
        std::process::exit(3);
    }
}

/// Other tests start it as a process. It begins to write a folder, says so, and never ends.
#[test]
fn child_that_writes() {
    let Some(folder) = std::env::var_os(WRITES).map(PathBuf::from) else {
        return;
    };
    let written = staged(&folder, |part| {
        fs::write(part.join("half"), "new").unwrap();
        fs::write(folder.with_extension("begun"), "").unwrap();
        loop {
            moment();
        }
    });
    written.unwrap();
}

pub fn child(name: &str, variable: &str, value: &Path) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args([&format!("kills::{name}"), "--exact", "--nocapture"])
        .env(variable, value)
        .stdout(Stdio::null());
    child
}

/// The settings in a file; a run with them does not end before `open` was called.
pub fn config(settings: &Settings) -> PathBuf {
    let path = settings.out().with_extension("json");
    fs::write(&path, serde_json::to_string(settings).unwrap()).unwrap();
    path
}

pub fn open(config: &Path) {
    fs::write(config.with_extension("gate"), "").unwrap();
}

/// The checkpoints that are there.
pub fn checkpoints(out: &Path) -> Vec<String> {
    let names = out.join("checkpoints").exists().then(|| steps(out));
    let whole = |name: &String| !name.ends_with(".partial");
    names
        .unwrap_or_default()
        .into_iter()
        .filter(whole)
        .collect()
}

/// Kills the child at once, or returns how it ended before.
fn kill(child: &mut Child) -> std::process::ExitStatus {
    child.kill().unwrap();
    child.wait().unwrap()
}

/// Killed whenever a checkpoint appears, in the middle of whatever it then does, until it has ended.
#[cfg(unix)]
#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    use std::os::unix::process::ExitStatusExt;
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| {
        let mut settings = tiny(Learned::Dpo, None, &dir.path().join(name));
        settings.save_every = 1;
        settings
    };
    whole(&of("whole"));
    let settings = of("killed");
    let (out, config) = (settings.out(), config(&settings));
    let mut kills = 0;
    loop {
        let before = checkpoints(&out);
        let mut child = child("child_that_trains", TRAINS, &config).spawn().unwrap();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            let new = checkpoints(&out).iter().any(|name| !before.contains(name));
            if new {
                break kill(&mut child);
            }
            moment();
        };
        if status.success() {
            break;
        }
        assert_eq!(status.signal(), Some(9), "{status}");
        kills += 1;
        open(&config);
    }
    // it could not end before
    assert!(kills > 0);
    same(&dir.path().join("whole"), &out, "killed");
}

/// A child whose files cannot be longer than some thousand bytes: the system refuses to write more, as on a
/// full disk.
#[cfg(unix)]
fn on_a_full_disk(config: &Path) -> Output {
    let script = r#"trap "" XFSZ; ulimit -f 16; exec "$0" "$@""#;
    Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["kills::child_that_trains", "--exact", "--nocapture"])
        .env(TRAINS, config)
        .stdout(Stdio::null())
        .output()
        .unwrap()
}

/// All files below a folder.
pub fn below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(below(&path)),
            false => all.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
    all.sort();
    all
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_last_checkpoint_and_the_last_model_whole() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| tiny(Learned::Sft, None, &dir.path().join(name));
    whole(&of("whole"));
    let settings = of("full");
    let (out, config) = (settings.out(), config(&settings));
    open(&config);
    quiet(&settings, false, 4).unwrap();
    let fails = |what: &Path| {
        let output = on_a_full_disk(&config);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{text}");
        let (path, full) = (what.display().to_string(), "cannot be written: ");
        assert!(text.contains(&path) && text.contains(full), "{text}");
        assert!(!text.contains(".partial"), "{text}");
    };
    // the next checkpoint
    let before = below(&out.join("checkpoints"));
    fails(&out.join("checkpoints/step-000008"));
    assert_eq!(steps(&out), ["step-000004"]);
    assert!(below(&out.join("checkpoints")) == before);
    quiet(&settings, true, 0).unwrap();
    same(&dir.path().join("whole"), &out, "full");
    // the model, where an earlier one is
    let before = below(&out.join("model"));
    fails(&out.join("model"));
    assert!(below(&out.join("model")) == before);
    let names = fs::read_dir(&out).unwrap();
    let names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let left = |name: &&String| name.contains("partial") || name.contains("candle-align");
    assert_eq!(names.iter().find(left), None, "{names:?}");
    quiet(&settings, true, 0).unwrap();
    same(&dir.path().join("whole"), &out, "full");
}

/// The folder of a model is replaced completely or not at all, and the next writer cleans up.
#[cfg(unix)]
#[test]
fn a_kill_while_a_folder_is_written_leaves_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    let write = |text: &str| {
        staged(&folder, |part| {
            fs::write(part.join("file"), text).unwrap();
            Ok(())
        })
    };
    write("old").unwrap();
    let mut child = child("child_that_writes", WRITES, &folder).spawn().unwrap();
    while !folder.with_extension("begun").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the child ended");
        moment();
    }
    kill(&mut child);
    assert!(dir.path().join("model.partial/half").exists());
    let old = below(&folder);
    assert_eq!(old, [(folder.join("file"), b"old".to_vec())]);
    // and what a kill leaves of a folder that is being deleted
    fs::create_dir(dir.path().join("model.old.partial")).unwrap();
    fs::write(dir.path().join("model.old.partial/file"), "older").unwrap();
    write("new").unwrap();
    assert_eq!(below(&folder), [(folder.join("file"), b"new".to_vec())]);
    let names = fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<PathBuf> = names.map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert_eq!(names, [folder.clone(), folder.with_extension("begun")]);
    // an error says the name that the folder would have had
    let error = staged(&folder, |part| {
        Err(train::error::Error::file(&part.join("file"), "is too long"))
    });
    let error = error.unwrap_err().to_string();
    assert_eq!(
        error,
        format!("{}: is too long", folder.join("file").display())
    );
    assert_eq!(below(&folder), [(folder.join("file"), b"new".to_vec())]);
}
