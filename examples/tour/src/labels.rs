//! Labels for points that lie close together: each goes where it covers the least.

/// A name and the point that it belongs to, in the picture's own units.
pub struct Label {
    pub at: (f64, f64),
    pub text: String,
    pub color: &'static str,
}

/// A rectangle: x, y, width, height.
pub type Area = [f64; 4];

/// An area that should stay uncovered, with the cost of covering it.
pub type Taken = (Area, f64);

const HEIGHT: f64 = 15.0;
const PER_LETTER: f64 = 6.9;

/// Distances of a label from its point, beyond the edge of the mark.
const DISTANCES: [f64; 7] = [0.0, 8.0, 18.0, 30.0, 45.0, 62.0, 82.0];
const DIRECTIONS: usize = 16;
/// The radius of a mark around its point, with a margin for the line to the label.
const OWN: f64 = 13.0;

/// The place of each label. Labels move one after the other to the best free place, until nothing
/// moves any more.
pub fn place(labels: &[Label], taken: &[Taken], inside: Area) -> Vec<Area> {
    let mut places: Vec<Option<Area>> = vec![None; labels.len()];
    for _ in 0..8 {
        let before = places.clone();
        for (i, label) in labels.iter().enumerate() {
            places[i] = None;
            let others: Vec<Area> = places.iter().flatten().copied().collect();
            let best = spots(label)
                .map(|(spot, far)| (spot, cost(label, spot, far, taken, &others, inside)))
                .min_by(|a, b| a.1.total_cmp(&b.1));
            places[i] = best.map(|(spot, _)| spot);
        }
        if places == before {
            break;
        }
    }
    places.into_iter().flatten().collect()
}

/// The places that are tried, with their distances.
fn spots(label: &Label) -> impl Iterator<Item = (Area, f64)> {
    let wide = PER_LETTER * label.text.chars().count() as f64;
    let (x, y) = label.at;
    DISTANCES.into_iter().flat_map(move |far| {
        (0..DIRECTIONS).map(move |i| {
            let turn = std::f64::consts::TAU * i as f64 / DIRECTIONS as f64;
            let center_x = x + turn.cos() * (10.0 + far + 0.5 * wide);
            let center_y = y + turn.sin() * (10.0 + far + 0.5 * HEIGHT);
            let spot = [center_x - 0.5 * wide, center_y - 0.5 * HEIGHT, wide, HEIGHT];
            (spot, far)
        })
    })
}

fn cost(
    label: &Label,
    spot: Area,
    far: f64,
    taken: &[Taken],
    others: &[Area],
    [left, top, wide, high]: Area,
) -> f64 {
    let covered: f64 = taken.iter().map(|(t, w)| w * overlap(spot, *t)).sum();
    let crowded: f64 = others.iter().map(|&o| overlap(grown(spot, 2.0), o)).sum();
    // Another label or mark under the line to the point; the label's own mark is no obstacle.
    let line = leader(label.at, spot);
    let crossed: f64 = (1..=8)
        .map(|step| {
            let share = step as f64 / 8.0;
            let (across, down) = (line.1.0 - line.0.0, line.1.1 - line.0.1);
            let (x, y) = (line.0.0 + share * across, line.0.1 + share * down);
            if (share * across).hypot(share * down) < OWN {
                return 0.0;
            }
            let here = [x - 2.0, y - 2.0, 4.0, 4.0];
            let marks: f64 = taken.iter().map(|(t, w)| w * overlap(here, *t)).sum();
            marks + others.iter().map(|&o| 4.0 * overlap(here, o)).sum::<f64>()
        })
        .sum();
    let [x, y, w, h] = spot;
    let outside = (left - x).max(0.0)
        + (top - y).max(0.0)
        + (x + w - left - wide).max(0.0)
        + (y + h - top - high).max(0.0);
    covered + 6.0 * crowded + 0.5 * crossed + 200.0 * outside + 1.5 * far
}

/// From a point to the nearest place on its label.
pub fn leader((x, y): (f64, f64), [left, top, wide, high]: Area) -> ((f64, f64), (f64, f64)) {
    let near = (x.clamp(left, left + wide), y.clamp(top, top + high));
    ((x, y), near)
}

fn grown([x, y, w, h]: Area, by: f64) -> Area {
    [x - by, y - by, w + 2.0 * by, h + 2.0 * by]
}

fn overlap(a: Area, b: Area) -> f64 {
    let across = (a[0] + a[2]).min(b[0] + b[2]) - a[0].max(b[0]);
    let down = (a[1] + a[3]).min(b[1] + b[3]) - a[1].max(b[1]);
    across.max(0.0) * down.max(0.0)
}
