//! What the pages of `data` claim: of masks, mixtures, pairs and ballots.

use crate::common::words::bytes;
use candle_align::data::chat::{ChatFormat, CoveredTurns, Message, Role};
use candle_align::data::evol_instruct::{Elimination, Evolution, EvolveConfig, elimination};
use candle_align::data::lion::{LionConfig, Review, discriminate};
use candle_align::data::mixing::MixingConfig;
use candle_align::data::multilingual::{Demonstration, post_answer, post_translate};
use candle_align::data::rankings::{PairsOf, merge_ballots, pairs_of_ranking};
use candle_align::data::selection::{
    AlpaGasusConfig, Indicators, InstructMiningConfig, instruction_following_score,
};
use candle_align::data::self_chat::{ConverseConfig, converse, read_transcript};
use candle_align::data::self_instruct::filter::{FilterConfig, InstructionFilter};
use candle_align::data::self_instruct::instances::{Instance, clean};
use candle_align::data::{TaskTemplate, Template, write_every};
use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

fn conversation(contents: &[String]) -> Vec<Message> {
    let message = |(i, content): (usize, &String)| match i % 2 {
        0 => Message::user(content.clone()),
        _ => Message::assistant(content.clone()),
    };
    contents.iter().enumerate().map(message).collect()
}

proptest! {
    #[test]
    fn the_mask_covers_exactly_the_assistants_turns(
        contents in prop::collection::vec("[a-z ]{0,6}", 2..9),
    ) {
        let (format, messages) = (ChatFormat::vicuna(), conversation(&contents));
        let rows = |covered| format.sequence(&bytes, &messages, &covered).unwrap();
        let every = rows(CoveredTurns::Every);
        let mut want = Vec::new();
        for Message { role, content } in &messages {
            let (before, after, covered) = match role {
                Role::Assistant => ("ASSISTANT: ", "</s>", 1),
                _ => ("USER: ", " ", 0),
            };
            want.extend(vec![0; before.len()]);
            want.extend(vec![covered; content.len() + after.len()]);
        }
        prop_assert_eq!(every.mask(), &want[..]);
        // turn by turn it is the same, and no token is covered twice
        let answers = messages.len() / 2;
        let mut sum = vec![0; every.len()];
        for turn in 0..answers {
            let one = rows(CoveredTurns::Only(vec![turn]));
            prop_assert_eq!(one.tokens(), every.tokens());
            sum.iter_mut().zip(one.mask()).for_each(|(s, m)| *s += m);
            // a row of its own, which ends with the answer
            let cut = &messages[..2 * turn + 2];
            let last = format.sequence(&bytes, cut, &CoveredTurns::Last).unwrap();
            prop_assert_eq!(last.mask(), &one.mask()[..last.len()]);
            prop_assert_eq!(last.tokens(), &one.tokens()[..last.len()]);
        }
        prop_assert_eq!(&sum[..], every.mask());
    }

    #[test]
    fn a_conversation_written_as_a_transcript_comes_back(
        contents in prop::collection::vec("[a-z]{1,6}", 1..9),
    ) {
        let messages = conversation(&contents);
        let line = |m: &Message| match m.role {
            Role::Assistant => format!("[AI] {}\n", m.content),
            _ => format!("[Human] {}\n", m.content),
        };
        let text: String = messages.iter().map(line).collect();
        prop_assert_eq!(read_transcript(&text, "[Human]", "[AI]").unwrap(), messages.clone());
        // one model on both sides says the same turn by turn
        let said = |told: &[Message]| messages.get(told.len()).map(|m| m.content.clone());
        let config = ConverseConfig { max_rounds: 4, stop: None };
        let talk = converse(&[], |m| Ok(said(m)), |m| Ok(said(m).unwrap_or("?".into())), &config);
        let talk = talk.unwrap().messages;
        let rounds = messages.len() / 2 * 2;
        prop_assert_eq!(&talk[..rounds], &messages[..rounds]);
    }

    #[test]
    fn shares_sum_to_one_and_counts_to_their_total(
        sizes in prop::collection::vec(1usize..1_000_000, 1..8),
        maximum in prop::option::of(1usize..10_000),
        temperature in 0.3f64..50.0,
        total in 0usize..1_000,
        seed in any::<u64>(),
    ) {
        let config = MixingConfig { maximum, temperature };
        let rates = config.rates(&sizes).unwrap();
        prop_assert!((rates.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let counts = config.counts(&sizes, total).unwrap();
        prop_assert_eq!(counts.iter().sum::<usize>(), total);
        let limit = maximum.unwrap_or(usize::MAX);
        for (n, size) in sizes.iter().enumerate() {
            prop_assert!((counts[n] as f64 - rates[n] * total as f64).abs() < 1.0 + 1e-9);
            for (m, other) in sizes.iter().enumerate() {
                let (a, b) = (*size.min(&limit) as f64, *other.min(&limit) as f64);
                // r_n/r_m = (e_n/e_m)^{1/T}
                let ratio = (a / b).powf(1.0 / temperature);
                prop_assert!((rates[n] - ratio * rates[m]).abs() < 1e-9 * (1.0 + ratio));
            }
        }
        let sizes: Vec<usize> = sizes.iter().map(|size| size % 1_000 + 1).collect();
        let draw = |seed| config.draw(&sizes, total, &mut StdRng::seed_from_u64(seed)).unwrap();
        let drawn = draw(seed);
        prop_assert_eq!(&drawn, &draw(seed));
        prop_assert_eq!(drawn.len(), total);
        prop_assert!(drawn.iter().all(|&(n, i)| i < sizes[n]));
    }

    #[test]
    fn a_dataset_repeats_an_example_only_after_all_others(
        size in 1usize..20,
        total in 0usize..100,
        seed in any::<u64>(),
    ) {
        let rng = &mut StdRng::seed_from_u64(seed);
        let drawn = MixingConfig::default().draw(&[size], total, rng).unwrap();
        for pass in drawn.chunks(size) {
            let mut examples: Vec<usize> = pass.iter().map(|d| d.1).collect();
            examples.sort_unstable();
            examples.dedup();
            prop_assert_eq!(examples.len(), pass.len());
        }
    }

    #[test]
    fn pairs_of_a_ranking_are_its_order(ranks in prop::collection::vec(0usize..5, 2..8)) {
        let all = pairs_of_ranking(&ranks, PairsOf::All).unwrap();
        let n = ranks.len();
        let ties = (0..n).flat_map(|i| (0..i).map(move |j| (i, j)));
        let ties = ties.filter(|&(i, j)| ranks[i] == ranks[j]).count();
        prop_assert_eq!(all.len(), n * (n - 1) / 2 - ties);
        prop_assert!(all.iter().all(|&(i, j)| ranks[i] < ranks[j]));
        let best = pairs_of_ranking(&ranks, PairsOf::BestAgainstRest).unwrap();
        prop_assert!(best.iter().all(|pair| all.contains(pair)));
        let lowest = *ranks.iter().min().unwrap();
        prop_assert!(best.iter().all(|&(i, _)| ranks[i] == lowest));
        // any increasing change of the ranks
        let other: Vec<usize> = ranks.iter().map(|r| r * r + 3).collect();
        prop_assert_eq!(pairs_of_ranking(&other, PairsOf::All).unwrap(), all);
    }

    #[test]
    fn merged_ballots_obey_condorcet_whatever_their_order(
        (names, ballots) in (2usize..6).prop_flat_map(|n| {
            let names: Vec<usize> = (0..n).collect();
            let ballot = Just(names.clone()).prop_shuffle();
            (Just(names), prop::collection::vec(ballot, 1..8))
        }),
        turn in any::<prop::sample::Index>(),
    ) {
        let merged = merge_ballots(&ballots).unwrap();
        let mut sorted = merged.clone();
        sorted.sort_unstable();
        prop_assert_eq!(&sorted, &names);
        let place = |ballot: &[usize], a| ballot.iter().position(|x| *x == a);
        let margin = |a: usize, b: usize| -> i64 {
            let vote = |ballot: &Vec<usize>| if place(ballot, a) < place(ballot, b) { 1 } else { -1 };
            ballots.iter().map(vote).sum()
        };
        let others = |a: usize| names.iter().copied().filter(move |b| *b != a);
        for &a in &names {
            if others(a).all(|b| margin(a, b) > 0) {
                prop_assert_eq!(merged[0], a);
            }
            if others(a).all(|b| margin(b, a) > 0) {
                prop_assert_eq!(merged[names.len() - 1], a);
            }
        }
        // neighbors are never against their own majority
        for pair in merged.windows(2) {
            prop_assert!(margin(pair[0], pair[1]) >= 0);
        }
        let mut turned = ballots.clone();
        turned.rotate_left(turn.index(ballots.len()));
        turned.reverse();
        prop_assert_eq!(merge_ballots(&turned).unwrap(), merged);
        let same = vec![ballots[0].clone(); 3];
        prop_assert_eq!(&merge_ballots(&same).unwrap(), &ballots[0]);
    }

    #[test]
    fn a_second_pass_of_a_filter_changes_nothing(
        text in "[a-zA-Zäß .:-]{0,40}",
        pairs in prop::collection::vec(("[ab]{0,1}", "[ab:]{0,1}"), 0..6),
    ) {
        let filter = InstructionFilter::new(&FilterConfig::default()).unwrap();
        if let Ok(accepted) = filter.check(&text) {
            prop_assert_eq!(filter.check(&accepted), Ok(accepted));
        }
        let instance = |(input, output)| Instance { input, output };
        let once = clean(pairs.into_iter().map(instance).collect());
        prop_assert_eq!(clean(once.clone()), once);
    }

    #[test]
    fn a_favor_for_the_first_answer_changes_no_gap(
        scores in prop::collection::vec((1.0f64..10.0, 1.0f64..10.0), 1..20),
        favor in 0.0f64..3.0,
    ) {
        let review = |favor: f64| move |&(t, s): &(f64, f64)| Review {
            teacher_first: (t + favor, s),
            student_first: (t, s + favor),
        };
        let fair: Vec<Review> = scores.iter().map(review(0.0)).collect();
        let biased: Vec<Review> = scores.iter().map(review(favor)).collect();
        for (fair, biased) in fair.iter().zip(&biased) {
            prop_assert!((fair.gap() - biased.gap()).abs() < 1e-9);
        }
        let found = discriminate(&fair, &LionConfig::default()).unwrap();
        let mut all = [found.hard, found.easy].concat();
        let gaps: Vec<f64> = all.iter().map(|&i| fair[i].gap()).collect();
        prop_assert!(gaps.is_sorted_by(|a, b| a >= b));
        all.sort_unstable();
        prop_assert_eq!(all, (0..scores.len()).collect::<Vec<_>>());
    }

    #[test]
    fn a_higher_threshold_keeps_a_part_and_a_linear_rule_has_the_mean_of_its_values(
        grades in prop::collection::vec(0.0f64..5.0, 1..20),
        low in 0.0f64..5.0,
        more in 0.0f64..2.0,
    ) {
        let keep = |threshold| AlpaGasusConfig { threshold }.keep(&grades).unwrap();
        let (few, many) = (keep(low + more), keep(low));
        prop_assert!(few.iter().all(|i| many.contains(i)));

        let rule = InstructMiningConfig::default();
        let of = |g: f64| Indicators { reward: g, length: 100.0 * g, neighbor: g * g };
        let mean = |f: &dyn Fn(f64) -> f64| grades.iter().map(|g| f(*g)).sum::<f64>() / grades.len() as f64;
        let values = mean(&|g| rule.log_loss(&of(g)).unwrap());
        let set = Indicators {
            reward: mean(&|g| g),
            length: mean(&|g| 100.0 * g),
            neighbor: mean(&|g| g * g),
        };
        prop_assert!((rule.log_loss(&set).unwrap() - values).abs() < 1e-12);

        let like: Vec<bool> = grades.iter().map(|g| *g > 2.5).collect();
        let unlike: Vec<bool> = like.iter().map(|l| !l).collect();
        let score = |verdicts: &[bool]| instruction_following_score(verdicts).unwrap();
        prop_assert!((score(&like) + score(&unlike) - 1.0).abs() < 1e-12);
    }
}

#[test]
fn the_prompts_in_depth_differ_in_their_method_alone() {
    let config = EvolveConfig::default();
    let methods = [
        (Evolution::AddConstraints, &config.add_constraints),
        (Evolution::Deepen, &config.deepen),
        (Evolution::Concretize, &config.concretize),
        (Evolution::IncreaseReasoning, &config.increase_reasoning),
        (Evolution::ComplicateInput, &config.complicate_input),
    ];
    let without = methods.map(|(operation, method)| {
        let prompt = config.prompt("x", operation).unwrap();
        assert_eq!(prompt.matches(method.as_str()).count(), 1);
        prompt.replace(method.as_str(), "")
    });
    assert!(without.iter().all(|prompt| *prompt == without[0]));
    // a model that repeats its prompt is found out, in depth and in breadth
    for operation in Evolution::PAPER {
        let repeated = config.prompt("x", operation).unwrap();
        let found = elimination("x", &repeated, "4", |_, _| Ok(true)).unwrap();
        assert_eq!(found, Some(Elimination::Leak));
    }
}

#[test]
fn with_the_identity_as_translation_both_ways_are_the_plain_pairs() {
    let same = |text: &str| Ok(text.to_string());
    let answer = |text: &str| Ok(format!("a({text})"));
    let plain = post_answer(&["x", "y"], same, answer).unwrap();
    let pair = |x: &str| Demonstration {
        instruction: x.to_string(),
        answer: format!("a({x})"),
    };
    assert_eq!(plain, [pair("x"), pair("y")]);
    assert_eq!(post_translate(&plain, same).unwrap(), plain);
}

#[test]
fn k_templates_make_k_examples_of_a_row() {
    let template = |prompt: &str| TaskTemplate {
        prompt: Template::new(prompt).unwrap(),
        completion: Template::new("{y}").unwrap(),
        verbalizers: vec![],
    };
    let templates = [template("a {x}"), template("b {x}"), template("{x}{x}")];
    let row = [("x", "1"), ("y", "2")];
    for k in 0..=3 {
        let written = write_every(&templates[..k], &row).unwrap();
        assert_eq!(written.len(), k);
        for (one, template) in written.iter().zip(&templates) {
            let (prompt, completion) = template.write(&row).unwrap();
            assert_eq!((&one.prompt, &one.completion), (&prompt, &completion));
        }
    }
}
