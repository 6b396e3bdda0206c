//! Whether the games tell the strength of every model.

use crate::error::{Error, Result};
use crate::evaluation::outcome::{Game, Outcome};

/// A game, how often it was played, and its features.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub game: Game,
    pub count: f64,
    pub features: &'a [f64],
}

/// Requires that every model can be reached from every other along wins and ties: then, and only then, the
/// likelihood has a finite maximum.
pub(super) fn require_connected(function: &'static str, rows: &[Row], models: usize) -> Result<()> {
    let mut beaten = vec![Vec::new(); models];
    let mut beaten_by = vec![Vec::new(); models];
    let mut met = vec![false; models];
    for row in rows {
        let (a, b) = (row.game.first, row.game.second);
        (met[a], met[b]) = (true, true);
        if row.game.outcome != Outcome::Second {
            beaten[a].push(b);
            beaten_by[b].push(a);
        }
        if row.game.outcome != Outcome::First {
            beaten[b].push(a);
            beaten_by[a].push(b);
        }
    }
    let refuse = |problem: String| Err(Error::argument(function, "games", problem));
    if let Some(model) = met.iter().position(|met| !met) {
        return refuse(format!(
            "have none of model {model}, so its rating is unknown"
        ));
    }
    let why = "so the ratings have no finite maximum of the likelihood; leave models out, or set `regularization`";
    for (graph, what) in [
        (
            &beaten,
            "never lose or tie against model 0 or those below it",
        ),
        (
            &beaten_by,
            "never win or tie against model 0 or those above it",
        ),
    ] {
        let reached = reached(graph);
        if let Some(model) = reached.iter().position(|reached| !reached) {
            let count = reached.iter().filter(|reached| !**reached).count();
            return refuse(format!(
                "show {count} model(s), model {model} among them, that {what}, {why}"
            ));
        }
    }
    Ok(())
}

/// Which nodes can be reached from node 0.
fn reached(graph: &[Vec<usize>]) -> Vec<bool> {
    let mut found = vec![false; graph.len()];
    let mut open = vec![0];
    found[0] = true;
    while let Some(node) = open.pop() {
        for &next in &graph[node] {
            if !found[next] {
                found[next] = true;
                open.push(next);
            }
        }
    }
    found
}
