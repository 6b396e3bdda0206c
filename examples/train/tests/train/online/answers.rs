//! Answers: each has random numbers of its own.

use super::super::whole_runs::golden;
use super::ppo::at_temperature;
use super::{copy, tiny};
use candle_align::decoder::{Decoder, Load, Mode};
use train::checkpoint::objective::Text;
use train::checkpoint::objective::text::log_probs;
use train::checkpoint::online::prompts::{Prompts, prepare};
use train::checkpoint::online::rollout::{Answer, Purpose, Sampler, of_tokens};
use train::checkpoint::settings::{Learned, Settings};

fn start(sets: &[&str]) -> (Settings, Decoder, Prompts) {
    let dir = std::env::temp_dir();
    let sets: Vec<&str> = ["held_out=0"].iter().chain(sets).copied().collect();
    let settings = tiny(Learned::Grpo, &dir, &sets);
    let decoder = Decoder::load(golden("model"), &Load::default()).unwrap();
    let prompts = prepare(&settings, &decoder, Default::default()).unwrap();
    (settings, decoder, prompts)
}

fn ids(answers: &[Answer]) -> Vec<(usize, Vec<u32>)> {
    let of = |answer: &Answer| (answer.prompt, answer.ids.clone());
    answers.iter().map(of).collect()
}

#[test]
fn neither_the_order_nor_the_batch_changes_an_answer() {
    let (settings, decoder, prompts) = start(&[]);
    let sampler = Sampler::new(&settings, &prompts.voice, &prompts.folder);
    let draw = |asked: &[usize], at_a_time: usize, round: usize| {
        let sampler = Sampler {
            at_a_time,
            ..sampler.clone()
        };
        let purpose = Purpose::Round(round);
        let drawn = sampler.draw(&decoder, &prompts.train, asked, 3, purpose);
        ids(&drawn.unwrap())
    };
    let all: Vec<usize> = (0..prompts.train.len()).collect();
    assert_eq!(all.len(), 12);
    let whole = draw(&all, usize::MAX, 0);
    for at_a_time in [1, 2, 7] {
        assert_eq!(draw(&all, at_a_time, 0), whole, "{at_a_time}");
    }
    // backwards, and some alone
    let mut back = draw(&[11, 5, 0], 4, 0);
    back.sort();
    let mut of: Vec<_> = whole
        .iter()
        .filter(|(prompt, _)| [0, 5, 11].contains(prompt))
        .cloned()
        .collect();
    of.sort();
    assert_eq!(back, of);
    // another round, another answer of the same prompt, another purpose, another seed: other numbers
    assert_ne!(draw(&all, usize::MAX, 1), whole);
    assert!(whole.chunks(3).any(|group| group[0] != group[1]));
    let held_out = sampler.draw(&decoder, &prompts.train, &all, 3, Purpose::HeldOut);
    assert_ne!(ids(&held_out.unwrap()), whole);
    let other = Sampler {
        seed: settings.seed + 1,
        ..sampler.clone()
    };
    let other = other.draw(&decoder, &prompts.train, &all, 3, Purpose::Round(0));
    assert_ne!(ids(&other.unwrap()), whole);
}

#[test]
fn an_answer_ends_at_any_token_that_ends_one() {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden("model"), folder.path());
    let path = folder.path().join("generation_config.json");
    std::fs::write(path, r#"{"eos_token_id": [2, 7, 99]}"#).unwrap();
    let set = format!("model={}", folder.path().display());
    let (settings, decoder, prompts) = start(&[&set]);
    let sampler = Sampler::new(&settings, &prompts.voice, &prompts.folder);
    // the model has no token 99
    assert_eq!(sampler.config.ends, [2, 7]);
    let all: Vec<usize> = (0..12).collect();
    let drawn = sampler.draw(&decoder, &prompts.train, &all, 8, Purpose::Round(0));
    let drawn = drawn.unwrap();
    for answer in &drawn {
        let ends = answer.ids.iter().position(|id| [2, 7].contains(id));
        assert_eq!(answer.ended, ends.is_some());
        assert!(ends.is_none_or(|end| end + 1 == answer.ids.len()));
    }
    assert!(drawn.iter().any(|answer| answer.ids.ends_with(&[7])));
}

#[test]
fn an_answer_keeps_the_log_probabilities_of_the_model_that_drew_it() {
    let (settings, decoder, prompts) = start(&["online.temperature=0.7", "online.top_k=9"]);
    let sampler = Sampler::new(&settings, &prompts.voice, &prompts.folder);
    let all: Vec<usize> = (0..12).collect();
    let drawn = sampler.draw(&decoder, &prompts.train, &all, 2, Purpose::Round(0));
    let drawn = drawn.unwrap();
    let compute = |texts: &[&Text]| {
        let of = log_probs(&decoder, texts, Mode::Evaluation)?;
        Ok(of.values().clone())
    };
    for most in [None, Some(9)] {
        let again = of_tokens(&compute, &prompts.train, &drawn, most).unwrap();
        for (answer, again) in drawn.iter().zip(again) {
            assert_eq!(answer.old.len(), answer.ids.len());
            for (old, again) in answer.old.iter().zip(again) {
                assert!((old - again).abs() < 1e-4, "{old} {again}");
            }
        }
    }
    for answer in &drawn {
        let end = answer.ids.last() == Some(&2);
        assert_eq!(answer.ended, end, "{answer:?}");
        assert!(
            !answer.ids[..answer.ids.len() - 1].contains(&2),
            "{answer:?}"
        );
        assert!(answer.ended || answer.ids.len() == 6, "{answer:?}");
        assert!(!answer.text.contains("</s>"), "{answer:?}");
    }
    assert!(drawn.iter().any(|one| one.ended) && drawn.iter().any(|one| !one.ended));
}

#[test]
fn an_answer_keeps_what_it_was_drawn_from_where_weights_need_it() {
    let mode = "online.importance_sampling_mode=token_mask";
    let (settings, decoder, prompts) = start(&["online.temperature=0.5", mode]);
    let sampler = Sampler::new(&settings, &prompts.voice, &prompts.folder);
    let drawn = sampler.draw(&decoder, &prompts.train, &[0, 1, 2], 2, Purpose::Round(0));
    for answer in drawn.unwrap() {
        let prompt = &prompts.train[answer.prompt].ids;
        let want = at_temperature(&decoder, prompt, &answer.ids, 0.5);
        let kept = answer.sampler.unwrap();
        assert_eq!(kept.len(), want.len());
        for ((kept, want), old) in kept.iter().zip(want).zip(&answer.old) {
            assert!((kept - want).abs() < 1e-4, "{kept} {want}");
            assert!((kept - old).abs() > 1e-4, "{kept} {old}");
        }
    }
    let (settings, ..) = start(&["online.temperature=0.5"]);
    let sampler = Sampler::new(&settings, &prompts.voice, &prompts.folder);
    let drawn = sampler.draw(&decoder, &prompts.train, &[0], 2, Purpose::Round(0));
    assert!(drawn.unwrap().iter().all(|answer| answer.sampler.is_none()));
}

#[test]
fn the_likeliest_answer_is_always_the_same() {
    let (settings, decoder, prompts) = start(&[]);
    let sampler = Sampler::new(&settings, &prompts.voice, &prompts.folder);
    let drawn = sampler
        .greedy()
        .draw(&decoder, &prompts.train, &[0, 1], 2, Purpose::HeldOut);
    let drawn = ids(&drawn.unwrap());
    assert_eq!(drawn[0], drawn[1]);
    assert_eq!(drawn[2], drawn[3]);
}
