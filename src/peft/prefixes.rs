//! Names that start differently from PEFT's.

use super::PREFIX;
use super::load::Loader;
use super::tokens;
use std::collections::BTreeMap;

/// What module wrappers insert into names.
const WRAPPERS: [&str; 4] = [
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];

/// What identifies the names of other programs, and what to do about them.
const OTHERS: [(&[&str], &str); 3] = [
    (
        &[".lora_down.", ".lora_up."],
        "a name of kohya's scripts, where no dots are left in a module's path: save the adapter by PEFT",
    ),
    (
        &[
            ".lora.down.",
            ".lora.up.",
            "_lora.down.",
            "_lora.up.",
            ".lora_linear_layer.",
        ],
        "a name of diffusers: save the adapter by PEFT",
    ),
    (
        &[".lora_a", ".lora_b"],
        "a name of MLX, whose A and B are the other way round: save their transposes under PEFT's names",
    ),
];

/// What follows the path of a module under an adapter.
const PARAMETERS: [&str; 9] = [
    ".lora_A",
    ".lora_B",
    ".lora_E",
    ".lora_embedding_A",
    ".lora_embedding_B",
    ".lora_magnitude_vector",
    ".ia3_l",
    ".vera_lambda_",
    ".base_layer.",
];

/// The name without wrappers and without what precedes a path.
fn bare(name: &str) -> String {
    let parts = name.split('.').filter(|part| !WRAPPERS.contains(part));
    let parts: Vec<&str> = parts.collect();
    let mut left = &parts[..];
    while let ["base_model", "model", rest @ ..] = left {
        left = rest;
    }
    left.join(".")
}

/// The two names without their common end, if they name one tensor: the end contains the module's own
/// name and the number of its layer.
fn heads<'a>(wanted: &'a str, there: &'a str) -> Option<(&'a str, &'a str)> {
    let ends = |name: &'a str| {
        let dots = name.match_indices('.').map(|(at, _)| at + 1);
        std::iter::once(0).chain(dots).collect::<Vec<usize>>()
    };
    // the longest end first
    let end = ends(wanted).into_iter().find_map(|at| {
        let end = &wanted[at..];
        let fits = there.strip_suffix(end)?;
        (fits.is_empty() || fits.ends_with('.')).then_some(end)
    })?;
    let mut parts = end.split('.');
    let of_module = |part: &str| {
        let parameter = ["weight", "bias", "base_layer", "token_adapter"].contains(&part);
        let mut kinds = ["lora_", "ia3_", "vera_", "trainable_tokens"].iter();
        !parameter && !kinds.any(|kind| part.starts_with(kind))
    };
    let (wanted, there) = (wanted.strip_suffix(end)?, there.strip_suffix(end)?);
    let numbered = |head: &str| head.split('.').any(|part| part.parse::<usize>().is_ok());
    let whole = wanted.is_empty() || parts.next().is_some_and(of_module);
    (whole && !numbered(wanted) && !numbered(there)).then_some((wanted, there))
}

/// An existing name, and the prefix that would turn it into the one that was looked for.
fn shown(there: &str, heads: (&str, &str)) -> String {
    let what = match heads {
        ("", "") => "the name without its wrappers would fit".to_string(),
        (wanted, "") => format!("with `{wanted}` before it that would fit"),
        ("", head) => format!("without `{head}` that would fit"),
        (wanted, head) => format!("with `{wanted}` for `{head}` that would fit"),
    };
    format!("; it holds `{there}`: {what}")
}

impl Loader<'_> {
    /// What the base has instead of a weight of this name, after a semicolon.
    pub(super) fn instead_in_base(&self, wanted: &str) -> String {
        let names = self.parameters(|name| name.ends_with(".weight"));
        let found = names
            .iter()
            .find_map(|there| Some((there, heads(wanted, there)?)));
        found.map_or_else(String::new, |(there, heads)| shown(there, heads))
    }

    /// Whether a tensor of this name has a place in the base.
    fn has_place(&self, name: &str) -> bool {
        if ["base_model.vera_A", "base_model.vera_B"].contains(&name) {
            return true;
        }
        let Some(path) = name.strip_prefix(PREFIX) else {
            return false;
        };
        let module = PARAMETERS.iter().filter_map(|kind| path.find(kind)).min();
        let rows = tokens::delta("");
        let rows = rows.trim_start_matches(PREFIX);
        self.base.contains_key(path)
            || module.is_some_and(|at| self.chosen(&path[..at]))
            || path
                .strip_suffix(rows)
                .is_some_and(|path| self.base.contains_key(&format!("{path}.weight")))
    }

    /// Renames tensors whose names were changed by wrappers or by a doubled or missing
    /// `base_model.model.`, where the base has that place and no other tensor takes it.
    pub(super) fn rename(&mut self) {
        let mut renamed = BTreeMap::new();
        for name in self.left.keys() {
            let bare = bare(name);
            let meant = match bare.strip_prefix("base_model.").unwrap_or(&bare) {
                shared @ ("vera_A" | "vera_B") => format!("base_model.{shared}"),
                path => format!("{PREFIX}{path}"),
            };
            let free = !self.left.contains_key(&meant) && !renamed.contains_key(&meant);
            if free && !self.has_place(name) && self.has_place(&meant) {
                renamed.insert(meant, name.clone());
            }
        }
        if let Some((meant, name)) = renamed.first_key_value() {
            let (more, text) = (
                renamed.len() - 1,
                format!("names `{name}`, taken for `{meant}`"),
            );
            self.found.left_out.push(match more {
                0 => text,
                _ => format!("{text}, and {more} more in the same way"),
            });
        }
        for (meant, name) in renamed {
            if let Some(tensor) = self.left.remove(&name) {
                self.left.insert(meant.clone(), tensor);
                self.file.remove(&name);
                self.file.insert(meant);
            }
        }
    }

    /// What the file has instead of a tensor of this name, after a semicolon.
    pub(super) fn instead(&self, wanted: &str) -> String {
        let strange: Vec<&String> = self
            .file
            .iter()
            .filter(|name| !self.has_place(name))
            .collect();
        let found = strange
            .iter()
            .find_map(|there| Some((there, heads(wanted, there)?)));
        let found = found.or_else(|| {
            let meant = bare(wanted);
            let there = strange.iter().find(|there| bare(there) == meant)?;
            Some((there, ("", "")))
        });
        if let Some((there, heads)) = found {
            return shown(there, heads);
        }
        for (marks, what) in OTHERS {
            let marked = |name: &&&String| marks.iter().any(|mark| name.contains(mark));
            if let Some(there) = strange.iter().find(marked) {
                return format!("; it holds `{there}`, {what}");
            }
        }
        match strange.first().filter(|_| strange.len() == self.file.len()) {
            Some(there) => format!("; all of its names have no place here, as `{there}`"),
            None => String::new(),
        }
    }
}
