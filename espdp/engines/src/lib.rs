//! Ciphers for whole batches of ESP packets, in place, with the vector instructions of the processor.
//!
//! A library call per packet costs more than the encryption of a short packet. The engines of this crate take all packets of a
//! batch in one call: the packets stand in one memory, and each comes with the key of its SA.
//!
//! An engine is a value that exists only on a processor that has what it needs, and only after it has computed known answers
//! right ([`gcm::Engine::detect`]); who holds one can use it without further checks. Where there is none, a library does the work.
//!
//! The Internet checksum of what is inside is made in the same way ([`checksum`]).
//!
//! No branch and no address depends on a key or on content: only lengths, and whether an ICV was right, decide what is done.

#![deny(unsafe_op_in_unsafe_fn)]

/// Whether the processor has all of these features of x86.
#[cfg(target_arch = "x86_64")]
macro_rules! processor_has {
    ($($feature:tt),+) => { $(std::arch::is_x86_feature_detected!($feature))&&+ };
}
#[cfg(not(target_arch = "x86_64"))]
macro_rules! processor_has {
    ($($feature:tt),+) => {
        false
    };
}

#[cfg(target_arch = "x86_64")]
mod aes;
pub mod cbc_hmac;
pub mod chacha20poly1305;
pub mod checksum;
pub mod gcm;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod pending;
mod prefetch;
pub mod side_by_side;
#[cfg(target_arch = "x86_64")]
mod vector;

pub use self::prefetch::prefetch;
