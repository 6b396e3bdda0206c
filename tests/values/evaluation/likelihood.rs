//! What takes the log-probabilities of a model.

use super::close;
use candle_align::evaluation::by_model::gpt_score;
use candle_align::evaluation::closed_form::{ChoiceScore, accuracy, choice_scores, choose};
use candle_align::{Result, TokenLogProbs};
use candle_core::{Device, Tensor};

fn options<const N: usize>(values: &[[f64; 3]; N], mask: &[[u8; 3]; N]) -> Result<TokenLogProbs> {
    let values = Tensor::new(values, &Device::Cpu)?;
    TokenLogProbs::new(&values, &Tensor::new(mask, &Device::Cpu)?)
}

#[test]
fn the_four_scores_of_an_option_and_what_they_choose() -> Result<()> {
    let mask = [[1, 0, 0], [1, 1, 0], [1, 1, 1]];
    let given = options(
        &[[-2.0, 0.0, 0.0], [-1.0, -1.5, 0.0], [-1.0, -0.5, -1.2]],
        &mask,
    )?;
    let alone = options(
        &[[-1.0, 0.0, 0.0], [-3.0, -2.0, 0.0], [-1.0, -1.0, -1.0]],
        &mask,
    )?;
    let bytes = [4, 4, 9];
    for (by, want, best) in [
        (ChoiceScore::Sum, [-2.0, -1.0 - 1.5, -1.0 - 0.5 - 1.2], 0),
        (ChoiceScore::PerToken, [-2.0, -2.5 / 2.0, -2.7 / 3.0], 2),
        (
            ChoiceScore::PerByte(&bytes),
            [-2.0 / 4.0, -2.5 / 4.0, -2.7 / 9.0],
            2,
        ),
        (
            ChoiceScore::Unconditional(&alone),
            [-2.0 + 1.0, -2.5 + 5.0, -2.7 + 3.0],
            1,
        ),
    ] {
        let scores = choice_scores(&given, by)?;
        scores
            .iter()
            .zip(want)
            .for_each(|(got, want)| close(*got, want));
        assert_eq!(choose(&scores, &[3])?, [best], "{by:?}");
    }
    // two questions of two and one options
    assert_eq!(choose(&[-1.0, -0.5, f64::NEG_INFINITY], &[2, 1])?, [1, 0]);
    // of equal options the first
    assert_eq!(choose(&[-1.0, -1.0], &[2])?, [0]);
    Ok(())
}

#[test]
fn the_accuracy_has_the_error_of_its_mean() -> Result<()> {
    let of = accuracy(&[0, 1, 2, 2], &[0, 1, 2, 3])?;
    close(of.value, 3.0 / 4.0);
    // s² = (3 · (1/4)² + (3/4)²)/3
    close(of.error, ((3.0 / 16.0 + 9.0 / 16.0) / 3.0 / 4.0f64).sqrt());
    Ok(())
}

#[test]
fn gpt_score_is_the_mean_over_the_tokens_of_the_answer() -> Result<()> {
    let given = options(
        &[[-1.0, -2.0, -9.0], [-0.5, -0.5, -2.0]],
        &[[1, 1, 0], [0, 0, 1]],
    )?;
    assert_eq!(gpt_score(&given)?.to_vec1::<f64>()?, [-3.0 / 2.0, -2.0]);
    Ok(())
}
