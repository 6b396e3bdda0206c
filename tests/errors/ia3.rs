use crate::common::adapted::*;
use crate::common::lora::*;
use crate::common::{says, vector};
use candle_align::parameter_efficient::{
    Adapter, Ia3ForModel, Ia3Linear, Ia3Place, LinearAdapter, TargetModules,
};
use candle_core::DType;
use candle_nn::{Linear, Module};

#[test]
fn base_inputs_and_merges_are_checked() {
    let line = Linear::new(vector(&[1.0]), None);
    says(
        Ia3Linear::new(&line, Ia3Place::Input),
        "Ia3Linear::new: `base.weight` has shape [1], expected [out, in]",
    );
    let mut layer = ia3(Ia3Place::Output, DType::F64);
    says(
        layer.forward(&irregular(&[3])),
        "Ia3Linear::forward: `x` has shape [3], expected [.., in=4 (from `weight`)]",
    );
    set(layer.scale(), vector(&[1.0, 1.0, f64::NAN]));
    says(
        layer.merge(),
        "Ia3Linear::merge: `weight` would hold NaN at flat position 8 after the merge; nothing was \
         changed",
    );
    // a bias can be at fault alone
    let base = Linear::new(tensor(&[[0.0; 4]]), Some(vector(&[1e300])));
    let layer = Ia3Linear::new(&base, Ia3Place::Output).unwrap();
    set(layer.scale(), vector(&[1e300]));
    says(
        layer.merged_linear(),
        "Ia3Linear::merged_linear: `bias` would hold inf at flat position 0 after the merge; nothing \
         was changed",
    );
}

#[test]
fn feed_forward_modules_are_names_or_an_expression() {
    let config = Ia3ForModel {
        feedforward_modules: TargetModules::AllLinear,
        ..Default::default()
    };
    says(
        config.for_module("q"),
        "Ia3ForModel::for_module: `feedforward_modules` must be a list of names or an expression, got \
         all-linear",
    );
    let config = Ia3ForModel {
        feedforward_modules: TargetModules::Pattern("(".to_string()),
        ..Default::default()
    };
    says(
        config.for_module("q"),
        "Ia3ForModel::for_module: `feedforward_modules` holds `(`, which is not an expression here: \
         Opening parenthesis without closing parenthesis",
    );
    // for a whole model, each of them must fit a module that gets a layer
    let idle = |json: &str, rest: &str| {
        let config: Ia3ForModel = serde_json::from_str(json).unwrap();
        says(
            config.for_modules(&["m.0.k", "m.0.down", "m.0.up"]),
            &format!("Ia3ForModel::for_modules: {rest}"),
        );
        config.for_module("m.0.k").unwrap();
    };
    idle(
        r#"{"targets": {"target_modules": ["k", "down"]}, "feedforward_modules": ["down", "up"]}"#,
        "`feedforward_modules` holds `up`, which fits no chosen module",
    );
    idle(
        r#"{"targets": {"target_modules": ["k", "down"]}, "feedforward_modules": ".*up"}"#,
        "`feedforward_modules` holds `.*up`, which fits no chosen module",
    );
    idle(
        r#"{"targets": {"target_modules": ["k", "q"]}}"#,
        "`target_modules` names `q`, which chooses no module",
    );
    idle("{}", "`target_modules` chooses no module");
}
