//! Prompts and prefixes, against PEFT; attention with a prefix, against Transformers; gated mixing
//! and adapters, against the sums of He et al.

use super::EXACT;
use super::reader::{Case, each};
use candle_align::Result;
use candle_align::parameter_efficient::{
    Activation, BottleneckAdapter, BottleneckConfig, Insertion, PrefixConfig, PrefixEncoder,
    PrefixLayer, PrefixShape, PromptConfig, PromptEmbedding, PromptInit, Reparametrization,
    prefix_attention, prefix_mixing,
};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::Embedding;
use candle_nn::Module;
use rand::SeedableRng;
use rand::rngs::StdRng;

#[test]
fn prompts() {
    each("prompts", |case| match case.word("kind") {
        "prefix" => prefix(case),
        "prompt" => prompt(case),
        "attention" => attention(case),
        "mixing" => mixing(case),
        "adapter" => adapter(case),
        other => panic!("{}: {other}", case.name),
    });
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(0)
}

fn prefix(case: &Case) -> Result<()> {
    let size = |key: &str| case.number(key) as usize;
    let shape = PrefixShape {
        layers: size("layers"),
        heads: size("heads"),
        head_dim: size("head_dim"),
    };
    let config = PrefixConfig {
        length: size("length"),
        reparametrization: match case.optional("inner") {
            None => Reparametrization::Direct,
            Some(inner) => Reparametrization::Mlp {
                inner: inner as usize,
            },
        },
    };
    let encoder = PrefixEncoder::new(shape, &config, DType::F64, &Device::Cpu, &mut rng())?;
    // a file holds the plain form under another name than PEFT's module does
    let named = encoder.trainable("").into_iter().map(|(name, var)| {
        let name = match name.as_str() {
            "prompt_embeddings" => "embedding.weight".to_string(),
            _ => name,
        };
        (name, var)
    });
    let named: Vec<(String, Var)> = named.collect();
    for (name, var) in &named {
        var.set(&case.input(name)?)?;
    }

    let mut loss = Vec::new();
    for (index, layer) in encoder.layers()?.into_iter().enumerate() {
        let layer = layer.expect("enabled");
        for (kind, x) in [("key", layer.key), ("value", layer.value)] {
            let name = format!("{kind}.{index}");
            case.check(&name, &x, EXACT)?;
            loss.push((x * case.input(&format!("upstream.{name}"))?)?.sum_all()?);
        }
    }
    let loss = Tensor::stack(&loss, 0)?.sum_all()?;
    case.check("loss", &loss, EXACT)?;
    case.check("prompt_embeddings", &encoder.values()?, EXACT)?;
    for (name, var) in &named {
        case.check_gradient(name, &loss, var, EXACT)?;
    }
    // what PEFT saves is what it says
    let file = encoder.finish()?.trainable("");
    assert_eq!(file[0].0, "prompt_embeddings", "{}", case.name);
    case.check("prompt_embeddings", &file[0].1, EXACT)
}

fn prompt(case: &Case) -> Result<()> {
    let table = case.input("table")?;
    let prompt = match case.part::<Option<Vec<u32>>>("text") {
        None => PromptEmbedding::from_values(&case.input("values")?)?,
        Some(tokens) => {
            let config = PromptConfig {
                length: case.number("length") as usize,
                init: PromptInit::Text { tokens },
            };
            PromptEmbedding::new(&table, &config, &mut rng())?
        }
    };
    let vars = prompt.trainable("");
    case.check("prompt_embeddings", &vars[0].1, EXACT)?;
    let width = table.dim(1)?;
    let embeddings = Embedding::new(table, width).forward(&case.index("ids")?)?;
    let longer = prompt.prepend(&embeddings)?;
    case.check("embeddings", &longer, EXACT)?;
    case.check(
        "attention_mask",
        &prompt.attention_mask(&case.mask("mask")?)?,
        EXACT,
    )?;
    let loss = (longer * case.input("upstream")?)?;
    case.check("loss", &loss.sum_all()?, EXACT)?;
    case.check_gradient(&vars[0].0, &loss, &vars[0].1, EXACT)
}

/// The inputs that get a gradient.
const INPUTS: [&str; 5] = ["q", "k", "v", "prefix_key", "prefix_value"];

fn inputs(case: &Case) -> Result<([Var; 5], PrefixLayer)> {
    let vars = INPUTS.map(|name| case.var(name).unwrap_or_else(|e| panic!("{name}: {e}")));
    let layer = PrefixLayer {
        key: vars[3].as_tensor().clone(),
        value: vars[4].as_tensor().clone(),
    };
    Ok((vars, layer))
}

fn finish(case: &Case, output: &Tensor, vars: &[Var; 5]) -> Result<()> {
    let loss = (output * case.input("upstream")?)?;
    case.check("loss", &loss.sum_all()?, EXACT)?;
    for (name, var) in INPUTS.iter().zip(vars) {
        case.check_gradient(name, &loss, var, EXACT)?;
    }
    Ok(())
}

fn attention(case: &Case) -> Result<()> {
    let (vars, layer) = inputs(case)?;
    let visible = match case.has("visible") {
        true => Some(case.mask("visible")?),
        false => None,
    };
    let [q, k, v, ..] = &vars;
    let head = prefix_attention(q, k, v, &layer, visible.as_ref())?;
    case.check("head", &head, EXACT)?;
    finish(case, &head, &vars)?;
    // the same as a mixture
    let mixed = prefix_mixing(q, k, v, &layer, visible.as_ref())?.output()?;
    case.check("head", &mixed, EXACT)?;
    finish(case, &mixed, &vars)
}

fn mixing(case: &Case) -> Result<()> {
    let (vars, layer) = inputs(case)?;
    let [q, k, v, ..] = &vars;
    let mixture = prefix_mixing(q, k, v, &layer, None)?;
    case.check("gate", &mixture.gate()?, EXACT)?;
    case.check("content", mixture.content(), EXACT)?;
    case.check("prefix", mixture.prefix(), EXACT)?;
    let output = mixture.output()?;
    case.check("output", &output, EXACT)?;
    finish(case, &output, &vars)?;
    finish(case, &prefix_attention(q, k, v, &layer, None)?, &vars)
}

fn adapter(case: &Case) -> Result<()> {
    let config = BottleneckConfig {
        width: case.number("width") as usize,
        activation: case.part::<Activation>("activation"),
        scale: case.number("scale"),
        insertion: case.part::<Insertion>("insertion"),
        bias: case.flag("bias"),
    };
    let (x, h) = (case.var("x")?, case.var("h")?);
    let (inputs, outputs) = (x.dim(1)?, h.dim(1)?);
    let cpu = Device::Cpu;
    let adapter = BottleneckAdapter::new(inputs, outputs, &config, DType::F64, &cpu, &mut rng())?;
    let vars: Vec<(String, Var)> = adapter
        .trainable("")
        .into_iter()
        .map(|(name, var)| (name.replace("_proj.weight", "").replace("_proj.", "_"), var))
        .collect();
    for (name, var) in &vars {
        var.set(&case.input(name)?)?;
    }
    let new = adapter.insert(&x, &h)?;
    case.check("h", &new, EXACT)?;
    let loss = (new * case.input("upstream")?)?;
    case.check("loss", &loss.sum_all()?, EXACT)?;
    for (name, var) in &vars {
        case.check_gradient(name, &loss, var, EXACT)?;
    }
    case.check_gradient("h", &loss, &h, EXACT)?;
    match config.insertion {
        Insertion::Parallel => case.check_gradient("x", &loss, &x, EXACT),
        Insertion::Sequential => Ok(()),
    }
}
