//! Two engines with instant dataplanes, and the clocks that run while they work.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use espdp_api::{Command as DataplaneCommand, Done, EspSpi, IkePath, Outcome, SaStatistics};
use ike_proto::io::{
    Answer, Ask, CertificateData, Command, Notice, Output, SignRequest, Signed, Target, Ticket, TimerKind, Verified,
    VerifyRequest,
};
use ike_proto::wire::{ExchangeType, MessageKind, peek_header};
use ike_proto::{Engine, SecureRandom, Settings};
use pki::key::PrivateKey;
use pki::signature::{RsaPadding, SignatureScheme};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use stats_alloc::Stats;

use crate::ALLOCATOR;
use crate::report::micros;
use crate::suites::{Fleet, Suite, name};

/// Which end of the handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
        }
    }

    /// What this end does in a handshake.
    pub(crate) fn phases(self) -> &'static [Phase] {
        match self {
            Self::Initiator => {
                &[Phase::Begin, Phase::InitResponse, Phase::Other, Phase::Sign, Phase::AuthResponse, Phase::Verify]
            }
            Self::Responder => &[Phase::InitRequest, Phase::Other, Phase::AuthRequest, Phase::Verify, Phase::Sign],
        }
    }
}

/// What an engine was given last: what follows from it counts as a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Begin,
    InitRequest,
    InitResponse,
    AuthRequest,
    AuthResponse,
    Sign,
    Verify,
    Other,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::InitRequest => "IKE_SA_INIT request",
            Self::InitResponse => "IKE_SA_INIT response",
            Self::AuthRequest => "IKE_AUTH request",
            Self::AuthResponse => "IKE_AUTH response",
            Self::Sign => "sign",
            Self::Verify => "verify",
            Self::Other => "other",
        }
    }

    fn of(message: &[u8]) -> Self {
        let header = peek_header(message).unwrap();
        match (header.exchange, header.kind) {
            (ExchangeType::IkeSaInit, MessageKind::Request) => Self::InitRequest,
            (ExchangeType::IkeSaInit, MessageKind::Response) => Self::InitResponse,
            (ExchangeType::IkeAuth, MessageKind::Request) => Self::AuthRequest,
            (ExchangeType::IkeAuth, MessageKind::Response) => Self::AuthResponse,
            _ => Self::Other,
        }
    }
}

/// A number that no other ticket has.
pub(crate) fn ticket() -> Ticket {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Ticket(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Microseconds that something takes.
pub(crate) fn time<T>(work: impl FnOnce() -> T) -> f64 {
    let before = clock();
    black_box(work());
    micros(clock() - before)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn clock() -> Instant {
    Instant::now()
}

/// Both ends and what is between them.
pub(crate) struct Network {
    now: Instant,
    initiator: Gateway,
    responder: Gateway,
    wire: VecDeque<(Role, IkePath, Vec<u8>)>,
}

impl Network {
    /// Two engines with `connections` connections that can be set up.
    pub(crate) fn new(suite: &Suite, fleet: Fleet, connections: u32) -> Self {
        let mut network = Self {
            now: clock(),
            initiator: Gateway::new(1, suite),
            responder: Gateway::new(2, suite),
            wire: VecDeque::new(),
        };
        for (role, command) in fleet.configuration(suite, connections) {
            network.command(role, command);
            network.run();
        }
        network
    }

    fn gateway(&mut self, role: Role) -> &mut Gateway {
        match role {
            Role::Initiator => &mut self.initiator,
            Role::Responder => &mut self.responder,
        }
    }

    pub(crate) fn engine(&self, role: Role) -> &Engine {
        match role {
            Role::Initiator => &self.initiator.engine,
            Role::Responder => &self.responder.engine,
        }
    }

    /// What both engines hold: the responder's, the initiator's.
    pub(crate) fn octets(&self) -> [i64; 2] {
        [self.responder.octets, self.initiator.octets]
    }

    pub(crate) fn command(&mut self, role: Role, command: Command) {
        let now = self.now;
        self.gateway(role).input(Phase::Begin, |engine| engine.handle_command(now, command));
    }

    /// Sets one connection up and says what took how long. The next one comes a little later.
    pub(crate) fn handshake(&mut self, number: u32) -> Vec<(Role, Phase, Duration)> {
        let connection = Some(name(number));
        self.measured(|network| {
            network.command(Role::Initiator, Command::Initiate { ticket: ticket(), connection, child: None });
        })
    }

    pub(crate) fn terminate(&mut self, target: Target) -> Vec<(Role, Phase, Duration)> {
        self.measured(|network| network.command(Role::Initiator, Command::Terminate { ticket: ticket(), target }))
    }

    /// Lets time pass until a timer of this kind of the initiator is due.
    pub(crate) fn next_timer(&mut self, wanted: TimerKind) -> Vec<(Role, Phase, Duration)> {
        for _ in 0..MOST_TIMERS {
            let timers = [Role::Initiator, Role::Responder].map(|role| (self.engine(role).poll_timeout(), role));
            let (due, role) =
                timers.into_iter().filter_map(|(due, role)| Some((due?, role))).min_by_key(|(due, _)| due.0).unwrap();
            let spent = self.measured(|network| {
                network.now = network.now.max(due.0);
                let now = network.now;
                network.gateway(role).input(Phase::Other, |engine| engine.handle_timeout(now));
            });
            if due.1 == wanted && role == Role::Initiator {
                return spent;
            }
        }
        panic!("{wanted:?} is never due");
    }

    /// Begins something, lets it come to its end, and says what took how long.
    fn measured(&mut self, begin: impl FnOnce(&mut Self)) -> Vec<(Role, Phase, Duration)> {
        drop((self.initiator.take_spent(), self.responder.take_spent()));
        begin(self);
        self.run();
        self.now += Duration::from_micros(100);
        let spent = |role: Role, gateway: &mut Gateway| {
            gateway.take_spent().into_iter().map(move |(phase, time)| (role, phase, time)).collect::<Vec<_>>()
        };
        let mut all = spent(Role::Initiator, &mut self.initiator);
        all.extend(spent(Role::Responder, &mut self.responder));
        all
    }

    /// Carries everything out until nothing happens any more.
    pub(crate) fn run(&mut self) {
        loop {
            for role in [Role::Initiator, Role::Responder] {
                let now = self.now;
                let sent = self.gateway(role).outputs(now);
                self.wire.extend(sent.into_iter().map(|(path, message)| (role, path, message)));
            }
            let Some((from, path, message)) = self.wire.pop_front() else {
                return;
            };
            let to = if from == Role::Initiator { Role::Responder } else { Role::Initiator };
            let (now, path) = (self.now, IkePath { local: path.remote, remote: path.local });
            self.gateway(to).input(Phase::of(&message), |engine| engine.handle_datagram(now, path, &message));
            // It was allocated by the sender.
            self.gateway(from).account(|| drop(message));
        }
    }
}

/// With ten thousand SAs a kind of timer comes round within fewer.
const MOST_TIMERS: u32 = 1_000_000;

/// An engine, its dataplane, and what it costs.
struct Gateway {
    engine: Engine,
    key: Option<PrivateKey>,
    random: ChaCha20Rng,
    next_spi: u32,
    phase: Phase,
    spent: Vec<(Phase, Duration)>,
    octets: i64,
}

impl Gateway {
    fn new(seed: u64, suite: &Suite) -> Self {
        let random =
            Box::new(Seeded { public: ChaCha20Rng::seed_from_u64(seed), secret: ChaCha20Rng::seed_from_u64(!seed) });
        let engine = Engine::new(Settings::default(), random);
        let mut random = ChaCha20Rng::seed_from_u64(KEY);
        let key = suite.key.map(|key_type| PrivateKey::generate(key_type, &mut random).unwrap());
        Self { engine, key, random, next_spi: 0x1000_0000, phase: Phase::Other, spent: Vec::new(), octets: 0 }
    }

    fn take_spent(&mut self) -> Vec<(Phase, Duration)> {
        std::mem::take(&mut self.spent)
    }

    /// Gives the engine something that begins a phase.
    fn input(&mut self, phase: Phase, work: impl FnOnce(&mut Engine)) {
        self.phase = phase;
        self.timed(work);
    }

    fn timed<T>(&mut self, work: impl FnOnce(&mut Engine) -> T) -> T {
        // Not while the clock runs.
        self.spent.reserve(1);
        let allocated = in_use();
        let before = clock();
        let result = work(&mut self.engine);
        let time = clock() - before;
        self.octets += in_use() - allocated;
        self.spent.push((self.phase, time));
        result
    }

    /// Does something with memory of the engine.
    fn account<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let allocated = in_use();
        let result = work();
        self.octets += in_use() - allocated;
        result
    }

    /// Carries out all outputs, and gives back what is to be sent.
    fn outputs(&mut self, now: Instant) -> Vec<(IkePath, Vec<u8>)> {
        let mut sent = Vec::new();
        while let Some(output) = self.timed(Engine::poll_output) {
            match output {
                Output::Transmit { path, message } => sent.push((path, message)),
                Output::Ask(id, Ask::Dataplane(command)) => {
                    self.next_spi += 1;
                    let next_spi = self.next_spi;
                    let outcome = self.account(|| carry_out(next_spi, command));
                    self.timed(|engine| engine.handle_answer(now, id, Answer::Dataplane(outcome)));
                }
                Output::Notice(notice) => {
                    if let Notice::Failure(failure) = &notice {
                        panic!("a handshake failed: {failure:?}");
                    }
                    self.account(|| drop(notice));
                }
                Output::Ask(id, Ask::Sign(request)) => {
                    let signed = self.shell(Phase::Sign, |gateway| gateway.sign(&request));
                    self.timed(|engine| engine.handle_answer(now, id, Answer::Signed(Ok(signed))));
                }
                Output::Ask(id, Ask::Verify(request)) => {
                    let verified = self.shell(Phase::Verify, |gateway| gateway.verify(&request));
                    self.timed(|engine| engine.handle_answer(now, id, Answer::Verified(Ok(verified))));
                }
                other @ (Output::Keepalive(_) | Output::Ask(..)) => panic!("nobody expects {other:?}"),
            }
        }
        sent
    }
}

impl Gateway {
    /// Does what the shell does with keys.
    fn shell<T>(&mut self, phase: Phase, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = clock();
        let result = work(self);
        self.spent.push((phase, clock() - before));
        result
    }

    /// A signature as RFC 7427 §3 has it, with the raw public key.
    fn sign(&mut self, request: &SignRequest) -> Signed {
        let key = self.key.as_ref().unwrap();
        let scheme = SignatureScheme::natural(key.key_type(), RsaPadding::Pkcs1);
        let algorithm = scheme.algorithm_identifier();
        let signature = key.sign(scheme, &request.octets, &mut self.random).unwrap();
        let data = [&[u8::try_from(algorithm.len()).unwrap()], &algorithm[..], &signature].concat();
        let certificates = vec![CertificateData { encoding: RAW_KEY, data: key.public_key().spki_der().to_vec() }];
        Signed { method: DIGITAL_SIGNATURE, data, certificates }
    }

    /// Checks such a signature. Both ends have the same key; a certificate would take one verification more for each CA.
    fn verify(&self, request: &VerifyRequest) -> Verified {
        let key = self.key.as_ref().unwrap();
        let scheme = SignatureScheme::natural(key.key_type(), RsaPadding::Pkcs1);
        let signature = &request.data[1 + usize::from(request.data[0])..];
        key.public_key().verify(scheme, &request.octets, signature).unwrap();
        Verified { evidence: "the key".to_owned() }
    }
}

/// The seed of the key that both ends have.
const KEY: u64 = 3;

/// RFC 7427 §3.
const DIGITAL_SIGNATURE: u8 = 14;

/// RFC 7670 §3.
const RAW_KEY: u8 = 15;

/// A dataplane that always succeeds.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else it is asked to do, it has done")]
fn carry_out(next_spi: u32, command: DataplaneCommand) -> Outcome {
    match command {
        DataplaneCommand::ReserveSpi(_) => Ok(Done::Spi(EspSpi::try_from(next_spi).unwrap())),
        DataplaneCommand::RemoveSa { direction, spi, .. } => Ok(Done::Removed(Box::new(SaStatistics {
            spi,
            direction,
            bytes: 0,
            packets: 0,
            idle_seconds: None,
            sequence: 0,
            drops: Vec::new(),
        }))),
        _ => Ok(Done::Ok),
    }
}

/// Octets that are allocated now.
fn in_use() -> i64 {
    let Stats { bytes_allocated, bytes_deallocated, .. } = ALLOCATOR.stats();
    i64::try_from(bytes_allocated).unwrap() - i64::try_from(bytes_deallocated).unwrap()
}

/// The same numbers in every run.
struct Seeded {
    public: ChaCha20Rng,
    secret: ChaCha20Rng,
}

impl SecureRandom for Seeded {
    fn fill_public(&mut self, buffer: &mut [u8]) {
        self.public.fill_bytes(buffer);
    }

    fn fill_secret(&mut self, buffer: &mut [u8]) {
        self.secret.fill_bytes(buffer);
    }
}
