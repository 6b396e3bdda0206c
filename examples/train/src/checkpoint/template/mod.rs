//! A folder's chat template: messages to text.
//!
//! | file | does |
//! |---|---|
//! | [`sources`] | which of the folder's templates counts |
//! | [`environment`] | what a template finds: filters, tests, functions |
//! | [`python`] | values as Python writes them |
//! | [`generation`] | the spans between `{% generation %}` and `{% endgeneration %}` |
//! | here | messages and variables; a text with its spans |

pub mod environment;
pub mod generation;
pub mod python;
pub mod sources;

pub use sources::Templates;

use super::super::error::{Error, Result, cut};
use chrono::NaiveDateTime;
use minijinja::{Environment, Value, value::ValueKind};
use std::collections::BTreeMap;
use std::ops::Range;

/// The name of a template in its environment.
const NAME: &str = "chat";

/// Names under which a message's reasoning is passed. Templates read the first, or the second.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Arguments of the caller, which a row cannot set.
const RESERVED: [&str; 8] = [
    "messages",
    "tools",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template",
    "tokenize",
    "return_dict",
    "return_assistant_tokens_mask",
];

/// A chat template that is ready to render.
#[derive(Debug)]
pub struct Template {
    /// The file, for messages; a line follows.
    name: String,
    source: String,
    special: BTreeMap<String, String>,
    plain: Environment<'static>,
    /// The same with marks around what the assistant generates, if the template has such blocks.
    marking: Option<Environment<'static>>,
}

/// A conversation to render.
#[derive(Clone, Debug, Default)]
pub struct Chat {
    /// A list of messages.
    pub messages: Value,
    /// The tools that the model may call, or undefined.
    pub tools: Value,
    /// Further variables, as pairs; they win over special tokens of the same name.
    pub variables: Vec<(String, Value)>,
    /// Ends with the header of the assistant's next turn, if the template can write it.
    pub add_generation_prompt: bool,
    /// Asks for the spans that the template marks as the assistant's.
    pub spans: bool,
}

/// A rendered conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    /// The bytes of the text that the template marks as the assistant's, in order.
    pub spans: Vec<Range<usize>>,
}

impl Template {
    /// Prepares a template. `now` is what `strftime_now` formats, one moment for the whole run.
    pub fn new(
        name: &str,
        source: &str,
        special: BTreeMap<String, String>,
        now: NaiveDateTime,
    ) -> Result<Self> {
        let (rewritten, marked) = generation::rewrite(source);
        let make = |marks| {
            let mut environment = environment::new(now, marks)?;
            environment.add_template_owned(NAME, rewritten.clone())?;
            Ok(environment)
        };
        let failed = |error: minijinja::Error| Error::Row {
            file: name.to_string(),
            line: error.line().unwrap_or(1),
            problem: cut(&describe(&error), 1_000),
        };
        Ok(Self {
            name: name.to_string(),
            source: source.to_string(),
            special,
            plain: make(false).map_err(failed)?,
            marking: match marked {
                true => Some(make(true).map_err(failed)?),
                false => None,
            },
        })
    }

    /// The file that it comes from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the template marks what the assistant generates.
    pub fn marks_generation(&self) -> bool {
        self.marking.is_some()
    }

    /// Whether texts depend on the day of the run.
    pub fn reads_the_clock(&self) -> bool {
        self.reads("strftime_now")
    }

    /// Whether a name occurs in the template as a word. A field whose name does not occur changes nothing.
    pub fn reads(&self, name: &str) -> bool {
        let of_word = |c: char| c.is_alphanumeric() || c == '_';
        self.source.match_indices(name).any(|(at, _)| {
            let before = self.source[..at].chars().next_back();
            let after = self.source[at + name.len()..].chars().next();
            !before.is_some_and(of_word) && !after.is_some_and(of_word)
        })
    }

    /// Whether a field of a message reaches the text; reasoning does under any of its names.
    pub fn reads_field(&self, name: &str) -> bool {
        match REASONING.contains(&name) {
            true => self.reads(REASONING[0]) || self.reads(REASONING[1]),
            false => self.reads(name),
        }
    }

    /// Renders a conversation. The error names the template's file and line.
    pub fn render(&self, chat: &Chat) -> Result<Rendered, String> {
        let environment = match (chat.spans, &self.marking) {
            (false, _) => &self.plain,
            (true, Some(marking)) => marking,
            (true, None) => {
                return Err(format!(
                    "{} has no `{{% generation %}}` block, so it does not mark what the assistant says",
                    self.name
                ));
            }
        };
        let context = self.context(chat)?;
        if chat.spans && generation::occurs_in(&context) {
            return Err("has a mark that the spans of the assistant need, U+FDD0 or U+FDD1".into());
        }
        let template = environment.get_template(NAME);
        let text = template.and_then(|template| template.render(context));
        let text = text.map_err(|error| {
            let line = error
                .line()
                .map_or(String::new(), |line| format!(":{line}"));
            format!("{}{line}: {}", self.name, cut(&describe(&error), 1_000))
        })?;
        Ok(match chat.spans {
            true => generation::spans(&text),
            false => Rendered {
                text,
                spans: Vec::new(),
            },
        })
    }

    fn context(&self, chat: &Chat) -> Result<Value, String> {
        let mut all: BTreeMap<String, Value> = self
            .special
            .iter()
            .map(|(name, text)| (name.clone(), Value::from(text.as_str())))
            .collect();
        let none = || Value::from(());
        all.insert("documents".into(), none());
        for (name, value) in &chat.variables {
            if RESERVED.contains(&name.as_str()) {
                return Err(format!(
                    "`chat_template_kwargs.{name}` is set by the trainer itself; take it out"
                ));
            }
            all.insert(name.clone(), value.clone());
        }
        all.insert("messages".into(), messages(&chat.messages)?);
        let tools = match chat.tools.is_undefined() {
            true => none(),
            false => chat.tools.clone(),
        };
        all.insert("tools".into(), tools);
        let prompt = Value::from(chat.add_generation_prompt);
        all.insert("add_generation_prompt".into(), prompt);
        Ok(Value::from(all))
    }
}

/// Messages as a template sees them: without null fields, and reasoning under both of its names.
fn messages(list: &Value) -> Result<Value, String> {
    let failed = |error: minijinja::Error| error.to_string();
    let one = |message: Value| -> Result<Value, String> {
        if message.kind() != ValueKind::Map {
            return Err(format!("a message must be an object, found {message}"));
        }
        let mut fields: Vec<(String, Value)> = Vec::new();
        for key in message.try_iter().map_err(failed)? {
            let value = message.get_item(&key).map_err(failed)?;
            if !value.is_none() {
                fields.push((key.to_string(), value));
            }
        }
        let find = |name: &str| fields.iter().find(|(key, _)| key == name);
        let reasoning = REASONING.iter().find_map(|name| find(name));
        if let Some(reasoning) = reasoning.map(|(_, value)| value.clone()) {
            if find(REASONING[1]).is_none() {
                fields.insert(0, (REASONING[1].into(), reasoning.clone()));
            }
            match fields.iter_mut().find(|(key, _)| key == REASONING[0]) {
                Some((_, value)) => *value = reasoning,
                None => fields.push((REASONING[0].into(), reasoning)),
            }
        }
        Ok(Value::from_pairs(fields))
    };
    let list = list.try_iter().map_err(failed)?;
    Ok(Value::from(list.map(one).collect::<Result<Vec<_>, _>>()?))
}

/// What went wrong, without the place.
fn describe(error: &minijinja::Error) -> String {
    let kind = error.kind();
    match error.detail() {
        // the template's own words
        Some(detail) if detail.starts_with(environment::RAISED) => {
            let own = detail.trim_start_matches(environment::RAISED);
            format!("the template refuses the row: {own}")
        }
        Some(detail) => format!("{kind}: {detail}"),
        None => kind.to_string(),
    }
}
