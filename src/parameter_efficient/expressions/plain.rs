//! Expressions of only characters and dots, which are compared directly.

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Atom {
    One(char),
    /// `.`
    Any,
}

#[derive(Clone, Copy)]
pub(super) enum Place {
    Whole,
    /// The whole path, or its end after a dot.
    End,
    /// Whole segments anywhere.
    Segments,
}

/// The atoms of an expression of characters and dots, and where they must match. An expression that
/// starts with `^` must match the whole path. `None` for any other expression.
pub(super) fn plain(written: &str, place: Place) -> Option<(Vec<Atom>, Place)> {
    let (rest, place) = match (written.strip_prefix('^'), place) {
        (None, place) => (written, place),
        (Some(rest), Place::Whole | Place::End) => (rest, Place::Whole),
        (Some(_), Place::Segments) => return None,
    };
    let mut atoms = Vec::new();
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        atoms.push(match character {
            '.' => Atom::Any,
            '\\' => match characters.next()? {
                escaped @ ('.' | '-' | '_' | '/' | ':') => Atom::One(escaped),
                _ => return None,
            },
            '^' | '$' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' => return None,
            other => Atom::One(other),
        });
    }
    Some((atoms, place))
}

/// Whether the atoms match at that place.
pub(super) fn found(atoms: &[Atom], place: Place, path: &str) -> bool {
    let fits = |part: &str| {
        let mut characters = part.chars();
        let mut fits = atoms.iter().all(|atom| match (atom, characters.next()) {
            (Atom::One(one), Some(found)) => *one == found,
            (Atom::Any, Some(found)) => found != '\n',
            (_, None) => false,
        });
        fits &= characters.next().is_none();
        fits
    };
    let starts = || {
        [0].into_iter()
            .chain(path.match_indices('.').map(|(at, _)| at + 1))
    };
    // before and after it is `.*`, which matches no line breaks
    match place {
        Place::Whole => fits(path),
        Place::End => starts().any(|at| fits(&path[at..]) && !path[..at].contains('\n')),
        Place::Segments => {
            let ends = || {
                path.match_indices('.')
                    .map(|(at, _)| at)
                    .chain([path.len()])
            };
            starts().any(|from| {
                ends().any(|to| from <= to && fits(&path[from..to]) && !path[..from].contains('\n'))
            })
        }
    }
}
