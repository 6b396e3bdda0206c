//! Every loss on a grid of gaps, as numbers and as a picture.

pub mod curves;
pub mod plot;
pub mod ratios;
pub mod sheet;
pub mod since;
pub mod utilities;

// the library's way to write files
#[path = "../../../src/atomic.rs"]
#[allow(dead_code)] // this uses only a part
mod atomic;

use atomic::Staged;
use curves::{Loss, Point};
use std::fmt::Write;
use std::path::{Path, PathBuf};

pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// One loss over the gaps of the grid.
#[derive(Clone, Debug)]
pub struct Curve {
    pub loss: Loss,
    pub points: Vec<Point>,
}

/// The results.
#[derive(Clone, Debug)]
pub struct Report {
    pub curves: Vec<Curve>,
    /// The picture, as SVG.
    pub svg: String,
}

/// Evaluates every loss and draws them.
pub fn run() -> Result<Report> {
    let gaps = grid();
    let curves = curves::all()
        .into_iter()
        .map(|loss| {
            let points = loss.at(&gaps)?;
            Ok(Curve { loss, points })
        })
        .collect::<Result<Vec<Curve>>>()?;
    let svg = plot::picture(&curves)?;
    Ok(Report { curves, svg })
}

/// Gaps from −4 to 4. Every kink is at a multiple of ½ and has a close neighbor, so that the step in
/// the slope is drawn as vertical.
fn grid() -> Vec<f64> {
    (-40..=40)
        .flat_map(|i| {
            let gap = i as f64 / 10.0;
            let before = (i % 5 == 0 && i > -40).then_some(gap - 1e-6);
            before.into_iter().chain([gap])
        })
        .collect()
}

impl Report {
    /// Writes the picture into a directory, which is created if needed, and returns the file's path.
    pub fn write(&self, dir: &Path) -> Result<PathBuf> {
        let file = dir.join("losses.svg");
        std::fs::create_dir_all(dir)
            .map_err(|error| format!("cannot write to {}: {error}", dir.display()))?;
        Staged::new(&file, |part| std::fs::write(part, &self.svg))?.put()?;
        Ok(file)
    }

    /// Values and slopes at a few gaps.
    pub fn table(&self) -> String {
        let gaps = [-4.0, -1.0, 0.0, 1.0, 4.0];
        let mut table = format!("{:42}", "loss, slope at a gap of");
        for gap in gaps {
            let _ = write!(table, "{gap:>16.0}");
        }
        for Curve { loss, points } in &self.curves {
            let _ = write!(table, "\n{:42}", loss.label);
            for p in points.iter().filter(|p| gaps.contains(&p.gap)) {
                let _ = write!(table, "{:>8.3} {:>+7.3}", p.value, p.slope);
            }
        }
        table
    }
}
