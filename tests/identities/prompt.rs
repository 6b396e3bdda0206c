use crate::common::lora::{bits, irregular, rng, tensor, var};
use crate::common::{EXACT, assert_close, bits as mask_of, numbers};
use candle_align::parameter_efficient::{FrozenLinear, PromptConfig, PromptEmbedding, PromptInit};
use candle_align::{Reduction, SftConfig, TokenLogProbs, sft_loss};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Embedding, Module};

const TABLE: [[f64; 2]; 4] = [[1.0, -2.0], [3.0, 0.5], [-4.0, 7.0], [0.25, 9.0]];

fn prompt(init: PromptInit) -> PromptEmbedding {
    let config = PromptConfig { length: 3, init };
    PromptEmbedding::new(&tensor(&TABLE), &config, &mut rng(3)).unwrap()
}

fn embed(tokens: &Tensor) -> Tensor {
    Embedding::new(tensor(&TABLE), 2).forward(tokens).unwrap()
}

/// A causal toy: the running mean of what stands before, through a frozen map to 4 symbols.
fn logits(embeddings: &Tensor) -> Tensor {
    let time = embeddings.dim(1).unwrap();
    let mean: Vec<f64> = (0..time * time)
        .map(|i| {
            if i % time <= i / time {
                1.0 / (1 + i / time) as f64
            } else {
                0.0
            }
        })
        .collect();
    let mean = Tensor::from_vec(mean, (time, time), &Device::Cpu).unwrap();
    let head = FrozenLinear::new(irregular(&[4, 2]), None).unwrap();
    head.forward(&mean.broadcast_matmul(embeddings).unwrap())
        .unwrap()
}

fn tokens() -> Tensor {
    Tensor::new(&[[3u32, 1, 0, 2], [0, 2, 2, 1]], &Device::Cpu).unwrap()
}

fn loss(logits: &Tensor, tokens: &Tensor, mask: &Tensor) -> Tensor {
    let log_probs = TokenLogProbs::next_token(logits, tokens, mask).unwrap();
    let loss = sft_loss(&log_probs, None, &SftConfig::default()).unwrap();
    loss.reduce(Reduction::Sum).unwrap()
}

#[test]
fn virtual_positions_carry_no_loss() {
    let prompt = prompt(PromptInit::Uniform);
    let out = logits(&prompt.prepend(&embed(&tokens())).unwrap());
    let mask = mask_of(&[&[0, 0, 1, 1], &[0, 1, 1, 0]]);
    let short = loss(&prompt.cut(&out).unwrap(), &tokens(), &mask);
    let (longer, longer_mask) = (
        prompt.tokens(&tokens()).unwrap(),
        prompt.loss_mask(&mask).unwrap(),
    );
    let long = loss(&out, &longer, &longer_mask);
    assert_close(&numbers(&short), &numbers(&long), EXACT, "loss");
    let [short, long] = [short, long].map(|l| l.backward().unwrap());
    let [short, long] = [&short, &long].map(|g| numbers(g.get(prompt.values()).unwrap()));
    assert_close(&short, &long, EXACT, "gradient");
    assert!(short.iter().all(|g| *g != 0.0), "{short:?}");

    // the first token can be learned from the longer rows, and from them alone
    let first = mask_of(&[&[1, 0, 0, 0], &[1, 0, 0, 0]]);
    assert_eq!(
        numbers(&loss(&prompt.cut(&out).unwrap(), &tokens(), &first)),
        [0.0]
    );
    let long = loss(&out, &longer, &prompt.loss_mask(&first).unwrap());
    let at = |row: usize, token: usize| {
        let logits = numbers(&out.get(row).unwrap().get(2).unwrap());
        let total: f64 = logits.iter().map(|x| x.exp()).sum();
        total.ln() - logits[token]
    };
    assert_close(&numbers(&long), &[at(0, 3) + at(1, 0)], EXACT, "first");
}

#[test]
fn a_prompt_of_tokens_is_those_tokens() {
    let prompt = prompt(PromptInit::Text {
        tokens: vec![2, 0, 3],
    });
    let longer = prompt.prepend(&embed(&tokens())).unwrap();
    let text = Tensor::new(&[[2u32, 0, 3], [2, 0, 3]], &Device::Cpu).unwrap();
    let read = embed(&Tensor::cat(&[&text, &tokens()], 1).unwrap());
    assert_eq!(bits(&longer), bits(&read));
}

#[test]
fn disabled_it_is_not_there() {
    let mut prompt = prompt(PromptInit::Uniform);
    assert_eq!(prompt.virtual_positions(), 3);
    assert!(prompt.is_enabled());
    prompt.set_enabled(false);
    assert!(!prompt.is_enabled());
    assert_eq!(prompt.virtual_positions(), 0);
    let x = embed(&tokens());
    assert_eq!(bits(&prompt.prepend(&x).unwrap()), bits(&x));
    assert_eq!(bits(&prompt.forward(&x).unwrap()), bits(&x));
    assert_eq!(bits(&prompt.cut(&x).unwrap()), bits(&x));
    let mask = mask_of(&[&[0, 1], &[1, 1]]);
    for same in [prompt.loss_mask(&mask), prompt.attention_mask(&mask)] {
        assert_eq!(bits(&same.unwrap()), bits(&mask));
    }
    assert_eq!(bits(&prompt.tokens(&tokens()).unwrap()), bits(&tokens()));
    prompt.set_enabled(true);
    assert_eq!(prompt.prepend(&x).unwrap().dims(), [2, 7, 2]);
}

#[test]
fn only_the_vectors_are_trained() {
    let table = var(&tensor(&TABLE));
    let init = PromptInit::Labels {
        labels: vec![vec![0, 1]],
        common: 4,
    };
    let config = PromptConfig { length: 3, init };
    let prompt = PromptEmbedding::new(&table, &config, &mut rng(3)).unwrap();
    assert_eq!(prompt.parameters(), 3 * 2);
    let clone = prompt.clone();
    let out = logits(&prompt.prepend(&embed(&tokens())).unwrap());
    let grads = out.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&table).is_none(), "the table is not trained");
    assert!(grads.get(clone.values()).is_some(), "a clone shares");
    assert_eq!(prompt.values().dtype(), DType::F64);
}
