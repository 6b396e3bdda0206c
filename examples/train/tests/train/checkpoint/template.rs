//! What a template sees, and what it does not read.

use super::{noon, special, template};
use minijinja::Value;
use train::checkpoint::template::{Chat, Template};

fn messages(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

const HELLO: &str = r#"[{"role": "user", "content": "Hi"}]"#;

fn render(source: &str, change: impl FnOnce(&mut Chat)) -> Result<String, String> {
    let mut chat = Chat {
        messages: messages(HELLO),
        ..Chat::default()
    };
    change(&mut chat);
    Ok(template(source).render(&chat)?.text)
}

fn text(source: &str) -> String {
    render(source, |_| {}).unwrap()
}

#[test]
fn an_error_names_the_template_and_its_line() {
    let failed = |source| render(source, |_| {}).unwrap_err();
    assert_eq!(
        failed("a\n{{ raise_exception('roles must alternate') }}"),
        "chat_template.jinja:2: the template refuses the row: roles must alternate"
    );
    let unknown = failed("a\n\n{{ 'a' | nofilter }}");
    assert!(
        unknown.starts_with("chat_template.jinja:3: unknown filter"),
        "{unknown}"
    );
    let undefined = failed("{{ messages[0].content\n + messages[0].nothing }}");
    assert!(undefined.starts_with("chat_template.jinja:"), "{undefined}");
}

#[test]
fn the_clock_is_one_moment_of_the_run() {
    assert_eq!(text("{{ strftime_now('%d %b %Y') }}"), "01 May 2024");
    assert_eq!(
        text("{{ strftime_now('%Y-%m-%d %H:%M:%S %A %%') }}"),
        "2024-05-01 12:30:00 Wednesday %"
    );
    assert!(template("{{ strftime_now('%d') }}").reads_the_clock());
    assert!(!template("{{ date }}").reads_the_clock());
    let failed = render("{{ strftime_now('%!') }}", |_| {}).unwrap_err();
    assert!(failed.contains("unknown format `%!`"), "{failed}");
}

#[test]
fn variables_of_a_row_win_over_special_tokens_and_not_over_the_trainer() {
    let set = |name: &str| {
        let variable = (name.to_string(), Value::from("x"));
        move |chat: &mut Chat| chat.variables = vec![variable]
    };
    assert_eq!(render("{{ eos_token }}", set("eos_token")).unwrap(), "x");
    assert_eq!(
        render("{{ eos_token }}", set("add_generation_prompt")).unwrap_err(),
        "`chat_template_kwargs.add_generation_prompt` is set by the trainer itself; take it out"
    );
}

#[test]
fn reasoning_has_two_names_and_null_fields_are_gone() {
    let source = "{{ messages[0].thinking }},{{ messages[0].reasoning_content }},{{ messages[0].content is defined }}";
    let with = |message: &str| render(source, |chat| chat.messages = messages(message)).unwrap();
    assert_eq!(
        with(r#"[{"role": "assistant", "content": null, "reasoning": "r"}]"#),
        "r,r,False"
    );
    assert_eq!(
        with(r#"[{"role": "assistant", "content": "", "thinking": "t"}]"#),
        "t,t,True"
    );
    assert_eq!(
        with(r#"[{"role": "assistant", "thinking": "t", "reasoning_content": "r"}]"#),
        "t,r,False"
    );
    assert_eq!(
        with(r#"[{"role": "assistant", "reasoning_content": null, "reasoning": "r"}]"#),
        "r,r,False"
    );
}

#[test]
fn names_are_looked_up_as_words() {
    let template =
        template("{{ messages[0]['tool_calls'] }}{{ enable_thinking }}{{ m.reasoning_content }}");
    for (name, read) in [
        ("tool_calls", true),
        ("enable_thinking", true),
        ("tool", false),
        ("thinking", false),
        ("content", false),
    ] {
        assert_eq!(template.reads(name), read, "{name}");
    }
    // reasoning reaches the text under each of its names
    for name in ["reasoning", "thinking", "reasoning_content"] {
        assert!(template.reads_field(name), "{name}");
    }
    assert!(!template.reads_field("name"));
}

#[test]
fn spans_need_blocks_and_texts_without_their_marks() {
    let ask = |source: &str, content: &str| {
        let template = Template::new("t.jinja", source, special(), noon()).unwrap();
        let message = Value::from_pairs([("content", content)]);
        let chat = Chat {
            messages: vec![message].into(),
            spans: true,
            ..Chat::default()
        };
        template.render(&chat)
    };
    assert_eq!(
        ask("{{ messages[0].content }}", "a").unwrap_err(),
        "t.jinja has no `{% generation %}` block, so it does not mark what the assistant says"
    );
    let source = "é{% generation %}{{ messages[0].content }}{% endgeneration %}.";
    let spans = ask(source, "ab").unwrap().spans;
    assert_eq!((spans[0].clone(), spans.len()), (2..4, 1));
    assert_eq!(
        ask(source, "a\u{fdd0}").unwrap_err(),
        "has a mark that the spans of the assistant need, U+FDD0 or U+FDD1"
    );
}

#[test]
fn blocks_of_one_sort_may_lie_in_each_other_and_on_several_lines() {
    let source = "{% generation %}a{% generation %}b{% endgeneration %}c{% endgeneration %}{%\n generation\n%}d{% endgeneration %}";
    let chat = Chat {
        messages: messages(HELLO),
        spans: true,
        ..Chat::default()
    };
    let rendered = template(source).render(&chat).unwrap();
    assert_eq!(
        (rendered.text.as_str(), &rendered.spans[..]),
        ("abcd", &[0..3, 3..4][..])
    );
}
