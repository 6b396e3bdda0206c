//! Which token sees which: segments of a flat batch, each after its parent.

use super::shared;
use crate::error::{Error, Result};
use crate::known::readable;
use crate::shape::Axes;
use candle_core::{DType, Device, Tensor};
use std::ops::Range;

/// The layout of a flat batch: `[tokens, …]`, made of segments that lie one after another.
///
/// A segment has a length and, optionally, a parent, which is an earlier segment. A token sees every token
/// of the segments above its own, and in its own segment those up to itself. A row is the path from a
/// segment without a parent down to a last one. A prompt with K answers is one segment with K children: K
/// rows, whose common tokens are computed once.
///
/// ```
/// use candle_align::ops::Segments;
///
/// // a prompt of 3 tokens with answers of 2 and of 1, then a prompt of 1 with an answer of 2
/// let segments = Segments::from_prompts(&[3, 1], &[vec![2, 1], vec![2]])?;
/// assert_eq!(segments.tokens(), 9);
/// assert_eq!(segments.bounds(), [0..3, 3..5, 5..6, 6..7, 7..9]);
/// // both answers to the first prompt begin at position 3
/// assert_eq!(segments.positions(), [0, 1, 2, 3, 4, 3, 0, 1, 2]);
/// assert_eq!(segments.rows(), [vec![0, 1, 2, 3, 4], vec![0, 1, 2, 5], vec![6, 7, 8]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    segments: Vec<Segment>,
    /// The last segment of each row.
    rows: Vec<usize>,
    tokens: usize,
    trees: usize,
}

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its first token in the flat batch.
    pub(super) start: usize,
    pub(super) length: usize,
    pub(super) parent: Option<usize>,
    /// Its first token's position in its row.
    pub(super) position: usize,
    /// The number of its root among the roots.
    pub(super) tree: usize,
}

impl Segment {
    pub(super) fn bounds(&self) -> Range<usize> {
        self.start..self.start + self.length
    }
}

impl Segments {
    /// Segments of these lengths, one after another; `parents[i]` is the segment before segment i in its
    /// row. Each segment that is nobody's parent ends a row, in this order.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is not one parent per length, if a parent is not an earlier segment, or
    /// if the tokens are more than fit in u32.
    pub fn new(lengths: &[usize], parents: &[Option<usize>]) -> Result<Self> {
        let function = "Segments::new";
        if lengths.len() != parents.len() {
            return Err(Error::argument(
                function,
                "parents",
                format!(
                    "has {} entries for {} lengths",
                    parents.len(),
                    lengths.len()
                ),
            ));
        }
        let mut leaf = vec![true; lengths.len()];
        for (i, parent) in parents.iter().enumerate() {
            match *parent {
                Some(parent) if parent >= i => {
                    return Err(Error::argument(
                        function,
                        "parents",
                        format!("names segment {parent} before segment {i}; a parent is earlier"),
                    ));
                }
                Some(parent) => leaf[parent] = false,
                None => {}
            }
        }
        let rows = (0..lengths.len()).filter(|i| leaf[*i]).collect();
        Self::of(function, "lengths", lengths, parents, rows)
    }

    /// Rows of these lengths that share nothing.
    ///
    /// # Errors
    /// [`Error::Argument`] if the tokens are more than fit in u32.
    pub fn from_lengths(lengths: &[usize]) -> Result<Self> {
        let rows = (0..lengths.len()).collect();
        let parents = vec![None; lengths.len()];
        Self::of("Segments::from_lengths", "lengths", lengths, &parents, rows)
    }

    /// Prompts and the answers to each: a prompt, its answers, the next prompt, its answers. Each answer ends
    /// a row; a prompt without answers is a row of its own.
    ///
    /// # Errors
    /// [`Error::Argument`] unless there is one list of answers per prompt, or if the tokens are more than
    /// fit in u32.
    pub fn from_prompts(prompts: &[usize], answers: &[impl AsRef<[usize]>]) -> Result<Self> {
        let function = "Segments::from_prompts";
        if prompts.len() != answers.len() {
            return Err(Error::argument(
                function,
                "answers",
                format!("has {} lists for {} prompts", answers.len(), prompts.len()),
            ));
        }
        let (mut lengths, mut parents, mut rows) = (vec![], vec![], vec![]);
        for (&prompt, answers) in prompts.iter().zip(answers) {
            let parent = lengths.len();
            lengths.push(prompt);
            parents.push(None);
            for &answer in answers.as_ref() {
                rows.push(lengths.len());
                lengths.push(answer);
                parents.push(Some(parent));
            }
            if answers.as_ref().is_empty() {
                rows.push(parent);
            }
        }
        Self::of(function, "answers", &lengths, &parents, rows)
    }

    /// Rows of tokens, of which each common beginning becomes one segment; and the flat batch's tokens.
    ///
    /// The rows keep their order. Equal rows are computed once; each still is a row of its own. What a
    /// layer draws at random, such as dropout, is drawn once for what is shared.
    ///
    /// ```
    /// use candle_align::ops::Segments;
    ///
    /// let (segments, tokens) = Segments::from_tokens(&[vec![7, 8, 9, 4], vec![7, 8, 5]])?;
    /// assert_eq!(tokens, [7, 8, 9, 4, 5]);
    /// assert_eq!(segments.rows(), [vec![0, 1, 2, 3], vec![0, 1, 4]]);
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Errors
    /// [`Error::Argument`] if the tokens are more than fit in u32.
    pub fn from_tokens(rows: &[impl AsRef<[u32]>]) -> Result<(Self, Vec<u32>)> {
        let rows: Vec<&[u32]> = rows.iter().map(AsRef::as_ref).collect();
        let tree = shared::beginnings(&rows);
        let function = "Segments::from_tokens";
        let segments = Self::of(function, "rows", &tree.lengths, &tree.parents, tree.rows)?;
        Ok((segments, tree.tokens))
    }

    /// The same layout below a first segment of `length` tokens, which every token sees.
    pub(crate) fn below(&self, length: usize) -> Result<Self> {
        let lengths = self.segments.iter().map(|segment| segment.length);
        let lengths: Vec<usize> = std::iter::once(length).chain(lengths).collect();
        let below = |s: &Segment| Some(s.parent.map_or(0, |parent| parent + 1));
        let parents = self.segments.iter().map(below);
        let parents: Vec<Option<usize>> = std::iter::once(None).chain(parents).collect();
        let rows = self.rows.iter().map(|row| row + 1).collect();
        Self::of("Segments::below", "length", &lengths, &parents, rows)
    }

    /// From parents that are earlier segments and rows that are segments.
    fn of(
        function: &'static str,
        argument: &str,
        lengths: &[usize],
        parents: &[Option<usize>],
        rows: Vec<usize>,
    ) -> Result<Self> {
        let mut segments: Vec<Segment> = Vec::with_capacity(lengths.len());
        let (mut start, mut trees) = (0usize, 0);
        for (&length, &parent) in lengths.iter().zip(parents) {
            let above = parent.map(|parent| segments[parent]);
            let position = above.map_or(0, |above| above.position + above.length);
            let tree = above.map_or(trees, |above| above.tree);
            trees += above.is_none() as usize;
            segments.push(Segment {
                start,
                length,
                parent,
                position,
                tree,
            });
            // u32::MAX stands for no token
            start = match start
                .checked_add(length)
                .filter(|end| *end < u32::MAX as usize)
            {
                Some(end) => end,
                None => {
                    let problem = "holds more tokens than fit in u32";
                    return Err(Error::argument(function, argument, problem));
                }
            };
        }
        Ok(Self {
            segments,
            rows,
            tokens: start,
            trees,
        })
    }

    /// The number of tokens of the flat batch.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The number of segments without a parent, each with all that is below it.
    pub fn trees(&self) -> usize {
        self.trees
    }

    /// The tokens of each segment.
    pub fn bounds(&self) -> Vec<Range<usize>> {
        self.segments.iter().map(Segment::bounds).collect()
    }

    /// The parent of each segment.
    pub fn parents(&self) -> Vec<Option<usize>> {
        self.segments.iter().map(|segment| segment.parent).collect()
    }

    /// Each token's position in its row, from 0 on: what rotary positions are computed from.
    pub fn positions(&self) -> Vec<u32> {
        let of = |s: &Segment| (s.position as u32..).take(s.length);
        self.segments.iter().flat_map(of).collect()
    }

    /// The flat indices of each row's tokens, from the row's first on.
    ///
    /// The token before an answer's first one is the prompt's last one, in every row that shares the prompt.
    pub fn rows(&self) -> Vec<Vec<u32>> {
        let row = |last: &usize| {
            let path = self.path(*last);
            let bounds = path.iter().rev().map(|i| self.segments[*i].bounds());
            bounds.flatten().map(|token| token as u32).collect()
        };
        self.rows.iter().map(row).collect()
    }

    /// The number of tokens of each row.
    pub fn row_lengths(&self) -> Vec<usize> {
        let end = |last: &usize| self.segments[*last].position + self.segments[*last].length;
        self.rows.iter().map(end).collect()
    }

    /// A flat batch as rows: `[tokens, …]` to `[rows, time, …]`, where time is the longest row. Past the end
    /// of a row there are zeros.
    ///
    /// The gradient of a shared token is the sum over its rows. With the tokens, the mask and the hidden
    /// states of a flat batch as rows,
    /// [`TokenLogProbs::from_hidden`](crate::TokenLogProbs::from_hidden) computes what it computes from
    /// padded rows: only positions whose next token counts meet the output matrix, each once per row.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the first axis is the tokens.
    pub fn to_rows(&self, flat: &Tensor) -> Result<Tensor> {
        let (function, argument) = ("Segments::to_rows", "flat");
        let mut of = flat.dims().to_vec();
        if of.first() != Some(&self.tokens) {
            return Err(Error::Shape {
                function,
                argument: argument.to_string(),
                shape: of,
                expected: format!("tokens={} (from `self`), …", self.tokens),
            });
        }
        let rows = self.rows();
        let time = rows.iter().map(Vec::len).max().unwrap_or(0);
        of.splice(..1, [rows.len(), time]);
        let count: usize = of.iter().product();
        if count == 0 {
            return Ok(Tensor::zeros(of, flat.dtype(), flat.device())?);
        }
        // candle reads u32::MAX as "a row of zeros without a gradient"
        let none = |row: &Vec<u32>| std::iter::repeat_n(u32::MAX, time - row.len());
        let indices: Vec<u32> = rows
            .iter()
            .flat_map(|row| row.iter().copied().chain(none(row)))
            .collect();
        let indices = Tensor::new(indices, flat.device())?;
        let flat = readable(flat)?.contiguous()?;
        Ok(flat.index_select(&indices, 0)?.reshape(of)?)
    }

    /// Which positions of [`Segments::to_rows`] are tokens: u8 `[rows, time]`.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn mask(&self, device: &Device) -> Result<Tensor> {
        let ones = Tensor::ones(self.tokens, DType::U8, device)?;
        self.to_rows(&ones)
    }

    /// The segments of a path, from `last` up to its root.
    pub(super) fn path(&self, last: usize) -> Vec<usize> {
        std::iter::successors(Some(last), |i| self.segments[*i].parent).collect()
    }

    pub(super) fn all(&self) -> &[Segment] {
        &self.segments
    }

    /// Requires a tensor `[tokens, …]` of these axes.
    pub(super) fn axes(
        &self,
        axes: &mut Axes,
        argument: &str,
        tensor: &Tensor,
        of: &[&'static str],
    ) -> Result<Tensor> {
        let tensor = axes.axes(argument, tensor, of)?;
        match tensor.dim(0)? == self.tokens {
            true => Ok(tensor),
            false => Err(Error::Shape {
                function: axes.function(),
                argument: argument.to_string(),
                shape: tensor.dims().to_vec(),
                expected: format!(
                    "tokens={} (from `segments`), {}",
                    self.tokens,
                    of[1..].join(", ")
                ),
            }),
        }
    }
}
