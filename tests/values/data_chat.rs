//! Conversations: their tokens, their masks, and the loops that make them.

use crate::common::words::{bytes, learned, text};
use candle_align::data::chat::{Around, ChatFormat, CoveredTurns, Message};
use candle_align::data::multilingual::{
    Demonstration, interactive_translation, post_answer, post_translate,
};
use candle_align::data::self_chat::{
    ConverseConfig, Ending, SelfChatConfig, converse, flipped, read_transcript, self_chat,
};
use candle_align::{Error, Result};

fn format() -> ChatFormat {
    let around = |before: &str, after: &str| Around {
        before: before.to_string(),
        after: after.to_string(),
    };
    ChatFormat {
        system: around("<", ">"),
        user: around("u:", "."),
        assistant: around("a:", "$"),
    }
}

fn talk() -> Vec<Message> {
    vec![
        Message::system("s"),
        Message::user("x1"),
        Message::assistant("y1"),
        Message::user("x2"),
        Message::assistant(""),
        Message::user("x3"),
    ]
}

#[test]
fn the_mask_covers_the_assistants_words_and_ends_in_the_turns_that_are_named() {
    let mask = |covered: &CoveredTurns| {
        let sequence = format().sequence(&bytes, &talk(), covered).unwrap();
        assert_eq!(text(&sequence), "<s>u:x1.a:y1$u:x2.a:$u:x3.");
        learned(&sequence)
    };
    assert_eq!(mask(&CoveredTurns::Every), "__________y1$_______$_____");
    assert_eq!(mask(&CoveredTurns::Last), "____________________$_____");
    assert_eq!(
        mask(&CoveredTurns::Only(vec![0])),
        "__________y1$_____________"
    );
    assert_eq!(
        mask(&CoveredTurns::Only(vec![1, 0])),
        mask(&CoveredTurns::Every)
    );
}

#[test]
fn a_transcript_comes_back_turn_by_turn() {
    let turns = read_transcript("\n[H] a [b]\nc\n[A]  d\n[H] e", "[H]", "[A]").unwrap();
    let want = [
        Message::user("a [b]\nc"),
        Message::assistant("d"),
        Message::user("e"),
    ];
    assert_eq!(turns, want);
    // one mark may begin with the other
    let turns = read_transcript("Q a QQ b Q c", "Q", "QQ").unwrap();
    assert_eq!(turns.len(), 3);
    assert_eq!(turns[1], Message::assistant("b"));
}

#[test]
fn self_chat_asks_once_with_the_topic_and_the_marks() {
    let config = SelfChatConfig {
        human: "H>".to_string(),
        ai: "A>".to_string(),
        ..SelfChatConfig::default()
    };
    let mut prompts = Vec::new();
    let model = |prompt: &str| -> Result<String> {
        prompts.push(prompt.to_string());
        Ok("H> why?\nA> because".to_string())
    };
    let messages = self_chat("{rain}", &config, model).unwrap();
    assert_eq!(
        messages,
        [Message::user("why?"), Message::assistant("because")]
    );
    assert_eq!(prompts.len(), 1);
    assert!(
        prompts[0].contains("{rain}")
            && prompts[0].ends_with("H> Hello!\nA> Hi! How can I help you?\n")
    );
}

/// The user asks how many messages there are, `rounds` times.
fn asks(rounds: usize) -> impl FnMut(&[Message]) -> Result<Option<String>> {
    let mut left = rounds;
    move |told| {
        let more = left > 0;
        left = left.saturating_sub(1);
        Ok(more.then(|| format!("q{}", told.len())))
    }
}

#[test]
fn a_conversation_ends_by_the_user_by_a_stop_text_or_by_its_limit() {
    let config = ConverseConfig {
        max_rounds: 2,
        stop: Some("DONE".to_string()),
    };
    let answer = |told: &[Message]| Ok(format!("a{}", told.len()));
    let opening = [Message::system("s")];
    let end = |rounds| converse(&opening, asks(rounds), answer, &config).unwrap();
    let all = [
        Message::system("s"),
        Message::user("q1"),
        Message::assistant("a2"),
        Message::user("q3"),
        Message::assistant("a4"),
    ];
    assert_eq!(end(9).messages, all);
    assert_eq!(end(9).ending, Ending::Rounds);
    assert_eq!(end(2).ending, Ending::Rounds);
    assert_eq!(
        (end(1).messages, end(1).ending),
        (all[..3].to_vec(), Ending::User)
    );
    assert_eq!(
        (end(0).messages, end(0).ending),
        (all[..1].to_vec(), Ending::User)
    );

    let user_stops = |told: &[Message]| Ok(Some(["q", "all DONE"][told.len() / 2].to_string()));
    let stopped = converse(&[], user_stops, answer, &config).unwrap();
    assert_eq!((stopped.messages.len(), stopped.ending), (2, Ending::Stop));
    let model_stops = |_: &[Message]| Ok("DONE".to_string());
    let stopped = converse(&[], asks(5), model_stops, &config).unwrap();
    assert_eq!(
        (stopped.messages, stopped.ending),
        (vec![Message::user("q0")], Ending::Stop)
    );
}

#[test]
fn the_user_sees_the_conversation_with_the_sides_changed() {
    let seen = flipped(&talk()[..3]);
    let want = [
        Message::system("s"),
        Message::assistant("x1"),
        Message::user("y1"),
    ];
    assert_eq!(seen, want);
    assert_eq!(flipped(&seen), talk()[..3]);
}

#[test]
fn answers_come_after_the_translation_or_are_translated() {
    let translate = |text: &str| Ok(format!("t({text})"));
    let answer = |text: &str| Ok(format!("a({text})"));
    let pair = |instruction: &str, answer: &str| Demonstration {
        instruction: instruction.to_string(),
        answer: answer.to_string(),
    };
    let answered = post_answer(&["x", "y"], translate, answer).unwrap();
    assert_eq!(answered, [pair("t(x)", "a(t(x))"), pair("t(y)", "a(t(y))")]);
    let translated = post_translate(&[pair("x", "a(x)")], translate).unwrap();
    assert_eq!(translated, [pair("t(x)", "t(a(x))")]);
}

#[test]
fn a_translation_is_changed_demand_by_demand() {
    let model = |told: &[Message]| {
        let said: Vec<&str> = told.iter().map(|m| m.content.as_str()).collect();
        Ok(format!("[{}]", said.join(";")))
    };
    let messages = interactive_translation("To X:", "hello", &["shorter"], model).unwrap();
    let want = [
        Message::user("To X: hello"),
        Message::assistant("[To X: hello]"),
        Message::user("shorter"),
        Message::assistant("[To X: hello;[To X: hello];shorter]"),
    ];
    assert_eq!(messages, want);
}

#[test]
fn an_error_of_a_closure_ends_the_work() {
    let fails = |_: &str| -> Result<String> {
        Err(Error::Argument {
            function: "model",
            argument: "text".to_string(),
            problem: "is too long".to_string(),
        })
    };
    let message = |error: Error| error.to_string();
    let same = "model: `text` is too long";
    let error = post_answer(&["x"], fails, |_| panic!("asked")).unwrap_err();
    assert_eq!(message(error), same);
    let error = self_chat("x", &SelfChatConfig::default(), fails).unwrap_err();
    assert_eq!(message(error), same);
    let user = |_: &[Message]| fails("").map(Some);
    let error = converse(&[], user, |_| panic!("asked"), &ConverseConfig::default());
    assert_eq!(message(error.unwrap_err()), same);
}
