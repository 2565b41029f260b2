//! Against strongSwan's tool of the same name.

use std::path::Path;

use super::{KINDS, Said, Workshop, is_there};

const THEIRS: &str = "/usr/bin/pki";

fn strongswan() -> bool {
    is_there(THEIRS, "Debian: strongswan-pki")
}

impl Workshop {
    fn theirs(&self, line: &str) -> Said {
        self.run(Path::new(THEIRS), line)
    }

    fn theirs_makes(&self, file: &str, line: &str) {
        let said = self.theirs(line);
        assert_eq!(said.status, Some(0), "strongSwan's pki {line}: {}", said.errors);
        self.write(file, said.output);
    }
}

/// The same command lines for both tools: each accepts what the other made, and what both made together.
#[test]
fn both_tools_accept_each_others_certificates() {
    if !strongswan() {
        return;
    }
    for (generate, sign) in KINDS {
        let shop = Workshop::new();
        let make = |by_us: bool, file: &str, line: &str| {
            if by_us { shop.make(file, line) } else { shop.theirs_makes(file, line) }
        };
        for (ca_by_us, end_by_us) in [(true, false), (false, true), (true, true)] {
            make(ca_by_us, "ca.key", &format!("--gen {generate} --outform der"));
            make(end_by_us, "moon.key", &format!("--gen {generate} --outform pem"));
            make(
                ca_by_us,
                "ca.der",
                &format!(
                    "--self --in ca.key --dn 'C=CH, O=Both, CN=ca' --ca --pathlen 1 --lifetime 10 --outform der {sign}"
                ),
            );
            make(
                end_by_us,
                "moon.csr",
                &format!(
                    "--req --in moon.key --dn 'C=CH, O=Both, CN=moon' --san moon.example.org --outform pem {sign}"
                ),
            );
            make(
                ca_by_us,
                "moon.der",
                &format!(
                    "--issue --in moon.csr --type pkcs10 --cacert ca.der --cakey ca.key --flag serverAuth --flag clientAuth \
                     --crl http://ca/x.crl --ocsp http://ocsp/ --lifetime 9 --outform der {sign}"
                ),
            );
            make(
                end_by_us,
                "ca.crl",
                &format!(
                    "--signcrl --cacert ca.der --cakey ca.key --reason superseded --serial 01ab --outform der {sign}"
                ),
            );
            let verify = "--verify --in moon.der --cacert ca.der --crl ca.crl";
            for said in [shop.pki(verify), shop.theirs(verify)] {
                assert_eq!(
                    said.status,
                    Some(0),
                    "{generate} {sign} {ca_by_us} {end_by_us}: {}{}",
                    said.text(),
                    said.errors
                );
                assert!(said.text().contains("certificate trusted, lifetimes valid"), "{}", said.text());
            }
            shop.make(
                "revoked.crl",
                "--signcrl --cacert ca.der --cakey ca.key --lastcrl ca.crl --cert moon.der --outform der",
            );
            let verify = "--verify --in moon.der --cacert ca.der --crl revoked.crl";
            assert_eq!(shop.pki(verify).status, Some(3));
            assert_ne!(shop.theirs(verify).status, Some(0), "{generate} {sign}");
        }
    }
}

#[test]
fn both_tools_print_the_same_identifiers() {
    if !strongswan() {
        return;
    }
    let shop = Workshop::new();
    for (generate, _) in KINDS {
        shop.theirs_makes("key.pem", &format!("--gen {generate} --outform pem"));
        shop.theirs_makes("cert.der", "--self --in key.pem --dn 'C=CH, O=Both, CN=moon' --ca");
        for line in [
            "--keyid --in key.pem --id spk --format hex",
            "--keyid --in key.pem --id spki --format hex",
            "--keyid --in key.pem --id spki --format base64",
            "--keyid --in cert.der --type x509 --id spk --format hex",
            "--dn --in cert.der --format config",
            "--dn --in cert.der --format hex",
            "--pub --in key.pem --outform pem",
            "--pub --in cert.der --type x509",
        ] {
            let (ours, theirs) = (shop.pki(line), shop.theirs(line));
            assert_eq!(ours.status, Some(0), "{line}: {}", ours.errors);
            let trimmed = |said: &Said| said.text().trim_end().to_owned();
            assert_eq!(trimmed(&ours), trimmed(&theirs), "{generate}: {line}");
        }
    }
}

/// What strongSwan prints of our certificate is what we were told to put into it. It does not print user notices, and
/// reads the numbers of policyConstraints with explicit tags, where RFC 5280 appendix A.2 has implicit ones.
#[test]
fn strongswan_reads_all_that_we_write() {
    if !strongswan() {
        return;
    }
    let shop = Workshop::new();
    shop.make("ca.key", "gen --type ed25519 --outform der");
    shop.make("ca.der", "self --in ca.key --dn 'C=CH, CN=ca' --ca --outform der");
    shop.make(
        "moon.der",
        "issue --in ca.key --type priv --cacert ca.der --cakey ca.key --dn 'C=CH, CN=moon' --san moon.example.org --san 192.0.2.1 \
         --san moon@example.org --serial 01ab --ca --pathlen 3 --flag serverAuth --flag clientAuth --flag ikeIntermediate \
         --nc-permitted dns:example.org --nc-excluded 'C=CH, O=Evil' --cert-policy 1.2.3.4 --cps-uri http://cps/ \
         --cert-policy 1.2.3.5 --user-notice hello --policy-mapping 1.2.3.4:1.2.3.5 --policy-explicit 1 --policy-inhibit 2 --policy-any 3 \
         --crl http://ca/x.crl --crlissuer 'C=CH, CN=crl' --ocsp http://ocsp/ --outform der",
    );
    let text = shop.theirs("--print --in moon.der").text();
    for expected in [
        "\"C=CH, CN=moon\"",
        "moon.example.org, 192.0.2.1, moon@example.org",
        "01:ab",
        "serverAuth clientAuth ikeIntermediate",
        "http://ocsp/",
        "http://ca/x.crl",
        "CRL issuer: C=CH, CN=crl",
        "pathlen:   3",
        "example.org",
        "C=CH, O=Evil",
        "1.2.3.4",
        "CPS: http://cps/",
        "1.2.3.5",
        "1.2.3.4 => 1.2.3.5",
        "inhibitAnyPolicy: 3",
    ] {
        assert!(text.contains(expected), "`{expected}` is not in:\n{text}");
    }
}

/// Keys and containers of strongSwan's defaults: PKCS#1 and SEC1.
#[test]
fn strongswan_reads_our_keys() {
    if !strongswan() {
        return;
    }
    let shop = Workshop::new();
    for (generate, _) in KINDS {
        for form in ["--outform pem", "--outform der", "--outform pem --traditional", "--outform der --traditional"] {
            shop.make("key", &format!("gen {generate} {form}"));
            let line = "--keyid --in key --id spk --format hex";
            let (ours, theirs) = (shop.pki(line), shop.theirs(line));
            assert_eq!(theirs.status, Some(0), "{generate} {form}: {}", theirs.errors);
            assert_eq!(ours.text().trim(), theirs.text().trim());
        }
    }
}
