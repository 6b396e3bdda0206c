//! Extra memory grows with the tokens, counted by the allocator: what this thread takes and gives back.

use super::case::{Case, tensors};
use candle_core::{DType, Tensor};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, with a count of the bytes that this thread has out and of the most that
/// it ever had.
struct Counting;

thread_local! {
    // signed: a thread may give back what another one took
    static NOW: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn add(bytes: isize) {
    let now = NOW.get() + bytes;
    NOW.set(now);
    MOST.set(MOST.get().max(now));
}

// SAFETY: every call is passed on unchanged, and the counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` returns, the bytes that are out more after it than before, and the most during it.
fn measured<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = NOW.get();
    MOST.set(before);
    let result = work();
    let since = |bytes: isize| usize::try_from(bytes - before).expect("more is out than before");
    (result, since(NOW.get()), since(MOST.get()))
}

/// Bytes that the forward pass keeps, and the most during both passes.
fn bytes(case: &Case) -> (usize, usize) {
    let vars = case.vars(&case.numbers(0), DType::F32);
    let x = tensors(&vars);
    let (out, kept, forward) = measured(|| case.ours(&x).unwrap());
    let (_, _, backward) = measured(|| out.backward().unwrap());
    (kept, forward.max(kept + backward))
}

#[test]
fn memory_grows_with_the_tokens_and_not_with_their_square() {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .use_current_thread();
    pool.build().unwrap().install(|| {
        let of = |tokens: usize| Case {
            dim: 16,
            value_dim: 16,
            ..Case::new(
                &[tokens / 2, tokens / 4, tokens / 4],
                &[None, Some(0), Some(0)],
            )
        };
        let (tokens, times) = (512, 4);
        let ((kept, most), (more_kept, more)) = (bytes(&of(tokens)), bytes(&of(times * tokens)));
        println!("kept {kept} and {more_kept}, at most {most} and {more} bytes");
        assert!(more_kept <= times * kept, "{more_kept} after {kept}");
        assert!(more <= times * most, "{more} after {most}");
        // the output [tokens, 2, 16], two numbers per query, the layout
        assert!(
            more_kept < times * tokens * 4 * 2 * (16 + 2) * 11 / 10,
            "{more_kept}"
        );
        // a matrix of scores [2, tokens, tokens] alone is more
        let scores = 4 * 2 * (times * tokens).pow(2);
        assert!(more < scores / 8, "{more} of {scores}");
        // q, k, v and the output are 6 rows of 16 per token
        let inputs = times * tokens * 6 * 16 * 4;
        assert!(more < 6 * inputs, "{more} of {inputs}");
    });
}

#[test]
fn a_tensor_is_counted() {
    let (x, kept, _) =
        measured(|| Tensor::zeros(1 << 16, DType::F32, &candle_core::Device::Cpu).unwrap());
    assert!(kept >= 1 << 18, "{kept}");
    drop(x);
}
