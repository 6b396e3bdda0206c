//! Attributed prompts: each one asks for another combination of attributes (survey §2.2.1, AttrPrompt).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | attribute dimensions and their values | [`Attribute`] | names |
//! | class-dependent values | [`Attribute::by_class`] | class to names |
//! | a random configuration | [`attributed_prompt`] | text |
//!
//! Read next: [`super::self_instruct`], which gets its variety from examples instead.

use super::template::{Template, twice};
use crate::error::{Error, Result, shown};
use rand::Rng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};

/// One dimension along which generated texts should differ, such as length or place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Attribute {
    /// The name of its slot in the template.
    pub name: String,
    /// Its values for every class that is not in `by_class`.
    pub values: Vec<String>,
    /// Its values for some classes, such as the topics of a field.
    pub by_class: Vec<(String, Vec<String>)>,
}

/// Draws a value for each attribute and fills the template.
///
/// # Equation
/// ```text
/// v_a ~ uniform(values of a for the class), independently for each attribute a
/// ```
/// # Shapes
/// The template has the slot `{class}` and one slot for each attribute, by its name.
/// # Errors
/// [`Error::Argument`] if the template's slots are others, if an attribute is there twice or is called
/// `class`, or if an attribute has no value for the class.
/// # Properties
/// * k attributes with n values each give nᵏ prompts for a class, all equally likely. One fixed prompt would
///   give texts that are all alike in what it does not say.
/// * One seed of the generator gives one prompt.
/// # Departures
/// The authors first ask a model for dimensions and values, choose among them by hand, and leave out values
/// that belong to another class by a filter on embeddings. Here they are the caller's.
/// # Examples
/// ```
/// use candle_align::data::attributes::{Attribute, attributed_prompt};
/// use candle_align::data::Template;
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let template = Template::new("Write {length} news about {topic} ({class}).")?;
/// let length = Attribute { name: "length".into(), values: vec!["short".into()], ..Default::default() };
/// let topic = Attribute {
///     name: "topic".into(),
///     by_class: vec![("sports".into(), vec!["rowing".into()])],
///     ..Default::default()
/// };
/// let mut rng = StdRng::seed_from_u64(0);
/// let prompt = attributed_prompt(&template, "sports", &[length, topic], &mut rng)?;
/// assert_eq!(prompt, "Write short news about rowing (sports).");
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Yu et al. 2023, arXiv:2306.15895. Read: the files of values in the authors' code yueyu1030/AttrPrompt,
/// some for all classes and some for each; the rest is from memory.
#[doc(alias = "AttrPrompt")]
pub fn attributed_prompt(
    template: &Template,
    class: &str,
    attributes: &[Attribute],
    rng: &mut impl Rng,
) -> Result<String> {
    let function = "attributed_prompt";
    let names: Vec<&str> = attributes.iter().map(|a| a.name.as_str()).collect();
    let slots = [&["class"], &names[..]].concat();
    if let Some(name) = twice(slots.iter().copied()) {
        let problem = format!("have `{}` twice", shown(name));
        return Err(Error::argument(function, "attributes", problem));
    }
    template.require(function, "template", &slots)?;
    let mut values = vec![("class", class)];
    for (i, attribute) in attributes.iter().enumerate() {
        let own = attribute.by_class.iter().find(|(name, _)| name == class);
        let list = own.map_or(&attribute.values, |(_, values)| values);
        let Some(value) = list.choose(rng) else {
            let problem = format!("has no value for the class `{}`", shown(class));
            return Err(Error::argument(
                function,
                format!("attributes[{i}]"),
                problem,
            ));
        };
        values.push((&attribute.name, value));
    }
    template.fill(&values)
}
