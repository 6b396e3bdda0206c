//! The gradients of the crate agree with its losses, by the tool that a user has for that.

use crate::common::{Role, layers, rows};
use candle_align::training::{Agreement, GradientAgreement, gradient_agreement};
use candle_core::{DType, Tensor, Var};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Of every loss at every row, and of every layer; surrogates with a constant weight, whose gradient is not the slope of their value, aside. Where a loss is flat nothing is determined. DoRA takes its norm for a constant (its page says so), and is found out.
#[test]
fn every_gradient_of_the_crate_agrees_with_its_loss() {
    for dtype in [DType::F64, DType::F32] {
        let mut flat = Vec::new();
        let mut check = |name: &'static str, found: GradientAgreement| {
            let constant_norm = ["lora_A.weight", "lora_B.weight"];
            let expected: &[&str] = match name.starts_with("DoRA") {
                true => &constant_norm,
                false => &[],
            };
            let what = format!("{name}, {dtype:?}: {found}");
            assert_eq!(found.names(Agreement::Differs), expected, "{what}");
            assert_eq!(found.names(Agreement::Missing), [""; 0], "{what}");
            flat.extend(found.names(Agreement::Undetermined).iter().map(|_| name));
        };
        for row in rows::smooth() {
            let vars = row.vars(dtype);
            let trained: Vec<(String, Var)> = row
                .inputs
                .iter()
                .zip(&vars)
                .filter(|(input, _)| input.role == Role::Trained)
                .map(|(input, var)| (input.name.to_string(), var.clone()))
                .collect();
            let loss = || {
                let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
                Ok((row.loss)(&tensors)?.sum_all()?)
            };
            let rng = &mut StdRng::seed_from_u64(5);
            check(
                row.name,
                gradient_agreement(loss, &trained, 2, rng).unwrap(),
            );
        }
        for layer in layers::all() {
            let subject = (layer.build)(dtype);
            let shape = [&[2], layer.example].concat();
            let x = crate::common::lora::irregular(&shape)
                .to_dtype(dtype)
                .unwrap();
            crate::common::adapters::disturb(&subject.trained);
            let loss = || Ok((subject.forward)(&x)?.sin()?.sqr()?.sum_all()?);
            let rng = &mut StdRng::seed_from_u64(6);
            let found = gradient_agreement(loss, &subject.trained, 2, rng).unwrap();
            check(layer.name, found);
        }
        // the least of a distance: its slope is 0. APO-down's slope in the chosen answer is σ′(0) − σ′(0)
        let starts = [
            "kl, k2, at its start",
            "kl, k3, at its start",
            "slic kl, at its start",
            "apo down, at its start",
            "divergence, Jensen-Shannon, where both agree",
        ];
        assert_eq!(flat, starts, "{dtype:?}");
    }
}
