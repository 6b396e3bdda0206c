//! The modules that were trained as a whole.

use super::PREFIX;
use super::config::{PeftConfig, TaskType};

/// `modules_to_save`: a name stands for every module whose path ends in it.
pub(super) struct Saved<'a> {
    names: &'a [String],
    classifies: bool,
}

/// PEFT adds both for a classification task; a model has one of them.
const HEADS: [&str; 2] = ["classifier", "score"];

impl<'a> Saved<'a> {
    pub(super) fn new(config: &PeftConfig, names: &'a [String]) -> Self {
        use TaskType::{SequenceClassification, TokenClassification};
        let classes = [SequenceClassification, TokenClassification];
        Self {
            names,
            classifies: config.task.is_some_and(|task| classes.contains(&task)),
        }
    }

    /// Whether a parameter belongs to such a module.
    pub(super) fn holds(&self, parameter: &str) -> bool {
        self.names.iter().any(|name| below(parameter, name))
    }

    /// The names without a parameter; for a classification task one head is enough.
    pub(super) fn missing<'b>(
        &self,
        parameters: impl Iterator<Item = &'b String> + Clone,
    ) -> Vec<&'a str> {
        let found = |name: &str| parameters.clone().any(|parameter| below(parameter, name));
        let head = self.classifies && HEADS.iter().any(|head| found(head));
        let idle = |name: &&str| !(found(name) || head && HEADS.contains(name));
        self.names.iter().map(String::as_str).filter(idle).collect()
    }

    /// Whether PEFT will ask for a head that is not among these parameters.
    pub(super) fn needs_head<'b>(&self, mut parameters: impl Iterator<Item = &'b String>) -> bool {
        self.classifies && !parameters.any(|name| HEADS.iter().any(|head| below(name, head)))
    }
}

/// Whether a parameter belongs to a module whose path ends in `name`.
fn below(parameter: &str, name: &str) -> bool {
    let dots = parameter.match_indices('.');
    dots.map(|(at, _)| &parameter[..at])
        .any(|path| path.ends_with(name))
}

/// The parameter of the base of which this is a copy in PEFT's memory, if it is one: a bias in
/// `original_module` or `modules_to_save`.
pub(super) fn base_parameter(name: &str) -> Option<String> {
    let name = name.strip_prefix(PREFIX)?;
    let copies = [
        ".original_module.",
        ".modules_to_save.default.",
        ".modules_to_save.",
    ];
    let found = copies.iter().find(|copy| name.contains(*copy))?;
    name.ends_with(".bias")
        .then(|| name.replacen(found, ".", 1))
}
