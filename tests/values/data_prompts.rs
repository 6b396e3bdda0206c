//! Prompts of every kind, as texts.

use candle_align::Result;
use candle_align::data::attributes::{Attribute, attributed_prompt};
use candle_align::data::evol_instruct::{Elimination, Evolution, EvolveConfig, elimination};
use candle_align::data::prompting::{
    Exemplar, expert_identity_prompt, expert_prompt, principled_prompt, reasoning_prompt,
};
use candle_align::data::role_play::InceptionConfig;
use candle_align::data::self_instruct::instances::Instance;
use candle_align::data::self_instruct::prompt::{
    BootstrapConfig, InstanceOrder, Task, bootstrap_prompt, instance_prompt,
};
use candle_align::data::{TaskTemplate, Template, Verbalizer, write_every, write_some};
use rand::{SeedableRng, rngs::StdRng};
use std::collections::BTreeSet;

fn template(prompt: &str, completion: &str, words: [&str; 2]) -> TaskTemplate {
    let word = |(i, word): (usize, &str)| (i.to_string(), word.to_string());
    TaskTemplate {
        prompt: Template::new(prompt).unwrap(),
        completion: Template::new(completion).unwrap(),
        verbalizers: vec![Verbalizer {
            field: "label".to_string(),
            words: words.into_iter().enumerate().map(word).collect(),
        }],
    }
}

#[test]
fn one_row_is_written_by_several_templates_each_with_its_own_words() {
    let templates = [
        template("{text} Glad?\n{label:options}", "{label}", ["no", "yes"]),
        template("Write a {label} text.", "{text}", ["sad", "glad"]),
        template("{text}", "It is {label}, {{said}}.", ["bad", "good"]),
    ];
    let row = [("text", "{label} sun"), ("label", "1"), ("unused", "?")];
    let written = write_every(&templates, &row).unwrap();
    let texts: Vec<_> = written
        .iter()
        .map(|w| (w.template, w.prompt.as_str(), w.completion.as_str()))
        .collect();
    let want = [
        (0, "{label} sun Glad?\n- no\n- yes", "yes"),
        (1, "Write a glad text.", "{label} sun"),
        (2, "{label} sun", "It is good, {said}."),
    ];
    assert_eq!(texts, want);
    for count in 0..5 {
        let mut rng = StdRng::seed_from_u64(count as u64);
        let some = write_some(&templates, &row, count, &mut rng).unwrap();
        let which: BTreeSet<usize> = some.iter().map(|w| w.template).collect();
        assert_eq!((some.len(), which.len()), (count.min(3), count.min(3)));
        assert!(some.iter().all(|w| *w == written[w.template]));
    }
}

#[test]
fn templates_and_tasks_are_read_from_json_and_written_back() {
    let text = r#"{"prompt":"{a} {{b}}","completion":"{label}","verbalizers":[{"field":"label","words":[["0","no"]]}]}"#;
    let task: TaskTemplate = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&task).unwrap(), text);
    let error = serde_json::from_str::<TaskTemplate>(r#"{"prompt":"{a","completion":""}"#);
    assert!(error.unwrap_err().to_string().contains("without `}`"));
}

#[test]
fn a_prompt_for_new_tasks_shows_six_seeds_and_two_generated_ones() {
    let seeds: Vec<String> = (0..175).map(|i| format!("Seed  task {i}:")).collect();
    let generated: Vec<String> = (0..10).map(|i| format!("Own task {i}.")).collect();
    let prompt = |seed: u64, generated: &[String]| {
        let mut rng = StdRng::seed_from_u64(seed);
        bootstrap_prompt(&seeds, generated, &BootstrapConfig::default(), &mut rng).unwrap()
    };
    let (mut firsts, mut shown) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..200 {
        let text = prompt(seed, &generated);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + 8 + 1);
        for (i, line) in lines[1..9].iter().enumerate() {
            let (number, task) = line.split_once(". ").unwrap();
            assert_eq!(number, (i + 1).to_string());
            // single blanks, and no colon at the end
            assert!(task.starts_with("Seed task ") || task.starts_with("Own task "));
            assert!(!task.ends_with(':'));
            shown.insert(task.to_string());
        }
        let own = lines.iter().filter(|line| line.contains("Own")).count();
        assert_eq!((own, lines[9]), (2, "9."));
        firsts.insert(lines[1].contains("Own"));
        assert_eq!(text, prompt(seed, &generated));
    }
    // shuffled: a generated task is the first now and then; and nothing is never shown
    assert_eq!(firsts.len(), 2);
    assert_eq!(shown.len(), 175 + 10);
    let first = prompt(0, &[]);
    assert_eq!(first.matches("Seed").count(), 8);
    assert_eq!(prompt(0, &generated[..1]).matches("Own").count(), 1);
}

#[test]
fn instances_are_asked_for_in_the_form_in_which_they_are_read() {
    let instance = |input: &str, output: &str| Instance {
        input: input.to_string(),
        output: output.to_string(),
    };
    let shown = [Task {
        instruction: "Add.".to_string(),
        instances: vec![instance("2+2", "4"), instance("", "none")],
    }];
    let first = instance_prompt("R", &shown, "Subtract.", InstanceOrder::of_task(false)).unwrap();
    assert_eq!(
        first,
        "R\n\nTask: Add.\nExample 1\nInput: 2+2\nOutput: 4\nExample 2\nOutput: none\n\nTask: Subtract.\n"
    );
    let second = instance_prompt("R", &shown, "Subtract.", InstanceOrder::of_task(true)).unwrap();
    assert_eq!(
        second,
        "R\n\nTask: Add.\nClass label: 4\n2+2\nClass label: none\n\nTask: Subtract.\n"
    );
}

#[test]
fn an_evolution_has_its_method_and_its_instruction() {
    let config = EvolveConfig {
        depth: Template::new("D {method} | {instruction}").unwrap(),
        breadth: Template::new("B {instruction}").unwrap(),
        ..EvolveConfig::default()
    };
    let prompts = Evolution::PAPER.map(|operation| config.prompt("do {x}", operation).unwrap());
    let methods = [
        &config.add_constraints,
        &config.deepen,
        &config.concretize,
        &config.increase_reasoning,
        &config.complicate_input,
    ];
    for (prompt, method) in prompts.iter().zip(methods) {
        assert_eq!(*prompt, format!("D {method} | do {{x}}"));
    }
    assert_eq!(prompts[5], "B do {x}");
    // the draws reach all operations of the list and no other
    let mut rng = StdRng::seed_from_u64(0);
    let drawn = (0..200).map(|_| Evolution::draw(&Evolution::CODE, &mut rng).unwrap());
    let drawn: BTreeSet<String> = drawn.map(|e| format!("{e:?}")).collect();
    assert_eq!(drawn.len(), 5);
    assert!(!drawn.contains("ComplicateInput"));
    assert_eq!(Evolution::draw(&[], &mut rng), None);
}

#[test]
fn every_rule_of_elimination_is_met_at_its_edge() {
    let rule = |evolved: &str, response: &str, gains: bool| {
        elimination("x y", evolved, response, |_, _| Ok(gains)).unwrap()
    };
    let words = |n: usize| format!("sorry {}", "word ".repeat(n - 1));
    assert_eq!(rule("x y z", &words(79), true), Some(Elimination::Sorry));
    assert_eq!(rule("x y z", &words(80), true), None);
    assert_eq!(rule("x y z", "I am SORRY", true), Some(Elimination::Sorry));
    assert_eq!(rule("x y z", "", true), Some(Elimination::NoContent));
    assert_eq!(
        rule("x y z", "The, and — of!", true),
        Some(Elimination::NoContent)
    );
    assert_eq!(rule("x y z", "The 4.", true), None);
    for leak in ["#Given Prompt#", "the rewritten PROMPT", "created prompt"] {
        assert_eq!(rule(leak, "4", true), Some(Elimination::Leak));
    }
    assert_eq!(rule("x y z", "4", false), Some(Elimination::NoGain));
    // unchanged: nobody is asked
    let asked = |_: &str, _: &str| -> Result<bool> { panic!("asked") };
    let unchanged = elimination("x y", " x y\n", "4", asked).unwrap();
    assert_eq!(unchanged, Some(Elimination::NoGain));
}

#[test]
fn attributes_are_drawn_from_the_values_of_the_class_and_all_are_reached() {
    let values = |of: &[&str]| -> Vec<String> { of.iter().map(|v| v.to_string()).collect() };
    let attributes = [
        Attribute {
            name: "length".to_string(),
            values: values(&["short", "long"]),
            by_class: vec![],
        },
        Attribute {
            name: "topic".to_string(),
            values: values(&["anything"]),
            by_class: vec![("sports".to_string(), values(&["rowing", "chess", "golf"]))],
        },
    ];
    let template = Template::new("{class} {length} {topic}").unwrap();
    let mut rng = StdRng::seed_from_u64(0);
    let mut drawn = |class: &str| -> BTreeSet<String> {
        let prompt = |_| attributed_prompt(&template, class, &attributes, &mut rng).unwrap();
        (0..200).map(prompt).collect()
    };
    let sports = drawn("sports");
    assert_eq!(sports.len(), 2 * 3);
    assert!(sports.contains("sports long chess"));
    let others = drawn("arts");
    assert_eq!(
        others.into_iter().collect::<Vec<_>>(),
        ["arts long anything", "arts short anything"]
    );
}

#[test]
fn prompts_for_better_answers_have_their_parts_in_order() {
    let shown = [
        Exemplar {
            question: "q1",
            thought: "t1",
            answer: "a1",
        },
        Exemplar {
            question: "q2",
            thought: "",
            answer: "a2",
        },
    ];
    assert_eq!(
        reasoning_prompt("S", &shown, "q").unwrap(),
        "S\n\nQ: q1\nA: t1 a1\n\nQ: q2\nA: a2\n\nQ: q\nA:"
    );
    assert_eq!(reasoning_prompt("", &[], "q").unwrap(), "Q: q\nA:");
    assert_eq!(
        principled_prompt("S", &["p1", "p2"], &shown[..1], "q").unwrap(),
        "S\n\n# Principles\n1. p1\n2. p2\n\n# Examples\nUser: q1\nThought: t1\nAssistant: a1\n\nUser: q\nThought:"
    );
    let identity = expert_identity_prompt(&shown[1..], "q").unwrap();
    assert!(identity.ends_with("\n\nInstruction: q2\nExpert: a2\n\nInstruction: q\nExpert:"));
    assert_eq!(
        expert_prompt("You are e.", "q").unwrap(),
        "You are e.\n\nAnswer the instruction as this expert.\n\nq"
    );
}

#[test]
fn two_agents_know_the_task_and_both_roles() {
    let config = InceptionConfig {
        user: Template::new("{user}>{assistant}: {task} {stop}").unwrap(),
        assistant: Template::new("{assistant}<{user}: {task} {stop}").unwrap(),
        stop: "END".to_string(),
    };
    let agents = config.prompts("sail", "captain", "mate").unwrap();
    assert_eq!(agents.user, "captain>mate: sail END");
    assert_eq!(agents.assistant, "mate<captain: sail END");
    let default = InceptionConfig::default()
        .prompts("T1", "U1", "A1")
        .unwrap();
    for text in [default.user, default.assistant] {
        assert!(
            ["T1", "U1", "A1", "<CAMEL_TASK_DONE>"]
                .iter()
                .all(|part| text.contains(part))
        );
        assert!(!text.contains(['{', '}']));
    }
}

#[test]
fn the_prompts_of_this_crate_have_the_slots_that_are_filled() {
    // a default is a template as any other
    let config = EvolveConfig::default();
    let again: EvolveConfig =
        serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
    let roles = InceptionConfig::default();
    let again: InceptionConfig =
        serde_json::from_str(&serde_json::to_string(&roles).unwrap()).unwrap();
    assert_eq!(again, roles);
}
