//! What an expression weighs, from its text alone.

/// The longest count that is read: two numbers, of any size, and a comma.
const COUNT_LENGTH: usize = 64;
/// The largest product of the counts `{n}` of an expression.
const COUNTS: usize = 1000;
/// Weights, in characters: of a part that gets its own engine, of an expression that may backtrack, of
/// the Unicode classes, and of a dot or brackets.
const ENGINE: usize = 100;
const BACKTRACKING: usize = 1000;
const WORD: usize = 600;
const DIGIT: usize = 150;
const SPACE: usize = 50;
const ANY: usize = 10;

/// What an expression weighs: its characters, more for those that the engine expands, times its counts.
/// An error for what Python reads differently, or not at all.
pub(super) fn weight(written: &str) -> Result<usize, String> {
    let mut scan = Scan::default();
    let mut characters = written.chars().peekable();
    let mut before = ' ';
    while let Some(character) = characters.next() {
        match character {
            '\\' => scan.escape(characters.next(), characters.peek().copied())?,
            '[' => {
                scan.parts += 1;
                scan.weight += ANY;
                scan.class(&mut characters)?;
            }
            '.' => {
                scan.weight += ANY;
            }
            '(' => {
                scan.weight += 1;
                scan.parts += 1;
                let rest: String = characters.clone().take(3).collect();
                let special = ["?=", "?!", "?<", "?>", "?(", "?P="];
                scan.hard |= special.iter().any(|start| rest.starts_with(start));
                let mut flags = characters.clone().skip(1);
                scan.any_case |= rest.starts_with('?')
                    && flags
                        .by_ref()
                        .take_while(|flag| flag.is_ascii_alphabetic() || *flag == '-')
                        .any(|flag| flag == 'i');
            }
            '{' => {
                let inside = characters.clone().take(COUNT_LENGTH);
                scan.count(&inside.take_while(|c| *c != '}').collect::<String>());
            }
            '+' if matches!(before, '*' | '+' | '?' | '}') => scan.hard = true,
            _ => {
                scan.weight += 1;
                scan.letters += 1;
            }
        }
        before = character;
    }
    scan.total()
}

#[derive(Default)]
struct Scan {
    weight: usize,
    letters: usize,
    /// The parts that get an engine of their own if the whole expression does not run on one.
    parts: usize,
    /// The counts, multiplied.
    counts: Option<usize>,
    hard: bool,
    any_case: bool,
}

impl Scan {
    fn total(&self) -> Result<usize, String> {
        let counts = self.counts.unwrap_or(1);
        if counts > COUNTS {
            return Err(format!("its counts come to more than {COUNTS}, multiplied"));
        }
        let mut extra = ENGINE;
        if self.hard {
            extra += BACKTRACKING + self.parts * ENGINE;
            if self.any_case {
                extra += self.letters * ENGINE;
            }
        }
        let weight = self.weight.saturating_mul(counts);
        Ok(weight.saturating_add(extra))
    }

    fn escape(&mut self, escaped: Option<char>, next: Option<char>) -> Result<(), String> {
        let weight = match escaped {
            Some('w' | 'W') => WORD,
            Some('d' | 'D') => DIGIT,
            Some('s' | 'S') => SPACE,
            Some('0') => return Err("octal escapes are not supported".to_string()),
            Some('1'..='9') => {
                self.hard = true;
                1
            }
            Some('b' | 'B') if next == Some('{') => {
                return Err(r"write `\b(?:\{)` for a brace behind a boundary".to_string());
            }
            Some(
                'A' | 'B' | 'Z' | 'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | 'x' | 'u' | 'U' | 'z',
            ) => 1,
            // they mean something else there
            Some(other) if other.is_ascii_alphabetic() || matches!(other, '<' | '>') => {
                return Err(format!(r"`\{other}` is no escape of Python's"));
            }
            Some(_) => 1,
            None => return Err("a backslash ends it".to_string()),
        };
        self.weight += weight;
        self.parts += usize::from(weight > 1);
        Ok(())
    }

    /// The inside of brackets.
    fn class(
        &mut self,
        characters: &mut std::iter::Peekable<std::str::Chars>,
    ) -> Result<(), String> {
        if characters.peek() == Some(&'^') {
            characters.next();
        }
        let mut before = ' ';
        let mut first = true;
        while let Some(character) = characters.next() {
            match character {
                ']' if !first => return Ok(()),
                '\\' => {
                    let escaped = characters.next();
                    self.escape(escaped, None)?;
                    before = ' ';
                    first = false;
                    continue;
                }
                // set operations there, and plain characters in Python
                '[' => return Err(r"write `\[` for a bracket in brackets".to_string()),
                '&' | '-' | '~' if before == character => {
                    return Err(format!(r"write `\{character}` in brackets, not twice"));
                }
                _ => self.weight += 1,
            }
            (before, first) = (character, false);
        }
        Err("a bracket is not closed".to_string())
    }

    /// `{n}`, `{n,}`, `{,m}` or `{n,m}`; anything else is literal.
    fn count(&mut self, inside: &str) {
        self.weight += 1;
        let (low, high) = inside.split_once(',').unwrap_or((inside, ""));
        let number = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true if digits.is_empty() => Some(0),
            true => Some(digits.parse::<usize>().unwrap_or(usize::MAX)),
            false => None,
        };
        if let (Some(low), Some(high)) = (number(low), number(high)) {
            let most = low.max(high).max(1);
            self.counts = Some(self.counts.unwrap_or(1).saturating_mul(most));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_weighs_its_characters_and_what_the_engine_makes_of_them() {
        let hard = |parts: usize| ENGINE + BACKTRACKING + parts * ENGINE;
        for (written, expected) in [
            ("", ENGINE),
            ("q_proj", 6 + ENGINE),
            (".", ANY + ENGINE),
            (r"\.", 1 + ENGINE),
            (r"\n", 1 + ENGINE),
            (r"\w\D\s", WORD + DIGIT + SPACE + ENGINE),
            ("[a]", ANY + 1 + ENGINE),
            ("[]a]", ANY + 2 + ENGINE),
            (r"[^\w-]", ANY + WORD + 1 + ENGINE),
            ("(a|b)", 5 + ENGINE),
            ("a+b*c?", 6 + ENGINE),
            // counts multiply
            ("a{2,3}", 6 * 3 + ENGINE),
            ("a{,2}", 5 * 2 + ENGINE),
            ("a{2}{3}", 7 * 2 * 3 + ENGINE),
            ("a{b}", 4 + ENGINE),
            // what may step back, and its parts
            ("(?=a)", 5 + hard(1)),
            ("(?!a)(?<=b)", 11 + hard(2)),
            (r"(?=[a].\w\n)", 3 + ANY + 1 + ANY + WORD + 1 + 1 + hard(3)),
            (r"(a)\1", 4 + hard(1)),
            ("a++", 2 + hard(0)),
            ("a*+a?+", 4 + hard(0)),
            ("a{2}+", 4 * 2 + hard(0)),
            // letters of either case, where it steps back
            ("(?i)a", 5 + ENGINE),
            ("(?i)(?=a)", 9 + hard(2) + 7 * ENGINE),
            ("(?s-i:a)(?=a)", 13 + hard(2) + 11 * ENGINE),
            ("(?s)(?=a)", 9 + hard(2)),
            ("(?:i)(?=i)", 10 + hard(2)),
            ("(i)(?=a)", 8 + hard(2)),
        ] {
            assert_eq!(weight(written), Ok(expected), "{written}");
        }
    }
}
