//! What a run says while it goes on.
//!
//! | stderr | notices | progress |
//! |---|---|---|
//! | a terminal | lines above the bar | a bar |
//! | a file or a pipe | lines | a line after the first step, then at most one in [`EVERY`], and one after the last step |
//! | of another rank than 0 | none | none |

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::cell::RefCell;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// The time between two lines about steps.
pub const EVERY: Duration = Duration::from_secs(30);

/// Where a run says what it does. A hidden [`ProgressBar`] says nothing.
pub trait Progress {
    /// A line that stays.
    fn say(&self, text: &str);
    /// Steps begin, of which some are done; `what` is the name of one.
    fn begin(&self, what: &str, done: usize, of: usize);
    /// What is said beside the number of steps.
    fn show(&self, text: &str);
    /// So many more are done.
    fn advance(&self, steps: usize);
    /// No more steps come.
    fn end(&self);
}

/// The progress of a process: a bar if stderr is a terminal, else lines; nothing unless it `speaks`.
pub fn progress(speaks: bool) -> Box<dyn Progress> {
    if !speaks {
        return Box::new(ProgressBar::hidden());
    }
    let bar = ProgressBar::new(0);
    if bar.is_hidden() {
        return Box::new(Lines::new(io::stderr(), EVERY));
    }
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {msg}  {eta} left");
    Box::new(match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    })
}

impl Progress for ProgressBar {
    fn say(&self, text: &str) {
        self.println(text);
    }

    fn begin(&self, _: &str, done: usize, of: usize) {
        self.set_length(of as u64);
        self.set_position(done as u64);
        self.reset_eta();
    }

    fn show(&self, text: &str) {
        self.set_message(text.to_string());
    }

    fn advance(&self, steps: usize) {
        self.inc(steps as u64);
    }

    fn end(&self) {
        self.finish_and_clear();
    }
}

/// Plain lines, without control characters.
pub struct Lines<W>(RefCell<State<W>>);

struct State<W> {
    to: W,
    every: Duration,
    what: String,
    text: String,
    /// Done before these steps, by now, and in all.
    first: usize,
    done: usize,
    of: usize,
    begun: Instant,
    /// When a line was last written about these steps.
    last: Option<Instant>,
}

impl<W: Write> Lines<W> {
    pub fn new(to: W, every: Duration) -> Self {
        Self(RefCell::new(State {
            to,
            every,
            what: String::new(),
            text: String::new(),
            first: 0,
            done: 0,
            of: 0,
            begun: Instant::now(),
            last: None,
        }))
    }

    /// What the lines were written to.
    pub fn into_inner(self) -> W {
        self.0.into_inner().to
    }
}

impl<W: Write> State<W> {
    /// A run does not end because nobody reads its lines any more.
    fn line(&mut self, text: &str) {
        let mut plain = String::with_capacity(text.len() + 1);
        for one in text.chars() {
            match one.is_control() {
                true => plain.extend(one.escape_default()),
                false => plain.push(one),
            }
        }
        plain.push('\n');
        let _ = self.to.write_all(plain.as_bytes());
    }
}

impl<W: Write> Progress for Lines<W> {
    fn say(&self, text: &str) {
        self.0.borrow_mut().line(text);
    }

    fn begin(&self, what: &str, done: usize, of: usize) {
        let mut state = self.0.borrow_mut();
        state.what = what.to_string();
        (state.first, state.done, state.of) = (done, done, of);
        (state.begun, state.last) = (Instant::now(), None);
    }

    fn show(&self, text: &str) {
        self.0.borrow_mut().text = text.to_string();
    }

    fn advance(&self, steps: usize) {
        let mut state = self.0.borrow_mut();
        state.done += steps;
        let now = Instant::now();
        let due = state.last.is_none_or(|last| now - last >= state.every);
        if !due && state.done < state.of {
            return;
        }
        state.last = Some(now);
        let mut line = format!("{} {} of {}", state.what, state.done, state.of);
        if !state.text.is_empty() {
            line += &format!(": {}", state.text);
        }
        let own = state.done.saturating_sub(state.first).max(1) as f64;
        let left = state.of.saturating_sub(state.done);
        if left > 0 {
            let seconds = (now - state.begun).as_secs_f64() / own * left as f64;
            let left = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            line += &format!(", {} left", HumanDuration(left));
        }
        state.line(&line);
    }

    fn end(&self) {}
}
