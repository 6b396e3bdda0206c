//! The optimizer's state: whatever a file holds, loading ends in an error that names it and changes
//! nothing, or in a state that is written again as it was read.

use candle_align::training::{AdamW, AdamWConfig, ParameterGroup};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::sync::LazyLock;

/// Two variables of two types, after one step.
fn optimizer() -> AdamW {
    let (wide, half) = (
        Var::ones((2, 3), DType::F32, &Device::Cpu).unwrap(),
        Var::ones(4, DType::BF16, &Device::Cpu).unwrap(),
    );
    let vars = vec![
        ("half".to_string(), half.clone()),
        ("wide".to_string(), wide.clone()),
    ];
    let group = ParameterGroup::new(vars, 0.01);
    let mut adamw = AdamW::new(vec![group], AdamWConfig::default()).unwrap();
    let mut grads = GradStore::default();
    for var in [wide, half] {
        let n = var.elem_count();
        let grad = Tensor::arange(1f32, 1.0 + n as f32, &Device::Cpu).unwrap();
        let grad = grad
            .reshape(var.shape())
            .unwrap()
            .to_dtype(var.dtype())
            .unwrap();
        grads.insert(&var, grad);
    }
    adamw.step(&grads).unwrap();
    adamw
}

fn saved(adamw: &AdamW) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    adamw.save(&path).unwrap();
    fs::read(path).unwrap()
}

/// What [`optimizer`] writes.
static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| saved(&optimizer()));

/// The bytes of every tensor, whatever the order of names in the header.
fn tensors(file: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let read = safetensors::SafeTensors::deserialize(file).unwrap();
    let all = read.tensors().into_iter();
    all.map(|(name, view)| (name, view.data().to_vec()))
        .collect()
}

fn check(bytes: &[u8]) -> std::result::Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    fs::write(&path, bytes).unwrap();
    let mut adamw = optimizer();
    match adamw.load(&path) {
        Ok(()) => prop_assert_eq!(tensors(&saved(&adamw)), tensors(bytes)),
        Err(error) => {
            let begin = format!("AdamW::load: `{}` ", path.display());
            let message = error.to_string();
            prop_assert!(message.starts_with(&begin), "{}", message);
            prop_assert!(message.len() < 2000);
            prop_assert_eq!(tensors(&saved(&adamw)), tensors(&WHOLE));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() })]

    #[test]
    fn changed_bytes_are_an_error_or_are_read_as_they_are(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = WHOLE.clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check(&bytes)?;
    }

    #[test]
    fn a_state_that_is_cut_or_goes_on_is_an_error(
        at in any::<prop::sample::Index>(),
        more in prop::collection::vec(any::<u8>(), 1..20),
    ) {
        let whole = &*WHOLE;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.safetensors");
        for bytes in [whole[..at.index(whole.len())].to_vec(), [whole, &more[..]].concat()] {
            fs::write(&path, &bytes).unwrap();
            prop_assert!(optimizer().load(&path).is_err());
            check(&bytes)?;
        }
    }

    /// Headers made of what a header is made of, with claims of every size.
    #[test]
    fn headers_that_lie_are_errors(
        entries in prop::collection::vec(
            (
                prop::sample::select(vec!["wide.step", "wide.exp_avg", "half.master", "x", "__metadata__"]),
                prop::sample::select(vec!["F64", "F32", "BF16", "I64", "U8", "bool", ""]),
                prop::collection::vec(
                    prop::sample::select(vec![0, 1, 2, 3, 4, 1 << 31, 1 << 61, 1 << 63, u64::MAX]), 0..4),
                prop::sample::select(vec![0, 8, 24, 1 << 32, 1 << 63, u64::MAX]),
                prop::sample::select(vec![0, 8, 24, 1 << 32, 1 << 63, u64::MAX]),
            ),
            0..6,
        ),
        length in prop::option::of(any::<u64>()),
        data in 0..50usize,
    ) {
        let entries: Vec<String> = entries
            .into_iter()
            .map(|(name, dtype, shape, begin, end)| format!(
                r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
            ))
            .collect();
        let header = format!("{{{}}}", entries.join(","));
        let length = length.unwrap_or(header.len() as u64);
        let bytes = [&length.to_le_bytes(), header.as_bytes(), &vec![0; data]].concat();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.safetensors");
        fs::write(&path, &bytes).unwrap();
        prop_assert!(optimizer().load(&path).is_err());
        check(&bytes)?;
    }
}
