//! What is checked and counted of a row, whatever it holds.

use super::super::hash::Hash;
use super::super::objective::Text;
use super::super::objective::answers::Answer;
use super::super::objective::lists::List;
use super::super::objective::pairs::Pair;
use super::super::objective::scored::Compared;
use super::super::objective::unpaired::Labeled;

/// A row of an objective.
pub trait Content {
    /// The number of tokens of its longest text.
    fn longest(&self) -> usize;
    /// Adds all that is learned.
    fn hash(&self, into: &mut Hash);
}

impl Content for Text {
    fn longest(&self) -> usize {
        self.ids.len()
    }

    fn hash(&self, into: &mut Hash) {
        into.ids(&self.ids);
        let learned = self.learned.iter().map(|learned| u32::from(*learned));
        into.ids(&learned.collect::<Vec<_>>());
    }
}

impl Content for Answer {
    fn longest(&self) -> usize {
        self.text.longest()
    }

    fn hash(&self, into: &mut Hash) {
        self.text.hash(into);
        into.numbers(&[self.reward]);
    }
}

impl Content for Pair {
    fn longest(&self) -> usize {
        self.chosen.longest().max(self.rejected.longest())
    }

    fn hash(&self, into: &mut Hash) {
        self.chosen.hash(into);
        self.rejected.hash(into);
    }
}

impl Content for Labeled {
    fn longest(&self) -> usize {
        self.text.longest()
    }

    fn hash(&self, into: &mut Hash) {
        self.text.hash(into);
        into.ids(&self.prompt);
        into.ids(&self.answer);
        into.ids(&[u32::from(self.desirable)]);
    }
}

impl Content for List {
    fn longest(&self) -> usize {
        self.answers.iter().map(Text::longest).max().unwrap_or(0)
    }

    fn hash(&self, into: &mut Hash) {
        self.answers.iter().for_each(|text| text.hash(into));
        into.numbers(&self.rewards);
        into.numbers(&self.similarity);
    }
}

impl Content for Compared {
    fn longest(&self) -> usize {
        self.texts.iter().map(Vec::len).max().unwrap_or(0)
    }

    fn hash(&self, into: &mut Hash) {
        self.texts.iter().for_each(|ids| into.ids(ids));
        into.numbers(&self.rewards);
        into.numbers(&[self.margin.unwrap_or(0.0)]);
    }
}
