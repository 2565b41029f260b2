//! What the Internet checksum (RFC 1071) adds up, as many octets at once as the processor can.
//!
//! A sum is that of all 32-bit words, in the host's octet order, in 64 bits; what is missing to a whole last word counts as zeros.
//! Whoever folds it has the one's complement sum of 16-bit words: the width of the words does not matter (RFC 1071 §2).

#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "functions for certain processors are unsafe to call from others")
)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

/// The sum of `data`.
#[must_use]
#[inline]
pub fn sum(data: &[u8]) -> u64 {
    if data.len() < WORTHWHILE { of_tail(data) } else { Kernel::best().sum(data) }
}

/// Copies `from` to `to`, which must be as long, and returns the sum. What is longer in one of them is left as it is, and out of the
/// sum.
#[must_use]
#[inline]
pub fn copy(from: &[u8], to: &mut [u8]) -> u64 {
    let len = from.len().min(to.len());
    let (Some(from), Some(to)) = (from.get(..len), to.get_mut(..len)) else { return 0 };
    if len < WORTHWHILE {
        to.copy_from_slice(from);
        return of_tail(to);
    }
    Kernel::best().copy(from, to)
}

/// From so many octets on vectors are faster.
const WORTHWHILE: usize = 64;

/// Ways to add. A value is proof that the processor has what its way needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// 64 octets at once.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 32 octets at once.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Whatever the compiler makes of it.
    Portable,
}

impl Kernel {
    #[inline]
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx512f") && has!("avx512bw") {
                return Self::Avx512;
            }
            if has!("avx2") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    #[inline]
    fn sum(self, data: &[u8]) -> u64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the value proves that the processor has what the function is compiled for, see `best`.
            Self::Avx512 => unsafe { avx512::sum(data) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: likewise.
            Self::Avx2 => unsafe { avx2::sum(data) },
            Self::Portable => portable(data),
        }
    }

    /// Both are as long as each other.
    #[inline]
    fn copy(self, from: &[u8], to: &mut [u8]) -> u64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the value proves that the processor has what the function is compiled for, see `best`.
            Self::Avx512 => unsafe { avx512::copy(from, to) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: likewise.
            Self::Avx2 => unsafe { avx2::copy(from, to) },
            Self::Portable => {
                to.copy_from_slice(from);
                portable(from)
            }
        }
    }
}

/// Sums side by side, one for each word of 64 octets. Compilers turn this into vector additions that do not wait for each other.
fn portable(data: &[u8]) -> u64 {
    let (blocks, rest) = data.as_chunks::<64>();
    let mut lanes = [0_u64; 16];
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = lane.wrapping_add(u64::from(u32::from_ne_bytes(*word)));
        }
    }
    lanes.into_iter().fold(of_tail(rest), u64::wrapping_add)
}

/// For a few octets.
#[inline]
fn of_tail(data: &[u8]) -> u64 {
    let (words, rest) = data.as_chunks::<4>();
    let sum = words.iter().fold(0, |sum, word| add(sum, *word));
    match *rest {
        [] => sum,
        [a] => add(sum, [a, 0, 0, 0]),
        [a, b] => add(sum, [a, b, 0, 0]),
        [a, b, c, ..] => add(sum, [a, b, c, 0]),
    }
}

#[inline]
fn add(sum: u64, word: [u8; 4]) -> u64 {
    sum.wrapping_add(u64::from(u32::from_ne_bytes(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernels() -> Vec<Kernel> {
        let mut kernels = vec![Kernel::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            kernels.extend(has!("avx2").then_some(Kernel::Avx2));
            kernels.extend((has!("avx512f") && has!("avx512bw")).then_some(Kernel::Avx512));
        }
        kernels
    }

    /// Octets of which no two neighbours are the same, with all bits set here and there.
    fn octets(len: usize) -> Vec<u8> {
        (0..len).map(|at| if at % 7 < 3 { 0xff } else { (at * 37) as u8 }).collect()
    }

    fn word_by_word(data: &[u8]) -> u64 {
        let word = |chunk: &[u8]| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from(u32::from_ne_bytes(word))
        };
        data.chunks(4).map(word).sum()
    }

    #[test]
    fn all_kernels_add_what_words_one_by_one_come_to() {
        for len in (0..300).chain([1360, 65_535]) {
            let data = octets(len);
            let wanted = word_by_word(&data);
            assert_eq!(sum(&data), wanted, "{len} octets");
            for kernel in kernels() {
                assert_eq!(kernel.sum(&data), wanted, "{len} octets, {kernel:?}");
            }
        }
    }

    #[test]
    fn copies_are_complete_and_write_nothing_beside() {
        for len in (0..300).chain([1360]) {
            let data = octets(len);
            let copied = |copy: &dyn Fn(&mut [u8]) -> u64| {
                let mut around = vec![0xa5; len + 128];
                let sum = copy(&mut around[64..64 + len]);
                let (before, rest) = around.split_at(64);
                let (inside, behind) = rest.split_at(len);
                assert_eq!(inside, data);
                assert!(before.iter().chain(behind).all(|octet| *octet == 0xa5), "{len} octets");
                sum
            };
            let wanted = word_by_word(&data);
            assert_eq!(copied(&|to| copy(&data, to)), wanted);
            for kernel in kernels() {
                assert_eq!(copied(&|to| kernel.copy(&data, to)), wanted, "{len} octets, {kernel:?}");
            }
        }
    }

    #[test]
    fn what_is_longer_than_its_counterpart_is_left_alone() {
        let mut to = [7; 100];
        assert_eq!(copy(&[1; 70], &mut to), word_by_word(&[1; 70]));
        assert_eq!((&to[..70], &to[70..]), (&[1; 70][..], &[7; 30][..]));
        assert_eq!(copy(&[1; 70], &mut to[..3]), word_by_word(&[1; 3]));
    }
}
