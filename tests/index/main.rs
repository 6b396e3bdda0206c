//! The index is complete: every public loss has a page with all its sections and a row in the
//! survey's table; the README shows the same table; every item listed exists.

use std::fs;
use std::path::{Path, PathBuf};

const SECTIONS: [&str; 7] = [
    "# Equation",
    "# Shapes",
    "# Errors",
    "# Properties",
    "# Departures",
    "# Examples",
    "# Source",
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Every `pub fn …_loss` of the sources: file below `src/`, name, doc comment.
fn losses() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for path in sources(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let file = path
            .strip_prefix(root().join("src"))
            .unwrap()
            .display()
            .to_string();
        let mut doc = String::new();
        for line in text.lines() {
            match line.trim_start().strip_prefix("///") {
                Some(comment) => doc.push_str(&format!("{}\n", comment.trim_start_matches(' '))),
                None => {
                    if let Some(rest) = line.strip_prefix("pub fn ") {
                        let name = rest.split(['(', '<']).next().unwrap();
                        if name.ends_with("_loss") {
                            found.push((file.clone(), name.to_string(), doc.clone()));
                        }
                    }
                    if !line.trim_start().starts_with("#[") {
                        doc.clear();
                    }
                }
            }
        }
    }
    found
}

/// The table's rows, without the links.
fn rows() -> Vec<String> {
    read("src/survey.md")
        .lines()
        .filter(|line| line.starts_with("| 3"))
        .filter(|line| line.contains(".rs`"))
        .map(without_links)
        .collect()
}

/// ``[`a`](b)`` becomes `` `a` ``.
fn without_links(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(start) = rest.find("[`") {
        let (before, link) = rest.split_at(start);
        let (text, after) = link[1..].split_once("](").expect("a link");
        let (_, after) = after.split_once(')').expect("a link's end");
        out.push_str(before);
        out.push_str(text);
        rest = after;
    }
    out + rest
}

#[test]
fn every_loss_has_a_page_with_all_its_sections_in_order() {
    let losses = losses();
    assert!(losses.len() >= 10, "{losses:?}");
    for (file, name, doc) in losses {
        let mut from = 0;
        for section in SECTIONS {
            match doc[from..].find(&format!("{section}\n")) {
                Some(at) => from += at,
                None => panic!("{file}: `{name}` lacks `{section}`, or has it out of order"),
            }
        }
        assert!(
            doc.contains("arXiv:"),
            "{file}: the source of `{name}` names no paper"
        );
    }
}

#[test]
fn every_loss_has_a_row_in_the_survey_and_every_row_a_file() {
    let rows = rows();
    for (file, name, _) in losses() {
        let item = format!("| `{name}` | `{file}` |");
        assert!(
            rows.iter().any(|row| row.contains(&item)),
            "no row with {item} in survey.md"
        );
    }
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(|c| c.trim().trim_matches('`')).collect();
        let (item, file) = (cells[3], cells[4]);
        let text = read(&format!("src/{file}"));
        let exists = ["fn", "struct"]
            .iter()
            .any(|kind| text.contains(&format!("pub {kind} {item}")));
        assert!(exists, "src/{file} has no public `{item}`");
    }
}

#[test]
fn the_readme_shows_the_same_table() {
    let readme = read("README.md");
    for row in rows() {
        assert!(readme.contains(&row), "README.md lacks: {row}");
    }
}
