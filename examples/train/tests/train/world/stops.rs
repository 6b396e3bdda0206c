//! Runs of several ranks that stop, fail, and go on.

use super::threads::ranks;
use super::{Case, agree, lines, lora, whole};
use indicatif::ProgressBar;
use std::fs;
use train::checkpoint::hold::{Hold, LOCK};
use train::checkpoint::run::run_in;
use train::checkpoint::summary::Outcome;
use train::error::Result;
use train::world::World;
use train::world::single::Single;

/// Ctrl-C reaches one rank before the others: all stop after the same step, with one checkpoint. Another number of ranks
/// goes on.
#[test]
fn a_stopped_run_goes_on_with_another_number_of_ranks() {
    for objective in ["dpo", "bco", "grpo"] {
        let case = Case::new(objective, lora(), &[]);
        case.run("whole", 1);
        let settings = case.to("stopped");
        let stopped = |world: &dyn World| {
            let stop = |step| world.rank() == 1 && step == 8;
            run_in(world, &settings, false, &ProgressBar::hidden(), &stop)
        };
        for end in ranks(2, stopped) {
            let end = end.unwrap();
            assert!(matches!(end, Outcome::Stopped { step: 8, .. }), "{end}");
        }
        let checkpoints = fs::read_dir(case.out("stopped/checkpoints")).unwrap();
        let names = checkpoints.map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["step-000008"], "{objective}");
        for end in ranks(3, |world| whole(world, &settings, true)) {
            end.unwrap();
        }
        agree(objective, &case.out("whole"), &case.out("stopped"));
    }
}

fn errors(results: Vec<Result<Outcome>>) -> Vec<String> {
    let error = |result: Result<Outcome>| match result {
        Ok(end) => panic!("{end}"),
        Err(error) => error.to_string(),
    };
    results.into_iter().map(error).collect()
}

#[test]
fn ranks_with_other_settings_are_refused() {
    let case = Case::new("sft", lora(), &[]);
    let settings = case.to("out");
    let other = settings.clone().with("fit.weight_decay=0.5").unwrap();
    let run = |world: &dyn World| {
        let own = [&settings, &other][usize::from(world.rank() == 1)];
        whole(world, own, false)
    };
    let found = errors(ranks(2, run));
    assert_eq!(found[0], "another rank ended");
    assert_eq!(
        found[1],
        "the settings of rank 1 of 2 differ from those of rank 0, and all ranks must train the same"
    );
}

/// A rank that fails ends the others, wherever they are.
#[test]
fn a_rank_that_fails_ends_all() {
    let case = Case::new("sft", lora(), &[]);
    let settings = case.to("out");
    let gone = case.dir.path().join("gone.jsonl");
    let mut other = settings.clone();
    other.data = gone.clone();
    let run = |world: &dyn World| {
        let own = [&settings, &other][usize::from(world.rank() == 2)];
        whole(world, own, false)
    };
    let found = errors(ranks(3, run));
    assert_eq!(found[..2], ["another rank ended"; 2]);
    assert!(
        found[2].starts_with(&gone.display().to_string()),
        "{}",
        found[2]
    );
    assert!(!case.out("out/checkpoints/step-000020").exists());
}

/// Rank 0 alone needs the folder of results; where it cannot have it, no rank begins.
#[test]
fn ranks_begin_no_run_in_the_folder_of_another() {
    let case = Case::new("sft", lora(), &[]);
    let settings = case.to("out");
    let out = case.out("out");
    let other = Hold::of(&out).unwrap();
    let found = errors(ranks(3, |world| whole(world, &settings, false)));
    assert!(found[0].contains("another run is writing"), "{}", found[0]);
    assert_eq!(found[1..], ["another rank ended"; 2]);
    drop(other);
    assert!(!out.exists());
    for end in ranks(3, |world| whole(world, &settings, false)) {
        end.unwrap();
    }
    assert!(!out.join(LOCK).exists());
}

/// What ranks cost each other is in the results where there are several, and nowhere else.
#[test]
fn the_results_count_ranks_and_bytes() {
    let case = Case::new("sft", lora(), &[]);
    for size in [1, 2] {
        let name = size.to_string();
        case.run(&name, size);
        let text = fs::read_to_string(case.out(&name).join("summary.json")).unwrap();
        let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
        match size {
            1 => assert!(summary.get("shared").is_none()),
            _ => {
                assert_eq!(summary["shared"]["ranks"], 2);
                // in each step the gradients in f32, and a few numbers
                let gradients = 4 * summary["trained_parameters"].as_u64().unwrap() * 20;
                let bytes = summary["shared"]["spent"]["bytes"].as_u64().unwrap();
                assert!(
                    (gradients..gradients + 20 * 200).contains(&bytes),
                    "{bytes} {gradients}"
                );
            }
        }
        assert_eq!(lines(&case.out(&name)).len(), 23);
    }
    // a run without ranks is the run of one
    let settings = case.to("plain");
    whole(&Single, &settings, false).unwrap();
    agree("plain", &case.out("plain"), &case.out("1"));
}
