//! What Self-Instruct asks the model: for more instructions, and for instances of one (survey §2.2.1).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | 8 instructions in a prompt, 6 by people and 2 generated | [`BootstrapConfig`] | numbers |
//! | "Come up with a series of tasks" | [`bootstrap_prompt`] | text |
//! | classification: output-first; everything else: input-first | [`InstanceOrder`], [`instance_prompt`] | text |
//!
//! Read next: [`super::instances`], which reads the answers.

use super::instances::Instance;
use crate::error::{Error, Result, require};
use crate::text::is_blank;
use rand::Rng;
use rand::seq::{SliceRandom, index};
use serde::{Deserialize, Serialize};

/// Settings of [`bootstrap_prompt`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BootstrapConfig {
    /// How many instructions a prompt shows, at least 1. Default 8.
    pub examples: usize,
    /// How many of them were generated, at most `examples`; fewer while the pool has fewer. Default 2.
    pub generated: usize,
    /// The line above the list.
    pub request: String,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        Self {
            examples: 8,
            generated: 2,
            request: "Continue this list of varied tasks:".to_string(),
        }
    }
}

/// Draws examples and writes the prompt that asks for more instructions.
///
/// # Equation
/// ```text
/// g = min(2, generated),   8 − g seeds,   both without replacement, shuffled together
///
/// request⏎ 1. instruction⏎ … 8. instruction⏎ 9.
/// ```
/// # Shapes
/// `seeds` were written by people, `generated` by the model; the prompt ends with the next number, for the
/// model to go on.
/// # Errors
/// [`Error::Parameter`] if `examples` is 0 or `generated` is above it; [`Error::Argument`] if there are
/// fewer seeds than a prompt needs.
/// # Properties
/// * One seed of the generator gives one prompt.
/// * In the first rounds, when nothing was generated, seeds take all places.
/// * The blanks inside an instruction become single ones and a colon at its end is dropped, so that the list
///   stays a list.
/// # Departures
/// The request is this crate's wording; pass the authors' to repeat their runs. The draws come from another
/// generator than Python's.
/// # Examples
/// ```
/// use candle_align::data::self_instruct::prompt::*;
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let config = BootstrapConfig { examples: 3, generated: 1, request: "More tasks:".into() };
/// let seeds = ["Name a city.", "Sum up:", "Translate."];
/// let prompt = bootstrap_prompt(&seeds, &["Tell a joke."], &config, &mut StdRng::seed_from_u64(0))?;
/// assert!(prompt.starts_with("More tasks:\n1. ") && prompt.ends_with("\n4."));
/// assert!(prompt.contains(". Tell a joke.\n"));
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Wang et al. 2022, arXiv:2212.10560, §2.2; authors' code yizhongw/self-instruct,
/// `self_instruct/bootstrap_instructions.py`, `encode_prompt`.
pub fn bootstrap_prompt<S: AsRef<str>, G: AsRef<str>>(
    seeds: &[S],
    generated: &[G],
    config: &BootstrapConfig,
    rng: &mut impl Rng,
) -> Result<String> {
    let function = "bootstrap_prompt";
    require(
        config.examples > 0,
        function,
        "examples",
        ">= 1",
        config.examples,
    )?;
    let at_most = "at most `examples`";
    let fits = config.generated <= config.examples;
    require(fits, function, "generated", at_most, config.generated)?;
    let machine = config.generated.min(generated.len());
    let human = config.examples - machine;
    if seeds.len() < human {
        let problem = format!(
            "has {} instructions, and a prompt shows {human}",
            seeds.len()
        );
        return Err(Error::argument(function, "seeds", problem));
    }
    let drawn = index::sample(rng, generated.len(), machine);
    let mut shown: Vec<&str> = drawn.iter().map(|i| generated[i].as_ref()).collect();
    let drawn = index::sample(rng, seeds.len(), human);
    shown.extend(drawn.iter().map(|i| seeds[i].as_ref()));
    shown.shuffle(rng);

    let mut prompt = format!("{}\n", config.request);
    for (i, instruction) in shown.iter().enumerate() {
        let words = instruction.split(is_blank).filter(|word| !word.is_empty());
        let line = words.collect::<Vec<_>>().join(" ");
        let line = line.trim_end_matches(':');
        prompt.push_str(&format!("{}. {line}\n", i + 1));
    }
    Ok(prompt + &format!("{}.", shown.len() + 1))
}

/// Which part of an instance the model writes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceOrder {
    /// The input, then the output.
    InputFirst,
    /// The class, then an input of that class.
    OutputFirst,
}

impl InstanceOrder {
    /// The order for a task that is a classification, or is none.
    pub fn of_task(is_classification: bool) -> Self {
        match is_classification {
            true => Self::OutputFirst,
            false => Self::InputFirst,
        }
    }
}

/// A task with instances, to show how they are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The instruction.
    pub instruction: String,
    /// Its instances.
    pub instances: Vec<Instance>,
}

/// Writes the prompt that asks for instances of an instruction.
///
/// # Equation
/// ```text
/// input-first:    request⏎⏎ Task: instruction⏎ Example 1⏎ Input: x⏎ Output: y⏎ …⏎⏎ Task: instruction⏎
/// output-first:   request⏎⏎ Task: instruction⏎ Class label: y⏎ x⏎ …⏎⏎ Task: instruction⏎
/// ```
/// # Shapes
/// `shown` are tasks with instances, all of the same order as the new one; the prompt ends after the new
/// instruction. An input that is empty is left out, and so is its heading.
/// # Errors
/// [`Error::Argument`] if the instruction is empty or a task that is shown has no instance.
/// # Properties
/// * What is shown is read back by [`super::instances`]' functions as it was.
/// # Departures
/// The request and the tasks that are shown are the caller's; the authors show 19 to 31 tasks of their own
/// in each of the two prompts. The forms are theirs.
/// # Examples
/// ```
/// use candle_align::data::self_instruct::instances::Instance;
/// use candle_align::data::self_instruct::prompt::*;
///
/// let shown = [Task {
///     instruction: "Is the text glad or sad?".into(),
///     instances: vec![Instance { input: "What a day!".into(), output: "glad".into() }],
/// }];
/// let order = InstanceOrder::of_task(true);
/// let prompt = instance_prompt("Give the label first.", &shown, "Is it spam?", order)?;
/// assert_eq!(
///     prompt,
///     "Give the label first.\n\nTask: Is the text glad or sad?\nClass label: glad\nWhat a day!\n\n\
///      Task: Is it spam?\n"
/// );
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Wang et al. 2022, arXiv:2212.10560, §2.2; authors' code yizhongw/self-instruct,
/// `self_instruct/templates/`, whose forms `self_instruct/prepare_for_finetuning.py` reads. The number of
/// tasks shown is from memory.
pub fn instance_prompt(
    request: &str,
    shown: &[Task],
    instruction: &str,
    order: InstanceOrder,
) -> Result<String> {
    let function = "instance_prompt";
    if instruction.is_empty() {
        return Err(Error::argument(function, "instruction", "is empty"));
    }
    let mut prompt = format!("{request}\n\n");
    for (i, task) in shown.iter().enumerate() {
        if task.instances.is_empty() {
            return Err(Error::argument(
                function,
                format!("shown[{i}].instances"),
                "is empty",
            ));
        }
        prompt.push_str(&format!("Task: {}\n", task.instruction));
        for (i, Instance { input, output }) in task.instances.iter().enumerate() {
            let lines = match (order, input.is_empty()) {
                (InstanceOrder::OutputFirst, true) => format!("Class label: {output}\n"),
                (InstanceOrder::OutputFirst, false) => format!("Class label: {output}\n{input}\n"),
                (InstanceOrder::InputFirst, true) => {
                    format!("Example {}\nOutput: {output}\n", i + 1)
                }
                (InstanceOrder::InputFirst, false) => {
                    format!("Example {}\nInput: {input}\nOutput: {output}\n", i + 1)
                }
            };
            prompt.push_str(&lines);
        }
        prompt.push('\n');
    }
    Ok(prompt + &format!("Task: {instruction}\n"))
}
