use crate::common::lora::{irregular, tensor};
use crate::common::says;
use candle_align::parameter_efficient::{
    BiasLinear, DesignSpaceConfig, Grouping, LayerSize, LinearAdapter, Strategy,
};
use candle_core::DType;
use candle_nn::{Linear, Module};

#[test]
fn groups() {
    let space = DesignSpaceConfig::default();
    for layers in [0, 1, 2, 3, 4, 5, 7] {
        says(
            space.assign(layers),
            &format!(
                "DesignSpaceConfig::assign: `layers` is {layers}, of which no spindle can be made: give the sizes"
            ),
        );
    }
    let sized = |sizes: &[usize]| DesignSpaceConfig {
        grouping: Grouping::Sizes(sizes.to_vec()),
        ..Default::default()
    };
    for (sizes, message) in [
        (&[1, 2, 2, 2][..], "`layers` is 8, but the groups hold 7"),
        (
            &[usize::MAX, 9],
            "`layers` is 8, but the groups hold 18446744073709551615",
        ),
        (&[4, 0, 2, 2], "`grouping` must be of sizes >= 1, got 0"),
        (&[], "`grouping` must be of sizes >= 1, got 0"),
        (
            &[4, 4],
            "`strategies` must be one set per group, got 4 for 2 groups",
        ),
    ] {
        says(
            sized(sizes).assign(8),
            &format!("DesignSpaceConfig::assign: {message}"),
        );
    }
}

#[test]
fn plans() {
    let size = LayerSize {
        dim: 10,
        kv_dim: 10,
        lora: 40,
        biases: 50,
    };
    let space = DesignSpaceConfig::default();
    says(
        space.plan(5, 100, &size),
        "DesignSpaceConfig::plan: `layers` is 5, of which no spindle can be made: give the sizes",
    );
    says(
        space.plan(6, 39, &size),
        "DesignSpaceConfig::plan: `per_layer` is 39, too few for Adapter in layer 0",
    );
    says(
        space.plan(6, 79, &size),
        "DesignSpaceConfig::plan: `per_layer` is 79, too few for Lora in layer 0",
    );
    // the biases cost more than there is
    says(
        space.plan(6, 80, &size),
        "DesignSpaceConfig::plan: `per_layer` is 80, too few for Adapter in layer 3",
    );
    let only = DesignSpaceConfig {
        grouping: Grouping::Sizes(vec![1]),
        strategies: vec![[Strategy::BitFit].into()],
    };
    assert_eq!(only.plan(1, 0, &size).unwrap()[0].parameters(&size), 50);
}

#[test]
fn biases() {
    says(
        BiasLinear::new(&Linear::new(irregular(&[3]), None)),
        "BiasLinear::new: `base.weight` has shape [3], expected [out, in]",
    );
    let short = Some(irregular(&[2]));
    says(
        BiasLinear::new(&Linear::new(irregular(&[3, 4]), short)),
        "BiasLinear::new: `base.bias` has shape [2], expected [out=3 (from `base.weight`)]",
    );
    let layer = BiasLinear::new(&Linear::new(irregular(&[3, 4]), None)).unwrap();
    says(
        layer.forward(&irregular(&[2, 3])),
        "BiasLinear::forward: `x` has shape [2, 3], expected [.., in=4 (from `weight`)]",
    );
    says(
        layer.forward(&irregular(&[2, 4]).to_dtype(DType::F32).unwrap()),
        "BiasLinear::forward: `x` is f32, expected f64 (from `weight`)",
    );
    let endless = tensor(&[[1.0, f64::INFINITY, 2.0]]).get(0).unwrap();
    layer.bias().set(&endless).unwrap();
    says(
        layer.merged_linear(),
        "BiasLinear::merged_linear: `bias` would hold inf at flat position 1 after the merge; nothing was changed",
    );
}
