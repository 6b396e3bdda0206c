//! How much of each dataset a mixture has (survey §2.3).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | e_n, the examples of dataset n | `sizes` | counts |
//! | K, the artificial limit | [`MixingConfig::maximum`] | count |
//! | T, the temperature | [`MixingConfig::temperature`] | number |
//! | r_n | [`MixingConfig::rates`] | shares |
//! | a sample of the mixture | [`MixingConfig::draw`] | dataset and example |
//!
//! Read next: [`super::selection`], which keeps the better examples of one dataset.

use crate::error::{Error, Result, positive, require};
use rand::Rng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Settings of a mixture.
///
/// | mixture | `maximum` | `temperature` |
/// |---|---|---|
/// | all examples once | none | 1 |
/// | examples-proportional (T5, FLAN) | K; FLAN's is 3000 | 1 |
/// | temperature-scaled (T5, multilingual models) | none, or large | T |
/// | equal | 1 | any |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixingConfig {
    /// K ≥ 1: a larger dataset counts as if it had K examples. Default none.
    pub maximum: Option<usize>,
    /// T > 0: sizes, after the limit, are raised to 1/T. Default 1.
    pub temperature: f64,
}

impl Default for MixingConfig {
    fn default() -> Self {
        Self {
            maximum: None,
            temperature: 1.0,
        }
    }
}

impl MixingConfig {
    /// FLAN's mixture: at most 3000 examples of a dataset count.
    pub fn flan() -> Self {
        Self {
            maximum: Some(3000),
            ..Self::default()
        }
    }

    /// The share of each dataset in the mixture.
    ///
    /// # Equation
    /// ```text
    /// r_n = min(e_n, K)^{1/T} / Σₘ min(e_m, K)^{1/T}
    /// ```
    /// # Shapes
    /// One size per dataset; the shares are in their order and sum to 1.
    /// # Errors
    /// [`Error::Parameter`] for a setting out of its range; [`Error::Argument`] if there is no dataset or one
    /// is empty.
    /// # Properties
    /// * Without a limit and with T = 1 the shares are those of the sizes.
    /// * Datasets of at least K examples have equal shares; with K = 1 all have.
    /// * T → ∞ gives equal shares; a share moves towards 1/N as T grows from 1.
    /// * A limit and a temperature need no order of their own: (min(e, K))^{1/T} = min(e^{1/T}, K^{1/T}).
    /// # Departures
    /// FLAN also cuts each dataset to 30,000 examples, before anything is drawn: pass those sizes.
    /// # Examples
    /// ```
    /// use candle_align::data::mixing::MixingConfig;
    ///
    /// let rates = MixingConfig { maximum: Some(300), temperature: 1.0 }.rates(&[100, 5_000, 90_000])?;
    /// for (rate, examples) in rates.iter().zip([100.0, 300.0, 300.0]) {
    ///     assert!((rate - examples / 700.0).abs() < 1e-12);
    /// }
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Source
    /// Raffel et al. 2020, arXiv:1910.10683, §3.5.2, from summaries; code google/seqio,
    /// `mixing_rate_num_examples`, whose documentation puts the limit before the temperature. FLAN's numbers:
    /// Wei et al. 2022, arXiv:2109.01652, §2.4, from a quotation.
    #[doc(alias = "examples-proportional mixing")]
    #[doc(alias = "temperature-scaled mixing")]
    pub fn rates(&self, sizes: &[usize]) -> Result<Vec<f64>> {
        let function = "MixingConfig::rates";
        positive(function, "temperature", self.temperature)?;
        let maximum = self.maximum.unwrap_or(usize::MAX);
        require(maximum > 0, function, "maximum", ">= 1", maximum)?;
        if sizes.is_empty() {
            return Err(Error::argument(function, "sizes", "is empty"));
        }
        if let Some(n) = sizes.iter().position(|&size| size == 0) {
            let problem = "is 0: a dataset without examples has no share";
            return Err(Error::argument(function, format!("sizes[{n}]"), problem));
        }
        // relative to the largest, so that no power is infinite
        let counted = |&size: &usize| size.min(maximum) as f64;
        let largest = sizes.iter().map(counted).fold(0.0, f64::max);
        let weight = |size| (counted(size) / largest).powf(1.0 / self.temperature);
        let weights: Vec<f64> = sizes.iter().map(weight).collect();
        let total: f64 = weights.iter().sum();
        Ok(weights.iter().map(|weight| weight / total).collect())
    }

    /// How many of `total` examples come from each dataset.
    ///
    /// # Equation
    /// ```text
    /// c_n = ⌊total · r_n⌋, and one more for the largest remainders until Σ c_n = total
    /// ```
    /// # Shapes
    /// One count per dataset.
    /// # Errors
    /// Those of [`MixingConfig::rates`].
    /// # Properties
    /// * The counts sum to `total`, and each is less than 1 away from total · r_n.
    /// * Of equal remainders the first dataset's is taken first.
    /// * A count may exceed the size of its dataset: [`MixingConfig::draw`] then begins the dataset anew.
    /// # Departures
    /// The papers draw datasets at random, and name no counts. This is the method of largest remainders.
    /// # Examples
    /// ```
    /// use candle_align::data::mixing::MixingConfig;
    ///
    /// // shares of 1/7, 2/7, 4/7: 1.43, 2.86 and 5.71 of ten
    /// assert_eq!(MixingConfig::default().counts(&[1, 2, 4], 10)?, [1, 3, 6]);
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Source
    /// None: the method of largest remainders, applied to the shares of Raffel et al. 2020,
    /// arXiv:1910.10683.
    pub fn counts(&self, sizes: &[usize], total: usize) -> Result<Vec<usize>> {
        let rates = self.rates(sizes)?;
        let due = |rate: &f64| rate * total as f64;
        let mut counts: Vec<usize> = rates
            .iter()
            .map(|rate| due(rate).floor() as usize)
            .collect();
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        let left = |n: usize| due(&rates[n]).fract();
        order.sort_by(|&a, &b| left(b).total_cmp(&left(a)));
        let given: usize = counts.iter().sum();
        for &n in order.iter().cycle().take(total.saturating_sub(given)) {
            counts[n] += 1;
        }
        Ok(counts)
    }

    /// Draws a sample of the mixture.
    ///
    /// # Equation
    /// ```text
    /// for each of `total` draws:   n ~ r,   then the next example of dataset n in its shuffled order
    /// ```
    /// # Shapes
    /// Pairs of dataset and example, in the order of training.
    /// # Errors
    /// Those of [`MixingConfig::rates`].
    /// # Properties
    /// * One seed of the generator gives one sample, under one version of the crate `rand`.
    /// * A dataset repeats an example only after all its others: it is shuffled anew each time it ends.
    /// # Departures
    /// T5 mixes streams that are shuffled in windows; here each pass is a full permutation.
    /// # Examples
    /// ```
    /// use candle_align::data::mixing::MixingConfig;
    /// use rand::{SeedableRng, rngs::StdRng};
    ///
    /// let config = MixingConfig { maximum: Some(1), temperature: 1.0 };
    /// let drawn = config.draw(&[2, 1000], 100, &mut StdRng::seed_from_u64(0))?;
    /// // half of the draws come from two examples, in turn
    /// let of = |example| drawn.iter().filter(|d| **d == (0, example)).count();
    /// assert!(of(0).abs_diff(of(1)) <= 1 && of(0) > 10);
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Source
    /// Raffel et al. 2020, arXiv:1910.10683, §3.5.2, from summaries.
    pub fn draw(
        &self,
        sizes: &[usize],
        total: usize,
        rng: &mut impl Rng,
    ) -> Result<Vec<(usize, usize)>> {
        let rates = self.rates(sizes)?;
        let which = WeightedIndex::new(&rates).map_err(|e| {
            Error::argument(
                "MixingConfig::draw",
                "sizes",
                format!("have no shares: {e}"),
            )
        })?;
        let mut left: Vec<Vec<usize>> = vec![Vec::new(); sizes.len()];
        let mut drawn = Vec::with_capacity(total);
        for _ in 0..total {
            let n = which.sample(rng);
            let example = match left[n].pop() {
                Some(example) => example,
                None => {
                    let mut pass: Vec<usize> = (0..sizes[n]).collect();
                    pass.shuffle(rng);
                    let last = pass.pop().unwrap_or_default();
                    left[n] = pass;
                    last
                }
            };
            drawn.push((n, example));
        }
        Ok(drawn)
    }
}
