use crate::common::words::bytes;
use candle_align::Result;
use candle_align::data::attributes::{Attribute, attributed_prompt};
use candle_align::data::chat::{ChatFormat, CoveredTurns, Message};
use candle_align::data::evol_instruct::{Evolution, EvolveConfig};
use candle_align::data::lion::{Discrimination, LionConfig, Review, balanced, discriminate};
use candle_align::data::mixing::MixingConfig;
use candle_align::data::multilingual::{interactive_translation, post_answer};
use candle_align::data::prompting::{
    Exemplar, expert_identity_prompt, expert_prompt, principled_prompt, reasoning_prompt,
};
use candle_align::data::rankings::{PairsOf, merge_ballots, pairs_of_ranking};
use candle_align::data::role_play::InceptionConfig;
use candle_align::data::selection::{
    AlpaGasusConfig, Indicators, InstructMiningConfig, PlateauConfig, instruction_following_score,
};
use candle_align::data::self_chat::{
    ConverseConfig, SelfChatConfig, converse, read_transcript, self_chat,
};
use candle_align::data::self_instruct::filter::{FilterConfig, InstructionFilter};
use candle_align::data::self_instruct::pool::{InstructionPool, PoolConfig};
use candle_align::data::self_instruct::prompt::{
    BootstrapConfig, InstanceOrder, Task, bootstrap_prompt, instance_prompt,
};
use candle_align::data::{TaskTemplate, Template, Verbalizer};
use rand::{SeedableRng, rngs::StdRng};

#[track_caller]
fn is<T: std::fmt::Debug>(result: Result<T>, want: &str) {
    assert_eq!(result.unwrap_err().to_string(), want);
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(0)
}

#[test]
fn templates_without_their_braces_slots_or_values() {
    let new = |text: &str, problem: &str| {
        let place = format!("Template::new: `text` has {problem} of `{text}`");
        is(Template::new(text), &place);
    };
    new(
        "é{a",
        "`{` without `}`; write `{{` for a brace at character 1",
    );
    new(
        "a}",
        "`}` without `{`; write `}}` for a brace at character 1",
    );
    new("a {}", "a slot without a proper name at character 2");
    new("a {b c}", "a slot without a proper name at character 2");
    new("{a{b}", "a slot without a proper name at character 0");
    let template = Template::new("{a} {b}").unwrap();
    is(
        template.fill(&[("a", "1"), ("c", "2")]),
        "Template::fill: `values` have no `b`, which the template asks for; there are `a`, `c`",
    );
    is(
        template.fill(&[("a", "1"), ("b", "2"), ("a", "3")]),
        "Template::fill: `values` has two values for `a`",
    );
}

#[test]
fn tasks_with_a_field_a_label_or_a_word_too_few_or_too_many() {
    let word = |label: &str, word: &str| (label.to_string(), word.to_string());
    let task = |words: Vec<(String, String)>, fields: &[&str]| TaskTemplate {
        prompt: Template::new("{text}").unwrap(),
        completion: Template::new("{label}").unwrap(),
        verbalizers: fields
            .iter()
            .map(|field| Verbalizer {
                field: field.to_string(),
                words: words.clone(),
            })
            .collect(),
    };
    let one = task(vec![word("0", "no")], &["label"]);
    let of = |problem: &str| format!("TaskTemplate::write: {problem}");
    is(
        one.write(&[("text", "x"), ("label", "1")]),
        &of("`verbalizers` has no word for the label `1` of `label`"),
    );
    is(
        one.write(&[("label", "0")]),
        "Template::fill: `values` have no `text`, which the template asks for; there are `label`, `label:options`",
    );
    let twice = [("text", "x"), ("text", "y")];
    is(one.write(&twice), &of("`row` has the field `text` twice"));
    let row = [("text", "x"), ("label", "0")];
    let two = task(vec![word("0", "no"), word("0", "yes")], &["label"]);
    is(
        two.write(&row),
        &of("`verbalizers` has two words for the label `0` of `label`"),
    );
    let two = task(vec![word("0", "no")], &["label", "label"]);
    is(
        two.write(&row),
        &of("`verbalizers` have the field `label` twice"),
    );
    let empty = task(vec![word("0", "")], &["label"]);
    is(empty.write(&row), &of("`completion` is empty for this row"));
}

#[test]
fn settings_of_self_instruct_out_of_range() {
    for threshold in [-0.1, 1.1, f64::NAN] {
        let message =
            format!("InstructionPool::new: `threshold` must be in [0, 1], got {threshold}");
        is(InstructionPool::new(&PoolConfig { threshold }), &message);
    }
    let mut config = FilterConfig {
        min_words: 5,
        max_words: 4,
        ..FilterConfig::default()
    };
    is(
        InstructionFilter::new(&config),
        "InstructionFilter::new: `max_words` must be at least `min_words`, got 4",
    );
    config.max_words = 5;
    config.banned_starts.push(String::new());
    is(
        InstructionFilter::new(&config),
        "InstructionFilter::new: `banned_starts[1]` is empty",
    );

    let ask = |examples, generated, seeds: &[&str]| {
        let config = BootstrapConfig {
            examples,
            generated,
            ..BootstrapConfig::default()
        };
        bootstrap_prompt(seeds, &["g"], &config, &mut rng())
    };
    is(
        ask(0, 0, &[]),
        "bootstrap_prompt: `examples` must be >= 1, got 0",
    );
    is(
        ask(2, 3, &[]),
        "bootstrap_prompt: `generated` must be at most `examples`, got 3",
    );
    is(
        ask(3, 2, &["s"]),
        "bootstrap_prompt: `seeds` has 1 instructions, and a prompt shows 2",
    );
    let task = Task {
        instruction: "x".to_string(),
        instances: vec![],
    };
    let ask = |instruction| {
        instance_prompt(
            "",
            std::slice::from_ref(&task),
            instruction,
            InstanceOrder::InputFirst,
        )
    };
    is(ask("y"), "instance_prompt: `shown[0].instances` is empty");
    is(ask(""), "instance_prompt: `instruction` is empty");
}

#[test]
fn prompts_without_what_they_are_about_or_with_other_slots() {
    let config = |depth: &str| EvolveConfig {
        depth: Template::new(depth).unwrap(),
        ..EvolveConfig::default()
    };
    let ask = |depth: &str, text| config(depth).prompt(text, Evolution::Mutate);
    let of = |problem: &str| format!("EvolveConfig::prompt: {problem}");
    is(
        ask("{method} {instruction}", ""),
        &of("`instruction` is empty"),
    );
    is(
        ask("{instruction}", "x"),
        &of("`depth` has no slot `{method}`, so its value would be lost"),
    );
    is(
        ask("{method} {instruction} {more}", "x"),
        &of("`depth` has a slot `{more}`; there are `{method}`, `{instruction}`"),
    );

    let attribute = |name: &str| Attribute {
        name: name.to_string(),
        ..Attribute::default()
    };
    let template = Template::new("{class} {a}").unwrap();
    let ask = |names: &[&str]| {
        let attributes: Vec<Attribute> = names.iter().map(|name| attribute(name)).collect();
        attributed_prompt(&template, "c", &attributes, &mut rng())
    };
    let of = |problem: &str| format!("attributed_prompt: {problem}");
    is(ask(&["a", "a"]), &of("`attributes` have `a` twice"));
    is(ask(&["a", "class"]), &of("`attributes` have `class` twice"));
    is(
        ask(&["a"]),
        &of("`attributes[0]` has no value for the class `c`"),
    );
    is(
        ask(&[]),
        &of("`template` has a slot `{a}`; there are `{class}`"),
    );

    let thought = Exemplar {
        question: "q",
        thought: "t",
        answer: "a",
    };
    is(
        reasoning_prompt("", &[], ""),
        "reasoning_prompt: `question` is empty",
    );
    is(
        principled_prompt("", &[], &[], "q"),
        "principled_prompt: `principles` is empty",
    );
    is(
        principled_prompt("", &["p", ""], &[], "q"),
        "principled_prompt: `principles[1]` is empty",
    );
    is(
        expert_identity_prompt(&[thought], "q"),
        "expert_identity_prompt: `exemplars[0].thought` is not part of this prompt",
    );
    is(expert_prompt("", "q"), "expert_prompt: `identity` is empty");
    let roles = InceptionConfig::default();
    is(
        roles.prompts("t", "", "a"),
        "InceptionConfig::prompts: `user` is empty",
    );
}

#[test]
fn conversations_that_do_not_hold_together() {
    let (user, model) = (Message::user("x"), Message::assistant("y"));
    let ask = |messages: &[&Message], covered: CoveredTurns| {
        let messages: Vec<Message> = messages.iter().map(|m| (*m).clone()).collect();
        ChatFormat::vicuna().sequence(&bytes, &messages, &covered)
    };
    let of = |problem: &str| format!("ChatFormat::sequence: {problem}");
    let every = || CoveredTurns::Every;
    is(ask(&[], every()), &of("`messages` is empty"));
    is(
        ask(&[&user, &user], every()),
        &of("`messages[1].role` is that of the message before; roles take turns"),
    );
    let late = Message::system("s");
    is(
        ask(&[&user, &late], every()),
        &of("`messages[1].role` is system, after the start"),
    );
    let none = of("`covered` names no turn of the assistant, so there is nothing to learn");
    is(ask(&[&user], every()), &none);
    is(ask(&[&user, &model], CoveredTurns::Only(vec![])), &none);
    let covered = |turns| ask(&[&user, &model], CoveredTurns::Only(turns));
    is(
        covered(vec![1]),
        &of("`covered` has turn 1; the assistant has 1"),
    );
    is(covered(vec![0, 0]), &of("`covered` has turn 0 twice"));
    let mut format = ChatFormat::vicuna();
    format.assistant.after.clear();
    let silent = [user.clone(), Message::assistant("")];
    is(
        format.sequence(&bytes, &silent, &every()),
        &of("`messages[1].content` has no token"),
    );

    let read = |text| read_transcript(text, "[H]", "[A]");
    let of = |problem: &str| format!("read_transcript: `text` {problem}");
    is(read("hello"), &of("has neither `[H]` nor `[A]`"));
    is(read("x [H] a"), &of("does not begin with a turn"));
    is(read("[A] a"), &of("has turn 1 on the wrong side"));
    is(read("[H] a [H] b"), &of("has turn 2 on the wrong side"));
    is(read("[H] a [A] "), &of("has an empty turn 2"));
    is(
        read_transcript("[H] a", "[H]", "[H]"),
        "read_transcript: `human` is empty, or the mark of the other side too",
    );
    let chat = self_chat("", &SelfChatConfig::default(), |_| panic!("asked"));
    is(chat, "self_chat: `topic` is empty");

    let talk = |opening: &[Message], answer: &str, max_rounds, stop: Option<&str>| {
        let config = ConverseConfig {
            max_rounds,
            stop: stop.map(str::to_string),
        };
        let answer = answer.to_string();
        converse(
            opening,
            |_| Ok(Some("x".to_string())),
            |_| Ok(answer.clone()),
            &config,
        )
    };
    is(
        talk(&[], "y", 0, None),
        "converse: `max_rounds` must be >= 1, got 0",
    );
    is(
        talk(&[], "y", 1, Some("")),
        "converse: `config.stop` is empty",
    );
    is(
        talk(&[], "", 1, None),
        "converse: `assistant` returned an empty message",
    );
    let opening = "converse: `opening` ends with the user, who speaks next";
    is(talk(&[user], "y", 1, None), opening);
}

#[test]
fn languages_without_a_text() {
    let none = |_: &str| Ok(String::new());
    let same = |text: &str| Ok(text.to_string());
    is(
        post_answer(&["x"], none, same),
        "post_answer: `translate` returned an empty text for item 0",
    );
    is(
        post_answer(&["x"], same, none),
        "post_answer: `answer` returned an empty text for item 0",
    );
    let ask = |request, demands: &[&str]| {
        interactive_translation(request, "s", demands, |_: &[Message]| Ok("y".to_string()))
    };
    is(ask("", &[]), "interactive_translation: `request` is empty");
    is(
        ask("r", &["d", ""]),
        "interactive_translation: `demands[1]` is empty",
    );
}

#[test]
fn datasets_scores_and_rankings_that_select_nothing() {
    let rates = |maximum, temperature, sizes: &[usize]| {
        let config = MixingConfig {
            maximum,
            temperature,
        };
        config.rates(sizes)
    };
    let of = |problem: &str| format!("MixingConfig::rates: {problem}");
    is(
        rates(None, 0.0, &[1]),
        &of("`temperature` must be finite and > 0, got 0"),
    );
    is(
        rates(Some(0), 1.0, &[1]),
        &of("`maximum` must be >= 1, got 0"),
    );
    is(rates(None, 1.0, &[]), &of("`sizes` is empty"));
    is(
        rates(None, 1.0, &[1, 0]),
        &of("`sizes[1]` is 0: a dataset without examples has no share"),
    );

    let keep = |threshold, grades: &[f64]| AlpaGasusConfig { threshold }.keep(grades);
    let of = |problem: &str| format!("AlpaGasusConfig::keep: {problem}");
    is(
        keep(f64::NAN, &[]),
        &of("`threshold` must be finite, got NaN"),
    );
    is(
        keep(4.0, &[4.0, f64::NAN]),
        &of("`grades[1]` is not finite"),
    );
    let rule = InstructMiningConfig::default();
    let example = |length| Indicators {
        reward: 0.0,
        length,
        neighbor: 0.0,
    };
    is(
        rule.log_loss(&example(f64::INFINITY)),
        "InstructMiningConfig::log_loss: `indicators.length` is not finite",
    );
    is(
        rule.best(&[example(1.0)], 2),
        "InstructMiningConfig::best: `count` is 2, and there are 1 examples",
    );
    let wrong = InstructMiningConfig {
        reward: f64::NAN,
        ..rule
    };
    is(
        wrong.log_loss(&example(1.0)),
        "InstructMiningConfig::log_loss: `reward` must be finite, got NaN",
    );
    is(
        instruction_following_score(&[]),
        "instruction_following_score: `answer_like` is empty",
    );
    let plateau = |patience, tolerance, scores: &[f64]| {
        let config = PlateauConfig {
            patience,
            tolerance,
        };
        config.reached(scores)
    };
    let of = |problem: &str| format!("PlateauConfig::reached: {problem}");
    is(plateau(0, 0.0, &[]), &of("`patience` must be >= 1, got 0"));
    is(
        plateau(1, -0.5, &[]),
        &of("`tolerance` must be finite and >= 0, got -0.5"),
    );
    is(
        plateau(1, 0.0, &[f64::NAN]),
        &of("`scores[0]` is not finite"),
    );

    let review = Review {
        teacher_first: (1.0, f64::NAN),
        student_first: (1.0, 1.0),
    };
    is(
        discriminate(&[review], &LionConfig::default()),
        "discriminate: `reviews[0]` has a score that is not finite",
    );
    let found = Discrimination {
        hard: vec![0],
        easy: vec![],
    };
    is(
        balanced(&found, 2, &mut rng()),
        "balanced: `found.easy` is empty",
    );

    is(
        pairs_of_ranking(&[1], PairsOf::All),
        "pairs_of_ranking: `ranks` has 1 of at least 2 answers",
    );
    let none: [Vec<u8>; 0] = [];
    is(merge_ballots(&none), "merge_ballots: `ballots` is empty");
    is(
        merge_ballots(&[vec![1, 2], vec![2, 2]]),
        "merge_ballots: `ballots[1]` has an answer twice",
    );
    is(
        merge_ballots(&[vec![1, 2], vec![2, 3]]),
        "merge_ballots: `ballots` have 1 answers in common, and a ranking needs at least 2",
    );
}
