//! What is trained. Every model of a run is made here: the one that learns, its frozen copies, and
//! the reward head in front of it.

use super::batch::Batch;
use super::error::Result;
use super::settings::Settings;
use super::support::transformer::{Config, Transformer};
use candle_align::{RewardHead, Statistics, TokenLogProbs};
use candle_core::{DType, Device, Var};
use rand::rngs::StdRng;

/// A language model, with a scalar head in front if it is a reward model.
pub struct Model {
    pub body: Transformer,
    pub head: Option<RewardHead>,
}

impl Model {
    /// With random weights, of the sizes in the settings.
    pub fn new(settings: &Settings, rng: &mut StdRng) -> Result<Self> {
        let config = Config {
            vocabulary: settings.objective.vocabulary(),
            dim: settings.width,
            heads: settings.heads,
            layers: settings.layers,
            max_len: settings.max_len,
            feed_forward: 4 * settings.width,
        };
        Ok(Self {
            body: Transformer::new(&config, DType::F32, rng)?,
            head: None,
        })
    }

    /// Puts a reward head in front.
    pub fn add_head(&mut self, rng: &mut StdRng) -> Result<()> {
        let width = self.body.config().dim;
        self.head = Some(RewardHead::new(width, rng, DType::F32, &Device::Cpu)?);
        Ok(())
    }

    /// A copy that no step changes and that keeps no graph.
    pub fn frozen(&self) -> Result<Self> {
        let head = self.head.as_ref();
        let head = head.map(|head| RewardHead::from_tensors(head.weight(), head.bias()));
        Ok(Self {
            body: self.body.frozen()?,
            head: head.transpose()?,
        })
    }

    /// The variables that the objective reaches, by name. A reward model has no use for the
    /// language model's output layer.
    pub fn vars(&self) -> Vec<(String, Var)> {
        let mut vars = self.body.vars();
        if let Some(head) = &self.head {
            vars.retain(|(name, _)| name != "head.weight");
            vars.extend(head.trainable());
        }
        vars
    }

    /// The log-probability of every token that a batch learns.
    pub fn log_probs(&self, batch: &Batch, settings: &Settings) -> Result<TokenLogProbs> {
        let visible = batch.visible.as_ref();
        let logits = self.body.forward_with(&batch.tokens, visible)?.logits;
        let statistics = Statistics {
            vocabulary_mean: settings.sft.label_smoothing > 0.0,
            ..Default::default()
        };
        let (tokens, learned) = (&batch.tokens, &batch.learned);
        Ok(TokenLogProbs::next_token_with(
            &logits, tokens, learned, statistics,
        )?)
    }
}
