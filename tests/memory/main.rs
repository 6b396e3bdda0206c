//! What a four-bit layer, a layer under LoRA, attention, a divergence and a decoder in four bits hold, and what
//! it takes to use them, counted by the allocator.
//!
//! Only what the test's own thread takes and gives back is counted. Parallel work stays on that
//! thread ([`alone`]), so no other thread holds a part of what is measured, and no other thread's
//! memory is in the count, however the machine is used.

mod attention;
#[allow(dead_code)] // the suite of attention uses the rest
#[path = "../attention/case.rs"]
mod case;
mod decoder;
mod distillation;

use candle_align::parameter_efficient::{BlockScale, LoraConfig, LoraLinear, Nf4Linear};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Linear, Module};
use rand::{SeedableRng, rngs::StdRng};
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

/// Runs `work` where every parallel part of it stays on the calling thread.
fn alone(work: impl FnOnce() + Send) {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .use_current_thread();
    pool.build().unwrap().install(work);
}

/// Of the library's own structures.
const SMALL: usize = 1 << 16;

#[test]
fn the_count_is_of_this_thread_alone() {
    alone(|| {
        let (_, held, most) = measured(|| {
            let other = std::thread::spawn(|| Vec::<u8>::with_capacity(1 << 24).capacity());
            drop(vec![1u8; 1 << 20]);
            other.join().unwrap()
        });
        assert!(held < SMALL, "{held}");
        assert!((1 << 20..(1 << 20) + SMALL).contains(&most), "{most}");
    });
}

#[test]
fn a_layer_holds_what_it_says_and_is_never_dequantized_whole() {
    alone(layers_hold_what_they_say);
}

fn layers_hold_what_they_say() {
    let (outputs, inputs, rows) = (2048, 1536, 4);
    let full = 4 * outputs * inputs;
    let weight = Tensor::ones((outputs, inputs), DType::F32, &Device::Cpu).unwrap();
    let base = Linear::new(weight, None);
    // tables are made before the count
    let tiny = Linear::new(
        Tensor::ones((2, 3), DType::F32, &Device::Cpu).unwrap(),
        None,
    );
    let layer = Nf4Linear::quantize(&tiny, BlockScale::Double).unwrap();
    let x = Var::ones((rows, 3), DType::F32, &Device::Cpu).unwrap();
    layer.forward(&x).unwrap().backward().unwrap();

    for scale in [BlockScale::Single, BlockScale::Double] {
        let (layer, held, most) = measured(|| Nf4Linear::quantize(&base, scale).unwrap());
        assert!(held.abs_diff(layer.bytes()) < SMALL, "{held}");
        assert!(held < full / 7, "{held} of {full}");
        assert!(most < full / 6, "{most} of {full}");

        let x = Var::ones((rows, inputs), DType::F32, &Device::Cpu).unwrap();
        // the matrix product keeps its buffer once it was used
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

#[test]
fn a_layer_under_lora_keeps_one_output_for_the_backward_pass() {
    alone(lora_keeps_one_output);
}

fn lora_keeps_one_output() {
    let (outputs, inputs, rows) = (512, 384, 256);
    let output = 4 * rows * outputs;
    let mut rng = StdRng::seed_from_u64(0);
    for dtype in [DType::F32, DType::BF16] {
        let weight = Tensor::ones((outputs, inputs), dtype, &Device::Cpu).unwrap();
        let bias = Tensor::ones(outputs, dtype, &Device::Cpu).unwrap();
        let base = Linear::new(weight, Some(bias));
        let layer = LoraLinear::new(&base, &LoraConfig::default(), &mut rng).unwrap();
        let x = Var::ones((rows, inputs), DType::F32, &Device::Cpu).unwrap();
        // the matrix product keeps its buffer once it was used
        layer.forward(&x).unwrap().backward().unwrap();
        let (h, held, most) = measured(|| layer.forward(&x).unwrap());
        println!("{dtype:?}: {held} bytes held, {most} at most; the output has {output}");
        assert!(held < output + SMALL, "{held}");
        // W₀ x + b, the change and the sum, and a widened weight
        assert!(most < 3 * output + 4 * outputs * inputs + SMALL, "{most}");
        drop(h);
    }
}
