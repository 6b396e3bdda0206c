//! What a four-bit layer holds, and what it takes to use it, counted by the allocator.

use candle_align::{BlockScale, Nf4Linear};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Linear, Module};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, with a count of the bytes that are out and of the most that ever were.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn add(bytes: usize) {
    let now = NOW.fetch_add(bytes, Relaxed) + bytes;
    MOST.fetch_max(now, Relaxed);
}

// SAFETY: every call is passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` returns, the bytes that are out more after it than before, and the most during it.
fn measured<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let result = work();
    (
        result,
        NOW.load(Relaxed) - before,
        MOST.load(Relaxed) - before,
    )
}

/// Of the library's own structures, and of what threads set up when they start.
const SMALL: usize = 1 << 16;

// One test: the count is the whole process's.
#[test]
fn a_layer_holds_what_it_says_and_is_never_dequantised_whole() {
    let (outputs, inputs, rows) = (2048, 1536, 4);
    let full = 4 * outputs * inputs;
    let weight = Tensor::ones((outputs, inputs), DType::F32, &Device::Cpu).unwrap();
    let base = Linear::new(weight, None);
    // threads and tables start before the count
    let tiny = Linear::new(
        Tensor::ones((2, 3), DType::F32, &Device::Cpu).unwrap(),
        None,
    );
    let layer = Nf4Linear::quantise(&tiny, BlockScale::Double).unwrap();
    let x = Var::ones((rows, 3), DType::F32, &Device::Cpu).unwrap();
    layer.forward(&x).unwrap().backward().unwrap();

    for scale in [BlockScale::Single, BlockScale::Double] {
        let (layer, held, most) = measured(|| Nf4Linear::quantise(&base, scale).unwrap());
        assert!(held.abs_diff(layer.bytes()) < SMALL, "{held}");
        assert!(held < full / 7, "{held} of {full}");
        assert!(most < full / 6, "{most} of {full}");

        let x = Var::ones((rows, inputs), DType::F32, &Device::Cpu).unwrap();
        // the matrix product keeps a buffer per thread once it was used
        layer.forward(&x).unwrap().backward().unwrap();
        let (y, held, most) = measured(|| layer.forward(&x).unwrap());
        println!("{scale:?}: forward {most} of {full} bytes at most");
        assert!(held < 4 * rows * outputs + SMALL, "{held}");
        // 2²⁰ elements, and little beside
        assert!(most < 4 * (1 << 20) * 11 / 10, "{most} of {full}");
        let (_, _, most) = measured(|| y.backward().unwrap());
        println!("{scale:?}: backward {most} of {full} bytes at most");
        assert!(most < 4 * (1 << 20) * 11 / 10, "{most} of {full}");
    }
}
