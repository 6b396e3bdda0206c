//! Folders of results: a run has its folder to itself, writes over nothing that is not its own, and says what to do
//! where it cannot go on.

use super::kills::{TRAINS, below, checkpoints, child, config, moment, open};
use super::runs::{quiet as small_run, small};
use super::whole_runs::{ada_lora, golden, lora, quiet, same, steps, tiny, whole};
use std::fs;
use std::path::{Path, PathBuf};
use train::checkpoint::hold::{Hold, LOCK};
use train::checkpoint::online::rewards::Reward;
use train::checkpoint::settings::{FreshAdapter, Learned, Settings};
use train::checkpoint::staged::{recover, replace, staged};
use train::checkpoint::summary::Outcome;
use train::objectives::Objective;

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// DPO on an adapter: nothing of it is in the folder of results.
fn of(out: &Path) -> Settings {
    tiny(Learned::Dpo, lora(), out)
}

/// The run is refused with this path, and nothing below the folder of results is another afterwards.
fn refused(settings: &Settings, resume: bool, path: &Path, problem: &str) {
    let out = settings.out();
    let before = below(&out);
    let error = quiet(settings, resume, 0).unwrap_err().to_string();
    let start = format!("{}: ", path.display());
    assert!(error.starts_with(&start), "{}: {error}", path.display());
    assert!(error.contains(problem), "{error}");
    assert!(below(&out) == before, "{error}");
}

#[test]
fn results_that_are_not_of_the_run_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "model/notes.txt",
        "adapter/adapter_model.safetensors",
        "value/config.json",
        "model.partial/notes.txt",
        "model.old.partial/notes.txt",
        "value.gone.partial/notes.txt",
        "curves.svg",
        "summary.json",
        "metrics.jsonl",
        "samples.jsonl",
        "times.jsonl",
        // of a model, and of no run
        "config.json",
    ] {
        let out = dir.path().join(name.replace('/', "-"));
        write(&out.join(name), r#"{"hidden_size": 8}"#);
        let first = out.join(name.split('/').next().unwrap());
        for resume in [false, true] {
            refused(&of(&out), resume, &first, "choose another --out");
        }
    }
    // a link that leads nowhere is somebody's too
    #[cfg(unix)]
    {
        let out = dir.path().join("link");
        fs::create_dir(&out).unwrap();
        std::os::unix::fs::symlink("gone", out.join("model")).unwrap();
        let error = quiet(&of(&out), false, 0).unwrap_err().to_string();
        let start = format!("{}: is there already", out.join("model").display());
        assert!(error.starts_with(&start), "{error}");
        assert!(out.join("model").symlink_metadata().is_ok());
    }
    // a person's own settings, which those of the run would replace
    let out = dir.path().join("settings");
    write(&out.join("config.json"), r#"{"seed": 1}"#);
    for resume in [false, true] {
        refused(
            &of(&out),
            resume,
            &out.join("config.json"),
            "choose another --out",
        );
    }
    // other files are no hindrance
    let out = dir.path().join("others");
    write(&out.join("notes.txt"), "mine");
    whole(&of(&out));
    assert_eq!(fs::read(out.join("notes.txt")).unwrap(), b"mine");
}

#[test]
fn what_a_run_reads_is_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    copy(&golden("model"), &out.join("model"));
    copy(&golden("adapter"), &out.join("adapter"));
    copy(&golden("adapter"), &out.join("value"));
    copy(&golden("model"), &out.join("checkpoints/step-000004"));
    let rows = out.join("metrics.jsonl");
    fs::copy(golden("rows.jsonl"), &rows).unwrap();
    let problem = "and would write its results over it";
    type Change = fn(&mut Settings, PathBuf);
    let changes: [(&str, Change); 11] = [
        ("model", |settings, path| settings.model = path),
        ("checkpoints/step-000004", |settings, path| {
            settings.model = path
        }),
        ("model/../model", |settings, path| settings.model = path),
        ("metrics.jsonl", |settings, path| settings.data = path),
        ("metrics.jsonl", |settings, path| {
            settings.held_out_file = Some(path);
        }),
        ("metrics.jsonl", |settings, path| {
            settings.online.completions_file = Some(path);
        }),
        ("adapter", |settings, path| {
            (settings.adapter, settings.adapter_dir) = (None, Some(path));
        }),
        ("adapter/adapter_config.json", |settings, path| {
            settings.adapter = Some(FreshAdapter::File(path));
        }),
        ("model/config.json", |settings, path| {
            settings.adapter = Some(FreshAdapter::File(path));
        }),
        ("model/cache", |settings, path| {
            settings.precompute_ref_log_probs = true;
            settings.ref_log_probs_dir = Some(path);
        }),
        ("value", |settings, path| {
            let text = format!("reward_model={}", path.display());
            settings.objective = Learned::Grpo;
            settings.online.rewards = vec![Reward::parse(&text).unwrap()];
            settings.online.num_generations = Some(2);
        }),
    ];
    for (name, change) in changes {
        let mut settings = of(&out);
        let path = out.join(name);
        change(&mut settings, path.clone());
        // checked first
        if settings.online.completions_file.is_some() {
            settings.objective = Learned::Grpo;
            settings.online.rewards = vec![Reward::parse("length=3").unwrap()];
            settings.online.num_generations = Some(2);
        }
        for resume in [false, true] {
            refused(&settings, resume, &path, problem);
        }
    }
    let mut settings = tiny(Learned::Gkd, lora(), &out);
    settings.teacher = Some(out.join("model"));
    refused(&settings, false, &out.join("model"), problem);
    // files of the reference beside those of the run
    let kept = dir.path().join("kept");
    let mut settings = of(&kept);
    settings.precompute_ref_log_probs = true;
    settings.ref_log_probs_dir = Some(kept);
    whole(&settings);
    // the folder of the model itself, whose `config.json` would be that of the run
    let mut settings = of(&out.join("model"));
    settings.model = out.join("model");
    refused(&settings, false, &out.join("model"), problem);
    #[cfg(unix)]
    {
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&out, &link).unwrap();
        let mut settings = of(&link);
        settings.model = out.join("model");
        refused(&settings, false, &out.join("model"), problem);
    }
    // a folder in that of the model, rows in the folder of results: neither is written over
    let model = dir.path().join("base");
    copy(&golden("model"), &model);
    let before = below(&model);
    let mut settings = of(&model.join("run"));
    settings.model = model.clone();
    settings.data = model.join("run/rows.jsonl");
    fs::create_dir(model.join("run")).unwrap();
    fs::copy(golden("rows.jsonl"), &settings.data).unwrap();
    whole(&settings);
    let after = below(&model);
    assert!(before.iter().all(|file| after.contains(file)));
}

/// The small model's run writes over its own earlier results, and over nothing else.
#[test]
fn the_small_model_writes_over_its_own_results_alone() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let of = |out: &Path| {
        let mut settings = small(Objective::Dpo, out);
        (settings.steps, settings.sft_steps) = (1, 1);
        settings
    };
    let refused = |settings: &train::settings::Settings, path: &Path, problem: &str| {
        let before = below(&settings.out());
        let error = small_run(settings).unwrap_err().to_string();
        let start = format!("{}: {problem}", path.display());
        assert!(error.starts_with(&start), "{error}");
        assert!(below(&settings.out()) == before);
    };
    small_run(&of(&out)).unwrap();
    small_run(&of(&out)).unwrap();
    let mut settings = of(&out);
    settings.base = Some(out.join("model.safetensors"));
    refused(
        &settings,
        &out.join("model.safetensors"),
        "the run reads its weights here",
    );
    let mut settings = of(&out);
    settings.data = Some(out.join("metrics.jsonl"));
    refused(
        &settings,
        &out.join("metrics.jsonl"),
        "the run reads its rows here",
    );
    let model = dir.path().join("model");
    copy(&golden("model"), &model);
    refused(&of(&model), &model.join("config.json"), "is there already");
    for name in ["adapter/notes.txt", "curves.svg"] {
        let out = dir.path().join(name.replace('/', "-"));
        write(&out.join(name), "mine");
        let first = out.join(name.split('/').next().unwrap());
        refused(&of(&out), &first, "is there already");
    }
}

#[test]
fn a_run_without_a_checkpoint_begins_again_only_where_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    whole(&of(&dir.path().join("whole")));
    let out = dir.path().join("out");
    quiet(&of(&out), false, 2).unwrap();
    fs::remove_dir_all(out.join("checkpoints")).unwrap();
    refused(&of(&out), false, &out.join("metrics.jsonl"), "say --resume");
    let Outcome::Done(summary) = quiet(&of(&out), true, 0).unwrap() else {
        panic!("not done");
    };
    assert_eq!(summary.resumed_at, 0);
    same(&dir.path().join("whole"), &out, "begun again");
    // one that failed in its first step has nothing to lose
    let out = dir.path().join("failed");
    quiet(&of(&out), false, 1).unwrap();
    fs::remove_dir_all(out.join("checkpoints")).unwrap();
    fs::write(out.join("metrics.jsonl"), "").unwrap();
    assert!(out.join("config.json").exists());
    whole(&of(&out));
    same(&dir.path().join("whole"), &out, "corrected");
}

#[test]
fn a_resumed_run_writes_over_its_own_results_alone() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| tiny(Learned::Sft, None, &dir.path().join(name));
    whole(&of("whole"));
    let out = dir.path().join("out");
    quiet(&of("out"), false, 6).unwrap();
    write(&out.join("model/notes.txt"), "mine");
    refused(&of("out"), true, &out.join("model"), "move it");
    fs::remove_dir_all(out.join("model")).unwrap();
    whole_again(&of("out"), 6);
    same(&dir.path().join("whole"), &out, "stopped");
    // after the end, from the checkpoint before the last one: the model is the run's own
    fs::remove_dir_all(out.join("checkpoints/step-000009")).unwrap();
    whole_again(&of("out"), 8);
    same(&dir.path().join("whole"), &out, "ended");
}

/// Goes on to the end.
fn whole_again(settings: &Settings, from: usize) {
    let Outcome::Done(summary) = quiet(settings, true, 0).unwrap() else {
        panic!("not done");
    };
    assert_eq!(summary.resumed_at, from);
}

#[test]
fn a_refused_run_leaves_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("runs/first/out");
    let gone = dir.path().join("gone");
    let begins = |settings: &Settings| {
        quiet(settings, false, 0).unwrap_err();
        assert_eq!(below(dir.path()), []);
        assert!(!dir.path().join("runs").exists());
    };
    let mut settings = of(&out);
    settings.data = gone.clone();
    begins(&settings);
    let mut settings = of(&out);
    settings.model = gone;
    begins(&settings);
    // what was there stays, even if it is empty
    fs::create_dir_all(dir.path().join("runs/first")).unwrap();
    quiet(&settings, false, 0).unwrap_err();
    let left = fs::read_dir(dir.path().join("runs/first")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn a_folder_is_held_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("runs/out");
    let held = |out: &Path| Hold::of(out).map(drop).map_err(|error| error.to_string());
    let first = Hold::of(&out).unwrap();
    assert_eq!(first.unlocked, None);
    let problem =
        "another run is writing to this folder: wait until it has ended, or choose another --out";
    for _ in 0..2 {
        assert_eq!(held(&out), Err(format!("{}: {problem}", out.display())));
    }
    let other = Hold::of(&dir.path().join("runs/other")).unwrap();
    drop(first);
    // the other one needs the folder around both
    assert!(!out.exists() && dir.path().join("runs/other").exists());
    drop(other);
    // the first one made it
    assert_eq!(held(&out), Ok(()));
    // what a killed run leaves is not in the way
    write(&out.join(LOCK), "");
    assert_eq!(held(&out), Ok(()));
    assert!(out.exists() && !out.join(LOCK).exists());
    // a folder that holds something stays
    let hold = Hold::of(&dir.path().join("new")).unwrap();
    fs::write(dir.path().join("new/file"), "").unwrap();
    drop(hold);
    assert!(dir.path().join("new/file").exists());
}

/// The second one is refused before it changes anything, and the first one ends as if there were no other.
#[cfg(unix)]
#[test]
fn two_runs_do_not_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let named = |name: &str| {
        let mut settings = of(&dir.path().join(name));
        settings.save_every = 1;
        settings
    };
    whole(&named("whole"));
    let settings = named("out");
    let (out, config) = (settings.out(), config(&settings));
    let mut child = child("child_that_trains", TRAINS, &config).spawn().unwrap();
    // it waits after its last step but one
    while !checkpoints(&out).iter().any(|name| name == "step-000007") {
        assert!(child.try_wait().unwrap().is_none(), "the child ended");
        moment();
    }
    // as if it were being written
    let part = out.join("checkpoints/step-000009.partial");
    fs::create_dir(&part).unwrap();
    let second = [true, false].map(|resume| quiet(&settings, resume, 0));
    let is_left = part.exists();
    open(&config);
    assert!(child.wait().unwrap().success());
    for end in second {
        let error = end.unwrap_err().to_string();
        let start = format!("{}: another run is writing to this folder", out.display());
        assert!(error.starts_with(&start), "{error}");
    }
    assert!(is_left);
    same(&dir.path().join("whole"), &out, "not alone");
    assert!(!out.join(LOCK).exists());
}

/// Between its two renames: neither folder has the name.
#[test]
fn a_folder_whose_replacement_was_interrupted_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    let beside = |end: &str| dir.path().join(format!("model.{end}"));
    let is_whole = |text: &str, what: &str| {
        let expected = [(folder.join("file"), text.as_bytes().to_vec())];
        assert_eq!(below(dir.path()), expected, "{what}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{what}");
    };
    write(&beside("old.partial").join("file"), "old");
    write(&beside("partial").join("file"), "new");
    recover(&folder).unwrap();
    is_whole("old", "between the renames");
    // the new one has the name, and the old one is being deleted
    write(&beside("old.partial").join("file"), "older");
    write(&beside("gone.partial").join("half"), "oldest");
    recover(&folder).unwrap();
    is_whole("old", "after the renames");
    // nothing comes back from what was being deleted
    fs::rename(&folder, beside("gone.partial")).unwrap();
    recover(&folder).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    // a second rename that fails
    write(&folder.join("file"), "old");
    replace(&dir.path().join("missing"), &folder).unwrap_err();
    is_whole("old", "the second rename failed");
    // the next writer begins with this too
    fs::rename(&folder, beside("old.partial")).unwrap();
    staged(&folder, |_| {
        let text = fs::read(folder.join("file")).unwrap();
        Err(train::error::Error::Usage(String::from_utf8(text).unwrap()))
    })
    .unwrap_err();
    is_whole("old", "before another write");
}

/// The only checkpoint, and then the model.
#[test]
fn a_run_goes_on_from_folders_whose_replacement_was_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| {
        let mut settings = tiny(Learned::Sft, None, &dir.path().join(name));
        settings.keep_last = 1;
        settings
    };
    whole(&of("whole"));
    whole(&of("out"));
    let out = dir.path().join("out");
    let interrupt = |name: &str| {
        let at = |end: &str| out.join(format!("{name}{end}"));
        fs::rename(at(""), at(".old.partial")).unwrap();
        fs::create_dir(at(".partial")).unwrap();
        fs::write(at(".partial").join("config.json"), "{").unwrap();
    };
    interrupt("checkpoints/step-000009");
    whole_again(&of("out"), 9);
    same(&dir.path().join("whole"), &out, "checkpoint");
    interrupt("model");
    // without a word, no start changes anything
    let checkpoint = out.join("checkpoints/step-000009");
    refused(&of("out"), false, &checkpoint, "say --resume");
    whole_again(&of("out"), 9);
    same(&dir.path().join("whole"), &out, "model");
    assert_eq!(steps(&out), ["step-000009"]);
    assert!(!out.join("model.partial").exists() && !out.join("model.old.partial").exists());
}

/// Not only when the run writes its model again.
#[test]
fn an_interrupted_model_comes_back_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = tiny(Learned::Sft, None, dir.path());
    settings.keep_last = 3;
    whole(&settings);
    let model = dir.path().join("model");
    let before = below(&model);
    for step in ["step-000008", "step-000009"] {
        fs::remove_dir_all(dir.path().join("checkpoints").join(step)).unwrap();
    }
    fs::rename(&model, dir.path().join("model.old.partial")).unwrap();
    let end = quiet(&settings, true, 6).unwrap();
    assert!(matches!(end, Outcome::Stopped { step: 6, .. }), "{end}");
    assert!(below(&model) == before);
    assert!(!dir.path().join("model.old.partial").exists());
}

/// Every file that a run leaves can be read by whom an ordinary file can be read by.
#[cfg(unix)]
#[test]
fn results_have_the_permissions_of_ordinary_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    write(&dir.path().join("folder/file"), "");
    let file = mode(&dir.path().join("folder/file"));
    let folder = mode(&dir.path().join("folder"));
    let ppo = |settings: &mut Settings| {
        settings.objective = Learned::Ppo;
        settings.online.rewards = vec![Reward::parse("length=3").unwrap()];
        settings.online.max_completion_length = 4;
    };
    let plain = |_: &mut Settings| {};
    type Change<'a> = &'a dyn Fn(&mut Settings);
    let cases: [(&str, Settings, Change); 5] = [
        (
            "sft",
            tiny(Learned::Sft, None, &dir.path().join("sft")),
            &plain,
        ),
        (
            "ada",
            tiny(Learned::Dpo, ada_lora(), &dir.path().join("ada")),
            &plain,
        ),
        (
            "bco",
            tiny(Learned::Bco, lora(), &dir.path().join("bco")),
            &plain,
        ),
        (
            "ppo",
            tiny(Learned::Dpo, None, &dir.path().join("ppo")),
            &ppo,
        ),
        (
            "ppo_lora",
            tiny(Learned::Dpo, lora(), &dir.path().join("ppo_lora")),
            &ppo,
        ),
    ];
    for (name, mut settings, change) in cases {
        change(&mut settings);
        settings.fit.max_steps = Some(4);
        quiet(&settings, false, 0).unwrap();
        let out = dir.path().join(name);
        let all = below(&out);
        let has = |end: &str| all.iter().any(|(path, _)| path.ends_with(end));
        assert!(has("step-000004/trained.safetensors"), "{name}");
        assert_eq!(has("allocator.safetensors"), name == "ada");
        assert_eq!(has("shift.safetensors"), name == "bco");
        assert_eq!(has("value/config.json"), name == "ppo");
        for (path, _) in all {
            assert_eq!(mode(&path), file, "{}", path.display());
            let within = path.strip_prefix(&out).unwrap().ancestors().skip(1);
            for above in within {
                assert_eq!(mode(&out.join(above)), folder, "{}", path.display());
            }
        }
    }
}

/// Each file of the last checkpoint, cut: the message names it, and what to delete; then the run goes on.
#[test]
fn a_damaged_checkpoint_is_named_with_what_to_do() {
    for (objective, adapter, files) in [
        (Learned::Bco, lora(), &["trained", "optimizer", "shift"][..]),
        (
            Learned::Dpo,
            ada_lora(),
            &["trained", "optimizer", "allocator"],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let settings = tiny(objective, adapter.clone(), &out);
        whole(&tiny(objective, adapter, &dir.path().join("whole")));
        quiet(&settings, false, 6).unwrap();
        let last = out.join("checkpoints/step-000006");
        let names = files.iter().map(|name| format!("{name}.safetensors"));
        for name in names.chain(["state.json".to_string()]) {
            let path = last.join(&name);
            let bytes = fs::read(&path).unwrap();
            for length in [0, bytes.len() / 2] {
                fs::write(&path, &bytes[..length]).unwrap();
                let error = quiet(&settings, true, 0).unwrap_err().to_string();
                let named = error.starts_with(&path.display().to_string()) || error.contains(&name);
                let advice = format!(
                    "a run cannot go on from this checkpoint. The checkpoint of step 4 is there too: delete {} to go on from it",
                    last.display()
                );
                assert!(named && error.ends_with(&advice), "{name}: {error}");
            }
            fs::write(&path, &bytes).unwrap();
        }
        fs::write(last.join("trained.safetensors"), "").unwrap();
        fs::remove_dir_all(&last).unwrap();
        whole_again(&settings, 4);
        same(
            &dir.path().join("whole"),
            &out,
            "from the checkpoint before",
        );
    }
    // without another one
    let dir = tempfile::tempdir().unwrap();
    let settings = of(dir.path());
    quiet(&settings, false, 4).unwrap();
    let path = dir
        .path()
        .join("checkpoints/step-000004/trained.safetensors");
    fs::write(&path, "").unwrap();
    refused(&settings, true, &path, "begin again with another --out");
}

#[test]
fn a_missing_log_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let settings = of(dir.path());
    quiet(&settings, false, 4).unwrap();
    let metrics = dir.path().join("metrics.jsonl");
    let text = fs::read(&metrics).unwrap();
    fs::remove_file(&metrics).unwrap();
    refused(
        &settings,
        true,
        &metrics,
        "put it back, or begin again with another --out",
    );
    fs::write(&metrics, text).unwrap();
    whole_again(&settings, 4);
}
