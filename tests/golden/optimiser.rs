use crate::EXACT;
use crate::reader::each;
use candle_align::training::{AdamW, AdamWConfig, ParameterGroup};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Var};

/// Fifty steps in single precision, in another order of the same operations.
const SINGLE: f64 = 1e-6;

#[test]
fn adamw_takes_the_steps_of_torch() {
    each("adamw", |case| {
        let (dtype, tolerance) = match case.word("precision") {
            "float32" => (DType::F32, SINGLE),
            _ => (DType::F64, EXACT),
        };
        let vars =
            ["a", "b"].map(|name| Var::from_tensor(&case.typed(name, dtype).unwrap()).unwrap());
        let groups = ["a", "b"]
            .iter()
            .zip(&vars)
            .map(|(name, var)| ParameterGroup {
                vars: vec![(name.to_string(), var.clone())],
                rate: case.number(&format!("rate_{name}")),
                weight_decay: case.number(&format!("decay_{name}")),
            });
        let config = AdamWConfig {
            beta1: case.number("beta1"),
            beta2: case.number("beta2"),
            epsilon: case.number("epsilon"),
            ..Default::default()
        };
        let mut adamw = AdamW::new(groups.collect(), config)?;
        let slopes = [
            case.typed("slopes_a", dtype)?,
            case.typed("slopes_b", dtype)?,
        ];
        for (step, rate) in case
            .input("rates")?
            .to_vec1::<f64>()?
            .into_iter()
            .enumerate()
        {
            adamw.set_learning_rate(rate)?;
            let mut grads = GradStore::default();
            for (var, slope) in vars.iter().zip(&slopes) {
                grads.insert(var, slope.get(step)?);
            }
            adamw.step(&grads)?;
        }
        case.check("a", &vars[0], tolerance)?;
        case.check("b", &vars[1], tolerance)?;

        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("state.safetensors");
        adamw.save(&path)?;
        let state = candle_core::safetensors::load(&path, &Device::Cpu)?;
        case.check("a.exp_avg", &state["a.exp_avg"], tolerance)?;
        case.check("b.exp_avg_sq", &state["b.exp_avg_sq"], tolerance)
    });
}
