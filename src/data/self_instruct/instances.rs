//! The instances of Self-Instruct's tasks: inputs and outputs, and which of them are refused (survey §2.2.1).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | input-first: `Input: … Output: …` | [`generation_instances`] | text to [`Instance`]s |
//! | output-first, for classification: `Class label: …`, then the input | [`classification_instances`] | text to [`Instance`]s |
//! | instances that are refused | [`clean`] | [`Instance`]s |
//!
//! Read next: [`super::prompt`], which asks for instances.

use super::filter::Finish;
use crate::text::is_blank;
use serde::{Deserialize, Serialize};

/// One example of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// The input; empty where the instruction needs none.
    pub input: String,
    /// The output.
    pub output: String,
}

/// Leaves out what Self-Instruct refuses among the instances of one task.
///
/// # Equation
/// ```text
/// refused:  input = output      output empty      input or output ends with ":"
/// then      two instances with one input, not empty, and two outputs  →  none is left
/// then      an instance that was there already is left out
/// ```
/// # Shapes
/// Instances of one task; those that stay keep their order.
/// # Errors
/// None.
/// # Properties
/// * A second pass changes nothing.
/// * Several outputs to the empty input stay: the instruction may have many answers.
/// # Departures
/// The authors' code removes duplicates through a set, which loses the order.
/// # Examples
/// ```
/// use candle_align::data::self_instruct::instances::{Instance, clean};
///
/// let instance = |input: &str, output: &str| Instance { input: input.into(), output: output.into() };
/// let clear = vec![instance("2+2", "4"), instance("3+3", "6"), instance("4", "4"), instance("2+2", "4")];
/// assert_eq!(clean(clear), [instance("2+2", "4"), instance("3+3", "6")]);
/// // one input with two outputs spoils the task
/// assert!(clean(vec![instance("2+2", "4"), instance("2+2", "5"), instance("3+3", "6")]).is_empty());
/// ```
/// # Source
/// Wang et al. 2022, arXiv:2212.10560, §2.2; authors' code yizhongw/self-instruct,
/// `self_instruct/prepare_for_finetuning.py`, `filter_invalid_instances` and `filter_duplicate_instances`.
pub fn clean(instances: Vec<Instance>) -> Vec<Instance> {
    let ends = |text: &str| text.trim_end_matches(is_blank).ends_with(':');
    let mut kept: Vec<Instance> = Vec::new();
    let mut contradicts = false;
    for instance in instances {
        let Instance { input, output } = &instance;
        if input == output || output.is_empty() || ends(input) || ends(output) {
            continue;
        }
        let other = |k: &Instance| k.input == *input && k.output != *output;
        contradicts |= !input.is_empty() && kept.iter().any(other);
        if !kept.contains(&instance) {
            kept.push(instance);
        }
    }
    match contradicts {
        true => Vec::new(),
        false => kept,
    }
}

/// Reads the instances that a model wrote input-first, and cleans them.
///
/// # Equation
/// ```text
/// Example 1⏎ Input: x₁ Output: y₁⏎ Example 2⏎ …   →   (x₁, y₁), (x₂, y₂), …
/// Output: y                                        →   ("", y)
/// Example 1⏎ y                                     →   ("", y)
/// ```
/// # Shapes
/// `text` is what the model wrote after the instruction. Numbers after `Example`, `Input` and `Output` are
/// optional. A text with neither `Example` nor `Output:` has no instance.
/// # Errors
/// None.
/// # Properties
/// * After [`Finish::Length`] the last instance is dropped: it may be cut off.
/// * The result obeys [`clean`].
/// # Departures
/// None known.
/// # Examples
/// ```
/// use candle_align::data::self_instruct::{filter::Finish, instances::generation_instances};
///
/// let text = "Example 1\nInput: 2+2\nOutput: 4\nExample 2\nInput: 3+3\nOutput: 6";
/// let found = generation_instances(text, Finish::Stop);
/// assert_eq!(found[1].input, "3+3");
/// assert_eq!(found[1].output, "6");
/// assert_eq!(generation_instances(text, Finish::Length).len(), 1);
/// ```
/// # Source
/// Wang et al. 2022, arXiv:2212.10560; authors' code yizhongw/self-instruct,
/// `self_instruct/prepare_for_finetuning.py`, `parse_instances_for_generation_task`.
#[doc(alias = "input-first")]
pub fn generation_instances(text: &str, finish: Finish) -> Vec<Instance> {
    let text = text.trim_matches(is_blank);
    let parts = split_at_heading(text, "Example", After::Point);
    let mut instances: Vec<Instance> = match parts.len() {
        1 if split_at_heading(text, "Output", After::Colon).len() == 1 => Vec::new(),
        1 => vec![input_first(text)],
        _ => {
            let parts = parts.iter().map(|part| part.trim_matches(is_blank));
            parts.filter(|p| !p.is_empty()).map(input_first).collect()
        }
    };
    if finish == Finish::Length {
        instances.pop();
    }
    clean(instances)
}

/// Reads the instances that a model wrote output-first, and cleans them.
///
/// # Equation
/// ```text
/// Class label: y₁⏎x₁⏎ Class label: y₂⏎x₂ …   →   (x₁, y₁), (x₂, y₂), …
/// ```
/// # Shapes
/// `text` is what the model wrote after the instruction. The label is the rest of its line; the input is
/// everything up to the next label, and empty if there is nothing.
/// # Errors
/// None.
/// # Properties
/// * After [`Finish::Length`] the last instance is dropped: it may be cut off.
/// * The result obeys [`clean`].
/// * Asked for inputs first, models write inputs of one class again and again; a label that comes first
///   is chosen freely.
/// # Departures
/// None known.
/// # Examples
/// ```
/// use candle_align::data::self_instruct::{filter::Finish, instances::classification_instances};
///
/// let text = "Class label: glad\nWhat a day!\nClass label: sad\nRain again.";
/// let found = classification_instances(text, Finish::Stop);
/// assert_eq!(found[0].input, "What a day!");
/// assert_eq!(found[0].output, "glad");
/// ```
/// # Source
/// Wang et al. 2022, arXiv:2212.10560, §2.2; authors' code yizhongw/self-instruct,
/// `self_instruct/prepare_for_finetuning.py`, `parse_instances_for_classification_task`.
#[doc(alias = "output-first")]
pub fn classification_instances(text: &str, finish: Finish) -> Vec<Instance> {
    let parts = text.split("Class label:").skip(1);
    let mut instances: Vec<Instance> = parts
        .map(|part| {
            let part = part.trim_matches(is_blank);
            let (label, input) = part.split_once('\n').unwrap_or((part, ""));
            Instance {
                input: input.trim_matches(is_blank).to_string(),
                output: label.trim_matches(is_blank).to_string(),
            }
        })
        .collect();
    if finish == Finish::Length {
        instances.pop();
    }
    clean(instances)
}

/// One `Input: x Output: y`; without `Output:` all of it is the output.
fn input_first(text: &str) -> Instance {
    let parts = split_at_heading(text, "Output", After::Colon);
    let (input, output) = match parts[..] {
        [input, output, ..] => (input, output),
        _ => ("", text),
    };
    let trim = |text: &str| text.trim_matches(is_blank).to_string();
    // a second pair that was written on
    let output = split_at_heading(output, "Input", After::Colon)[0];
    let input = input.trim_matches(is_blank);
    let own = heading(input, "Input", After::Colon).unwrap_or(0);
    Instance {
        input: trim(&input[own..]),
        output: trim(output),
    }
}

/// What follows a heading's number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// A point that may be missing, directly after the number.
    Point,
    /// A colon, after any blanks.
    Colon,
}

/// The bytes of a heading at the start of the text: its word, blanks and a number.
fn heading(text: &str, word: &str, after: After) -> Option<usize> {
    let rest = text.strip_prefix(word)?;
    let skip = |text: &str, of: fn(char) -> bool| text.len() - text.trim_start_matches(of).len();
    let digit: fn(char) -> bool = |c| c.is_ascii_digit();
    let mut at = match after {
        After::Colon => skip(rest, is_blank),
        After::Point => rest
            .chars()
            .next()
            .filter(|&c| is_blank(c))
            .map_or(0, char::len_utf8),
    };
    at += skip(&rest[at..], digit);
    match after {
        After::Point => at += usize::from(rest[at..].starts_with('.')),
        After::Colon => {
            at += skip(&rest[at..], is_blank);
            at += rest[at..].starts_with(':').then_some(1)?;
        }
    }
    Some(word.len() + at)
}

/// The texts before, between and after the headings of one word.
fn split_at_heading<'a>(text: &'a str, word: &str, after: After) -> Vec<&'a str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    for (at, _) in text.match_indices(word) {
        if let Some(length) = heading(&text[at..], word, after).filter(|_| at >= start) {
            parts.push(&text[start..at]);
            start = at + length;
        }
    }
    parts.push(&text[start..]);
    parts
}
