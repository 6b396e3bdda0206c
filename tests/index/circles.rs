//! No circle of imports among the files of one room.

use super::{code, root, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// A module's path below the crate, as in `ops`, `attention`.
type Module = Vec<String>;

/// The paths that a `use` of this text names: `super::a::{B, c::D}` is `super::a::B` and `super::a::c::D`.
fn named(text: &str) -> Vec<Module> {
    let text = text.trim();
    if let Some(inside) = text.strip_prefix('{') {
        let (mut depth, mut parts) = (0, vec![String::new()]);
        for c in inside[..inside.rfind('}').unwrap()].chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => parts.push(String::new()),
                _ => {}
            }
            if c != ',' || depth > 0 {
                parts.last_mut().unwrap().push(c);
            }
        }
        return parts.iter().flat_map(|part| named(part)).collect();
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    let (first, rest) = text.split_at(end.unwrap_or(text.len()));
    let rest = match rest.strip_prefix("::") {
        Some(rest) => named(rest),
        None => vec![vec![]],
    };
    let whole = rest
        .into_iter()
        .map(|rest| [vec![first.to_string()], rest].concat());
    whole.filter(|path| !path[0].is_empty()).collect()
}

/// The text after `use ` of each statement.
fn statements(code: &str) -> impl Iterator<Item = (&str, bool)> {
    code.match_indices("use ").filter_map(|(at, _)| {
        let line = code[..at].rfind('\n').map_or(0, |end| end + 1);
        let before = code[line..at].trim();
        let end = code[at..].find(';')?;
        let public = before.starts_with("pub");
        (before.is_empty() || public).then_some((&code[at + 4..at + end], public))
    })
}

struct Room {
    files: BTreeMap<Module, String>,
    /// What a module passes on, and where that is.
    passed_on: BTreeMap<(Module, String), Module>,
}

impl Room {
    fn read() -> Self {
        let below = root().join("src");
        let mut files = BTreeMap::new();
        for path in sources(&below) {
            let file = path.strip_prefix(&below).unwrap().with_extension("");
            let parts = file.iter().map(|part| part.to_str().unwrap().to_string());
            let mut module: Module = parts.collect();
            if module.last().is_some_and(|last| last == "mod") {
                module.pop();
            }
            files.insert(module, code(&fs::read_to_string(&path).unwrap()));
        }
        let mut room = Self {
            files,
            passed_on: BTreeMap::new(),
        };
        for (module, text) in &room.files {
            for (uses, _) in statements(text).filter(|(_, public)| *public) {
                for path in named(uses) {
                    let (found, rest) = room.found(module, &path);
                    if let Some(name) = rest.last() {
                        let key = (module.clone(), name.clone());
                        room.passed_on.insert(key, found);
                    }
                }
            }
        }
        room
    }

    /// The file that a path leads to, and what is left of the path.
    fn found(&self, from: &Module, path: &[String]) -> (Module, Module) {
        let (mut at, mut path) = (from.clone(), path.to_vec());
        while let Some(first) = path.first() {
            match first.as_str() {
                "crate" => at.clear(),
                "super" => drop(at.pop()),
                "self" => {}
                _ => break,
            }
            path.remove(0);
        }
        while !path.is_empty() {
            let below = [at.clone(), vec![path[0].clone()]].concat();
            if !self.files.contains_key(&below) {
                break;
            }
            at = below;
            path.remove(0);
        }
        (at, path)
    }

    /// The files of the same room that a file imports from; not those below it, which its page passes on.
    fn imports(&self, module: &Module) -> BTreeSet<Module> {
        let text = &self.files[module];
        let mut paths: Vec<Module> = statements(text).flat_map(|(uses, _)| named(uses)).collect();
        // and the paths within the code
        let whole = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        for start in ["super::", "crate::"] {
            for (at, _) in text.match_indices(start) {
                let end = text[at..].find(|c| !whole(c)).unwrap_or(text.len() - at);
                paths.extend(named(&text[at..at + end]));
            }
        }
        let to = paths.iter().map(|path| {
            let (mut at, rest) = self.found(module, path);
            while let Some(next) = rest.first().and_then(|name| {
                self.passed_on
                    .get(&(at.clone(), name.clone()))
                    .filter(|next| **next != at)
            }) {
                at = next.clone();
            }
            at
        });
        to.filter(|to| to.first() == module.first() && !to.starts_with(module))
            .collect()
    }
}

#[test]
fn no_circle_of_imports_within_a_room() {
    let room = Room::read();
    let mut left: BTreeMap<&Module, BTreeSet<Module>> = room
        .files
        .keys()
        .map(|module| (module, room.imports(module)))
        .collect();
    let arrows: usize = left.values().map(BTreeSet::len).sum();
    assert!(arrows > 200, "{arrows}");
    // a file whose imports are all gone can go too; a circle stays
    loop {
        let gone: BTreeSet<Module> = left
            .iter()
            .filter(|(_, to)| to.iter().all(|to| !left.contains_key(to)))
            .map(|(module, _)| (*module).clone())
            .collect();
        if gone.is_empty() {
            break;
        }
        left.retain(|module, _| !gone.contains(*module));
    }
    assert!(left.is_empty(), "a circle is among {left:#?}");
}
