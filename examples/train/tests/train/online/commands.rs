//! Rewards from a program.
#![cfg(unix)]

use train::checkpoint::online::prompts::Prompt;
use train::checkpoint::online::rewards::command::Command;
use train::checkpoint::online::rollout::Answer;

/// What a shell's script says to three answers.
fn score(script: &str, seconds: f64) -> Result<Vec<Option<f64>>, String> {
    let command = Command {
        program: "sh".to_string(),
        arguments: vec!["-c".to_string(), script.to_string()],
        seconds,
    };
    let prompts = [Prompt {
        text: "how \"many\"?\n".to_string(),
        reference: Some("3".to_string()),
        ..Prompt::default()
    }];
    let answer = |text: &str| Answer {
        text: text.to_string(),
        ..Answer::default()
    };
    let answers = [answer("a\nb"), answer("c"), answer("")];
    command
        .score(&prompts, &answers)
        .map_err(|error| error.to_string())
}

#[test]
fn a_program_answers_each_line_with_a_number_or_null() {
    let found = score("cat > /dev/null; printf '1\\n-2.5e0\\n null \\n'", 60.0);
    assert_eq!(found, Ok(vec![Some(1.0), Some(-2.5), None]));
    // it may read nothing
    assert_eq!(score("printf '0\\n0\\n0'", 60.0), Ok(vec![Some(0.0); 3]));
}

#[test]
fn a_program_reads_one_object_a_line() {
    let want = concat!(
        r#"{"prompt":"how \"many\"?\n","completion":"a\nb","reference":"3"}"#,
        "|",
        r#"{"prompt":"how \"many\"?\n","completion":"c","reference":"3"}"#,
        "|",
        r#"{"prompt":"how \"many\"?\n","completion":"","reference":"3"}"#,
        "|"
    );
    let script = format!(
        "found=$(tr '\\n' '|'); if [ \"$found\" = '{want}' ]; then printf '1\\n1\\n1\\n'; else echo \"$found\" >&2; \
         exit 1; fi"
    );
    assert_eq!(score(&script, 60.0), Ok(vec![Some(1.0); 3]));
}

#[test]
fn what_a_program_does_wrong_is_said() {
    let long = format!("yes {} | head -c 100000 >&2; exit 3", "x".repeat(50));
    for (script, seconds, parts) in [
        ("exit 0", 60.0, vec!["answered 0 lines to 3 completions"]),
        ("printf '1\\n2\\n'", 60.0, vec!["answered 2 lines to 3"]),
        ("printf '1\\n2\\n3\\n4\\n'", 60.0, vec!["answered 4 lines"]),
        (
            "printf '1\\ngood\\n3\\n'",
            60.0,
            vec!["`good` in line 2", "neither a finite number nor null"],
        ),
        ("printf '1\\n2\\nNaN\\n'", 60.0, vec!["`NaN` in line 3"]),
        ("printf '1\\n2\\n\\n'", 60.0, vec!["`` in line 3"]),
        (
            "echo broken >&2; exit 2",
            60.0,
            vec!["failed with exit status: 2", ": broken"],
        ),
        ("kill -9 $$", 60.0, vec!["failed with signal: 9"]),
        (
            "sleep 60",
            0.2,
            vec!["gave no answer within 0.2 s", "`command.seconds`"],
        ),
        ("printf '\\377\\n1\\n2\\n'", 60.0, vec!["no valid UTF-8"]),
        (long.as_str(), 60.0, vec!["exit status: 3", "characters"]),
    ] {
        let error = score(script, seconds).unwrap_err();
        for part in ["the reward command `sh`"].iter().chain(&parts) {
            assert!(error.contains(part), "{script}: {error}");
        }
        assert!(error.len() < 1000, "{error}");
    }
}

/// What it starts holds a pipe, which ends when all that hold it have ended.
#[test]
fn a_program_that_takes_too_long_is_killed_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let reader = {
        let pipe = pipe.clone();
        std::thread::spawn(move || std::fs::read_to_string(pipe).unwrap())
    };
    let pipe = pipe.display();
    let script = format!("exec 3> '{pipe}'; (sleep 30; echo alive >&3) & wait");
    let error = score(&script, 1.0).unwrap_err();
    assert!(error.contains("gave no answer within 1 s"), "{error}");
    // should it have been killed before it opened the pipe
    let open = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(pipe.to_string());
    drop(open.unwrap());
    assert_eq!(reader.join().unwrap(), "");
}

#[test]
fn a_program_may_leave_another_one_behind() {
    let left = "sleep 40 & ";
    let found = score(&format!("{left} printf '1\\n2\\n3\\n'"), 30.0);
    assert_eq!(found, Ok(vec![Some(1.0), Some(2.0), Some(3.0)]));
    let error = score(&format!("{left} printf '1\\n2\\n'"), 30.0).unwrap_err();
    assert!(
        error.contains("has ended after 2 lines to 3 completions, but something that it started holds its output open"),
        "{error}"
    );
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let command = Command {
        program: "no/such/program".to_string(),
        ..Command::default()
    };
    let error = command.score(&[], &[]).unwrap_err().to_string();
    assert!(
        error.contains("`no/such/program` cannot be started"),
        "{error}"
    );
}
