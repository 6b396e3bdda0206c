//! The program under `mpirun`: needs the feature `mpi`, Open MPI, and the program itself, built with
//! `cargo build --features train/mpi --example train`.

use super::{Case, agree, lora};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The program beside these tests.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().join("../examples/train");
    assert!(program.exists(), "{} is not built", program.display());
    program
}

/// The settings of a run as a file, for ranks that have other folders.
fn config(case: &Case, name: &str, sets: &[&str]) -> PathBuf {
    let settings = case.to(name);
    let settings = sets
        .iter()
        .fold(settings, |settings, set| settings.with(set).unwrap());
    let path = case.dir.path().join(name).with_extension("json");
    fs::write(&path, serde_json::to_string(&settings).unwrap()).unwrap();
    path
}

/// Two ranks, each in a folder.
fn mpirun(config: &Path, folders: [&Path; 2], more: &[&str]) -> Command {
    let mut command = Command::new("mpirun");
    command
        .env("RAYON_NUM_THREADS", "1")
        .env("CANDLE_NUM_THREADS", "1")
        .args(["--allow-run-as-root", "--oversubscribe"])
        .args(["--mca", "mpi_yield_when_idle", "1"]);
    for (at, folder) in folders.iter().enumerate() {
        if at > 0 {
            command.arg(":");
        }
        command.args(["-n", "1", "-wdir"]).arg(folder);
        command
            .arg(program())
            .arg("--config")
            .arg(config)
            .args(more);
    }
    command.stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    let both = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    both.concat()
}

fn succeeds(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

/// Losses, norms and weights of two ranks are those of one, and rank 0 alone writes.
#[test]
fn two_processes_train_the_model_of_one() {
    for (objective, adapter) in [
        ("sft", None),
        ("dpo", lora()),
        ("pro", lora()),
        ("grpo", lora()),
    ] {
        let case = Case::new(objective, adapter, &[]);
        case.run("one", 1);
        let folders = ["a", "b"].map(|name| case.dir.path().join(name));
        for folder in &folders {
            fs::create_dir(folder).unwrap();
        }
        let config = config(&case, "two", &[r#"out="two""#]);
        let said = succeeds(mpirun(&config, [&folders[0], &folders[1]], &[]));
        assert!(said.contains("ranks     2"), "{said}");
        agree(objective, &case.out("one"), &folders[0].join("two"));
        assert_eq!(fs::read_dir(&folders[1]).unwrap().count(), 0, "{objective}");
    }
}

/// A run that never ends by itself, after its first checkpoint.
fn begun(case: &Case, name: &str) -> Child {
    let sets = [
        "fit.max_steps=100000",
        "save_every=1",
        "fit.lr_scheduler_type=constant",
    ];
    let config = config(case, name, &sets);
    let dir = case.dir.path();
    let mut command = mpirun(&config, [dir, dir], &[]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let first = case.out(name).join("checkpoints");
    while fs::read_dir(&first).map_or(0, |all| all.flatten().filter(is_whole).count()) < 2 {
        assert!(child.try_wait().unwrap().is_none(), "ended early");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child
}

fn is_whole(entry: &fs::DirEntry) -> bool {
    !entry.file_name().to_string_lossy().ends_with(".partial")
}

/// The last checkpoint can be gone on from, by one process.
fn goes_on(case: &Case, name: &str) -> usize {
    let folder = case.out(name).join("checkpoints");
    let names = fs::read_dir(&folder).unwrap().flatten();
    let names = names.filter(is_whole).map(|entry| entry.file_name());
    let last = names.max().unwrap().into_string().unwrap();
    let last: usize = last.strip_prefix("step-").unwrap().parse().unwrap();
    let sets = [
        "fit.max_steps=100000",
        "save_every=1",
        "fit.lr_scheduler_type=constant",
    ];
    let settings = sets
        .iter()
        .fold(case.to(name), |settings, set| settings.with(set).unwrap());
    let stop = |step: usize| step > last;
    let progress = indicatif::ProgressBar::hidden();
    let end = train::checkpoint::run::run(&settings, true, &progress, &stop).unwrap();
    assert!(
        end.to_string()
            .starts_with(&format!("stopped after step {} of", last + 1)),
        "{end}"
    );
    last
}

/// Sends a signal to rank 1, and waits for the end of all.
fn signal(child: Child, signal: &str) -> Output {
    let rank = |pid: &str| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable == b"OMPI_COMM_WORLD_RANK=1")
    };
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let children = fs::read_to_string(children).unwrap();
    let pid = children.split_whitespace().find(|pid| rank(pid)).unwrap();
    let sent = Command::new("kill").args([signal, pid]).status().unwrap();
    assert!(sent.success());
    child.wait_with_output().unwrap()
}

/// A rank that is killed ends all, and the last checkpoint is whole.
#[test]
fn a_killed_rank_ends_all_and_the_run_goes_on() {
    let case = Case::new("dpo", lora(), &[]);
    let output = signal(begun(&case, "killed"), "-KILL");
    assert!(!output.status.success());
    assert!(text(&output).contains("signal 9"), "{}", text(&output));
    goes_on(&case, "killed");
}

/// The signal that `mpirun` sends after Ctrl-C, and a scheduler before the end of its time: all ranks stop after one
/// step, with one checkpoint, whichever rank gets it.
#[test]
fn a_rank_that_is_told_to_stop_stops_all_with_a_checkpoint() {
    let case = Case::new("dpo", lora(), &[]);
    let output = signal(begun(&case, "stopped"), "-TERM");
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    let last = goes_on(&case, "stopped");
    let expected = format!("stopped after step {last} of");
    assert_eq!(said.matches(&expected).count(), 1, "{said}");
}

/// A row that one rank alone cannot read ends all, and says where it is.
#[test]
fn a_bad_row_on_one_machine_ends_all() {
    let case = Case::new("sft", lora(), &[]);
    let rows = fs::read_to_string(&case.settings.data).unwrap();
    let folders = ["a", "b"].map(|name| case.dir.path().join(name));
    for (folder, rows) in folders
        .iter()
        .zip([rows.clone(), format!("{rows}nothing\n")])
    {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("rows.jsonl"), rows).unwrap();
    }
    let config = config(&case, "bad", &[r#"data="rows.jsonl""#]);
    let output = mpirun(&config, [&folders[0], &folders[1]], &[])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let line = rows.lines().count() + 1;
    let expected = format!("error: rank 1 of 2: rows.jsonl:{line}: ");
    assert!(text(&output).contains(&expected), "{}", text(&output));
}

/// A file that differs on one machine is refused before the first step.
#[test]
fn other_rows_on_one_machine_are_refused() {
    let case = Case::new("sft", lora(), &[]);
    let rows = fs::read_to_string(&case.settings.data).unwrap();
    let folders = ["a", "b"].map(|name| case.dir.path().join(name));
    let fewer = rows
        .lines()
        .skip(1)
        .map(|line| format!("{line}\n"))
        .collect();
    for (folder, rows) in folders.iter().zip([rows.clone(), fewer]) {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("rows.jsonl"), rows).unwrap();
    }
    let config = config(&case, "other", &[r#"data="rows.jsonl""#]);
    let output = mpirun(&config, [&folders[0], &folders[1]], &[])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let expected = "error: rank 1 of 2: the rows of rank 1 of 2 differ from those of rank 0";
    assert!(text(&output).contains(expected), "{}", text(&output));
}
