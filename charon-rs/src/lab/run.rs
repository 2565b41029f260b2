//! One run of the standard tunnel, from the first namespace to the last check.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;

use super::capture::{Capture, Captured};
use super::experiment::{Experiment, Observed};
use super::place::Place;
use super::report::{Files, GatewayReport, Report};
use super::settings::{self, Changes, Template};
use super::setup::{DaemonFiles, Setup};
use super::steps::Steps;
use super::topology::{INITIATOR, RESPONDER, Topology, WAN_INTERFACE};
use super::verdict::{Evidence, judge};

/// What a run is to do.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What to change in the configuration.
    pub(super) changes: Changes,
    /// How long the transfer takes.
    pub(super) duration: Duration,
    /// Whether everything stays as it is at the end.
    pub(super) keep: bool,
    /// Where capture, keys and logs go.
    pub(super) directory: PathBuf,
}

/// Runs the whole of it. When this is dropped in the middle, everything is ended and removed.
pub(super) async fn run(plan: &Plan, place: Place, steps: Steps) -> Result<Report> {
    let topology = Topology::two_gateways()?;
    let mut setup = Setup::build(&topology, &[INITIATOR, RESPONDER], &plan.directory, place, steps)?;
    let protected = PROTECTED.iter().map(|net| net.parse()).collect::<Result<Vec<IpNet>, _>>()?;
    let inside = setup.network.namespace(INITIATOR)?;
    let capture = Capture::start(inside, WAN_INTERFACE, &setup.files.capture, protected)?;
    setup.start(&daemons(plan, &setup.files)?, plan.keep, steps)?;
    let connection = settings::INITIATOR.connection()?.context("the initiator's configuration has a connection")?;
    let sockets = setup.sockets();
    let [initiator, responder] = sockets.as_slice() else { anyhow::bail!("{} daemons", sockets.len()) };
    let experiment = Experiment {
        network: &setup.network,
        sockets: [initiator.clone(), responder.clone()],
        connection: &connection,
        capture: &capture,
        steps,
    };
    let observed = tokio::select! {
        // A daemon that died explains whatever else went wrong.
        biased;
        why = Setup::death(&mut setup.gateways) => return Err(why.into()),
        observed = experiment.run(plan.duration) => observed?,
    };
    let Captured { tally: wire, stored } = capture.finish()?;
    let Observed { sas, interfaces, pings, transfer } = observed;
    let [initiator, responder] = &sas;
    let mut checks = judge(&Evidence { initiator, responder, pings: &pings, transfer: &transfer, wire: &wire });
    let files = Files { captured_frames: stored, ..setup.files.clone() };
    let kept = if plan.keep {
        Some(setup.keep()?)
    } else {
        checks.push(setup.end(steps));
        None
    };
    let [initiator, responder] = sas;
    let gateways = [(INITIATOR, initiator), (RESPONDER, responder)];
    Ok(Report {
        passed: checks.iter().all(|check| check.passed),
        checks,
        gateways: gateways.map(|(node, sas)| GatewayReport { node: node.to_owned(), sas }).into(),
        interfaces,
        pings,
        transfer,
        wire,
        files,
        kept,
    })
}

/// The files of both daemons; the initiator's writes its keys down.
fn daemons(plan: &Plan, files: &Files) -> Result<[DaemonFiles; 2]> {
    let of = |node: &str, template: Template, keylog| -> Result<DaemonFiles> {
        let (config, secrets) = (template.config(&plan.changes, keylog)?, template.secrets(&plan.changes)?);
        Ok(DaemonFiles { node: node.to_owned(), config, secrets })
    };
    let keylog = Some(files.wireshark.as_path());
    Ok([of(INITIATOR, settings::INITIATOR, keylog)?, of(RESPONDER, settings::RESPONDER, None)?])
}

/// The networks behind the gateways, whose addresses nobody may see between them.
const PROTECTED: [&str; 4] = ["192.168.5.0/24", "192.168.3.0/24", "fec5::/16", "fec3::/16"];
