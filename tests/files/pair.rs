//! Two files that belong together, whoever writes, reads or is killed meanwhile.
//!
//! | variable | sets | by default |
//! |---|---|---|
//! | `FILES_ROUNDS` | how often each of two writers saves beside a reader | 25 |
//! | `FILES_KILLS` | how many processes are killed that save in a loop | 10 |

use super::{CONFIG, TENSORS, bits, golden, names};
use candle_align::peft::{AdapterFile, AdapterMethod, Strictness};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const ASIDE: &str = ".adapter_config.json.replaced.candle-align";

fn set(variable: &str, default: usize) -> usize {
    match std::env::var(variable) {
        Ok(value) => value.parse().expect("a number"),
        Err(_) => default,
    }
}

/// Two adapters of the same modules: another α, and other numbers of the same shapes, so that the
/// settings of one fit the tensors of the other.
fn two() -> [AdapterFile; 2] {
    let one = read(&golden("lora")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    one.write(folder.path()).unwrap();
    let text = fs::read_to_string(folder.path().join(CONFIG)).unwrap();
    let other = text.replace("\"lora_alpha\": ", "\"lora_alpha\": 1");
    assert_ne!(text, other);
    fs::write(folder.path().join(CONFIG), other).unwrap();
    let (bytes, mut data) = (fs::read(folder.path().join(TENSORS)).unwrap(), 8);
    data += u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (header, numbers) = bytes.split_at(data);
    // the lowest bits of every number
    let numbers: Vec<u8> = numbers
        .chunks(4)
        .flat_map(|x| [x[0] ^ 1, x[1], x[2], x[3]])
        .collect();
    fs::write(folder.path().join(TENSORS), [header, &numbers].concat()).unwrap();
    [one, read(folder.path()).unwrap()]
}

fn read(folder: &Path) -> candle_align::Result<AdapterFile> {
    AdapterFile::read(folder, Strictness::Strict)
}

fn alpha(file: &AdapterFile) -> f64 {
    match &file.config().method {
        AdapterMethod::Lora(file) => file.model.config.alpha,
        other => panic!("{other:?}"),
    }
}

/// Which of the adapters a folder holds.
#[track_caller]
fn which(folder: &Path, of: &[AdapterFile; 2]) -> usize {
    let found = read(folder).unwrap_or_else(|error| panic!("{error}"));
    let is = |file: &AdapterFile| {
        file.config() == found.config() && bits(file.tensors()) == bits(found.tensors())
    };
    of.iter()
        .position(is)
        .expect("settings of one beside tensors of the other")
}

/// Two files as a folder of its own holds them.
fn pair(file: &AdapterFile) -> [Vec<u8>; 2] {
    let folder = tempfile::tempdir().unwrap();
    file.write(folder.path()).unwrap();
    [CONFIG, TENSORS].map(|name| fs::read(folder.path().join(name)).unwrap())
}

/// Files by name.
type Files<'a> = &'a [(&'a str, &'a [u8])];

/// A folder of them.
fn folder(files: Files) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// Every state in which a writer can be cut short, of an old adapter written here and one that Python
/// wrote: one of the two is read, and the next write leaves nothing else.
#[test]
fn a_write_that_ends_anywhere_leaves_the_old_adapter_or_the_new_one() {
    let adapters = two();
    let [old, new] = adapters.each_ref().map(pair);
    let python = [CONFIG, TENSORS].map(|name| fs::read(golden("lora").join(name)).unwrap());
    for old in [&old, &python] {
        let states: [(Files, usize); 5] = [
            (&[(CONFIG, &old[0]), (TENSORS, &old[1])], 0),
            (&[(ASIDE, &old[0]), (TENSORS, &old[1])], 0),
            (&[(ASIDE, &old[0]), (TENSORS, &new[1])], 1),
            (
                &[(ASIDE, &old[0]), (TENSORS, &new[1]), (CONFIG, &new[0])],
                1,
            ),
            // the first adapter of a folder
            (&[(TENSORS, &new[1])], 1),
        ];
        for (at, (state, expected)) in states.into_iter().enumerate() {
            let folder = folder(state);
            for staged in [CONFIG, TENSORS] {
                let stage = folder.path().join(format!(".{staged}.a1b2c3.candle-align"));
                fs::create_dir(&stage).unwrap();
                fs::write(stage.join(staged), "half").unwrap();
            }
            assert_eq!(which(folder.path(), &adapters), expected, "state {at}");
            for (next, file) in adapters.iter().enumerate() {
                file.write(folder.path()).unwrap();
                assert_eq!(which(folder.path(), &adapters), next, "state {at}");
                if cfg!(unix) {
                    assert_eq!(names(folder.path()), [CONFIG, TENSORS], "state {at}");
                }
            }
        }
    }
}

/// What stands in the way of one of the two files is in the way of both.
#[test]
fn a_write_that_fails_leaves_the_folder_as_it_was() {
    let adapters = two();
    let [old, new] = &adapters;
    let [settings, _] = pair(old);
    // tensors that cannot be put there, beside settings in either place
    for place in [CONFIG, ASIDE] {
        let folder = folder(&[(place, &settings)]);
        let blocked = folder.path().join(TENSORS);
        fs::create_dir(&blocked).unwrap();
        fs::write(blocked.join("kept"), "x").unwrap();
        let before = names(folder.path());
        for file in [new, old] {
            let error = file.write(folder.path()).unwrap_err().to_string();
            let named = format!("`{}` cannot be written: ", blocked.display());
            assert!(error.contains(&named), "{error}");
            assert_eq!(names(folder.path()), before);
            let left = fs::read(folder.path().join(place)).unwrap();
            assert!(left == settings, "{place}");
        }
    }
}

#[cfg(unix)]
#[test]
fn settings_that_cannot_go_aside_stay_with_their_tensors() {
    let adapters = two();
    let [old, new] = &adapters;
    let [settings, tensors] = pair(old);
    let folder = folder(&[(CONFIG, &settings), (TENSORS, &tensors)]);
    let blocked = folder.path().join(ASIDE);
    fs::create_dir(&blocked).unwrap();
    fs::write(blocked.join("kept"), "x").unwrap();
    // or it is swept as what a dead writer left
    let held = fs::File::open(&blocked).unwrap();
    held.lock().unwrap();
    let before = names(folder.path());
    let error = new.write(folder.path()).unwrap_err().to_string();
    let named = format!("{CONFIG}` cannot be written: ");
    assert!(error.contains(&named), "{error}");
    assert_eq!(which(folder.path(), &adapters), 0);
    // the same settings stay where they are
    old.write(folder.path()).unwrap();
    assert_eq!(which(folder.path(), &adapters), 0);
    assert_eq!(names(folder.path()), before);
}

#[test]
fn two_files_of_two_adapters_are_refused() {
    let [one, other] = two().each_ref().map(pair);
    for strictness in [Strictness::Strict, Strictness::Lenient] {
        let folder = folder(&[(CONFIG, &one[0]), (TENSORS, &other[1])]);
        let error = AdapterFile::read(folder.path(), strictness).unwrap_err();
        let path = folder.path().join(TENSORS);
        let expected = format!(
            "AdapterFile::read: `{}` and `adapter_config.json` beside it are of two adapters, in 100 \
             looks: one of the two was put there alone, or another program is at work that writes \
             there; without `adapter_config.json` these tensors are read with the settings that they \
             hold",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
        // a writer is between the two, or was killed there
        let stage = folder.path().join(format!(".{CONFIG}.a1b2c3.candle-align"));
        fs::create_dir(&stage).unwrap();
        assert_eq!(which(folder.path(), &two()), 1);
        fs::remove_dir(&stage).unwrap();
        // as it says
        fs::remove_file(folder.path().join(CONFIG)).unwrap();
        assert_eq!(which(folder.path(), &two()), 1);
    }
}

/// People change a line of the settings, and programs of Python write either file anew.
#[test]
fn what_somebody_changed_on_purpose_is_read_as_it_is() {
    let [one, other] = two();
    let ([settings, tensors], python) =
        (pair(&one), fs::read(golden("lora").join(CONFIG)).unwrap());
    let changed = |text: &[u8]| {
        let text = String::from_utf8(text.to_vec()).unwrap();
        let changed = text.replace("\"lora_alpha\": ", "\"lora_alpha\": 1");
        assert_ne!(text, changed);
        changed.into_bytes()
    };
    let bare = fs::read(golden("lora").join(TENSORS)).unwrap();
    for (settings, tensors) in [
        (changed(&settings), &tensors),
        // without a mark
        (changed(&python), &tensors),
        // tensors that were saved anew, without the settings
        (changed(&settings), &bare),
        (changed(&python), &bare),
    ] {
        let folder = folder(&[(CONFIG, &settings), (TENSORS, tensors)]);
        let found = read(folder.path()).unwrap();
        assert_eq!(alpha(&found), alpha(&other));
        assert_eq!(bits(found.tensors()), bits(one.tensors()));
        // and the next save leaves none of it beside its own tensors
        one.write(folder.path()).unwrap();
        assert_eq!(alpha(&read(folder.path()).unwrap()), alpha(&one));
    }
}

/// A README, a tokenizer, another adapter below: what else is in the folder stays.
#[test]
fn what_else_is_in_the_folder_stays() {
    let folder = folder(&[("README.md", b"# mine"), ("tokenizer.json", b"{}")]);
    for file in two() {
        file.write(folder.path().join("named")).unwrap();
        file.write(folder.path()).unwrap();
        let expected = ["README.md", CONFIG, TENSORS, "named", "tokenizer.json"];
        assert_eq!(names(folder.path()), expected);
        assert_eq!(
            fs::read(folder.path().join("README.md")).unwrap(),
            b"# mine"
        );
    }
}

#[test]
fn the_same_adapter_gives_the_same_bytes() {
    let [one, other] = two();
    assert!(pair(&one) == pair(&one));
    let [settings, tensors] = pair(&other);
    assert!(pair(&one)[0] != settings && pair(&one)[1] != tensors);
}

/// No save fails, no reader gets a mixed pair, and none goes without.
#[test]
fn two_writers_and_a_reader_in_one_folder() {
    let rounds = set("FILES_ROUNDS", 25);
    let folder = tempfile::tempdir().unwrap();
    let adapters = two();
    adapters[0].write(folder.path()).unwrap();
    let (at_work, reads) = (AtomicUsize::new(2), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for file in &adapters {
            let (folder, at_work) = (folder.path(), &at_work);
            scope.spawn(move || {
                let written = (0..rounds).try_for_each(|_| file.write(folder));
                at_work.fetch_sub(1, Ordering::SeqCst);
                written.unwrap_or_else(|error| panic!("{error}"));
            });
        }
        scope.spawn(|| {
            loop {
                let last = at_work.load(Ordering::SeqCst) == 0;
                which(folder.path(), &adapters);
                reads.fetch_add(1, Ordering::SeqCst);
                if last {
                    break;
                }
            }
        });
    });
    assert_eq!(names(folder.path()), [CONFIG, TENSORS]);
    println!(
        "{rounds} rounds of two writers, {} reads",
        reads.into_inner()
    );
}

/// Saves the two adapters by turns until it is killed; the test below starts it as a process.
#[test]
fn child_that_saves_by_turns() {
    let Some(folder) = std::env::var_os("FILES_CHILD").map(PathBuf::from) else {
        return;
    };
    let adapters = two();
    for at in 0.. {
        adapters[at % 2].write(&folder).unwrap();
        if at == 1 {
            println!("saving");
        }
    }
}

/// A process that is known to have saved.
fn start(folder: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["pair::child_that_saves_by_turns", "--exact", "--nocapture"])
        .env("FILES_CHILD", folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let started = lines
        .map_while(Result::ok)
        .any(|line| line.ends_with("saving"));
    assert!(started, "the process ended by itself");
    child
}

/// Wherever a process is killed that saves with changing settings, an adapter is left.
#[cfg(unix)]
#[test]
fn a_process_that_is_killed_leaves_an_adapter() {
    let kills = set("FILES_KILLS", 10);
    let mut rng = StdRng::seed_from_u64(0);
    let folder = tempfile::tempdir().unwrap();
    let adapters = two();
    let (mut left, mut aside) = ([0; 2], 0);
    for kill in 0..kills {
        // alone, or beside another one
        let mut children: Vec<Child> = (0..1 + kill % 2).map(|_| start(folder.path())).collect();
        // any instant will do
        std::thread::sleep(Duration::from_micros(rng.random_range(0..5000)));
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        left[which(folder.path(), &adapters)] += 1;
        aside += usize::from(!folder.path().join(CONFIG).exists());
        if kill % 4 < 2 {
            adapters[kill % 2].write(folder.path()).unwrap();
            assert_eq!(names(folder.path()), [CONFIG, TENSORS]);
            assert_eq!(which(folder.path(), &adapters), kill % 2);
        }
    }
    println!(
        "{kills} kills left {left:?} of the two adapters, {aside} without settings of their own"
    );
}
