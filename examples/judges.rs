//! §4.2.2, judges: a judge that favors a position ranks wrongly; asking it in both orders mends the ranking.
//!
//! ```text
//! cargo run --example judges
//! ```
//! Four models, D the best, answer 2,000 prompts. People prefer the better answer of each pair. The judge
//! scores two answers, with noise, and adds 1 to the one that it sees first: as much as answers of one model
//! vary.
//!
//! ```text
//!                                      A     B     C     D      τ  agree   ties
//! people                             939   980  1017  1063   1.00  1.000  0.000
//! the judge, sorted by name         1070  1023   980   927  -1.00  0.706  0.000
//! the judge, in random order         958   984  1014  1043   1.00  0.735  0.000
//! both orders, ties if they differ   960   987  1012  1041   1.00  0.923  0.455
//! both orders, mean of 2 scores      948   986  1014  1052   1.00  0.839  0.000
//! both orders, mean of 6 scores      945   978  1017  1060   1.00  0.903  0.000
//! ```
//! What you should see: if the list of pairs is sorted, the worse model always stands first, and the ranking is
//! upside down (Kendall's τ is −1). A random order mends the ranking, because the bonus then helps everybody
//! alike, but not the verdicts: 73.5 % of them are those of people. Both orders mend the verdicts too.
//! MT-bench's rule, a tie where they differ, is right 92.3 % of the time and silent on 45.5 % of the pairs.
//! FairEval's means decide all of them, and six scores find 90.3 %. Noise draws ratings together, and more
//! scores let them out again.
//!
//! Change `BONUS: f64 = 1.0` to `BONUS: f64 = 0.0` and see: all rows rank alike, and the last two stay as they
//! are, digit by digit, because what is added to a position cancels in their means.

use candle_align::evaluation::by_model::{
    BothOrders, both_orders, calibrated_scores, compare_scores, position_bias,
};
use candle_align::evaluation::human::{VoteTies, bradley_terry, judge_agreement};
use candle_align::evaluation::meta::{KendallVariant, kendall};
use candle_align::evaluation::{Game, Outcome};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How good the answers of A, B, C, D are on average; on each prompt they vary around it by 1.
pub const QUALITY: [f64; 4] = [0.0, 0.2, 0.4, 0.6];

/// What the judge adds to the answer that it sees first.
const BONUS: f64 = 1.0;

/// How much the judge's scores vary from one time to the next.
const NOISE: f64 = 0.8;

const PROMPTS: usize = 2000;

/// The judgments of one kind, over all prompts and pairs of models.
pub struct Row {
    pub name: &'static str,
    /// Bradley–Terry ratings of A, B, C, D.
    pub ratings: Vec<f64>,
    /// Kendall's τ of the ratings with the qualities.
    pub tau: f64,
    /// The share of people's preferences that the judge shares; pairs that it calls a tie are left out.
    pub agreement: f64,
    /// The share of pairs that it calls a tie.
    pub ties: f64,
}

pub struct Report {
    pub rows: Vec<Row>,
    /// The shares of verdicts that survive the swap, and that lean to the first position.
    pub consistent: f64,
    pub toward_first: f64,
}

/// The judge: it scores what it sees first, and what it sees second.
struct Judge {
    rng: StdRng,
}

impl Judge {
    fn scores(&mut self, first: f64, second: f64) -> (f64, f64) {
        let mut noise = || NOISE * self.rng.sample::<f64, _>(StandardNormal);
        (first + BONUS + noise(), second + noise())
    }

    fn prefers(&mut self, first: f64, second: f64) -> candle_align::Result<Outcome> {
        let (a, b) = self.scores(first, second);
        compare_scores(a, b, 0.0)
    }

    /// FairEval's scores of two answers from k samples in each order.
    fn calibrated(&mut self, a: f64, b: f64, k: usize) -> candle_align::Result<Outcome> {
        let forward: Vec<_> = (0..k).map(|_| self.scores(a, b)).collect();
        let backward: Vec<_> = (0..k)
            .map(|_| self.scores(b, a))
            .map(|(b, a)| (a, b))
            .collect();
        let (a, b) = calibrated_scores(&forward, &backward)?;
        compare_scores(a, b, 0.0)
    }
}

pub fn run() -> Result<Report> {
    let mut rng = StdRng::seed_from_u64(1);
    let mut judge = Judge {
        rng: StdRng::seed_from_u64(2),
    };
    let (mut people, mut asked) = (Vec::new(), Vec::new());
    let mut verdicts: [Vec<Outcome>; 5] = Default::default();
    let mut pairs = Vec::new();
    for _ in 0..PROMPTS {
        let answers = QUALITY.map(|quality| quality + rng.sample::<f64, _>(StandardNormal));
        for (first, second) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
            let (a, b) = (answers[first], answers[second]);
            pairs.push((first, second));
            people.push(compare_scores(a, b, 0.0)?);
            // the list is sorted by name, so the worse model always stands first
            verdicts[0].push(judge.prefers(a, b)?);
            verdicts[1].push(match rng.random_bool(0.5) {
                true => judge.prefers(a, b)?,
                false => judge.prefers(b, a)?.swapped(),
            });
            let both: BothOrders = both_orders(|x: &f64, y: &f64| judge.prefers(*x, *y), &a, &b)?;
            verdicts[2].push(both.verdict());
            asked.push(both);
            verdicts[3].push(judge.calibrated(a, b, 1)?);
            verdicts[4].push(judge.calibrated(a, b, 3)?);
        }
    }
    let names = [
        "the judge, sorted by name",
        "the judge, in random order",
        "both orders, ties if they differ",
        "both orders, mean of 2 scores",
        "both orders, mean of 6 scores",
    ];
    let mut rows = vec![row("people", &pairs, &people, &people)?];
    for (name, verdicts) in names.into_iter().zip(&verdicts) {
        rows.push(row(name, &pairs, verdicts, &people)?);
    }
    let bias = position_bias(&asked)?;
    Ok(Report {
        rows,
        consistent: bias.consistent,
        toward_first: bias.toward_first,
    })
}

fn row(
    name: &'static str,
    pairs: &[(usize, usize)],
    verdicts: &[Outcome],
    people: &[Outcome],
) -> Result<Row> {
    let game = |(&(first, second), &outcome)| Game {
        first,
        second,
        outcome,
    };
    let games: Vec<Game> = pairs.iter().zip(verdicts).map(game).collect();
    let fit = bradley_terry(&games, 4, &Default::default())?;
    let ratings: Vec<f64> = fit.ratings.iter().map(|rating| rating.value).collect();
    let votes: Vec<[Outcome; 1]> = people.iter().map(|vote| [*vote]).collect();
    let ties = verdicts.iter().filter(|verdict| **verdict == Outcome::Tie);
    Ok(Row {
        name,
        tau: kendall(&ratings, &QUALITY, KendallVariant::B)?,
        agreement: judge_agreement(verdicts, &votes, VoteTies::Dropped)?.share(),
        ties: ties.count() as f64 / verdicts.len() as f64,
        ratings,
    })
}

impl Report {
    pub fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:<32} {:>5} {:>5} {:>5} {:>5} {:>6} {:>6} {:>6}",
            "", "A", "B", "C", "D", "τ", "agree", "ties"
        )];
        for row in &self.rows {
            let ratings: Vec<String> = row.ratings.iter().map(|r| format!("{r:>5.0}")).collect();
            lines.push(format!(
                "{:<32} {} {:>6.2} {:>6.3} {:>6.3}",
                row.name,
                ratings.join(" "),
                row.tau,
                row.agreement,
                row.ties
            ));
        }
        lines.join("\n")
    }
}

fn main() -> Result<()> {
    let report = run()?;
    println!("{}", report.table());
    println!(
        "of the verdicts {:.1} % survive the swap, and {:.1} % lean to the first position",
        100.0 * report.consistent,
        100.0 * report.toward_first
    );
    Ok(())
}
