//! Porter's stemmer with the extensions of NLTK, which ROUGE uses.

/// The stem of a lower-case English word, as NLTK's `PorterStemmer` gives it.
///
/// The rules are those of Porter's paper, with the changes that NLTK makes by default: a few irregular words,
/// "-ies" and "-ied" after one letter, "y" that becomes "i" only after a consonant, "-alli", "-fulli" and
/// "-logi". Words of one or two letters stay. A word with other characters than a–z is stemmed as if they
/// were consonants.
///
/// ```
/// use candle_align::evaluation::reference_based::porter_stem;
///
/// let stems = ["relational", "hopping", "flies", "dying", "enjoy"].map(porter_stem);
/// assert_eq!(stems, ["relat", "hop", "fli", "die", "enjoy"]);
/// ```
pub fn porter_stem(word: &str) -> String {
    for (stem, forms) in IRREGULAR {
        if forms.contains(&word) {
            return stem.to_string();
        }
    }
    let mut letters: Vec<char> = word.chars().collect();
    if letters.len() <= 2 {
        return word.to_string();
    }
    plural(&mut letters);
    past(&mut letters);
    final_y(&mut letters);
    long_suffix(&mut letters);
    rules(&mut letters, &STEP_3, |stem| measure(stem) > 0);
    last_suffix(&mut letters);
    final_e(&mut letters);
    letters.into_iter().collect()
}

const IRREGULAR: [(&str, &[&str]); 12] = [
    ("sky", &["sky", "skies"]),
    ("die", &["dying"]),
    ("lie", &["lying"]),
    ("tie", &["tying"]),
    ("news", &["news"]),
    ("inning", &["innings", "inning"]),
    ("outing", &["outings", "outing"]),
    ("canning", &["cannings", "canning"]),
    ("howe", &["howe"]),
    ("proceed", &["proceed"]),
    ("exceed", &["exceed"]),
    ("succeed", &["succeed"]),
];

/// A suffix and what takes its place.
type Rule = (&'static str, &'static str);

const STEP_1A: [Rule; 4] = [("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")];

const STEP_2: [Rule; 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
];

const STEP_3: [Rule; 7] = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

const STEP_4: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
    "ism", "ate", "iti", "ous", "ive", "ize",
];

/// Which letters are consonants: not a vowel, and no "y" after a consonant.
fn consonants(word: &[char]) -> Vec<bool> {
    let mut flags: Vec<bool> = Vec::with_capacity(word.len());
    for c in word {
        let before = flags.last().copied().unwrap_or(false);
        flags.push(match c {
            'a' | 'e' | 'i' | 'o' | 'u' => false,
            'y' => !before,
            _ => true,
        });
    }
    flags
}

/// m, the number of times that a vowel is followed by a consonant.
fn measure(stem: &[char]) -> usize {
    let flags = consonants(stem);
    flags.windows(2).filter(|pair| !pair[0] && pair[1]).count()
}

fn has_vowel(stem: &[char]) -> bool {
    consonants(stem).contains(&false)
}

fn ends_with(word: &[char], suffix: &str) -> bool {
    let length = suffix.chars().count();
    word.len() >= length
        && word[word.len() - length..]
            .iter()
            .copied()
            .eq(suffix.chars())
}

/// The word without its last letters.
fn without<'a>(word: &'a [char], suffix: &str) -> &'a [char] {
    &word[..word.len() - suffix.chars().count()]
}

fn replace(word: &mut Vec<char>, suffix: &str, with: &str) {
    word.truncate(word.len() - suffix.chars().count());
    word.extend(with.chars());
}

/// Applies the first rule whose suffix the word has, if its stem allows. Returns whether there was one.
fn rules(word: &mut Vec<char>, list: &[Rule], allows: impl Fn(&[char]) -> bool) -> bool {
    let found = list.iter().find(|(suffix, _)| ends_with(word, suffix));
    if let Some((suffix, with)) = found
        && allows(without(word, suffix))
    {
        replace(word, suffix, with);
    }
    found.is_some()
}

/// Consonant, vowel, consonant other than w, x, y; of two letters, vowel and consonant.
fn ends_short(word: &[char]) -> bool {
    match consonants(word)[..] {
        [false, true] => true,
        [.., true, false, true] => !matches!(word.last(), Some('w' | 'x' | 'y')),
        _ => false,
    }
}

/// Step 1a.
fn plural(word: &mut Vec<char>) {
    match word.len() == 4 && ends_with(word, "ies") {
        true => replace(word, "ies", "ie"),
        false => _ = rules(word, &STEP_1A, |_| true),
    }
}

/// Step 1b.
fn past(word: &mut Vec<char>) {
    if ends_with(word, "ied") {
        let with = if word.len() == 4 { "ie" } else { "i" };
        return replace(word, "ied", with);
    }
    if rules(word, &[("eed", "ee")], |stem| measure(stem) > 0) {
        return;
    }
    let cut = ["ed", "ing"];
    let cut = cut
        .iter()
        .find(|s| ends_with(word, s) && has_vowel(without(word, s)));
    let Some(suffix) = cut else { return };
    replace(word, suffix, "");
    if rules(word, &[("at", "ate"), ("bl", "ble"), ("iz", "ize")], |_| {
        true
    }) {
        return;
    }
    match (&word[..], consonants(word).last()) {
        // of a doubled consonant one goes, but ll, ss and zz stay
        ([.., a, b], Some(true)) if a == b => {
            let kept = matches!(a, 'l' | 's' | 'z');
            word.truncate(word.len() - usize::from(!kept));
        }
        _ if measure(word) == 1 && ends_short(word) => word.push('e'),
        _ => (),
    }
}

/// Step 1c.
fn final_y(word: &mut Vec<char>) {
    let allows = |stem: &[char]| stem.len() > 1 && consonants(stem).last() == Some(&true);
    rules(word, &[("y", "i")], allows);
}

/// Step 2.
fn long_suffix(word: &mut Vec<char>) {
    while ends_with(word, "alli") && measure(without(word, "alli")) > 0 {
        replace(word, "alli", "al");
    }
    let known = rules(word, &STEP_2, |stem| measure(stem) > 0);
    // the l belongs to the stem
    if !known && ends_with(word, "logi") && measure(without(word, "ogi")) > 0 {
        word.pop();
    }
}

/// Step 4.
fn last_suffix(word: &mut Vec<char>) {
    let Some(suffix) = STEP_4.iter().find(|suffix| ends_with(word, suffix)) else {
        return;
    };
    let stem = without(word, suffix);
    let allows = *suffix != "ion" || matches!(stem.last(), Some('s' | 't'));
    if allows && measure(stem) > 1 {
        replace(word, suffix, "");
    }
}

/// Step 5.
fn final_e(word: &mut Vec<char>) {
    if ends_with(word, "e") {
        let stem = without(word, "e");
        let m = measure(stem);
        if m > 1 || (m == 1 && !ends_short(stem)) {
            word.pop();
        }
    }
    if ends_with(word, "ll") && measure(without(word, "l")) > 1 {
        word.pop();
    }
}
