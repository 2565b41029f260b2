//! TCP throughput through two gateways: ours, strongSwan's ESP in user space and wireguard-go, in one run.
//!
//! `cargo build --release --bins && cargo run --release -p interop --bin throughput [-- --json]`
//!
//! The machine is the same, the rounds are interleaved and the figures to trust are the ratios and the CPU time per
//! gigabyte. Needs root, strongSwan, wireguard-go and wireguard-tools.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{Charon, Daemon, Gateway, Site, StrongSwan, World, finish, wait_until};
use interop::Case;
use serde_json::json;

fn main() -> Result<()> {
    let as_json = std::env::args().any(|argument| argument == "--json");
    let (mut wall, mut cpu): (Vec<Vec<f64>>, Vec<Vec<f64>>) =
        (vec![Vec::new(); SETUPS.len()], vec![Vec::new(); SETUPS.len()]);
    for round in 0..ROUNDS {
        for (setup, (wall, cpu)) in SETUPS.iter().zip(wall.iter_mut().zip(&mut cpu)) {
            let sample = measure(*setup).with_context(|| setup.name())?;
            eprintln!(
                "round {round}: {:<28} {:6.2} Gb/s  {:5.2} CPU-s/GB for each gateway",
                setup.name(),
                sample.gigabits,
                sample.cpu
            );
            wall.push(sample.gigabits);
            cpu.push(sample.cpu);
        }
    }
    let ours = (median(wall.first()), median(cpu.first()));
    for (setup, (wall, cpu)) in SETUPS.iter().zip(wall.iter().zip(&cpu)) {
        let (gigabits, cpu) = (median(Some(wall)), median(Some(cpu)));
        if as_json {
            let row = json!({ "gateway": setup.name(), "gbit_s": gigabits, "cpu_s_per_gb": cpu, "ours_is_faster_by": ours.0 / gigabits, "ours_needs_less_cpu_by": cpu / ours.1 });
            println!("{row}");
        } else {
            println!(
                "| {:<28} | {gigabits:6.2} | {cpu:6.2} | {:6.1} | {:6.1} |",
                setup.name(),
                ours.0 / gigabits,
                cpu / ours.1
            );
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setup {
    OursUdp,
    OursNative,
    StrongSwan,
    WireguardGo,
}

impl Setup {
    fn name(self) -> &'static str {
        match self {
            Self::OursUdp => "charon-rs, ESP in UDP",
            Self::OursNative => "charon-rs, native ESP",
            Self::StrongSwan => "strongSwan kernel-libipsec",
            Self::WireguardGo => "wireguard-go",
        }
    }
}

/// What one run showed.
struct Sample {
    gigabits: f64,
    cpu: f64,
}

fn measure(setup: Setup) -> Result<Sample> {
    let world = World::two_sites()?;
    let folder = tempfile::tempdir()?;
    match setup {
        Setup::OursUdp | Setup::OursNative => {
            let lines = if setup == Setup::OursUdp { "forceencaps = true" } else { "" };
            let (moon, sun) = ours(&world, folder.path(), lines)?;
            moon.expect_ctl(&["up", "net"])?;
            sample(&world, &[moon.id(), sun.id()])
        }
        Setup::StrongSwan => {
            let (moon, sun) = strongswan(&world, folder.path())?;
            moon.swanctl(&["--initiate", "--child", "net"])?;
            sample(&world, &[moon.id(), sun.id()])
        }
        Setup::WireguardGo => {
            let (moon, sun) = wireguard(&world, folder.path())?;
            sample(&world, &[moon.id(), sun.id()])
        }
    }
}

fn ours(world: &World, folder: &Path, lines: &str) -> Result<(Gateway, Gateway)> {
    let secrets = Case::default().secrets();
    let mut gateways = Vec::new();
    for (here, there) in [(Site::MOON, Site::SUN), (Site::SUN, Site::MOON)] {
        let config = format!(
            "[conn.net]\nleft = \"{}\"\nleftid = \"{}.example.org\"\nleftsubnet = \"{}\"\nright = \"{}\"\nrightid = \"{}.example.org\"\n\
             rightsubnet = \"{}\"\nike = \"aes256gcm16-prfsha384-ecp384\"\nesp = \"aes256gcm16\"\ninterface = \"ipsec0\"\nauto = \"add\"\n{lines}\n",
            here.outer4, here.gateway, here.net4, there.outer4, there.gateway, there.net4,
        );
        gateways.push(Gateway::start(world, here.gateway, folder, &config, &secrets)?);
    }
    let sun = gateways.pop().context("two gateways")?;
    Ok((gateways.pop().context("two gateways")?, sun))
}

fn strongswan(world: &World, folder: &Path) -> Result<(StrongSwan, StrongSwan)> {
    let theirs = Case::default().swanctl_conf();
    let sun = StrongSwan::start(world, "sun", folder, Charon::default(), &theirs)?;
    let moon = StrongSwan::start(world, "moon", folder, Charon::default(), &mirrored(&theirs))?;
    Ok((moon, sun))
}

/// The same connection seen from the other side.
fn mirrored(conf: &str) -> String {
    let mut mirrored = conf.to_owned();
    for (one, other) in [("local_addrs", "remote_addrs"), ("local {", "remote {"), ("local_ts", "remote_ts")] {
        mirrored = mirrored.replace(one, "\0").replace(other, one).replace('\0', other);
    }
    mirrored
}

fn wireguard(world: &World, folder: &Path) -> Result<(Daemon, Daemon)> {
    let key = |_| -> Result<(String, String)> {
        let private = shell("wg genkey")?;
        let public = shell(&format!("echo {} | wg pubkey", private.trim()))?;
        Ok((private.trim().to_owned(), public.trim().to_owned()))
    };
    let keys = [key(0)?, key(1)?];
    let sites = [Site::MOON, Site::SUN];
    let mut daemons = Vec::new();
    for (index, (here, there)) in sites.iter().zip(sites.iter().rev()).enumerate() {
        let [(private, _), (_, public)] =
            [keys.get(index), keys.get(1 - index)].map(|pair| pair.cloned().unwrap_or_default());
        let mut command = world.command(here.gateway, "unshare")?;
        command.args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs /run && exec wireguard-go -f wg0"]);
        let daemon = Daemon::start(command, folder.join(here.gateway))?;
        let conf = folder.join(format!("{}.conf", here.gateway));
        fs::write(
            &conf,
            format!(
                "[Interface]\nPrivateKey = {private}\nListenPort = 51820\n[Peer]\nPublicKey = {public}\nAllowedIPs = {}\nEndpoint = {}:51820\n",
                there.net4, there.outer4
            ),
        )?;
        let enter = format!("nsenter -t {} -m -n", daemon.id());
        wait_until(Duration::from_secs(10), "wireguard-go", || {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("{enter} wg setconf wg0 {}", conf.display())]);
            Ok(finish(command)?.status.success())
        })?;
        shell(&format!("{enter} ip link set wg0 mtu 1420 up && {enter} ip route add {} dev wg0", there.net4))?;
        daemons.push(daemon);
    }
    let sun = daemons.pop().context("two daemons")?;
    Ok((daemons.pop().context("two daemons")?, sun))
}

fn shell(line: &str) -> Result<String> {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    let output = finish(command)?;
    ensure!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// One TCP stream from host to host for [`SPAN`].
fn sample(world: &World, daemons: &[u32]) -> Result<Sample> {
    let address: SocketAddr = format!("{}:5001", Site::SUN.host4).parse()?;
    let listener = world.namespace("bob")?.run(move || TcpListener::bind(address))??;
    let receiver = world.namespace("bob")?.start(move || -> std::io::Result<u64> {
        let (mut stream, _) = listener.accept()?;
        let (mut buffer, mut total) = (vec![0; CHUNK], 0_u64);
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(total),
                read => total += read as u64,
            }
        }
    })?;
    let before = cpu_seconds(daemons)?;
    let elapsed = world.namespace("alice")?.run(move || -> std::io::Result<Duration> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        let (buffer, begin) = (vec![0x5a; CHUNK], Instant::now());
        while begin.elapsed() < SPAN {
            stream.write_all(&buffer)?;
        }
        Ok(begin.elapsed())
    })??;
    let total = receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))???;
    let cpu = cpu_seconds(daemons)? - before;
    #[expect(clippy::cast_precision_loss, reason = "octets of some seconds are far below 2^52")]
    let gigabytes = total as f64 / 1e9;
    Ok(Sample { gigabits: gigabytes * 8.0 / elapsed.as_secs_f64(), cpu: cpu / gigabytes / 2.0 })
}

/// User and system time of processes so far (proc(5): fields 14 and 15 of `stat`, in ticks of 10 ms).
fn cpu_seconds(ids: &[u32]) -> Result<f64> {
    let mut ticks = 0.0;
    for id in ids {
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        let fields = stat.rsplit(')').next().context("the fields after the name")?.split_whitespace();
        ticks += fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>();
    }
    Ok(ticks / 100.0)
}

fn median(values: Option<&Vec<f64>>) -> f64 {
    let mut sorted = values.cloned().unwrap_or_default();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

const SETUPS: [Setup; 4] = [Setup::OursUdp, Setup::OursNative, Setup::StrongSwan, Setup::WireguardGo];

/// Interleaved rounds; the median is printed.
const ROUNDS: usize = 3;

/// Length of one transfer.
const SPAN: Duration = Duration::from_secs(4);

/// Octets written at once.
const CHUNK: usize = 256 * 1024;
