//! Texts and conversations to ids.

use super::super::template::{Chat, Rendered, Template};
use super::record::{Part, Record};
use super::{Folder, Report};
use minijinja::{Value, value::ValueKind};

/// Encodes the parts of one row.
pub struct Encoder<'a> {
    folder: &'a Folder,
    template: Option<&'a Template>,
    tools: Value,
    variables: Vec<(String, Value)>,
}

/// Ids, and which of them the template marks as the assistant's, if that was asked for.
#[derive(Debug)]
pub struct Encoded {
    pub ids: Vec<u32>,
    pub marked: Option<Vec<bool>>,
}

impl<'a> Encoder<'a> {
    /// For a row of texts, or of messages; for these, whatever the template does not read is an error.
    pub fn new(
        folder: &'a Folder,
        record: &Record,
        chat: bool,
        report: &mut Report,
    ) -> Result<Self, String> {
        let (tools, variables) = (record.tools()?, record.variables()?);
        if !chat {
            return Ok(Self {
                folder,
                template: None,
                tools,
                variables,
            });
        }
        let template = folder.templates.choose(!tools.is_undefined());
        let template = template.map_err(|error| error.to_string())?;
        report.reads_the_clock |= template.reads_the_clock();
        let unread = |what: &str| format!("{what}, which {} does not read", template.name());
        if tools.len().is_some_and(|tools| tools > 0) && !template.reads("tools") {
            return Err(unread("has `tools`"));
        }
        if let Some((name, _)) = variables.iter().find(|(name, _)| !template.reads(name)) {
            return Err(unread(&format!("has `chat_template_kwargs.{name}`")));
        }
        Ok(Self {
            folder,
            template: Some(template),
            tools,
            variables,
        })
    }

    /// For prompts and answers that come from no row of messages, such as those of a tree.
    pub fn of_items(folder: &'a Folder, chat: bool, report: &mut Report) -> Result<Self, String> {
        let template = match chat {
            true => Some(
                folder
                    .templates
                    .choose(false)
                    .map_err(|error| error.to_string())?,
            ),
            false => None,
        };
        report.reads_the_clock |= template.is_some_and(Template::reads_the_clock);
        Ok(Self {
            folder,
            template,
            tools: Value::UNDEFINED,
            variables: Vec::new(),
        })
    }

    /// The text of a prompt, which ends where the answer begins.
    pub fn text(&self, prompt: &Part) -> Result<String, String> {
        match (prompt, self.template) {
            (Part::Messages(messages), Some(template)) => {
                Ok(self.render(messages, template, true, false)?.text)
            }
            (Part::Text(text), None) => Ok(text.clone()),
            _ => Err("has a text where messages belong, or messages where a text does".to_string()),
        }
    }

    /// The ids of a prompt, which ends where the answer begins.
    pub fn prompt(&self, prompt: &Part) -> Result<Vec<u32>, String> {
        Ok(self.run(prompt, true, false)?.ids)
    }

    /// The ids of a whole row.
    pub fn whole(&self, row: &Part, marked: bool) -> Result<Encoded, String> {
        self.run(row, false, marked)
    }

    fn run(&self, part: &Part, prompt: bool, marked: bool) -> Result<Encoded, String> {
        let tokenizer = &self.folder.tokenizer;
        let (messages, template) = match (part, self.template) {
            (Part::Messages(messages), Some(template)) => (messages, template),
            (Part::Text(text), None) => {
                let ids = tokenizer.encode(text).map_err(|error| error.to_string())?;
                return Ok(Encoded { ids, marked: None });
            }
            (Part::Messages(_), None) => return Err("has messages beside a text".to_string()),
            (Part::Text(_), Some(_)) => return Err("has a text beside messages".to_string()),
        };
        let rendered = self.render(messages, template, prompt, marked)?;
        let encoded = tokenizer.encode_rendered(&rendered.text);
        let encoded = encoded.map_err(|error| error.to_string())?;
        let within = |bytes: &std::ops::Range<usize>| {
            let mut spans = rendered.spans.iter();
            spans.any(|span| bytes.start < span.end && bytes.end > span.start)
        };
        Ok(Encoded {
            marked: marked.then(|| encoded.bytes.iter().map(within).collect()),
            ids: encoded.ids,
        })
    }

    fn render(
        &self,
        messages: &[Value],
        template: &Template,
        prompt: bool,
        marked: bool,
    ) -> Result<Rendered, String> {
        self.check_fields(messages, template)?;
        template.render(&Chat {
            messages: Value::from(messages.to_vec()),
            tools: self.tools.clone(),
            variables: self.variables.clone(),
            add_generation_prompt: prompt,
            spans: marked,
        })
    }

    /// An error if a message has a field that the template does not read.
    fn check_fields(&self, messages: &[Value], template: &Template) -> Result<(), String> {
        for message in messages {
            for key in message.try_iter().into_iter().flatten() {
                let value = message.get_item(&key).unwrap_or_default();
                let empty = value.kind() != ValueKind::String && value.len() == Some(0);
                let name = key.to_string();
                if name == "role" || value.is_none() || empty || template.reads_field(&name) {
                    continue;
                }
                return Err(format!(
                    "has a message with `{name}`, which {} does not read; if it means nothing here, say \
                     --ignore-field {name}",
                    template.name()
                ));
            }
        }
        Ok(())
    }
}

/// The number of ids at the beginning that both lists have.
pub fn common(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

/// A prompt and an answer as one part.
pub fn join(prompt: &Part, answer: &Part) -> Result<Part, String> {
    match (prompt, answer) {
        (Part::Text(prompt), Part::Text(answer)) => Ok(Part::Text(format!("{prompt}{answer}"))),
        (Part::Messages(prompt), Part::Messages(answer)) => {
            let all = prompt.iter().chain(answer).cloned();
            Ok(Part::Messages(all.collect()))
        }
        _ => Err(
            "has a prompt and an answer of different kinds: either both are texts, or both are \
             lists of messages"
                .to_string(),
        ),
    }
}

/// A text that ends with the end token; messages end as the template ends them.
pub fn ended(part: Part, folder: &Folder) -> Result<Part, String> {
    let Part::Text(mut text) = part else {
        return Ok(part);
    };
    let eos = folder.tokenizer.required_eos();
    let eos = &eos.map_err(|error| error.to_string())?.text;
    if !text.ends_with(eos.as_str()) {
        text.push_str(eos);
    }
    Ok(Part::Text(text))
}

/// An error if an id is beyond the model's tokens.
pub fn within_vocabulary(
    ids: &[u32],
    folder: &Folder,
    vocabulary: Option<usize>,
) -> Result<(), String> {
    let Some(vocabulary) = vocabulary else {
        return Ok(());
    };
    let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) else {
        return Ok(());
    };
    let token = folder.tokenizer.token(*id);
    let token = token.map_or(String::new(), |token| format!(" (`{token}`)"));
    Err(format!(
        "has the token {id}{token}, and the model has {vocabulary} tokens, counted from 0"
    ))
}
