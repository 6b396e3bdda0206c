use super::{config, is_close, reversed};
use candle_align::evaluation::closed_form::{
    ExactMatchConfig, choice_letter, coin_flips, exact_match, gsm8k_answer, last_letters,
    last_number, pass_at_k,
};
use proptest::prelude::*;

#[test]
fn pass_at_k_is_unbiased_and_its_short_form_is_not() {
    // over all numbers of good programs, with their binomial probabilities
    for (n, k, p) in [
        (6, 1, 0.3),
        (6, 3, 0.3),
        (9, 4, 0.1),
        (9, 9, 0.55),
        (12, 5, 0.02),
    ] {
        let (mut mean, mut short, mut share) = (0.0, 0.0, (1.0f64 - p).powi(n));
        for c in 0..=n {
            mean += share * pass_at_k(n as usize, c as usize, k).unwrap();
            short += share * (1.0 - (1.0 - f64::from(c) / f64::from(n)).powi(k as i32));
            share *= f64::from(n - c) / f64::from(c + 1) * p / (1.0 - p);
        }
        let truth = 1.0 - (1.0 - p).powi(k as i32);
        assert!((mean - truth).abs() < 1e-13, "{n} {k}: {mean} {truth}");
        assert!(k == 1 || short < truth - 1e-4, "{n} {k}: {short} {truth}");
    }
}

#[test]
fn chance_is_a_half_for_coins_and_nothing_for_letters() {
    let coins = coin_flips(&["Ka"], 2, 400, 11).unwrap();
    let yes = vec![Some("yes"); 400];
    let answers: Vec<&str> = coins
        .iter()
        .map(|question| question.answer.as_str())
        .collect();
    let share = exact_match(&yes, &answers, &ExactMatchConfig::default()).unwrap();
    assert!((share - 0.5).abs() < 4.0 * 0.5 / 20.0, "{share}");
    let short = last_letters(&["Elon", "Musk"], 3, 5, 7).unwrap();
    let long = last_letters(&["Elon", "Musk"], 3, 9, 7).unwrap();
    assert_eq!(short, long[..5]);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn pass_at_k_grows_with_k_and_with_c(n in 1..60usize, c in 0..60usize, k in 1..60usize) {
        let (c, k) = (c.min(n), k.min(n));
        let value = pass_at_k(n, c, k).unwrap();
        prop_assert!((0.0..=1.0).contains(&value));
        prop_assert!(k == n || pass_at_k(n, c, k + 1).unwrap() >= value);
        prop_assert!(c == n || pass_at_k(n, c + 1, k).unwrap() >= value);
        prop_assert!(is_close(pass_at_k(n, c, 1).unwrap(), c as f64 / n as f64, 1e-13));
    }

    #[test]
    fn a_number_is_found_wherever_it_stands_last(before in "[a-z .,$#-]{0,12}", number in 0..100_000u32, after in "[a-z !?]{0,9}") {
        let text = format!("{before} {number}{after}");
        prop_assert_eq!(last_number(&text), Some(number.to_string()));
        let solution = format!("{before}\n#### {number}{after}");
        let found = gsm8k_answer(&solution);
        prop_assert!(before.contains("#### ") || found == Some(number.to_string()));
    }

    #[test]
    fn no_text_is_too_strange(text in any::<String>(), options in 1..27usize) {
        // nothing panics, and what is found is in the range
        let letter = choice_letter(&text, options).unwrap();
        prop_assert!(letter.is_none_or(|letter| letter < options));
        for number in [last_number(&text), gsm8k_answer(&text)].into_iter().flatten() {
            prop_assert!(!number.contains(','));
        }
    }

    #[test]
    fn the_order_of_questions_does_not_matter(answers in proptest::collection::vec((0..3u8, 0..3u8), 1..20)) {
        let predicted: Vec<_> = answers.iter().map(|(a, _)| Some(a.to_string())).collect();
        let expected: Vec<_> = answers.iter().map(|(_, b)| b.to_string()).collect();
        let none = ExactMatchConfig::default();
        let share = exact_match(&predicted, &expected, &none).unwrap();
        let turned = exact_match(&reversed(&predicted), &reversed(&expected), &none).unwrap();
        prop_assert_eq!(share, turned);
    }
}
