//! Any layout, any sizes, any type, against ordinary operations.

use super::case::{Case, NAMES, difference, passes, tensors};
use candle_core::{DType, Tensor};
use proptest::prelude::*;

/// A layout: lengths, and for each segment a draw that chooses its parent.
fn cases() -> impl Strategy<Value = Case> {
    let segments = prop::collection::vec(
        (
            prop_oneof![Just(0usize), 1usize..20, 30usize..70],
            any::<u32>(),
        ),
        1..7,
    );
    let sizes = (1usize..6, 1usize..4, 1usize..20, 1usize..20);
    let window = prop_oneof![Just(None), (1usize..80).prop_map(Some)];
    let scale = prop_oneof![Just(None), (-2.0..2.0).prop_map(Some)];
    let softcap = prop_oneof![Just(None), (0.1..20.0).prop_map(Some)];
    let settings = (window, scale, softcap);
    let prefix = (
        prop_oneof![Just(0usize), 1usize..6, Just(50)],
        any::<bool>(),
    );
    (segments, sizes, settings, prefix).prop_map(|(segments, sizes, settings, prefix)| {
        let parents = segments.iter().enumerate().map(|(i, (_, draw))| {
            let parent = *draw as usize % (i + 1);
            (parent < i).then_some(parent)
        });
        let (group, kv_heads, dim, value_dim) = sizes;
        let (window, scale, softcap) = settings;
        Case {
            lengths: segments.iter().map(|s| s.0).collect(),
            parents: parents.collect(),
            heads: group * kv_heads,
            kv_heads,
            dim,
            value_dim,
            window,
            scale,
            softcap,
            prefix: prefix.0,
            // a tree without tokens has no number among those that have some
            own_prefix: prefix.1 && segments.iter().all(|s| s.0 > 0),
        }
    })
}

/// The same numbers with the rows in another order in memory, if `turned`.
fn layout(x: &[Tensor], turned: bool) -> Vec<Tensor> {
    let of = |x: &Tensor| {
        let rank = x.rank();
        x.transpose(rank - 3, rank - 2)
            .unwrap()
            .contiguous()
            .unwrap()
            .transpose(rank - 3, rank - 2)
            .unwrap()
    };
    x.iter()
        .map(|x| {
            if turned && x.elem_count() > 0 {
                of(x)
            } else {
                x.clone()
            }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]
    #[test]
    fn any_layout_is_a_masked_softmax(case in cases(), seed in 0usize..1000, turned: bool, kind in 0usize..4) {
        let (dtype, bound) = [
            (DType::F64, 1e-12),
            (DType::F32, 1e-5),
            (DType::BF16, 0.03),
            (DType::F16, 0.004),
        ][kind];
        // nothing at all is in `errors.rs`: candle has no softmax of it
        prop_assume!(case.tokens() > 0);
        let numbers = case.numbers(seed);
        let weights = numbers.last().unwrap();
        let vars = case.vars(&numbers, dtype);
        // what is stored, computed exactly
        let stored: Vec<Vec<f64>> = tensors(&vars).iter().map(super::case::host).collect();
        let exact = case.vars(&stored, DType::F64);
        let out = case.dense(&tensors(&exact)).unwrap();
        let want = passes(&out, weights, &exact);
        let got = passes(&case.ours(&layout(&tensors(&vars), turned)).unwrap(), weights, &vars);
        let worst = difference(&got.0, &want.0);
        prop_assert!(worst < bound, "value {}", worst);
        for (i, name) in NAMES.iter().enumerate() {
            if case.prefix == 0 && i > 2 {
                continue;
            }
            let worst = difference(&got.1[i], &want.1[i]);
            prop_assert!(worst < bound, "{} {}", name, worst);
        }
    }
}
