//! Which answers to a prompt are compared, and how many at most.

use super::data::{Answer, Item, group};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index;

/// Which answers of an item are compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The best one.
    Best,
    /// Every pair with one better answer, up to the limit.
    Pairs,
    /// All of them.
    Lists,
}

/// The limits per item. Above a limit some are drawn, and the same seed and item give the same draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    pub pairs: usize,
    pub answers: usize,
    pub seed: u64,
}

impl Most {
    /// At most `most` of the numbers below `all`, in order.
    fn draw(&self, item: &Item, all: usize, most: usize) -> Vec<usize> {
        if all <= most {
            return (0..all).collect();
        }
        let mut rng =
            StdRng::seed_from_u64(self.seed ^ group(&format!("{} {}", item.group, item.prompt)));
        let mut drawn = index::sample(&mut rng, all, most).into_vec();
        drawn.sort_unstable();
        drawn
    }

    /// Pairs of one of `better` and one of `worse`, in the order of `better`.
    pub fn pairs_of<'a>(
        &self,
        item: &Item,
        better: &[&'a Answer],
        worse: &[&'a Answer],
    ) -> Vec<(&'a Answer, &'a Answer)> {
        let drawn = self.draw(item, better.len() * worse.len(), self.pairs);
        let pair = |at: usize| (better[at / worse.len()], worse[at % worse.len()]);
        drawn.into_iter().map(pair).collect()
    }

    /// Keeps at most this many answers, including a best and a worst one; returns how many were left out.
    pub fn thin(&self, item: &mut Item) -> usize {
        let all = item.answers.len();
        if all <= self.answers {
            return 0;
        }
        let by_reward = |a: &usize, b: &usize| {
            let reward = |i: usize| item.answers[i].reward;
            reward(*a).total_cmp(&reward(*b))
        };
        // the first of several best ones in the file, as in a ranking
        let best = (0..all).rev().max_by(by_reward).expect("an answer");
        let worst = (0..all).filter(|&i| i != best).min_by(by_reward);
        let ends = [best, worst.expect("a second answer")];
        let others: Vec<usize> = (0..all).filter(|i| !ends.contains(i)).collect();
        let drawn = self.draw(item, others.len(), self.answers - 2);
        let mut kept: Vec<usize> = drawn.into_iter().map(|i| others[i]).chain(ends).collect();
        kept.sort_unstable();
        item.answers = kept.into_iter().map(|i| item.answers[i].clone()).collect();
        all - item.answers.len()
    }
}

/// The answers, best first; equal ones in the file's order.
fn ranked(item: &Item) -> Vec<&Answer> {
    let mut answers: Vec<&Answer> = item.answers.iter().collect();
    answers.sort_by(|a, b| b.reward.total_cmp(&a.reward));
    answers
}

/// For each answer, the number of pairs before its own, and at the end the total; and where the worse
/// answers begin. Only these two lists are allocated.
fn strict_pairs(answers: &[&Answer]) -> (Vec<usize>, Vec<usize>) {
    let (mut before, mut worse) = (vec![0], Vec::new());
    for better in answers {
        let from = answers.partition_point(|other| other.reward >= better.reward);
        before.push(before[before.len() - 1] + answers.len() - from);
        worse.push(from);
    }
    (before, worse)
}

/// The number of pairs of an item with one better answer.
pub fn pair_count(item: &Item) -> usize {
    strict_pairs(&ranked(item)).0.pop().unwrap_or(0)
}

/// The answers that are compared, best first: several such lists if a list becomes pairs. A wrong
/// answer is never the best.
pub fn compared(item: &Item, shape: Shape, most: Most) -> Vec<Vec<Answer>> {
    let answers = ranked(item);
    let list = |list: &[&Answer]| list.iter().copied().cloned().collect();
    match shape {
        Shape::Lists => vec![list(&answers)],
        Shape::Best => match answers.first() {
            Some(best) if item.is_good(best) => vec![list(&answers[..1])],
            _ => Vec::new(),
        },
        Shape::Pairs => {
            let (before, worse) = strict_pairs(&answers);
            let all = before[before.len() - 1];
            let drawn = most.draw(item, all, most.pairs).into_iter();
            drawn
                .map(|at| {
                    let i = before.partition_point(|&pairs| pairs <= at) - 1;
                    list(&[answers[i], answers[worse[i] + at - before[i]]])
                })
                .collect()
        }
    }
}

/// The best answer, the second and the last: a gold answer, and a better and a worse one; nothing if there are
/// not three, or the second is no better than the last.
pub fn triple(item: &Item) -> Option<Vec<Answer>> {
    let [best, second, .., last] = ranked(item)[..] else {
        return None;
    };
    let all = [best, second, last].into_iter().cloned().collect();
    (second.reward > last.reward).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const MOST: Most = Most {
        pairs: 64,
        answers: 64,
        seed: 0,
    };

    /// An item of many answers, in no order.
    fn many(answers: usize) -> Item {
        let answer = |i: usize| Answer::new(&i.to_string(), (i * 7919 % answers / 2) as f64);
        Item::new("Q".to_string(), (0..answers).map(answer).collect())
    }

    #[test]
    fn pairs_of_a_huge_list_are_drawn_by_the_seed() {
        let item = many(20_000);
        // two share each reward
        assert_eq!(pair_count(&item), (20_000 * 19_999 / 2) - 10_000);
        let pairs = |seed| compared(&item, Shape::Pairs, Most { seed, ..MOST });
        assert_eq!(pairs(1).len(), 64);
        assert_eq!(pairs(1), pairs(1));
        assert_ne!(pairs(1), pairs(2));
        let all = pairs(1);
        assert!(all.iter().all(|pair| pair[0].reward > pair[1].reward));
        let distinct = all.iter().map(|pair| (&pair[0].text, &pair[1].text));
        assert_eq!(distinct.collect::<HashSet<_>>().len(), 64);
        // of all places in the ranking
        let better = all.iter().filter(|pair| pair[0].reward < 5_000.0).count();
        assert!((4..32).contains(&better), "{better}");
    }

    #[test]
    fn drawn_pairs_are_some_of_all_pairs_each_as_often() {
        let item = many(7);
        let with = |pairs, seed| {
            compared(
                &item,
                Shape::Pairs,
                Most {
                    pairs,
                    answers: 64,
                    seed,
                },
            )
        };
        let all = with(100, 0);
        assert_eq!(all.len(), pair_count(&item));
        let mut drawn = vec![0; all.len()];
        for seed in 0..300 {
            for pair in with(6, seed) {
                drawn[all.iter().position(|one| *one == pair).unwrap()] += 1;
            }
        }
        // 300 · 6 / 18 = 100 of each, ± 8
        assert_eq!(all.len(), 18);
        assert!(drawn.iter().all(|n| (60..140).contains(n)), "{drawn:?}");
    }

    #[test]
    fn a_thinned_list_keeps_its_best_its_worst_and_the_order() {
        let mut item = many(20_000);
        let (before, best) = (item.clone(), item.best());
        assert_eq!(MOST.thin(&mut item), 20_000 - 64);
        assert_eq!(item.answers.len(), 64);
        assert_eq!(item.best(), best);
        assert!(item.answers.iter().any(|answer| answer.reward == 0.0));
        let mut rest = before.answers.iter();
        assert!(item.answers.iter().all(|kept| rest.any(|one| one == kept)));
        // the first of equal best ones, as a ranking has it
        let first = before.answers.iter().find(|answer| answer.reward == best);
        assert!(item.answers.contains(first.unwrap()));
        assert_eq!(MOST.thin(&mut item), 0);
    }

    #[test]
    fn pairs_of_good_and_bad_ones_are_drawn_too() {
        let item = many(300);
        let (good, bad): (Vec<_>, Vec<_>) = item.answers.iter().partition(|a| a.reward > 75.0);
        let pairs = MOST.pairs_of(&item, &good, &bad);
        assert_eq!(pairs.len(), 64);
        assert!(
            pairs
                .iter()
                .all(|(a, b)| a.reward > 75.0 && b.reward <= 75.0)
        );
        let few = MOST.pairs_of(&item, &good[..2], &bad[..2]);
        let all = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(i, j)| (good[i], bad[j]));
        assert_eq!(few, all);
        assert_eq!(MOST.pairs_of(&item, &good, &[]), []);
    }

    #[test]
    fn a_wrong_answer_is_never_a_best_one() {
        let mut wrong = Item::new("Q".to_string(), vec![Answer::new("a", 0.0)]);
        assert_eq!(compared(&wrong, Shape::Best, MOST).len(), 1);
        wrong.judged = true;
        assert_eq!(compared(&wrong, Shape::Best, MOST).len(), 0);
        wrong.answers[0].reward = 1.0;
        assert_eq!(compared(&wrong, Shape::Best, MOST).len(), 1);
    }
}
