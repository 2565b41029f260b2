//! `signcrl`: CRLs.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{ArgMatches, Args as Arguments};
use pki::certificate::{Certificate, SerialNumber};
use pki::crl::Crl;
use pki::issue::{CrlPoint, CrlTemplate, Issuer, RevokedCertificate};
use pki::path::Strength;
use pki::revocation::Reason;
use pki::time::UnixTime;

use super::files::{self, Output, Passphrase};
use super::options::{Authority, Signing, serial};
use super::{dates, now, rng};

#[derive(Arguments)]
pub(crate) struct Args {
    #[command(flatten)]
    authority: Authority,
    /// Days until the next CRL
    #[arg(long, short = 'l', value_name = "DAYS", default_value_t = 15)]
    lifetime: u32,
    /// When the CRL is made; by default now
    #[arg(long, short = 'F', value_name = "DATE", value_parser = dates::parse)]
    this_update: Option<UnixTime>,
    /// When the next CRL will be there
    #[arg(long, short = 'T', value_name = "DATE", value_parser = dates::parse)]
    next_update: Option<UnixTime>,
    /// CRL to take revoked certificates and number from
    #[arg(long, short = 'a', value_name = "FILE")]
    lastcrl: Option<PathBuf>,
    /// Complete CRL to make a delta CRL to
    #[arg(long, short = 'b', value_name = "FILE")]
    basecrl: Option<PathBuf>,
    /// Where delta CRLs will be; can be repeated
    #[arg(long, short = 'u', value_name = "URI")]
    crluri: Vec<String>,
    /// Why the next certificate is revoked: key-compromise, ca-compromise, affiliation-changed, superseded,
    /// cessation-of-operation, certificate-hold
    #[arg(long, short = 'r', value_name = "REASON")]
    reason: Vec<Reason>,
    /// When the next certificate was revoked, as Unix time or date
    #[arg(long, short = 'd', value_name = "DATE", value_parser = timestamp)]
    date: Vec<UnixTime>,
    /// Certificate to revoke; can be repeated
    #[arg(long, short = 'z', value_name = "FILE")]
    cert: Vec<PathBuf>,
    /// Serial number to revoke; can be repeated
    #[arg(long, short = 's', value_name = "HEX", value_parser = serial)]
    serial: Vec<SerialNumber>,
    #[command(flatten)]
    signing: Signing,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    passphrase: Passphrase,
}

/// What the options about revocation say, one after the other.
enum Step {
    Reason(Reason),
    Date(UnixTime),
    Revoke(SerialNumber),
}

pub(crate) fn run(args: &Args, order: &ArgMatches) -> Result<()> {
    let authority = files::certificate(&args.authority.cacert)?;
    let key = args.passphrase.private_key(&args.authority.cakey)?;
    let issuer = Issuer::of_crls(&authority, &key, args.signing.scheme(key.key_type()))?;
    let last = old_crl(args.lastcrl.as_ref(), &authority)?;
    let base = old_crl(args.basecrl.as_ref(), &authority)?;
    let this_update = args.this_update.unwrap_or_else(now);
    let mut revoked: Vec<RevokedCertificate> = last.iter().flat_map(revoked_in).collect();
    for new in newly_revoked(steps(args, order)?, this_update) {
        revoked.retain(|old| old.serial != new.serial);
        revoked.push(new);
    }
    let number = match last.iter().chain(&base).filter_map(Crl::number).max_by_key(|number| number.ordering()) {
        Some(number) => number.successor().context("the number of the CRL cannot grow any more")?,
        None => serial("1").map_err(anyhow::Error::msg)?,
    };
    let base_number = match &base {
        Some(base) => Some(base.number().cloned().context("a CRL without number cannot be the base of a delta CRL")?),
        None => None,
    };
    let crl = issuer.sign_crl(
        &CrlTemplate {
            number,
            this_update,
            next_update: args.next_update.unwrap_or_else(|| this_update.plus_days(args.lifetime)),
            revoked,
            base_number,
            freshest: args.crluri.iter().map(|uri| CrlPoint { uri: uri.clone(), issuer: None }).collect(),
        },
        &mut rng(),
    )?;
    args.output.write(crl.der(), &crl.to_pem())
}

/// A CRL of this CA; one of somebody else must not be taken over.
fn old_crl(file: Option<&PathBuf>, authority: &Certificate) -> Result<Option<Crl>> {
    let Some(file) = file else { return Ok(None) };
    let verified = files::crl(file)?.verify(authority, &Strength::weakest());
    Ok(Some(verified.with_context(|| file.display().to_string())?.crl().clone()))
}

fn revoked_in(crl: &Crl) -> Vec<RevokedCertificate> {
    crl.entries()
        .map(|(serial, entry)| RevokedCertificate { serial: serial.clone(), time: entry.time, reason: entry.reason })
        .collect()
}

/// The options in the order in which they stand on the command line.
fn steps(args: &Args, order: &ArgMatches) -> Result<Vec<Step>> {
    let positions = |id: &str| order.indices_of(id).into_iter().flatten().collect::<Vec<_>>();
    let mut steps: Vec<(usize, Step)> = Vec::new();
    steps.extend(positions("reason").into_iter().zip(args.reason.iter().map(|reason| Step::Reason(*reason))));
    steps.extend(positions("date").into_iter().zip(args.date.iter().map(|date| Step::Date(*date))));
    steps.extend(positions("serial").into_iter().zip(args.serial.iter().cloned().map(Step::Revoke)));
    for (position, file) in positions("cert").into_iter().zip(&args.cert) {
        steps.push((position, Step::Revoke(files::certificate(file)?.serial().clone())));
    }
    steps.sort_by_key(|(position, _)| *position);
    Ok(steps.into_iter().map(|(_, step)| step).collect())
}

/// A reason and a date count for the next certificate only.
fn newly_revoked(steps: Vec<Step>, now: UnixTime) -> Vec<RevokedCertificate> {
    let (mut reason, mut time) = (Reason::Unspecified, now);
    let mut revoked = Vec::new();
    for step in steps {
        match step {
            Step::Reason(given) => reason = given,
            Step::Date(given) => time = given,
            Step::Revoke(serial) => {
                revoked.push(RevokedCertificate { serial, time, reason });
                (reason, time) = (Reason::Unspecified, now);
            }
        }
    }
    revoked
}

fn timestamp(text: &str) -> Result<UnixTime, String> {
    text.parse().map(UnixTime).or_else(|_| dates::parse(text))
}
