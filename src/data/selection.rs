//! Which examples of a dataset are worth learning, and when enough were learned (survey §2.3).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | AlpaGasus: a model's grade of 0 to 5, at least 4.5 | [`AlpaGasusConfig::keep`] | numbers of examples |
//! | InstructMining: a linear rule for the loss after fine-tuning | [`InstructMiningConfig::log_loss`] | number |
//! | IFS: the share of answers that look like answers | [`instruction_following_score`] | number |
//! | the plateau of IFS | [`PlateauConfig::reached`] | yes or no |
//!
//! Read next: [`super::rankings`], for answers that are ranked.

use crate::error::{Error, Result, non_negative, require};
use serde::{Deserialize, Serialize};

/// Settings of AlpaGasus' filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlpaGasusConfig {
    /// τ: the lowest grade that is kept. Default 4.5, on a scale of 0 to 5.
    pub threshold: f64,
}

impl Default for AlpaGasusConfig {
    fn default() -> Self {
        Self { threshold: 4.5 }
    }
}

impl AlpaGasusConfig {
    /// Keeps the examples with a high grade.
    ///
    /// # Equation
    /// ```text
    /// kept = { i : grade_i ≥ τ }
    /// ```
    /// # Shapes
    /// One grade per example; the result has the numbers of the kept ones, in order.
    /// # Errors
    /// [`Error::Parameter`] if τ is not finite; [`Error::Argument`] if a grade is not finite.
    /// # Properties
    /// * A higher τ keeps a part of what a lower one keeps.
    /// # Departures
    /// The authors' code gives −1 to an example whose grade it cannot read, which drops it. Leave such an
    /// example out, or pass −1.
    /// # Examples
    /// ```
    /// use candle_align::data::selection::AlpaGasusConfig;
    ///
    /// assert_eq!(AlpaGasusConfig::default().keep(&[4.0, 4.5, 5.0])?, [1, 2]);
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Source
    /// Chen et al. 2023, arXiv:2307.08701, §2, from its abstract and the code gpt4life/alpagasus,
    /// `rating/filter.py`. In the paper it keeps about 9,000 of Alpaca's 52,000 examples.
    #[doc(alias = "AlpaGasus")]
    pub fn keep(&self, grades: &[f64]) -> Result<Vec<usize>> {
        let function = "AlpaGasusConfig::keep";
        let finite = self.threshold.is_finite();
        require(finite, function, "threshold", "finite", self.threshold)?;
        if let Some(i) = grades.iter().position(|grade| !grade.is_finite()) {
            return Err(Error::argument(
                function,
                format!("grades[{i}]"),
                "is not finite",
            ));
        }
        let kept = |i: &usize| grades[*i] >= self.threshold;
        Ok((0..grades.len()).filter(kept).collect())
    }
}

/// What InstructMining measures on an example, or on average over a set of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Indicators {
    /// The score of a reward model.
    pub reward: f64,
    /// The length of the output in tokens.
    pub length: f64,
    /// The distance to the sixth nearest neighbor among the examples' embeddings.
    pub neighbor: f64,
}

/// InstructMining's linear rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InstructMiningConfig {
    /// Default 1.0694.
    pub intercept: f64,
    /// Default −0.1498.
    pub reward: f64,
    /// Default 8.257 · 10⁻⁵.
    pub length: f64,
    /// Default −0.9350.
    pub neighbor: f64,
}

impl Default for InstructMiningConfig {
    fn default() -> Self {
        Self {
            intercept: 1.0694,
            reward: -0.1498,
            length: 8.257e-5,
            neighbor: -0.9350,
        }
    }
}

impl InstructMiningConfig {
    /// The logarithm of the evaluation loss that these examples are expected to lead to; lower is better.
    ///
    /// # Equation
    /// ```text
    /// log L = 1.0694 − 0.1498 · Rew + 8.257·10⁻⁵ · Len − 0.9350 · Knn₆
    /// ```
    /// # Shapes
    /// Numbers; L is the loss on a held-out set of good instructions.
    /// # Errors
    /// [`Error::Parameter`] if a coefficient is not finite; [`Error::Argument`] if an indicator is not.
    /// # Properties
    /// * The rule is linear, so the value of a set's mean indicators is the mean of its examples' values.
    /// * Higher rewards and examples that are far from each other lower it, long outputs raise it.
    /// # Departures
    /// The rule was fitted to LLaMA-7B and one reward model. Its coefficients fit no other scale of rewards
    /// or embeddings; fit them anew and pass them.
    /// # Examples
    /// ```
    /// use candle_align::data::selection::{Indicators, InstructMiningConfig};
    ///
    /// let example = Indicators { reward: 1.0, length: 100.0, neighbor: 0.5 };
    /// let log_loss = InstructMiningConfig::default().log_loss(&example)?;
    /// assert!((log_loss - (1.0694 - 0.1498 + 0.008257 - 0.4675)).abs() < 1e-12);
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Source
    /// Cao et al. 2023, arXiv:2307.06290v1. The coefficients come from one summary of the paper and were not
    /// checked against it; later versions of the paper have another rule.
    #[doc(alias = "InstructMining")]
    pub fn log_loss(&self, indicators: &Indicators) -> Result<f64> {
        let function = "InstructMiningConfig::log_loss";
        let terms = [
            ("reward", self.reward, indicators.reward),
            ("length", self.length, indicators.length),
            ("neighbor", self.neighbor, indicators.neighbor),
        ];
        let finite = self.intercept.is_finite();
        require(finite, function, "intercept", "finite", self.intercept)?;
        let mut sum = self.intercept;
        for (name, coefficient, indicator) in terms {
            require(
                coefficient.is_finite(),
                function,
                name,
                "finite",
                coefficient,
            )?;
            if !indicator.is_finite() {
                let argument = format!("indicators.{name}");
                return Err(Error::argument(function, argument, "is not finite"));
            }
            sum += coefficient * indicator;
        }
        Ok(sum)
    }

    /// The `count` examples with the lowest expected loss, the best first; of equal ones the first.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are fewer examples; the errors of [`InstructMiningConfig::log_loss`].
    pub fn best(&self, examples: &[Indicators], count: usize) -> Result<Vec<usize>> {
        if count > examples.len() {
            let problem = format!("is {count}, and there are {} examples", examples.len());
            return Err(Error::argument(
                "InstructMiningConfig::best",
                "count",
                problem,
            ));
        }
        let losses = examples.iter().map(|example| self.log_loss(example));
        let losses: Vec<f64> = losses.collect::<Result<_>>()?;
        let mut order: Vec<usize> = (0..examples.len()).collect();
        order.sort_by(|&a, &b| losses[a].total_cmp(&losses[b]));
        order.truncate(count);
        Ok(order)
    }
}

/// The share of responses that look like an answer, rather than a continuation of the prompt.
///
/// # Equation
/// ```text
/// IFS = answer-like / all responses
/// ```
/// # Shapes
/// One verdict per response, from a classifier of the caller. Half of the prompts are instructions that were
/// cut in the middle.
/// # Errors
/// [`Error::Argument`] if there is no response.
/// # Properties
/// * It is in [0, 1]. Whether an answer is right plays no part.
/// # Departures
/// The paper's abstract has the ratio of answer-like responses to the others, its §4 the share of all
/// responses. This is the share: s = q/(1 + q) of the ratio q.
/// # Examples
/// ```
/// use candle_align::data::selection::instruction_following_score;
///
/// assert_eq!(instruction_following_score(&[true, true, false, true])?, 0.75);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// AlShikh et al. 2023, arXiv:2307.03692, §4.
#[doc(alias = "IFS")]
pub fn instruction_following_score(answer_like: &[bool]) -> Result<f64> {
    if answer_like.is_empty() {
        let function = "instruction_following_score";
        return Err(Error::argument(function, "answer_like", "is empty"));
    }
    let count = answer_like.iter().filter(|like| **like).count();
    Ok(count as f64 / answer_like.len() as f64)
}

/// When a score counts as having leveled off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlateauConfig {
    /// At least 1: how many evaluations in a row must bring nothing. Default 3.
    pub patience: usize,
    /// At least 0: what a score must exceed that of the last progress by. Default 0.01.
    pub tolerance: f64,
}

impl Default for PlateauConfig {
    fn default() -> Self {
        Self {
            patience: 3,
            tolerance: 0.01,
        }
    }
}

impl PlateauConfig {
    /// Whether the scores have leveled off, so that training may stop.
    ///
    /// # Equation
    /// ```text
    /// progress at t  ⇔  s_t > s_b + tolerance      b: the last progress before t, at first the start
    /// stop           ⇔  no progress in the last `patience` evaluations
    /// ```
    /// # Shapes
    /// The scores of all evaluations so far, in order. The first one counts as progress.
    /// # Errors
    /// [`Error::Parameter`] for a setting out of its range; [`Error::Argument`] if a score is not finite.
    /// # Properties
    /// * Growth is measured from the last progress, not from one evaluation to the next: small steps count
    ///   once their sum exceeds the tolerance.
    /// * A constant score stops after `patience` evaluations beside the first.
    /// # Departures
    /// The paper stops at the plateau of IFS, at about 8,000 examples for LLaMA, and gives no rule. This is
    /// the common one of patience and tolerance; both defaults are this crate's.
    /// # Examples
    /// ```
    /// use candle_align::data::selection::PlateauConfig;
    ///
    /// let plateau = PlateauConfig { patience: 2, tolerance: 0.01 };
    /// assert!(!plateau.reached(&[0.3, 0.7, 0.9, 0.905])?);
    /// assert!(plateau.reached(&[0.3, 0.7, 0.9, 0.905, 0.903])?);
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Source
    /// AlShikh et al. 2023, arXiv:2307.03692, for the idea.
    #[doc(alias = "early stopping")]
    pub fn reached(&self, scores: &[f64]) -> Result<bool> {
        let function = "PlateauConfig::reached";
        require(
            self.patience > 0,
            function,
            "patience",
            ">= 1",
            self.patience,
        )?;
        non_negative(function, "tolerance", self.tolerance)?;
        let (mut best, mut without) = (f64::NEG_INFINITY, 0);
        for (i, &score) in scores.iter().enumerate() {
            if !score.is_finite() {
                return Err(Error::argument(
                    function,
                    format!("scores[{i}]"),
                    "is not finite",
                ));
            }
            match score > best + self.tolerance {
                true => (best, without) = (score, 0),
                false => without += 1,
            }
        }
        Ok(without >= self.patience)
    }
}
