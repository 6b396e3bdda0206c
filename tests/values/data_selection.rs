//! What is kept of a dataset, how datasets mix, and how rankings become pairs and one ranking.

use candle_align::data::lion::{Discrimination, LionConfig, Review, balanced, discriminate};
use candle_align::data::mixing::MixingConfig;
use candle_align::data::rankings::{PairsOf, merge_ballots, pairs_of_ranking};
use candle_align::data::selection::{
    AlpaGasusConfig, Indicators, InstructMiningConfig, PlateauConfig, instruction_following_score,
};
use candle_align::data::self_instruct::filter::{
    FilterConfig, Finish, InstructionFilter, Refusal, split_generation,
};
use candle_align::data::self_instruct::instances::{
    Instance, classification_instances, clean, generation_instances,
};
use candle_align::data::self_instruct::pool::{InstructionPool, Nearest, Offer, PoolConfig};
use rand::{SeedableRng, rngs::StdRng};

#[test]
fn the_score_is_twice_the_common_subsequence_over_both_lengths() {
    let mut pool = InstructionPool::new(&PoolConfig { threshold: 0.5 }).unwrap();
    assert_eq!(pool.nearest("a b"), None);
    assert_eq!(pool.insert("a b c d"), 0);
    assert_eq!(pool.insert("d c b a"), 1);
    // 3 of 4 and 5 with the first, 2 with the second
    let nearest = pool.nearest("a x b c y").unwrap();
    assert_eq!(nearest.index, 0);
    assert!((nearest.score - 2.0 * 3.0 / (4.0 + 5.0)).abs() < 1e-15);
    assert_eq!(pool.offer("a x b c y"), Offer::Similar(nearest));
    // 2 of 4 and 4: exactly the threshold, which is kept
    assert_eq!(pool.offer("a b x y"), Offer::Kept(2));
    // of equally similar ones the first
    let tie = pool.nearest("b").unwrap();
    assert_eq!(
        tie,
        Nearest {
            index: 0,
            score: 2.0 / 5.0
        }
    );
    assert_eq!(pool.texts(), ["a b c d", "d c b a", "a b x y"]);
}

#[test]
fn a_refusal_names_the_first_rule_that_is_broken() {
    let check = |text: &str| {
        let filter = InstructionFilter::new(&FilterConfig::default()).unwrap();
        filter.check(text).unwrap_err()
    };
    assert_eq!(check(" \n"), Refusal::Empty);
    assert_eq!(check("draw me this"), Refusal::TooShort(3));
    assert_eq!(check(&"draw ".repeat(151)), Refusal::TooLong(151));
    assert_eq!(
        check("go to the Images"),
        Refusal::Banned("Go to".to_string())
    );
    let start = Refusal::BannedStart("Write a program".to_string());
    assert_eq!(check("write a PROGRAM that adds"), start);
    assert_eq!(check("(write a poem now)"), Refusal::Punctuation('('));
    assert_eq!(check("à la carte is what?"), Refusal::NotAscii('À'));

    let alpaca = InstructionFilter::new(&FilterConfig::alpaca()).unwrap();
    let refused = alpaca.check("Describe the music you like");
    assert_eq!(refused, Err(Refusal::Banned("music".to_string())));
    let own = FilterConfig {
        min_words: 1,
        max_words: 2,
        banned: vec!["c++".to_string()],
        banned_starts: vec![],
    };
    let own = InstructionFilter::new(&own).unwrap();
    assert_eq!(own.check("draw IT").unwrap(), "Draw it");
    assert_eq!(own.check("a b c"), Err(Refusal::TooLong(3)));
    assert!(split_generation("1\n2. 3", Finish::Length).is_empty());
}

#[test]
fn instances_are_refused_by_each_rule_alone() {
    let instance = |input: &str, output: &str| Instance {
        input: input.to_string(),
        output: output.to_string(),
    };
    let good = instance("x", "y");
    for bad in [
        instance("z", "z"),
        instance("z", ""),
        instance("z:", "w"),
        instance("z", "w: "),
        good.clone(),
    ] {
        assert_eq!(clean(vec![good.clone(), bad]), std::slice::from_ref(&good));
    }
    assert!(clean(vec![good.clone(), instance("x", "z")]).is_empty());
    let two = vec![instance("", "y"), instance("", "z")];
    assert_eq!(clean(two.clone()), two);
    let text = "Example 1\nInput: x\nOutput: y\nExample 2\nInput: 1\nOutput: 2";
    assert_eq!(
        generation_instances(text, Finish::Length),
        std::slice::from_ref(&good)
    );
    let text = "Class label: y\nx\nClass label: 2\n1";
    assert_eq!(
        classification_instances(text, Finish::Stop),
        [good, instance("1", "2")]
    );
}

#[test]
fn an_instruction_is_hard_from_the_threshold_on() {
    let review = |teacher, student| Review {
        teacher_first: (teacher, student),
        student_first: (teacher, student),
    };
    let reviews = [
        review(8.0, 7.0),
        review(8.0, 7.1),
        review(9.0, 7.0),
        review(5.0, 9.0),
    ];
    let found = discriminate(&reviews, &LionConfig::default()).unwrap();
    let want = Discrimination {
        hard: vec![2, 0],
        easy: vec![1, 3],
    };
    assert_eq!(found, want);
    let mean = Review {
        teacher_first: (9.0, 4.0),
        student_first: (5.0, 7.0),
    };
    assert_eq!(mean.gap(), (9.0 + 5.0) / 2.0 - (4.0 + 7.0) / 2.0);
    let drawn = balanced(&found, 101, &mut StdRng::seed_from_u64(1)).unwrap();
    assert!(drawn[..51].iter().all(|i| want.hard.contains(i)));
    assert!(drawn[51..].iter().all(|i| want.easy.contains(i)));
    assert_eq!(drawn.len(), 101);
    assert!([2, 0, 1, 3].iter().all(|i| drawn.contains(i)));
}

#[test]
fn shares_of_a_mixture_are_those_of_the_formula() {
    let sizes = [100, 400, 10_000];
    let rates = |maximum, temperature| {
        let config = MixingConfig {
            maximum,
            temperature,
        };
        config.rates(&sizes).unwrap()
    };
    let near = |got: Vec<f64>, want: [f64; 3]| {
        let total: f64 = want.iter().sum();
        for (got, want) in got.iter().zip(want) {
            assert!((got - want / total).abs() < 1e-14, "{got} {want}");
        }
    };
    near(rates(None, 1.0), [100.0, 400.0, 10_000.0]);
    near(rates(Some(1_000), 1.0), [100.0, 400.0, 1_000.0]);
    near(rates(None, 2.0), [10.0, 20.0, 100.0]);
    near(rates(Some(900), 2.0), [10.0, 20.0, 30.0]);
    near(rates(Some(1), 1.0), [1.0, 1.0, 1.0]);
    assert_eq!(MixingConfig::flan().maximum, Some(3_000));
    let counts = MixingConfig::default().counts(&[1, 1, 1], 5).unwrap();
    assert_eq!(counts, [2, 2, 1]);
}

#[test]
fn grades_indicators_and_verdicts_select_as_written() {
    let kept = AlpaGasusConfig::default().keep(&[4.4, 4.5, -1.0, 5.0]);
    assert_eq!(kept.unwrap(), [1, 3]);
    let rule = InstructMiningConfig::default();
    let example = |reward, length, neighbor| Indicators {
        reward,
        length,
        neighbor,
    };
    let examples = [
        example(0.0, 0.0, 0.0),
        example(2.0, 0.0, 0.0),
        example(0.0, 1000.0, 0.0),
        example(0.0, 0.0, 1.0),
    ];
    let want = [
        1.0694,
        1.0694 - 2.0 * 0.1498,
        1.0694 + 8.257e-5 * 1000.0,
        1.0694 - 0.9350,
    ];
    for (example, want) in examples.iter().zip(want) {
        assert!((rule.log_loss(example).unwrap() - want).abs() < 1e-15);
    }
    assert_eq!(rule.best(&examples, 3).unwrap(), [3, 1, 0]);
    let score = instruction_following_score(&[true, false, false, true, true]);
    assert_eq!(score.unwrap(), 3.0 / 5.0);
}

#[test]
fn a_plateau_is_some_evaluations_in_a_row_without_progress() {
    let config = |patience, tolerance| PlateauConfig {
        patience,
        tolerance,
    };
    let reached = |c: &PlateauConfig, scores: &[f64]| c.reached(scores).unwrap();
    let two = config(2, 0.25);
    assert!(!reached(&two, &[]));
    assert!(!reached(&two, &[0.5, 0.5]));
    assert!(reached(&two, &[0.5, 0.5, 0.5]));
    // exactly the tolerance is no progress; small steps add up
    assert!(reached(&two, &[0.5, 0.75, 0.75]));
    assert!(!reached(&two, &[0.25, 0.5, 0.75]));
    // progress after a plateau
    assert!(!reached(&two, &[0.0, 0.0, 0.0, 1.0]));
    assert!(!PlateauConfig::default().reached(&[0.9, 0.9, 0.9]).unwrap());
    assert!(
        PlateauConfig::default()
            .reached(&[0.9, 0.9, 0.9, 0.91])
            .unwrap()
    );
}

#[test]
fn a_ranking_gives_its_pairs_without_ties() {
    let all = |ranks: &[usize]| pairs_of_ranking(ranks, PairsOf::All).unwrap();
    let best = |ranks: &[usize]| pairs_of_ranking(ranks, PairsOf::BestAgainstRest).unwrap();
    assert_eq!(all(&[0, 1, 2]), [(0, 1), (0, 2), (1, 2)]);
    assert_eq!(best(&[0, 1, 2]), [(0, 1), (0, 2)]);
    assert_eq!(all(&[1, 1]), []);
    assert_eq!(best(&[3, 1, 2, 1]), [(1, 0), (1, 2), (3, 0), (3, 2)]);
    assert_eq!(all(&[3, 1, 2, 1]).len(), 6 - 1);
}

#[test]
fn the_largest_majorities_are_locked_first() {
    // a > b by 5 of 9, b > c by 3, c > a by 1: c > a is left out
    let ballots = [vec!["abc"; 4], vec!["bca"; 2], vec!["cab"; 3]].concat();
    let letters: Vec<Vec<char>> = ballots.iter().map(|b| b.chars().collect()).collect();
    assert_eq!(merge_ballots(&letters).unwrap(), ['a', 'b', 'c']);
    // the same with the names turned
    let turn = |c: &char| match c {
        'a' => 'c',
        'b' => 'a',
        _ => 'b',
    };
    let turned: Vec<Vec<char>> = letters
        .iter()
        .map(|b| b.iter().map(turn).collect())
        .collect();
    assert_eq!(merge_ballots(&turned).unwrap(), ['c', 'a', 'b']);
    // a tie is ordered by name, an answer that one ballot lacks is left out
    assert_eq!(merge_ballots(&[vec![2, 1], vec![1, 2, 3]]).unwrap(), [1, 2]);
    // by what is stronger first: 2 > 3 is sure, 1 and 3 tie, 1 and 2 tie
    assert_eq!(merge_ballots(&[[2, 3, 1], [1, 2, 3]]).unwrap(), [1, 2, 3]);
}
