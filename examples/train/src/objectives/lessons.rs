//! What the language-based objectives write around answers, before any of it becomes tokens.
//!
//! *Lessons* are the training rows of an item, *probes* its evaluation rows. The byte model writes them as
//! bytes ([`super::language`]), a checkpoint with its own tokenizer and chat template.

use super::super::comparisons::Shape::Pairs;
use super::super::comparisons::{Most, Shape, compared, pair_count};
use super::super::data::{Answer, Item};
use super::super::error::Result;
use super::Objective;
use super::rows::{revise, stands};
use candle_align::language::LearnedAnswers;
use candle_align::language::chain_of_hindsight::{
    HindsightFeedback, HindsightFormat, HindsightOrder,
};
use candle_align::language::edits::{EditCosts, EditScript, edit_script};
use candle_align::language::revision::{Attempt, DebugFormat, DebugLearned};
use rand::Rng;
use rand::rngs::StdRng;

/// One row: what follows its prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Words<'a> {
    /// An answer after the words of its class.
    Class { good: bool, answer: &'a str },
    /// Two answers, each after words of feedback, or one of them.
    Hindsight {
        good: &'a str,
        bad: &'a str,
        format: HindsightFormat,
    },
    /// A source, its edits, and the result.
    Edited { source: &'a str, script: EditScript },
    /// A source, and that it needs no edit: the loss covers only that.
    Unedited { source: &'a str },
    /// Answers, each with the verdict on it.
    Revised(Vec<Attempt<'a>>),
    /// An answer, the verdict that it is wrong, and another answer.
    Debugged {
        first: &'a str,
        second: &'a str,
        format: DebugFormat,
    },
}

/// A training row, and the answer in which it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Lesson<'a> {
    pub answer: Answer,
    pub words: Words<'a>,
}

/// The training rows of an item.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lessons<'a> {
    pub first: Vec<Lesson<'a>>,
    /// The best answers, which need no repair. They are written only beside repairs: alone they would teach
    /// that no answer needs one.
    pub beside: Vec<Lesson<'a>>,
}

/// The settings of what is written.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    pub objective: Objective,
    /// How the held-out evaluation compares answers.
    pub shape: Shape,
    pub most: Most,
    pub hindsight: Feedback<'a>,
    /// The rewards of the good class and of the bad one.
    pub class_rewards: [f64; 2],
    pub costs: &'a EditCosts,
    pub debug: &'a DebugFormat,
}

/// The words of Chain of Hindsight.
#[derive(Clone, Copy, Debug)]
pub struct Feedback<'a> {
    pub words: &'a [HindsightFeedback],
    pub orders: &'a [HindsightOrder],
    pub learned: LearnedAnswers,
}

impl Plan<'_> {
    /// How many pairs of answers an item has lessons for, before some are drawn.
    pub fn pairs(&self, item: &Item) -> usize {
        let good = item.answers.iter().filter(|a| item.is_good(a)).count();
        match self.objective {
            Objective::ChainOfHindsight => pair_count(item),
            Objective::Selfee | Objective::SelfDebug => good * (item.answers.len() - good),
            _ => 0,
        }
    }

    /// The lessons of an item. `encode` gives the tokens that edits change.
    pub fn lessons<'i>(
        &self,
        item: &'i Item,
        encode: &dyn Fn(&str) -> Result<Vec<u32>>,
        rng: &mut StdRng,
    ) -> Result<Lessons<'i>> {
        let (good, bad): (Vec<_>, Vec<_>) = item.answers.iter().partition(|a| item.is_good(a));
        let mut lessons = Lessons::default();
        let lesson = |answer: &Answer, words| Lesson {
            answer: answer.clone(),
            words,
        };
        match self.objective {
            Objective::ConditionalSft | Objective::CRlft => {
                let [of_good, of_bad] = self.class_rewards;
                for (answers, good, reward) in [(&good, true, of_good), (&bad, false, of_bad)] {
                    for answer in answers {
                        let words = Words::Class {
                            good,
                            answer: &answer.text,
                        };
                        // its weight depends on the reward of its class, not of the answer
                        let of_class = Answer::new(&answer.text, reward);
                        lessons.first.push(lesson(&of_class, words));
                    }
                }
            }
            Objective::ChainOfHindsight => {
                for pair in compared_places(item, self.most) {
                    let [good, bad] = pair.map(|place| &item.answers[place]);
                    for &order in self.hindsight.orders {
                        let drawn = rng.random_range(0..self.hindsight.words.len());
                        let format = HindsightFormat {
                            feedback: self.hindsight.words[drawn].clone(),
                            order,
                            learned: self.hindsight.learned,
                        };
                        let words = Words::Hindsight {
                            good: &good.text,
                            bad: &bad.text,
                            format,
                        };
                        lessons.first.push(lesson(good, words));
                    }
                }
            }
            Objective::SecondThoughts => {
                for worse in &bad {
                    let (better, script) = self.nearest(worse, &good, encode)?;
                    let source = &worse.text;
                    let words = Words::Edited { source, script };
                    lessons.first.push(lesson(better, words));
                }
                for best in &good {
                    let words = Words::Edited {
                        source: &best.text,
                        script: EditScript { edits: Vec::new() },
                    };
                    lessons.beside.push(lesson(best, words));
                }
            }
            Objective::Selfee => {
                for (best, worse) in self.most.pairs_of(item, &good, &bad) {
                    let chain = vec![revise(&worse.text), stands(&best.text)];
                    lessons.first.push(lesson(best, Words::Revised(chain)));
                }
                for best in &good {
                    let chain = vec![stands(&best.text)];
                    lessons.beside.push(lesson(best, Words::Revised(chain)));
                }
            }
            Objective::SelfDebug => {
                for (right, wrong) in self.most.pairs_of(item, &good, &bad) {
                    let words = Words::Debugged {
                        first: &wrong.text,
                        second: &right.text,
                        format: self.debug.clone(),
                    };
                    lessons.first.push(lesson(right, words));
                }
            }
            other => unreachable!("{other} has no lessons"),
        }
        Ok(lessons)
    }

    /// The lists of answers of an item that the evaluation asks about: none without a good answer.
    pub fn asked(&self, item: &Item) -> Vec<Vec<Answer>> {
        match item.answers.iter().any(|answer| item.is_good(answer)) {
            true => compared(item, self.shape, self.most),
            false => Vec::new(),
        }
    }

    /// The rows that ask about one answer `among` others: one row or two.
    pub fn probe<'i>(&self, answer: &'i str, among: &'i [Answer]) -> Vec<Words<'i>> {
        match self.objective {
            Objective::ConditionalSft | Objective::CRlft => [true, false]
                .map(|good| Words::Class { good, answer })
                .into(),
            Objective::ChainOfHindsight => {
                let under = |order| Words::Hindsight {
                    good: answer,
                    bad: answer,
                    format: HindsightFormat {
                        feedback: self.hindsight.words[0].clone(),
                        order,
                        learned: LearnedAnswers::Every,
                    },
                };
                [HindsightOrder::GoodOnly, HindsightOrder::BadOnly]
                    .map(under)
                    .into()
            }
            Objective::SecondThoughts => vec![Words::Unedited { source: answer }],
            Objective::Selfee => [stands(answer), revise(answer)]
                .map(|verdict| Words::Revised(vec![verdict]))
                .into(),
            // after the worse of the two: the better one, or the worse one again
            Objective::SelfDebug => vec![Words::Debugged {
                first: &among[1].text,
                second: answer,
                format: DebugFormat {
                    learned: DebugLearned::LastProgram,
                    ..self.debug.clone()
                },
            }],
            other => unreachable!("{other} has no probes"),
        }
    }

    /// The best answer that is the cheapest to reach from a worse one by edits.
    fn nearest<'i>(
        &self,
        worse: &Answer,
        best: &[&'i Answer],
        encode: &dyn Fn(&str) -> Result<Vec<u32>>,
    ) -> Result<(&'i Answer, EditScript)> {
        let source = encode(&worse.text)?;
        let mut nearest = None;
        for &answer in best {
            let script = edit_script(&source, &encode(&answer.text)?, self.costs)?;
            let cost = script.cost(self.costs);
            if nearest.as_ref().is_none_or(|(least, _, _)| cost < *least) {
                nearest = Some((cost, answer, script));
            }
        }
        let (_, answer, script) = nearest.expect("an item has a best answer");
        Ok((answer, script))
    }
}

/// The pairs of an item by the places of their answers, the better first.
fn compared_places(item: &Item, most: Most) -> Vec<[usize; 2]> {
    let place = |answer: &Answer| {
        let same = |one: &Answer| one == answer;
        item.answers
            .iter()
            .position(same)
            .expect("an answer of the item")
    };
    let pairs = compared(item, Pairs, most).into_iter();
    pairs
        .map(|pair| [place(&pair[0]), place(&pair[1])])
        .collect()
}
