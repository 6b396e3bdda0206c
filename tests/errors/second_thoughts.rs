use candle_align::language::edits::{Edit, EditCosts, EditScript, edit_script, edit_scripts};
use candle_align::language::second_thoughts::{
    EditTokens, decipher, second_thoughts_prompt, second_thoughts_sequence,
};
use candle_align::{Error, Result};

const TOKENS: EditTokens = EditTokens {
    separator: 100,
    insert: 101,
    delete: 102,
    replace: 103,
    content: 104,
    target: 105,
    digits: [110, 111, 112, 113, 114, 115, 116, 117, 118, 119],
};

fn script(edits: &[Edit]) -> EditScript {
    EditScript {
        edits: edits.to_vec(),
    }
}

#[test]
fn the_costs() {
    for (value, found) in [
        (0.0, "0"),
        (-1.0, "-1"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
    ] {
        for (field, costs) in [
            (
                "insert",
                EditCosts {
                    insert: value,
                    ..Default::default()
                },
            ),
            (
                "delete",
                EditCosts {
                    delete: value,
                    ..Default::default()
                },
            ),
            (
                "replace",
                EditCosts {
                    replace: value,
                    ..Default::default()
                },
            ),
        ] {
            assert_eq!(
                edit_script(&[1], &[2], &costs).unwrap_err().to_string(),
                format!("edit_script: `{field}` must be finite and > 0, got {found}")
            );
            let sets = [EditCosts::default(), costs];
            assert_eq!(
                edit_scripts(&[1], &[2], &sets).unwrap_err().to_string(),
                format!("edit_scripts: `{field}` must be finite and > 0, got {found}")
            );
        }
    }
    assert_eq!(
        edit_scripts(&[1], &[2], &[]).unwrap_err().to_string(),
        "edit_scripts: `costs` is empty"
    );
}

#[test]
fn a_script_that_does_not_fit() {
    let apply = |edits: &[Edit]| {
        let error = script(edits).apply(&[1, 2, 3]).unwrap_err();
        error.to_string()
    };
    let (at_end, past_end) = (Edit::Delete { position: 2 }, Edit::Delete { position: 3 });
    assert_eq!(
        apply(&[at_end, past_end]),
        "EditScript::apply: `edits[1]` is at position 3 of a source of 3 token(s)"
    );
    let replace = Edit::Replace {
        position: 3,
        token: 9,
    };
    assert_eq!(
        apply(&[replace]),
        "EditScript::apply: `edits[0]` is at position 3 of a source of 3 token(s)"
    );
    let insert = |position| Edit::Insert { position, token: 9 };
    assert!(script(&[insert(3)]).apply(&[1, 2, 3]).is_ok());
    assert_eq!(
        apply(&[insert(3), insert(4)]),
        "EditScript::apply: `edits[1]` is at position 4 of a source of 3 token(s)"
    );
    assert_eq!(
        apply(&[insert(usize::MAX)]),
        format!(
            "EditScript::apply: `edits[0]` is at position {} of a source of 3 token(s)",
            usize::MAX
        )
    );
    // the same token twice, and backwards
    for late in [at_end, insert(2), insert(0)] {
        assert_eq!(
            apply(&[at_end, late]),
            format!(
                "EditScript::apply: `edits[1]` is at position {}, which an earlier edit has passed",
                late.position()
            )
        );
    }
    let empty = script(&[Edit::Delete { position: 0 }]).apply(&[]);
    assert_eq!(
        empty.unwrap_err().to_string(),
        "EditScript::apply: `edits[0]` is at position 0 of a source of 0 token(s)"
    );
}

#[test]
fn scripts_of_other_sources_make_no_sequence_and_no_words() {
    let script = script(&[Edit::Delete { position: 3 }]);
    let want = "EditScript::apply: `edits[0]` is at position 3 of a source of 1 token(s)";
    let sequence = second_thoughts_sequence(&[], &[1], &script, &TOKENS);
    assert_eq!(sequence.unwrap_err().to_string(), want);
    let encode = |_: &str| -> Result<Vec<u32>> { Ok(vec![0]) };
    let words = decipher(&script, &[1], &encode);
    assert_eq!(words.unwrap_err().to_string(), want);
}

#[test]
fn an_error_of_the_tokenizer_comes_through() {
    let script = script(&[Edit::Delete { position: 0 }]);
    let encode = |text: &str| -> Result<Vec<u32>> {
        Err(Error::Argument {
            function: "encode",
            argument: "text".to_string(),
            problem: format!("is {text:?}"),
        })
    };
    assert_eq!(
        decipher(&script, &[1], &encode).unwrap_err().to_string(),
        "encode: `text` is \"Delete \\\"\""
    );
}

#[test]
fn two_special_tokens_alike() {
    let none = script(&[]);
    let mut alike = vec![];
    for i in 0..16 {
        let mut tokens = TOKENS;
        let slots = [
            &mut tokens.separator,
            &mut tokens.insert,
            &mut tokens.delete,
            &mut tokens.replace,
            &mut tokens.content,
            &mut tokens.target,
        ];
        let other = if i == 5 { 100 } else { 105 };
        match slots.into_iter().nth(i) {
            Some(slot) => *slot = other,
            None => tokens.digits[i - 6] = other,
        }
        alike.push((tokens, other));
    }
    for (tokens, twice) in alike {
        let problem = format!("`tokens` give {twice} two meanings");
        for (function, error) in [
            ("EditTokens::write", tokens.write(&none).err()),
            ("EditTokens::parse", tokens.parse(&[]).err()),
            (
                "second_thoughts_sequence",
                second_thoughts_sequence(&[], &[], &none, &tokens).err(),
            ),
            (
                "second_thoughts_prompt",
                second_thoughts_prompt(&[], &[], &tokens).err(),
            ),
        ] {
            assert_eq!(
                error.expect(function).to_string(),
                format!("{function}: {problem}")
            );
        }
    }
}

#[test]
fn tokens_that_are_no_script() {
    let nines = [vec![102], vec![119; 30], vec![105]].concat();
    for (generated, problem) in [
        (vec![], "ends at 0, before the end of the edits"),
        (vec![102, 110], "ends at 2, before the end of the edits"),
        (
            vec![102, 110, 7, 105],
            "has 7 at 2, neither an operation nor the end of the edits",
        ),
        (
            vec![104, 7, 105],
            "has 104 at 0, neither an operation nor the end of the edits",
        ),
        (
            vec![110],
            "has 110 at 0, neither an operation nor the end of the edits",
        ),
        (
            vec![102, 110, 102, 105],
            "has no position after the operation at 2",
        ),
        (vec![101], "has no position after the operation at 0"),
        (
            vec![101, 104, 7, 105],
            "has no position after the operation at 0",
        ),
        (
            vec![101, 110, 7, 105],
            "has no content for the operation at 0",
        ),
        (
            vec![102, 110, 103, 111, 104],
            "has no content for the operation at 2",
        ),
        (nines, "has a position at 1 beyond any text"),
    ] {
        assert_eq!(
            TOKENS.parse(&generated).unwrap_err().to_string(),
            format!("EditTokens::parse: `generated` {problem}"),
            "{generated:?}"
        );
    }
}

#[test]
fn the_settings_as_json() {
    let costs: EditCosts = serde_json::from_str(r#"{"replace":1.5}"#).unwrap();
    assert_eq!((costs.insert, costs.delete, costs.replace), (1.0, 1.0, 1.5));
    assert!(serde_json::from_str::<EditCosts>(r#"{"keep":0.0}"#).is_err());
    let json = serde_json::to_string(&TOKENS).unwrap();
    assert_eq!(serde_json::from_str::<EditTokens>(&json).unwrap(), TOKENS);
    // no default: the ids are the caller's
    assert!(serde_json::from_str::<EditTokens>("{}").is_err());
}
