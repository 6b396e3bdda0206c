//! The table of layers: every parameter-efficient layer on what is frozen beneath it, at its start.

use super::adapted::{ada_config, shared, vera_config};
use super::lora::{base, config, irregular, rng};
use candle_align::Result;
use candle_align::parameter_efficient::{
    AdaLoraLinear, Adapter, BiasLinear, BlockScale, BottleneckAdapter, BottleneckConfig,
    DoraLinear, FrozenLinear, Ia3Linear, Ia3Place, Insertion, LoraBias, LoraConfig, LoraLinear,
    Nf4Linear, PrefixConfig, PrefixEncoder, PrefixShape, PromptConfig, PromptEmbedding, PromptInit,
    QloraLinear, Reparametrization, VeraLinear, prefix_attention,
};
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{Linear, Module};

/// One layer at one setting: the suites run every law on every row.
pub struct Layer {
    pub name: &'static str,
    /// The axes of one example.
    pub example: &'static [usize],
    /// Whether any axes may stand before the last one, none included.
    pub any_leading: bool,
    /// Whether at its start it is what is beneath it, to the bit.
    pub starts_at_base: bool,
    /// What an error says of an input of another width or type.
    pub argument: [&'static str; 2],
    pub build: fn(DType) -> Subject,
}

type Forward = Box<dyn Fn(&Tensor) -> Result<Tensor>>;

/// A layer of a row in one type.
pub struct Subject {
    pub forward: Forward,
    /// The same layer, sharing what is trained, switched off.
    pub off: Forward,
    /// What is beneath it.
    pub base: Forward,
    pub trained: Vec<(String, Var)>,
    /// What it was made of, as variables, so that a gradient would be seen where none may be.
    pub frozen: Vec<Var>,
}

/// f64 over f64, else f32.
fn wide(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

/// The base layer of LoRA's tests, from 4 to 3, over variables.
fn frozen(dtype: DType) -> (Linear, Vec<Var>) {
    let plain = base(dtype);
    let weight = Var::from_tensor(plain.weight()).unwrap();
    let bias = Var::from_tensor(plain.bias().unwrap()).unwrap();
    let linear = Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone()));
    (linear, vec![weight, bias])
}

fn beneath(linear: &Linear) -> Forward {
    let layer = FrozenLinear::new(linear.weight().clone(), linear.bias().cloned()).unwrap();
    Box::new(move |x| Ok(layer.forward(x)?))
}

/// A row of a layer over a linear one; `$make` makes it of the base and the type of the row.
macro_rules! over_linear {
    ($name:literal, $make:expr) => {
        over_linear!($name, $make, |linear: &Linear| beneath(linear))
    };
    ($name:literal, $make:expr, $beneath:expr) => {
        Layer {
            name: $name,
            example: &[4],
            any_leading: true,
            starts_at_base: true,
            argument: ["`x`", "`x`"],
            build: |dtype| {
                let (linear, frozen) = frozen(dtype);
                let layer = $make(&linear, dtype).unwrap();
                let mut off = layer.clone();
                off.set_enabled(false);
                Subject {
                    base: $beneath(&linear),
                    trained: layer.trainable(""),
                    off: Box::new(move |x| Ok(off.forward(x)?)),
                    forward: Box::new(move |x| Ok(layer.forward(x)?)),
                    frozen,
                }
            },
        }
    };
}

fn four_bits(linear: &Linear) -> Forward {
    let layer = Nf4Linear::quantize(linear, BlockScale::Double).unwrap();
    Box::new(move |x| Ok(layer.forward(x)?))
}

fn biased(bias: LoraBias) -> LoraConfig {
    LoraConfig { bias, ..config() }
}

pub fn all() -> Vec<Layer> {
    vec![
        over_linear!("LoRA", |l, _| LoraLinear::new(l, &config(), &mut rng(7))),
        over_linear!("LoRA, the base's bias trained", |l, _| LoraLinear::new(
            l,
            &biased(LoraBias::Base),
            &mut rng(7)
        )),
        over_linear!("LoRA, a bias on B", |l, _| LoraLinear::new(
            l,
            &biased(LoraBias::Update),
            &mut rng(7)
        )),
        over_linear!(
            "QLoRA",
            |l, _| QloraLinear::new(l, BlockScale::Double, &config(), &mut rng(7)),
            four_bits
        ),
        over_linear!("DoRA", |l, _| DoraLinear::new(l, &config(), &mut rng(7))),
        over_linear!("AdaLoRA", |l, _| AdaLoraLinear::new(
            l,
            &ada_config(),
            &mut rng(7)
        )),
        over_linear!("(IA)³, output", |l, _| Ia3Linear::new(l, Ia3Place::Output)),
        over_linear!("(IA)³, input", |l, _| Ia3Linear::new(l, Ia3Place::Input)),
        over_linear!("VeRA", |l, dtype| VeraLinear::new(
            l,
            &shared(dtype),
            &vera_config()
        )),
        over_linear!("BitFit", |l, _| BiasLinear::new(l)),
        Layer {
            name: "adapter, sequential",
            example: &[4],
            any_leading: true,
            starts_at_base: true,
            argument: ["`x`", "`x`"],
            build: |dtype| adapter(dtype, Insertion::Sequential),
        },
        Layer {
            name: "adapter, parallel",
            example: &[4],
            any_leading: true,
            starts_at_base: true,
            argument: ["`x`", "`x`"],
            build: |dtype| adapter(dtype, Insertion::Parallel),
        },
        Layer {
            name: "prompt",
            example: &[3, 4],
            any_leading: false,
            starts_at_base: false,
            argument: ["`embeddings`", "`embeddings`"],
            build: prompt,
        },
        Layer {
            name: "prefix",
            example: &[2, 3, 4],
            any_leading: false,
            starts_at_base: false,
            // it is the learned keys that do not fit the wider or narrower queries
            argument: ["`prefix.key`", "`q`"],
            build: |dtype| prefix(dtype, Reparametrization::Direct),
        },
        Layer {
            name: "prefix by a network",
            example: &[2, 3, 4],
            any_leading: false,
            starts_at_base: false,
            argument: ["`prefix.key`", "`q`"],
            build: |dtype| prefix(dtype, Reparametrization::Mlp { inner: 3 }),
        },
    ]
}

fn adapter(dtype: DType, insertion: Insertion) -> Subject {
    let (linear, frozen) = match insertion {
        Insertion::Parallel => frozen(dtype),
        // a sequential one reads what it changes
        Insertion::Sequential => {
            let weight = Var::from_tensor(&irregular(&[4, 4]).to_dtype(dtype).unwrap()).unwrap();
            (Linear::new(weight.as_tensor().clone(), None), vec![weight])
        }
    };
    let outputs = linear.weight().dim(0).unwrap();
    let settings = BottleneckConfig {
        width: 2,
        scale: 4.0,
        insertion,
        ..Default::default()
    };
    let cpu = Device::Cpu;
    let adapter =
        BottleneckAdapter::new(4, outputs, &settings, wide(dtype), &cpu, &mut rng(7)).unwrap();
    let sub = || FrozenLinear::new(linear.weight().clone(), linear.bias().cloned()).unwrap();
    let trained = adapter.trainable("");
    let mut off = adapter.clone();
    off.set_enabled(false);
    let (on, off) = (adapter.around(sub()), off.around(sub()));
    Subject {
        forward: Box::new(move |x| Ok(on.forward(x)?)),
        off: Box::new(move |x| Ok(off.forward(x)?)),
        base: beneath(&linear),
        trained,
        frozen,
    }
}

fn prompt(dtype: DType) -> Subject {
    let table = Var::from_tensor(&irregular(&[5, 4]).to_dtype(dtype).unwrap()).unwrap();
    let settings = PromptConfig {
        length: 2,
        init: PromptInit::Text { tokens: vec![3, 1] },
    };
    let prompt = PromptEmbedding::new(&table, &settings, &mut rng(7)).unwrap();
    let mut off = prompt.clone();
    off.set_enabled(false);
    Subject {
        trained: prompt.trainable(""),
        forward: Box::new(move |x| Ok(prompt.forward(x)?)),
        off: Box::new(move |x| Ok(off.forward(x)?)),
        base: Box::new(|x| Ok(x.clone())),
        frozen: vec![table],
    }
}

/// Attention of positions to themselves; the second layer of two, so that a wrong cut shows.
fn prefix(dtype: DType, reparametrization: Reparametrization) -> Subject {
    let shape = PrefixShape {
        layers: 2,
        heads: 2,
        head_dim: 4,
    };
    let settings = PrefixConfig {
        length: 2,
        reparametrization,
    };
    let encoder = PrefixEncoder::new(shape, &settings, dtype, &Device::Cpu, &mut rng(7)).unwrap();
    let trained = encoder.trainable("");
    let mut off = encoder.clone();
    off.set_enabled(false);
    let with = |encoder: PrefixEncoder| -> Forward {
        Box::new(move |x| match &encoder.layers()?[1] {
            Some(layer) => prefix_attention(x, x, x, layer, None),
            None => attention(x),
        })
    };
    Subject {
        forward: with(encoder),
        off: with(off),
        base: Box::new(attention),
        trained,
        frozen: Vec::new(),
    }
}

/// softmax( x xᵀ / √head_dim ) x.
fn attention(x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let scores = (x.matmul(&x.t()?)? / (x.dim(D::Minus1)? as f64).sqrt())?;
    Ok(candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&x)?)
}
