//! What is read of a certificate itself: whom it names, and the hash that a SCRAM proof is bound to.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::asn1::{Any, ContextSpecific, ObjectIdentifier};
use x509_cert::der::{Decode, Encode, SliceReader, Tag, TagNumber, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::spki::AlgorithmIdentifierOwned;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");

/// The channel binding of a TLS connection: the hash of the server's certificate (RFC 5929, section 4,
/// `tls-server-end-point`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndPoint(Arc<[u8]>);

impl EndPoint {
    #[cfg(test)]
    pub fn of_bytes(bytes: &[u8]) -> EndPoint {
        EndPoint(bytes.into())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// `None` where the RFC defines nothing: the signature uses no hash of its own (Ed25519), or one that is
/// not known here.
pub fn end_point(certificate: &CertificateDer<'_>) -> Option<EndPoint> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let hash: Vec<u8> = match signature_hash(&parsed.signature_algorithm)? {
        Hash::Sha224 => Sha224::digest(certificate).to_vec(),
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    };
    Some(EndPoint(hash.into()))
}

/// The hash of the certificate's own signature, SHA-256 in place of MD5 and SHA-1.
fn signature_hash(algorithm: &AlgorithmIdentifierOwned) -> Option<Hash> {
    if algorithm.oid == RSA_PSS {
        return pss_hash(algorithm.parameters.as_ref()?);
    }
    match algorithm.oid.to_string().as_str() {
        // PKCS #1 with MD5, SHA-1 and SHA-256; ECDSA and DSA with the same.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" => Some(Hash::Sha256),
        "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => Some(Hash::Sha256),
        "1.2.840.10040.4.3" | "2.16.840.1.101.3.4.3.2" => Some(Hash::Sha256),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Hash::Sha384),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Hash::Sha512),
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => Some(Hash::Sha224),
        _ => None,
    }
}

/// `hashAlgorithm` of RSASSA-PSS-params, SHA-1 where it is left out (RFC 4055, section 3.1).
fn pss_hash(parameters: &Any) -> Option<Hash> {
    let mut reader = SliceReader::new(parameters.value()).ok()?;
    let hash = ContextSpecific::<AlgorithmIdentifierOwned>::decode_explicit(&mut reader, TagNumber::N0);
    let Some(hash) = hash.ok()? else { return Some(Hash::Sha256) };
    match hash.value.oid.to_string().as_str() {
        "1.2.840.113549.2.5" | "1.3.14.3.2.26" | "2.16.840.1.101.3.4.2.1" => Some(Hash::Sha256),
        "2.16.840.1.101.3.4.2.2" => Some(Hash::Sha384),
        "2.16.840.1.101.3.4.2.3" => Some(Hash::Sha512),
        "2.16.840.1.101.3.4.2.4" => Some(Hash::Sha224),
        _ => None,
    }
}

/// The first CN of the subject; `None` where there is none, or one with a zero byte, which would read as
/// another name elsewhere.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let mut attributes = parsed.tbs_certificate.subject.0.iter().flat_map(|it| it.0.iter());
    let value = &attributes.find(|it| it.oid == COMMON_NAME)?.value;
    let is_text =
        matches!(value.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::TeletexString);
    let text = std::str::from_utf8(value.value()).ok().filter(|it| is_text && !it.contains('\0'))?;
    Some(text.to_owned())
}

/// The public key as TLS 1.3 signatures are checked by it, also of certificates of version 1.
pub fn public_key(certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    Some(parsed.tbs_certificate.subject_public_key_info.to_der().ok()?.into())
}

/// Whether `now` is within the certificate's validity.
pub fn is_valid_at(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    Certificate::from_der(certificate).is_ok_and(|it| {
        let validity = it.tbs_certificate.validity;
        let seconds = |it: x509_cert::time::Time| it.to_unix_duration().as_secs();
        (seconds(validity.not_before)..=seconds(validity.not_after)).contains(&now.as_secs())
    })
}

/// Whether the CN names `host`, where no alternative name of the same kind says otherwise: such
/// certificates are still common, and libpq takes them (`pq_verify_peer_name_matches_certificate`).
pub fn common_name_matches(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let Ok(parsed) = Certificate::from_der(certificate) else { return false };
    let is_address = host.parse::<IpAddr>().is_ok();
    let alternatives = match parsed.tbs_certificate.get::<SubjectAltName>() {
        Ok(it) => it.map_or_else(Vec::new, |it| it.1.0),
        Err(_) => return false,
    };
    let same_kind = |it: &GeneralName| match it {
        GeneralName::DnsName(_) => !is_address,
        GeneralName::IpAddress(_) => is_address,
        _ => false,
    };
    let named = common_name(certificate).is_some_and(|it| name_matches(&it, host, is_address));
    named && !alternatives.iter().any(same_kind)
}

/// A leading `*.` stands for one label.
fn name_matches(pattern: &str, host: &str, is_address: bool) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(suffix) = pattern.strip_prefix("*.").filter(|_| !is_address) else { return false };
    host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(suffix))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    fn certificate(key: &KeyPair, names: &[&str], common_name: &str) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.self_signed(key).unwrap().der().clone()
    }

    fn algorithm(oid: &str) -> AlgorithmIdentifierOwned {
        AlgorithmIdentifierOwned { oid: oid.parse().unwrap(), parameters: None }
    }

    #[test]
    fn the_hash_is_that_of_the_signature_but_never_a_broken_one() {
        let check =
            |oid: &str, want: Option<Hash>| assert_eq!(signature_hash(&algorithm(oid)), want, "{oid}");
        for broken in ["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.2.840.10045.4.1"] {
            check(broken, Some(Hash::Sha256));
        }
        check("1.2.840.113549.1.1.11", Some(Hash::Sha256));
        check("1.2.840.113549.1.1.12", Some(Hash::Sha384));
        check("1.2.840.113549.1.1.13", Some(Hash::Sha512));
        check("1.2.840.10045.4.3.1", Some(Hash::Sha224));
        check("1.2.840.10045.4.3.4", Some(Hash::Sha512));
        check("1.3.101.112", None);
        check("1.2.840.113549.1.1.10", None);
    }

    #[test]
    fn pss_says_its_hash_in_its_parameters() {
        // SEQUENCE { [0] SEQUENCE { OID sha384 } }, and one with defaults alone, which are SHA-1's.
        let sha384 = [0x30, 15, 0xA0, 13, 0x30, 11, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];
        let of = |bytes: &[u8]| AlgorithmIdentifierOwned {
            oid: RSA_PSS,
            parameters: Some(Any::from_der(bytes).unwrap()),
        };
        assert_eq!(signature_hash(&of(&sha384)), Some(Hash::Sha384));
        assert_eq!(signature_hash(&of(&[0x30, 0])), Some(Hash::Sha256));
        assert_eq!(signature_hash(&of(&[0x30, 2, 0xA0, 5])), None);
    }

    #[test]
    fn an_end_point_is_the_hash_of_the_whole_certificate() {
        let p256 = certificate(&KeyPair::generate().unwrap(), &[], "a");
        assert_eq!(end_point(&p256).unwrap().bytes(), &Sha256::digest(&p256)[..]);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let p384 = certificate(&key, &[], "a");
        assert_eq!(end_point(&p384).unwrap().bytes(), &Sha384::digest(&p384)[..]);
        let ed25519 = certificate(&KeyPair::generate_for(&PKCS_ED25519).unwrap(), &[], "a");
        assert_eq!(end_point(&ed25519), None);
        assert_eq!(end_point(&CertificateDer::from_slice(b"rubbish")), None);
    }

    #[test]
    fn the_common_name_counts_where_no_alternative_of_its_kind_does() {
        let key = KeyPair::generate().unwrap();
        let check = |names: &[&str], cn: &str, host: &str, want: bool| {
            let it = certificate(&key, names, cn);
            assert_eq!(common_name(&it).as_deref(), Some(cn));
            assert_eq!(common_name_matches(&it, host), want, "{names:?} {cn} {host}");
        };
        check(&[], "db.example.com", "DB.example.com", true);
        check(&[], "*.example.com", "db.example.com", true);
        check(&[], "*.example.com", "a.db.example.com", false);
        check(&[], "*.example.com", "example.com", false);
        check(&[], "10.0.0.1", "10.0.0.1", true);
        check(&[], "*.0.0.1", "10.0.0.1", false);
        check(&["other.example.com"], "db.example.com", "db.example.com", false);
        check(&["10.0.0.1"], "db.example.com", "db.example.com", true);
    }
}
