//! The choice of [`Targets`], compiled and applied to paths.

use super::Targets;
use super::modules::{ALL_LINEAR, Choice, TargetModules, ends_in};
use crate::error::{Error, Result, require, shown};
use crate::parameter_efficient::expressions::{Expression, Expressions};

/// [`Targets`] with its expressions compiled.
pub(crate) struct Matcher<'a> {
    targets: &'a Targets,
    found: Choice<'a>,
    excluded: Choice<'a>,
    saved: Vec<Expression>,
    layers: Vec<Expression>,
}

impl<'a> Matcher<'a> {
    pub(crate) fn new(expressions: &mut Expressions, targets: &'a Targets) -> Result<Self> {
        let function = expressions.function();
        require(
            targets.exclude_modules != TargetModules::AllLinear,
            function,
            "exclude_modules",
            "a list of names or an expression",
            ALL_LINEAR,
        )?;
        require(
            targets.layers_to_transform.is_empty()
                || matches!(targets.target_modules, TargetModules::Names(_)),
            function,
            "layers_to_transform",
            "empty unless `target_modules` is a list of names",
            format!("{:?}", targets.layers_to_transform),
        )?;
        require(
            targets.layers_pattern.is_empty() || !targets.layers_to_transform.is_empty(),
            function,
            "layers_pattern",
            "empty without `layers_to_transform`",
            format!("{:?}", targets.layers_pattern),
        )?;
        Ok(Self {
            targets,
            found: Choice::new(expressions, "target_modules", &targets.target_modules)?,
            excluded: Choice::new(expressions, "exclude_modules", &targets.exclude_modules)?,
            saved: (targets.modules_to_save.iter())
                .map(|pattern| expressions.segments("modules_to_save", pattern))
                .collect::<Result<_>>()?,
            layers: (targets.layers_pattern.iter())
                .map(|pattern| expressions.layers("layers_pattern", pattern))
                .collect::<Result<_>>()?,
        })
    }

    pub(crate) fn matches(&self, path: &str) -> Result<bool> {
        if self.excluded.takes(path)? {
            return Ok(false);
        }
        for saved in &self.saved {
            if saved.is_match(path)? {
                return Ok(false);
            }
        }
        if let TargetModules::Names(names) = &self.targets.target_modules
            && names.iter().any(|name| name == path)
        {
            return Ok(true);
        }
        let layers = &self.targets.layers_to_transform;
        let kept = |layer: Option<usize>| layer.is_some_and(|layer| layers.contains(&layer));
        Ok(self.found.takes(path)? && (layers.is_empty() || kept(self.layer(path)?)))
    }

    /// What `settings` gives for every chosen module among `paths`, in their order; an error if nothing is
    /// chosen, or if a name chooses nothing.
    pub(crate) fn chosen<T>(
        &self,
        function: &'static str,
        paths: &[impl AsRef<str>],
        settings: impl Fn(&str) -> Result<T>,
    ) -> Result<Vec<(String, T)>> {
        let mut chosen = Vec::new();
        for path in paths.iter().map(AsRef::as_ref) {
            if self.matches(path)? {
                chosen.push((path.to_string(), settings(path)?));
            }
        }
        let problem = |text: String| Err(Error::argument(function, "target_modules", text));
        if let TargetModules::Names(names) = &self.targets.target_modules {
            let idle = |name: &&String| !chosen.iter().any(|(path, _)| ends_in(path, name));
            if let Some(name) = names.iter().find(idle) {
                let name = shown(name);
                return problem(format!("names `{name}`, which chooses no module"));
            }
        }
        match chosen.is_empty() {
            true => problem("chooses no module".to_string()),
            false => Ok(chosen),
        }
    }

    fn layer(&self, path: &str) -> Result<Option<usize>> {
        if self.layers.is_empty() {
            let segments: Vec<&str> = path.split('.').collect();
            let inner = segments.get(2..segments.len() - 1).unwrap_or_default();
            let digits = |s: &&&str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
            let number = inner.iter().find(digits);
            return Ok(number.and_then(|number| number.parse().ok()));
        }
        // The first pattern that is found decides, even if its layer is not wanted.
        for pattern in &self.layers {
            if let Some(layer) = pattern.layer(path)? {
                return Ok(layer);
            }
        }
        Ok(None)
    }
}
