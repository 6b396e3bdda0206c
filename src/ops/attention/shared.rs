//! Rows of tokens as trees: each common beginning once.

use std::collections::HashMap;

/// The segments, in order, of rows whose common beginnings are shared.
pub(super) struct Beginnings {
    pub(super) lengths: Vec<usize>,
    pub(super) parents: Vec<Option<usize>>,
    /// The last segment of each row.
    pub(super) rows: Vec<usize>,
    pub(super) tokens: Vec<u32>,
}

/// Tokens `from..to` of row `row`, which all rows through this node have.
#[derive(Clone)]
struct Node {
    row: usize,
    from: usize,
    to: usize,
    parent: usize,
    /// The rows that end here.
    ends: Vec<usize>,
}

/// Above all rows.
const TOP: usize = 0;

pub(super) fn beginnings(rows: &[&[u32]]) -> Beginnings {
    let top = Node {
        row: 0,
        from: 0,
        to: 0,
        parent: TOP,
        ends: vec![],
    };
    let mut nodes = vec![top];
    // the child of a node that begins with a token
    let mut next: HashMap<(usize, u32), usize> = HashMap::new();
    for (row, tokens) in rows.iter().enumerate() {
        let (mut node, mut at) = (TOP, 0);
        while let Some(first) = tokens.get(at) {
            let Some(&child) = next.get(&(node, *first)) else {
                nodes.push(Node {
                    row,
                    from: at,
                    to: tokens.len(),
                    parent: node,
                    ends: vec![],
                });
                next.insert((node, *first), nodes.len() - 1);
                (node, at) = (nodes.len() - 1, tokens.len());
                continue;
            };
            let label = &rows[nodes[child].row][nodes[child].from..nodes[child].to];
            let same = label
                .iter()
                .zip(&tokens[at..])
                .take_while(|(a, b)| a == b)
                .count();
            if same == label.len() {
                (node, at) = (child, at + same);
                continue;
            }
            // the child's beginning becomes a node between the two
            let upper = nodes.len();
            let middle = nodes[child].from + same;
            nodes.push(Node {
                to: middle,
                ends: vec![],
                ..nodes[child].clone()
            });
            next.insert((node, *first), upper);
            next.insert((upper, label[same]), child);
            nodes[child].from = middle;
            nodes[child].parent = upper;
            (node, at) = (upper, at + same);
        }
        nodes[node].ends.push(row);
    }
    in_order(rows, &nodes)
}

/// Each node after its parent, and otherwise in the order of the rows that they come from.
fn in_order(rows: &[&[u32]], nodes: &[Node]) -> Beginnings {
    let mut children: Vec<Vec<usize>> = vec![vec![]; nodes.len()];
    for (i, node) in nodes.iter().enumerate().skip(1) {
        children[node.parent].push(i);
    }
    for children in &mut children {
        // a node that was put between keeps the row of the one below it, which is the earlier one
        children.sort_by_key(|i| std::cmp::Reverse(nodes[*i].row));
    }
    let mut out = Beginnings {
        lengths: vec![],
        parents: vec![],
        rows: vec![0; rows.len()],
        tokens: vec![],
    };
    let mut segment_of = vec![None; nodes.len()];
    let mut open = children[TOP].clone();
    // rows without tokens
    if !nodes[TOP].ends.is_empty() {
        out.lengths.push(0);
        out.parents.push(None);
        nodes[TOP].ends.iter().for_each(|row| out.rows[*row] = 0);
    }
    while let Some(i) = open.pop() {
        let node = &nodes[i];
        let segment = out.lengths.len();
        segment_of[i] = Some(segment);
        out.lengths.push(node.to - node.from);
        out.parents.push(segment_of[node.parent]);
        out.tokens.extend(&rows[node.row][node.from..node.to]);
        node.ends.iter().for_each(|row| out.rows[*row] = segment);
        open.extend(&children[i]);
    }
    out
}
