//! Pairwise comparison in both orders: a preference counts if it survives the swap.

use crate::error::{Error, Result};
use crate::evaluation::outcome::Outcome;

/// What a judge said of two answers in both orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BothOrders {
    /// Of (first, second), in terms of the positions that the judge saw.
    pub forward: Outcome,
    /// Of (second, first), in terms of the positions that the judge saw: [`Outcome::First`] is for the answer
    /// that the judge saw first, which is the second one.
    pub backward: Outcome,
}

impl BothOrders {
    /// The conservative verdict on the two answers: a win only if both orders agree on it, else a tie.
    pub fn verdict(&self) -> Outcome {
        match self.forward == self.backward.swapped() {
            true => self.forward,
            false => Outcome::Tie,
        }
    }

    /// Whether the swap left the judgment as it was.
    pub fn is_consistent(&self) -> bool {
        self.forward == self.backward.swapped()
    }
}

/// Asks a judge in both orders.
///
/// # Equation
/// ```text
/// verdict = v(a, b) if v(a, b) = swapped v(b, a), else a tie
/// ```
/// # Shapes
/// Two answers of any type; the judge gets them in the order in which it shall show them, and returns its
/// preference by position. It is called twice.
/// # Errors
/// Those of the judge: an answer that cannot be read is an `Err`, not a tie.
/// # Properties
/// * Exchanging the answers exchanges `forward` and `backward`, and swaps the verdict.
/// * A judge that always takes the first position has a tie on everything; one without position bias keeps its
///   verdicts.
/// * A wrong judge stays wrong: the swap removes the bias of positions alone.
/// # Departures
/// FastChat leaves out a pair of which one order could not be read. Otherwise none from its `play_a_match_pair`
/// and `show_result.py`. The paper also tries the order at random, which is fair on average and does not mend a
/// single verdict.
/// # Examples
/// ```
/// use candle_align::evaluation::Outcome;
/// use candle_align::evaluation::by_model::both_orders;
///
/// // prefers the longer answer, and the first one if they are close
/// let judge = |a: &str, b: &str| Ok(match a.len() + 2 > b.len() {
///     true => Outcome::First,
///     false => Outcome::Second,
/// });
/// assert_eq!(both_orders(judge, "short", "a long answer")?.verdict(), Outcome::Second);
/// assert_eq!(both_orders(judge, "short", "short.")?.verdict(), Outcome::Tie);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Zheng et al. 2023, arXiv:2306.05685v4, §3.4 ("swapping positions"); authors' code lm-sys/FastChat 0.2.36,
/// `llm_judge/common.py` and `show_result.py`.
#[doc(alias = "MT-bench")]
#[doc(alias = "LLM-as-a-judge")]
pub fn both_orders<'a, A: ?Sized>(
    mut judge: impl FnMut(&'a A, &'a A) -> Result<Outcome>,
    first: &'a A,
    second: &'a A,
) -> Result<BothOrders> {
    Ok(BothOrders {
        forward: judge(first, second)?,
        backward: judge(second, first)?,
    })
}

/// How often the order decides, and for which position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PositionBias {
    /// The share of judgments that the swap left as they were.
    pub consistent: f64,
    /// The share that leans to the first position.
    pub toward_first: f64,
    /// The share that leans to the second position.
    pub toward_second: f64,
    /// The share in which one order was a tie and the other was not; it is part of the two above.
    pub half: f64,
}

/// The position bias of a judge over judgments in both orders.
///
/// # Equation
/// ```text
/// consistent = (1/n) Σ 1[v(a, b) = swapped v(b, a)]
/// toward first: the two verdicts by position add up to more than ½ + ½; toward second: to less
/// ```
/// # Shapes
/// `judgments` `[n]`; the three shares add up to 1.
/// # Errors
/// [`Error::Argument`] if there is no judgment.
/// # Properties
/// * Exchanging the answers of any judgment changes nothing.
/// * 1 − consistent is FairEval's conflict rate.
/// * A judge at random, without ties, is consistent half the time: 65 % is closer to chance than it looks.
/// # Departures
/// MT-bench's table 2 has the same three columns, which add up to 100 % there too, and one for answers that
/// could not be read; those are errors of [`both_orders`] here. It does not say where a win and a tie go; here
/// to the position that won, and [`PositionBias::half`] tells how many.
/// # Examples
/// ```
/// use candle_align::evaluation::Outcome::{First, Second, Tie};
/// use candle_align::evaluation::by_model::{BothOrders, position_bias};
///
/// let judgments = [(First, Second), (First, First), (Tie, Second), (Tie, Tie)];
/// let judgments = judgments.map(|(forward, backward)| BothOrders { forward, backward });
/// let bias = position_bias(&judgments)?;
/// assert_eq!((bias.consistent, bias.toward_first, bias.toward_second), (0.5, 0.25, 0.25));
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Zheng et al. 2023, arXiv:2306.05685v4, §3.3 and table 2; the conflict rate: Wang et al. 2023,
/// arXiv:2305.17926v2, §2.
#[doc(alias = "conflict rate")]
pub fn position_bias(judgments: &[BothOrders]) -> Result<PositionBias> {
    if judgments.is_empty() {
        return Err(Error::argument("position_bias", "judgments", "is empty"));
    }
    let share = |holds: &dyn Fn(&BothOrders) -> bool| {
        judgments.iter().filter(|of| holds(of)).count() as f64 / judgments.len() as f64
    };
    // what the first position got in two games
    let first = |of: &BothOrders| of.forward.score() + of.backward.score();
    Ok(PositionBias {
        consistent: share(&BothOrders::is_consistent),
        toward_first: share(&|of| first(of) > 1.0),
        toward_second: share(&|of| first(of) < 1.0),
        half: share(&|of| !of.is_consistent() && of.forward != of.backward),
    })
}
