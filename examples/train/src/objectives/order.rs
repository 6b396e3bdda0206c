//! Do scores put answers into the order of their rewards?

use super::super::batch::Batch;
use super::super::error::Result;
use candle_core::{DType, Tensor};

/// Pairs with one better answer: how many there are, and how many the scores order correctly (a tie
/// counts ½).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ordered {
    pub right: f64,
    pub pairs: usize,
}

impl Ordered {
    /// Adds all pairs of a batch.
    pub fn add(&mut self, scores: &Tensor, batch: &Batch) -> Result<()> {
        let scores = scores.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        let rewards = batch.rewards.to_vec2::<f32>()?;
        let exists = batch.exists.to_vec2::<u8>()?;
        for ((scores, rewards), exists) in scores.iter().zip(&rewards).zip(&exists) {
            let own = (0..batch.k).filter(|&i| exists[i] != 0);
            let own: Vec<_> = own.map(|i| (scores[i], f64::from(rewards[i]))).collect();
            self.add_list(&own);
        }
        Ok(())
    }

    /// Adds all pairs of (score, reward) in one list.
    pub fn add_list(&mut self, list: &[(f64, f64)]) {
        for (i, a) in list.iter().enumerate() {
            for b in &list[i + 1..] {
                let (better, worse) = if a.1 > b.1 { (a, b) } else { (b, a) };
                if better.1 > worse.1 {
                    self.pairs += 1;
                    self.right += match better.0.partial_cmp(&worse.0) {
                        Some(std::cmp::Ordering::Greater) => 1.0,
                        Some(std::cmp::Ordering::Equal) => 0.5,
                        _ => 0.0,
                    };
                }
            }
        }
    }

    /// The share that is ordered correctly, if there is any pair.
    pub fn accuracy(&self) -> Option<f64> {
        (self.pairs > 0).then(|| self.right / self.pairs as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::Ordered;

    #[test]
    fn a_tie_of_scores_counts_half_and_a_tie_of_rewards_is_no_pair() {
        let mut ordered = Ordered::default();
        assert_eq!(ordered.accuracy(), None);
        // (score, reward): one right, one wrong, one tied score, one tied reward
        ordered.add_list(&[(0.3, 1.0), (0.1, 0.0)]);
        ordered.add_list(&[(0.3, 0.0), (0.1, 1.0)]);
        ordered.add_list(&[(0.3, 0.0), (0.3, 1.0)]);
        ordered.add_list(&[(0.3, 1.0), (0.1, 1.0)]);
        assert_eq!(
            ordered,
            Ordered {
                right: 1.5,
                pairs: 3
            }
        );
        assert_eq!(ordered.accuracy(), Some(0.5));
    }
}
