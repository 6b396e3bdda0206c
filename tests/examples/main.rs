//! The examples do what their headers say.

#[path = "../common/mod.rs"]
mod common;
mod conditional_sft;
mod dpo;
mod edits;
mod grpo;
mod hindsight;
mod judges;
mod learns;
mod likelihood;
mod lora;
mod raft;
mod rankings;
mod revision;
mod reward_model;
mod rlhf;
mod selection;
mod sft;
mod stable_alignment;

/// The result of a run as the header of its source shows it: every number there is computed.
#[track_caller]
fn assert_header_shows(source: &str, result: &str) {
    let header = source.lines().map_while(|line| line.strip_prefix("//!"));
    let header: Vec<&str> = header
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    let header = header.join("\n");
    assert!(
        header.contains(result),
        "the header shows\n{header}\nbut the run gives\n{result}"
    );
}

#[test]
fn every_example_of_one_file_stands_in_the_readme_with_its_claim_and_is_run() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let readme = read("examples/README.md");
    let tests = read("tests/examples/main.rs");
    let files = std::fs::read_dir(root.join("examples")).unwrap();
    let names = files.filter_map(|file| {
        Some(
            file.unwrap()
                .file_name()
                .to_str()?
                .strip_suffix(".rs")?
                .to_string(),
        )
    });
    let names: Vec<String> = names.collect();
    assert!(!names.is_empty());
    for name in names {
        let command = format!("cargo run --example {name}");
        assert!(
            readme.contains(&format!("| `{command}` |")),
            "examples/README.md: {name}"
        );
        let header = read(&format!("examples/{name}.rs"));
        assert!(
            header.contains(&format!("//! {command}\n")),
            "header: {name}"
        );
        assert!(tests.contains(&format!("\nmod {name};\n")), "tests: {name}");
    }
}
