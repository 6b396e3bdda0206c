use crate::common::lora::{irregular, rng};
use crate::common::{bits, says};
use candle_align::parameter_efficient::{PromptConfig, PromptEmbedding, PromptInit};
use candle_core::{DType, Tensor};
use candle_nn::Module;

fn start(table: &Tensor, length: usize, init: PromptInit) -> candle_align::Result<PromptEmbedding> {
    PromptEmbedding::new(table, &PromptConfig { length, init }, &mut rng(1))
}

fn text(tokens: &[u32]) -> PromptInit {
    PromptInit::Text {
        tokens: tokens.to_vec(),
    }
}

#[test]
fn settings() {
    let table = irregular(&[5, 3]);
    let vocabulary = |common| PromptInit::Vocabulary { common };
    let labels = |labels: &[&[u32]]| PromptInit::Labels {
        labels: labels.iter().map(|l| l.to_vec()).collect(),
        common: 5,
    };
    for (length, init, message) in [
        (0, PromptInit::Uniform, "`length` must be >= 1, got 0"),
        (2, vocabulary(0), "`common` must be >= 1, got 0"),
        (2, text(&[]), "`tokens` holds no token"),
        (
            2,
            text(&[4, 5]),
            "`tokens` holds 5, outside the vocabulary of 5",
        ),
        (2, labels(&[&[1], &[]]), "`labels` holds no token"),
        (
            2,
            labels(&[&[1, 9]]),
            "`labels` holds 9, outside the vocabulary of 5",
        ),
        (
            2,
            labels(&[&[1], &[2], &[3]]),
            "`labels` are 3, but the prompt has 2 positions",
        ),
    ] {
        says(
            start(&table, length, init),
            &format!("PromptEmbedding::new: {message}"),
        );
    }
}

#[test]
fn tables() {
    says(
        start(&irregular(&[5]), 2, PromptInit::Uniform),
        "PromptEmbedding::new: `table` has shape [5], expected [vocabulary, dim]",
    );
    let whole = irregular(&[5, 3]).to_dtype(DType::U32).unwrap();
    says(
        start(&whole, 2, PromptInit::Uniform),
        "PromptEmbedding::new: `table` is u32, expected f32, f64, bf16 or f16",
    );
    let none = irregular(&[5, 3]).narrow(0, 0, 0).unwrap();
    says(
        start(&none, 2, PromptInit::Vocabulary { common: 3 }),
        "PromptEmbedding::new: `table` has a vocabulary of 0",
    );
    says(
        PromptEmbedding::from_values(&irregular(&[5])),
        "PromptEmbedding::from_values: `values` has shape [5], expected [length, dim]",
    );
    says(
        PromptEmbedding::from_values(&whole),
        "PromptEmbedding::from_values: `values` is u32, expected f32 or f64",
    );
    says(
        PromptEmbedding::from_values(&none),
        "PromptEmbedding::from_values: `values` holds no vector",
    );
}

#[test]
fn inputs() {
    let prompt = PromptEmbedding::from_values(&irregular(&[2, 3])).unwrap();
    let message = "PromptEmbedding::prepend: `embeddings` has shape [2, 4, 5], expected \
                   [batch, time, dim=3 (from `values`)]";
    says(prompt.prepend(&irregular(&[2, 4, 5])), message);
    says(prompt.forward(&irregular(&[2, 4, 5])), message);
    let single = irregular(&[2, 4, 3]).to_dtype(DType::F32).unwrap();
    says(
        prompt.prepend(&single),
        "PromptEmbedding::prepend: `embeddings` is f32, expected f64 (from `values`)",
    );
    let half = irregular(&[2, 4, 3]).to_dtype(DType::F16).unwrap();
    says(
        prompt.prepend(&half),
        "PromptEmbedding::prepend: `embeddings` is f16, expected f64 (from `values`)",
    );
    let values = irregular(&[2, 3]).to_dtype(DType::F32).unwrap();
    let prompt = PromptEmbedding::from_values(&values).unwrap();
    says(
        prompt.prepend(&irregular(&[2, 4, 3])),
        "PromptEmbedding::prepend: `embeddings` is f64, expected f32, bf16 or f16 (from `values`)",
    );
}

#[test]
fn what_goes_with_them() {
    let prompt = PromptEmbedding::from_values(&irregular(&[2, 3])).unwrap();
    let mask = bits(&[&[1, 0]]);
    says(
        prompt.tokens(&mask),
        "PromptEmbedding::tokens: `tokens` is u8, expected u32 or i64",
    );
    let tokens = mask.to_dtype(DType::U32).unwrap();
    says(
        prompt.loss_mask(&tokens),
        "PromptEmbedding::loss_mask: `mask` is u32, expected u8",
    );
    says(
        prompt.attention_mask(&mask.get(0).unwrap()),
        "PromptEmbedding::attention_mask: `mask` has shape [2], expected [batch, time]",
    );
    for shape in [&[4][..], &[4, 1, 3]] {
        says(
            prompt.cut(&irregular(shape)),
            &format!(
                "PromptEmbedding::cut: `output` has shape {shape:?}, without the 2 virtual positions \
                 on its second axis"
            ),
        );
    }
}
