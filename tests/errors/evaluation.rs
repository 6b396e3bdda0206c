//! A wrong argument of the evaluation is an error that names it; nothing panics.

use candle_align::evaluation::Outcome::{First, Second, Tie};
use candle_align::evaluation::by_model::*;
use candle_align::evaluation::closed_form::*;
use candle_align::evaluation::human::*;
use candle_align::evaluation::meta::*;
use candle_align::evaluation::reference_based::*;
use candle_align::evaluation::{Game, Outcome};
use candle_align::{Result, TokenLogProbs};
use candle_core::{Device, Tensor};

#[track_caller]
fn says<T>(result: Result<T>, want: &str) {
    match result {
        Ok(_) => panic!("no error, but {want}"),
        Err(error) => assert_eq!(error.to_string(), want),
    }
}

#[test]
fn closed_form_arguments() {
    says(
        pass_at_k(5, 6, 1),
        "pass_at_k: `correct` must be at most `samples`, got 6",
    );
    says(
        pass_at_k(5, 2, 0),
        "pass_at_k: `k` must be from 1 to `samples`, got 0",
    );
    says(
        pass_at_k(5, 2, 6),
        "pass_at_k: `k` must be from 1 to `samples`, got 6",
    );
    says(
        pass_at_k(0, 0, 1),
        "pass_at_k: `k` must be from 1 to `samples`, got 1",
    );
    says(
        mean_pass_at_k(&[], 1),
        "mean_pass_at_k: `problems` is empty",
    );
    says(
        mean_pass_at_k(&[(1, 1)], 2),
        "mean_pass_at_k: `k` must be from 1 to `samples`, got 2",
    );
    let none: [Option<&str>; 0] = [];
    let config = ExactMatchConfig::default();
    says(
        exact_match(&none, &[] as &[&str], &config),
        "exact_match: `expected` is empty",
    );
    says(
        exact_match(&none, &["a"], &config),
        "exact_match: `predicted` has 0 entries, but `expected` has 1",
    );
    says(
        choice_letter("A", 0),
        "choice_letter: `options` must be from 1 to 26, got 0",
    );
    says(last_letters(&[], 2, 1, 0), "last_letters: `words` is empty");
    says(
        last_letters(&["a", "b c"], 2, 1, 0),
        "last_letters: `words[1]` is \"b c\"; it must be letters alone",
    );
    says(
        last_letters(&["a"], 0, 1, 0),
        "last_letters: `length` must be at least 1, got 0",
    );
    says(
        coin_flips(&[""], 1, 1, 0),
        "coin_flips: `names[0]` is \"\"; it must be letters alone",
    );
    says(
        coin_flips(&["Ka"], 0, 1, 0),
        "coin_flips: `people` must be at least 1, got 0",
    );
    says(
        choose(&[1.0], &[2]),
        "choose: `scores` has 1 entries, which `options` do not add up to",
    );
    says(
        choose(&[1.0], &[usize::MAX, 2]),
        "choose: `scores` has 1 entries, which `options` do not add up to",
    );
    says(choose(&[1.0, f64::NAN], &[2]), "choose: `scores[1]` is NaN");
    says(choose(&[1.0], &[1, 0]), "choose: `options[1]` is 0");
    says(accuracy(&[], &[]), "accuracy: `expected` is empty");
    says(
        accuracy(&[1], &[1, 2]),
        "accuracy: `chosen` has 1 entries, but `expected` has 2",
    );
}

#[test]
fn options_that_cannot_be_scored() {
    let values = Tensor::new(&[[-1.0f64, -2.0], [f64::NAN, 0.0]], &Device::Cpu).unwrap();
    let of = |mask: &[[u8; 2]; 2]| {
        TokenLogProbs::new(&values, &Tensor::new(mask, &Device::Cpu).unwrap()).unwrap()
    };
    let (nan, short) = (of(&[[1, 1], [1, 1]]), of(&[[1, 1], [0, 0]]));
    says(
        choice_scores(&nan, ChoiceScore::Sum),
        "choice_scores: `log_probs` gives option 1 the score NaN",
    );
    says(
        choice_scores(&short, ChoiceScore::PerToken),
        "choice_scores: `log_probs` gives option 1 no token",
    );
    says(
        choice_scores(&short, ChoiceScore::PerByte(&[3, 0])),
        "choice_scores: `by` gives option 1 no byte",
    );
    says(
        choice_scores(&short, ChoiceScore::PerByte(&[3])),
        "choice_scores: `by` has 1 entries, but `log_probs` has 2",
    );
    // an option without a token has the sum 0
    assert_eq!(
        choice_scores(&short, ChoiceScore::Sum).unwrap(),
        [-3.0, 0.0]
    );
}

#[test]
fn texts_and_references() {
    let config = BleuConfig::default();
    says(
        corpus_bleu(&[] as &[&str], &[] as &[Vec<&str>], &config),
        "corpus_bleu: `texts` is empty",
    );
    says(
        corpus_bleu(&["a"], &[] as &[Vec<&str>], &config),
        "corpus_bleu: `references` has 0 entries, but `texts` has 1",
    );
    let none: Vec<&str> = Vec::new();
    says(
        corpus_bleu(&["a", "b"], &[vec!["a"], none.clone()], &config),
        "corpus_bleu: `references[1]` is empty",
    );
    says(
        sentence_bleu("a", &none, &config),
        "sentence_bleu: `references` is empty",
    );
    let bad = BleuConfig {
        order: 0,
        ..config.clone()
    };
    says(
        sentence_bleu("a", &["a"], &bad),
        "sentence_bleu: `order` must be at least 1, got 0",
    );
    let bad = BleuConfig {
        smoothing: BleuSmoothing::AddK(-1.0),
        ..config
    };
    says(
        sentence_bleu("a", &["a"], &bad),
        "sentence_bleu: `smoothing` must be finite and > 0, got -1",
    );
    says(
        rouge_n("a", "a", 0, Stemmer::None),
        "rouge_n: `n` must be at least 1, got 0",
    );
    let x = [vec![1.0, 0.0]];
    says(
        bert_score(&x, &[vec![1.0]], None),
        "bert_score: `reference[0]` has 1 dimensions, but others have 2",
    );
    says(
        bert_score(&x, &[vec![0.0, 0.0]], None),
        "bert_score: `reference[0]` is 0 or not finite",
    );
    says(
        bert_score(&[vec![f64::NAN, 0.0]], &x, None),
        "bert_score: `text[0]` is 0 or not finite",
    );
    says(
        bert_score(&x, &x, Some((&[], &[1.0]))),
        "bert_score: `weights.0` has 0 entries, but `text` has 1",
    );
    says(
        bert_score(&x, &x, Some((&[1.0], &[-1.0]))),
        "bert_score: `weights.1[0]` is -1; it must be finite and >= 0",
    );
    let one = Overlap {
        precision: 0.5,
        recall: 1.0,
        f1: 0.5,
    };
    says(
        one.rescaled(&one),
        "Overlap::rescaled: `recall` must be finite and < 1, got 1",
    );
}

fn game(first: usize, second: usize, outcome: Outcome) -> Game {
    Game {
        first,
        second,
        outcome,
    }
}

#[test]
fn games_that_cannot_be_rated() {
    let (elo, fit) = (EloConfig::default(), BradleyTerryConfig::default());
    says(elo_ratings(&[], 2, &elo), "elo_ratings: `games` is empty");
    says(
        elo_ratings(&[game(0, 2, Tie)], 2, &elo),
        "elo_ratings: `games[0]` names model 2, of 2 numbered from 0",
    );
    says(
        bradley_terry(&[game(1, 1, Tie)], 2, &fit),
        "bradley_terry: `games[0]` is a game of model 1 against itself",
    );
    says(
        elo_over_orders(&[game(0, 1, Tie)], 2, &elo, 0, 0),
        "elo_over_orders: `orders` must be at least 1, got 0",
    );
    says(
        elo_bootstrap(&[game(0, 1, Tie)], 2, &elo, 0, 0),
        "elo_bootstrap: `samples` must be at least 1, got 0",
    );
    let bad = EloConfig {
        k: f64::NAN,
        ..elo.clone()
    };
    says(
        elo_ratings(&[game(0, 1, Tie)], 2, &bad),
        "elo_ratings: `k` must be finite and > 0, got NaN",
    );
    let bad = EloConfig { base: 1.0, ..elo };
    says(
        elo_ratings(&[game(0, 1, Tie)], 2, &bad),
        "elo_ratings: `base` must be not 1, got 1",
    );
    let bad = BradleyTerryConfig {
        regularization: -1.0,
        ..fit.clone()
    };
    says(
        bradley_terry(&[game(0, 1, Tie)], 2, &bad),
        "bradley_terry: `regularization` must be finite and >= 0, got -1",
    );
    let anchor = Some(Anchor {
        model: 2,
        rating: 0.0,
    });
    let bad = BradleyTerryConfig {
        anchor,
        ..fit.clone()
    };
    says(
        bradley_terry(&[game(0, 1, Tie)], 2, &bad),
        "bradley_terry: `anchor.model` must be below `models`, got 2",
    );
    let error = serde_json::from_str::<BradleyTerryConfig>(r#"{"ridge": 1}"#).unwrap_err();
    assert!(
        error.to_string().starts_with("unknown field `ridge`"),
        "{error}"
    );
}

#[test]
fn games_whose_likelihood_has_no_maximum() {
    let fit = BradleyTerryConfig::default();
    let why = "so the ratings have no finite maximum of the likelihood; leave models out, or set `regularization`";
    let games = [game(0, 1, First), game(1, 0, First), game(2, 0, First)];
    says(
        bradley_terry(&games, 3, &fit),
        &format!(
            "bradley_terry: `games` show 1 model(s), model 2 among them, that never lose or tie against model 0 or \
             those below it, {why}"
        ),
    );
    says(
        bradley_terry(&[game(0, 1, First)], 2, &fit),
        &format!(
            "bradley_terry: `games` show 1 model(s), model 1 among them, that never win or tie against model 0 or \
             those above it, {why}"
        ),
    );
    says(
        bradley_terry(&games[..2], 3, &fit),
        "bradley_terry: `games` have none of model 2, so its rating is unknown",
    );
    // a penalty makes all of them finite
    let ridge = BradleyTerryConfig {
        regularization: 0.5,
        ..fit.clone()
    };
    assert!(bradley_terry(&games, 4, &ridge).is_ok_and(|fit| fit.ratings[3].value == 1000.0));
    let ties = BradleyTerryConfig {
        ties: TieModel::Davidson,
        ..fit.clone()
    };
    says(
        bradley_terry(&[game(0, 1, Tie)], 2, &ties),
        "bradley_terry: `games` are all ties, so the tie parameter has no finite estimate; use half_win",
    );
    let none = "have no finite maximum of the likelihood (a feature or the ties separate wins from losses); set \
                `regularization`";
    // model 0 never loses, and its ties can be explained by ties alone
    says(
        bradley_terry(
            &[game(0, 1, First), game(0, 1, First), game(0, 1, Tie)],
            2,
            &ties,
        ),
        &format!("bradley_terry: `games` {none}"),
    );
    // the feature says who wins
    let games = [game(0, 1, First), game(0, 1, Second)];
    says(
        bradley_terry_with_style(&games, &[vec![1.0], vec![-1.0]], 2, &fit),
        &format!("bradley_terry_with_style: `games` {none}"),
    );
    // two features that are one
    let both = [vec![1.0, 1.0], vec![0.5, 0.5], vec![0.2, 0.2]];
    let games = [game(0, 1, First), game(0, 1, Second), game(1, 0, First)];
    assert!(bradley_terry_with_style(&games, &both, 2, &fit).is_err());
    says(
        bradley_terry_with_style(&games, &both[..2], 2, &fit),
        "bradley_terry_with_style: `features` has 2 entries, but `games` has 3",
    );
    says(
        bradley_terry_with_style(&games, &[vec![0.0], vec![0.0], vec![f64::NAN]], 2, &fit),
        "bradley_terry_with_style: `features[2]` must be 1 finite numbers",
    );
    says(style_features(&[], &[]), "style_features: `first` is empty");
    says(
        style_features(&[vec![1.0], vec![1.0]], &[vec![2.0], vec![2.0]]),
        "style_features: `first` has the same feature 0 in all games, so it explains nothing",
    );
    says(
        style_features(&[vec![-1.0]], &[vec![2.0]]),
        "style_features: `first[0]` must be 1 finite numbers >= 0",
    );
    let error = bradley_terry_bootstrap(&[game(0, 1, First), game(0, 1, Second)], 2, &fit, 50, 0)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("bradley_terry_bootstrap: `games` in sample "),
        "{error}"
    );
}

#[test]
fn votes_and_ratings() {
    says(ordinal_shares(&[], 4), "ordinal_shares: `ratings` is empty");
    says(
        ordinal_shares(&[4], 4),
        "ordinal_shares: `ratings[0]` is 4, of 4 levels numbered from 0",
    );
    says(
        ordinal_shares(&[0], 0),
        "ordinal_shares: `levels` must be at least 1, got 0",
    );
    says(
        win_rate(&[Tie], Ties::Dropped),
        "win_rate: `outcomes` has no game that counts",
    );
    says(
        judge_agreement(&[Tie], &[] as &[Vec<Outcome>], VoteTies::Counted),
        "judge_agreement: `votes` has 0 entries, but `judge` has 1",
    );
    let none = KappaWeights::None;
    says(
        cohen_kappa(&[], &[], 2, none),
        "cohen_kappa: `first` is empty",
    );
    says(
        cohen_kappa(&[0], &[0, 1], 2, none),
        "cohen_kappa: `second` has 2 entries, but `first` has 1",
    );
    says(
        cohen_kappa(&[0], &[2], 2, none),
        "cohen_kappa: `second[0]` is 2, of 2 categories numbered from 0",
    );
    says(
        cohen_kappa(&[1, 1], &[1, 1], 2, none),
        "cohen_kappa: `first` and `second` hold one category alone, where kappa is 0/0",
    );
    says(fleiss_kappa(&[]), "fleiss_kappa: `counts` is empty");
    says(
        fleiss_kappa(&[vec![1, 0]]),
        "fleiss_kappa: `counts` must be rows of at least 2 ratings, got 1",
    );
    says(
        fleiss_kappa(&[vec![1, 1], vec![2, 1]]),
        "fleiss_kappa: `counts[1]` has 3 ratings of 2 categories, but `counts[0]` has 2 of 2",
    );
    says(
        fleiss_kappa(&[vec![2, 0], vec![2, 0]]),
        "fleiss_kappa: `counts` hold one category alone, where kappa is 0/0",
    );
    let alpha = |rows: &[Vec<Option<f64>>], level| krippendorff_alpha(rows, level);
    says(
        alpha(&[vec![Some(1.0)], vec![]], Level::Nominal),
        "krippendorff_alpha: `ratings[1]` has 0 items, but `ratings[0]` has 1",
    );
    says(
        alpha(&[vec![Some(-1.0)]], Level::Ratio),
        "krippendorff_alpha: `ratings[0][0]` must be finite, and not negative for ratios",
    );
    let unknown = "krippendorff_alpha: `ratings` hold no two different ratings on items that several raters rated, where \
                   alpha is 0/0";
    says(alpha(&[], Level::Interval), unknown);
    says(
        alpha(
            &[vec![Some(1.0), None], vec![None, Some(2.0)]],
            Level::Interval,
        ),
        unknown,
    );
    says(
        alpha(&[vec![Some(1.0); 3], vec![Some(1.0); 3]], Level::Ordinal),
        unknown,
    );
}

#[test]
fn judgments_of_models() {
    says(position_bias(&[]), "position_bias: `judgments` is empty");
    let judge = |_: &str, _: &str| pass_at_k(0, 1, 1).map(|_| First);
    says(
        both_orders(judge, "a", "b"),
        "pass_at_k: `correct` must be at most `samples`, got 1",
    );
    says(
        compare_scores(f64::NAN, 1.0, 0.1),
        "compare_scores: `first` is NaN; it must be finite",
    );
    says(
        compare_scores(1.0, 1.0, -0.1),
        "compare_scores: `gap` must be finite and >= 0, got -0.1",
    );
    says(
        calibrated_scores(&[], &[]),
        "calibrated_scores: `forward` and `backward` are empty",
    );
    says(
        position_entropy(&[], &[(1.0, f64::INFINITY)]),
        "position_entropy: `backward[0]` must be two finite scores",
    );
    says(
        least_certain(&[], 0.5),
        "least_certain: `entropies` is empty",
    );
    says(
        least_certain(&[0.0], 1.5),
        "least_certain: `share` must be in [0, 1], got 1.5",
    );
    let mass = ScoreMass::Normalized;
    says(
        expected_score(&[], mass),
        "expected_score: `scores` is empty",
    );
    says(
        expected_score(&[(1.0, f64::NEG_INFINITY)], mass),
        "expected_score: `scores` are all impossible",
    );
    says(
        expected_score(&[(1.0, 0.0), (2.0, 0.5)], mass),
        "expected_score: `scores[1]` must be a finite score with a log-probability <= 0",
    );
    says(
        alpaca_win_rate(&[]),
        "alpaca_win_rate: `preferences` is empty",
    );
    says(
        alpaca_win_rate(&[1.0, 2.5]),
        "alpaca_win_rate: `preferences[1]` has the preference 2.5; it must be in [1, 2], or 0 for a draw",
    );
    says(
        alpaca_win_rate(&[f64::NAN]),
        "alpaca_win_rate: `preferences[0]` has the preference NaN; it must be in [1, 2], or 0 for a draw",
    );
    says(
        fact_score(&[None], 10.0),
        "fact_score: `answers` has no answer",
    );
    says(
        fact_score(&[Some(vec![])], 10.0),
        "fact_score: `answers[0]` has no fact; pass None where a model declined",
    );
    says(
        fact_score(&[None], f64::NAN),
        "fact_score: `gamma` must be finite and >= 0, got NaN",
    );
    says(
        multi_reference(&[], References::Mean),
        "multi_reference: `scores` is empty",
    );
    says(
        multi_reference(&[0.1, f64::NAN], References::Mean),
        "multi_reference: `scores[1]` is NaN; it must be finite",
    );
}

#[test]
fn rows_that_no_length_can_be_controlled_for() {
    let row = |preference, length_difference| LengthRow {
        preference,
        length_difference,
        difficulty: 0.0,
    };
    let config = LengthControlConfig::default();
    let function = "length_controlled_win_rate";
    says(
        length_controlled_win_rate(&[row(Some(1.0), 0.0), row(None, 0.0)], &[], &config),
        &format!("{function}: `rows` has 1 preferences, for 5 folds"),
    );
    let good = [row(Some(1.0), 0.1); 6];
    says(
        length_controlled_win_rate(&good, &[row(Some(1.0), f64::NAN)], &config),
        &format!("{function}: `gamed[0]` must have a finite length difference and difficulty"),
    );
    says(
        length_controlled_win_rate(&good, &[row(Some(3.0), 0.0)], &config),
        &format!(
            "{function}: `gamed[0]` has the preference 3; it must be in [1, 2], or 0 for a draw"
        ),
    );
    let bad = LengthControlConfig { folds: 1, ..config };
    says(
        length_controlled_win_rate(&good, &[], &bad),
        &format!("{function}: `folds` must be at least 2, got 1"),
    );
    let says_constant = "length_differences: `model` differs from `baseline` by the same length everywhere, or there is one \
                         answer alone";
    says(length_differences(&[1.0], &[2.0]), says_constant);
    says(length_differences(&[1.0, 2.0], &[2.0, 3.0]), says_constant);
    // one class alone: the penalty keeps it finite
    let fit = length_controlled_win_rate(
        &[row(Some(2.0), 0.5); 10],
        &[],
        &LengthControlConfig::default(),
    )
    .unwrap();
    assert!(
        fit.win_rate.value > 50.0 && fit.win_rate.value <= 100.0,
        "{fit:?}"
    );
}

#[test]
fn lists_that_cannot_be_correlated() {
    says(pearson(&[], &[]), "pearson: `x` is empty");
    says(
        pearson(&[1.0, 2.0], &[1.0]),
        "pearson: `y` has 1 entries, but `x` has 2",
    );
    says(
        spearman(&[1.0, f64::NAN], &[1.0, 2.0]),
        "spearman: `x[1]` is NaN; it must be finite",
    );
    says(
        kendall(&[1.0, 2.0], &[3.0, 3.0], KendallVariant::C),
        "kendall: `y` holds one value alone, so a correlation is 0/0",
    );
    says(
        pearson(&[1.0], &[1.0]),
        "pearson: `x` holds one value alone, so a correlation is 0/0",
    );
    let pearson = Correlation::Pearson;
    says(
        correlate(&[], &[], pearson, Grouping::Sample),
        "correlate: `metric` is empty",
    );
    says(
        correlate(&[vec![1.0, 2.0]], &[vec![1.0]], pearson, Grouping::Sample),
        "correlate: `human[0]` has 1 entries, but `metric[0]` has 2",
    );
    says(
        correlate(
            &[vec![1.0, 2.0]],
            &[vec![1.0, f64::NAN]],
            pearson,
            Grouping::Dataset,
        ),
        "correlate: `human[0]` or its metric is not finite",
    );
    says(
        correlate(
            &[vec![1.0, 1.0]],
            &[vec![1.0, 2.0]],
            pearson,
            Grouping::Sample,
        ),
        "correlate: `metric` or `human` gives every input's systems one score, so nothing can be correlated",
    );
    says(
        correlate(
            &[vec![1.0, 2.0]],
            &[vec![2.0, 2.0]],
            pearson,
            Grouping::System,
        ),
        "correlate: `human` holds one value alone, so a correlation is 0/0",
    );
    says(
        correlate(
            &[vec![1.0, 2.0], vec![1.0]],
            &[vec![1.0, 2.0], vec![1.0]],
            pearson,
            Grouping::System,
        ),
        "correlate: `metric[1]` has 1 entries, but `metric[0]` has 2",
    );
}
