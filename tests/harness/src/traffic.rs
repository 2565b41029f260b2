//! Pings and transfers through the tunnel.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::finish;
use crate::world::World;

/// How many echo requests went out and how many replies came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingResult {
    /// Requests.
    pub sent: u32,
    /// Replies.
    pub received: u32,
}

impl PingResult {
    fn parse(output: &str) -> Result<Self> {
        let line =
            output.lines().find(|line| line.contains("packets transmitted")).with_context(|| output.to_owned())?;
        let mut numbers = line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
        Ok(Self {
            sent: numbers.next().context("no count of requests")?,
            received: numbers.next().context("no count of replies")?,
        })
    }

    /// Whether every request was answered.
    #[must_use]
    pub fn lossless(self) -> bool {
        self.sent > 0 && self.sent == self.received
    }
}

/// Sends `count` echo requests from `node`, five a second, each waited for up to two seconds.
///
/// # Errors
/// When `ping` cannot run.
pub fn ping(world: &World, node: &str, address: &str, count: u32) -> Result<PingResult> {
    let mut command = world.command(node, "ping")?;
    command.args(["-n", "-i", "0.2", "-W", "2", "-c", &count.to_string(), address]);
    PingResult::parse(&String::from_utf8_lossy(&finish(command)?.stdout))
}

/// Wants that an echo request from `node` stays without a reply.
///
/// # Errors
/// When there is a reply, or nothing to send it with.
pub fn expect_silence(world: &World, node: &str, address: &str) -> Result<()> {
    let result = ping(world, node, address, 1)?;
    ensure!(result == PingResult { sent: 1, received: 0 }, "{result:?} where nothing should pass");
    Ok(())
}

/// Echo requests without a pause, from [`PingStream::start`] until [`PingStream::stop`].
#[derive(Debug)]
pub struct PingStream {
    /// Until it is stopped.
    child: Option<Child>,
}

impl PingStream {
    /// Starts to send from `node`, a hundred requests a second.
    ///
    /// # Errors
    /// When `ping` cannot run.
    pub fn start(world: &World, node: &str, address: &str) -> Result<Self> {
        let mut command = world.command(node, "ping")?;
        command.args(["-n", "-q", "-i", "0.01", "-W", "2", address]).stdout(Stdio::piped()).stderr(Stdio::null());
        Ok(Self { child: Some(command.spawn().context("start ping")?) })
    }

    /// Stops and counts. The last request may still be under way, so a single missing reply at the very end is given back.
    ///
    /// # Errors
    /// When `ping` ended before.
    pub fn stop(mut self) -> Result<PingResult> {
        let child = self.child.take().context("a stream that was stopped")?;
        let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("process id")?;
        kill_process(id, Signal::INT)?;
        let output = child.wait_with_output()?;
        let mut result = PingResult::parse(&String::from_utf8_lossy(&output.stdout))?;
        if result.sent == result.received.saturating_add(1) {
            result.sent = result.received;
        }
        Ok(result)
    }
}

impl Drop for PingStream {
    /// A test that fails must not leave it running.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Sends `octets` from a host to another over TCP and checks that they all arrive unchanged.
///
/// # Errors
/// When the connection fails, or what arrives differs.
pub fn tcp_transfer(world: &World, from: &str, to: &str, address: &str, octets: usize) -> Result<()> {
    let address: IpAddr = address.parse()?;
    let listener = world.namespace(to)?.run(|| TcpListener::bind(SocketAddr::new(address, 0)))??;
    let target = listener.local_addr()?;
    let receiver = world.namespace(to)?.start(move || -> std::io::Result<(usize, u64)> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (mut count, mut sum, mut buffer) = (0, 0_u64, vec![0; CHUNK]);
        loop {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Ok((count, sum));
            }
            for octet in buffer.iter().take(read) {
                sum = sum.wrapping_mul(31).wrapping_add(u64::from(*octet));
            }
            count += read;
        }
    })?;
    let sent = world.namespace(from)?.run(move || -> std::io::Result<u64> {
        let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let (mut left, mut sum, mut state) = (octets, 0_u64, 1_u32);
        let mut buffer = vec![0; CHUNK];
        while left > 0 {
            let size = left.min(CHUNK);
            for octet in buffer.iter_mut().take(size) {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let [_, _, _, high] = state.to_le_bytes();
                *octet = high;
                sum = sum.wrapping_mul(31).wrapping_add(u64::from(high));
            }
            stream.write_all(buffer.get(..size).unwrap_or_default())?;
            left -= size;
        }
        Ok(sum)
    })?;
    let sent = sent.context("send over TCP")?;
    let received = receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))??;
    let (count, sum) = received.context("receive over TCP")?;
    ensure!((count, sum) == (octets, sent), "{count} of {octets} octets arrived, or not the same ones");
    Ok(())
}

/// How long a transfer may stand still.
const PATIENCE: Duration = Duration::from_secs(20);

/// Octets written at once.
const CHUNK: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::PingResult;

    #[test]
    fn the_summary_of_ping_is_understood() {
        let text = "--- 10.0.0.1 ping statistics ---\n7 packets transmitted, 6 received, 14% packet loss, time 1ms\n";
        assert_eq!(PingResult::parse(text).unwrap(), PingResult { sent: 7, received: 6 });
        assert!(PingResult::parse("unknown host").is_err());
    }
}
