use crate::common::lora::{BIAS, WEIGHT, bits, irregular, tensor};
use crate::common::vector;
use candle_align::parameter_efficient::{
    Adapter, BiasLinear, DesignSpaceConfig, Grouping, LayerSize, Strategy,
};
use candle_core::DType;
use candle_nn::{Linear, Module};

#[test]
fn every_spindle_covers_its_layers_and_is_one() {
    let space = DesignSpaceConfig {
        grouping: Grouping::Spindle,
        strategies: [
            Strategy::Adapter,
            Strategy::Prefix,
            Strategy::BitFit,
            Strategy::Lora,
        ]
        .map(|s| [s].into())
        .to_vec(),
    };
    for layers in (6..200).filter(|l| *l != 7) {
        let assigned = space.assign(layers).unwrap();
        assert_eq!(assigned.len(), layers);
        // consecutive groups: the strategies never go back
        let order: Vec<Strategy> = assigned.iter().map(|s| *s.first().unwrap()).collect();
        let mut sizes = order.chunk_by(|a, b| a == b).map(<[Strategy]>::len);
        let sizes: [usize; 4] = std::array::from_fn(|_| sizes.next().unwrap());
        assert_eq!(sizes.iter().sum::<usize>(), layers, "{sizes:?}");
        let [n1, n2, n3, n4] = sizes;
        assert!(n1 < n2 && n2 == n3 && n3 > n4, "{sizes:?}");
        assert!(n4 - n1 <= 1, "{sizes:?}");
    }
}

#[test]
fn every_layer_trains_nearly_as_much_as_it_may() {
    let space = DesignSpaceConfig::default();
    let size = LayerSize {
        dim: 48,
        kv_dim: 32,
        lora: 48 + 144,
        biases: 400,
    };
    for per_layer in [1000, 1234, 5000, 100_000] {
        let plans = space.plan(12, per_layer, &size).unwrap();
        for (plan, set) in plans.iter().zip(space.assign(12).unwrap()) {
            assert_eq!(plan.adapter > 0, set.contains(&Strategy::Adapter));
            assert_eq!(plan.prefix > 0, set.contains(&Strategy::Prefix));
            assert_eq!(plan.rank > 0, set.contains(&Strategy::Lora));
            assert_eq!(plan.biases, set.contains(&Strategy::BitFit));
            let unit = |s, cost| if set.contains(&s) { cost } else { 0 };
            let units = unit(Strategy::Adapter, 2 * size.dim)
                + unit(Strategy::Prefix, 2 * size.kv_dim)
                + unit(Strategy::Lora, size.lora);
            let trained = plan.parameters(&size);
            assert!(
                trained <= per_layer && trained + units > per_layer,
                "{plan:?}"
            );
        }
    }
}

#[test]
fn one_strategy_for_all_is_that_method() {
    let space = DesignSpaceConfig {
        grouping: Grouping::Sizes(vec![5]),
        strategies: vec![[Strategy::Lora].into()],
    };
    let size = LayerSize {
        dim: 8,
        kv_dim: 8,
        lora: 32,
        biases: 9,
    };
    for plan in space.plan(5, 4 * 32, &size).unwrap() {
        assert_eq!((plan.rank, plan.parameters(&size)), (4, 4 * 32));
    }
}

#[test]
fn a_trained_bias_starts_as_the_base_and_can_be_switched_off() {
    for dtype in [DType::F64, DType::F32, DType::BF16] {
        let cast = |t: candle_core::Tensor| t.to_dtype(dtype).unwrap();
        for bias in [None, Some(cast(vector(&BIAS)))] {
            let base = Linear::new(cast(tensor(&WEIGHT)), bias);
            let mut layer = BiasLinear::new(&base).unwrap();
            let x = cast(irregular(&[2, 3, 4]));
            let start = bits(&layer.base().forward(&x).unwrap());
            assert_eq!(bits(&layer.forward(&x).unwrap()), start);
            if dtype != DType::BF16 {
                assert_eq!(start, bits(&base.forward(&x).unwrap()));
            }
            let moved = (layer.bias().as_tensor() + 0.75).unwrap();
            layer.bias().set(&moved).unwrap();
            assert_ne!(bits(&layer.forward(&x).unwrap()), start);
            layer.set_enabled(false);
            assert!(!layer.is_enabled());
            assert_eq!(bits(&layer.forward(&x).unwrap()), start);
            layer.set_enabled(true);
            assert!(layer.is_enabled());
            assert_ne!(bits(&layer.forward(&x).unwrap()), start);
        }
    }
}

#[test]
fn only_the_bias_gets_a_gradient() {
    let layer = BiasLinear::new(&Linear::new(irregular(&[17, 13]), None)).unwrap();
    let y = layer.forward(&irregular(&[5, 13])).unwrap();
    let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    assert!(grads.get(layer.bias()).is_some());
    for id in grads.get_ids() {
        assert_ne!(grads.get_id(*id).unwrap().elem_count(), 17 * 13);
    }
}
