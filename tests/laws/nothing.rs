//! Nothing: no function of a layer panics on an empty batch, no time steps or an empty base, in any
//! layout.

use crate::common::adapted::{ada_config, shared, vera_config};
use crate::common::adapters::disturb;
use crate::common::layers::all;
use crate::common::lora::{base, config, irregular, rng, table};
use crate::common::numbers;
use candle_align::Result;
use candle_align::online::reward_head::RewardHead;
use candle_align::parameter_efficient::{
    AdaLoraLinear, Adapter, BiasLinear, BlockScale, BottleneckAdapter, BottleneckConfig,
    DoraLinear, FrozenLinear, Ia3Linear, Ia3Place, Insertion, LinearAdapter, LoraBias, LoraConfig,
    LoraEmbedding, LoraLinear, Nf4Linear, Orthogonality, PrefixConfig, PrefixEncoder, PrefixLayer,
    PrefixShape, PromptConfig, PromptEmbedding, PromptInit, QloraLinear, RankAllocator,
    RankAllocatorConfig, Reparametrization, VeraLinear, orthogonality_penalty, prefix_attention,
    prefix_mixing,
};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Embedding, Linear, Module};

type Function = Box<dyn Fn(&Tensor) -> Result<Tensor>>;

/// A function of a layer: its name, the trained variables, and the axes of one example.
struct Row {
    name: String,
    function: Function,
    trained: Vec<(String, Var)>,
    example: &'static [usize],
    /// Whether any axes may stand before the last one.
    any_leading: bool,
}

/// Every function of every layer that takes a batch.
fn functions() -> Vec<Row> {
    let mut rows = Vec::new();
    for layer in all() {
        let subject = (layer.build)(DType::F64);
        disturb(&subject.trained);
        for (what, function) in [("on", subject.forward), ("off", subject.off)] {
            if what == "off" && layer.name.starts_with("prefix") {
                continue; // attention of the test's own
            }
            rows.push(Row {
                name: format!("{}, {what}", layer.name),
                function,
                trained: match what {
                    "on" => subject.trained.clone(),
                    _ => Vec::new(),
                },
                example: layer.example,
                any_leading: layer.any_leading,
            });
        }
    }
    let linear = base(DType::F64);
    let dropping = |bias| LoraConfig {
        dropout: 0.5,
        bias,
        ..config()
    };
    /// With dropout, and merged where the layer can be.
    macro_rules! more {
        ($name:expr, $layer:expr, train) => {{
            let layer = $layer.unwrap();
            disturb(&layer.trainable(""));
            rows.push(Row {
                name: format!("{}, with dropout", $name),
                trained: layer.trainable(""),
                function: Box::new(move |x| layer.forward_train(x, &mut rng(1))),
                example: &[4],
                any_leading: true,
            });
        }};
        ($name:expr, $layer:expr, merge) => {{
            let mut layer = $layer.unwrap();
            layer.merge().unwrap();
            rows.push(Row {
                name: format!("{}, merged", $name),
                trained: Vec::new(),
                function: Box::new(move |x| Ok(layer.forward(x)?)),
                example: &[4],
                any_leading: true,
            });
        }};
    }
    for bias in [LoraBias::Frozen, LoraBias::Base, LoraBias::Update] {
        let layer = || LoraLinear::new(&linear, &dropping(bias), &mut rng(7));
        more!(format!("LoRA {bias:?}"), layer(), train);
        more!(format!("LoRA {bias:?}"), layer(), merge);
        let layer = || QloraLinear::new(&linear, BlockScale::Double, &dropping(bias), &mut rng(7));
        more!(format!("QLoRA {bias:?}"), layer(), train);
    }
    for bias in [LoraBias::Frozen, LoraBias::Base] {
        let layer = || DoraLinear::new(&linear, &dropping(bias), &mut rng(7));
        more!(format!("DoRA {bias:?}"), layer(), train);
        more!(format!("DoRA {bias:?}"), layer(), merge);
    }
    let mut ada = ada_config();
    ada.dropout = 0.5;
    let layer = || AdaLoraLinear::new(&linear, &ada, &mut rng(7));
    more!("AdaLoRA", layer(), train);
    more!("AdaLoRA", layer(), merge);
    let none = vec![false; ada.rank];
    more!("AdaLoRA of rank 0", layer().unwrap().cut(&none), train);
    more!("AdaLoRA of rank 0", layer().unwrap().cut(&none), merge);
    let mut vera = vera_config();
    vera.dropout = 0.5;
    let layer = || VeraLinear::new(&linear, &shared(DType::F64), &vera);
    more!("VeRA", layer(), train);
    more!("VeRA", layer(), merge);
    for place in [Ia3Place::Input, Ia3Place::Output] {
        more!(
            format!("(IA)³ {place:?}"),
            Ia3Linear::new(&linear, place),
            merge
        );
    }
    rows
}

/// Views of this shape, whose product is 0: whole, cut from an axis at its end, and turned.
fn layouts(shape: &[usize], dtype: DType) -> Vec<(String, Var, Tensor)> {
    let made = |shape: &[usize]| Var::zeros(shape, dtype, &Device::Cpu).unwrap();
    let mut views = Vec::new();
    let whole = made(shape);
    views.push((
        "whole".to_string(),
        whole.clone(),
        whole.as_tensor().clone(),
    ));
    for axis in 0..shape.len() {
        let mut wider = shape.to_vec();
        wider[axis] += 3;
        let wider = made(&wider);
        let view = wider.narrow(axis, 3, shape[axis]).unwrap();
        views.push((format!("cut from axis {axis}"), wider, view));
        for other in 0..axis {
            let mut turned = shape.to_vec();
            turned.swap(axis, other);
            let var = made(&turned);
            let view = var.transpose(axis, other).unwrap();
            views.push((format!("axes {other} and {axis} turned"), var, view));
            turned[0] += 2;
            let var = made(&turned);
            let view = var.narrow(0, 2, turned[0] - 2).unwrap();
            let view = view.transpose(axis, other).unwrap();
            views.push((format!("axes {other} and {axis} cut and turned"), var, view));
        }
    }
    views
}

/// Shapes of nothing for a row.
fn shapes(row: &Row) -> Vec<Vec<usize>> {
    let mut shapes = vec![[&[0], row.example].concat()];
    if row.any_leading {
        for leading in [&[0, 5][..], &[2, 0], &[0, 0], &[2, 0, 3]] {
            shapes.push([leading, row.example].concat());
        }
    }
    if row.example.len() > 1 {
        // no time steps
        let time = row.example.len() - 1;
        for batch in [0, 2] {
            let mut shape = [&[batch], row.example].concat();
            shape[time] = 0;
            shapes.push(shape);
        }
    }
    shapes
}

#[test]
fn a_function_of_nothing_is_nothing_of_the_right_shape_and_so_is_its_gradient() {
    for row in functions() {
        for shape in shapes(&row) {
            // the shape of the outputs, from an input that holds something
            let full: Vec<_> = shape.iter().map(|size| (*size).max(1)).collect();
            let mut want = (row.function)(&irregular(&full)).unwrap().dims().to_vec();
            for axis in 0..want.len() - 1 {
                want[axis] -= full[axis] - shape[axis];
            }
            for (layout, var, view) in layouts(&shape, DType::F64) {
                let what = format!("{}, {shape:?}, {layout}", row.name);
                let y = (row.function)(&view).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(y.dims(), want, "{what}");
                let again = y.sum_all().unwrap();
                let grads = again.backward().unwrap_or_else(|e| panic!("{what}: {e}"));
                if let Some(gradient) = grads.get(&var) {
                    assert_eq!(gradient.dims(), var.dims(), "{what}");
                    assert!(numbers(gradient).iter().all(|g| *g == 0.0), "{what}");
                }
                for (name, var) in &row.trained {
                    let Some(gradient) = grads.get(var) else {
                        continue;
                    };
                    // candle's matrix product of nothing has no history; a prompt's outputs hold
                    // its own vectors where there are rows
                    let moves = numbers(gradient).iter().any(|g| *g != 0.0);
                    assert_eq!(moves, y.elem_count() > 0, "{what}: {name}");
                }
            }
        }
    }
}

#[test]
fn tokens_that_are_none_have_embeddings_that_are_none() {
    let mut layer = LoraEmbedding::new(&table(DType::F64), &config(), &mut rng(7)).unwrap();
    for step in ["on", "merged", "off"] {
        match step {
            "merged" => layer.merge().unwrap(),
            "off" => layer.set_enabled(false),
            _ => {}
        }
        for shape in [&[0][..], &[0, 5], &[2, 0], &[2, 0, 3]] {
            for dtype in [DType::U32, DType::I64] {
                for (at, tokens) in tokens(shape, dtype).iter().enumerate() {
                    let what = format!("{step}, {shape:?}, layout {at}, {dtype:?}");
                    let y = layer.forward(tokens);
                    let y = y.unwrap_or_else(|e| panic!("{what}: {e}"));
                    assert_eq!(y.dims(), [shape, &[3]].concat(), "{what}");
                    y.sum_all().unwrap().backward().unwrap();
                }
            }
        }
    }
}

/// Indices of this shape, in every layout.
fn tokens(shape: &[usize], dtype: DType) -> Vec<Tensor> {
    let made = |shape: &[usize]| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    let mut views = vec![made(shape)];
    for axis in 0..shape.len() {
        let mut wider = shape.to_vec();
        wider[axis] += 3;
        views.push(made(&wider).narrow(axis, 3, shape[axis]).unwrap());
        for other in 0..axis {
            let mut turned = shape.to_vec();
            turned.swap(axis, other);
            views.push(made(&turned).transpose(axis, other).unwrap());
        }
    }
    views
}

#[test]
fn a_prompt_before_nothing_is_as_long_as_it_is_and_is_cut_off_again() {
    let config = PromptConfig {
        length: 2,
        init: PromptInit::Text { tokens: vec![1] },
    };
    let prompt = PromptEmbedding::new(&irregular(&[5, 4]), &config, &mut rng(7)).unwrap();
    for shape in [[0, 3], [2, 0], [0, 0]] {
        let [batch, time] = shape;
        for view in tokens(&shape, DType::U32) {
            let longer = prompt.tokens(&view).unwrap();
            assert_eq!(longer.dims(), [batch, time + 2]);
        }
        for view in tokens(&shape, DType::U8) {
            for longer in [prompt.loss_mask(&view), prompt.attention_mask(&view)] {
                assert_eq!(longer.unwrap().dims(), [batch, time + 2]);
            }
        }
        for (layout, _, view) in layouts(&[batch, time, 4], DType::F64) {
            let longer = prompt.prepend(&view).unwrap();
            let cut = prompt.cut(&longer).unwrap();
            assert_eq!(cut.dims(), [batch, time, 4], "{layout}");
            // and what is cut off can be used
            let more = (cut.affine(2.0, 1.0).unwrap() + 1.0).unwrap();
            let more = more.contiguous().unwrap().copy().unwrap();
            assert_eq!(numbers(&more.sum_all().unwrap()), [0.0], "{layout}");
        }
    }
}

#[test]
fn attention_of_nothing_or_to_nothing() {
    let shape = PrefixShape {
        layers: 1,
        heads: 2,
        head_dim: 4,
    };
    let settings = PrefixConfig {
        length: 2,
        reparametrization: Reparametrization::Direct,
    };
    let cpu = &Device::Cpu;
    let encoder = PrefixEncoder::new(shape, &settings, DType::F64, cpu, &mut rng(7)).unwrap();
    let layer: PrefixLayer = encoder.layers().unwrap().remove(0).unwrap();
    for (batch, time, keys) in [(0, 3, 5), (2, 0, 5), (2, 3, 0), (2, 0, 0), (0, 0, 0)] {
        for masked in [false, true] {
            let visible = Tensor::ones((time, keys), DType::U8, cpu).unwrap();
            let visible = masked.then_some(&visible);
            let k = irregular(&[batch, 2, keys, 4]);
            let shape = [batch, 4, time, 4];
            let mut queries = vec![("made".to_string(), irregular(&shape))];
            if batch * time == 0 {
                let views = layouts(&shape, DType::F64).into_iter();
                queries.extend(views.map(|(layout, _, view)| (layout, view)));
            }
            for (layout, q) in queries {
                let what = format!("{batch} {time} {keys} {layout} {masked}");
                let h = prefix_attention(&q, &k, &k, &layer, visible)
                    .unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(h.dims(), [batch, 4, time, 4], "{what}");
                h.sum_all().unwrap().backward().unwrap();
                let mixture = prefix_mixing(&q, &k, &k, &layer, visible)
                    .unwrap_or_else(|e| panic!("{what}: {e}"));
                let mixed = mixture.output().unwrap();
                assert_eq!(mixed.dims(), h.dims(), "{what}");
                for (a, b) in numbers(&mixed).iter().zip(numbers(&h)) {
                    assert!((a - b).abs() < 1e-12, "{what}: {a} {b}");
                }
                mixed.sum_all().unwrap().backward().unwrap();
            }
        }
    }
}

#[test]
fn a_base_without_inputs_or_outputs() {
    for (outputs, inputs) in [(0, 4), (3, 0), (0, 0)] {
        for has_bias in [false, true] {
            let weight = irregular(&[outputs, inputs]);
            let bias = has_bias.then(|| irregular(&[outputs]));
            let want = match &bias {
                Some(bias) => bias.broadcast_as((2, outputs)).unwrap(),
                None => Tensor::zeros((2, outputs), DType::F64, &Device::Cpu).unwrap(),
            };
            let linear = Linear::new(weight, bias);
            let x = irregular(&[2, inputs]);
            let what = format!("{outputs} {inputs} {has_bias}");
            let fine = |name: &str, y: candle_core::Result<Tensor>| {
                let y = y.unwrap_or_else(|e| panic!("{name}, {what}: {e}"));
                assert_eq!(y.dims(), [2, outputs], "{name}, {what}");
                assert_eq!(numbers(&y), numbers(&want), "{name}, {what}");
                y.sum_all().unwrap().backward().unwrap();
            };
            let frozen = FrozenLinear::new(linear.weight().clone(), linear.bias().cloned());
            fine("frozen", frozen.unwrap().forward(&x));
            /// At its start a layer is its base; made, it can be merged.
            macro_rules! layer {
                ($name:expr, $layer:expr) => {
                    let layer = $layer.unwrap_or_else(|e| panic!("{}, {what}: {e}", $name));
                    fine($name, layer.forward(&x));
                    let merged = layer.merged_linear();
                    let merged = merged.unwrap_or_else(|e| panic!("{}, {what}: {e}", $name));
                    fine(
                        $name,
                        FrozenLinear::new(merged.weight().clone(), merged.bias().cloned())
                            .unwrap()
                            .forward(&x),
                    );
                };
            }
            layer!("LoRA", LoraLinear::new(&linear, &config(), &mut rng(7)));
            layer!("DoRA", DoraLinear::new(&linear, &config(), &mut rng(7)));
            layer!(
                "AdaLoRA",
                AdaLoraLinear::new(&linear, &ada_config(), &mut rng(7))
            );
            for place in [Ia3Place::Input, Ia3Place::Output] {
                layer!("(IA)³", Ia3Linear::new(&linear, place));
            }
            layer!(
                "VeRA",
                VeraLinear::new(&linear, &shared(DType::F64), &vera_config())
            );
            layer!("BitFit", BiasLinear::new(&linear));
            let says = Nf4Linear::quantize(&linear, BlockScale::Double).unwrap_err();
            assert!(says.to_string().contains("has no elements"), "{says}");
            let adapter = BottleneckAdapter::new(
                inputs,
                outputs,
                &BottleneckConfig {
                    insertion: Insertion::Parallel,
                    ..Default::default()
                },
                DType::F64,
                &Device::Cpu,
                &mut rng(7),
            );
            fine("adapter", Ok(adapter.unwrap().insert(&x, &want).unwrap()));
        }
    }
    for (vocabulary, dim) in [(0, 4), (5, 0), (0, 0)] {
        let table = Embedding::new(irregular(&[vocabulary, dim]), dim);
        let layer = LoraEmbedding::new(&table, &config(), &mut rng(7)).unwrap();
        layer.merged_embedding().unwrap();
        for tokens in tokens(&[0, 3], DType::U32) {
            assert_eq!(layer.forward(&tokens).unwrap().dims(), [0, 3, dim]);
        }
        if vocabulary > 0 {
            let tokens = Tensor::new(&[1u32, 2], &Device::Cpu).unwrap();
            assert_eq!(layer.forward(&tokens).unwrap().dims(), [2, dim]);
        } else {
            let tokens = Tensor::new(&[0u32], &Device::Cpu).unwrap();
            layer.forward(&tokens).unwrap_err();
        }
    }
}

#[test]
fn the_head_of_a_reward_model_scores_no_rows() {
    let head = RewardHead::new(4, &mut rng(7), DType::F64, &Device::Cpu).unwrap();
    for time in [0, 3] {
        let mask = tokens(&[0, time], DType::U8);
        for (layout, _, hidden) in layouts(&[0, time, 4], DType::F64) {
            for mask in &mask {
                let scores = head.forward(&hidden, mask).unwrap();
                assert_eq!(scores.dims(), [0], "{layout}");
                scores.sum_all().unwrap().backward().unwrap();
            }
        }
    }
    // a row without a token has no place to be scored at, which is said
    let mask = Tensor::zeros((2, 0), DType::U8, &Device::Cpu).unwrap();
    for (_, _, hidden) in layouts(&[2, 0, 4], DType::F64) {
        head.forward(&hidden, &mask).unwrap_err();
    }
}

#[test]
fn no_layers_are_allocated_no_rank() {
    let config = RankAllocatorConfig {
        total_steps: 9,
        ..Default::default()
    };
    let mut none = RankAllocator::new(&[], &config).unwrap();
    let grads = Tensor::zeros((), DType::F64, &Device::Cpu).unwrap();
    let grads = grads.backward().unwrap();
    assert_eq!(none.budget(0), 0);
    assert_eq!(none.update(1, &grads).unwrap().budget, 0);
    assert!(none.scores().unwrap().is_empty());
    let says = orthogonality_penalty(&[], Orthogonality::SquaredSum).unwrap_err();
    assert!(says.to_string().contains("is empty"), "{says}");
}
