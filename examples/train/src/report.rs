//! The results of a run, with baselines that need no model.

use super::batch::{BOS, Example, PAD};
use super::data::Tally;
use super::objectives::Objective;
use super::objectives::order::Ordered;
use serde::Serialize;
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

/// Means over all held-out examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    pub loss: f64,
    /// The share of pairs that are ordered correctly; a tie counts ½.
    pub accuracy: Option<f64>,
    /// Mean log-probability of a whole best answer; after good words, if there are such words.
    pub best_log_prob: Option<f64>,
    /// The same after bad words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_log_prob_bad_words: Option<f64>,
}

/// The accuracy of scores that need no model, on the same pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Baselines {
    /// The longer answer (in bytes) is better.
    pub longer: f64,
    /// The shorter answer is better.
    pub shorter: f64,
    /// A coin.
    pub chance: f64,
    /// The number of pairs behind all accuracies.
    pub pairs: usize,
    /// The number of prompts of these pairs.
    pub prompts: usize,
}

impl Baselines {
    /// None if no example has a better and a worse answer.
    pub fn of(examples: &[Example]) -> Option<Self> {
        let ordered = |sign: f64| {
            let mut ordered = Ordered::default();
            for example in examples {
                let length = |text: &str| sign * text.len() as f64;
                let list = example.answers.iter().map(|a| (length(&a.text), a.reward));
                ordered.add_list(&list.collect::<Vec<_>>());
            }
            ordered
        };
        let (longer, shorter) = (ordered(1.0), ordered(-1.0));
        Some(Self {
            longer: longer.accuracy()?,
            shorter: shorter.accuracy()?,
            chance: 0.5,
            pairs: longer.pairs,
            prompts: examples
                .iter()
                .filter(|example| example.answers.len() > 1)
                .map(|example| example.prompt.as_str())
                .collect::<HashSet<_>>()
                .len(),
        })
    }

    /// One standard error of a coin's accuracy. It counts prompts, because pairs of one prompt share
    /// answers and are not independent.
    fn standard_error(&self) -> f64 {
        0.5 / (self.prompts as f64).sqrt()
    }
}

/// The held-out loss per covered token, in the first row of each example, of a model that knows only
/// the token frequencies of training (every count plus one).
pub fn byte_frequencies(train: &[Example], held_out: &[Example], vocabulary: usize) -> f64 {
    let tokens = |example: &Example| -> Vec<usize> {
        let row = &example.rows[0];
        let all = row.tokens().iter().zip(row.mask());
        let learned = all.filter(|(_, mask)| **mask == 1);
        learned.map(|(&token, _)| token as usize).collect()
    };
    let mut counts = vec![1.0f64; vocabulary];
    // the loss never covers these
    for mark in [BOS, PAD] {
        counts[mark as usize] = 0.0;
    }
    for token in train.iter().flat_map(tokens) {
        counts[token] += 1.0;
    }
    let total: f64 = counts.iter().sum();
    let losses = held_out.iter().flat_map(tokens);
    let losses: Vec<f64> = losses.map(|token| -(counts[token] / total).ln()).collect();
    losses.iter().sum::<f64>() / losses.len() as f64
}

/// What was trained instead of the whole model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Written {
    pub method: &'static str,
    /// Its files, in words.
    pub files: String,
}

/// The results of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub objective: Objective,
    pub data: String,
    pub tally: Tally,
    /// Different prompts.
    pub train_prompts: usize,
    /// The rows of these prompts.
    pub train_rows: usize,
    /// The examples from these prompts: see `examples`.
    pub train_examples: usize,
    pub held_out_prompts: usize,
    pub held_out_rows: usize,
    pub held_out_examples: usize,
    /// The kind of example: an answer, a pair, a list, a written text.
    pub examples: &'static str,
    /// The number of trained parameters.
    pub parameters: usize,
    /// The number of all parameters: of the model, the adapter and the reward head.
    pub total_parameters: usize,
    /// Under an adapter: its method and its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Written>,
    pub sft_steps: usize,
    pub steps: usize,
    /// After the supervised steps, before the objective's first.
    pub before: Scores,
    pub after: Scores,
    pub baselines: Option<Baselines>,
    /// The score that orders answers for the accuracy.
    pub score: &'static str,
    /// The loss of [`byte_frequencies`], if the loss is per token with equal weights.
    pub byte_frequencies: Option<f64>,
    /// Training tokens, without padding.
    pub tokens: usize,
    pub tokens_per_second: f64,
    pub seconds: f64,
    /// The peak memory of the process, if the system reports it.
    pub peak_memory_mib: Option<f64>,
    pub out: PathBuf,
}

/// `VmHWM` of Linux.
pub fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let formats = self.tally.formats.iter();
        let formats: Vec<_> = formats
            .map(|(name, rows)| format!("{rows} {name}"))
            .collect();
        writeln!(f, "{} on {}", self.objective, self.data)?;
        writeln!(
            f,
            "  rows      {} ({})",
            self.tally.rows,
            formats.join(", ")
        )?;
        writeln!(f, "            {}", self.tally.reasons())?;
        for message in &self.tally.bad_row_messages {
            writeln!(f, "            {message}")?;
        }
        writeln!(
            f,
            "  split     {} prompts to train on (in {} rows, {} {kind}), {} held out (in {} rows, {} {kind})",
            self.train_prompts,
            self.train_rows,
            self.train_examples,
            self.held_out_prompts,
            self.held_out_rows,
            self.held_out_examples,
            kind = self.examples,
        )?;
        writeln!(
            f,
            "  run       {} of {} parameters, {} supervised steps, {} steps, {} tokens",
            self.parameters, self.total_parameters, self.sft_steps, self.steps, self.tokens
        )?;
        if let Some(written) = &self.adapter {
            writeln!(f, "  adapter   {}: {}", written.method, written.files)?;
        }
        let unit = match self.objective {
            Objective::Sft => " nats per byte",
            objective if objective.is_language() => " nats per token",
            _ => "",
        };
        let (before, after) = (&self.before, &self.after);
        writeln!(f, "  held out  before → after")?;
        writeln!(
            f,
            "    loss      {:.4} → {:.4}{unit}",
            before.loss, after.loss
        )?;
        if let Some(loss) = self.byte_frequencies {
            writeln!(f, "              {loss:.4} by byte frequencies alone")?;
        }
        if let (Some(before), Some(after)) = (before.best_log_prob, after.best_log_prob) {
            let words = match self.objective.is_language() {
                true => "after good words",
                false => "on average",
            };
            writeln!(
                f,
                "    log P     {before:.1} → {after:.1} of a best answer, {words}"
            )?;
        }
        if let (Some(before), Some(after)) = (
            before.best_log_prob_bad_words,
            after.best_log_prob_bad_words,
        ) {
            writeln!(f, "              {before:.1} → {after:.1} after bad words")?;
        }
        if let (Some(before), Some(after), Some(b)) =
            (before.accuracy, after.accuracy, &self.baselines)
        {
            let percent = |x: f64| format!("{:.1} %", 100.0 * x);
            writeln!(
                f,
                "    accuracy  {} → {} of {} pairs to {} prompts (a coin's standard error: {})",
                percent(before),
                percent(after),
                b.pairs,
                b.prompts,
                percent(b.standard_error())
            )?;
            writeln!(
                f,
                "              baselines: longer answer {}, shorter answer {}, coin {}",
                percent(b.longer),
                percent(b.shorter),
                percent(b.chance)
            )?;
            writeln!(f, "              ordered by {}", self.score)?;
        }
        write!(
            f,
            "  time      {:.0} s, {:.0} tokens/s",
            self.seconds, self.tokens_per_second
        )?;
        if let Some(peak) = self.peak_memory_mib {
            write!(f, ", at most {peak:.0} MiB of memory")?;
        }
        write!(f, "\n  results   {}", self.out.display())
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::VOCABULARY;
    use super::super::data::Answer;
    use super::*;

    fn example(answers: &[(&str, f64)]) -> Example {
        let answers = answers.iter().map(|(text, r)| Answer::new(text, *r));
        Example::new("", answers.collect())
    }

    #[test]
    fn rulers_are_right_by_length_and_ties_count_half() {
        let examples = [
            example(&[("long", 1.0), ("s", 0.0)]),
            example(&[("s", 1.0), ("long", 0.0)]),
            // neither baseline tells these apart
            example(&[("tall", 1.0), ("long", 0.0)]),
            example(&[("longer", 1.0), ("s", 0.0)]),
            example(&[("alone", 1.0)]),
        ];
        let baselines = Baselines::of(&examples).unwrap();
        // all to the same, empty prompt
        assert_eq!((baselines.pairs, baselines.prompts), (4, 1));
        assert_eq!(baselines.longer, 2.5 / 4.0);
        assert_eq!(baselines.shorter, 1.5 / 4.0);
        assert_eq!(Baselines::of(&examples[4..]), None);
    }

    #[test]
    fn byte_frequencies_are_those_of_training_plus_one() {
        // training: a a END; so a has 3, END 2, any other 1, of 257 + 3
        let train = [example(&[("aa", 1.0)])];
        let held_out = [example(&[("ab", 1.0)])];
        let expected =
            -((3.0f64 / 260.0).ln() + (1.0f64 / 260.0).ln() + (2.0f64 / 260.0).ln()) / 3.0;
        let found = byte_frequencies(&train, &held_out, VOCABULARY);
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }
}
