//! One step on given answers.

use super::super::whole_runs::golden;
use super::tiny;
use candle_align::decoder::{Decoder, Load};
use train::checkpoint::objective::Reference;
use train::checkpoint::online::fit::{Drawn, Learner, Ready, micro_batches};
use train::checkpoint::online::learned::Part;
use train::checkpoint::online::loss::Round;
use train::checkpoint::online::prompts::prepare;
use train::checkpoint::online::rewards::Rewards;
use train::checkpoint::online::rollout::{Answer, Sampler};
use train::checkpoint::settings::Learned;
use train::checkpoint::update::Update;
use train::world::single::Single;

#[test]
fn a_micro_batch_has_so_many_answers() {
    let all: Vec<usize> = (0..5).collect();
    let sizes = |width: usize, answers: usize| -> Vec<usize> {
        let units = vec![vec![0; width]; 5];
        let batches = micro_batches(&all, &units, answers);
        assert_eq!(batches.concat(), all);
        batches.iter().map(|batch| batch.len()).collect()
    };
    assert_eq!(sizes(1, 4), [4, 1]);
    // a pair is two answers
    assert_eq!(sizes(2, 4), [2, 2, 1]);
    assert_eq!(sizes(2, 1), [1; 5]);
    assert!(micro_batches(&[], &[], 4).is_empty());
}

/// The optimizer has the weights of another copy of the model, which no gradient reaches.
#[test]
fn the_first_gradient_is_checked_though_the_first_steps_taught_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let settings = tiny(Learned::Raft, dir.path(), &["held_out=0"]);
    let load = || {
        let trained = Load {
            trained: true,
            ..Load::default()
        };
        Decoder::load(golden("model"), &trained).unwrap()
    };
    let (decoder, other) = (load(), load());
    let prompts = prepare(&settings, &decoder, Default::default()).unwrap();
    let sampler = Sampler::new(&settings, &prompts.voice, &prompts.folder);
    let rewards = Rewards::new(&[], Vec::new(), |_| panic!("there is none")).unwrap();
    let step = |of: &Decoder, learned: &[usize]| {
        let mut learner = Learner {
            settings: &settings,
            prompts: &prompts.train,
            sampler: &sampler,
            rewards: &rewards,
            given: None,
            reference: Reference::AdapterOff,
            update: Update::new(of, &settings.fit).unwrap(),
            critic: None,
            world: &Single,
            checked: false,
        };
        let mut logged = Vec::new();
        for (step, units) in learned.iter().enumerate() {
            let mut ready = Ready {
                round: Round {
                    answers: vec![Answer {
                        ids: vec![7, 2],
                        ended: true,
                        old: vec![-1.0, -1.0],
                        ..Answer::default()
                    }],
                    parts: vec![Part::Chosen],
                    reference: None,
                    forking: None,
                },
                units: vec![vec![0]; *units],
                scored: Vec::new(),
                drawn: Drawn::default(),
                lesson: None,
            };
            let found = learner.step(&decoder, &mut ready, step, &mut Default::default());
            logged.push(found.map_err(|error| error.to_string()));
        }
        logged
    };
    let good = step(&decoder, &[0, 1]);
    assert_eq!(good[0].as_ref().unwrap().grad_norm, 0.0);
    assert!(good[1].as_ref().unwrap().grad_norm > 0.0);
    let bad = step(&other, &[0, 1]);
    assert!(bad[0].is_ok());
    let error = bad[1].as_ref().unwrap_err();
    assert!(error.contains("the first gradient"), "{error}");
}
