//! What a page offers to try has a solution: the test or the example that it names exists.

use super::{DOCUMENTS, pages, read, root, sources};
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
fn every_file_and_test_that_the_page_of_the_tests_names_exists() {
    let page = read("tests/README.md");
    let folders = ["src", "tests", "examples"].map(|folder| sources(&root().join(folder)));
    let files = folders.concat();
    let mut count = 0;
    for code in page.split('`').skip(1).step_by(2) {
        let (file, test) = code.split_once("::").unwrap_or((code, ""));
        if !file.ends_with(".rs") || file.contains(' ') {
            continue;
        }
        let mut named = files.iter().filter(|path| path.ends_with(file));
        let function = format!("fn {test}(");
        let found = named
            .any(|path| test.is_empty() || fs::read_to_string(path).unwrap().contains(&function));
        assert!(found, "tests/README.md: `{code}`");
        count += 1;
    }
    assert!(count > 40, "{count}");
}

/// Whether `cargo run --example NAME` runs: a file of `examples/`, or a member that is an example.
fn is_example(name: &str) -> bool {
    let manifest = root().join("examples").join(name).join("Cargo.toml");
    let member = fs::read_to_string(manifest)
        .is_ok_and(|text| text.contains(&format!("[[example]]\nname = \"{name}\"\n")));
    member || root().join("examples").join(format!("{name}.rs")).is_file()
}

#[test]
fn every_command_of_the_documents_shares_the_build_of_the_tests() {
    // for one package alone cargo chooses other features, and compiles candle again
    let mut count = 0;
    for file in DOCUMENTS.iter().chain(&["src/guide.md", ".ci/run"]) {
        let text = read(file).replace(" --locked", "");
        for command in ["cargo run -p", "cargo run --bin", "cargo test -p"] {
            assert!(!text.contains(command), "{file}: {command}");
        }
        for rest in text.split("cargo run --example ").skip(1) {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let name = &rest[..end.unwrap_or(rest.len())];
            // a loop over names has a variable there
            assert!(name.is_empty() || is_example(name), "{file}: {name}");
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
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
            assert!(is_example(name), "{page}: {example}");
            examples += 1;
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
