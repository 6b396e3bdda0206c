//! Rewards from a program.
//!
//! It is started for each batch of answers. On its standard input are JSON lines `{"prompt", "completion",
//! "reference"}`; for each it answers one line: a number, or `null` for an answer that it does not judge.

use super::super::super::super::error::{Error, Result, cut};
use super::super::prompts::Prompt;
use super::super::rollout::Answer;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// A program and its arguments; no shell reads them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Command {
    pub program: String,
    pub arguments: Vec<String>,
    /// How long it may take for a batch.
    pub seconds: f64,
}

impl Default for Command {
    fn default() -> Self {
        Self {
            program: String::new(),
            arguments: Vec::new(),
            seconds: 60.0,
        }
    }
}

/// What a program reads of an answer.
#[derive(Serialize)]
struct Line<'a> {
    prompt: &'a str,
    completion: &'a str,
    reference: Option<&'a str>,
}

/// The most characters of a program's own message in an error.
const MESSAGE: usize = 400;

impl Command {
    pub fn check(&self) -> Result<()> {
        if self.program.is_empty() {
            let problem = "`command.program` is missing: the program that scores answers";
            return Err(Error::Usage(problem.to_string()));
        }
        match Duration::try_from_secs_f64(self.seconds) {
            Ok(limit) if !limit.is_zero() => Ok(()),
            _ => Err(Error::Usage(format!(
                "`command.seconds` must be finite and > 0, got {}",
                self.seconds
            ))),
        }
    }

    /// The rewards of some answers.
    pub fn score(&self, prompts: &[Prompt], answers: &[Answer]) -> Result<Vec<Option<f64>>> {
        let mut lines = String::new();
        for answer in answers {
            let prompt = &prompts[answer.prompt];
            let line = Line {
                prompt: &prompt.text,
                completion: &answer.text,
                reference: prompt.reference.as_deref(),
            };
            let line = serde_json::to_string(&line)
                .map_err(|error| self.failed(format!("cannot be asked: {error}")))?;
            lines.push_str(&line);
            lines.push('\n');
        }
        let said = self.run(lines)?;
        self.numbers(&said, answers.len())
    }

    fn failed(&self, problem: String) -> Error {
        Error::Usage(format!("the reward command `{}` {problem}", self.program))
    }

    /// What the program says to these lines.
    fn run(&self, lines: String) -> Result<String> {
        let limit = Duration::try_from_secs_f64(self.seconds)
            .map_err(|error| self.failed(format!("has no time limit: {error}")))?;
        let deadline = Instant::now() + limit;
        let mut command = std::process::Command::new(&self.program);
        command
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Ctrl-C is for the run, which ends its step with the rewards of the program
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command
            .spawn()
            .map_err(|error| self.failed(format!("cannot be started: {error}")))?;
        let said = read(child.stdout.take());
        let complained = read(child.stderr.take());
        if let Some(mut input) = child.stdin.take() {
            // a program may answer without reading all of it
            thread::spawn(move || input.write_all(lines.as_bytes()));
        }
        let late = || {
            self.failed(format!(
                "gave no answer within {} s; raise `command.seconds` if it needs longer",
                self.seconds
            ))
        };
        let Some(status) = wait(&mut child, deadline)
            .map_err(|error| self.failed(format!("cannot be waited for: {error}")))?
        else {
            return Err(late());
        };
        // a program of its own that it left behind may hold the streams open
        let left = || {
            deadline
                .saturating_duration_since(Instant::now())
                .max(GRACE)
        };
        let complained = complained.recv_timeout(left()).unwrap_or(Ok(Vec::new()));
        let complained = String::from_utf8_lossy(&complained.unwrap_or_default())
            .trim()
            .to_string();
        let because = match complained.is_empty() {
            true => String::new(),
            false => format!(": {}", cut(&complained, MESSAGE)),
        };
        if !status.success() {
            return Err(self.failed(format!("failed with {status}{because}")));
        }
        let said = said.recv_timeout(left()).map_err(|_| late())?;
        let said = said.map_err(|error| self.failed(format!("cannot be read: {error}")))?;
        String::from_utf8(said).map_err(|_| self.failed("answered no valid UTF-8".to_string()))
    }

    /// One number for each answer.
    fn numbers(&self, said: &str, answers: usize) -> Result<Vec<Option<f64>>> {
        let lines: Vec<&str> = said.lines().collect();
        if lines.len() != answers {
            return Err(self.failed(format!(
                "answered {} lines to {answers} completions; it must answer each with one line, a number or null",
                lines.len()
            )));
        }
        let number = |(at, line): (usize, &&str)| match line.trim() {
            "null" => Ok(None),
            line => match line.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Some(number)),
                _ => Err(self.failed(format!(
                    "answered `{}` in line {}, which is neither a finite number nor null",
                    cut(line, 80),
                    at + 1
                ))),
            },
        };
        lines.iter().enumerate().map(number).collect()
    }
}

/// Time for streams whose writer has ended.
const GRACE: Duration = Duration::from_secs(5);
/// Between two looks at a program.
const MOMENT: Duration = Duration::from_millis(2);

/// All that comes from a stream.
fn read(stream: Option<impl Read + Send + 'static>) -> Receiver<io::Result<Vec<u8>>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut all = Vec::new();
        let read = match stream {
            Some(mut stream) => stream.read_to_end(&mut all),
            None => Ok(0),
        };
        // nobody waits for a program that took too long
        let _ = send.send(read.map(|_| all));
    });
    receive
}

/// How the program ended; none if it was killed because it took too long.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<std::process::ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(MOMENT);
    }
}
