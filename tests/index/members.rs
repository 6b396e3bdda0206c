//! The examples that are programs of their own are members of the workspace: every command runs them,
//! nobody publishes them, and the library's own build does not know them.

use super::{read, root, sources};
use std::fs;

/// The folders of `examples/` that have a manifest.
fn members() -> Vec<String> {
    let folders = fs::read_dir(root().join("examples")).unwrap();
    let paths = folders.map(|folder| folder.unwrap().path());
    let mut found: Vec<String> = paths
        .filter(|path| path.join("Cargo.toml").is_file())
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_string())
        .collect();
    found.sort();
    found
}

/// A list of the root's manifest.
fn list(manifest: &str, key: &str) -> Vec<String> {
    let (_, rest) = manifest.split_once(&format!("\n{key} = [")).expect(key);
    let (list, _) = rest.split_once(']').expect(key);
    let names = list.split(',').map(|name| name.trim().trim_matches('"'));
    names.map(str::to_string).collect()
}

#[test]
fn every_member_is_run_by_the_plain_commands_and_has_its_own_page_and_tests() {
    let manifest = read("Cargo.toml");
    let paths: Vec<String> = members().iter().map(|m| format!("examples/{m}")).collect();
    assert_eq!(list(&manifest, "members"), paths);
    assert_eq!(
        list(&manifest, "default-members"),
        [vec![".".to_string()], paths.clone()].concat()
    );
    let readme = read("examples/README.md");
    for (path, name) in paths.iter().zip(members()) {
        let own = read(&format!("{path}/Cargo.toml"));
        assert!(own.contains(&format!("name = \"{name}\"\n")), "{path}");
        assert!(own.contains("publish = false\n"), "{path}");
        assert!(readme.contains(&format!("]({name}/README.md)")), "{path}");
        let page = read(&format!("{path}/README.md"));
        let command = match root().join(path).join("src/main.rs").is_file() {
            true => format!("cargo run --example {name}"),
            false => format!("cargo test --test {name}"),
        };
        assert!(page.contains(&command), "{path}/README.md: {command}");
        assert!(
            !sources(&root().join(path).join("tests")).is_empty(),
            "{path}"
        );
    }
}

#[test]
fn what_only_the_members_need_is_no_dependency_of_the_library() {
    let manifest = read("Cargo.toml");
    for name in ["clap", "flate2", "indicatif", "plotters"] {
        assert!(!manifest.contains(&format!("\n{name} =")), "{name}");
    }
}

#[test]
fn the_library_and_its_single_examples_include_no_file_of_a_member() {
    // a member's files are not in the package of the library
    let singles = fs::read_dir(root().join("examples")).unwrap();
    let singles = singles.map(|file| file.unwrap().path());
    let singles = singles.filter(|path| path.extension().is_some_and(|e| e == "rs"));
    let mut count = 0;
    for path in sources(&root().join("src")).into_iter().chain(singles) {
        let text = fs::read_to_string(&path).unwrap();
        for beginning in ["#[path = \"", "include_str!(\""] {
            for rest in text.split(beginning).skip(1) {
                let file = path.with_file_name(rest.split('"').next().unwrap());
                let file = file.canonicalize().unwrap();
                let below = file.strip_prefix(root().canonicalize().unwrap()).unwrap();
                let member = members()
                    .iter()
                    .any(|name| below.starts_with(format!("examples/{name}")));
                assert!(!member, "{}: {}", path.display(), below.display());
                count += 1;
            }
        }
    }
    assert!(count > 10, "{count}");
}
