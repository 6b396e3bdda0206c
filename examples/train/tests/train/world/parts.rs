//! Which part of some work is whose, and what a program without MPI says to several processes.

use train::world::parts::part;
use train::world::start::alone;

#[test]
fn parts_follow_each_other_and_weigh_alike() {
    let cases: [(&[usize], usize); 7] = [
        (&[1, 1, 1, 1], 2),
        (&[1, 1, 1, 1, 1, 1, 1], 3),
        (&[9, 1, 1, 1], 2),
        (&[1, 1], 4),
        (&[], 3),
        (&[0, 0], 3),
        (&[5, 0, 7, 0], 4),
    ];
    for (weights, size) in cases {
        let parts: Vec<_> = (0..size).map(|rank| part(weights, rank, size)).collect();
        let mut next = 0;
        for part in &parts {
            assert_eq!(part.start, next, "{weights:?} {parts:?}");
            next = part.end;
        }
        assert_eq!(next, weights.len(), "{weights:?} {parts:?}");
        let all: usize = weights.iter().sum();
        let most = weights.iter().max().copied().unwrap_or(0);
        for part in parts {
            let own: usize = weights[part].iter().sum();
            assert!(own * size <= all + most * size, "{weights:?}");
        }
    }
    assert_eq!(part(&[1, 1, 1, 1], 1, 2), 2..4);
    // by weight and not by number
    assert_eq!(part(&[9, 1, 1, 1], 0, 2), 0..1);
}

#[test]
fn one_of_several_processes_is_refused_without_mpi() {
    let under = |launcher: &'static str, size: &'static str| {
        alone(move |name| (name == launcher).then(|| size.to_string()))
    };
    assert!(alone(|_| None).is_ok());
    assert!(under("OMPI_COMM_WORLD_SIZE", "1").is_ok());
    for launcher in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
        assert_eq!(
            under(launcher, "4").unwrap_err().to_string(),
            "4 processes were started, and this program was built for one: build it with --features train/mpi"
        );
    }
}
