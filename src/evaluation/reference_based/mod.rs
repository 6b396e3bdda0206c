//! Answers against references (survey §4.2.1): how much of the text, or of its meaning, is the same.
//!
//! | metric | counts | precision or recall | several references | as in |
//! |---|---|---|---|---|
//! | [`corpus_bleu`], [`sentence_bleu`] | n-grams up to 4, clipped | precision, with a penalty for brevity | counts clipped by the largest; the closest length | sacrebleu 2.6 |
//! | [`rouge_n`] | n-grams, clipped | both, and F | [`Overlap::best_of`] | rouge-score 0.1.2 |
//! | [`rouge_l`] | the longest common subsequence | both, and F | [`Overlap::best_of`] | rouge-score 0.1.2 |
//! | [`rouge_l_sum`] | the union of subsequences, line by line | both, and F | [`Overlap::best_of`] | rouge-score 0.1.2 |
//! | [`bert_score`] | the most similar embedding of each token | both, and F | [`Overlap::best_of`] | bert-score 0.3.13 |
//!
//! The survey's remark on all of them: an open question has good answers that share no word with the
//! reference. A number here says how alike two texts are, not how good one is.
//!
//! Read next: [`corpus_bleu`], [`rouge_l`], [`bert_score`].

mod bert_score;
mod bleu;
mod overlap;
mod porter;
mod rouge;
mod subsequence;
mod thirteen_a;

pub use bert_score::{InverseFrequency, bert_score};
pub use bleu::{Bleu, BleuConfig, BleuSmoothing, corpus_bleu, sentence_bleu};
pub use overlap::Overlap;
pub use porter::porter_stem;
pub use rouge::{Stemmer, rouge_l, rouge_l_sum, rouge_n, rouge_tokens};
pub use thirteen_a::tokenize_13a;
