//! Threads of one process as ranks: sums are in the order of ranks, so nothing depends on which thread is first.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use train::error::{Error, Result};
use train::world::World;

/// A rank.
pub struct Thread {
    rank: usize,
    desk: Arc<Desk>,
}

/// Where ranks meet.
struct Desk {
    size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    given: Vec<Option<Vec<f64>>>,
    /// What all gave, and how many have yet to take it.
    all: Option<(Arc<Vec<Vec<f64>>>, usize)>,
    ended: bool,
}

/// What each of so many ranks gives back. One that fails ends the others.
pub fn ranks<T: Send>(size: usize, run: impl Fn(&dyn World) -> Result<T> + Sync) -> Vec<Result<T>> {
    let state = State {
        given: vec![None; size],
        ..State::default()
    };
    let desk = Arc::new(Desk {
        size,
        state: Mutex::new(state),
        changed: Condvar::new(),
    });
    std::thread::scope(|scope| {
        let start = |rank| {
            let (desk, run) = (desk.clone(), &run);
            scope.spawn(move || {
                let world = Thread { rank, desk };
                let result = run(&world);
                if result.is_err() {
                    world.abandon();
                }
                result
            })
        };
        let threads: Vec<_> = (0..size).map(start).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

impl Thread {
    /// What all ranks give, in the order of ranks.
    fn exchange(&self, own: Vec<f64>) -> Result<Arc<Vec<Vec<f64>>>> {
        let wait = |until: &dyn Fn(&State) -> bool| -> Result<MutexGuard<State>> {
            let state = self.desk.state.lock().unwrap();
            let waits = |state: &mut State| !state.ended && !until(state);
            let state = self.desk.changed.wait_while(state, waits).unwrap();
            match state.ended {
                true => Err(Error::Usage("another rank ended".to_string())),
                false => Ok(state),
            }
        };
        let mut state = wait(&|state| state.all.is_none())?;
        state.given[self.rank] = Some(own);
        if state.given.iter().all(Option::is_some) {
            let all: Vec<Vec<f64>> = state.given.iter_mut().filter_map(Option::take).collect();
            state.all = Some((Arc::new(all), self.desk.size));
            self.desk.changed.notify_all();
        }
        drop(state);
        let mut state = wait(&|state| state.all.is_some())?;
        let (all, left) = state.all.take().unwrap();
        if left > 1 {
            state.all = Some((all.clone(), left - 1));
        }
        self.desk.changed.notify_all();
        Ok(all)
    }
}

impl World for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.desk.size
    }

    fn sum(&self, numbers: &mut [f32]) -> Result<()> {
        let own = numbers.iter().map(|number| f64::from(*number)).collect();
        let all = self.exchange(own)?;
        for (at, number) in numbers.iter_mut().enumerate() {
            *number = all.iter().map(|of| of[at] as f32).sum();
        }
        Ok(())
    }

    fn sum_counts(&self, counts: &mut [f64]) -> Result<()> {
        let all = self.exchange(counts.to_vec())?;
        for (at, count) in counts.iter_mut().enumerate() {
            *count = all.iter().map(|of| of[at]).sum();
        }
        Ok(())
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let own = bytes.iter().map(|byte| f64::from(*byte)).collect();
        let all = self.exchange(own)?;
        *bytes = all[0].iter().map(|byte| *byte as u8).collect();
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        self.exchange(Vec::new()).map(|_| ())
    }

    fn abandon(&self) {
        self.desk.state.lock().unwrap().ended = true;
        self.desk.changed.notify_all();
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abandon();
        }
    }
}
