//! What the pages' `# Try` sections name is there: tests by file and name, examples by name.

use crate::{read, root, sources};
use std::fs;

/// The doc comments of a file, one line.
fn docs(text: &str) -> String {
    let comments = text.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("///").or(line.strip_prefix("//!"))
    });
    comments.collect()
}

/// The words that follow each occurrence of a mark, up to a character that ends a name.
fn named<'a>(docs: &'a str, mark: &str) -> Vec<&'a str> {
    let ends = |c: char| !c.is_alphanumeric() && !"_/.:".contains(c);
    let after = docs.split(mark).skip(1);
    after
        .map(|rest| rest.split(ends).next().unwrap_or_default())
        .collect()
}

#[test]
fn every_test_and_example_that_a_page_names_is_there() {
    let (mut tests, mut examples) = (0, 0);
    for path in sources(&root().join("src")) {
        let docs = docs(&fs::read_to_string(&path).unwrap());
        for name in named(&docs, "`tests/") {
            let Some((file, function)) = name.split_once("::") else {
                continue;
            };
            tests += 1;
            let found = read(&format!("tests/{file}"));
            let declared = format!("#[test]\nfn {function}()");
            assert!(found.contains(&declared), "{}: {name}", path.display());
        }
        for name in named(&docs, "cargo run --example ") {
            examples += 1;
            let single = root().join(format!("examples/{name}.rs"));
            let folder = root().join(format!("examples/{name}/main.rs"));
            assert!(
                single.is_file() || folder.is_file(),
                "{}: {name}",
                path.display()
            );
        }
    }
    assert!(tests >= 25 && examples >= 5, "{tests} and {examples}");
}

#[test]
fn an_exercise_is_a_page_s_last_section_before_its_source() {
    for page in crate::pages() {
        let at = |section: &str| page.doc.find(&format!("{section}\n"));
        let order = [
            at("# Examples"),
            at("# Inspect"),
            at("# Try"),
            at("# Source"),
        ];
        let order: Vec<usize> = order.into_iter().flatten().collect();
        assert!(order.is_sorted(), "{}: {}", page.file, page.name);
    }
}
