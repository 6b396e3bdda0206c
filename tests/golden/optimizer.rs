use super::EXACT;
use super::reader::each;
use candle_align::parameter_efficient::{
    Adapter, LoraBias, LoraConfig, LoraLinear, lora_plus_groups,
};
use candle_align::training::{AdamW, AdamWConfig, ParameterGroup, Schedule};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Linear, Module};
use rand::SeedableRng;
use rand::rngs::StdRng;

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

/// The groups of LoRA+ are PEFT's, and so are the steps: each group its rate, biases without decay.
#[test]
fn lora_plus_takes_the_steps_of_peft() {
    each("lora_plus", |case| {
        let config = LoraConfig {
            rank: case.number("r") as usize,
            alpha: case.number("alpha"),
            bias: match case.flag("bias") {
                true => LoraBias::Update,
                false => LoraBias::Frozen,
            },
            ..Default::default()
        };
        let layer = |name: &str| {
            let base = Linear::new(case.input(&format!("weight {name}"))?, None);
            LoraLinear::new(&base, &config, &mut StdRng::seed_from_u64(0))
        };
        let (q, v) = (layer("q")?, layer("v")?);
        let vars = [q.trainable("q"), v.trainable("v")].concat();
        for (name, var) in &vars {
            var.set(&case.input(&format!("start {name}"))?)?;
        }

        let rate = case.number("rate");
        let decay = case.number("decay");
        let mut groups = lora_plus_groups(vars.clone(), case.number("ratio"), decay)?;
        let mut biases = groups[1].clone();
        groups[1].vars.retain(|(_, var)| var.rank() > 1);
        biases.vars.retain(|(_, var)| var.rank() == 1);
        biases.weight_decay = 0.0;
        groups.push(biases);
        let mut adamw = AdamW::new(groups, AdamWConfig::default())?;
        adamw.set_learning_rate(rate)?;
        let (x, target) = (case.input("x")?, case.input("target")?);
        let mut losses = Vec::new();
        for _ in 0..case.number("steps") as usize {
            let error = (v.forward(&q.forward(&x)?.tanh()?)? - &target)?;
            let loss = (error.sqr()?.sum_all()? * 0.5)?;
            adamw.step(&loss.backward()?)?;
            losses.push(loss.to_scalar::<f64>()?);
        }
        case.check("loss", &Tensor::new(losses, &Device::Cpu)?, EXACT)?;
        for (name, var) in &vars {
            case.check(&format!("end {name}"), var, EXACT)?;
        }
        Ok(())
    });
}

#[test]
fn learning_rates_are_those_of_transformers() {
    each("schedule", |case| {
        let steps = case.number("steps") as usize;
        let schedule = Schedule::transformers(
            steps,
            case.number("warmup") as usize,
            case.part("decay"),
            case.number("floor"),
        )?;
        let factors: Vec<f64> = (0..=steps).map(|step| schedule.factor(step)).collect();
        case.check("factors", &Tensor::new(factors, &Device::Cpu)?, EXACT)
    });
}
