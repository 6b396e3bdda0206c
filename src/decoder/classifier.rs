//! A decoder that scores texts: Transformers' sequence classification, such as a reward model.

use super::model::{Decoder, SCORE};
use super::projection::Weight;
use crate::error::{Error, Result};
use crate::ops::Segments;
use crate::parameter_efficient::frozen_linear::compute_type;
use crate::parameter_efficient::low_rank::normal;
use candle_core::Tensor;
use rand::Rng;

impl Decoder {
    /// The same model with a new head that gives each text `labels` scores, drawn from
    /// N(0, `initializer_range`²) as Transformers draws it. The output layer is dropped.
    ///
    /// # Errors
    /// [`Error::Argument`] if the model has such a head already, or for no labels.
    #[doc(alias = "AutoModelForSequenceClassification")]
    pub fn into_classifier(mut self, labels: usize, rng: &mut impl Rng) -> Result<Self> {
        let function = "Decoder::into_classifier";
        if self.score.is_some() {
            return Err(Error::argument(
                function,
                "self",
                format!("has `{SCORE}` already"),
            ));
        }
        if labels == 0 {
            return Err(Error::argument(function, "labels", "is 0"));
        }
        let table = self.embedding.tensor();
        let (shape, std) = (
            (labels, self.config.hidden_size),
            self.config.initializer_range,
        );
        let dtype = compute_type(table.dtype());
        let score = normal(std, shape, dtype, table.device(), rng)?;
        self.score = Some(match self.embedding {
            Weight::Trained(_) => Weight::Trained(score),
            Weight::Frozen(_) => Weight::Frozen(score.as_tensor().detach()),
        });
        self.head = None;
        self.config.num_labels = Some(labels);
        Ok(self)
    }

    /// The padding token for [`Decoder::scores`] and for the `config.json` that [`Decoder::save`] writes: TRL's reward
    /// trainer takes that of the tokenizer. Which row of the embedding does not learn stays as it was read.
    ///
    /// # Errors
    /// [`Error::Argument`] for a token outside of the vocabulary.
    #[doc(alias = "pad_token_id")]
    pub fn set_pad_token(&mut self, id: u32) -> Result<()> {
        self.check_pad("Decoder::set_pad_token", "id", id)?;
        self.padding = Some(id);
        Ok(())
    }

    /// An error for a padding token that the vocabulary does not have.
    pub(super) fn check_pad(
        &self,
        function: &'static str,
        argument: &'static str,
        id: u32,
    ) -> Result<()> {
        let vocabulary = self.config.vocab_size;
        if (id as usize) < vocabulary {
            return Ok(());
        }
        let text = format!("is {id}, and the vocabulary has {vocabulary} tokens");
        Err(Error::argument(function, argument, text))
    }

    /// The scores `[rows, labels]` of whole rows, from their last hidden states `[tokens, hidden]`.
    ///
    /// Each row is scored at its last token that is not the padding token, as in Transformers. If the end
    /// token serves as padding, that is the token before the end. The padding token is that of `config.json`, or of
    /// [`Decoder::set_pad_token`].
    ///
    /// # Errors
    /// [`Error::Argument`] if the model has no such head, for an empty row, and for hidden states or tokens of
    /// another batch.
    pub fn scores(&self, hidden: &Tensor, tokens: &[u32], segments: &Segments) -> Result<Tensor> {
        let function = "Decoder::scores";
        let score = self.head_of_scores(function)?;
        self.check(function, tokens, segments, 0)?;
        if hidden.dims() != [tokens.len(), self.config.hidden_size] {
            let (found, width) = (hidden.dims(), self.config.hidden_size);
            let text = format!(
                "has shape {found:?}, and not [{}, {width}]: one state per token",
                tokens.len()
            );
            return Err(Error::argument(function, "hidden", text));
        }
        let pad = self.padding;
        let mut last = Vec::new();
        for row in segments.rows() {
            let real = row
                .iter()
                .rev()
                .find(|&&at| tokens.get(at as usize).copied() != pad);
            match real.or(row.first()) {
                Some(at) => last.push(*at),
                None => return Err(Error::argument(function, "segments", "hold an empty row")),
            }
        }
        let last = Tensor::new(last, hidden.device())?;
        let scores = hidden.index_select(&last, 0)?.matmul(&score.t()?)?;
        Ok(self.kept(scores))
    }

    /// The scores `[tokens, labels]` of every token, from the last hidden states `[tokens, hidden]`: of a value model
    /// ([`ppo_value_loss`](crate::ppo_value_loss)) the value of the text up to and with this token, which is V(sₜ) of
    /// the token after it.
    ///
    /// # Errors
    /// [`Error::Argument`] if the model has no such head, and for hidden states of another width.
    #[doc(alias = "value head")]
    pub fn token_scores(&self, hidden: &Tensor) -> Result<Tensor> {
        let function = "Decoder::token_scores";
        let score = self.head_of_scores(function)?;
        let width = self.config.hidden_size;
        if hidden.rank() != 2 || hidden.dim(1)? != width {
            let found = hidden.dims();
            let text = format!("has shape {found:?}, and not [tokens, {width}]");
            return Err(Error::argument(function, "hidden", text));
        }
        Ok(self.kept(hidden.matmul(&score.t()?)?))
    }

    fn head_of_scores(&self, function: &'static str) -> Result<Tensor> {
        self.score_matrix()?.ok_or_else(|| {
            let text = format!("has no `{SCORE}`: see `Decoder::into_classifier`");
            Error::argument(function, "self", text)
        })
    }
}
