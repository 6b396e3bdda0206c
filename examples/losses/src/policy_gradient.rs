//! The pictures of the policy losses since the survey: over the ratio, and the utilities of their advantages.

use super::atomic::Staged;
use super::{Result, ratios, utilities};
use std::path::{Path, PathBuf};

/// Writes both into a directory, which is created if needed.
pub fn write(dir: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir)
        .map_err(|error| format!("cannot write to {}: {error}", dir.display()))?;
    let mut files = Vec::new();
    for (name, svg) in [
        ("ratios.svg", ratios::drawn()?),
        ("utilities.svg", utilities::drawn()?),
    ] {
        let file = dir.join(name);
        Staged::new(&file, |part| std::fs::write(part, &svg))?.put()?;
        files.push(file);
    }
    Ok(files)
}
