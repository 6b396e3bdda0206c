//! What the pages' exercises name is there: each solution is a test, or an example.

use super::{read, root, sources};
use std::fs;

/// Every `` `tests/FILE::NAME` `` of a doc comment, with the file that names it.
fn solutions() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for path in sources(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let comments = text.lines().map(str::trim_start);
        for line in comments.filter(|line| line.starts_with("//")) {
            for quoted in line.split('`').skip(1).step_by(2) {
                if let Some((file, name)) = quoted.split_once("::")
                    && file.starts_with("tests/")
                {
                    let page = path.display().to_string();
                    found.push((page, file.to_string(), name.to_string()));
                }
            }
        }
    }
    found
}

#[test]
fn every_test_that_a_page_names_exists() {
    let solutions = solutions();
    assert!(solutions.len() >= 25, "{}", solutions.len());
    for (page, file, name) in solutions {
        assert!(root().join(&file).is_file(), "{page}: `{file}`");
        let test = format!("#[test]\nfn {name}(");
        let there = read(&file).contains(&test);
        assert!(there, "{page}: `{file}` has no test `{name}`");
    }
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
