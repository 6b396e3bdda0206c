//! SelFee and self-debug: a first answer, a verdict, and a second answer if the verdict asks for one.
//!
//! SelFee judges its own answer; self-debug gets the result of a test. Its paper trains nothing but
//! prompts a large model; here the conversations are training data.

use super::Title;
use super::chains::{Lesson, every_prompt, on_chains, pairs, written};
use super::conditions::{BAD, GOOD, best_share};
use super::estimate::{Chain, Revision};
use crate::Result;
use crate::lab::Lab;
use crate::report::Entry;
use crate::world::{Answer, PROMPTS, STOP, encode};
use candle_align::language::revision::{
    Attempt, DebugFeedback, DebugFormat, DebugTurn, RevisionTemplate, debug_sequence,
};
use candle_align::language::revision::{DebugLearned, Verdict};
use candle_align::{Sample, Sequence};
use indicatif::MultiProgress;
use rand::Rng;
use rand::rngs::StdRng;
use serde::Serialize;
use support::transformer::Transformer;

/// Chains from labeled pairs: a chosen answer is kept; a rejected one is revised into the chosen one.
pub fn selfee(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let revising = Revising {
        // The feedback is only the verdict, which needs no heading.
        template: RevisionTemplate {
            feedback: String::new(),
            revision: String::new(),
        },
    };
    let kind = Lesson {
        format: &revising,
        data: "labeled pairs: half of the chains are a chosen answer, half a rejected one and then the chosen one",
        purpose: 44,
    };
    on_chains(lab, title, bars, kind, &revising, |rng| {
        let pairs = pairs(lab, rng).into_iter().enumerate();
        pairs
            .map(|(i, (good, bad))| match i % 2 {
                0 => revising.chain(lab, good.prompt, &[good.outcome]),
                _ => revising.chain(lab, good.prompt, &[bad.outcome, good.outcome]),
            })
            .collect()
    })
}

#[derive(Serialize)]
struct Revising {
    template: RevisionTemplate,
}

impl Revising {
    /// Answers with their verdicts: the last one is final.
    fn chain(&self, lab: &Lab, prompt: usize, answers: &[usize]) -> Result<Sequence> {
        let texts: Vec<String> = answers.iter().map(|&a| lab.world.text(a)).collect();
        let attempts = texts.iter().enumerate().map(|(i, answer)| {
            let (feedback, verdict) = match i + 1 == texts.len() {
                true => (GOOD, Verdict::Stop),
                false => (BAD, Verdict::Revise),
            };
            Attempt {
                answer,
                feedback,
                verdict,
            }
        });
        let attempts: Vec<Attempt> = attempts.collect();
        let prompt = lab.world.prompt_text(prompt);
        Ok(self.template.sequence(&encode, &prompt, &attempts, STOP)?)
    }

    /// First and last answer of a chain of one or two.
    fn read(&self, lab: &Lab, prompt: usize, drawn: &Sample) -> Chain {
        let is_verdict = |symbol: &u32| {
            [GOOD, BAD]
                .iter()
                .any(|v| encode(v).ok() == Some(vec![*symbol]))
        };
        let parts: Vec<&[u32]> = drawn.answer().split_inclusive(is_verdict).collect();
        let read = |part: &[u32]| -> (Option<usize>, bool) {
            match part.split_last() {
                Some((verdict, answer)) => (
                    lab.world.read(answer),
                    encode(GOOD).ok() == Some(vec![*verdict]),
                ),
                None => (None, false),
            }
        };
        let first = parts.first().map(|part| read(part));
        let answer = match parts[..] {
            [first, [STOP]] => Some(read(first)).filter(|(_, good)| *good),
            [first, second, [STOP]] => {
                let revise = !read(first).1 && read(first).0.is_some();
                Some(read(second)).filter(|(_, good)| *good && revise)
            }
            _ => None,
        };
        Chain {
            prompt,
            draft: first.and_then(|(draft, _)| draft),
            answer: answer.and_then(|(answer, _)| answer),
        }
    }
}

impl Revision for Revising {
    fn draw(&self, lab: &Lab, policy: &Transformer, rng: &mut StdRng) -> Result<Vec<Chain>> {
        let prompts: Vec<usize> = every_prompt(lab).collect();
        let contexts: Vec<Vec<u32>> = prompts
            .iter()
            .map(|&p| lab.world.prompt(p).to_vec())
            .collect();
        let longest = 2 * lab.world.tokens + 3;
        let drawn = written(policy, &contexts, STOP, longest, rng)?;
        let chains = prompts.iter().zip(&drawn);
        Ok(chains.map(|(&p, drawn)| self.read(lab, p, drawn)).collect())
    }

    fn kept(&self, lab: &Lab, answer: Answer) -> Result<Option<Sequence>> {
        Ok(Some(self.chain(lab, answer.prompt, &[answer.outcome])?))
    }

    fn stands(&self, _: Answer) -> bool {
        false
    }

    fn revised(&self, lab: &Lab, draft: usize, answer: Answer) -> Result<Sequence> {
        let whole = self.chain(lab, answer.prompt, &[draft, answer.outcome])?;
        let given = lab.world.prompt(answer.prompt).len() + lab.world.length(draft);
        let (given, learned) = whole.tokens().split_at(given);
        Ok(Sequence::new().given(given).learned(learned))
    }
}

/// An external test accepts the first answer if the reward model scores it above half of the
/// reference's answers. If not, the model writes a second answer, which is final.
pub fn self_debug(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let debugging = Debugging {
        format: DebugFormat {
            wrong: BAD.into(),
            right: GOOD.into(),
            learned: DebugLearned::Programs,
        },
        passes: best_share(lab, &lab.wait_for_learned()?.scores, 0.5),
    };
    let kind = Lesson {
        format: &debugging.format,
        data: "the reference's answers, tested; those that fail are followed by one that passes",
        purpose: 45,
    };
    on_chains(lab, title, bars, kind, &debugging, |rng| {
        let chain = |_| {
            let first = lab.draw(rng.random_range(0..PROMPTS), rng);
            let mut answers = vec![first.outcome];
            while !debugging.passes[first.prompt][answers[answers.len() - 1]] {
                answers.truncate(1);
                answers.push(lab.draw(first.prompt, rng).outcome);
            }
            debugging.chain(lab, first.prompt, &answers, DebugLearned::Programs)
        };
        (0..lab.sizes.batch).map(chain).collect()
    })
}

struct Debugging {
    format: DebugFormat,
    /// The test's result for every answer.
    passes: Vec<Vec<bool>>,
}

impl Debugging {
    /// One answer that passes, or two of which the first does not.
    fn chain(
        &self,
        lab: &Lab,
        prompt: usize,
        answers: &[usize],
        learned: DebugLearned,
    ) -> Result<Sequence> {
        let texts: Vec<String> = answers.iter().map(|&a| lab.world.text(a)).collect();
        let turns = texts.iter().enumerate().map(|(i, program)| DebugTurn {
            program,
            feedback: DebugFeedback::Simple,
            verdict: match i + 1 == texts.len() {
                true => Verdict::Stop,
                false => Verdict::Revise,
            },
        });
        let turns: Vec<DebugTurn> = turns.collect();
        let task = lab.world.prompt_text(prompt);
        let format = DebugFormat {
            learned,
            ..self.format.clone()
        };
        Ok(debug_sequence(&encode, &task, &turns, &format, STOP)?)
    }

    /// The context of the second answer.
    fn question(&self, lab: &Lab, prompt: usize, draft: Option<usize>) -> Result<Vec<u32>> {
        let mut text = encode(&lab.world.prompt_text(prompt))?;
        text.push(STOP);
        if let Some(draft) = draft {
            text.extend(encode(&lab.world.text(draft))?);
            text.push(STOP);
            text.extend(encode(&self.format.wrong)?);
            text.push(STOP);
        }
        Ok(text)
    }
}

impl Revision for Debugging {
    fn draw(&self, lab: &Lab, policy: &Transformer, rng: &mut StdRng) -> Result<Vec<Chain>> {
        let read = |drawn: &Sample| lab.world.read(drawn.answer().strip_suffix(&[STOP])?);
        let longest = lab.world.tokens + 1;
        let prompts: Vec<usize> = every_prompt(lab).collect();
        let contexts: Vec<Vec<u32>> = prompts
            .iter()
            .map(|&prompt| self.question(lab, prompt, None))
            .collect::<Result<_>>()?;
        let drafts = written(policy, &contexts, STOP, longest, rng)?;
        let mut chains: Vec<Chain> = prompts
            .iter()
            .zip(&drafts)
            .map(|(&prompt, drawn)| Chain {
                prompt,
                draft: read(drawn),
                answer: read(drawn),
            })
            .collect();
        // Failed answers get a second try.
        let fails = |c: &&mut Chain| c.draft.is_some_and(|d| !self.passes[c.prompt][d]);
        let mut failed: Vec<&mut Chain> = chains.iter_mut().filter(fails).collect();
        let contexts: Vec<Vec<u32>> = failed
            .iter()
            .map(|chain| self.question(lab, chain.prompt, chain.draft))
            .collect::<Result<_>>()?;
        let repaired = written(policy, &contexts, STOP, longest, rng)?;
        for (chain, drawn) in failed.iter_mut().zip(&repaired) {
            chain.answer = read(drawn);
        }
        Ok(chains)
    }

    fn kept(&self, lab: &Lab, answer: Answer) -> Result<Option<Sequence>> {
        if !self.passes[answer.prompt][answer.outcome] {
            return Ok(None);
        }
        let learned = DebugLearned::LastProgram;
        let chain = self.chain(lab, answer.prompt, &[answer.outcome], learned)?;
        Ok(Some(chain))
    }

    fn stands(&self, draft: Answer) -> bool {
        self.passes[draft.prompt][draft.outcome]
    }

    fn revised(&self, lab: &Lab, draft: usize, answer: Answer) -> Result<Sequence> {
        let learned = DebugLearned::LastProgram;
        self.chain(lab, answer.prompt, &[draft, answer.outcome], learned)
    }
}
