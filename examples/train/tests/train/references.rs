//! The reference's log-probabilities, computed once: the same numbers, the same file, and when another one.

use super::micro_batches::{lines, near};
use super::whole_runs::{golden, keys, lora, quiet, same, tiny, whole};
use candle_core::DType;
use chrono::NaiveDateTime;
use serde_json::json;
use std::fs;
use std::path::Path;
use train::checkpoint::load;
use train::checkpoint::objective::Reference;
use train::checkpoint::order::Order;
use train::checkpoint::origin::origin;
use train::checkpoint::prepare::prepare;
use train::checkpoint::reference::precompute;
use train::checkpoint::settings::{Learned, Settings, Storage};
use train::world::single::Single;

/// A fresh adapter, the whole model, and an adapter that the run goes on from.
fn starts(out: &Path) -> [Settings; 3] {
    let mut on = tiny(Learned::Dpo, None, out);
    on.adapter_dir = Some(golden("adapter"));
    let fresh = tiny(Learned::Dpo, lora(), out);
    [fresh, tiny(Learned::Dpo, None, out), on]
}

fn cached(settings: &Settings, folder: &Path, name: &str) -> Settings {
    Settings {
        precompute_ref_log_probs: true,
        ref_log_probs_dir: Some(folder.join("reference")),
        out: Some(folder.join(name)),
        ..settings.clone()
    }
}

/// What was done about the file.
fn report(settings: &Settings) -> String {
    let (decoder, reference) = load::start(settings).unwrap();
    let rows = prepare(settings, &decoder, NaiveDateTime::default()).unwrap();
    let origin = origin(settings).unwrap();
    let found = precompute(settings, &rows, &origin, &decoder, &reference, &Single).unwrap();
    found.report
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder.join("reference")).unwrap().count()
}

#[test]
fn a_run_has_the_numbers_of_a_reference_in_every_step() {
    for at in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let mut plain = starts(&folder.join("plain"))[at].clone();
        // in the order of the file the same rows go through the model together: bit for bit
        plain.fit.order = Order::Sequential;
        whole(&plain);
        whole(&cached(&plain, folder, "cached"));
        let what = format!("start {at}");
        same(&folder.join("plain"), &folder.join("cached"), &what);
        // in another order, to rounding
        plain.fit.order = Order::Random { seed: 42 };
        plain.fit.learning_rate = Some(1e-3);
        plain.out = Some(folder.join("random"));
        whole(&plain);
        let again = cached(&plain, folder, "again");
        assert!(report(&again).contains("read from"), "{what}");
        whole(&again);
        let of = |name: &str| {
            let mut lines = lines(&folder.join(name));
            for line in &mut lines {
                // before the first step both answers have the reward 0, up to rounding
                line.as_object_mut().unwrap().remove("accuracy");
            }
            lines
        };
        near(&of("again"), &of("random"), 1e-6, &what);
        assert_eq!(files(folder), 1, "{what}");
    }
}

/// A model that is trained as a whole needs no second copy of itself, and an adapter no second one.
#[test]
fn there_is_no_second_model() {
    let dir = tempfile::tempdir().unwrap();
    for settings in starts(dir.path()) {
        let (decoder, reference) = load::start(&cached(&settings, dir.path(), "out")).unwrap();
        assert!(!matches!(reference, Reference::Frozen(_)));
        assert!(decoder.adapters().len() <= 1);
    }
}

#[test]
fn a_second_run_reads_the_file_and_any_difference_makes_another() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let plain = tiny(Learned::Dpo, keys(json!({"r": 2})), &folder.join("plain"));
    let start = cached(&plain, folder, "one");
    assert!(report(&start).contains("9 rows and 3 held-out rows: computed"));
    // what the numbers do not depend on
    let mut same = start.clone();
    same.fit.learning_rate = Some(1.0);
    same.fit.seed += 1;
    same.out = Some(folder.join("two"));
    same.adapter = lora();
    assert!(report(&same).contains("read from"), "{}", report(&same));
    assert_eq!(files(folder), 1);

    let model = folder.join("model");
    fs::create_dir(&model).unwrap();
    for entry in fs::read_dir(golden("model")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
    }
    let mut copied = start.clone();
    copied.model = model.clone();
    assert!(report(&copied).contains("read from"));
    let weights = model.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();

    let data = folder.join("rows.jsonl");
    let text = fs::read_to_string(golden("rows.jsonl")).unwrap();
    fs::write(&data, text.replacen("t17", "t19", 1)).unwrap();
    let mut others = vec![copied];
    let mut other = |change: &dyn Fn(&mut Settings)| {
        let mut one = start.clone();
        change(&mut one);
        others.push(one);
    };
    other(&|one| one.data = data.clone());
    other(&|one| one.max_length = Some(9));
    other(&|one| one.seed = 7);
    other(&|one| one.dtype = Storage::Bf16);
    other(&|one| one.fit.batch = 3);
    other(&|one| one.fit.max_tokens = Some(30));
    other(&|one| one.adapter = None);
    other(&|one| (one.adapter, one.adapter_dir) = (None, Some(golden("adapter"))));
    for (at, other) in others.iter().enumerate() {
        let whole_model = other.adapter.is_none() && other.adapter_dir.is_none();
        let report = report(other);
        // of the model alone: the same numbers, whether it is trained or frozen
        let expected = if whole_model { "read from" } else { "computed" };
        assert!(report.contains(expected), "{at}: {report}");
    }
    assert_eq!(files(folder), others.len());
}

#[test]
fn a_damaged_file_is_computed_again_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let settings = cached(&tiny(Learned::Dpo, lora(), folder), folder, "out");
    report(&settings);
    let entry = fs::read_dir(folder.join("reference")).unwrap().next();
    let path = entry.unwrap().unwrap().path();
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for bad in [&good[..good.len() / 2], &good[..4], b"", &flipped] {
        fs::write(&path, bad).unwrap();
        let report = report(&settings);
        assert!(report.contains("which was damaged ("), "{report}");
        assert!(report.contains("1 file replaced"), "{report}");
        assert!(fs::read(&path).unwrap() == good);
    }
    assert_eq!(files(folder), 1);
}

#[test]
fn a_run_goes_on_without_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    for at in 0..3 {
        let name = |run: &str| format!("{run}{at}");
        let plain = starts(folder)[at].clone();
        whole(&cached(&plain, folder, &name("whole")));
        let stopped = cached(&plain, folder, &name("stopped"));
        quiet(&stopped, false, 6).unwrap();
        fs::remove_dir_all(folder.join("reference")).unwrap();
        quiet(&stopped, true, 0).unwrap();
        let at = |run: &str| folder.join(name(run));
        same(&at("whole"), &at("stopped"), &name("start "));
    }
}

/// Measurements keep nothing for a backward pass, under an adapter and of a trained model.
#[test]
fn an_evaluation_keeps_no_graph() {
    let dir = tempfile::tempdir().unwrap();
    for objective in [Learned::Sft, Learned::Dpo, Learned::Reward] {
        for adapter in [lora(), None] {
            let settings = tiny(objective, adapter, dir.path());
            let (decoder, reference) = load::start(&settings).unwrap();
            let rows = prepare(&settings, &decoder, NaiveDateTime::default()).unwrap();
            let loss = |decoder: &mut candle_align::decoder::Decoder| {
                let window = [vec![0, 1, 2]];
                let measured = rows
                    .train
                    .loss(decoder, &reference, &window[0], &window, None);
                measured.unwrap().loss
            };
            let kept = loss(&mut decoder.clone());
            let quiet = loss(&mut decoder.without_gradients());
            assert!(kept.track_op() && !quiet.track_op(), "{objective}");
            let number = |t: &candle_core::Tensor| {
                t.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap()
            };
            assert_eq!(
                number(&kept).to_bits(),
                number(&quiet).to_bits(),
                "{objective}"
            );
        }
    }
}

/// Every loss that reads sums alone takes them from such a file; the others say what they need.
#[test]
fn losses_of_sums_take_them_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    for objective in [Learned::Ipo, Learned::Aot, Learned::Wpo, Learned::Bco] {
        let folder = dir.path().join(objective.to_string());
        let mut plain = tiny(objective, lora(), &folder.join("plain"));
        plain.fit.order = Order::Sequential;
        whole(&plain);
        whole(&cached(&plain, &folder, "cached"));
        let what = objective.to_string();
        same(&folder.join("plain"), &folder.join("cached"), &what);
    }
    for (objective, problem) in [
        (Learned::Simpo, "`simpo` has no reference"),
        (
            Learned::Kto,
            "`kto` asks its reference for more than the sum",
        ),
        (Learned::Tdpo1, "`tdpo1` asks its reference for more"),
        (Learned::LdDpo, "`ld_dpo` asks its reference for more"),
    ] {
        let settings = cached(&tiny(objective, lora(), dir.path()), dir.path(), "out");
        let error = settings.check().unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}
