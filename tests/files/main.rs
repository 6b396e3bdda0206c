//! Files that anybody may have made: whatever stands in them, reading ends in an error or in what
//! was written, and writing leaves the old, the new, or nothing that is taken for an adapter.

mod adamw;
#[cfg(unix)]
mod decoder;
mod pair;
mod staged;

use candle_align::parameter_efficient::{
    Adapter, BlockScale, LoraBias, LoraConfig, LoraForModel, LoraInit, LoraLinear, Nf4Linear,
    TargetModules, Targets,
};
use candle_align::peft::{
    AdapterFile, AdapterMethod, AnyAdapter, LoraFile, ModelAdapters, Strictness,
};
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::Linear;
use proptest::prelude::*;
use rand::SeedableRng;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/adapters")
        .join(name)
}

fn folder(config: &[u8], tensors: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(CONFIG), config).unwrap();
    fs::write(folder.path().join(TENSORS), tensors).unwrap();
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn file_of(name: &str, part: &str) -> Vec<u8> {
    fs::read(golden(name).join(part)).unwrap()
}

fn bits(tensors: &BTreeMap<String, Tensor>) -> BTreeMap<String, (Vec<usize>, DType, Vec<u64>)> {
    let bits = |t: &Tensor| -> Vec<u64> {
        let wide = t.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
        wide.to_vec1::<f64>()
            .unwrap()
            .iter()
            .map(|x| x.to_bits())
            .collect()
    };
    let each = tensors.iter();
    each.map(|(name, t)| (name.clone(), (t.dims().to_vec(), t.dtype(), bits(t))))
        .collect()
}

/// Where the tensors of a file lie behind its header.
fn ranges(file: &[u8]) -> BTreeMap<String, std::ops::Range<usize>> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&file[8..8 + length]).unwrap();
    let tensors = header
        .into_iter()
        .filter(|(name, _)| name != "__metadata__");
    let at =
        |entry: &serde_json::Value, i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
    tensors
        .map(|(name, entry)| (name, at(&entry, 0)..at(&entry, 1)))
        .collect()
}

/// Reads in both manners and puts what came of it on a base model and into a file. Nothing of it may
/// panic.
fn use_it(folder: &Path, base: &HashMap<String, Tensor>) {
    for strictness in [Strictness::Strict, Strictness::Lenient] {
        let Ok(file) = AdapterFile::read(folder, strictness) else {
            continue;
        };
        let _ = file.prompt();
        let _ = file.prefix();
        let _ = file.baked();
        let out = tempfile::tempdir().unwrap();
        let _ = file.write(out.path());
        if let Ok(layers) = file.layers(base, strictness) {
            let _ = file.merged(base, strictness);
            let _ = AdapterFile::from_layers(file.config().clone(), &layers);
        }
    }
}

fn stack() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(golden("stack.safetensors"), &Device::Cpu).unwrap()
}

const NAMES: [&str; 7] = [
    "lora_patterns",
    "lora_bias_all",
    "lora_embedding",
    "dora",
    "adalora",
    "vera",
    "prefix",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() })]

    /// A changed byte among the numbers is another number of its tensor, and of no other; anywhere else it is an error, or is of no
    /// effect on what is read.
    #[test]
    fn changed_bytes_are_an_error_or_change_no_more_than_their_own_tensor(
        which in 0..NAMES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let original = file_of(NAMES[which], TENSORS);
        let header = 8 + u64::from_le_bytes(original[..8].try_into().unwrap()) as usize;
        let mut bytes = original.clone();
        for (at, value) in &changes {
            bytes[at.index(original.len())] = *value;
        }
        let config = file_of(NAMES[which], CONFIG);
        let folder = folder(&config, &bytes);
        use_it(folder.path(), &stack());
        let Ok(read) = AdapterFile::read(folder.path(), Strictness::Strict) else {
            return Ok(());
        };
        let before = AdapterFile::read(golden(NAMES[which]), Strictness::Strict).unwrap();
        if bytes[..header] == original[..header] {
            let (before, after) = (bits(before.tensors()), bits(read.tensors()));
            for (name, range) in ranges(&original) {
                let range = header + range.start..header + range.end;
                let (old, new) = (&before[&name], &after[&name]);
                prop_assert_eq!((&old.0, old.1), (&new.0, new.1));
                let untouched = bytes[range.clone()] == original[range];
                prop_assert_eq!(old.2 == new.2, untouched, "{}", name);
            }
        } else if bytes[header..] == original[header..] {
            // a header may be another and true: the numbers are then the same, in their order
            let all = |file: &AdapterFile| {
                let count = file.tensors().values().map(|t| t.elem_count() * t.dtype().size_in_bytes());
                count.sum::<usize>()
            };
            prop_assert_eq!(all(&read), all(&before));
        }
    }

    #[test]
    fn a_file_that_is_cut_or_goes_on_is_an_error(
        which in 0..NAMES.len(),
        at in any::<prop::sample::Index>(),
        more in prop::collection::vec(any::<u8>(), 1..20),
    ) {
        let config = file_of(NAMES[which], CONFIG);
        let whole = file_of(NAMES[which], TENSORS);
        let cut = folder(&config, &whole[..at.index(whole.len())]);
        prop_assert!(AdapterFile::read(cut.path(), Strictness::Lenient).is_err());
        let long = folder(&config, &[whole, more].concat());
        prop_assert!(AdapterFile::read(long.path(), Strictness::Lenient).is_err());
    }

    /// Headers made of what a header is made of, with claims of every size.
    #[test]
    fn headers_that_lie_are_errors(
        entries in prop::collection::vec(
            (
                prop::sample::select(vec!["a", "b", "c", "__metadata__"]),
                prop::sample::select(vec!["F32", "F64", "BF16", "F16", "F4", "BOOL"]),
                prop::collection::vec(
                    prop_oneof![0u64..4, Just(1 << 32), Just(u64::MAX), any::<u64>()], 0..4),
                prop_oneof![0u64..20, Just(u64::MAX), any::<u64>()],
                prop_oneof![0u64..40, Just(u64::MAX), any::<u64>()],
            ),
            0..4,
        ),
        data in 0usize..40,
    ) {
        let entries: Vec<String> = entries.iter().map(|(name, dtype, shape, begin, end)| format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
        )).collect();
        let header = format!("{{{}}}", entries.join(","));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![1u8; data]);
        let folder = folder(&file_of("lora", CONFIG), &bytes);
        if let Ok(file) = AdapterFile::read(folder.path(), Strictness::Strict) {
            // what is believed is true
            let sizes = file.tensors().values().map(|t| t.elem_count() * t.dtype().size_in_bytes());
            prop_assert_eq!(sizes.sum::<usize>(), data);
            // and the format's own reader agrees
            let path = folder.path().join(TENSORS);
            prop_assert!(candle_core::safetensors::load(path, &Device::Cpu).is_ok());
        }
    }

    #[test]
    fn settings_of_any_text_are_an_error_or_settings(
        which in 0..NAMES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut config = file_of(NAMES[which], CONFIG);
        for (at, value) in &changes {
            let at = at.index(config.len());
            config[at] = *value;
        }
        let folder = folder(&config, &file_of(NAMES[which], TENSORS));
        use_it(folder.path(), &stack());
    }

    /// Values of every kind and size under every key.
    #[test]
    fn a_setting_of_any_value_is_an_error_or_a_setting(
        which in 0..NAMES.len(),
        key in any::<prop::sample::Index>(),
        value in prop::sample::select(vec![
            "null", "true", "0", "-1", "1", "2.5", "1e300", "1e999", "18446744073709551615", "\"\"",
            "\"(\"", "\"none\"", "\".*\"", "[]", "{}", "[\"q_proj\"]", "[1]", "[\"\"]", "{\"q_proj\":1}",
            "{\"(\":1}", "{\".*\":18446744073709551615}", "{\"q_proj\":-1.5}",
        ]),
    ) {
        let text = file_of(NAMES[which], CONFIG);
        let mut config: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&text).unwrap();
        let key = config.keys().nth(key.index(config.len())).unwrap().clone();
        config.remove(&key);
        let rest = serde_json::to_string(&config).unwrap();
        let text = format!("{{\"{key}\":{value},{}", &rest[1..]);
        let folder = folder(text.as_bytes(), &file_of(NAMES[which], TENSORS));
        use_it(folder.path(), &stack());
    }
}

/// A schedule longer than its numbers can add up to: it is read, and cannot be written.
#[test]
fn a_phase_beyond_all_numbers_is_an_error() {
    for key in ["tinit", "tfinal"] {
        let mut config: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&file_of("adalora", CONFIG)).unwrap();
        config.insert(key.to_string(), u64::MAX.into());
        let text = serde_json::to_vec(&config).unwrap();
        let folder = folder(&text, &file_of("adalora", TENSORS));
        let file = AdapterFile::read(folder.path(), Strictness::Strict).unwrap();
        let out = tempfile::tempdir().unwrap();
        let message = "`total_steps` must be above initial_steps + final_steps, got 10";
        let error = file.write(out.path()).unwrap_err().to_string();
        assert_eq!(error, format!("AdapterFile::write: {message}"));
        let layers = file.layers(&stack(), Strictness::Strict).unwrap();
        let error = AdapterFile::from_layers(file.config().clone(), &layers).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("AdapterFile::from_layers: {message}")
        );
    }
}

/// The first key that fits decides: what is read and written again has its keys in the same order.
#[test]
fn the_order_of_a_pattern_is_that_of_the_file() {
    let text = String::from_utf8(file_of("lora", CONFIG)).unwrap();
    let ordered = r#""rank_pattern": {
    "v_proj": 1,
    "q_proj": 2,
    "layers.1.q_proj": 8
  }"#;
    let text = text.replace(r#""rank_pattern": {}"#, ordered);
    assert!(text.contains(ordered));
    let folder = folder(text.as_bytes(), &file_of("lora", TENSORS));
    let file = AdapterFile::read(folder.path(), Strictness::Strict).unwrap();
    let out = tempfile::tempdir().unwrap();
    file.write(out.path()).unwrap();
    let written = fs::read_to_string(out.path().join(CONFIG)).unwrap();
    assert!(written.contains(ordered), "{written}");
    let back = AdapterFile::read(out.path(), Strictness::Strict).unwrap();
    assert_eq!(back.config(), file.config());
}

#[test]
fn what_is_written_is_read_back_bit_for_bit_in_every_type() {
    let base = stack();
    for dtype in [DType::F32, DType::F64] {
        let base = base
            .iter()
            .map(|(n, t)| (n.clone(), t.to_dtype(dtype).unwrap()))
            .collect();
        for name in NAMES {
            let file = AdapterFile::read(golden(name), Strictness::Strict).unwrap();
            let Ok(layers) = file.layers(&base, Strictness::Strict) else {
                assert_eq!(name, "prefix");
                continue;
            };
            let file = AdapterFile::from_layers(file.config().clone(), &layers).unwrap();
            let out = tempfile::tempdir().unwrap();
            let nested = out.path().join("runs/one");
            file.write(&nested).unwrap();
            let back = AdapterFile::read(&nested, Strictness::Strict).unwrap();
            assert_eq!(
                bits(back.tensors()),
                bits(file.tensors()),
                "{name} {dtype:?}"
            );
            assert_eq!(back.config(), file.config(), "{name}");
            let left: Vec<_> = fs::read_dir(&nested)
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            assert_eq!(left.len(), 2, "{left:?}");
        }
    }
}

/// PEFT 0.21.2 refuses a file with `lora_bias` and any word for the start.
#[test]
fn a_start_that_peft_refuses_is_not_written() {
    for (bias, init) in [
        (LoraBias::Update, serde_json::json!(true)),
        (LoraBias::Frozen, serde_json::json!("gaussian")),
    ] {
        let config = LoraConfig {
            init: LoraInit::Gaussian,
            bias,
            ..Default::default()
        };
        let model = LoraForModel {
            config,
            targets: Targets {
                target_modules: TargetModules::Names(vec!["q".to_string()]),
                ..Default::default()
            },
            ..Default::default()
        };
        let weight = Tensor::zeros((3, 4), DType::F32, &Device::Cpu).unwrap();
        let one = model.for_module("q").unwrap().unwrap();
        let rng = &mut rand::rngs::StdRng::seed_from_u64(0);
        let layer = LoraLinear::new(&Linear::new(weight, None), &one, rng).unwrap();
        let layers = BTreeMap::from([("q".to_string(), AnyAdapter::Lora(layer))]);
        let layers = ModelAdapters {
            layers,
            ..Default::default()
        };
        let method = AdapterMethod::Lora(LoraFile {
            model,
            ..Default::default()
        });
        let out = tempfile::tempdir().unwrap();
        let file = AdapterFile::from_layers(method.into(), &layers).unwrap();
        file.write(out.path()).unwrap();
        let text = fs::read_to_string(out.path().join("adapter_config.json")).unwrap();
        let written: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(written["init_lora_weights"], init, "{bias:?}");
    }
}

#[test]
fn half_precision_is_read_as_it_is() {
    for (name, dtype) in [("F16", DType::F16), ("BF16", DType::BF16)] {
        let header = format!(r#"{{"a":{{"dtype":"{name}","shape":[2],"data_offsets":[0,4]}}}}"#);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        let one = match dtype {
            DType::F16 => 0x3c00u16,
            _ => 0x3f80,
        };
        bytes.extend([one.to_le_bytes(), (one | 0x8000).to_le_bytes()].concat());
        let folder = folder(&file_of("lora", CONFIG), &bytes);
        let file = AdapterFile::read(folder.path(), Strictness::Strict).unwrap();
        let a = &file.tensors()["a"];
        assert_eq!(a.dtype(), dtype);
        let a = a.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(a, [1.0, -1.0]);
    }
}

#[test]
fn a_prompt_keeps_double_precision_and_widens_the_rest() {
    let file = AdapterFile::read(golden("prompt"), Strictness::Strict).unwrap();
    let name = "prompt_embeddings";
    for dtype in [DType::F64, DType::F32, DType::BF16, DType::F16] {
        let saved = (&file.tensors()[name] / 3.0).unwrap();
        let saved = saved.to_dtype(dtype).unwrap();
        let folder = folder(&file_of("prompt", CONFIG), &[]);
        let tensors = HashMap::from([(name, saved.clone())]);
        candle_core::safetensors::save(&tensors, folder.path().join(TENSORS)).unwrap();
        let file = AdapterFile::read(folder.path(), Strictness::Strict).unwrap();
        let values = file.prompt().unwrap().values().as_detached_tensor();
        let want = match dtype {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        let wide = saved.to_dtype(want).unwrap();
        let named = |t: Tensor| bits(&[(name.to_string(), t)].into());
        assert_eq!(named(values), named(wide), "{dtype:?}");
    }
}

#[test]
fn an_embedding_has_no_dropout_whatever_the_settings_say() {
    let config = String::from_utf8(file_of("lora_embedding", CONFIG)).unwrap();
    let with = config.replace("\"lora_dropout\": 0.0", "\"lora_dropout\": 0.25");
    assert_ne!(with, config);
    let folder = folder(with.as_bytes(), &file_of("lora_embedding", TENSORS));
    let file = AdapterFile::read(folder.path(), Strictness::Strict).unwrap();
    let found = file.layers(&stack(), Strictness::Strict).unwrap();
    let embedding = |layer: &AnyAdapter| matches!(layer, AnyAdapter::LoraEmbedding(_));
    assert!(found.layers.values().any(embedding));
}

/// A folder stands where one of the two files would be put: writing fails then.
#[test]
fn a_write_that_fails_leaves_the_old_adapter() {
    let out = tempfile::tempdir().unwrap();
    let old = AdapterFile::read(golden("lora"), Strictness::Strict).unwrap();
    let new = AdapterFile::read(golden("dora"), Strictness::Strict).unwrap();
    old.write(out.path()).unwrap();
    for blocked in [TENSORS, CONFIG] {
        let place = out.path().join(blocked);
        let kept = fs::read(&place).unwrap();
        fs::remove_file(&place).unwrap();
        fs::create_dir(&place).unwrap();
        assert!(new.write(out.path()).is_err());
        fs::remove_dir(&place).unwrap();
        fs::write(&place, kept).unwrap();
        let back = AdapterFile::read(out.path(), Strictness::Strict).unwrap();
        assert_eq!(bits(back.tensors()), bits(old.tensors()));
        assert_eq!(back.config(), old.config());
        assert_eq!(
            fs::read_dir(out.path()).unwrap().count(),
            2,
            "nothing beside the two files"
        );
    }
    new.write(out.path()).unwrap();
    let back = AdapterFile::read(out.path(), Strictness::Strict).unwrap();
    assert_eq!(back.config(), new.config());
}

/// The places of the two files, in the order in which they are taken: where the tensors cannot take
/// theirs, the settings are as they were.
#[test]
fn settings_never_stand_beside_the_tensors_of_another() {
    let out = tempfile::tempdir().unwrap();
    let old = AdapterFile::read(golden("lora"), Strictness::Strict).unwrap();
    let new = AdapterFile::read(golden("dora"), Strictness::Strict).unwrap();
    old.write(out.path()).unwrap();
    let settings = fs::read(out.path().join(CONFIG)).unwrap();
    // a folder with something in it cannot be replaced by a file
    let place = out.path().join(TENSORS);
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    fs::write(place.join("x"), "x").unwrap();
    assert!(new.write(out.path()).is_err());
    assert_eq!(fs::read(out.path().join(CONFIG)).unwrap(), settings);
    assert!(AdapterFile::read(out.path(), Strictness::Lenient).is_err());
}

/// The same adapter after more training: the settings never leave their place, so that there is no
/// moment without an adapter.
#[test]
fn new_tensors_of_the_same_settings_take_their_place_in_one_step() {
    let out = tempfile::tempdir().unwrap();
    let file = AdapterFile::read(golden("lora"), Strictness::Strict).unwrap();
    file.write(out.path()).unwrap();
    let text = fs::read(out.path().join(CONFIG)).unwrap();
    // the tensors cannot take their place: all else is as it was
    let place = out.path().join(TENSORS);
    let old = fs::read(&place).unwrap();
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    fs::write(place.join("x"), "x").unwrap();
    assert!(file.write(out.path()).is_err());
    assert_eq!(fs::read(out.path().join(CONFIG)).unwrap(), text);
    fs::remove_dir_all(&place).unwrap();
    fs::write(&place, old).unwrap();
    // and now they can
    let layers = file.layers(&stack(), Strictness::Strict).unwrap();
    for (path, layer) in &layers.layers {
        for (_, var) in layer.trainable(path) {
            var.set(&(var.as_detached_tensor() + 1.0).unwrap()).unwrap();
        }
    }
    let next = AdapterFile::from_layers(file.config().clone(), &layers).unwrap();
    next.write(out.path()).unwrap();
    let back = AdapterFile::read(out.path(), Strictness::Strict).unwrap();
    assert_eq!(bits(back.tensors()), bits(next.tensors()));
    assert_ne!(bits(back.tensors()), bits(file.tensors()));
    assert_eq!(fs::read(out.path().join(CONFIG)).unwrap(), text);
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 2);
}

/// LoRA on a base whose weights are bitsandbytes' four bits: the same adapter on the weights that
/// those bits stand for.
#[test]
fn an_adapter_goes_on_a_quantized_base() {
    for name in ["lora", "lora_bias_only", "lora_bias_update"] {
        let file = AdapterFile::read(golden(name), Strictness::Strict).unwrap();
        let (mut four_bits, mut wide) = (stack(), stack());
        let paths: Vec<String> = file
            .layers(&wide, Strictness::Strict)
            .unwrap()
            .layers
            .into_keys()
            .collect();
        for path in &paths {
            let weight = wide[&format!("{path}.weight")].clone();
            let bias = wide.get(&format!("{path}.bias")).cloned();
            let base = Nf4Linear::quantize(&Linear::new(weight, bias), BlockScale::Double).unwrap();
            wide.insert(
                format!("{path}.weight"),
                base.weight().dequantize().unwrap(),
            );
            four_bits.extend(base.to_state_dict(path).unwrap());
        }
        let over = file.layers(&four_bits, Strictness::Strict).unwrap();
        let beside = file.layers(&wide, Strictness::Strict).unwrap();
        for (path, layer) in &over.layers {
            let AnyAdapter::Qlora(found) = layer else {
                panic!("{name}, {path}: {layer:?}");
            };
            let x = Tensor::arange(0f32, 2.0 * found.a().dims()[1] as f32, &Device::Cpu).unwrap();
            let x = (x.reshape((2, ())).unwrap() * 0.1).unwrap();
            let values = |x: Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let got = values(layer.forward(&x).unwrap());
            let want = values(beside.layers[path].forward(&x).unwrap());
            for (got, want) in got.iter().zip(&want) {
                assert!(
                    (got - want).abs() <= 1e-5 * want.abs().max(1.0),
                    "{name}, {path}"
                );
            }
        }
        // and into a file again, bit for bit
        let again = AdapterFile::from_layers(file.config().clone(), &over).unwrap();
        assert_eq!(bits(again.tensors()), bits(file.tensors()), "{name}");
        // merged, no trace of the four bits is left
        let merged = file.merged(&four_bits, Strictness::Strict).unwrap().tensors;
        let want = file.merged(&wide, Strictness::Strict).unwrap().tensors;
        let (mut names, mut expected): (Vec<_>, Vec<_>) =
            (merged.keys().collect(), want.keys().collect());
        names.sort();
        expected.sort();
        assert_eq!(names, expected, "{name}");
    }
    let file = AdapterFile::read(golden("dora"), Strictness::Strict).unwrap();
    let mut base = stack();
    let q = "model.layers.0.q_proj";
    let weight = base[&format!("{q}.weight")].clone();
    let nf4 = Nf4Linear::quantize(&Linear::new(weight, None), BlockScale::Single).unwrap();
    base.extend(nf4.to_state_dict(q).unwrap());
    let error = file
        .layers(&base, Strictness::Lenient)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "AdapterFile::layers: `base` holds `model.layers.0.q_proj` quantized, over which only LoRA is supported"
    );
}
