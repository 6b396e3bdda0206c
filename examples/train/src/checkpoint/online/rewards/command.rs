//! Rewards from a program.
//!
//! It is started for each batch of answers. On its standard input are JSON lines `{"prompt", "completion",
//! "reference"}`; for each it answers one line: a number, or `null` for an answer that it does not judge.

use super::super::super::super::error::{Error, Result, cut};
use super::super::prompts::Prompt;
use super::super::rollout::Answer;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
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
        let said = self.run(lines, answers.len())?;
        self.numbers(&said, answers.len())
    }

    fn failed(&self, problem: String) -> Error {
        Error::Usage(format!("the reward command `{}` {problem}", self.program))
    }

    /// What the program says to these lines.
    fn run(&self, lines: String, answers: usize) -> Result<String> {
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
        let child = command
            .spawn()
            .map_err(|error| self.failed(format!("cannot be started: {error}")))?;
        let mut program = Running {
            child,
            ended: false,
        };
        let said = read(program.child.stdout.take());
        let complained = read(program.child.stderr.take());
        if let Some(mut input) = program.child.stdin.take() {
            // a program may answer without reading all of it
            thread::spawn(move || input.write_all(lines.as_bytes()));
        }
        let Some(status) = program
            .wait(deadline)
            .map_err(|error| self.failed(format!("cannot be waited for: {error}")))?
        else {
            return Err(self.failed(format!(
                "gave no answer within {} s; raise `command.seconds` if it needs longer",
                self.seconds
            )));
        };
        // what it started and left behind may hold its streams open
        let until = Instant::now() + GRACE;
        let said = collect(&said, until);
        let (complained, _) = collect(&complained, until).unwrap_or_default();
        let complained = String::from_utf8_lossy(&complained).trim().to_string();
        let because = match complained.is_empty() {
            true => String::new(),
            false => format!(": {}", cut(&complained, MESSAGE)),
        };
        if !status.success() {
            return Err(self.failed(format!("failed with {status}{because}")));
        }
        let (said, whole) =
            said.map_err(|error| self.failed(format!("cannot be read: {error}")))?;
        let said = String::from_utf8(said)
            .map_err(|_| self.failed("answered no valid UTF-8".to_string()))?;
        match said.lines().count() {
            lines if !whole && lines < answers => Err(self.failed(format!(
                "has ended after {lines} lines to {answers} completions, but something that it started holds its output \
                 open: give that another output"
            ))),
            _ => Ok(said),
        }
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

/// What comes from a stream, piece by piece, until its end.
fn read(stream: Option<impl Read + Send + 'static>) -> Receiver<io::Result<Vec<u8>>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let Some(mut stream) = stream else { return };
        let mut piece = vec![0; 1 << 16];
        loop {
            let read = match stream.read(&mut piece) {
                Ok(0) => return,
                Ok(count) => Ok(piece[..count].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            // nobody waits for a program that took too long
            if read.is_err() | send.send(read).is_err() {
                return;
            }
        }
    });
    receive
}

/// What came until a time, and whether that is all.
fn collect(stream: &Receiver<io::Result<Vec<u8>>>, until: Instant) -> io::Result<(Vec<u8>, bool)> {
    let mut all = Vec::new();
    loop {
        match stream.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(piece) => all.extend(piece?),
            Err(RecvTimeoutError::Disconnected) => return Ok((all, true)),
            Err(RecvTimeoutError::Timeout) => return Ok((all, false)),
        }
    }
}

/// A program. Unless it has ended by itself, it is killed at last, with all that it started.
struct Running {
    child: Child,
    ended: bool,
}

impl Running {
    /// How it ended; none if it still runs at the deadline.
    fn wait(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.ended = true;
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(MOMENT);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // what cannot be killed has ended already
        #[cfg(unix)]
        if let Ok(group) = i32::try_from(self.child.id()) {
            let group = nix::unistd::Pid::from_raw(group);
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
