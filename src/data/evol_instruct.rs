//! Evol-Instruct: an instruction is rewritten to be harder, or a rarer one is made after it (survey §2.2.1,
//! WizardLM).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | in-depth evolving, five operations; in-breadth evolving | [`Evolution`] | one of six |
//! | the prompt of an operation | [`EvolveConfig::prompt`] | text |
//! | elimination evolving, four rules | [`elimination`] | texts to [`Elimination`] |
//!
//! Read next: [`super::lion`], which asks for harder instructions where the student is behind.

use super::template::{Template, known};
use crate::error::{Error, Result};
use rand::Rng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};

/// How an instruction evolves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evolution {
    /// In depth: one more requirement.
    AddConstraints,
    /// In depth: a deeper and broader question.
    Deepen,
    /// In depth: particular things for general ones.
    Concretize,
    /// In depth: more steps of reasoning.
    IncreaseReasoning,
    /// In depth: an input in a form such as a table, code or a formula.
    ComplicateInput,
    /// In breadth: another instruction of the same field, and a rarer one.
    Mutate,
}

impl Evolution {
    /// The six operations of the paper.
    pub const PAPER: [Self; 6] = [
        Self::AddConstraints,
        Self::Deepen,
        Self::Concretize,
        Self::IncreaseReasoning,
        Self::ComplicateInput,
        Self::Mutate,
    ];
    /// The five of the authors' published code, which has no prompt that complicates the input.
    pub const CODE: [Self; 5] = [
        Self::AddConstraints,
        Self::Deepen,
        Self::Concretize,
        Self::IncreaseReasoning,
        Self::Mutate,
    ];

    /// One of these operations, each as likely as the others; `None` if there is none.
    pub fn draw(operations: &[Self], rng: &mut impl Rng) -> Option<Self> {
        operations.choose(rng).copied()
    }
}

/// The wording of the prompts. Slots: `{method}` and `{instruction}` in `depth`, `{instruction}` in `breadth`.
#[doc(alias = "WizardLM")]
#[doc(alias = "WizardCoder")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvolveConfig {
    /// The prompt of the five operations in depth.
    pub depth: Template,
    /// The prompt of [`Evolution::Mutate`].
    pub breadth: Template,
    /// The `{method}` of [`Evolution::AddConstraints`].
    pub add_constraints: String,
    /// The `{method}` of [`Evolution::Deepen`].
    pub deepen: String,
    /// The `{method}` of [`Evolution::Concretize`].
    pub concretize: String,
    /// The `{method}` of [`Evolution::IncreaseReasoning`].
    pub increase_reasoning: String,
    /// The `{method}` of [`Evolution::ComplicateInput`].
    pub complicate_input: String,
}

const DEPTH: &str = "Rewrite the instruction below into a harder one that people can still understand and answer. \
Keep all tables, code and inputs. {method} Add no more than 10 to 20 words. Do not use the words \"given prompt\" \
or \"rewritten prompt\".\n\n#Given Prompt#:\n{instruction}\n\n#Rewritten Prompt#:\n";
const BREADTH: &str = "Write a new instruction, inspired by the one below: of the same field, but about something \
rarer, and about as long and as hard. Do not use the words \"given prompt\" or \"created prompt\".\n\n\
#Given Prompt#:\n{instruction}\n\n#Created Prompt#:\n";

impl Default for EvolveConfig {
    fn default() -> Self {
        Self {
            depth: known(DEPTH),
            breadth: known(BREADTH),
            add_constraints: "Add one more constraint or requirement.".to_string(),
            deepen: "Make its question deeper and broader.".to_string(),
            concretize: "Replace general concepts by more specific ones.".to_string(),
            increase_reasoning: "Make it ask for several steps of reasoning.".to_string(),
            complicate_input:
                "Give it an input in another form, such as a table, code or a formula.".to_string(),
        }
    }
}

impl EvolveConfig {
    /// Writes the prompt of an operation.
    ///
    /// # Equation
    /// ```text
    /// in depth:     depth with the operation's method and the instruction
    /// in breadth:   breadth with the instruction
    /// ```
    /// # Shapes
    /// Text to text. The model's answer is the evolved instruction; its response is asked for apart.
    /// # Errors
    /// [`Error::Argument`] if the instruction is empty, or if a template has not exactly the slots of
    /// [`EvolveConfig`].
    /// # Properties
    /// * The five prompts in depth differ in the method alone.
    /// * Braces in the instruction stay as they are.
    /// # Departures
    /// * The wording is this crate's. The headings, the limit of 10 to 20 words and the ban on the prompt's
    ///   own words are the authors'; [`elimination`] looks for the latter.
    /// * The paper shows examples in the prompt that complicates the input.
    /// # Examples
    /// ```
    /// use candle_align::data::evol_instruct::{Evolution, EvolveConfig};
    /// use rand::{SeedableRng, rngs::StdRng};
    ///
    /// let operation = Evolution::draw(&Evolution::PAPER, &mut StdRng::seed_from_u64(3)).unwrap();
    /// let prompt = EvolveConfig::default().prompt("What is 1 + 1?", operation)?;
    /// assert!(prompt.contains("#Given Prompt#:\nWhat is 1 + 1?\n"));
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Source
    /// Xu et al. 2023, arXiv:2304.12244, §3.2; authors' code nlpxucan/WizardLM, `Evol_Instruct/depth.py`,
    /// `Evol_Instruct/breadth.py`, and `Evol-Instruct/main.py`, which draws operations uniformly.
    pub fn prompt(&self, instruction: &str, operation: Evolution) -> Result<String> {
        let function = "EvolveConfig::prompt";
        if instruction.is_empty() {
            return Err(Error::argument(function, "instruction", "is empty"));
        }
        self.depth
            .require(function, "depth", &["method", "instruction"])?;
        self.breadth
            .require(function, "breadth", &["instruction"])?;
        let method = match operation {
            Evolution::AddConstraints => &self.add_constraints,
            Evolution::Deepen => &self.deepen,
            Evolution::Concretize => &self.concretize,
            Evolution::IncreaseReasoning => &self.increase_reasoning,
            Evolution::ComplicateInput => &self.complicate_input,
            Evolution::Mutate => return self.breadth.fill(&[("instruction", instruction)]),
        };
        self.depth
            .fill(&[("method", method), ("instruction", instruction)])
    }
}

/// Why an evolved instruction is eliminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elimination {
    /// Its words tell nothing that the instruction before it did not.
    NoGain,
    /// The response has "sorry" in it and fewer than 80 words: the model could not answer.
    Sorry,
    /// The response has nothing but punctuation and stop words.
    NoContent,
    /// It has words of the prompt that it was made with, such as "given prompt".
    Leak,
}

/// What the evolved instruction must not have in it.
const LEAKS: [&str; 3] = ["given prompt", "rewritten prompt", "created prompt"];

/// Words without content, about those of common English lists.
const STOP_WORDS: &str = "a about above after again against all am an and any are as at be because been before \
being below between both but by can could did do does doing don down during each few for from further had has have \
having he her here hers herself him himself his how i if in into is it its itself just me more most my myself no \
nor not now of off on once only or other our ours ourselves out over own s same she should so some such t than that \
the their theirs them themselves then there these they this those through to too under until up very was we were \
what when where which while who whom why will with would you your yours yourself yourselves";

/// Whether an evolution failed, and by which rule.
///
/// # Equation
/// ```text
/// failed  ⇔  gains(before, evolved) is false                         asked of a model
///         ∨  "sorry" in the response, and it has fewer than 80 words
///         ∨  the response has only punctuation and stop words
///         ∨  "given prompt", "rewritten prompt" or "created prompt" in the evolved instruction
/// ```
/// # Shapes
/// Texts in, a rule or nothing out. `gains` says whether the evolved instruction adds anything to the one
/// before. It asks a model, so it is called last, and only if no other rule is met.
/// # Errors
/// Those of `gains`.
/// # Properties
/// * An empty response has no content.
/// * Case does not matter; words are separated by blanks.
/// * An instruction that failed goes back into the pool as it was, to evolve in another round.
/// # Departures
/// * The authors' code publishes no elimination. The rules are the paper's; the list of stop words is this
///   crate's, because the paper names none.
/// * An instruction that came unchanged out of its evolution gains nothing: `gains` is not asked.
/// # Examples
/// ```
/// use candle_align::data::evol_instruct::{Elimination, elimination};
///
/// let gains = |_: &str, _: &str| Ok(true);
/// let rule = |evolved: &str, response: &str| elimination("Add 1 and 1.", evolved, response, gains);
/// assert_eq!(rule("Add 1, 1 and 2.", "4")?, None);
/// assert_eq!(rule("Add 1, 1 and 2.", "Sorry, I cannot add.")?, Some(Elimination::Sorry));
/// assert_eq!(rule("Add 1, 1 and 2.", "And so on …")?, Some(Elimination::NoContent));
/// assert_eq!(rule("Rewritten Prompt: add 3.", "3")?, Some(Elimination::Leak));
/// assert_eq!(rule("Add 1 and 1.", "2")?, Some(Elimination::NoGain));
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Xu et al. 2023, arXiv:2304.12244, §3.2, from two summaries of the paper that agree.
pub fn elimination(
    before: &str,
    evolved: &str,
    response: &str,
    gains: impl FnOnce(&str, &str) -> Result<bool>,
) -> Result<Option<Elimination>> {
    if evolved.trim() == before.trim() {
        return Ok(Some(Elimination::NoGain));
    }
    let said = response.to_lowercase();
    if said.contains("sorry") && said.split_whitespace().count() < 80 {
        return Ok(Some(Elimination::Sorry));
    }
    let mut words = said.split(|c: char| !c.is_alphanumeric());
    if words.all(|word| word.is_empty() || STOP_WORDS.split(' ').any(|stop| stop == word)) {
        return Ok(Some(Elimination::NoContent));
    }
    let written = evolved.to_lowercase();
    if LEAKS.iter().any(|leak| written.contains(leak)) {
        return Ok(Some(Elimination::Leak));
    }
    Ok((!gains(before, evolved)?).then_some(Elimination::NoGain))
}
