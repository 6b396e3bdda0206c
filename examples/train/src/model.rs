//! The models of a run: the trained one, its frozen copies, the adapter on a frozen one, and the reward
//! head.

use super::adapter::Adapter;
use super::batch::Batch;
use super::error::{Error, Result};
use super::input;
use super::settings::Settings;
use candle_align::online::reward_head::RewardHead;
use candle_align::{Statistics, TokenLogProbs};
use candle_core::{DType, Device, Var};
use rand::rngs::StdRng;
use std::ops::Deref;
use std::path::Path;
use support::adapters::Adapted;
use support::transformer::{Config, Transformer};

/// A language model, with a scalar head if it is a reward model.
pub struct Model {
    pub body: Body,
    pub head: Option<RewardHead>,
}

/// A transformer that is fully trained, frozen, or frozen under an adapter.
pub enum Body {
    Whole(Transformer),
    Adapted(Adapted),
}

impl From<Transformer> for Body {
    fn from(model: Transformer) -> Self {
        Self::Whole(model)
    }
}

impl Deref for Body {
    type Target = Transformer;

    fn deref(&self) -> &Transformer {
        match self {
            Self::Whole(model) => model,
            Self::Adapted(adapted) => &adapted.model,
        }
    }
}

impl Model {
    /// With random weights, or those of `base`; of the sizes in the settings.
    pub fn new(settings: &Settings, rng: &mut StdRng) -> Result<Self> {
        let config = Config {
            vocabulary: settings.objective.vocabulary(),
            dim: settings.width,
            heads: settings.heads,
            layers: settings.layers,
            max_len: settings.max_len,
            feed_forward: 4 * settings.width,
        };
        let body = match &settings.base {
            Some(path) => saved(path, &config)?,
            None => Transformer::new(&config, DType::F32, rng)?,
        };
        Ok(Self {
            body: body.into(),
            head: None,
        })
    }

    /// Freezes the model and puts an adapter on it.
    pub fn adapt(&mut self, adapter: &Adapter, rng: &mut StdRng) -> Result<()> {
        self.body = Body::Adapted(adapter.on(&self.body, rng)?);
        Ok(())
    }

    /// The adapter, if there is one.
    pub fn adapted(&self) -> Option<&Adapted> {
        match &self.body {
            Body::Whole(_) => None,
            Body::Adapted(adapted) => Some(adapted),
        }
    }

    /// Adds a reward head.
    pub fn add_head(&mut self, rng: &mut StdRng) -> Result<()> {
        let width = self.body.config().dim;
        self.head = Some(RewardHead::new(width, rng, DType::F32, &Device::Cpu)?);
        Ok(())
    }

    /// A frozen copy without a graph; none for a model under an adapter.
    pub fn frozen(&self) -> Result<Option<Self>> {
        let Body::Whole(body) = &self.body else {
            return Ok(None);
        };
        let head = self.head.as_ref();
        let head = head.map(|head| RewardHead::from_tensors(head.weight(), head.bias()));
        Ok(Some(Self {
            body: body.frozen()?.into(),
            head: head.transpose()?,
        }))
    }

    /// The variables that the objective reaches, by name. A reward model does not use the language
    /// model's output layer.
    pub fn vars(&self) -> Vec<(String, Var)> {
        let mut vars = match &self.body {
            Body::Whole(body) => body.vars(),
            Body::Adapted(adapted) => adapted.vars(),
        };
        if let Some(head) = &self.head {
            vars.retain(|(name, _)| name != "head.weight");
            vars.extend(head.trainable());
        }
        vars
    }

    /// The number of parameters, trained or not.
    pub fn parameters(&self) -> usize {
        let adapter = self.adapted().map_or(0, Adapted::parameters);
        let head = self.head.iter().flat_map(RewardHead::trainable);
        let head: usize = head.map(|(_, var)| var.elem_count()).sum();
        self.body.parameters() + adapter + head
    }

    /// The log-probability of every token that the loss of a batch covers.
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

    /// `of` applied to the reference model: a frozen one, or this one with its adapter off. None for a
    /// model without either.
    pub fn against<T>(
        &self,
        frozen: Option<&Model>,
        of: impl FnOnce(&Model) -> Result<T>,
    ) -> Result<Option<T>> {
        match (frozen, self.adapted()) {
            (Some(frozen), _) => of(frozen).map(Some),
            (None, Some(adapted)) => {
                adapted.set_enabled(false);
                let found = of(self);
                adapted.set_enabled(true);
                found.map(Some)
            }
            (None, None) => Ok(None),
        }
    }
}

/// The weights of an earlier run. `model.json` next to them has their sizes, because the number of heads
/// cannot be read from a weight.
fn saved(path: &Path, config: &Config) -> Result<Transformer> {
    let beside = path.with_file_name("model.json");
    let text = input::json(&beside).map_err(|error| {
        Error::Usage(format!("{error}; it holds the sizes of {}", path.display()))
    })?;
    let found: Config =
        serde_json::from_str(&text).map_err(|error| Error::json(&beside, &text, &error))?;
    for (name, setting, has, asked) in [
        (
            "vocabulary",
            "objective",
            found.vocabulary,
            config.vocabulary,
        ),
        ("dim", "width", found.dim, config.dim),
        ("heads", "heads", found.heads, config.heads),
        ("layers", "layers", found.layers, config.layers),
        ("max_len", "max_len", found.max_len, config.max_len),
        (
            "feed_forward",
            "width",
            found.feed_forward,
            config.feed_forward,
        ),
    ] {
        if has != asked {
            let text = format!("`{name}` is {has}, and the setting `{setting}` makes it {asked}");
            return Err(Error::file(&beside, text));
        }
    }
    Transformer::load(config, path).map_err(|error| Error::file(path, error.to_string()))
}
