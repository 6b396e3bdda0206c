//! A frozen model that reads the mean of its input's embeddings: what a prompt can do to it is known.

use crate::common::adapters::descend;
use crate::common::lora::{irregular, rng};
use crate::common::policy::{distance, normalized};
use crate::common::{assert_close, numbers};
use candle_align::parameter_efficient::{FrozenLinear, PromptConfig, PromptEmbedding, PromptInit};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::{Embedding, Module, ops::log_softmax};

/// What gradient descent reaches of a smooth optimum in f64.
const REACHED: f64 = 1e-9;

/// Three symbols in three dimensions; π = softmax(H · mean of the embeddings), no prompt in it.
struct Model {
    table: Tensor,
    head: FrozenLinear,
}

impl Model {
    fn new() -> Self {
        let eye = Tensor::eye(3, DType::F64, &Device::Cpu).unwrap();
        Self {
            table: irregular(&[3, 3]),
            head: FrozenLinear::new((eye + (irregular(&[3, 3]) * 0.4).unwrap()).unwrap(), None)
                .unwrap(),
        }
    }

    fn log_policy(&self, prompt: &PromptEmbedding, tokens: &Tensor) -> Tensor {
        let x = Embedding::new(self.table.clone(), 3)
            .forward(tokens)
            .unwrap();
        let mean = prompt.prepend(&x).unwrap().mean(1).unwrap();
        log_softmax(&self.head.forward(&mean).unwrap(), D::Minus1).unwrap()
    }

    fn prompt(&self, length: usize) -> PromptEmbedding {
        let config = PromptConfig {
            length,
            init: PromptInit::Uniform,
        };
        PromptEmbedding::new(&self.table, &config, &mut rng(2)).unwrap()
    }
}

/// One input: a prompt reaches any distribution, since H is invertible. The base says something else.
#[test]
fn a_prompt_makes_a_frozen_model_say_what_is_wanted() {
    let model = Model::new();
    let tokens = Tensor::new(&[[2u32, 0]], &Device::Cpu).unwrap();
    let data = [0.1, 0.7, 0.2];
    let target = Tensor::new(&[data], &Device::Cpu).unwrap();
    let mut prompt = model.prompt(4);
    let loss = || {
        let said = model.log_policy(&prompt, &tokens);
        (said * &target).unwrap().sum_all().unwrap().neg().unwrap()
    };
    descend(&prompt.trainable(""), 4.0, 300, loss);
    let policy = |prompt: &PromptEmbedding| -> Vec<f64> {
        numbers(&model.log_policy(prompt, &tokens))
            .iter()
            .map(|l| l.exp())
            .collect()
    };
    assert_close(&policy(&prompt), &data, REACHED, "policy");
    // the loss is then the entropy of the data
    let entropy: f64 = -data.iter().map(|p| p * p.ln()).sum::<f64>();
    assert_close(&numbers(&loss()), &[entropy], REACHED, "loss");
    prompt.set_enabled(false);
    assert!(distance(&policy(&prompt), &data) > 0.2);
}

/// Two inputs: the prompt adds the same to the logits of both, so it reaches the best common shift.
/// With one wanted distribution reached by a shift, the other input follows: π ∝ base^{2/4} · e^{shift}.
#[test]
fn a_prompt_cannot_tell_inputs_apart_that_the_model_adds_up() {
    let model = Model::new();
    let tokens = Tensor::new(&[[2u32, 0], [1, 1]], &Device::Cpu).unwrap();
    let prompt = model.prompt(2);
    let data = [0.6, 0.1, 0.3];
    let target = Tensor::new(&[data], &Device::Cpu).unwrap();
    let first = tokens.narrow(0, 0, 1).unwrap();
    descend(&prompt.trainable(""), 4.0, 400, || {
        let said = model.log_policy(&prompt, &first);
        (said * &target).unwrap().sum_all().unwrap().neg().unwrap()
    });
    let mut bare = model.prompt(2);
    bare.set_enabled(false);
    // half of the four positions are the input's: half of its logits
    let base: Vec<f64> = numbers(&model.log_policy(&bare, &tokens))
        .iter()
        .map(|l| (l * 0.5).exp())
        .collect();
    let want: Vec<f64> = (0..3).map(|i| data[i] / base[i] * base[3 + i]).collect();
    let said: Vec<f64> = numbers(&model.log_policy(&prompt, &tokens))
        .iter()
        .map(|l| l.exp())
        .collect();
    assert_close(&said[..3], &data, REACHED, "the trained input");
    assert_close(&said[3..], &normalized(&want), REACHED, "the other");
}
