//! Which worker a packet is for, told to the kernel as programs of the classic packet filter: they read the SPI, in which the
//! worker's number stands ([`Workers`]).

use std::io;
use std::os::fd::AsRawFd;

use espdp_api::{WorkerId, Workers};
use libc::{BPF_A, BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_IND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX};
use libc::{BPF_MOD, BPF_MSH, BPF_RET, BPF_RSH, BPF_W, sock_filter, sock_fprog};
use socket2::Socket;
use tunnels::Family;

/// Where the SPI stands behind the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpiAt {
    /// At the front (RFC 4303 §2).
    Esp,
    /// Behind next header, length and reserved octets (RFC 4302 §2).
    Ah,
}

impl SpiAt {
    fn offset(self) -> u32 {
        match self {
            Self::Esp => 0,
            Self::Ah => 4,
        }
    }
}

/// Says the place among the sockets of a UDP port, where a datagram starts behind its UDP header. Four zero octets, which are IKE's
/// (RFC 3948 §2.2), are the first worker's; and so is what is shorter, since a load beyond the end makes the result 0.
pub(crate) fn by_spi(workers: Workers) -> Vec<sock_filter> {
    // From zero straight to the end, where zero is the result.
    let mut program = vec![op(BPF_LD | BPF_W | BPF_ABS, 0), jump_if_equal(0, WORKER_OPS, 0)];
    program.extend(worker_of_spi(workers));
    program.push(op(BPF_RET | BPF_A, 0));
    program
}

/// Takes the packets of one worker's SAs, on a raw socket. Those of IPv4 start with their IP header, those of IPv6 behind it.
pub(crate) fn only_of(worker: WorkerId, workers: Workers, family: Family, spi_at: SpiAt) -> Vec<sock_filter> {
    let mut program = match family {
        Family::V4 => {
            vec![op(BPF_LDX | BPF_B | BPF_MSH, 0), op(BPF_LD | BPF_W | BPF_IND, spi_at.offset())]
        }
        Family::V6 => vec![op(BPF_LD | BPF_W | BPF_ABS, spi_at.offset())],
    };
    program.extend(worker_of_spi(workers));
    program.extend([jump_if_equal(worker.0.into(), 0, 1), op(BPF_RET | BPF_K, u32::MAX), op(BPF_RET | BPF_K, 0)]);
    program
}

/// As [`Workers::of_spi`] has it.
fn worker_of_spi(workers: Workers) -> [sock_filter; WORKER_OPS as usize] {
    [
        op(BPF_ALU | BPF_RSH | BPF_K, Workers::SPI_SHIFT),
        op(BPF_ALU | BPF_AND | BPF_K, u32::from(Workers::MOST - 1)),
        op(BPF_ALU | BPF_MOD | BPF_K, workers.count().into()),
    ]
}

/// Operations of [`worker_of_spi`].
const WORKER_OPS: u8 = 3;

fn op(code: u32, operand: u32) -> sock_filter {
    // Codes of the classic filter fit in 16 bits; no more than that is defined.
    let [low, high, ..] = code.to_le_bytes();
    sock_filter { code: u16::from_le_bytes([low, high]), jt: 0, jf: 0, k: operand }
}

fn jump_if_equal(value: u32, then_skip: u8, else_skip: u8) -> sock_filter {
    sock_filter { jt: then_skip, jf: else_skip, ..op(BPF_JMP | BPF_JEQ | BPF_K, value) }
}

/// Gives a program to a socket, by an option that takes one.
pub(super) fn attach(socket: &Socket, option: libc::c_int, program: &[sock_filter]) -> io::Result<()> {
    let len = libc::c_ushort::try_from(program.len()).map_err(io::Error::other)?;
    let value = sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let value_len = size_of_val(&value) as libc::socklen_t;
    let value = (&raw const value).cast();
    // SAFETY: `socket` is open; both options that this is used for read one `sock_fprog`, which is `value_len` octets long, and the
    // `len` operations that it points to, and copy them. Nothing is written through the pointer, and `program` outlives the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, value_len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does.
    fn run(program: &[sock_filter], packet: &[u8]) -> u32 {
        let (mut a, mut x, mut at) = (0u32, 0u32, 0);
        let word = |offset: u32| {
            let octets = packet.get(offset as usize..)?.first_chunk::<4>()?;
            Some(u32::from_be_bytes(*octets))
        };
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let code = u32::from(code);
            if code == BPF_LD | BPF_W | BPF_ABS {
                let Some(value) = word(k) else { return 0 };
                a = value;
            } else if code == BPF_LD | BPF_W | BPF_IND {
                let Some(value) = word(x + k) else { return 0 };
                a = value;
            } else if code == BPF_LDX | BPF_B | BPF_MSH {
                let Some(octet) = packet.get(k as usize) else { return 0 };
                x = u32::from(octet & 0xf) * 4;
            } else if code == BPF_ALU | BPF_RSH | BPF_K {
                a >>= k;
            } else if code == BPF_ALU | BPF_AND | BPF_K {
                a &= k;
            } else if code == BPF_ALU | BPF_MOD | BPF_K {
                a %= k;
            } else if code == BPF_JMP | BPF_JEQ | BPF_K {
                at += usize::from(if a == k { jt } else { jf });
            } else if code == BPF_RET | BPF_A {
                return a;
            } else if code == BPF_RET | BPF_K {
                return k;
            } else {
                panic!("operation {code:#x} is not known here");
            }
        }
    }

    #[test]
    fn datagrams_go_to_the_worker_of_their_spi_and_ike_and_keepalives_to_the_first() {
        for workers in (1..=Workers::MOST).filter_map(Workers::new) {
            let program = by_spi(workers);
            for worker in workers.ids() {
                let spi = workers.mark(0x9abc_def0, worker);
                let datagram = [&spi.to_be_bytes()[..], &[0; 28]].concat();
                assert_eq!(run(&program, &datagram), u32::from(worker.0));
            }
            assert_eq!(run(&program, &[0, 0, 0, 0, 9, 9, 9, 9]), 0, "IKE");
            assert_eq!(run(&program, &[0xff]), 0, "a keepalive");
            assert_eq!(run(&program, &[]), 0);
        }
    }

    #[test]
    fn of_several_raw_sockets_exactly_one_takes_a_packet() {
        let workers = Workers::new(3).unwrap();
        for (family, spi_at, header) in [
            (Family::V4, SpiAt::Esp, vec![0x45; 20]),
            (Family::V4, SpiAt::Ah, [vec![0x46; 24], vec![4, 4, 0, 0]].concat()),
            (Family::V6, SpiAt::Esp, vec![]),
            (Family::V6, SpiAt::Ah, vec![41, 4, 0, 0]),
        ] {
            for owner in workers.ids() {
                let spi = workers.mark(0x1234_5678, owner);
                let packet = [&header[..], &spi.to_be_bytes(), &[7; 20]].concat();
                let takers = workers.ids().filter(|id| run(&only_of(*id, workers, family, spi_at), &packet) != 0);
                assert_eq!(takers.collect::<Vec<_>>(), [owner], "{family} {spi_at:?}");
            }
        }
    }
}
