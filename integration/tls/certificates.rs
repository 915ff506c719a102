//! Authorities and what they sign, as PEM files.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

use crate::harness::Fallible;

pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Pair {
    pub cert: String,
    pub key: String,
}

/// Where a pair lies.
pub struct PairFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

fn params(names: &[&str], common_name: &str) -> Fallible<CertificateParams> {
    let mut params = CertificateParams::new(names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}

impl Authority {
    pub fn new(common_name: &str) -> Fallible<Authority> {
        let mut params = params(&[], common_name)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Authority { pem, issuer: Issuer::new(params, key) })
    }

    /// For these names, addresses among them.
    pub fn sign(&self, names: &[&str], common_name: &str) -> Fallible<Pair> {
        self.finish(params(names, common_name)?)
    }

    pub fn sign_expired(&self, names: &[&str], common_name: &str) -> Fallible<Pair> {
        let mut params = params(names, common_name)?;
        params.not_after = date_time_ymd(2020, 1, 1);
        self.finish(params)
    }

    fn finish(&self, params: CertificateParams) -> Fallible<Pair> {
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Pair { cert, key: key.serialize_pem() })
    }

    pub fn write(&self, directory: &Path, name: &str) -> Fallible<PathBuf> {
        let path = directory.join(name);
        std::fs::write(&path, &self.pem)?;
        Ok(path)
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }
}

impl Pair {
    /// `NAME.crt` and `NAME.key`, the key for its owner alone, without which libpq refuses it.
    pub fn write(&self, directory: &Path, name: &str) -> Fallible<PairFiles> {
        use std::os::unix::fs::PermissionsExt;
        let [cert, key] = ["crt", "key"].map(|it| directory.join(format!("{name}.{it}")));
        std::fs::write(&cert, &self.cert)?;
        std::fs::write(&key, &self.key)?;
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))?;
        Ok(PairFiles { cert, key })
    }
}
