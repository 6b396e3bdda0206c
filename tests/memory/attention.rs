//! Attention's extra memory grows with the tokens.

use super::case::{Case, tensors};
use super::{alone, measured};
use candle_core::DType;

/// Bytes that the forward pass keeps, and the most during both passes.
fn bytes(case: &Case) -> (usize, usize) {
    let vars = case.vars(&case.numbers(0), DType::F32);
    let x = tensors(&vars);
    let (out, kept, forward) = measured(|| case.ours(&x).unwrap());
    let (_, _, backward) = measured(|| out.backward().unwrap());
    (kept, forward.max(kept + backward))
}

#[test]
fn memory_grows_with_the_tokens_and_not_with_their_square() {
    alone(|| {
        let of = |tokens: usize| Case {
            dim: 16,
            value_dim: 16,
            ..Case::new(
                &[tokens / 2, tokens / 4, tokens / 4],
                &[None, Some(0), Some(0)],
            )
        };
        let (tokens, times) = (512, 4);
        let ((kept, most), (more_kept, more)) = (bytes(&of(tokens)), bytes(&of(times * tokens)));
        println!("kept {kept} and {more_kept}, at most {most} and {more} bytes");
        assert!(more_kept <= times * kept, "{more_kept} after {kept}");
        assert!(more <= times * most, "{more} after {most}");
        // the output [tokens, 2, 16], two numbers per query, the layout
        assert!(
            more_kept < times * tokens * 4 * 2 * (16 + 2) * 11 / 10,
            "{more_kept}"
        );
        // a matrix of scores [2, tokens, tokens] alone is more
        let scores = 4 * 2 * (times * tokens).pow(2);
        assert!(more < scores / 8, "{more} of {scores}");
        // q, k, v and the output are 6 rows of 16 per token
        let inputs = times * tokens * 6 * 16 * 4;
        assert!(more < 6 * inputs, "{more} of {inputs}");
    });
}
