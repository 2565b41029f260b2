//! Reading the processor's clock, for all benchmarks.

use std::time::Instant;

/// What of many measurements counts: whatever else the machine does only ever adds to them.
pub fn lower_quartile(mut clocks: Vec<f64>) -> f64 {
    clocks.sort_by(f64::total_cmp);
    clocks[clocks.len() / 4]
}

/// The time stamp counter, or nanoseconds where there is none.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the only way to read the time stamp counter")]
pub fn clock() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and it has no memory effects.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Nanoseconds.
#[cfg(not(target_arch = "x86_64"))]
pub fn clock() -> u64 {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(now).elapsed().as_nanos() as u64
}

/// The time.
#[expect(clippy::disallowed_methods, reason = "a benchmark looks at the clock")]
pub fn now() -> Instant {
    Instant::now()
}
