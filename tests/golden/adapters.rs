//! LoRA, against PEFT.

use super::EXACT;
use super::reader::{Case, each};
use candle_align::Result;
use candle_align::parameter_efficient::{
    Adapter, LinearAdapter, LoraBias, LoraConfig, LoraEmbedding, LoraLinear, Scaling,
};
use candle_nn::{Embedding, Linear, Module};
use rand::SeedableRng;
use rand::rngs::StdRng;

#[test]
fn lora() {
    each("lora", |case| match case.word("kind") {
        "linear" => linear(case),
        "embedding" => embedding(case),
        other => panic!("{}: {other}", case.name),
    });
}

/// The settings of a case of LoRA.
pub fn config(case: &Case) -> LoraConfig {
    LoraConfig {
        rank: case.number("r") as usize,
        alpha: case.number("alpha"),
        scaling: match case.flag("rank_stabilised") {
            true => Scaling::RankSqrt,
            false => Scaling::Rank,
        },
        bias: match case.word("trained_bias") {
            "none" => LoraBias::Frozen,
            "base" => LoraBias::Base,
            "update" => LoraBias::Update,
            other => panic!("{}: {other}", case.name),
        },
        ..Default::default()
    }
}

fn linear(case: &Case) -> Result<()> {
    let bias = match case.has("bias") {
        true => Some(case.input("bias")?),
        false => None,
    };
    let base = Linear::new(case.input("weight")?, bias);
    let layer = LoraLinear::new(&base, &config(case), &mut StdRng::seed_from_u64(0))?;
    layer.a().set(&case.input("a")?)?;
    layer.b().set(&case.input("b")?)?;
    let trained_bias = layer.trainable("").into_iter();
    let trained_bias = trained_bias.map(|(_, var)| var).find(|var| var.rank() == 1);
    if let Some(bias) = &trained_bias {
        bias.set(&case.input("trained_bias")?)?;
    }
    let x = case.var("x")?;

    let y = layer.forward(&x)?;
    let loss = (&y * case.input("upstream")?)?;
    case.check("y", &y, EXACT)?;
    case.check("loss", &loss.sum_all()?, EXACT)?;
    case.check("delta", &layer.delta()?, EXACT)?;
    let merged = layer.merged_linear()?;
    case.check("merged", merged.weight(), EXACT)?;
    if let Some(bias) = merged.bias() {
        case.check("merged_bias", bias, EXACT)?;
    }
    if let Some(bias) = &trained_bias {
        case.check_gradient("trained_bias", &loss, bias, EXACT)?;
    }
    case.check_gradient("a", &loss, layer.a(), EXACT)?;
    case.check_gradient("b", &loss, layer.b(), EXACT)?;
    case.check_gradient("x", &loss, &x, EXACT)
}

fn embedding(case: &Case) -> Result<()> {
    let weight = case.input("weight")?;
    let width = weight.dim(1)?;
    let base = Embedding::new(weight, width);
    let layer = LoraEmbedding::new(&base, &config(case), &mut StdRng::seed_from_u64(0))?;
    layer.a().set(&case.input("a")?)?;
    layer.b().set(&case.input("b")?)?;

    let y = layer.forward(&case.index("ids")?)?;
    let loss = (&y * case.input("upstream")?)?;
    case.check("y", &y, EXACT)?;
    case.check("loss", &loss.sum_all()?, EXACT)?;
    case.check("delta", &layer.delta()?, EXACT)?;
    case.check("merged", layer.merged_embedding()?.embeddings(), EXACT)?;
    case.check_gradient("a", &loss, layer.a(), EXACT)?;
    case.check_gradient("b", &loss, layer.b(), EXACT)
}
