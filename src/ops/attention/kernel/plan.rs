//! What is computed together: trees, parts of trees, tiles of queries, blocks of keys.

use super::super::segments::{Segment, Segments};

/// Queries of a tile: tokens times the query heads of one key head. A multiple of [`PAD`].
pub(super) const LANES: usize = 48;
/// Keys of a block.
pub(super) const KEYS: usize = 48;
/// Rows of packed matrices are padded with zeros to a multiple of this many numbers.
pub(super) const PAD: usize = 16;
/// Scores of a part of a tree that are worth a thread of their own.
const PART: usize = 1 << 15;
/// The most parts of a tree. Each has sums of its own for the gradient of the tree's keys.
const PARTS: usize = 4;

/// The next multiple of [`PAD`].
pub(super) fn padded(length: usize) -> usize {
    length.next_multiple_of(PAD)
}

/// Sizes and settings of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) dim: usize,
    pub(super) value_dim: usize,
    pub(super) scale: f64,
    /// How many positions a token sees, its own included.
    pub(super) window: usize,
    /// What the scores cannot exceed, if they are bounded.
    pub(super) softcap: Option<f64>,
    /// Prefix keys of a tree.
    pub(super) prefix: usize,
    /// Whether each tree has prefix keys of its own.
    pub(super) own_prefix: bool,
}

impl Call {
    /// Query heads per key head.
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

/// Tokens `from..to` of a segment, counted within it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) segment: usize,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// Queries of one tree that one thread computes, for each key head.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) tree: usize,
    pub(super) pieces: Vec<Piece>,
    pub(super) tokens: usize,
}

/// One tree: its prefix keys, then those of its segments, one after another.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) segments: Vec<usize>,
    pub(super) keys: usize,
    pub(super) parts: std::ops::Range<usize>,
}

/// How a call is divided. It depends on the layout alone, never on the number of threads.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) call: Call,
    pub(super) segments: Vec<Segment>,
    pub(super) trees: Vec<Tree>,
    pub(super) parts: Vec<Part>,
    /// The first key of each segment among those of its tree.
    pub(super) first_key: Vec<usize>,
    /// The scores of all heads.
    pub(super) scores: usize,
}

/// Queries that are computed at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    pub(super) segment: usize,
    /// The first token, within its segment, and how many.
    pub(super) token: usize,
    pub(super) tokens: usize,
    /// The first of the key head's query heads, and how many.
    pub(super) head: usize,
    pub(super) heads: usize,
}

impl Tile {
    pub(super) fn lanes(&self) -> usize {
        self.tokens * self.heads
    }
}

/// Keys that are read at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// The first key, among those of the tree, and how many.
    pub(super) key: usize,
    pub(super) keys: usize,
    /// The first key's position; prefix keys have none.
    pub(super) position: usize,
    /// Whether some query of the tile does not see some key of the block.
    pub(super) hides: bool,
}

impl Plan {
    pub(super) fn new(segments: &Segments, call: Call) -> Self {
        let all = segments.all().to_vec();
        let mut trees: Vec<Tree> = Vec::new();
        trees.resize_with(segments.trees(), Tree::default);
        trees.iter_mut().for_each(|tree| tree.keys = call.prefix);
        let mut first_key = Vec::with_capacity(all.len());
        for (i, segment) in all.iter().enumerate() {
            let tree = &mut trees[segment.tree];
            first_key.push(tree.keys);
            tree.segments.push(i);
            tree.keys += segment.length;
        }
        let (mut parts, mut scores) = (Vec::new(), 0);
        for (i, tree) in trees.iter_mut().enumerate() {
            let first = parts.len();
            scores += divide(i, tree, &all, &call, &mut parts);
            tree.parts = first..parts.len();
        }
        Self {
            call,
            segments: all,
            trees,
            parts,
            first_key,
            scores,
        }
    }

    /// The row of a key of a tree in the tensors of keys and values.
    pub(super) fn key_rows(&self, tree: usize) -> impl Iterator<Item = usize> + '_ {
        let Call {
            prefix, own_prefix, ..
        } = self.call;
        let prefixes = self.prefixes();
        let first = if own_prefix { tree * prefix } else { 0 };
        let own = self.trees[tree].segments.iter();
        let own = own.flat_map(move |i| self.segments[*i].bounds().map(move |t| prefixes + t));
        (first..first + prefix).chain(own)
    }

    /// Rows of prefixes in front of the tokens.
    pub(super) fn prefixes(&self) -> usize {
        match self.call.own_prefix {
            true => self.call.prefix * self.trees.len(),
            false => self.call.prefix,
        }
    }

    /// The tiles of a part. With `single`, each has one token, so that all its queries see the same keys.
    pub(super) fn tiles(&self, part: &Part, single: bool) -> Vec<Tile> {
        let group = self.call.group();
        let tokens = if single { 1 } else { (LANES / group).max(1) };
        let mut tiles = Vec::new();
        for piece in &part.pieces {
            for token in (piece.from..piece.to).step_by(tokens) {
                for head in (0..group).step_by(LANES) {
                    tiles.push(Tile {
                        segment: piece.segment,
                        token,
                        tokens: tokens.min(piece.to - token),
                        head,
                        heads: LANES.min(group - head),
                    });
                }
            }
        }
        tiles
    }

    /// The blocks of keys that some query of the tile sees, into `blocks`.
    pub(super) fn blocks(&self, tile: &Tile, blocks: &mut Vec<Block>) {
        blocks.clear();
        for key in (0..self.call.prefix).step_by(KEYS) {
            let keys = KEYS.min(self.call.prefix - key);
            blocks.push(Block {
                key,
                keys,
                position: 0,
                hides: false,
            });
        }
        let window = self.call.window;
        let own = &self.segments[tile.segment];
        let (first, last) = (
            own.position + tile.token,
            own.position + tile.token + tile.tokens - 1,
        );
        let lowest = (first + 1).saturating_sub(window);
        let path = std::iter::successors(Some(tile.segment), |i| self.segments[*i].parent);
        for i in path {
            let segment = &self.segments[i];
            if segment.position + segment.length <= lowest {
                break;
            }
            let end = (last + 1).min(segment.position + segment.length);
            let start = segment.position.max(lowest);
            for at in (start..end).step_by(KEYS) {
                let keys = KEYS.min(end - at);
                blocks.push(Block {
                    key: self.first_key[i] + at - segment.position,
                    keys,
                    position: at,
                    hides: at + keys - 1 > first || at.saturating_add(window) <= last,
                });
            }
        }
    }
}

/// Divides a tree into parts of about equal work, and returns the number of its scores.
fn divide(tree: usize, of: &Tree, all: &[Segment], call: &Call, parts: &mut Vec<Part>) -> usize {
    let seen = |position: usize| (position + 1).min(call.window) + call.prefix;
    let scores_of = |segment: &Segment| -> usize {
        let positions = segment.position..segment.position + segment.length;
        positions.map(seen).sum::<usize>() * call.group()
    };
    let total: usize = of.segments.iter().map(|i| scores_of(&all[*i])).sum();
    let most = total.div_ceil((total / PART).clamp(1, PARTS)).max(1);
    // a whole tile at a time
    let step = (LANES / call.group()).max(1);
    let mut part = Part {
        tree,
        pieces: vec![],
        tokens: 0,
    };
    let mut scores = 0;
    for &segment in &of.segments {
        let Segment {
            length, position, ..
        } = all[segment];
        let mut from = 0;
        for token in (0..length).step_by(step) {
            let to = (token + step).min(length);
            scores += (token..to).map(|t| seen(position + t)).sum::<usize>() * call.group();
            if scores >= most {
                part.pieces.push(Piece { segment, from, to });
                part.tokens += to - from;
                parts.push(std::mem::replace(
                    &mut part,
                    Part {
                        tree,
                        pieces: vec![],
                        tokens: 0,
                    },
                ));
                (from, scores) = (to, 0);
            }
        }
        if from < length {
            part.pieces.push(Piece {
                segment,
                from,
                to: length,
            });
            part.tokens += length - from;
        }
    }
    if part.tokens > 0 {
        parts.push(part);
    }
    total * call.kv_heads
}
