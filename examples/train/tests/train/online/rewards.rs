//! Rewards by rule and by reward model, and their sums.

use super::super::whole_runs::golden;
use super::{refused, tiny};
use crate::objectives::golden as checkpoint;
use candle_align::decoder::{Decoder, LanguageModel, Load, Mode};
use candle_align::ops::Segments;
use candle_align::peft::Strictness;
use candle_core::DType;
use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use std::fs;
use train::Arguments;
use train::arguments::Asked;
use train::checkpoint::online::prompts::{Prompt, Voice};
use train::checkpoint::online::rewards::model::RewardModel;
use train::checkpoint::online::rewards::rules::Rule;
use train::checkpoint::online::rewards::{Reward, Rewards, Scored};
use train::checkpoint::online::rollout::Answer;
use train::checkpoint::rows::asked::Ending;
use train::checkpoint::settings::Learned;

fn rule(reward: &str, text: &str, reference: Option<&str>) -> f64 {
    let prompt = Prompt {
        reference: reference.map(str::to_string),
        ..Prompt::default()
    };
    let answer = Answer {
        text: text.to_string(),
        ids: vec![7, 8, 9, 2],
        ended: true,
        ..Answer::default()
    };
    let rule = Rule::new(&Reward::parse(reward).unwrap()).unwrap();
    rule.score(&prompt, &answer).unwrap()
}

#[test]
fn rules_score_answers() {
    let right = Some("He has 3 + 4 = 7 apples.\n#### 1,007");
    for (text, want) in [
        ("So it is\n#### 1007", 1.0),
        ("#### $1,007.00 \nThat is all.", 1.0),
        ("#### 7 #### 1007", 1.0),
        ("#### 1007 #### 7", 0.0),
        ("1007", 0.0),
        ("####", 0.0),
        // the answer is on the line of its mark
        ("####\n1007", 0.0),
        ("", 0.0),
    ] {
        assert_eq!(rule("final_answer", text, right), want, "{text}");
    }
    // a reference without a mark is the answer itself
    assert_eq!(rule("final_answer", "#### Paris", Some(" Paris ")), 1.0);
    assert_eq!(rule("final_answer", "#### paris", Some("Paris")), 0.0);

    assert_eq!(rule(r"regex=\.$", "Yes.", None), 1.0);
    assert_eq!(rule(r"regex=\.$", "Yes. No", None), 0.0);
    assert_eq!(rule(r"regex=(\w)\1", "book", None), 1.0);
    assert_eq!(rule("contains=a=b", "if a=b then", None), 1.0);
    assert_eq!(rule("contains=x", "if a=b then", None), 0.0);

    // three tokens and an end
    assert_eq!(rule("length=3", "", None), 1.0);
    assert_eq!(rule("length=4", "", None), 0.75);
    assert_eq!(rule("length=1", "", None), -1.0);
    let words = r#"{"length": {"target": 4, "unit": "words"}}"#;
    assert_eq!(rule(words, " one  two three ", None), 0.75);

    // four tokens, the end among them: ((L − c) − 4) / c
    for (limit, buffer, want) in [(10, 6, 0.0), (6, 4, -0.5), (4, 4, -1.0), (2, 1, -1.0)] {
        let overlong = json!({"overlong": {"limit": limit, "buffer": buffer}});
        assert_eq!(rule(&overlong.to_string(), "", None), want, "{overlong}");
    }
}

#[test]
fn a_reward_has_its_name_on_the_command_line() {
    let folder = golden("model");
    let asked = |rewards: &[&str]| {
        let mut all = vec![
            "train",
            "--model",
            folder.to_str().unwrap(),
            "--objective",
            "grpo",
        ];
        all.extend(rewards.iter().flat_map(|reward| ["--reward", reward]));
        match Arguments::parse_from(all).asked() {
            Ok(Asked::Checkpoint { settings, .. }) => Ok(settings.online.rewards),
            Ok(_) => panic!("it trains no checkpoint"),
            Err(error) => Err(error.to_string()),
        }
    };
    let all = asked(&[
        "final_answer",
        r"regex=\d",
        r#"{"length": {"target": 3, "unit": "words"}}"#,
        "command=python3 score.py --fast",
        "reward_model=some/folder",
    ]);
    let want = json!([
        "final_answer",
        {"regex": {"pattern": r"\d"}},
        {"length": {"target": 3, "unit": "words"}},
        {"command": {"program": "python3", "arguments": ["score.py", "--fast"], "seconds": 60.0}},
        {"reward_model": {"folder": "some/folder"}},
    ]);
    assert_eq!(serde_json::to_value(all.unwrap()).unwrap(), want);
    for (reward, part) in [
        ("exactness", "unknown variant `exactness`"),
        ("exactness=3", "there is no such reward with a setting"),
        ("length=long", "must be a number of tokens"),
        (r#"{"length": {"goal": 3}}"#, "unknown field `goal`"),
    ] {
        let error = asked(&[reward]).unwrap_err();
        assert!(error.contains(part), "{reward}: {error}");
    }
}

#[test]
fn rewards_add_up_by_their_weights() {
    let parse = |text: &str| Reward::parse(text).unwrap();
    let rewards = [parse("contains=a"), parse("contains=b"), parse("length=2")];
    let open = |_: &RewardModel| panic!("there is none");
    let rewards = Rewards::new(&rewards, vec![2.0, -0.5, 1.0], open).unwrap();
    assert_eq!(rewards.names(), ["contains", "contains#2", "length"]);
    let answer = Answer {
        text: "ab".to_string(),
        ids: vec![5, 6],
        ..Answer::default()
    };
    let found = rewards.score(&[Prompt::default()], &[answer]).unwrap();
    let want = Scored {
        each: vec![Some(1.0), Some(1.0), Some(1.0)],
        sum: Some(2.5),
    };
    assert_eq!(found, [want]);
}

#[cfg(unix)]
#[test]
fn an_answer_that_nobody_scores_is_not_zero() {
    let command = |script: &str| json!({"command": {"program": "sh", "arguments": ["-c", script], "seconds": 60}});
    let of = |value| serde_json::from_value::<Reward>(value).unwrap();
    let rewards = [
        of(command("cat > /dev/null; printf 'null\\nnull\\n'")),
        of(command("cat > /dev/null; printf 'null\\n3\\n'")),
    ];
    let open = |_: &RewardModel| panic!("there is none");
    let rewards = Rewards::new(&rewards, vec![1.0, 2.0], open).unwrap();
    let answers = [Answer::default(), Answer::default()];
    let found = rewards.score(&[Prompt::default()], &answers).unwrap();
    assert_eq!(found[0].sum, None);
    assert_eq!(found[1].sum, Some(6.0));
}

/// The score of one text.
fn score(model: &Decoder, ids: &[u32]) -> f64 {
    let (segments, tokens) = Segments::from_tokens(&[ids]).unwrap();
    let hidden = model.forward(&tokens, &segments, Mode::Evaluation).unwrap();
    let scores = model.scores(&hidden, &tokens, &segments).unwrap();
    let scores = scores.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
    scores.to_vec1::<f64>().unwrap()[0]
}

#[test]
fn a_reward_model_scores_the_whole_ended_text() {
    let voice = Voice {
        ending: Ending {
            end: 2,
            tail: vec![9],
        },
        ends: vec![2],
    };
    let prompts = [Prompt {
        ids: vec![5, 6],
        ..Prompt::default()
    }];
    let answer = |ids: &[u32], ended| Answer {
        ids: ids.to_vec(),
        ended,
        ..Answer::default()
    };
    let answers = [answer(&[7, 2], true), answer(&[7, 8, 10], false)];
    let texts: [&[u32]; 2] = [&[5, 6, 7, 2, 9], &[5, 6, 7, 8, 10, 2, 9]];
    let load = Load::default();
    let open = |folder: &str, most| {
        let model = RewardModel {
            folder: golden(folder),
        };
        let scorer = model.open(&golden("model"), &load, &voice, most).unwrap();
        scorer.score(&prompts, &answers).unwrap()
    };
    let near = |found: &[f64], want: &[f64]| {
        for (found, want) in found.iter().zip(want) {
            assert!((found - want).abs() < 1e-5, "{found} {want}");
        }
        assert!((want[0] - want[1]).abs() > 1e-3, "{want:?}");
    };
    let whole = Decoder::load(golden("reward"), &load).unwrap();
    let want = texts.map(|text| score(&whole, text));
    for most in [None, Some(1)] {
        near(&open("reward", most), &want);
    }
    // an adapter with a head, on the same base
    let base = Decoder::load(golden("model"), &load).unwrap();
    let mut adapted = base
        .into_classifier(1, &mut StdRng::seed_from_u64(1))
        .unwrap();
    adapted
        .load_adapter("reward", golden("reward_adapter"), Strictness::Strict)
        .unwrap();
    let want = texts.map(|text| score(&adapted, text));
    near(&open("reward_adapter", None), &want);
}

#[test]
fn a_folder_without_a_head_is_no_reward_model() {
    let dir = tempfile::tempdir().unwrap();
    let of = |folder: &std::path::Path| {
        let set = format!(
            "online.rewards={}",
            json!([{"reward_model": {"folder": folder}}])
        );
        refused(&tiny(Learned::Grpo, dir.path(), &[&set]))
    };
    for folder in ["model", "adapter"] {
        let error = of(&golden(folder));
        assert!(error.contains("has no reward head"), "{folder}: {error}");
    }
    // other words
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden("reward").join(file), other.join(file)).unwrap();
    }
    let error = of(&other);
    assert!(error.contains("byte for byte"), "{error}");
    // an adapter on another model
    let other = checkpoint("../../tests/golden/checkpoints/phi3");
    let model = RewardModel {
        folder: golden("reward_adapter"),
    };
    let opened = model.open(&other, &Load::default(), &Voice::default(), None);
    let error = opened.err().unwrap().to_string();
    assert!(
        error.contains("an adapter that scores answers is put on the trained model"),
        "{error}"
    );
}

#[test]
fn a_reward_model_has_room_for_the_ended_text() {
    let voice = Voice {
        ending: Ending {
            end: 2,
            tail: vec![9],
        },
        ends: vec![2],
    };
    let prompts = [Prompt {
        ids: vec![5, 6],
        line: 7,
        ..Prompt::default()
    }];
    let model = RewardModel {
        folder: golden("reward"),
    };
    let scorer = model.open(&golden("model"), &Load::default(), &voice, None);
    let scorer = scorer.unwrap();
    let file = std::path::Path::new("rows.jsonl");
    // 2 + 60 + the end + the tail
    scorer.check(file, &prompts, 60).unwrap();
    let answer = Answer {
        ids: vec![8; 60],
        ..Answer::default()
    };
    scorer.score(&prompts, &[answer]).unwrap();
    let error = scorer.check(file, &prompts, 61).unwrap_err().to_string();
    assert!(
        error.contains("rows.jsonl:7: has a prompt of 2 tokens; with `online.max_completion_length` 61 and 2 at the end")
            && error.contains("no room in the reward model, which was made for 64"),
        "{error}"
    );
    // a run asks before it draws
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("rows.jsonl");
    fs::write(&data, "{\"prompt\": \"t5 t6\"}\n".repeat(2)).unwrap();
    let set = format!("online.rewards={}", json!([{"reward_model": model}]));
    let sets = ["held_out=0", "online.max_completion_length=62", &set];
    let mut settings = tiny(Learned::Grpo, dir.path(), &sets);
    settings.data = data;
    let error = refused(&settings);
    assert!(error.contains("no room in the reward model"), "{error}");
}
