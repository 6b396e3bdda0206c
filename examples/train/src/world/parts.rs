//! Which part of some work is whose, and what each rank found, everywhere.

use super::super::error::Result;
use super::World;
use std::ops::Range;

/// The part of a rank: the parts of all ranks follow each other, and none weighs much more than another. A part can be
/// empty. `weights` are those of the pieces of the work; all ranks know all of them.
pub fn part(weights: &[usize], rank: usize, size: usize) -> Range<usize> {
    let all = weights.iter().sum::<usize>().max(1) as u128;
    // the rank in whose share of the weight the middle of a piece is
    let mut before = 0;
    let owners = weights.iter().map(|weight| {
        let middle = 2 * before + *weight as u128;
        before += *weight as u128;
        (middle * size as u128 / (2 * all)) as usize
    });
    let owners: Vec<usize> = owners.collect();
    let first = |rank: usize| owners.partition_point(|owner| *owner < rank);
    // pieces without weight at the end belong to nobody's share
    match rank + 1 == size {
        true => first(rank)..weights.len(),
        false => first(rank)..first(rank + 1),
    }
}

/// The part of this rank of each of some groups of pieces, which are parts of one part of them all.
pub fn of_each(
    groups: &[Vec<usize>],
    weight: impl Fn(usize) -> usize,
    world: &dyn World,
) -> Vec<Range<usize>> {
    let weights: Vec<usize> = groups
        .iter()
        .flatten()
        .map(|piece| weight(*piece))
        .collect();
    let own = part(&weights, world.rank(), world.size());
    let mut before = 0;
    let within = groups.iter().map(|group| {
        let place = |at: usize| at.clamp(before, before + group.len()) - before;
        let range = place(own.start)..place(own.end);
        before += group.len();
        range
    });
    within.collect()
}

/// The numbers of each rank, in the order of ranks, on every rank.
pub fn gather(world: &dyn World, own: Vec<f64>) -> Result<Vec<Vec<f64>>> {
    if world.size() == 1 {
        return Ok(vec![own]);
    }
    let mut lengths = vec![0.0; world.size()];
    lengths[world.rank()] = own.len() as f64;
    world.sum_counts(&mut lengths)?;
    let lengths: Vec<usize> = lengths.iter().map(|length| *length as usize).collect();
    let before: usize = lengths[..world.rank()].iter().sum();
    // every number has one place, and is added to zeros
    let mut all = vec![0.0; lengths.iter().sum()];
    all[before..before + own.len()].copy_from_slice(&own);
    world.sum_counts(&mut all)?;
    Ok(cut(&all, &lengths))
}

/// Numbers that follow each other, as pieces of these lengths.
pub fn cut(mut numbers: &[f64], lengths: &[usize]) -> Vec<Vec<f64>> {
    let pieces = lengths.iter().map(|length| {
        let (piece, rest) = numbers.split_at(*length);
        numbers = rest;
        piece.to_vec()
    });
    pieces.collect()
}
