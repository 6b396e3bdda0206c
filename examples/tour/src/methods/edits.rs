//! Second Thoughts: from a first answer, through edits, to a better one.

use super::Title;
use super::chains::{Lesson, every_prompt, on_chains, pairs, written};
use super::estimate::{Chain, Revision};
use crate::Result;
use crate::lab::Lab;
use crate::report::Entry;
use crate::world::{Answer, EDITS, STOP};
use candle_align::language::edits::{EditCosts, edit_script};
use candle_align::language::second_thoughts::{
    EditTokens, second_thoughts_prompt, second_thoughts_sequence,
};
use candle_align::{Sample, Sequence};
use indicatif::MultiProgress;
use rand::rngs::StdRng;
use serde::Serialize;
use support::transformer::Transformer;

/// The draft is a rejected answer, the target the one preferred to it; drafts to edit are the
/// reference's own.
pub fn second_thoughts(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let o = EDITS;
    let editing = Editing {
        tokens: EditTokens {
            separator: o,
            insert: o + 1,
            delete: o + 2,
            replace: o + 3,
            content: o + 4,
            target: o + 5,
            digits: std::array::from_fn(|digit| o + 6 + digit as u32),
        },
        costs: EditCosts {
            replace: 0.5,
            ..Default::default()
        },
    };
    let kind = Lesson {
        format: &editing,
        data: "labeled pairs: from the rejected answer to the chosen one",
        purpose: 43,
    };
    on_chains(lab, title, bars, kind, &editing, |rng| {
        let pairs = pairs(lab, rng).into_iter();
        pairs
            .map(|(good, bad)| editing.chain(lab, good.prompt, bad.outcome, good.outcome))
            .collect()
    })
}

#[derive(Serialize)]
struct Editing {
    tokens: EditTokens,
    costs: EditCosts,
}

impl Editing {
    /// Prompt, draft, edits, target and end; the loss covers everything from the edits on.
    fn chain(&self, lab: &Lab, prompt: usize, draft: usize, answer: usize) -> Result<Sequence> {
        let [draft, answer] = [draft, answer].map(|outcome| lab.world.filled(outcome));
        let script = edit_script(&draft, &answer, &self.costs)?;
        let context = lab.world.prompt(prompt);
        let sequence = second_thoughts_sequence(&context, &draft, &script, &self.tokens)?;
        Ok(sequence.learned(&[STOP]))
    }

    /// The target, if the edits are the cheapest way to it.
    fn read(&self, lab: &Lab, draft: usize, drawn: &Sample) -> Option<usize> {
        let (script, target) = self.tokens.parse(drawn.answer()).ok()?;
        let target = target.strip_suffix(&[STOP])?;
        let outcome = lab.world.read_filled(target)?;
        let cheapest = edit_script(&lab.world.filled(draft), target, &self.costs).ok()?;
        (script == cheapest).then_some(outcome)
    }
}

impl Revision for Editing {
    fn draw(&self, lab: &Lab, policy: &Transformer, rng: &mut StdRng) -> Result<Vec<Chain>> {
        let drafts: Vec<Answer> = every_prompt(lab).map(|p| lab.draw(p, rng)).collect();
        let contexts: Vec<Vec<u32>> = drafts
            .iter()
            .map(|draft| {
                let context = lab.world.prompt(draft.prompt);
                let source = lab.world.filled(draft.outcome);
                second_thoughts_prompt(&context, &source, &self.tokens)
            })
            .collect::<Result<_, _>>()?;
        let longest = 5 * lab.world.tokens + 2;
        let drawn = written(policy, &contexts, STOP, longest, rng)?;
        let chains = drafts.iter().zip(&drawn).map(|(draft, drawn)| Chain {
            prompt: draft.prompt,
            draft: Some(draft.outcome),
            answer: self.read(lab, draft.outcome, drawn),
        });
        Ok(chains.collect())
    }

    fn kept(&self, _: &Lab, _: Answer) -> Result<Option<Sequence>> {
        Ok(None)
    }

    fn stands(&self, _: Answer) -> bool {
        false
    }

    fn revised(&self, lab: &Lab, draft: usize, answer: Answer) -> Result<Sequence> {
        self.chain(lab, answer.prompt, draft, answer.outcome)
    }
}
