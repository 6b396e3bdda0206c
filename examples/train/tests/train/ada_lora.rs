//! AdaLoRA on a checkpoint: its schedule is that of the run, and what it leaves is what is written.

use super::micro_batches::lines;
use super::whole_runs::{ada_lora, golden, tiny, whole};
use candle_align::decoder::{Decoder, Load};
use candle_align::peft::{AdapterMethod, AnyAdapter, Strictness};
use serde_json::Value;
use std::fs;
use train::checkpoint::settings::Learned;

/// The ranks of an adapter, by map.
fn ranks(decoder: &Decoder) -> Vec<usize> {
    let layers = decoder.adapter_layers("default").unwrap().into_values();
    let rank = |layer| match layer {
        AnyAdapter::AdaLora(layer) => layer.rank(),
        _ => panic!("another method"),
    };
    layers.map(rank).collect()
}

#[test]
fn a_run_prunes_by_its_own_steps_and_its_adapter_loads() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("first");
    let summary = whole(&tiny(Learned::Sft, ada_lora(), &out));
    let steps = lines(&out);
    assert_eq!(steps.len(), 9);
    // γ √r at the start, P and Q being near 0
    let first = steps[0]["penalty"].as_f64().unwrap();
    assert!((first - 0.5 * 3f64.sqrt()).abs() < 0.05, "{first}");
    let last = steps[8]["penalty"].as_f64().unwrap();
    assert!(last < first, "{last}");

    let text = fs::read_to_string(out.join("adapter/adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&config["total_step"], &config["init_r"]),
        (&9.into(), &3.into())
    );
    let mut decoder = Decoder::load(golden("model"), &Load::default()).unwrap();
    let left_out = decoder.load_adapter("default", out.join("adapter"), Strictness::Strict);
    assert!(left_out.unwrap().is_empty());
    let left = ranks(&decoder);
    assert_eq!((left.len(), left.iter().sum::<usize>()), (4, 4), "{left:?}");
    let AdapterMethod::AdaLora(file) = &decoder.adapter_config("default").unwrap().method else {
        panic!("another method");
    };
    assert_eq!(file.kept.len(), 4);

    // going on from it, nothing more is pruned and the loss is what it was
    let mut on = tiny(Learned::Sft, None, &dir.path().join("on"));
    on.adapter_dir = Some(out.join("adapter"));
    on.fit.max_steps = Some(5);
    let (before, after) = (whole(&on).before.unwrap(), summary.after.unwrap());
    assert!(
        (before.loss - after.loss).abs() < 1e-6,
        "{before:?} {after:?}"
    );
    let mut again = Decoder::load(golden("model"), &Load::default()).unwrap();
    let folder = dir.path().join("on/adapter");
    let left_out = again.load_adapter("default", folder, Strictness::Strict);
    assert!(left_out.unwrap().is_empty());
    assert_eq!(ranks(&again), left);
    assert!(
        again
            .set_kept_triplets("other", Default::default())
            .is_err()
    );
}
