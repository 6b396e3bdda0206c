use crate::common::{numbers, var, vector};
use candle_align::training::{AdamW, AdamWConfig, ParameterGroup};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

fn group(vars: &[(&str, &Var)]) -> Vec<ParameterGroup> {
    let vars = vars
        .iter()
        .map(|(n, v)| (n.to_string(), (*v).clone()))
        .collect();
    vec![ParameterGroup::new(vars, 0.0)]
}

fn refused(groups: Vec<ParameterGroup>, config: AdamWConfig) -> String {
    AdamW::new(groups, config).unwrap_err().to_string()
}

#[test]
fn settings_out_of_range() {
    let default = AdamWConfig::default;
    for (config, message) in [
        (
            AdamWConfig {
                learning_rate: 0.0,
                ..default()
            },
            "`learning_rate` must be finite and > 0, got 0",
        ),
        (
            AdamWConfig {
                beta1: 1.0,
                ..default()
            },
            "`beta1` must be in [0, 1), got 1",
        ),
        (
            AdamWConfig {
                beta2: -0.1,
                ..default()
            },
            "`beta2` must be in [0, 1), got -0.1",
        ),
        (
            AdamWConfig {
                epsilon: 0.0,
                ..default()
            },
            "`epsilon` must be finite and > 0, got 0",
        ),
    ] {
        assert_eq!(refused(vec![], config), format!("AdamW::new: {message}"));
    }
    let mut bad = group(&[("a", &var(&[1.0]))]);
    bad[0].rate = 0.0;
    assert_eq!(
        refused(bad.clone(), default()),
        "AdamW::new: `rate` must be finite and > 0, got 0"
    );
    (bad[0].rate, bad[0].weight_decay) = (1.0, -1.0);
    assert_eq!(
        refused(bad, default()),
        "AdamW::new: `weight_decay` must be finite and >= 0, got -1"
    );
    let mut adamw = AdamW::new(vec![], default()).unwrap();
    assert_eq!(
        adamw.set_learning_rate(f64::NAN).unwrap_err().to_string(),
        "AdamW::set_learning_rate: `rate` must be finite and >= 0, got NaN"
    );
}

#[test]
fn variables_that_stand_twice_or_have_no_moments() {
    let (a, b) = (var(&[1.0]), var(&[1.0]));
    let twice = "AdamW::new: `groups` holds the variable `a` twice";
    assert_eq!(
        refused(group(&[("a", &a), ("a", &b)]), AdamWConfig::default()),
        twice
    );
    let message = refused(group(&[("b", &a), ("a", &a)]), AdamWConfig::default());
    assert_eq!(
        message,
        "AdamW::new: `groups` holds one variable as `b` and as `a`: list it once"
    );
    let counts = Var::zeros(2, DType::U32, &Device::Cpu).unwrap();
    assert_eq!(
        refused(group(&[("counts", &counts)]), AdamWConfig::default()),
        "AdamW::new: `counts` is u32, expected f32, f64, bf16 or f16"
    );
}

#[test]
fn a_gradient_that_is_not_finite_is_named_and_nothing_is_changed() {
    let (a, b) = (var(&[1.0]), var(&[2.0]));
    let mut adamw = AdamW::new(group(&[("a", &a), ("b", &b)]), AdamWConfig::default()).unwrap();
    let mut grads = GradStore::default();
    grads.insert(&a, vector(&[1.0]));
    grads.insert(&b, vector(&[f64::INFINITY]));
    assert_eq!(
        adamw.step(&grads).unwrap_err().to_string(),
        "AdamW::step: `grads` holds a gradient of `b` that is not finite"
    );
    assert_eq!((numbers(&a), numbers(&b)), (vec![1.0], vec![2.0]));
}

#[test]
fn a_gradient_of_another_shape_or_type_is_named_and_nothing_is_changed() {
    let (a, b) = (var(&[1.0]), var(&[2.0, 3.0]));
    let half = Var::ones(2, DType::BF16, &Device::Cpu).unwrap();
    let vars = [("a", &a), ("b", &b), ("half", &half)];
    let refused = |of: &Var, grad: Tensor| {
        let mut adamw = AdamW::new(group(&vars), AdamWConfig::default()).unwrap();
        let mut grads = GradStore::default();
        grads.insert(&a, vector(&[1.0]));
        grads.insert(of, grad);
        let message = adamw.step(&grads).unwrap_err().to_string();
        assert_eq!((numbers(&a), numbers(&b)), (vec![1.0], vec![2.0, 3.0]));
        message
    };
    assert_eq!(
        refused(&b, vector(&[1.0])),
        "AdamW::step: `grads[b]` has shape [1], expected [2]"
    );
    assert_eq!(
        refused(&b, vector(&[1.0, 2.0]).to_dtype(DType::F32).unwrap()),
        "AdamW::step: `grads[b]` is f32, expected f64"
    );
    assert_eq!(
        refused(&half, vector(&[1.0, 2.0])),
        "AdamW::step: `grads[half]` is f64, expected bf16 or f32"
    );
}

/// The state of one variable `a` with two numbers, as a file may describe it.
fn state(entry: &str, data: &[u8]) -> Vec<u8> {
    let rest = r#""a.exp_avg":{"dtype":"F64","shape":[2],"data_offsets":[8,24]},"a.exp_avg_sq":{"dtype":"F64","shape":[2],"data_offsets":[24,40]}"#;
    let header = match entry {
        "" => format!("{{{rest}}}"),
        entry => format!("{{{entry},{rest}}}"),
    };
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

const STEP: &str = r#""a.step":{"dtype":"I64","shape":[],"data_offsets":[0,8]}"#;

/// What loading says of the file, without the name of the function and the file, both of which it must
/// begin with.
fn loading(path: &std::path::Path, vars: &[(&str, &Var)]) -> String {
    let mut adamw = AdamW::new(group(vars), AdamWConfig::default()).unwrap();
    let message = adamw.load(path).unwrap_err().to_string();
    let begin = format!("AdamW::load: `{}` ", path.display());
    let rest = message.strip_prefix(&begin);
    rest.unwrap_or_else(|| panic!("{message}")).to_string()
}

#[test]
fn a_state_of_other_variables_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let a = var(&[1.0, 2.0]);
    AdamW::new(group(&[("a", &a)]), AdamWConfig::default())
        .unwrap()
        .save(&path)
        .unwrap();
    let load = |vars: &[(&str, &Var)]| loading(&path, vars);
    assert_eq!(load(&[("b", &a)]), "holds no tensor `b.step`");
    assert_eq!(
        load(&[("a", &var(&[1.0]))]),
        "holds `a.exp_avg` as f64 [2], expected f64 [1]"
    );
    assert_eq!(
        load(&[]),
        "holds `a.exp_avg`, which belongs to no variable here"
    );
}

#[test]
fn a_state_that_no_optimizer_wrote_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let a = var(&[1.0, 2.0]);
    let say = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        loading(&path, &[("a", &a)])
    };
    let whole = [0; 40];
    let mut good = AdamW::new(group(&[("a", &a)]), AdamWConfig::default()).unwrap();
    std::fs::write(&path, state(STEP, &whole)).unwrap();
    good.load(&path).unwrap();

    assert_eq!(say(b"seven b"), "is cut short: it has 7 bytes");
    assert_eq!(
        say(&[9, 0, 0, 0, 0, 0, 0, 0, 0]),
        "is cut short: it has 9 bytes"
    );
    assert_eq!(
        say(b"<!DOCTYPE html>"),
        format!(
            "claims a header of {} bytes, above 100000000",
            u64::from_le_bytes(*b"<!DOCTYP")
        )
    );
    // the longest header there may be, and one byte more
    let header = |length: u64| [length.to_le_bytes(), *b"{       "].concat();
    assert_eq!(say(&header(100_000_000)), "is cut short: it has 16 bytes");
    assert_eq!(
        say(&header(100_000_001)),
        "claims a header of 100000001 bytes, above 100000000"
    );
    assert_eq!(
        say(&[&2u64.to_le_bytes()[..], b"[]"].concat()),
        "has a header that is not one: invalid type: sequence, expected an object at line 1 column 0"
    );
    assert_eq!(
        say(&state("\"x\":1", &whole)),
        "describes `x` wrongly: invalid type: integer `1`, expected an object of dtype, shape and \
         data_offsets at line 1 column 1"
    );
    assert_eq!(
        say(&state(&format!("{STEP},{STEP}"), &whole)),
        "has a header that is not one: the key `a.step` stands twice at line 1 column 114"
    );
    assert_eq!(
        say(&state(STEP, &whole[1..])),
        "holds `a.exp_avg_sq`, whose bytes are cut short"
    );
    assert_eq!(
        say(&state(STEP, &[0; 41])),
        "has 1 bytes that belong to no tensor"
    );
    assert_eq!(
        say(&state("", &whole)),
        "holds `a.exp_avg`, before which bytes belong to no tensor"
    );
    assert_eq!(
        say(&state(&STEP.replace("[0,8]", "[8,0]"), &whole)),
        "holds `a.step`, before which bytes belong to no tensor"
    );
    assert_eq!(
        say(&state(&STEP.replace("I64", "F64"), &whole)),
        "holds `a.step` as f64 [], expected i64 []"
    );
    let mut backwards = state(STEP, &whole);
    let at = backwards.windows(7).position(|w| w == b"[24,40]").unwrap();
    backwards[at..at + 7].copy_from_slice(b"[24, 8]");
    assert_eq!(
        say(&backwards),
        "holds `a.exp_avg_sq`, of shape [2], which takes 16 bytes, at bytes 24 to 8"
    );
    // more than there are numbers for, hidden behind an axis of 0
    for shape in ["[0,9223372036854775808,4]", "[18446744073709551615]"] {
        let entry = STEP.replace("[]", shape);
        let want = "holds `a.step`, whose shape overflows";
        assert_eq!(say(&state(&entry, &whole)), want);
    }
    assert_eq!(
        say(&state(&STEP.replace("I64", "F33"), &whole)),
        "holds `a.step`, which is F33; an optimizer's state holds F64, F32 or I64"
    );
    assert_eq!(
        say(&state(&STEP.replace("[]", "[1]"), &whole)),
        "holds `a.step` as i64 [1], expected i64 []"
    );
    // a shape that fits, and bytes that do not
    let entry = STEP.replace("[0,8]", "[0,4]");
    let mut moved = state(&entry, &whole);
    let at = moved.windows(6).position(|w| w == b"[8,24]").unwrap();
    moved[at..at + 6].copy_from_slice(b"[4,24]");
    assert_eq!(
        say(&moved),
        "holds `a.step`, of shape [], which takes 8 bytes, at bytes 0 to 4"
    );
    // numbers that no step leaves behind
    let with = |at: usize, number: [u8; 8]| {
        let mut data = whole;
        data[at..at + 8].copy_from_slice(&number);
        state(STEP, &data)
    };
    assert_eq!(say(&with(0, (-1i64).to_le_bytes())), "holds `a.step` = -1");
    assert_eq!(
        say(&with(16, f64::NAN.to_le_bytes())),
        "holds NaN in `a.exp_avg`"
    );
    assert_eq!(
        say(&with(24, (-0.5f64).to_le_bytes())),
        "holds -0.5 in `a.exp_avg_sq`"
    );
    // words about a file are texts
    let entry = format!(r#"{STEP},"__metadata__":{{"step":1}}"#);
    assert_eq!(
        say(&state(&entry, &whole)),
        "has `__metadata__` that is no text: invalid type: integer `1`, expected a string at line 1 \
         column 9"
    );
    // a text of any length is cut
    let long = STEP.replace("I64", &"I".repeat(100_000));
    assert!(say(&state(&long, &whole)).len() < 1000);
    let long = STEP.replace("a.step", &"ä".repeat(100_000));
    assert!(say(&state(&format!("{long},{long}"), &whole)).len() < 1000);
}

/// Tensors whose sizes add up to more than all numbers.
#[test]
fn sizes_that_add_up_to_more_than_all_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let each = (1u64 << 61) - 4;
    let entries: Vec<String> = (0..8)
        .map(|i| {
            let (begin, end) = (i * each, (i + 1) * each);
            let numbers = each / 4;
            format!(
                r#""a{i}":{{"dtype":"F32","shape":[{numbers}],"data_offsets":[{begin},{end}]}}"#
            )
        })
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(
        loading(&path, &[("a", &var(&[1.0, 2.0]))]),
        "holds `a0`, whose bytes are cut short"
    );
}

#[test]
fn what_is_no_regular_file_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let a = var(&[1.0]);
    let missing = folder.path().join("missing");
    assert!(loading(&missing, &[("a", &a)]).starts_with("cannot be read: "));
    assert_eq!(
        loading(folder.path(), &[("a", &a)]),
        "cannot be read: it is a folder, not a file"
    );
    #[cfg(unix)]
    {
        let device = std::path::Path::new("/dev/null");
        let other = "cannot be read: it is a device, not a file";
        assert_eq!(loading(device, &[("a", &a)]), other);
        let other = "cannot be read: it is a named pipe, not a file";
        // a reader of a pipe waits for a writer: there is one, so that this ends either way
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let to = pipe.clone();
        let writer = std::thread::spawn(move || std::fs::write(to, [0; 100]));
        let message = loading(&pipe, &[("a", &a)]);
        // lets the writer go
        drop(std::fs::read(&pipe));
        drop(writer.join());
        assert_eq!(message, other);
    }
}

#[test]
fn a_state_that_cannot_be_written_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("taken");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("kept"), b"x").unwrap();
    let adamw = AdamW::new(group(&[("a", &var(&[1.0]))]), AdamWConfig::default()).unwrap();
    let message = adamw.save(&path).unwrap_err().to_string();
    let begin = format!("AdamW::save: `{}` cannot be written: ", path.display());
    assert!(message.starts_with(&begin), "{message}");
    let nowhere = folder.path().join("no/such/folder");
    let message = adamw.save(&nowhere).unwrap_err().to_string();
    let begin = format!("AdamW::save: `{}` cannot be written: ", nowhere.display());
    assert!(message.starts_with(&begin), "{message}");
    assert_eq!(std::fs::read(path.join("kept")).unwrap(), b"x");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
