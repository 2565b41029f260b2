//! Made-up reports and notices for tests.

use std::time::{Duration, Instant};

use espdp_api::{
    Command, Encapsulation, EspAlgorithms, EspCipher, EspIntegrity, EspSpi, FromDataplane, IkePath, Mode, OuterPath,
    PolicyId, RequestId, ToDataplane, TrafficSelector,
};
use ike_proto::io::{
    ChildSaId, ChildSaReport, ChildState, Failure, FailureCode, IkeSaId, IkeSaReport, IkeSpi, IkeState, MessageTrace,
    Notice, RemarkLevel,
};
use ike_proto::proposal::{AdditionalGroups, IkeCipher, IkeSuite, KeyExchangeGroup, Prf};
use ike_proto::{Engine, Settings};

use super::random::OsRandom;
use super::shell::{Inputs, Port, Shell};

/// An established SA `net` with one child `net`.
pub(crate) fn ike_sa() -> IkeSaReport {
    let now = Instant::now();
    IkeSaReport {
        id: IkeSaId(1),
        connection: "net".into(),
        state: IkeState::Established,
        path: path(4500),
        local_id: Some("moon.strongswan.org".into()),
        remote_id: Some("sun.strongswan.org".into()),
        initiator: true,
        initiator_spi: IkeSpi([0x01, 0x58, 0xb8, 0xfb, 0x90, 0xb7, 0x62, 0x3d]),
        responder_spi: IkeSpi([0x13, 0x51, 0x46, 0x10, 0xce, 0xa1, 0x61, 0x60]),
        proposal: Some(IkeSuite {
            cipher: IkeCipher::AesGcm16 { key_bits: 256 },
            integrity: None,
            prf: Prf::HmacSha2_384,
            group: KeyExchangeGroup::Ecp256,
            additional: AdditionalGroups::default(),
        }),
        nonce_i: vec![1; 2],
        nonce_r: vec![2; 2],
        nat_local: false,
        nat_remote: true,
        nat_fake: false,
        local_virtual: Vec::new(),
        remote_virtual: Vec::new(),
        name_servers: Vec::new(),
        domains: Vec::new(),
        established: Some(now),
        rekey_at: Some(now + Duration::from_secs(14098)),
        reauth_at: None,
        expires_at: None,
        tasks: Vec::new(),
        children: vec![child_sa(now)],
    }
}

fn child_sa(now: Instant) -> ChildSaReport {
    let network = |start: &str, end: &str| {
        let range = espdp_api::AddressRange::new(start.parse().unwrap(), end.parse().unwrap()).unwrap();
        vec![TrafficSelector::any_protocol(range)]
    };
    ChildSaReport {
        id: ChildSaId(1),
        name: "net".into(),
        policy: PolicyId(1),
        state: ChildState::Installed,
        mode: Mode::Tunnel,
        spi_in: EspSpi::try_from(0xbc72_1029).unwrap(),
        spi_out: Some(EspSpi::try_from(0x61d7_5315).unwrap()),
        protocol: espdp_api::IpsecProtocol::Esp,
        algorithms: EspAlgorithms {
            cipher: EspCipher::AesGcm16 { key_bits: 256 },
            integrity: EspIntegrity::None,
            extended_sequence_numbers: true,
        },
        pfs_group: None,
        additional: AdditionalGroups::default(),
        path: OuterPath {
            local: path(4500).local.ip(),
            remote: path(4500).remote.ip(),
            encapsulation: Encapsulation::Udp { local_port: 4500, remote_port: 4500 },
        },
        local: network("10.1.0.0", "10.1.0.255"),
        remote: network("10.2.0.0", "10.2.0.255"),
        installed: now,
        rekey_at: Some(now + Duration::from_secs(3239)),
        expires_at: Some(now + Duration::from_secs(3960)),
    }
}

/// A message that went between the two gateways.
pub(crate) fn message(connection: Option<&str>, sent: bool, summary: &str) -> MessageTrace {
    MessageTrace {
        connection: connection.map(str::to_owned),
        ike_sa: None,
        path: path(500),
        sent,
        summary: summary.to_owned(),
        details: Vec::new(),
        octets: 264,
    }
}

/// A remark.
pub(crate) fn remark(connection: Option<&str>, text: &str) -> Notice {
    Notice::Remark { connection: connection.map(str::to_owned), level: RemarkLevel::Info, text: text.to_owned() }
}

/// No proposal in common.
pub(crate) fn failure(connection: Option<&str>, child: Option<&str>) -> Failure {
    Failure {
        code: FailureCode::IkeNoProposal,
        ike_sa: None,
        connection: connection.map(str::to_owned),
        child: child.map(str::to_owned),
        peer: Some(path(500).remote),
        what: "no IKE proposal in common".into(),
        ours: vec!["aes256gcm16-prfsha256-ecp256".into()],
        theirs: vec!["aes256gcm16-prfsha256-modp2048".into()],
        hint: Some("set ike = \"aes256gcm16-prfsha256-modp2048\"".into()),
        cure: None,
    }
}

fn path(port: u16) -> IkePath {
    IkePath { local: ([192, 168, 0, 1], port).into(), remote: ([192, 168, 0, 2], port).into() }
}

/// The dataplane's side of a shell, in the hands of a test.
pub(crate) struct Wire {
    from_shell: std::sync::mpsc::Receiver<ToDataplane>,
}

struct WirePort(std::sync::mpsc::Sender<ToDataplane>);

impl Port for WirePort {
    fn send(&self, message: ToDataplane) {
        // A test that drops its wire does not want to know.
        drop(self.0.send(message));
    }
}

impl Wire {
    /// A shell that does not run, and what it says.
    pub(crate) fn shell() -> (Shell, Self) {
        let (shell, _, _, wire) = Self::connected();
        (shell, wire)
    }

    /// A shell that can run, the way to it, and what it says.
    pub(crate) fn connected() -> (Shell, Inputs, tokio::sync::mpsc::Sender<FromDataplane>, Self) {
        let (sender, from_shell) = std::sync::mpsc::channel();
        let (to_shell, from_dataplane) = tokio::sync::mpsc::channel(8);
        let engine = Engine::new(Settings::default(), Box::new(OsRandom));
        let (shell, inputs, _) = Shell::new(engine, Box::new(WirePort(sender)), from_dataplane, None);
        (shell, inputs, to_shell, Self { from_shell })
    }

    /// The requests so far.
    pub(crate) fn requests(&mut self) -> Vec<(RequestId, Command)> {
        let request = |message| match message {
            ToDataplane::Request(id, command) => Some((id, command)),
            ToDataplane::SendIke { .. } | ToDataplane::SendKeepalive { .. } => None,
        };
        self.from_shell.try_iter().filter_map(request).collect()
    }
}
