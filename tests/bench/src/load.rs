//! Traffic from host to host, and what it costs the gateways.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use harness::{Site, World};

/// What a measurement showed: names with their units, and values.
pub(crate) type Figures = Vec<(&'static str, f64)>;

/// Has `bob` answer for all addresses that have tunnels.
pub(crate) fn prepare(world: &World) -> Result<()> {
    world.sh(Site::SUN.host, "ip route add local 10.2.128.0/17 dev lo")?;
    world.sh(Site::SUN.gateway, "ip route add 10.2.128.0/17 via 10.2.0.10")?;
    Ok(())
}

/// Several TCP streams for `span`.
pub(crate) fn tcp(world: &World, gateways: &[u32], streams: usize, span: Duration) -> Result<Figures> {
    let sink = TcpSink::start(world, streams)?;
    let before = cpu_seconds(gateways)?;
    let begin = Instant::now();
    let senders: Vec<_> = (0..streams).map(|_| spawn_tcp(world, sink.address, span, None)).collect::<Result<_>>()?;
    for sender in senders {
        join(sender)??;
    }
    let octets = sink.finish()?;
    let elapsed = begin.elapsed();
    let cpu = cpu_seconds(gateways)? - before;
    let gigabytes = count(octets) / 1e9;
    let mut figures = vec![("Gb/s", gigabytes * 8.0 / elapsed.as_secs_f64())];
    if !gateways.is_empty() {
        figures.push(("CPU-s per GB and gateway", cpu / gigabytes / 2.0));
    }
    Ok(figures)
}

/// What is sent as datagrams.
pub(crate) struct Mix {
    /// Sizes of the IP packets, taken in turn.
    sizes: Vec<usize>,
    /// Source ports.
    flows: usize,
    /// Destinations.
    targets: Vec<Ipv4Addr>,
}

impl Mix {
    /// The smallest that are usual.
    pub(crate) fn small() -> Self {
        Self { sizes: vec![64], flows: 1, targets: vec![BOB] }
    }

    /// The simple mix of the internet: 7 of 64, 4 of 594, 1 of 1400 octets, well shuffled.
    pub(crate) fn imix() -> Self {
        Self { sizes: vec![64, 594, 64, 64, 594, 64, 1400, 64, 594, 64, 594, 64], flows: 12, targets: vec![BOB] }
    }

    /// Many flows in turn.
    pub(crate) fn flows(flows: usize) -> Self {
        Self { sizes: vec![594], flows, targets: vec![BOB] }
    }

    /// One flow in each tunnel, in an order that looks random.
    pub(crate) fn tunnels(tunnels: u32) -> Self {
        let step = 7919; // A prime, so that all are met.
        let target = |index: u32| Ipv4Addr::from_bits(FIRST_TUNNEL.to_bits() + index);
        let order = (0..tunnels).map(|turn| (u64::from(turn) * step % u64::from(tunnels)) as u32);
        Self { sizes: vec![594], flows: 1, targets: order.map(target).collect() }
    }
}

/// How a sender of datagrams decides when to send the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// No more are under way than fit in the queue of a TUN device, so that the gateways get as much as they can carry.
    Window,
    /// At once: what the sender can do and the gateways cannot is lost.
    Flood,
}

/// Datagrams that are under way.
struct Window {
    arrived: Arc<AtomicU64>,
    /// How many of those that were sent are not waited for any more.
    written_off: u64,
}

impl Window {
    /// Datagrams that may be under way: fewer than the 500 that a TUN device holds.
    const MOST: u64 = 400;
    /// What has not arrived for so long is lost.
    const PATIENCE: Duration = Duration::from_millis(20);

    /// Waits until another one may follow those that were sent.
    fn wait(&mut self, sent: u64) {
        let mut newest = (self.arrived.load(Ordering::Relaxed), Instant::now());
        while sent.saturating_sub(self.written_off + newest.0) >= Self::MOST {
            thread::yield_now();
            let arrived = self.arrived.load(Ordering::Relaxed);
            if arrived != newest.0 {
                newest = (arrived, Instant::now());
            } else if newest.1.elapsed() >= Self::PATIENCE {
                self.written_off = sent.saturating_sub(arrived);
            }
        }
    }
}

/// Sends a mix for `span` and counts what arrives.
pub(crate) fn udp(world: &World, gateways: &[u32], mix: &Mix, pace: Pace, span: Duration) -> Result<Figures> {
    let sink = world.namespace(Site::SUN.host)?.run(move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
    // Above the system's limit: what the sink has no room for is no matter of the gateways either.
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&sink, BUFFER)?;
    sink.set_read_timeout(Some(Duration::from_millis(300)))?;
    let (sizes, targets) = (mix.sizes.clone(), mix.targets.clone());
    let flows = mix.flows;
    let bind = move || (0..flows).map(|_| UdpSocket::bind((ALICE, 0))).collect::<io::Result<Vec<_>>>();
    let sockets = world.namespace(Site::MOON.host)?.run(bind)??;
    let arrived = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    let has_ended = Arc::clone(&ended);
    let mut window = Window { arrived: Arc::clone(&arrived), written_off: 0 };
    let counter = thread::spawn(move || -> (u64, u64, UdpSocket) {
        let (mut buffer, mut packets, mut octets) = ([0; 2048], 0, 0);
        // Silence is the end only after the sender's: on a busy machine it may pause for longer.
        loop {
            let is_over = has_ended.load(Ordering::Acquire);
            match sink.recv(&mut buffer) {
                Ok(len) => {
                    packets += 1;
                    octets += len as u64 + HEADERS as u64;
                    arrived.store(packets, Ordering::Relaxed);
                }
                Err(_) if is_over => return (packets, octets, sink),
                Err(_) => {}
            }
        }
    });
    let before = cpu_seconds(gateways)?;
    let begin = Instant::now();
    let payload = [0x5a; 1472];
    let mut sent = 0_u64;
    let turns = sizes.iter().cycle().zip(sockets.iter().cycle().zip(targets.iter().cycle()));
    for (size, (socket, target)) in turns {
        if sent.is_multiple_of(256) && begin.elapsed() >= span {
            break;
        }
        if pace == Pace::Window {
            window.wait(sent);
        }
        // A full queue of the sender is no matter of the gateways.
        if socket.send_to(&payload[..size - HEADERS], (*target, PORT)).is_ok() {
            sent += 1;
        }
    }
    ended.store(true, Ordering::Release);
    let elapsed = begin.elapsed().as_secs_f64();
    let (packets, octets, sink) = join(counter)?;
    ensure!(packets > 0, "nothing arrived");
    let overrun = overrun(world)?;
    drop(sink);
    let cpu = cpu_seconds(gateways)? - before;
    Ok(vec![
        ("kpps arrived", count(packets) / elapsed / 1e3),
        ("Gb/s", count(octets) * 8.0 / elapsed / 1e9),
        ("lost %", 100.0 * (1.0 - count(packets) / count(sent))),
        ("% lost at the sink", 100.0 * count(overrun) / count(sent)),
        ("CPU-s per million packets and gateway", cpu / count(packets) * 1e6 / 2.0),
    ])
}

/// Datagrams that the sink's socket, which must still be open, had no room for (the last field of its line).
fn overrun(world: &World) -> Result<u64> {
    let read = || fs::read_to_string("/proc/thread-self/net/udp");
    let sockets = world.namespace(Site::SUN.host)?.run(read)??;
    let ours = format!(":{PORT:04X}");
    let line = sockets.lines().find(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&ours)));
    let drops = line.and_then(|line| line.split_whitespace().last()).context("the sink's line")?;
    Ok(drops.parse()?)
}

/// Round trips of small datagrams while a TCP stream takes half of what one can take.
pub(crate) fn latency(world: &World, gateways: &[u32], span: Duration) -> Result<Figures> {
    let all = tcp(world, gateways, 1, span / 2)?;
    let gigabits = all.first().map_or(0.0, |(_, value)| *value);
    let sink = TcpSink::start(world, 1)?;
    let half = gigabits / 2.0 * 1e9 / 8.0;
    let echo = world.namespace(Site::SUN.host)?.run(|| UdpSocket::bind((BOB, PORT)))??;
    echo.set_read_timeout(Some(Duration::from_secs(1)))?;
    let answering = thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((len, from)) = echo.recv_from(&mut buffer) {
            if echo.send_to(&buffer[..len], from).is_err() {
                break;
            }
        }
    });
    let load = spawn_tcp(world, sink.address, span, Some(half))?;
    let probe = world.namespace(Site::MOON.host)?.run(|| UdpSocket::bind((ALICE, 0)))??;
    probe.connect((BOB, PORT))?;
    probe.set_read_timeout(Some(Duration::from_millis(200)))?;
    let (begin, mut times) = (Instant::now(), Vec::new());
    while begin.elapsed() < span {
        let sent = Instant::now();
        probe.send(&[1; 36])?;
        if probe.recv(&mut [0; 64]).is_ok() {
            times.push(sent.elapsed().as_secs_f64() * 1e6);
        }
        thread::sleep(Duration::from_millis(1)); // The pace of the probes.
    }
    join(load)??;
    sink.finish()?;
    join(answering)?;
    ensure!(!times.is_empty(), "no round trip ended");
    times.sort_by(f64::total_cmp);
    let quantile = |of: f64| times.get((count(times.len() as u64) * of) as usize).copied().unwrap_or(f64::NAN);
    Ok(vec![("Gb/s beside", gigabits / 2.0), ("µs, median", quantile(0.5)), ("µs, 99 %", quantile(0.99))])
}

/// The receiving end of TCP streams.
struct TcpSink {
    address: SocketAddr,
    receiving: Vec<JoinHandle<io::Result<u64>>>,
}

impl TcpSink {
    fn start(world: &World, streams: usize) -> Result<Self> {
        let listener = world.namespace(Site::SUN.host)?.run(|| TcpListener::bind((BOB, 0)))??;
        let address = listener.local_addr()?;
        let receive = |listener: TcpListener| -> io::Result<u64> {
            let (mut stream, _) = listener.accept()?;
            let (mut buffer, mut total) = (vec![0; CHUNK], 0_u64);
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(total),
                    read => total += read as u64,
                }
            }
        };
        let start = |_| {
            let listener = listener.try_clone()?;
            Ok(thread::spawn(move || receive(listener)))
        };
        Ok(Self { address, receiving: (0..streams).map(start).collect::<Result<_>>()? })
    }

    /// Waits for the ends of all streams: the octets that came.
    fn finish(self) -> Result<u64> {
        self.receiving.into_iter().try_fold(0, |total, stream| Ok(total + join(stream)??))
    }
}

/// Sends over TCP for `span`, at most `rate` octets a second.
fn spawn_tcp(world: &World, to: SocketAddr, span: Duration, rate: Option<f64>) -> Result<JoinHandle<io::Result<()>>> {
    let connect = move || TcpStream::connect_timeout(&to, Duration::from_secs(10));
    let mut stream = world.namespace(Site::MOON.host)?.run(connect)??;
    // The same for all, whatever the machine's default.
    rustix::net::sockopt::set_tcp_congestion(&stream, "cubic")?;
    let chunk = if rate.is_some() { CHUNK / 4 } else { CHUNK };
    Ok(thread::spawn(move || {
        let (buffer, begin, mut sent) = (vec![0x5a; chunk], Instant::now(), 0_u64);
        while begin.elapsed() < span {
            stream.write_all(&buffer)?;
            sent += chunk as u64;
            let due = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(count(sent) / rate));
            thread::sleep(due.saturating_sub(begin.elapsed())); // The pace of the load.
        }
        Ok(())
    }))
}

/// User and system time of processes so far (proc(5): fields 14 and 15 of `stat`, in ticks of 10 ms).
fn cpu_seconds(ids: &[u32]) -> Result<f64> {
    let mut ticks = 0.0;
    for id in ids {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).context("a gateway has ended")?;
        let fields = stat.rsplit(')').next().context("the fields after the name")?.split_whitespace();
        ticks += fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>();
    }
    Ok(ticks / 100.0)
}

fn join<T>(thread: JoinHandle<T>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread of the load panicked"))
}

#[expect(clippy::cast_precision_loss, reason = "counts of some seconds are far below 2^52")]
fn count(number: u64) -> f64 {
    number as f64
}

/// The sending host.
const ALICE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
/// The receiving host.
const BOB: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 10);
/// The first of the addresses that have a tunnel each in mode `tunnels`.
const FIRST_TUNNEL: Ipv4Addr = Ipv4Addr::new(10, 2, 128, 0);
/// The sink's UDP port.
const PORT: u16 = 5002;
/// IPv4 and UDP headers.
const HEADERS: usize = 28;
/// Octets written to a stream at once.
const CHUNK: usize = 256 * 1024;
/// The sink's socket buffer.
const BUFFER: usize = 8 << 20;
