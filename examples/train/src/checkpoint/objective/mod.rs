//! The loss of one micro-batch on a decoder, by what the objectives take.
//!
//! | file | takes | objectives | the loss of a step is a mean over |
//! |---|---|---|---|
//! | [`texts`] | texts of which some tokens are learned | `sft`, `conditional_sft`, `chain_of_hindsight`, `second_thoughts`, `selfee`, `self_debug` | learned tokens |
//! | [`answers`] | answers, each with a number | `c_rlft` | weighted tokens |
//! | [`pairs`] | two answers, and perhaps a reference | `dpo`; by [`since`] those that came after the survey, from `ipo` to `simper` | pairs, by micro-batch as in TRL |
//! | [`unpaired`] | answers, each with a label, and a reference | `kto`, `bco`, `apo_zero_unpaired` | answers, by micro-batch as in TRL |
//! | [`lists`] | answers with rewards, and perhaps a reference | `pro`, `slic`, `rrhf`, `brio`, `expected_risk`, `stable_alignment`; by [`lists_since`] `nca`, `info_nca`, `exo`, `rebel` and `tpo` | lists; of `tpo` by micro-batch as in TRL |
//! | [`scored`] | whole texts for a reward model | `reward` | pairs, by micro-batch as in TRL; or lists |
//!
//! A new objective is a variant of the loss of one of these files, with its call of the library, and a line
//! in `prepare` that says which rows it gets. [`text`] has the passes through the decoder, [`measured`]
//! their results, [`grid`] the table of lists of different lengths.

pub mod answers;
pub mod grid;
pub mod lists;
pub mod lists_since;
pub mod measured;
pub mod pairs;
pub mod scored;
pub mod since;
pub mod text;
pub mod texts;
pub mod unpaired;

pub use super::reference::Reference;
pub use measured::{Labels, Measured, Rewards};
pub use text::Text;

use super::super::error::{Error, Result};
use super::super::world::World;
use super::super::world::single::Single;
use answers::Answers;
use candle_align::decoder::{Decoder, Mode};
use candle_align::ranking::RewardShift;
use candle_align::{DpoConfig, PairwiseRewardConfig, SftConfig};
use candle_core::Tensor;
use lists::Lists;
use pairs::{Pair, PairLoss, Pairs};
use scored::{Compared, RewardLoss, Scores};
use std::ops::Range;
use text::Pass;
use texts::{TextLoss, Texts};
use unpaired::{Unpaired, UnpairedLoss};

/// A micro-batch, and the part of it that this rank computes.
pub struct Part<'a> {
    pub batch: &'a [usize],
    pub own: Range<usize>,
    pub world: &'a dyn World,
}

/// The rows of a run, and what is learned from them.
#[derive(Clone, Debug)]
pub enum Objective {
    Texts(Texts),
    Answers(Answers),
    Pairs(Pairs),
    Unpaired(Unpaired),
    Lists(Lists),
    Scores(Scores),
}

impl Objective {
    /// Supervised fine-tuning as TRL has it.
    pub fn sft(rows: Vec<Text>) -> Self {
        let loss = TextLoss::Sft(SftConfig::default());
        Self::Texts(Texts { rows, loss })
    }

    /// DPO; the weights are those of the sigmoid loss and of the cross-entropy of the chosen answers.
    pub fn dpo(rows: Vec<Pair>, config: DpoConfig, weights: [f64; 2]) -> Self {
        let loss = PairLoss::Dpo { config, weights };
        Self::Pairs(Pairs { rows, loss })
    }

    /// A reward model on pairs.
    pub fn reward(rows: Vec<Compared>, config: PairwiseRewardConfig) -> Self {
        let loss = RewardLoss::Pairwise(config);
        Self::Scores(Scores { rows, loss })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Texts(all) => all.rows.len(),
            Self::Answers(all) => all.rows.len(),
            Self::Pairs(all) => all.rows.len(),
            Self::Unpaired(all) => all.rows.len(),
            Self::Lists(all) => all.rows.len(),
            Self::Scores(all) => all.rows.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens of a row.
    pub fn tokens(&self, row: usize) -> usize {
        let of = |texts: &[Text]| texts.iter().map(|text| text.ids.len()).sum();
        match self {
            Self::Texts(all) => all.rows[row].ids.len(),
            Self::Answers(all) => all.rows[row].text.ids.len(),
            Self::Pairs(all) => all.rows[row].chosen.ids.len() + all.rows[row].rejected.ids.len(),
            Self::Unpaired(all) => all.rows[row].text.ids.len(),
            Self::Lists(all) => of(&all.rows[row].answers),
            Self::Scores(all) => all.rows[row].texts.iter().map(Vec::len).sum(),
        }
    }

    /// How many rows have more tokens.
    pub fn longer_than(&self, most: Option<usize>) -> usize {
        let longer = |row: &usize| most.is_some_and(|most| self.tokens(*row) > most);
        (0..self.len()).filter(longer).count()
    }

    /// How much a row counts in the mean over all rows: some means are over tokens.
    pub fn weight(&self, row: usize) -> Result<f64> {
        match self {
            Self::Texts(all) => Ok(all.rows[row].covered() as f64),
            Self::Answers(all) => all.weight(row),
            Self::Pairs(_) | Self::Unpaired(_) | Self::Lists(_) | Self::Scores(_) => Ok(1.0),
        }
    }

    /// Whether dropout is off if nothing is said: TRL's trainers turn it off where answers are compared.
    pub fn disables_dropout(&self) -> bool {
        !matches!(self, Self::Texts(_) | Self::Answers(_))
    }

    /// The summed log-probabilities of some rows' answers under the reference.
    pub fn reference_sums(
        &self,
        decoder: &Decoder,
        reference: &Reference,
        rows: &[usize],
    ) -> Result<candle_align::Pair<Tensor>> {
        match self {
            Self::Pairs(all) => reference.sums(decoder, rows, &all.texts(rows)),
            // each answer stands in both places
            Self::Unpaired(all) => {
                let of = reference.each(decoder, rows, &all.texts(rows))?;
                Ok(candle_align::Pair {
                    chosen: of.clone(),
                    rejected: of,
                })
            }
            _ => Err(Error::Usage("this objective has no reference".to_string())),
        }
    }

    /// The number that the loss of a micro-batch needs and that is not of one answer: KTO's baseline, BCO's
    /// shift, 0 for all others. At most `most` tokens go through the model at a time.
    pub fn given(
        &self,
        decoder: &Decoder,
        reference: &Reference,
        batch: &[usize],
        most: Option<usize>,
        shift: &RewardShift,
    ) -> Result<f64> {
        let part = Part {
            batch,
            own: 0..batch.len(),
            world: &Single,
        };
        self.given_to(decoder, reference, &part, most, shift)
    }

    /// The same, to which each rank adds its part.
    pub fn given_to(
        &self,
        decoder: &Decoder,
        reference: &Reference,
        part: &Part,
        most: Option<usize>,
        shift: &RewardShift,
    ) -> Result<f64> {
        match self {
            Self::Unpaired(all) => all.given(decoder, reference, part, most, shift),
            _ => Ok(0.0),
        }
    }

    /// Whether the loss of a row depends on the other rows of its micro-batch.
    pub fn compares_rows(&self) -> bool {
        match self {
            Self::Unpaired(all) => matches!(all.loss, UnpairedLoss::Kto(_)),
            Self::Pairs(all) => all.compares_rows(),
            _ => false,
        }
    }

    /// Whether it compares them in a way that no part of a micro-batch can be computed alone.
    pub fn sorts_rows(&self) -> bool {
        matches!(self, Self::Pairs(all) if all.sorts_rows())
    }

    /// Whether a step moves the mean of rewards.
    pub fn shifts(&self) -> bool {
        matches!(self, Self::Unpaired(all) if matches!(all.loss, UnpairedLoss::Bco(_)))
    }

    /// [`Objective::loss_with`] what [`Objective::given`] gives before the first step.
    pub fn loss(
        &self,
        decoder: &Decoder,
        reference: &Reference,
        rows: &[usize],
        window: &[Vec<usize>],
        seed: Option<u64>,
    ) -> Result<Measured> {
        let (batch, none) = (micro_batch(rows, window), RewardShift::default());
        let given = self.given(decoder, reference, batch, None, &none)?;
        self.loss_with(decoder, reference, rows, window, seed, given)
    }

    /// The loss of some rows of a step, which are a micro-batch or a part of one: the sum over all parts is the
    /// loss of the step. `window` holds all rows of the step by micro-batch. Dropout is drawn from `seed`;
    /// without one there is none.
    pub fn loss_with(
        &self,
        decoder: &Decoder,
        reference: &Reference,
        rows: &[usize],
        window: &[Vec<usize>],
        seed: Option<u64>,
        given: f64,
    ) -> Result<Measured> {
        let pass = Pass {
            decoder,
            reference,
            mode: seed.map_or(Mode::Evaluation, |seed| Mode::Train { seed }),
        };
        match self {
            Self::Texts(all) => all.measure(&pass, rows, window),
            Self::Answers(all) => all.measure(&pass, rows, window),
            Self::Pairs(all) => all.measure(&pass, rows, window),
            Self::Unpaired(all) => all.measure(&pass, rows, window, given),
            Self::Lists(all) => all.measure(&pass, rows, window),
            Self::Scores(all) => all.measure(&pass, rows, window),
        }
    }
}

/// The micro-batch of a step that holds these rows. A step has each row once.
fn micro_batch<'a>(rows: &'a [usize], window: &'a [Vec<usize>]) -> &'a [usize] {
    let holds = |batch: &&Vec<usize>| rows.first().is_some_and(|row| batch.contains(row));
    window.iter().find(holds).map_or(rows, Vec::as_slice)
}

/// How much rows count in a step whose micro-batches count alike, as in TRL.
fn share(rows: &[usize], window: &[Vec<usize>]) -> f64 {
    rows.len() as f64 / micro_batch(rows, window).len() as f64 / window.len() as f64
}
