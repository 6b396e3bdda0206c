//! AdaLoRA, DoRA, (IA)³, VeRA and the choice of modules, against PEFT.

use super::EXACT;
use super::reader::{Case, each};
use candle_align::Result;
use candle_align::parameter_efficient::{
    AdaLoraConfig, AdaLoraLinear, Adapter, DoraLinear, Ia3ForModel, Ia3Linear, Ia3Place,
    LinearAdapter, LoraConfig, LoraForModel, Orthogonality, RankAllocator, RankAllocatorConfig,
    Scaling, TargetModules, Targets, VeraConfig, VeraLinear, VeraProjections,
    orthogonality_penalty,
};
use candle_core::{Device, Tensor, Var};
use candle_nn::{Linear, Module};
use rand::SeedableRng;
use rand::rngs::StdRng;

fn base(case: &Case) -> Result<Linear> {
    let bias = match case.has("bias") {
        true => Some(case.input("bias")?),
        false => None,
    };
    Ok(Linear::new(case.input("weight")?, bias))
}

/// Output, merged layer, and the gradients of the input and of the named variables.
fn layer(case: &Case, layer: &impl Module, merged: Linear, vars: &[(&str, &Var)]) -> Result<()> {
    let x = case.var("x")?;
    let y = layer.forward(&x)?;
    let loss = (&y * case.input("upstream")?)?;
    case.check("y", &y, EXACT)?;
    case.check("loss", &loss.sum_all()?, EXACT)?;
    case.check("merged", merged.weight(), EXACT)?;
    if case.gives("merged_bias") {
        case.check("merged_bias", merged.bias().expect("a bias"), EXACT)?;
    }
    for (name, var) in vars {
        case.check_gradient(name, &loss, var, EXACT)?;
    }
    case.check_gradient("x", &loss, &x, EXACT)
}

#[test]
fn dora() {
    each("dora", |case| {
        let config = LoraConfig {
            rank: case.number("r") as usize,
            alpha: case.number("alpha"),
            scaling: match case.flag("rank_stabilised") {
                true => Scaling::RankSqrt,
                false => Scaling::Rank,
            },
            ..Default::default()
        };
        let dora = DoraLinear::new(&base(case)?, &config, &mut StdRng::seed_from_u64(0))?;
        case.check("start", dora.magnitude(), EXACT)?;
        let vars = [
            ("a", dora.a()),
            ("b", dora.b()),
            ("magnitude", dora.magnitude()),
        ];
        for (name, var) in vars {
            var.set(&case.input(name)?)?;
        }
        layer(case, &dora, dora.merged_linear()?, &vars)
    });
}

#[test]
fn ia3() {
    each("ia3", |case| {
        let place = match case.word("place") {
            "output" => Ia3Place::Output,
            "input" => Ia3Place::Input,
            _ => return places(case),
        };
        let ia3 = Ia3Linear::new(&base(case)?, place)?;
        ia3.scale().set(&case.input("scale")?)?;
        layer(case, &ia3, ia3.merged_linear()?, &[("scale", ia3.scale())])
    });
}

fn places(case: &Case) -> Result<()> {
    let config = Ia3ForModel {
        targets: Targets {
            target_modules: TargetModules::AllLinear,
            ..Default::default()
        },
        feedforward_modules: case.part("feedforward"),
    };
    let inner = case
        .part::<Vec<String>>("paths")
        .iter()
        .map(|path| Ok((config.for_module(path)? == Some(Ia3Place::Input)) as u8 as f64))
        .collect::<Result<Vec<_>>>()?;
    case.check("inner", &Tensor::new(inner, &Device::Cpu)?, 0.0)
}

#[test]
fn vera() {
    each("vera", |case| {
        let config = VeraConfig {
            rank: case.number("r") as usize,
            d_initial: case.number("d_initial"),
            ..Default::default()
        };
        let shared = VeraProjections::from_tensors(case.input("a")?, case.input("b")?)?;
        let vera = VeraLinear::new(&base(case)?, &shared, &config)?;
        case.check("start_b", vera.lambda_b(), EXACT)?;
        case.check("start_d", vera.lambda_d(), EXACT)?;
        let vars = [("lambda_b", vera.lambda_b()), ("lambda_d", vera.lambda_d())];
        for (name, var) in vars {
            var.set(&case.input(name)?)?;
        }
        case.check("delta", &vera.delta()?, EXACT)?;
        layer(case, &vera, vera.merged_linear()?, &vars)
    });
}

#[test]
fn adalora() {
    each("adalora", |case| match case.word("kind") {
        "layer" => {
            let config = AdaLoraConfig {
                rank: case.number("r") as usize,
                alpha: case.number("alpha"),
                ..Default::default()
            };
            let [p, lambda, q] = ["p", "lam", "q"].map(|name| case.input(name));
            let ada = AdaLoraLinear::from_factors(&base(case)?, &config, &p?, &lambda?, &q?)?;
            let vars = [("p", ada.p()), ("lam", ada.lambda()), ("q", ada.q())];
            layer(case, &ada, ada.merged_linear()?, &vars)
        }
        "run" => run(case),
        other => panic!("{}: {other}", case.name),
    });
}

/// The same steps of gradient descent, the allocator after each.
fn run(case: &Case) -> Result<()> {
    let config = AdaLoraConfig {
        rank: case.number("init_r") as usize,
        alpha: case.number("alpha"),
        ..Default::default()
    };
    let mut layers = Vec::new();
    for name in ["q", "v"] {
        let bias = match case.has(&format!("bias_{name}")) {
            true => Some(case.input(&format!("bias_{name}"))?),
            false => None,
        };
        let base = Linear::new(case.input(&format!("weight_{name}"))?, bias);
        let factor = |part: &str| case.input(&format!("{part}_{name}"));
        let (p, lambda, q) = (factor("lora_B")?, factor("lora_E")?, factor("lora_A")?);
        let layer = AdaLoraLinear::from_factors(&base, &config, &p, &lambda, &q)?;
        layers.push((name.to_string(), layer));
    }
    let steps = case.number("total_step") as usize;
    let schedule = RankAllocatorConfig {
        target_rank: case.number("target_r") as usize,
        initial_steps: case.number("tinit") as usize,
        final_steps: case.number("tfinal") as usize,
        interval: case.number("deltaT") as usize,
        total_steps: steps,
        beta1: case.number("beta1"),
        beta2: case.number("beta2"),
    };
    let mut allocator = RankAllocator::new(&layers, &schedule)?;
    let x = case.input("x")?;
    let (mut losses, mut budgets) = (Vec::new(), Vec::new());
    let (mut lambdas, mut kept) = (Vec::new(), Vec::new());
    for step in 0..=steps {
        // ½ Σ (h − target)² of both, + γ · R
        let both: Vec<&AdaLoraLinear> = layers.iter().map(|(_, layer)| layer).collect();
        let mut loss =
            (orthogonality_penalty(&both, Orthogonality::NormMean)? * case.number("gamma"))?;
        for (name, layer) in &layers {
            let error = (layer.forward(&x)? - case.input(&format!("target_{name}"))?)?;
            loss = (loss + (error.sqr()?.sum_all()? * 0.5)?)?;
        }
        let grads = loss.backward()?;
        for (name, layer) in &layers {
            for (_, var) in layer.trainable(name) {
                let step = (grads.get(&var).expect("a gradient") * case.number("rate"))?;
                var.set(&(var.as_tensor() - step)?)?;
            }
        }
        let allocation = allocator.update(step, &grads)?;
        losses.push(loss.to_scalar::<f64>()?);
        budgets.push(allocation.budget as f64);
        for (_, layer) in &layers {
            lambdas.extend(layer.lambda().flatten_all()?.to_vec1::<f64>()?);
        }
        let marks = allocator.kept().into_iter().flat_map(|(_, kept)| kept);
        kept.extend(marks.map(|kept| kept as u8 as f64));
    }
    let table = |data: Vec<f64>| Tensor::from_vec(data, (steps + 1, 2 * config.rank), &Device::Cpu);
    case.check("budget", &Tensor::new(budgets, &Device::Cpu)?, 0.0)?;
    case.check("kept", &table(kept)?, 0.0)?;
    case.check("loss", &Tensor::new(losses, &Device::Cpu)?, EXACT)?;
    case.check("lam", &table(lambdas)?, EXACT)
}

#[test]
fn targets() {
    each("targets", |case| {
        let paths = case.part::<Vec<String>>("paths");
        let numbers = |data: Vec<f64>| Tensor::new(data, &Device::Cpu);
        if case.word("kind") == "targets" {
            let targets = case.part::<Targets>("targets");
            let chosen = paths
                .iter()
                .map(|path| Ok(targets.matches(path)? as u8 as f64));
            let chosen = chosen.collect::<Result<_>>()?;
            return case.check("chosen", &numbers(chosen)?, 0.0);
        }
        // as text, since the order of the keys counts
        let config = format!(
            r#"{{"rank": 8, "alpha": 16, "rank_pattern": {}, "alpha_pattern": {},
                "targets": {{"target_modules": "all-linear"}}}}"#,
            case.word("rank_pattern"),
            case.word("alpha_pattern")
        );
        let config: LoraForModel = serde_json::from_str(&config).expect("settings");
        let resolved = paths.iter().map(|path| config.for_module(path));
        let resolved = resolved.collect::<Result<Option<Vec<_>>>>()?.expect("all");
        let ranks = resolved.iter().map(|layer| layer.rank as f64).collect();
        let alphas = resolved.iter().map(|layer| layer.alpha).collect();
        case.check("rank", &numbers(ranks)?, 0.0)?;
        case.check("alpha", &numbers(alphas)?, 0.0)
    });
}
