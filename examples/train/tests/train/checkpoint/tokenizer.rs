//! A folder's tokenizer, its special tokens, and what may be wrong with them.

use super::{folder, golden, noon, open};
use std::fs;
use std::path::Path;
use train::checkpoint::tokenizer::{Token, Tokenizer};

fn token(text: &str, id: u32) -> Token {
    Token {
        text: text.to_string(),
        id,
    }
}

fn message(folder: &Path) -> String {
    let message = Tokenizer::open(folder).unwrap_err().to_string();
    message.replace(&format!("{}/", folder.display()), "")
}

#[test]
fn special_tokens_come_from_the_folder() {
    let tokenizer = Tokenizer::open(&golden("words")).unwrap();
    assert_eq!(tokenizer.bos(), Some(&token("<s>", 1)));
    assert_eq!(tokenizer.eos(), Some(&token("</s>", 2)));
    assert_eq!(tokenizer.pad(), Some(&token("<pad>", 0)));
    assert_eq!(tokenizer.ends(), [2]);
    assert_eq!(tokenizer.token(10), Some("t10".to_string()));
}

#[test]
fn the_post_processor_alone_adds_tokens() {
    let words = Tokenizer::open(&golden("words")).unwrap();
    assert_eq!(words.encode("t10 t18</s>").unwrap(), [10, 18, 2]);
    let begun = folder("begun", None);
    let config = begun.path().join("tokenizer_config.json");
    let text = fs::read_to_string(&config).unwrap();
    for add in ["true", "false"] {
        let add = format!(r#"{{"add_bos_token": {add},"#);
        fs::write(&config, text.replacen('{', &add, 1)).unwrap();
        let tokenizer = Tokenizer::open(begun.path()).unwrap();
        assert_eq!(tokenizer.encode("t10 t18").unwrap(), [1, 10, 18]);
        // a template writes its special tokens itself
        let rendered = tokenizer.encode_rendered("<s> t10").unwrap();
        assert_eq!(rendered.ids, [1, 10]);
        assert_eq!(rendered.bytes, [0..3, 4..7]);
    }
}

#[test]
fn cutting_and_filling_of_the_file_do_not_reach_the_rows() {
    let words = folder("words", None);
    let path = words.path().join("tokenizer.json");
    let text = fs::read_to_string(&path).unwrap();
    let cuts = r#""truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}"#;
    let fills = r#""padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}"#;
    let changed = text
        .replace(r#""truncation": null"#, cuts)
        .replace(r#""padding": null"#, fills);
    assert_ne!(changed, text);
    fs::write(&path, changed).unwrap();
    let tokenizer = Tokenizer::open(words.path()).unwrap();
    assert_eq!(tokenizer.encode("t3 t4 t5").unwrap(), [3, 4, 5]);
}

#[test]
fn the_generation_settings_name_further_ends() {
    let words = folder("words", None);
    let write = |file, text| fs::write(words.path().join(file), text).unwrap();
    write("config.json", r#"{"eos_token_id": 5}"#);
    let ends = || Tokenizer::open(words.path()).unwrap().ends().to_vec();
    assert_eq!(ends(), [2, 5]);
    write("generation_config.json", r#"{"eos_token_id": [7, 2, 9]}"#);
    assert_eq!(ends(), [2, 7, 9]);
    write("generation_config.json", r#"{"eos_token_id": "x"}"#);
    assert_eq!(
        message(words.path()),
        "generation_config.json: `eos_token_id` must be a token or a list of tokens, found \"x\""
    );
}

#[test]
fn a_named_token_is_found_as_a_whole() {
    let words = folder("words", None);
    let path = words.path().join("tokenizer_config.json");
    // a token of the vocabulary that tokenizer.json does not list as special
    let text = r#"{"eos_token": {"content": "t9", "special": true}, "model_max_length": 5}"#;
    fs::write(&path, text).unwrap();
    let tokenizer = Tokenizer::open(words.path()).unwrap();
    assert_eq!(tokenizer.encode("t3t9").unwrap(), [3, 9]);
    assert_eq!(tokenizer.pad(), Some(&token("t9", 9)));
    // an older file is read too, and the newer one wins
    let map = r#"{"eos_token": "t8", "bos_token": "t7"}"#;
    fs::write(words.path().join("special_tokens_map.json"), map).unwrap();
    let tokenizer = Tokenizer::open(words.path()).unwrap();
    assert_eq!(tokenizer.eos(), Some(&token("t9", 9)));
    assert_eq!(tokenizer.bos(), Some(&token("t7", 7)));
}

#[test]
fn faults_of_a_folder_name_file_and_field() {
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(
        message(empty.path()),
        "tokenizer.json: is missing; save the tokenizer with a current version of Transformers"
    );
    let words = folder("words", None);
    let with = |file: &str, text: &str| {
        let path = words.path().join(file);
        let before = fs::read(&path).unwrap();
        fs::write(&path, text).unwrap();
        let message = message(words.path());
        fs::write(&path, before).unwrap();
        message
    };
    let broken = with("tokenizer.json", r#"{"version": "1.0"}"#);
    let start = "tokenizer.json: is not a tokenizer that can be read: ";
    assert!(broken.starts_with(start), "{broken}");
    let config = "tokenizer_config.json";
    assert_eq!(
        with(config, r#"{"eos_token": "</nothing>"}"#),
        "tokenizer_config.json: `eos_token` is `</nothing>`, which is no token of tokenizer.json"
    );
    assert_eq!(
        with(config, r#"{"eos_token": 2}"#),
        "tokenizer_config.json: `eos_token` must be a text, found a number"
    );
    assert_eq!(
        with(
            config,
            r#"{"added_tokens_decoder": {"5": {"content": "</s>"}}}"#
        ),
        "tokenizer_config.json: `added_tokens_decoder.5` is `</s>`, and tokenizer.json has no such \
         token with this id"
    );
    let broken = with(config, r#"{"eos_token": "#);
    assert!(broken.starts_with("tokenizer_config.json: EOF"), "{broken}");
}

#[test]
fn templates_come_from_the_first_place_that_has_one() {
    use train::checkpoint::template::Templates;
    let words = folder("words", None);
    let tokenizer = Tokenizer::open(words.path()).unwrap();
    let templates = || Templates::open(words.path(), &tokenizer, noon()).unwrap();
    let at = |text: String| text.replace(&format!("{}/", words.path().display()), "");
    let name = |tools| at(templates().choose(tools).unwrap().name().to_string());
    let none = at(templates().choose(false).unwrap_err().to_string());
    assert!(none.contains("has no chat template"), "{none}");
    let config = words.path().join("tokenizer_config.json");
    fs::write(&config, r#"{"chat_template": "a"}"#).unwrap();
    assert_eq!(name(true), "tokenizer_config.json, `chat_template`");
    let list = r#"{"chat_template": [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]}"#;
    fs::write(&config, list).unwrap();
    assert_eq!(name(false), "tokenizer_config.json, `chat_template[0]`");
    assert_eq!(name(true), "tokenizer_config.json, `chat_template[1]`");
    let more = words.path().join("additional_chat_templates");
    fs::create_dir(&more).unwrap();
    fs::write(more.join("rag.jinja"), "c").unwrap();
    let several = at(templates().choose(false).unwrap_err().to_string());
    assert!(
        several.contains("several chat templates (rag) and no `default`"),
        "{several}"
    );
    fs::write(words.path().join("chat_template.jinja"), "d").unwrap();
    assert_eq!(name(true), "chat_template.jinja");
    fs::write(more.join("tool_use.jinja"), "e").unwrap();
    assert_eq!(name(true), "additional_chat_templates/tool_use.jinja");
    assert_eq!(name(false), "chat_template.jinja");
    drop(open(&words));
}
