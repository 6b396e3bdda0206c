use super::close;
use candle_align::evaluation::closed_form::{
    ExactMatchConfig, choice_letter, coin_flips, exact_match, gsm8k_answer, last_letters,
    last_number, mean_pass_at_k, pass_at_k,
};

#[test]
fn pass_at_k_is_one_minus_the_share_of_draws_without_a_good_one() {
    // C(3, 2)/C(5, 2) = 3/10
    close(pass_at_k(5, 2, 2).unwrap(), 1.0 - 3.0 / 10.0);
    close(pass_at_k(5, 2, 1).unwrap(), 2.0 / 5.0);
    assert_eq!(pass_at_k(5, 3, 3).unwrap(), 1.0);
    assert_eq!(pass_at_k(5, 0, 5).unwrap(), 0.0);
    // one good of a million, half of them drawn
    close(pass_at_k(1_000_000, 1, 500_000).unwrap(), 0.5);
    let of = mean_pass_at_k(&[(5, 2), (4, 0)], 1).unwrap();
    close(of.value, (0.4 + 0.0) / 2.0);
    close(of.error, (2.0 * 0.2f64.powi(2) / 1.0 / 2.0).sqrt());
}

#[test]
fn the_answer_of_a_solution() {
    for (text, want) in [
        ("so 5.\n#### 1,234", Some("1234")),
        ("#### -5.25 dollars", Some("-5.25")),
        ("#### 5.", Some("5.")),
        ("#### x\n#### 7\n#### 8", Some("7")),
        ("####7", None),
        ("#### $7", None),
        ("#### -", None),
        ("#### ", None),
    ] {
        assert_eq!(gsm8k_answer(text).as_deref(), want, "{text}");
    }
}

#[test]
fn the_last_number_of_a_text() {
    for (text, want) in [
        ("3 and 4.", Some("4")),
        ("$1,200.50.", Some("1200.50")),
        ("it is -7!", Some("-7")),
        ("3-5", Some("-5")),
        ("12 ... $,", Some("12")),
        ("é5é", Some("5")),
        ("none", None),
        ("", None),
    ] {
        assert_eq!(last_number(text).as_deref(), want, "{text}");
    }
}

#[test]
fn the_letter_of_an_option() {
    for (text, want) in [
        ("B", Some(1)),
        ("(D)", Some(3)),
        ("The answer is C.", Some(2)),
        ("Because", None),
        ("E", None),
        ("ÄB BÄ B2 2B b", None),
        ("so\nA", Some(0)),
    ] {
        assert_eq!(choice_letter(text, 4).unwrap(), want, "{text}");
    }
}

#[test]
fn exact_match_counts_equal_answers() {
    let share = |config: &ExactMatchConfig| {
        let predicted = [Some(" Yes "), Some("no."), None, Some("7")];
        exact_match(&predicted, &["yes", "no", "no", "7"], config).unwrap()
    };
    let (ignore_case, ignore_punctuation) = (true, true);
    let none = ExactMatchConfig::default();
    close(share(&none), 1.0 / 4.0);
    close(
        share(&ExactMatchConfig {
            ignore_case,
            ..none
        }),
        2.0 / 4.0,
    );
    close(
        share(&ExactMatchConfig {
            ignore_punctuation,
            ..none
        }),
        2.0 / 4.0,
    );
    close(
        share(&ExactMatchConfig {
            ignore_case,
            ignore_punctuation,
        }),
        3.0 / 4.0,
    );
    // a blank between a word and its mark is at the end once the mark is gone
    let config = ExactMatchConfig {
        ignore_punctuation,
        ..none
    };
    let blanks = [Some("Yes !"), Some("( no"), Some("a b")];
    close(
        exact_match(&blanks, &["Yes", "no", "ab"], &config).unwrap(),
        2.0 / 3.0,
    );
}

#[test]
fn the_answers_of_made_tasks_follow_from_their_questions() {
    for question in last_letters(&["Elon", "Ömür", "Musk"], 3, 40, 3).unwrap() {
        let words = question.prompt.split('"').nth(1).unwrap();
        let letters: String = words
            .split(' ')
            .map(|word| word.chars().last().unwrap())
            .collect();
        assert_eq!(question.answer, letters);
        assert_eq!(letters.chars().count(), 3);
    }
    let questions = coin_flips(&["Ka", "Sherrie"], 3, 200, 3).unwrap();
    for question in &questions {
        let flips = question.prompt.matches(" flips the coin.").count();
        let rests = question.prompt.matches(" does not flip the coin.").count();
        assert_eq!(flips + rests, 3);
        assert_eq!(question.answer, if flips % 2 == 0 { "yes" } else { "no" });
        assert!(question.prompt.starts_with("A coin is heads up. "));
        assert!(question.prompt.ends_with(" Is the coin still heads up?"));
    }
    // both answers occur about equally: within 4 standard errors of ½
    let yes = questions
        .iter()
        .filter(|question| question.answer == "yes")
        .count();
    assert!((72..=128).contains(&yes), "{yes}");
    assert_eq!(
        questions[..10],
        coin_flips(&["Ka", "Sherrie"], 3, 10, 3).unwrap()
    );
    assert_ne!(
        questions[..10],
        coin_flips(&["Ka", "Sherrie"], 3, 10, 4).unwrap()
    );
}
