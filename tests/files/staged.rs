//! What a writer puts beside the place of a file, and what happens to it.

use super::{CONFIG, TENSORS, bits, golden, names};
use candle_align::peft::{AdapterFile, Strictness};
use candle_align::training::{AdamW, AdamWConfig, ParameterGroup};
use candle_core::{Device, Tensor, Var};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Every writer of the library: what it writes, and how.
type Writer = (&'static str, Box<dyn Fn(&Path) -> candle_align::Result<()>>);

fn writers() -> [Writer; 3] {
    let adapter = || AdapterFile::read(golden("lora"), Strictness::Strict).unwrap();
    let state = |path: &Path| {
        let var = Var::from_tensor(&Tensor::new(&[1f32], &Device::Cpu).unwrap()).unwrap();
        let group = ParameterGroup::new(vec![("a".to_string(), var)], 0.0);
        let adamw = AdamW::new(vec![group], AdamWConfig::default()).unwrap();
        adamw.save(path.join("state.safetensors"))
    };
    [
        (TENSORS, Box::new(move |folder| adapter().write(folder))),
        (CONFIG, Box::new(move |folder| adapter().write(folder))),
        ("state.safetensors", Box::new(state)),
    ]
}

/// The name of a file is not the writer's to make another of.
#[test]
fn a_users_own_file_beside_the_place_is_left_alone() {
    for (name, write) in writers() {
        for own in [
            format!("{name}.part"),
            format!(".{name}.tmp"),
            format!(".{name}.mine.part"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(&own), "mine").unwrap();
            write(folder.path()).unwrap();
            assert_eq!(
                fs::read(folder.path().join(&own)).unwrap(),
                b"mine",
                "{own}"
            );
        }
    }
}

/// Whoever can guess a name can put a link there.
#[cfg(unix)]
#[test]
fn nothing_is_written_through_a_link() {
    for (name, write) in writers() {
        for planted in [format!("{name}.part"), name.to_string()] {
            let folder = tempfile::tempdir().unwrap();
            let elsewhere = tempfile::NamedTempFile::new().unwrap();
            fs::write(elsewhere.path(), "untouched").unwrap();
            let link = folder.path().join(&planted);
            std::os::unix::fs::symlink(elsewhere.path(), link).unwrap();
            write(folder.path()).unwrap();
            assert_eq!(
                fs::read(elsewhere.path()).unwrap(),
                b"untouched",
                "{planted}"
            );
            let written = folder.path().join(name).symlink_metadata().unwrap();
            assert!(written.is_file(), "{planted}");
        }
    }
}

/// As any file that a program makes: readable by others, if the user's mask says so.
#[cfg(unix)]
#[test]
fn a_written_file_has_the_permissions_of_an_ordinary_one() {
    use std::os::unix::fs::PermissionsExt;
    for (name, write) in writers() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            let found = folder.path().join(name).metadata().unwrap();
            found.permissions().mode()
        };
        fs::write(folder.path().join("ordinary"), "").unwrap();
        write(folder.path()).unwrap();
        assert_eq!(mode(name), mode("ordinary"), "{name}");
    }
}

/// What a writer that was killed leaves is known by its name and by the lock that it no longer holds.
#[cfg(unix)]
#[test]
fn what_a_dead_writer_left_is_swept_and_what_a_living_one_writes_is_not() {
    for (name, write) in writers() {
        let folder = tempfile::tempdir().unwrap();
        let of = |who: &str| folder.path().join(format!(".{name}.{who}.candle-align"));
        for who in ["killed", "living"] {
            fs::create_dir(of(who)).unwrap();
            fs::write(of(who).join(name), "half").unwrap();
        }
        let living = fs::File::open(of("living")).unwrap();
        living.lock().unwrap();
        // and what only looks like it
        let mine = tempfile::tempdir().unwrap();
        fs::write(mine.path().join("mine"), "mine").unwrap();
        std::os::unix::fs::symlink(mine.path(), of("link")).unwrap();
        fs::write(of("file"), "mine").unwrap();
        let other = folder.path().join(format!(".{name}.killed.other"));
        fs::create_dir(&other).unwrap();
        // and what the writer of another file left
        let another = folder.path().join(".another.killed.candle-align");
        fs::create_dir(&another).unwrap();
        write(folder.path()).unwrap();
        let left = names(folder.path());
        assert!(!of("killed").exists(), "{left:?}");
        for kept in [
            of("living").join(name),
            of("link").join("mine"),
            of("file"),
            other,
            another,
        ] {
            assert!(kept.exists(), "{} of {left:?}", kept.display());
        }
        // its writer is gone too
        drop(living);
        write(folder.path()).unwrap();
        assert!(!of("living").exists());
    }
}

/// By whoever writes, with the path of the file, not of the one beside it.
#[test]
fn a_write_that_fails_names_the_file_and_leaves_nothing_beside() {
    for (name, write) in writers() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join(name);
        fs::create_dir(&place).unwrap();
        fs::write(place.join("kept"), "x").unwrap();
        let error = write(folder.path()).unwrap_err().to_string();
        let expected = format!("`{}` cannot be written: ", place.display());
        assert!(error.contains(&expected), "{error}");
        assert!(!error.contains(".candle-align"), "{error}");
        assert_eq!(names(folder.path()), [name], "{error}");
        assert_eq!(fs::read(place.join("kept")).unwrap(), b"x");

        // no folder to write in
        let file = folder.path().join(name).join("kept");
        let error = write(&file).unwrap_err().to_string();
        assert!(error.contains(&format!("`{}", file.display())), "{error}");
        assert!(error.contains("cannot be written: "), "{error}");
        assert!(!error.contains(".candle-align"), "{error}");
    }
}

#[test]
fn a_folder_that_is_not_there_is_named_in_words_of_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let adamw = AdamW::new(vec![], AdamWConfig::default()).unwrap();
    let path = missing.join("state.safetensors");
    let error = adamw.save(&path).unwrap_err().to_string();
    let system = fs::create_dir(missing.join("x")).unwrap_err();
    let path = path.display();
    let expected = format!("AdamW::save: `{path}` cannot be written: {system}");
    assert_eq!(error, expected);
}

/// Saves under a name alone; the test below starts it as a process, in a folder.
#[test]
fn child_that_saves_where_it_is() {
    if std::env::var_os("FILES_HERE").is_some() {
        let adamw = AdamW::new(vec![], AdamWConfig::default()).unwrap();
        adamw.save("state.safetensors").unwrap();
    }
}

/// A path without a folder is one in the current folder, which is swept as any other.
#[cfg(unix)]
#[test]
fn a_name_alone_is_a_file_of_the_current_folder() {
    let folder = tempfile::tempdir().unwrap();
    let dead = ".state.safetensors.killed.candle-align";
    fs::create_dir(folder.path().join(dead)).unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["staged::child_that_saves_where_it_is", "--exact"])
        .current_dir(folder.path())
        .env("FILES_HERE", "1")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(names(folder.path()), ["state.safetensors"]);
}

#[test]
fn a_path_that_names_no_file_is_an_error() {
    let adamw = AdamW::new(vec![], AdamWConfig::default()).unwrap();
    let error = adamw.save("..").unwrap_err().to_string();
    assert!(
        error.contains("`..` cannot be written: it names no file"),
        "{error}"
    );
}

/// As many writers of one file as like: none fails, and what stands there in the end is one's whole.
#[test]
fn writers_of_one_file_do_not_meet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let states: Vec<AdamW> = (0..3)
        .map(|at| {
            let var = Var::from_tensor(&Tensor::full(at as f32, 1000, &Device::Cpu).unwrap());
            let group = ParameterGroup::new(vec![("a".to_string(), var.unwrap())], 0.0);
            AdamW::new(vec![group], AdamWConfig::default()).unwrap()
        })
        .collect();
    std::thread::scope(|scope| {
        for adamw in &states {
            scope.spawn(|| (0..50).for_each(|_| adamw.save(&path).unwrap()));
        }
    });
    let var =
        Var::from_tensor(&Tensor::zeros(1000, candle_core::DType::F32, &Device::Cpu).unwrap());
    let group = ParameterGroup::new(vec![("a".to_string(), var.unwrap())], 0.0);
    AdamW::new(vec![group], AdamWConfig::default())
        .unwrap()
        .load(&path)
        .unwrap();
    assert_eq!(names(folder.path()), ["state.safetensors"]);
}

/// A file that others hold stays what it was for them.
#[test]
fn a_reader_of_the_old_file_reads_it_to_its_end() {
    use std::io::Read;
    let folder = tempfile::tempdir().unwrap();
    let old = AdapterFile::read(golden("lora"), Strictness::Strict).unwrap();
    let new = AdapterFile::read(golden("dora"), Strictness::Strict).unwrap();
    old.write(folder.path()).unwrap();
    let path = folder.path().join(TENSORS);
    let whole = fs::read(&path).unwrap();
    let mut held = fs::File::open(&path).unwrap();
    let mut bytes = vec![0; 100];
    held.read_exact(&mut bytes).unwrap();
    new.write(folder.path()).unwrap();
    held.read_to_end(&mut bytes).unwrap();
    assert!(bytes == whole);
    let back = AdapterFile::read(folder.path(), Strictness::Strict).unwrap();
    assert_eq!(bits(back.tensors()), bits(new.tensors()));
}
