//! How far a server's certificate is checked, in libpq's levels.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::certificate;
use crate::config::Authorities;

#[derive(Clone, Debug)]
pub enum Level {
    /// Anybody: TLS keeps out who only listens.
    Anyone,
    /// A server of this authority, whatever its name.
    Authority(Arc<Authorities>),
    /// The server that the configuration names.
    Name(Arc<Authorities>),
}

#[derive(Debug)]
pub struct Verifier {
    level: Level,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub fn new(level: Level) -> Verifier {
        Verifier { level, algorithms: ring::default_provider().signature_verification_algorithms }
    }

    fn verify_authority(
        &self,
        authorities: &Authorities,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if authorities.contains(certificate) {
            // One that vouches for itself, the usual end of a first look into PostgreSQL's manual.
            return match certificate::is_valid_at(certificate, now) {
                true => Ok(()),
                false => Err(CertificateError::Expired.into()),
            };
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        let roots = authorities.roots();
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, algorithms)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (authorities, is_name_checked) = match &self.level {
            Level::Anyone => return Ok(ServerCertVerified::assertion()),
            Level::Authority(it) => (it, false),
            Level::Name(it) => (it, true),
        };
        self.verify_authority(authorities, end_entity, intermediates, now)?;
        if is_name_checked {
            let parsed = ParsedCertificate::try_from(end_entity);
            let named = parsed.and_then(|it| verify_server_name(&it, server_name));
            if named.is_err() && !certificate::common_name_matches(end_entity, &server_name.to_str()) {
                return named.map(|()| ServerCertVerified::assertion());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // By the key alone: where nothing else is checked, the form of the certificate does not matter.
        let key = certificate::public_key(certificate).ok_or(CertificateError::BadEncoding)?;
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));

    struct Authority {
        der: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    }

    fn authority() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Authority { der, issuer: Issuer::new(params, key) }
    }

    fn server_of(
        authority: &Authority,
        names: &[&str],
        common_name: &str,
        is_old: bool,
    ) -> CertificateDer<'static> {
        let mut params =
            CertificateParams::new(names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        if is_old {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        params.signed_by(&KeyPair::generate().unwrap(), &authority.issuer).unwrap().der().clone()
    }

    fn trusting(it: &CertificateDer<'static>) -> Arc<Authorities> {
        Arc::new(Authorities::new(vec![it.clone()]).unwrap())
    }

    fn check(level: &Level, certificate: &CertificateDer<'_>, host: &str) -> Result<(), Error> {
        let name = ServerName::try_from(host.to_owned()).unwrap();
        Verifier::new(level.clone()).verify_server_cert(certificate, &[], &name, &[], NOW).map(drop)
    }

    #[test]
    fn each_level_checks_what_it_says() {
        let (ours, other) = (authority(), authority());
        let (any, by_ca) = (Level::Anyone, Level::Authority(trusting(&ours.der)));
        let by_name = Level::Name(trusting(&ours.der));
        let good = server_of(&ours, &["db.example.com", "127.0.0.1"], "x", false);
        for level in [&any, &by_ca, &by_name] {
            assert_eq!(check(level, &good, "db.example.com"), Ok(()));
            assert_eq!(check(level, &good, "127.0.0.1"), Ok(()));
        }
        let named_by_cn = server_of(&ours, &[], "db.example.com", false);
        assert_eq!(check(&by_name, &named_by_cn, "db.example.com"), Ok(()));
        let renamed = |host| (check(&by_ca, &good, host).is_ok(), check(&by_name, &good, host).is_ok());
        assert_eq!((renamed("other.example.com"), renamed("127.0.0.2")), ((true, false), (true, false)));
        let old = server_of(&ours, &["db.example.com"], "x", true);
        let foreign = server_of(&other, &["db.example.com"], "x", false);
        for bad in [&old, &foreign] {
            assert_eq!(check(&any, bad, "db.example.com"), Ok(()));
            assert!(check(&by_ca, bad, "db.example.com").is_err());
            assert!(check(&by_name, bad, "db.example.com").is_err());
        }
    }

    #[test]
    fn a_certificate_that_is_its_own_authority_is_good_until_it_ends() {
        let own = authority();
        let by_ca = Level::Authority(trusting(&own.der));
        assert_eq!(check(&by_ca, &own.der, "db"), Ok(()));
        let mut params = CertificateParams::new(vec!["db".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let old = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
        let error = check(&Level::Authority(trusting(&old)), &old, "db");
        assert_eq!(error, Err(CertificateError::Expired.into()));
    }
}
