//! What a page offers to try has a solution: the test or the example that it names exists.

use super::{pages, read, root, sources};
use std::fs;

/// The code between backticks of a file's doc comments that begins so.
fn named<'a>(text: &'a str, beginning: &'a str) -> impl Iterator<Item = &'a str> {
    let comments = text.lines().filter(|line| {
        let line = line.trim_start();
        line.starts_with("///") || line.starts_with("//!")
    });
    comments
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter_map(move |code| code.strip_prefix(beginning))
}

#[test]
fn every_test_and_example_that_the_docs_name_exists() {
    let (mut tests, mut examples) = (0, 0);
    for path in sources(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let page = path.display();
        for test in named(&text, "tests/") {
            let (file, name) = test
                .split_once("::")
                .unwrap_or_else(|| panic!("{page}: tests/{test} names no test"));
            let there = root().join("tests").join(file);
            assert!(there.is_file(), "{page}: tests/{file}");
            let suite = read(&format!("tests/{file}"));
            let function = format!("fn {name}(");
            assert!(suite.contains(&function), "{page}: tests/{test}");
            tests += 1;
        }
        for example in named(&text, "cargo run --example ") {
            let name = example.split(' ').next().unwrap();
            let file = root().join("examples").join(format!("{name}.rs"));
            assert!(file.is_file(), "{page}: {example}");
            examples += 1;
        }
        for program in named(&text, "cargo run -p ") {
            let name = program.split(' ').next().unwrap();
            let main = root().join("examples").join(name).join("src/main.rs");
            assert!(main.is_file(), "{page}: {program}");
        }
    }
    assert!(tests > 20 && examples > 10, "{tests} and {examples}");
}

#[test]
fn every_loss_without_sampling_says_what_to_inspect_and_try() {
    let mut count = 0;
    for page in pages() {
        let room = page.file.split(['/', '.']).next().unwrap();
        if !["sft", "ranking", "language"].contains(&room) || !page.name.ends_with("_loss") {
            continue;
        }
        count += 1;
        let mut rest = page.doc.as_str();
        for section in ["# Examples\n", "# Inspect\n", "# Try\n", "# Source\n"] {
            let (_, after) = rest
                .split_once(section)
                .unwrap_or_else(|| panic!("{}: `{}` {section}", page.file, page.name));
            rest = after;
        }
        let (_, exercises) = page.doc.split_once("# Try\n").unwrap();
        let (exercises, _) = exercises.split_once("# Source\n").unwrap();
        for exercise in exercises.split("* ").skip(1) {
            let solved = exercise.contains("`tests/") || exercise.contains("`cargo run --example");
            assert!(solved, "{}: `{}`: {exercise}", page.file, page.name);
        }
    }
    assert!(count >= 12, "{count}");
}

#[test]
fn every_exercise_names_its_solution() {
    for path in sources(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let mut pages = text.split("/// # Try\n").skip(1);
        let page = path.display();
        if let Some(found) = pages.find_map(|after| {
            let section = after.lines().map(str::trim_start);
            let section: Vec<&str> = section
                .take_while(|line| line.starts_with("///") && !line.starts_with("/// #"))
                .collect();
            let section = section.join("\n");
            let mut exercises = section.split("/// * ").skip(1);
            let without = exercises
                .find(|text| !text.contains("`tests/") && !text.contains("`cargo run --example "));
            without.map(str::to_string)
        }) {
            panic!("{page}: an exercise names no solution: {found}");
        }
    }
}

#[test]
fn an_exercise_is_a_page_s_last_section_before_its_source() {
    for page in pages() {
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
