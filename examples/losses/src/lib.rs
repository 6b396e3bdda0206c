//! Every loss on a grid of gaps, as numbers and as two pictures.

pub mod curves;
pub mod plot;
pub mod policy_gradient;
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
use plot::Row;
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
    /// The survey's losses.
    pub curves: Vec<Curve>,
    /// The losses since.
    pub since: Vec<Curve>,
    /// The pictures, as SVG: of the survey's losses, and of those since.
    pub svg: String,
    pub since_svg: String,
}

/// Evaluates every loss and draws them.
pub fn run() -> Result<Report> {
    let survey = Row {
        title: "",
        curves: evaluate(curves::all(), &grid())?,
        values: -1.2..5.2,
        slopes: -1.1..0.6,
    };
    let mut since = Vec::new();
    let ranges = [(-1.2, 1.2), (-0.4, 1.2), (-1.2, 0.4)];
    for (group, (least, steepest)) in since::groups().into_iter().zip(ranges) {
        since.push(Row {
            title: group.title,
            curves: evaluate(group.losses, &fine_grid())?,
            values: least..5.2,
            slopes: -2.2..steepest,
        });
    }
    Ok(Report {
        svg: plot::picture(std::slice::from_ref(&survey))?,
        since_svg: plot::picture(&since)?,
        curves: survey.curves,
        since: since.into_iter().flat_map(|row| row.curves).collect(),
    })
}

fn evaluate(losses: Vec<Loss>, gaps: &[f64]) -> Result<Vec<Curve>> {
    let curves = losses.into_iter().map(|loss| {
        let points = loss.at(gaps)?;
        Ok(Curve { loss, points })
    });
    curves.collect()
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

/// Closer together around the tie, where DiscoPOP turns within a tenth. A kink may be either side of its gap
/// by the rounding of a log-ratio, so it has a close neighbor on both.
fn fine_grid() -> Vec<f64> {
    let between = (-20..=20).filter(|i| i % 4 != 0).map(|i| i as f64 / 40.0);
    let after = (-7..8).map(|i| i as f64 / 2.0 + 1e-6);
    let mut gaps: Vec<f64> = grid().into_iter().chain(between).chain(after).collect();
    gaps.sort_by(f64::total_cmp);
    gaps
}

impl Report {
    /// Writes the pictures into a directory, which is created if needed, and returns the files' paths.
    pub fn write(&self, dir: &Path) -> Result<[PathBuf; 2]> {
        std::fs::create_dir_all(dir)
            .map_err(|error| format!("cannot write to {}: {error}", dir.display()))?;
        let files = ["losses.svg", "since.svg"].map(|name| dir.join(name));
        for (file, svg) in files.iter().zip([&self.svg, &self.since_svg]) {
            Staged::new(file, |part| std::fs::write(part, svg))?.put()?;
        }
        Ok(files)
    }

    /// Values and slopes at a few gaps: the survey's losses, then those since.
    pub fn table(&self) -> String {
        let gaps = [-4.0, -1.0, 0.0, 1.0, 4.0];
        let mut table = format!("{:42}", "loss, slope at a gap of");
        for gap in gaps {
            let _ = write!(table, "{gap:>16.0}");
        }
        for Curve { loss, points } in self.curves.iter().chain(&self.since) {
            let _ = write!(table, "\n{:42}", loss.label);
            for p in points.iter().filter(|p| gaps.contains(&p.gap)) {
                let _ = write!(table, "{:>8.3} {:>+7.3}", p.value, p.slope);
            }
        }
        table
    }
}
