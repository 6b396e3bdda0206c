//! Second Thoughts: learn to edit a bad answer into a good one, step by step (survey §3.2.2).
//!
//! In one sentence: given a context and a bad source, learn to write the edits that repair the source,
//! then the repaired text.
//!
//! | paper | here |
//! |---|---|
//! | chain of edits, by dynamic programming | [`edit_script`](super::edits::edit_script) |
//! | special tokens for operations, positions, contents | [`EditTokens`] |
//! | context, source, edits, target in one sequence | [`second_thoughts_sequence`] |
//! | augmentation by several editing costs | [`edit_scripts`](super::edits::edit_scripts) |
//! | decipher: edits in plain language | [`decipher`] |
//! | inference: context and source are given | [`second_thoughts_prompt`], [`EditTokens::parse`] |
//!
//! Read next: [`edits`](super::edits), [`stable_alignment`](super::stable_alignment) (also led by Ruibo Liu,
//! with ratings in place of edits).

use super::edits::{Edit, EditScript};
use crate::error::{Error, Result};
use crate::sequence::{Encode, Sequence};
use serde::{Deserialize, Serialize};

/// The special tokens between the texts and inside an edit: sixteen distinct ids of the caller's
/// vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditTokens {
    /// Separates source and edits: the paper's \[SEP\].
    pub separator: u32,
    /// Begins an insertion.
    pub insert: u32,
    /// Begins a deletion.
    pub delete: u32,
    /// Begins a replacement.
    pub replace: u32,
    /// Announces the token that the edit puts in.
    pub content: u32,
    /// Ends the edits; the target follows.
    pub target: u32,
    /// The digits 0 to 9, used to write positions.
    pub digits: [u32; 10],
}

impl EditTokens {
    fn check(&self, function: &'static str) -> Result<()> {
        let mut all = vec![self.separator, self.insert, self.delete];
        all.extend([self.replace, self.content, self.target]);
        all.extend(self.digits);
        all.sort_unstable();
        match all.windows(2).find(|pair| pair[0] == pair[1]) {
            None => Ok(()),
            Some(pair) => {
                let problem = format!("give {} two meanings", pair[0]);
                Err(Error::argument(function, "tokens", problem))
            }
        }
    }

    /// Writes a script as tokens.
    ///
    /// # Equation
    /// ```text
    /// insert   →  INSERT  digits  CONTENT  token
    /// delete   →  DELETE  digits
    /// replace  →  REPLACE digits  CONTENT  token
    /// script   →  edit … edit  TARGET
    /// ```
    /// Exactly one token follows CONTENT, so it may be any token, even one of these sixteen.
    ///
    /// # Errors
    /// [`Error::Argument`] if two of the sixteen tokens are equal.
    ///
    /// # Examples
    /// ```
    /// # use candle_align::language::edits::{Edit, EditScript};
    /// # use candle_align::language::second_thoughts::EditTokens;
    /// let digits = [20, 21, 22, 23, 24, 25, 26, 27, 28, 29];
    /// let tokens = EditTokens { separator: 10, insert: 11, delete: 12, replace: 13, content: 14, target: 15, digits };
    /// let script = EditScript { edits: vec![Edit::Delete { position: 0 }, Edit::Insert { position: 31, token: 5 }] };
    /// let written = tokens.write(&script)?;
    /// assert_eq!(written, [12, 20, 11, 23, 21, 14, 5, 15]);
    /// assert_eq!(tokens.parse(&written)?, (script, &[][..]));
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    pub fn write(&self, script: &EditScript) -> Result<Vec<u32>> {
        self.check("EditTokens::write")?;
        let mut written = Vec::new();
        for edit in &script.edits {
            let (operation, content) = match edit {
                Edit::Insert { token, .. } => (self.insert, Some(*token)),
                Edit::Delete { .. } => (self.delete, None),
                Edit::Replace { token, .. } => (self.replace, Some(*token)),
            };
            written.push(operation);
            for digit in edit.position().to_string().bytes() {
                written.push(self.digits[usize::from(digit - b'0')]);
            }
            if let Some(token) = content {
                written.extend([self.content, token]);
            }
        }
        written.push(self.target);
        Ok(written)
    }

    /// Reads what a model wrote after [`second_thoughts_prompt`]: its edits, and the rest, which is its
    /// target (with whatever ends a sequence).
    ///
    /// The edits need not fit the source, and need not lead to the model's target:
    /// [`EditScript::apply`] tells.
    ///
    /// # Errors
    /// [`Error::Argument`] with the place, counted from 0, where the tokens stop being a script:
    /// something other than an operation or the end of the edits, an operation without a position, a
    /// position too large for a number, a missing content, or an end before TARGET. Also if two of the
    /// sixteen tokens are equal.
    pub fn parse<'a>(&self, generated: &'a [u32]) -> Result<(EditScript, &'a [u32])> {
        let function = "EditTokens::parse";
        self.check(function)?;
        let refuse = |problem: String| Err(Error::argument(function, "generated", problem));
        let mut edits = Vec::new();
        let mut at = 0;
        loop {
            let start = at;
            let operation = match generated.get(at) {
                Some(&token) if token == self.target => {
                    return Ok((EditScript { edits }, &generated[at + 1..]));
                }
                Some(&token) => token,
                None => return refuse(format!("ends at {at}, before the end of the edits")),
            };
            if ![self.insert, self.delete, self.replace].contains(&operation) {
                let problem = "neither an operation nor the end of the edits";
                return refuse(format!("has {operation} at {start}, {problem}"));
            }
            at += 1;

            // a position in decimal digits
            let mut position = None;
            while let Some(digit) = generated.get(at).and_then(|&token| self.digit(token)) {
                let longer = position.unwrap_or(0usize).checked_mul(10);
                position = longer.and_then(|p| p.checked_add(digit));
                if position.is_none() {
                    return refuse(format!("has a position at {} beyond any text", start + 1));
                }
                at += 1;
            }
            let Some(position) = position else {
                return refuse(format!("has no position after the operation at {start}"));
            };

            if operation == self.delete {
                edits.push(Edit::Delete { position });
                continue;
            }
            let token = match generated.get(at..at + 2) {
                Some(&[marker, token]) if marker == self.content => token,
                _ => return refuse(format!("has no content for the operation at {start}")),
            };
            at += 2;
            edits.push(match operation == self.insert {
                true => Edit::Insert { position, token },
                false => Edit::Replace { position, token },
            });
        }
    }

    fn digit(&self, token: u32) -> Option<usize> {
        self.digits.iter().position(|&digit| digit == token)
    }
}

/// Writes the sequence to train on.
///
/// # Equation
/// ```text
/// context  source  SEP  edit … edit  TARGET  target
/// └───── given ─────┘  └───────── learned ────────┘
/// L = −Σₜ log P(yₜ│y₍<t₎) over the learned tokens                     sft_loss
/// ```
/// # Shapes
/// Takes tokens and returns a [`Sequence`]; [`SequenceBatch`](super::SequenceBatch) turns several into
/// tensors. The target is computed by applying the script to the source, so the two cannot disagree.
/// # Errors
/// [`Error::Argument`] if the script does not fit the source ([`EditScript::apply`]) or two of the
/// sixteen tokens are equal.
/// # Properties
/// * The given part is [`second_thoughts_prompt`]. [`EditTokens::parse`] on the learned part returns
///   the script and the target.
/// * [`sft_loss`](crate::sft_loss) has gradient −1 at each learned token and 0 at each given one:
///   context and source are read, not learned.
/// * A source that needs no edits still teaches something: to write no edit, and the source again.
/// # Departures
/// * The paper refines this stage by reinforcement learning, which is not implemented here: neither
///   adversarial imitation (with negative samples made in the same way) nor value modeling.
/// * The paper also marks operations, positions and contents with special tokens. Which tokens, and in
///   which order, is this crate's choice, as are the digits of positions and the token before the
///   target. [`decipher`] writes edits in words instead.
/// * The loss covers only edits and target. The paper trains by language modeling on these sequences;
///   `Sequence::new().learned(sequence.tokens())` counts the context and the source too.
/// * No token ends the sequence: add yours with `.learned(&[end])`.
/// * The survey describes the method in words and prints no equation.
/// # Examples
/// ```
/// use candle_align::language::edits::{EditCosts, edit_script};
/// use candle_align::language::second_thoughts::{EditTokens, second_thoughts_sequence};
///
/// let digits = [20, 21, 22, 23, 24, 25, 26, 27, 28, 29];
/// let tokens = EditTokens { separator: 10, insert: 11, delete: 12, replace: 13, content: 14, target: 15, digits };
/// let script = edit_script(&[1, 2, 3], &[1, 4, 3], &EditCosts::default())?;
///
/// let sequence = second_thoughts_sequence(&[9, 9], &[1, 2, 3], &script, &tokens)?.learned(&[0]);
/// //                             context  source   SEP  replace 1 by 4  TARGET target   end
/// assert_eq!(sequence.tokens(), [9, 9,    1, 2, 3, 10,  13, 21, 14, 4,  15,    1, 4, 3, 0]);
/// assert_eq!(sequence.mask(),   [0, 0,    0, 0, 0, 0,   1,  1,  1,  1,  1,     1, 1, 1, 1]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The loss alone says little: one wrong digit costs a few nats and breaks the whole script. Count the
///   generated outputs that [`EditTokens::parse`] accepts.
/// * Of those, count how often [`EditScript::apply`] on the source gives the target that the model wrote.
///   If this stays low while the loss falls, the model writes its target without following its edits.
/// # Try
/// * Write one repair under two cost sets, by hand. Solution: `cargo run --example edits`.
/// * Train on both scripts. How often does the model write each of them? Solution:
///   `tests/optimum/second_thoughts.rs::scripts_of_several_cost_sets_are_learned_in_their_shares`.
/// # Source
/// Liu et al. 2022, arXiv:2301.00355 (NeurIPS 2022), §3 and appendix A.1: edits, data format and
/// augmented edits modeling. Its reinforcement learning was not read: the abstract names it, appendix A.1
/// names the negative samples of the adversarial imitation, and value modeling is from memory.
#[doc(alias = "chain of edits")]
#[doc(alias = "AEM")]
pub fn second_thoughts_sequence(
    context: &[u32],
    source: &[u32],
    script: &EditScript,
    tokens: &EditTokens,
) -> Result<Sequence> {
    tokens.check("second_thoughts_sequence")?;
    let target = script.apply(source)?;
    Ok(Sequence::new()
        .given(context)
        .given(source)
        .given(&[tokens.separator])
        .learned(&tokens.write(script)?)
        .learned(&target))
}

/// Context, source and SEP: the prompt that a trained model continues with edits and target.
///
/// # Errors
/// [`Error::Argument`] if two of the sixteen tokens are equal.
pub fn second_thoughts_prompt(
    context: &[u32],
    source: &[u32],
    tokens: &EditTokens,
) -> Result<Vec<u32>> {
    tokens.check("second_thoughts_prompt")?;
    Ok([context, source, &[tokens.separator]].concat())
}

/// A script in plain language, one line per edit, as tokens. `encode` writes the words; the edited
/// tokens are inserted unchanged.
///
/// ```text
/// Insert "…" at position 3.
/// Delete "…" at position 3.
/// Replace "…" at position 3 with "…".
/// ```
/// Decode it with your tokenizer to read it, or use it in a [`Sequence`] in place of special tokens.
///
/// # Errors
/// [`Error::Argument`] if the script does not fit the source ([`EditScript::apply`]); the errors of
/// `encode`.
///
/// # Examples
/// ```
/// # use candle_align::Result;
/// # use candle_align::language::edits::{EditCosts, edit_script};
/// # use candle_align::language::second_thoughts::decipher;
/// let encode = |text: &str| -> Result<Vec<u32>> { Ok(text.bytes().map(u32::from).collect()) };
/// let (source, target) = (encode("cat")?, encode("can")?);
/// let script = edit_script(&source, &target, &EditCosts::default())?;
/// assert_eq!(
///     decipher(&script, &source, &encode)?,
///     encode("Replace \"t\" at position 2 with \"n\".\n")?
/// );
/// # Ok::<(), candle_align::Error>(())
/// ```
pub fn decipher(script: &EditScript, source: &[u32], encode: &impl Encode) -> Result<Vec<u32>> {
    script.apply(source)?;
    let mut lines = Vec::new();
    for edit in &script.edits {
        let position = edit.position();
        let (begin, first, end) = match edit {
            Edit::Insert { token, .. } => ("Insert", *token, ".\n"),
            Edit::Delete { .. } => ("Delete", source[position], ".\n"),
            Edit::Replace { .. } => ("Replace", source[position], " with \""),
        };
        lines.extend(encode.encode(&format!("{begin} \""))?);
        lines.push(first);
        lines.extend(encode.encode(&format!("\" at position {position}{end}"))?);
        if let Edit::Replace { token, .. } = edit {
            lines.push(*token);
            lines.extend(encode.encode("\".\n")?);
        }
    }
    Ok(lines)
}
