use crate::common::adapters::{assert_gradients, objective};
use crate::common::lora::{irregular, rng, tensor, var};
use crate::common::{EXACT, assert_close, bits, numbers};
use candle_align::parameter_efficient::{PromptConfig, PromptEmbedding, PromptInit};
use candle_core::{DType, Device, Tensor};
use candle_nn::Module;

/// Four tokens of two numbers.
const TABLE: [[f64; 2]; 4] = [[1.0, -2.0], [3.0, 0.5], [-4.0, 7.0], [0.25, 9.0]];

fn prompt(length: usize, init: PromptInit) -> PromptEmbedding {
    let config = PromptConfig { length, init };
    PromptEmbedding::new(&tensor(&TABLE), &config, &mut rng(3)).unwrap()
}

#[test]
fn the_settings_are_the_papers() {
    let config = PromptConfig::default();
    assert_eq!(config.length, 100);
    assert_eq!(config.init, PromptInit::Vocabulary { common: 5000 });
    let json = r#"{"length":2,"init":{"labels":{"labels":[[1,2],[3]],"common":9}}}"#;
    let read: PromptConfig = serde_json::from_str(json).unwrap();
    let labels = vec![vec![1, 2], vec![3]];
    assert_eq!(read.init, PromptInit::Labels { labels, common: 9 });
    assert_eq!(serde_json::to_string(&read).unwrap(), json);
    for wrong in [r#"{"init":"zero"}"#, r#"{"lenght":2}"#] {
        assert!(serde_json::from_str::<PromptConfig>(wrong).is_err());
    }
}

#[test]
fn a_uniform_start_fills_the_interval() {
    let prompt = prompt(5000, PromptInit::Uniform);
    let values = numbers(prompt.values());
    assert!(values.iter().all(|x| (-0.5..=0.5).contains(x)));
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let square = values.iter().map(|x| x * x).sum::<f64>() / n;
    // of 10,000 draws: standard deviations 0.0029 and 0.00075
    assert!(mean.abs() < 0.015, "{mean}");
    assert!((square - 1.0 / 12.0).abs() < 0.004, "{square}");
}

/// The row of the table at each position.
fn rows(prompt: &PromptEmbedding) -> Vec<usize> {
    numbers(prompt.values())
        .chunks(2)
        .map(|x| TABLE.iter().position(|row| row == x).expect("a row"))
        .collect()
}

#[test]
fn sampled_vocabulary_is_common_and_not_repeated() {
    let drawn = |length, common, seed| {
        let init = PromptInit::Vocabulary { common };
        let config = PromptConfig { length, init };
        rows(&PromptEmbedding::new(&tensor(&TABLE), &config, &mut rng(seed)).unwrap())
    };
    let mut seen = [false; 4];
    for seed in 0..40 {
        let found = drawn(3, 5000, seed);
        assert_eq!(found, drawn(3, 5000, seed), "one seed, one prompt");
        let mut sorted = found.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), 3, "{found:?}");
        found.iter().for_each(|&row| seen[row] = true);
        // the first two only
        let mut few = drawn(2, 2, seed);
        few.sort();
        assert_eq!(few, [0, 1]);
        // more positions than rows: a row comes again
        assert!(drawn(7, 3, seed).iter().all(|&row| row < 3));
    }
    assert_eq!(seen, [true; 4]);
}

#[test]
fn labels_are_means_and_vocabulary_fills_the_rest() {
    let labels = vec![vec![0, 1, 2], vec![3]];
    let prompt = prompt(4, PromptInit::Labels { labels, common: 2 });
    let values = numbers(prompt.values());
    let want = [(1.0 + 3.0 - 4.0) / 3.0, (-2.0 + 0.5 + 7.0) / 3.0, 0.25, 9.0];
    assert_close(&values[..4], &want, EXACT, "labels");
    for rest in values[4..].chunks(2) {
        assert!(rest == TABLE[0] || rest == TABLE[1], "{rest:?}");
    }
    // as many labels as positions: nothing is left to fill
    let labels = vec![vec![2]];
    let prompt = self::prompt(1, PromptInit::Labels { labels, common: 1 });
    assert_eq!(numbers(prompt.values()), [-4.0, 7.0]);
}

#[test]
fn a_text_is_cut_or_begins_again() {
    for (length, want) in [(1, &[2][..]), (3, &[2, 0, 2]), (5, &[2, 0, 2, 2, 0])] {
        let tokens = if length == 1 {
            vec![2, 0]
        } else {
            vec![2, 0, 2]
        };
        let prompt = prompt(length, PromptInit::Text { tokens });
        assert_eq!(rows(&prompt), want);
    }
}

#[test]
fn the_vectors_stand_before_every_row() {
    let prompt = prompt(2, PromptInit::Text { tokens: vec![3, 1] });
    let x = irregular(&[3, 2, 2]);
    let longer = prompt.prepend(&x).unwrap();
    assert_eq!(longer.dims(), [3, 4, 2]);
    let x = numbers(&x);
    let want: Vec<f64> = (0..3)
        .flat_map(|b| {
            [
                &TABLE[3],
                &TABLE[1],
                &x[4 * b..4 * b + 2],
                &x[4 * b + 2..4 * b + 4],
            ]
            .concat()
        })
        .collect();
    assert_eq!(numbers(&longer), want);
    // a view in another memory order
    let turned = irregular(&[2, 3, 2]).transpose(0, 1).unwrap();
    let longer = prompt.forward(&turned).unwrap();
    let tail = longer.narrow(1, 2, 2).unwrap();
    assert_eq!(numbers(&tail), numbers(&turned));
    // no rows, and rows of nothing
    for shape in [(0, 3, 2), (2, 0, 2)] {
        let none = Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap();
        let dims = [shape.0, shape.1 + 2, 2];
        assert_eq!(prompt.prepend(&none).unwrap().dims(), dims);
    }
}

#[test]
fn what_goes_with_the_rows_is_extended_and_cut() {
    let prompt = prompt(2, PromptInit::Uniform);
    let tokens = Tensor::new(&[[5u32, 6, 7], [8, 9, 1]], &Device::Cpu).unwrap();
    let mask = bits(&[&[0, 1, 1], &[0, 1, 0]]);
    let longer = prompt.tokens(&tokens).unwrap();
    assert_eq!(longer.dtype(), DType::U32);
    let want = [[0, 0, 5, 6, 7], [0, 0, 8, 9, 1]];
    assert_eq!(longer.to_vec2::<u32>().unwrap(), want);
    let signed = prompt.tokens(&tokens.to_dtype(DType::I64).unwrap());
    assert_eq!(signed.unwrap().dtype(), DType::I64);
    let want = [[0, 0, 0, 1, 1], [0, 0, 0, 1, 0]];
    assert_eq!(
        prompt.loss_mask(&mask).unwrap().to_vec2::<u8>().unwrap(),
        want
    );
    let want = [[1, 1, 0, 1, 1], [1, 1, 0, 1, 0]];
    let visible = prompt.attention_mask(&mask).unwrap();
    assert_eq!(visible.to_vec2::<u8>().unwrap(), want);
    assert_eq!(
        prompt.cut(&longer).unwrap().to_vec2::<u32>().unwrap(),
        tokens.to_vec2::<u32>().unwrap()
    );
    let wide = prompt.cut(&irregular(&[2, 5, 3])).unwrap();
    assert_eq!(wide.dims(), [2, 3, 3]);
}

#[test]
fn the_types_follow_the_table() {
    for (stored, trained) in [
        (DType::F64, DType::F64),
        (DType::F32, DType::F32),
        (DType::BF16, DType::F32),
        (DType::F16, DType::F32),
    ] {
        let table = tensor(&TABLE).to_dtype(stored).unwrap();
        for init in [
            PromptInit::Uniform,
            PromptInit::Vocabulary { common: 4 },
            PromptInit::Text { tokens: vec![1] },
            PromptInit::Labels {
                labels: vec![vec![1, 2]],
                common: 4,
            },
        ] {
            let config = PromptConfig { length: 3, init };
            let prompt = PromptEmbedding::new(&table, &config, &mut rng(1)).unwrap();
            assert_eq!(prompt.values().dtype(), trained);
            for found in [stored, trained] {
                let x = irregular(&[1, 1, 2]).to_dtype(found).unwrap();
                let longer = prompt.prepend(&x).unwrap();
                assert_eq!(longer.dtype(), found);
                let grads = longer.sum_all().unwrap().backward().unwrap();
                assert_eq!(grads.get(prompt.values()).unwrap().dtype(), trained);
            }
        }
    }
}

#[test]
fn the_gradient_is_a_central_difference() {
    let prompt = prompt(2, PromptInit::Uniform);
    let x = var(&irregular(&[3, 2, 2]));
    let mut vars = prompt.trainable("model");
    assert_eq!(vars[0].0, "model.prompt_embeddings");
    vars.push(("x".to_string(), x.clone()));
    let mix = irregular(&[4, 4]);
    assert_gradients("prompt", &vars, || {
        // positions mixed, so that every row has its own slope
        let h = prompt.prepend(&x).unwrap();
        objective(&mix.broadcast_matmul(&h.tanh().unwrap()).unwrap())
    });
}

#[test]
fn stored_vectors_are_copied() {
    let stored = var(&irregular(&[3, 2]));
    let prompt = PromptEmbedding::from_values(&stored).unwrap();
    stored.set(&stored.zeros_like().unwrap()).unwrap();
    assert_eq!(numbers(prompt.values()), numbers(&irregular(&[3, 2])));
    assert_eq!(prompt.parameters(), 3 * 2);
    // nor does the table move with a prompt of its rows
    let table = tensor(&TABLE);
    let init = PromptInit::Text {
        tokens: vec![0, 1, 2, 3],
    };
    let config = PromptConfig { length: 4, init };
    let prompt = PromptEmbedding::new(&table, &config, &mut rng(1)).unwrap();
    prompt.values().set(&table.zeros_like().unwrap()).unwrap();
    assert_eq!(numbers(&table), TABLE.concat());
}
