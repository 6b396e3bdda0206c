//! The rows of one item: its best answer, its pairs, its list, or texts with words around its answers.

use super::super::super::comparisons::{Shape, compared, pair_count, triple};
use super::super::super::data::{Answer, Item, Reason};
use super::super::super::error::{Error, Result};
use super::super::super::similarity::f_score;
use super::super::evaluate::Probe;
use super::super::objective::Text;
use super::super::objective::answers;
use super::super::objective::lists::List;
use super::super::objective::pairs::Pair;
use super::super::objective::scored::Compared;
use super::super::objective::unpaired::Labeled;
use super::super::rows::Report;
use super::super::rows::items::Row as Written;
use super::super::settings::Learned;
use super::super::split::Row;
use super::fits;
use super::items::{Build, failed};
use super::trl::{labeled, text};
use rand::rngs::StdRng;
use std::path::Path;

impl Build<'_> {
    /// A chat template begins every answer itself.
    pub(super) fn can_write(&self, item: &Item, report: &mut Report) -> bool {
        let can = !(self.writer.chat && item.begun);
        if let (false, Some(tally)) = (can, &mut report.items) {
            *tally.left_out.entry(Reason::Begun).or_default() += 1;
        }
        can
    }

    /// The best answer.
    pub(super) fn best(
        &self,
        item: &Item,
        _: &mut StdRng,
        report: &mut Report,
    ) -> Result<Vec<Text>, String> {
        let mut texts = Vec::new();
        for list in compared(item, Shape::Best, self.plan.most) {
            let sides = self.writer.answers(item, &list, report)?;
            texts.extend(sides.iter().flatten().map(text));
        }
        Ok(texts)
    }

    pub(super) fn pairs(
        &self,
        item: &Item,
        _: &mut StdRng,
        report: &mut Report,
    ) -> Result<Vec<Pair>, String> {
        let mut pairs = Vec::new();
        self.count_pairs(pair_count(item), report);
        for list in compared(item, Shape::Pairs, self.plan.most) {
            let sides = self.writer.answers(item, &list, report)?;
            if let Some([chosen, rejected]) = sides.as_deref() {
                pairs.push(Pair {
                    chosen: text(chosen),
                    rejected: text(rejected),
                });
            }
        }
        Ok(pairs)
    }

    /// Every answer, desirable if it is right or a best one.
    pub(super) fn labeled(
        &self,
        item: &Item,
        _: &mut StdRng,
        report: &mut Report,
    ) -> Result<Vec<Labeled>, String> {
        let mut all = Vec::new();
        for answer in &item.answers {
            let row = self.writer.labeled(item, answer, report)?;
            all.extend(row.as_ref().map(labeled));
        }
        Ok(all)
    }

    pub(super) fn lists(
        &self,
        item: &Item,
        _: &mut StdRng,
        report: &mut Report,
    ) -> Result<Vec<List>, String> {
        let mut lists = Vec::new();
        if self.plan.shape == Shape::Pairs {
            self.count_pairs(pair_count(item), report);
        }
        let answers = match self.settings.objective {
            Learned::Tpo => triple(item).into_iter().collect(),
            _ => compared(item, self.plan.shape, self.plan.most),
        };
        for list in answers {
            let similarity = |answer: &Answer| f_score(&answer.text, &list[0].text) as f32;
            if let Some(sides) = self.writer.answers(item, &list, report)? {
                lists.push(List {
                    answers: sides.iter().map(text).collect(),
                    rewards: list.iter().map(|answer| answer.reward as f32).collect(),
                    similarity: list.iter().map(similarity).collect(),
                });
            }
        }
        Ok(lists)
    }

    pub(super) fn scored(
        &self,
        item: &Item,
        _: &mut StdRng,
        report: &mut Report,
    ) -> Result<Vec<Compared>, String> {
        let mut all = Vec::new();
        if self.plan.shape == Shape::Pairs {
            self.count_pairs(pair_count(item), report);
        }
        for list in compared(item, self.plan.shape, self.plan.most) {
            if let Some(kept) = self.writer.whole(item, &list, report)? {
                let rewards = kept.iter().map(|one| one.reward as f32).collect();
                all.push(Compared {
                    texts: kept.into_iter().map(|one| one.ids).collect(),
                    rewards,
                    margin: None,
                });
            }
        }
        Ok(all)
    }

    pub(super) fn texts(
        &self,
        item: &Item,
        rng: &mut StdRng,
        report: &mut Report,
    ) -> Result<Vec<Text>, String> {
        let answers = self.answers(item, rng, report)?.into_iter();
        Ok(answers.map(|answer| answer.text).collect())
    }

    /// Answers with words around them.
    pub(super) fn answers(
        &self,
        item: &Item,
        rng: &mut StdRng,
        report: &mut Report,
    ) -> Result<Vec<answers::Answer>, String> {
        self.count_pairs(self.plan.pairs(item), report);
        let encode = |text: &str| self.writer.ids(text).map_err(Error::Usage);
        let lessons = self.plan.lessons(item, &encode, rng);
        let lessons = lessons.map_err(|error| error.to_string())?;
        let mut all = Vec::new();
        for (beside, lesson) in lessons
            .first
            .iter()
            .map(|lesson| (false, lesson))
            .chain(lessons.beside.iter().map(|lesson| (true, lesson)))
        {
            if beside && all.is_empty() {
                break;
            }
            let words = std::slice::from_ref(&lesson.words);
            let rows = self.writer.words(item, words, &self.style, report)?;
            all.extend(rows.into_iter().flatten().map(|row| answers::Answer {
                text: of_row(row),
                reward: lesson.answer.reward as f32,
            }));
        }
        Ok(all)
    }

    /// What orders held-out answers, where the loss does not.
    pub(super) fn probes(
        &self,
        path: &Path,
        items: &[Row<Item>],
        report: &mut Report,
    ) -> Result<Vec<Probe>> {
        let language = self.settings.objective.is_language();
        if !language && !self.settings.objective.is_best() {
            return Ok(Vec::new());
        }
        let mut probes = Vec::new();
        for row in items {
            let item = &row.content;
            if self.writer.chat && item.begun {
                continue;
            }
            let lists = match language {
                true => self.plan.asked(item),
                false => compared(item, Shape::Lists, self.plan.most),
            };
            for list in lists.iter().filter(|list| list.len() > 1) {
                let texts = match language {
                    true => self.asking(item, list, report),
                    false => {
                        let sides = self.writer.answers(item, list, report);
                        sides.map(|sides| sides.map(|sides| sides.iter().map(text).collect()))
                    }
                };
                let texts = texts.map_err(|problem| failed(path, row.line, problem))?;
                for text in texts.iter().flatten() {
                    fits(text, self.context).map_err(|problem| failed(path, row.line, problem))?;
                }
                probes.extend(texts.map(|texts| Probe {
                    texts,
                    rewards: list.iter().map(|answer| answer.reward as f32).collect(),
                    group: row.group,
                }));
            }
        }
        Ok(probes)
    }

    /// The rows that ask about some answers.
    fn asking(
        &self,
        item: &Item,
        list: &[Answer],
        report: &mut Report,
    ) -> Result<Option<Vec<Text>>, String> {
        let all = list
            .iter()
            .flat_map(|answer| self.plan.probe(&answer.text, list));
        let rows = self
            .writer
            .words(item, &all.collect::<Vec<_>>(), &self.style, report)?;
        Ok(rows.map(|rows| rows.into_iter().map(of_row).collect()))
    }

    fn count_pairs(&self, pairs: usize, report: &mut Report) {
        if let Some(tally) = &mut report.items {
            tally.pairs_left_out += pairs.saturating_sub(self.plan.most.pairs);
        }
    }
}

fn of_row(row: Written) -> Text {
    Text {
        ids: row.ids,
        learned: row.learned,
    }
}
