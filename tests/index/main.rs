//! The index is complete: every page has all its sections and a row in the survey's table; every row
//! has a page, papers that the page names, and tests for its letters; the table stands there alone.

mod circles;
mod exercises;
mod members;

use std::fs;
use std::path::{Path, PathBuf};

/// What a newcomer reads beside the pages.
const DOCUMENTS: [&str; 10] = [
    "README.md",
    "CONTRIBUTING.md",
    "benches/README.md",
    "examples/README.md",
    "examples/losses/README.md",
    "examples/support/README.md",
    "examples/tour/README.md",
    "examples/train/MPI.md",
    "examples/train/README.md",
    "tests/README.md",
];

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

/// A doc comment of the sources that is a page: it says where its method comes from.
struct Page {
    /// The file below `src/`.
    file: String,
    /// What the table lists: a function, or the type that a method belongs to.
    item: String,
    /// The function, or the type itself.
    name: String,
    doc: String,
}

/// The type of `impl … Type`, or of `impl … for Type`.
fn implemented(line: &str) -> Option<&str> {
    let mut rest = line.strip_prefix("impl")?;
    if rest.starts_with('<') {
        rest = rest.split_once("> ")?.1;
    }
    let rest = rest.split_once(" for ").map_or(rest, |(_, of)| of);
    rest.trim().split(['<', ' ', '{']).next()
}

/// What a line declares as public, with its kind.
fn declared(line: &str) -> Option<(&str, &str)> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    let (kind, rest) = rest.split_once(' ')?;
    let kinds = ["fn", "struct", "enum", "type"];
    let name = rest
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()?;
    kinds.contains(&kind).then_some((kind, name))
}

/// Every page, and every other function with an equation or a loss, which should be one.
fn pages() -> Vec<Page> {
    let mut found = Vec::new();
    for path in sources(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let below = path.strip_prefix(root().join("src")).unwrap();
        let file = below.display().to_string();
        let (mut doc, mut owner) = (String::new(), String::new());
        for line in text.lines() {
            if let Some(comment) = line.trim_start().strip_prefix("///") {
                doc.push_str(&format!("{}\n", comment.trim_start_matches(' ')));
                continue;
            }
            if let Some(of) = implemented(line) {
                owner = of.to_string();
            }
            if let Some((kind, name)) = declared(line) {
                let method = line.starts_with(' ');
                let loss = kind == "fn" && !method && name.ends_with("_loss");
                let equation = kind == "fn" && !method && doc.contains("# Equation\n");
                let tools = ["math.rs", "log_probs/", "ops/"];
                let room = !tools.iter().any(|tool| file.starts_with(tool));
                if doc.contains("# Source\n") || (room && (loss || equation)) {
                    let item = if method { &owner } else { name };
                    found.push(Page {
                        file: file.clone(),
                        item: item.to_string(),
                        name: name.to_string(),
                        doc: doc.clone(),
                    });
                }
            }
            if !line.trim_start().starts_with("#[") {
                doc.clear();
            }
        }
    }
    found
}

/// The rows of both tables, of the survey's methods and of those since, without the links.
fn rows() -> Vec<String> {
    let (survey, since) = (read("src/survey.md"), read("src/since.md"));
    let of_survey = |line: &&str| {
        ["| 2", "| 3", "| 4"]
            .iter()
            .any(|part| line.starts_with(part))
    };
    let survey = survey.lines().filter(of_survey);
    let since = since.lines().filter(|line| line.starts_with("| 20"));
    survey
        .chain(since)
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

/// A row's cells, from the section on.
fn cells(row: &str) -> Vec<&str> {
    let cells = row.trim_matches(['|', ' ']).split(" | ");
    cells.map(|c| c.trim().trim_matches('`')).collect()
}

#[test]
fn every_page_has_all_its_sections_in_order() {
    let pages = pages();
    assert!(pages.len() >= 60, "{}", pages.len());
    for page in pages {
        let Page { file, name, .. } = &page;
        let mut from = 0;
        for section in SECTIONS {
            match page.doc[from..].find(&format!("{section}\n")) {
                Some(at) => from += at,
                None => panic!("{file}: `{name}` lacks `{section}`, or has it out of order"),
            }
        }
        assert!(
            !name.ends_with("_loss") || page.doc[from..].contains("arXiv:"),
            "{file}: the source of `{name}` names no paper"
        );
    }
}

#[test]
fn every_operation_has_the_sections_of_a_page_but_its_source() {
    let mut count = 0;
    for file in fs::read_dir(root().join("src/ops")).unwrap() {
        let path = file.unwrap().path();
        let text = match path.is_file() {
            true => fs::read_to_string(&path).unwrap(),
            false => continue,
        };
        for (at, _) in text.match_indices("\npub fn ") {
            let name = text[at + 8..].split('(').next().unwrap();
            let lines = text[..at].lines().rev();
            let above = |line: &&str| line.starts_with("///") || line.starts_with("#[");
            let mut doc: Vec<&str> = lines.take_while(above).collect();
            doc.reverse();
            let doc = doc.join("\n") + "\n";
            let mut from = 0;
            for section in &SECTIONS[..6] {
                match doc[from..].find(&format!("{section}\n")) {
                    Some(at) => from += at,
                    None => panic!("`{name}` lacks `{section}`, or has it out of order"),
                }
            }
            count += 1;
        }
    }
    assert_eq!(count, 8);
}

/// Whether a file holds only what came after the survey: it is reached through its module alone.
fn since_only(file: &str) -> bool {
    file.starts_with("distillation/") || file.starts_with("sft/")
}

#[test]
fn every_page_has_a_row_in_one_table_or_stands_around_them() {
    let (rows, survey) = (rows(), read("src/survey.md"));
    for Page { file, item, .. } in pages() {
        let row = [format!("| `{item}` |"), format!("| `{file}` |")];
        let listed = rows.iter().any(|r| row.iter().all(|cell| r.contains(cell)));
        // §3.3 has tools beside its methods
        let around = (file.starts_with("parameter_efficient") || file.starts_with("peft"))
            && survey.contains(&format!("`{item}`"));
        assert!(
            listed || around,
            "no row with {row:?} in survey.md or since.md"
        );
    }
}

#[test]
fn every_row_has_a_file_and_the_papers_that_its_page_names() {
    let pages = pages();
    for row in rows() {
        let cells = cells(&row);
        let [section, _, item, _, _, papers, file] = cells[..] else {
            panic!("seven cells: {row}")
        };
        let text = read(&format!("src/{file}"));
        let declares = |line: &str| declared(line).is_some_and(|(_, name)| name == item);
        assert!(
            text.lines().any(declares),
            "src/{file} has no public `{item}`"
        );

        let of_item = |page: &&Page| page.item == item && page.file == file;
        let docs: Vec<&str> = pages
            .iter()
            .filter(of_item)
            .map(|p| p.doc.as_str())
            .collect();
        assert!(!docs.is_empty() || section == "3.3", "`{item}` has no page");
        let source = match docs.is_empty() {
            true => text,
            false => docs.concat(),
        };
        for paper in papers.split(", ") {
            let number = paper.trim_start_matches("code of ");
            let named = match number {
                "a web page" => source.contains(number),
                _ => number.len() == 10 && source.contains(&format!("arXiv:{number}")),
            };
            assert!(named, "the page of `{item}` does not name {paper}");
        }
    }
}

/// Where the tests stand that a letter speaks of.
const EVIDENCE: [(&str, &str); 6] = [
    ("V", "values"),
    ("G", "common/rows"),
    ("O", "golden"),
    ("L", "common/rows"),
    ("I", "identities"),
    ("M", "optimum"),
];

/// Items that a suite reaches by another name.
const REACHED_BY: [(&str, &str); 2] = [
    ("sample", "SamplingConfig"),
    ("entropy_loss", "EntropyConfig"),
];

#[test]
fn every_letter_of_evidence_has_a_test_that_names_the_item() {
    for row in rows() {
        let cells = cells(&row);
        let (section, item) = (cells[0], cells[2]);
        // the adapters of §3.3 are built by helpers that many suites share
        if section == "3.3" {
            continue;
        }
        for letter in cells[3].split(' ') {
            let known = EVIDENCE.iter().find(|(name, _)| *name == letter);
            let (_, suite) = known.unwrap_or_else(|| panic!("evidence {letter}: {row}"));
            let other = REACHED_BY.iter().find(|(name, _)| *name == item);
            let named = sources(&root().join("tests").join(suite))
                .iter()
                .any(|path| {
                    let text = fs::read_to_string(path).unwrap();
                    let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
                    words.any(|word| word == item || other.is_some_and(|(_, by)| word == *by))
                });
            assert!(
                named,
                "{letter} of `{item}`: no test in tests/{suite} names it"
            );
        }
    }
}

#[test]
fn the_table_of_methods_stands_once_and_the_readme_leads_to_it() {
    let readme = read("README.md");
    assert!(readme.contains("](src/survey.md)"), "README.md has no link");
    for row in rows() {
        assert!(!readme.contains(&row), "README.md repeats: {row}");
    }
    for section in ["§3", "§3.1", "§3.2.1", "§3.2.2", "§3.3"] {
        let row = format!("| {section} | ");
        assert!(readme.contains(&row), "README.md lacks {section}");
    }
    assert!(readme.lines().count() <= 150, "a newcomer reads 150 lines");
}

#[test]
fn every_link_of_the_readmes_leads_to_a_file() {
    for file in DOCUMENTS {
        let text = read(file);
        let folder = root().join(file).parent().unwrap().to_path_buf();
        for link in text.split("](").skip(1) {
            let to = link.split([')', '#']).next().unwrap();
            let local = !to.is_empty() && !to.contains("://");
            assert!(!local || folder.join(to).exists(), "{file}: {to}");
        }
    }
}

#[test]
fn every_example_of_the_guide_has_what_it_says_to_change() {
    let guide = read("src/guide.md");
    let command = "**Start** `cargo run --example ";
    let steps: Vec<&str> = guide.split(command).skip(1).collect();
    assert_eq!(steps.len(), 7);
    for step in steps {
        let (name, rest) = step.split_once('`').unwrap();
        let change = rest.split_once("**Change** ").unwrap().1;
        let change = change.split("\n\n").next().unwrap();
        let first = change.split('`').nth(1).unwrap();
        let example = read(&format!("examples/{name}.rs"));
        assert!(example.contains(first), "examples/{name}.rs lacks {first}");
    }
}

/// A file that no program leads to would hold tests that never run.
#[test]
fn every_file_of_the_tests_belongs_to_a_program() {
    let tests = root().join("tests");
    let mut count = 0;
    for path in sources(&tests) {
        let below = path.strip_prefix(&tests).unwrap();
        let folder = below.parent().unwrap();
        let name = below.file_stem().unwrap().to_str().unwrap();
        // cargo makes a program of every file of tests/ and of every `main.rs` in a folder there
        if folder.components().count() == 0 || name == "main" {
            assert!(folder.components().count() <= 1, "{}", below.display());
            continue;
        }
        // a folder is declared beside itself
        let (beside, module) = match name {
            "mod" => (folder.parent().unwrap(), folder.file_name().unwrap()),
            _ => (folder, below.file_stem().unwrap()),
        };
        let module = format!("mod {};", module.to_str().unwrap());
        let by_path = format!("#[path = \"{name}.rs\"]");
        let declared = ["mod.rs", "main.rs", "suite.rs"].iter().any(|file| {
            let text = fs::read_to_string(tests.join(beside).join(file)).unwrap_or_default();
            let mut lines = text.lines().map(|l| l.strip_prefix("pub ").unwrap_or(l));
            lines.any(|line| line == module || line == by_path)
        });
        assert!(declared, "tests/{}: no `{module}`", below.display());
        count += 1;
    }
    assert!(count > 150, "{count}");
}

/// The names of the public items at the outermost level of a file, those apart that the docs hide.
fn outermost(text: &str) -> Vec<String> {
    let (mut found, mut hidden) = (Vec::new(), false);
    for line in text.lines() {
        let rest = line.strip_prefix("pub ").unwrap_or_default();
        let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
        let (kind, rest) = rest.split_once(' ').unwrap_or_default();
        let kinds = ["fn", "struct", "enum", "trait", "type", "const", "static"];
        if kinds.contains(&kind) && !hidden {
            let name = rest
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next();
            found.extend(name.map(str::to_string));
        }
        let beside = line.starts_with("#[") || line.starts_with("///");
        hidden = line == "#[doc(hidden)]" || hidden && beside;
    }
    found
}

#[test]
fn what_the_crates_page_calls_flat_is_found_flat() {
    let lib = read("src/lib.rs");
    assert!(lib.contains("losses, their settings and results, and the core types are exported"));
    let mut flat = Vec::new();
    for (names, _) in lib
        .split("pub use ")
        .skip(1)
        .map(|r| r.split_once(';').unwrap())
    {
        let names = names.rsplit("::").next().unwrap();
        let names = names.split(|c: char| !c.is_alphanumeric() && c != '_');
        flat.extend(names.filter(|name| !name.is_empty()));
    }
    assert!(flat.len() <= 100, "{} names are flat", flat.len());

    let src = root().join("src");
    let (mut found, mut through) = (0, 0);
    for path in sources(&src) {
        let below = path.strip_prefix(&src).unwrap().display().to_string();
        for name in outermost(&fs::read_to_string(&path).unwrap()) {
            let is_flat = flat.contains(&name.as_str());
            // what came after the survey is in folders of its own, and reached through them
            let since = below.matches('/').count() > 1;
            match room(&below) {
                "online" | "ranking" if since => {
                    assert!(!is_flat, "src/{below}: `{name}` is in src/lib.rs");
                    through += 1;
                }
                "sft" | "online" | "ranking" | "language"
                    if (name.ends_with("_loss") || name.ends_with("Config"))
                        && !since_only(&below) =>
                {
                    assert!(is_flat, "src/{below}: `{name}` is not in src/lib.rs");
                    found += 1;
                }
                _ if since_only(&below) => {
                    assert!(!is_flat, "src/{below}: `{name}` is in src/lib.rs");
                    through += 1;
                }
                "data"
                | "parameter_efficient"
                | "peft"
                | "training"
                | "math"
                | "ops"
                | "decoder"
                | "evaluation" => {
                    assert!(!is_flat, "src/{below}: `{name}` is in src/lib.rs");
                    through += 1;
                }
                _ => (),
            }
        }
    }
    assert!(found > 35 && through > 100, "{found} and {through}");
}

#[test]
fn every_loss_over_pairs_returns_what_it_orders_by() {
    let mut found = Vec::new();
    for path in sources(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        for of in text.split("\npub fn ").skip(1) {
            let name = of.split('(').next().unwrap();
            let (arguments, result) = of.split_once(") -> ").unwrap_or_default();
            let pairs = ["Pair<Tensor>", "&LogRatios"];
            if name.ends_with("_loss") && pairs.iter().any(|pair| arguments.contains(pair)) {
                assert!(result.starts_with("Result<PreferenceLoss>"), "{name}");
                found.push(name.to_string());
            }
        }
    }
    found.sort();
    let known = [
        "dpo_loss",
        "ipo_loss",
        "pairwise_reward_loss",
        "simpo_loss",
        "slic_margin_loss",
        "slic_rank_loss",
    ];
    assert!(
        known.iter().all(|name| found.iter().any(|f| f == name)),
        "{found:?}"
    );
}

#[test]
fn no_reader_tries_the_forms_of_a_value_in_the_dark() {
    // an untagged enum answers a wrong value by its own name in the sources
    for folder in ["src", "examples"] {
        for path in sources(&root().join(folder)) {
            let text = fs::read_to_string(&path).unwrap();
            // tests read what tests wrote
            if path.components().any(|part| part.as_os_str() == "tests") {
                continue;
            }
            for (before, _) in text.match_indices("#[serde(untagged)]") {
                let derive = text[..before].rsplit("\n\n").next().unwrap();
                assert!(!derive.contains("Deserialize"), "{}", path.display());
            }
        }
    }
}

#[test]
fn a_map_and_a_header_of_tensors_have_one_reader_each() {
    for (what, reader) in [
        ("fn visit_map", "in_order.rs"),
        ("data_offsets:", "tensor_file.rs"),
    ] {
        let src = root().join("src");
        let reads = |path: &PathBuf| code(&fs::read_to_string(path).unwrap()).contains(what);
        let found: Vec<_> = sources(&src).into_iter().filter(reads).collect();
        assert_eq!(found, [src.join(reader)], "{what}");
    }
}

/// The rooms of `src/`, from the ground up. A room imports from lower floors only.
const FLOORS: [&[&str]; 13] = [
    &["atomic", "files", "simd"],
    &["error", "exp"],
    &["in_order", "known", "sequence", "text"],
    &["shape", "tensor_file"],
    &["math"],
    &["log_probs", "ops", "reduction"],
    &["outputs", "training"],
    &["sft"],
    &["evaluation"],
    // the sections of the survey do not know each other
    &[
        "data",
        "online",
        "ranking",
        "language",
        "distillation",
        "parameter_efficient",
    ],
    &["peft"],
    &["decoder"],
    &["lib", "guide", "since", "survey"],
];

/// The room of a file, by its path below `src/`.
fn room(file: &str) -> &str {
    let first = file.split('/').next().unwrap();
    first.strip_suffix(".rs").unwrap_or(first)
}

/// The code of a file: no comments, no tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = text.lines().filter(|l| !l.trim_start().starts_with("//"));
    lines.map(|l| format!("{l}\n")).collect()
}

#[test]
fn a_room_imports_from_lower_floors_only() {
    let floor = |room: &str| {
        let found = FLOORS.iter().position(|rooms| rooms.contains(&room));
        found.unwrap_or_else(|| panic!("`{room}` is on no floor"))
    };
    let mut arrows = 0;
    for path in sources(&root().join("src")) {
        let below = path.strip_prefix(root().join("src")).unwrap();
        let file = below.display().to_string();
        let from = room(&file);
        let text = code(&fs::read_to_string(&path).unwrap());
        for rest in text.split("crate::").skip(1) {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let to = &rest[..end.unwrap_or(rest.len())];
            if to.is_empty() || from == "lib" || to == from {
                continue;
            }
            assert!(
                floor(to) < floor(from),
                "src/{file}: `{from}` imports from `{to}`, which is not below it"
            );
            arrows += 1;
        }
    }
    assert!(arrows > 100, "{arrows}");
}

#[test]
fn no_room_is_above_a_third_of_the_source() {
    let mut lines = std::collections::BTreeMap::new();
    for path in sources(&root().join("src")) {
        let below = path.strip_prefix(root().join("src")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        *lines
            .entry(room(&below.display().to_string()).to_string())
            .or_insert(0) += text.lines().count();
    }
    let all: usize = lines.values().sum();
    for (room, lines) in lines {
        assert!(3 * lines <= all, "`{room}` has {lines} of {all} lines");
    }
}
