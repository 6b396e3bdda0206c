use super::reader::each;
use candle_align::data::lion::{LionConfig, Review, discriminate};
use candle_align::data::self_instruct::filter::{
    FilterConfig, Finish, InstructionFilter, split_generation,
};
use candle_align::data::self_instruct::instances::{
    Instance, classification_instances, generation_instances,
};
use candle_align::data::self_instruct::pool::{InstructionPool, Offer, PoolConfig};

/// JSON's numbers are read to about the last bit.
const ROUNDING: f64 = 1e-15;

#[test]
fn instructions_are_kept_scored_and_read_as_by_the_authors_code() {
    each("data_instructions", |case| {
        match case.name.as_str() {
            "rouge" => {
                let pairs: Vec<[String; 2]> = case.part("pairs");
                let scores: Vec<f64> = case.part("scores");
                for ([a, b], want) in pairs.iter().zip(scores) {
                    let mut pool = InstructionPool::new(&PoolConfig::default())?;
                    pool.insert(a);
                    let got = pool.nearest(b).unwrap().score;
                    assert!((got - want).abs() < ROUNDING, "{a} | {b}: {got} {want}");
                }
            }
            "pool" | "pool, at the threshold" => {
                let mut pool = InstructionPool::new(&PoolConfig::default())?;
                for seed in case.part::<Vec<String>>("seeds") {
                    pool.insert(&seed);
                }
                let offered: Vec<String> = case.part("offered");
                let taken: Vec<bool> = case.part("taken");
                let highest: Vec<Option<f64>> = case.part("highest");
                for ((text, want), highest) in offered.iter().zip(taken).zip(highest) {
                    let nearest = pool.nearest(text);
                    match (nearest, highest) {
                        (None, None) => (),
                        (Some(n), Some(h)) => assert!((n.score - h).abs() < ROUNDING, "{text}"),
                        other => panic!("{text}: {other:?}"),
                    }
                    // exact at the threshold, where the last bit decides
                    match pool.offer(text) {
                        Offer::Kept(_) => assert!(want, "{}: {text} is kept", case.name),
                        Offer::Similar(similar) => {
                            assert!(!want, "{}: {text} is left out", case.name);
                            assert_eq!(Some(similar), nearest, "{text}");
                        }
                    }
                }
            }
            "filter" => {
                let filter = InstructionFilter::new(&FilterConfig::default())?;
                let given: Vec<String> = case.part("given");
                let accepted: Vec<Option<String>> = case.part("accepted");
                for (text, want) in given.iter().zip(accepted) {
                    assert_eq!(filter.check(text).ok(), want, "{text:?}");
                }
            }
            "split" => {
                let given: Vec<String> = case.part("given");
                let parts: Vec<Vec<String>> = case.part("parts");
                for (text, want) in given.iter().zip(parts) {
                    assert_eq!(split_generation(text, Finish::Stop), want, "{text:?}");
                }
            }
            "lion" => {
                let reviews: Vec<[(f64, f64); 2]> = case.part("reviews");
                let review = |[teacher_first, student_first]: [(f64, f64); 2]| Review {
                    teacher_first,
                    student_first,
                };
                let reviews: Vec<Review> = reviews.into_iter().map(review).collect();
                let found = discriminate(&reviews, &LionConfig::default())?;
                assert_eq!(found.hard, case.part::<Vec<usize>>("hard"));
                assert_eq!(found.easy, case.part::<Vec<usize>>("easy"));
            }
            name => {
                let parse = match name.split(',').next() {
                    Some("generation") => generation_instances,
                    Some("classification") => classification_instances,
                    _ => panic!("no rule for {name}"),
                };
                let finish = match case.flag("cut") {
                    true => Finish::Length,
                    false => Finish::Stop,
                };
                let given: Vec<String> = case.part("given");
                let found: Vec<Vec<(String, String)>> = case.part("found");
                for (text, want) in given.iter().zip(found) {
                    let pair = |i: Instance| (i.input, i.output);
                    let mut got: Vec<_> = parse(text, finish).into_iter().map(pair).collect();
                    // the authors' order is that of a set
                    got.sort();
                    assert_eq!(got, want, "{name}: {text:?}");
                }
            }
        }
        Ok(())
    });
}
