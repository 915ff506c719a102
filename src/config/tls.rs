//! TLS towards clients (`[tls]`) and towards the servers of a database (`server_tls` ...). The files are read
//! here and held against each other, so that a config that loads can serve.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::document::Section;
use super::settings::{self, Setting};

/// A device or a log named by mistake is not read into memory.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Each asks for all that the ones before it ask for. The names are libpq's and PgBouncer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

impl TlsMode {
    const ALL: [TlsMode; 6] = [
        TlsMode::Disable,
        TlsMode::Allow,
        TlsMode::Prefer,
        TlsMode::Require,
        TlsMode::VerifyCa,
        TlsMode::VerifyFull,
    ];

    pub fn label(self) -> &'static str {
        match self {
            TlsMode::Disable => "disable",
            TlsMode::Allow => "allow",
            TlsMode::Prefer => "prefer",
            TlsMode::Require => "require",
            TlsMode::VerifyCa => "verify-ca",
            TlsMode::VerifyFull => "verify-full",
        }
    }
}

impl TlsVersion {
    pub fn label(self) -> &'static str {
        match self {
            TlsVersion::V1_2 => "1.2",
            TlsVersion::V1_3 => "1.3",
        }
    }
}

/// A certificate with its chain and its key.
#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>);

/// Who may vouch for a certificate.
pub struct Authorities {
    roots: Arc<RootCertStore>,
    certificates: Vec<CertificateDer<'static>>,
}

/// Towards clients. Unless the mode is `Disable`, there is an identity; from `VerifyCa` on there are
/// authorities too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    pub mode: TlsMode,
    pub identity: Option<Identity>,
    pub authorities: Option<Arc<Authorities>>,
    pub min_version: TlsVersion,
}

/// Towards the servers of one database. From `VerifyCa` on, and only there, there are authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    pub mode: TlsMode,
    pub authorities: Option<Arc<Authorities>>,
    /// What servers are shown that ask.
    pub identity: Option<Identity>,
    /// TLS from the first byte; only where the mode requires TLS.
    pub is_direct: bool,
}

impl Identity {
    /// The certificate first, the chain behind it.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Identity, rustls::Error> {
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider())?;
        Ok(Identity(Arc::new(key)))
    }

    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        self.0.clone()
    }

    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.0.cert.first()
    }
}

/// By the certificates: a key that fits them is the only one there is.
impl PartialEq for Identity {
    fn eq(&self, other: &Identity) -> bool {
        self.0.cert == other.0.cert
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.0.cert.len())
    }
}

impl Authorities {
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Authorities, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for it in &certificates {
            roots.add(it.clone())?;
        }
        Ok(Authorities { roots: Arc::new(roots), certificates })
    }

    pub fn roots(&self) -> Arc<RootCertStore> {
        self.roots.clone()
    }

    pub fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.iter().any(|it| it == certificate)
    }
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Authorities) -> bool {
        self.certificates == other.certificates
    }
}

impl Eq for Authorities {}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({} certificates)", self.certificates.len())
    }
}

/// `[tls]`, or no TLS where the file has no such section.
pub fn clients(top: &Section<'_>, directory: &Path) -> ClientTls {
    let section = top.section(settings::TLS_SECTION.key, "tls");
    section.check_keys(settings::TLS);
    let is_there = top.has(settings::TLS_SECTION.key);
    let fallback = if is_there { TlsMode::Prefer } else { TlsMode::Disable };
    let mode = mode(&section, &settings::TLS_MODE, fallback);
    let min_version = match section.text(&settings::TLS_MIN_VERSION) {
        None | Some(("1.2", _)) => TlsVersion::V1_2,
        Some(("1.3", _)) => TlsVersion::V1_3,
        Some((other, offset)) => {
            let message = format!("`min_version` is \"{other}\"");
            section.add(offset, message, "min_version = \"1.2\" or \"1.3\"");
            TlsVersion::V1_2
        }
    };
    let (identity, authorities) = match mode {
        TlsMode::Disable => (None, None),
        _ => {
            let files = Files { section: &section, directory };
            let identity = files.identity(&settings::TLS_CERT, &settings::TLS_KEY);
            if !section.has(settings::TLS_CERT.key) && !section.has(settings::TLS_KEY.key) {
                let message = "[tls] has nothing to show to clients";
                section.add(
                    section.offset,
                    message,
                    "cert = \"FILE\" and key = \"FILE\", or mode = \"disable\"",
                );
            }
            (identity, files.authorities(&settings::TLS_CA, mode))
        }
    };
    ClientTls { mode, identity, authorities, min_version }
}

/// The settings of a database.
pub fn servers(section: &Section<'_>, directory: &Path) -> ServerTls {
    let mode = mode(section, &settings::SERVER_TLS, TlsMode::Prefer);
    let is_direct = match section.text(&settings::SERVER_TLS_NEGOTIATION) {
        None | Some(("postgres", _)) => false,
        Some(("direct", offset)) => {
            if mode < TlsMode::Require {
                // Servers without TLS, or before PostgreSQL 17, would be taken for broken.
                let message = "`server_tls_negotiation` is \"direct\", which leaves no way to go without TLS";
                section.add(offset, message, "server_tls = \"require\", \"verify-ca\" or \"verify-full\"");
            }
            true
        }
        Some((other, offset)) => {
            let message = format!("`server_tls_negotiation` is \"{other}\"");
            section.add(offset, message, "server_tls_negotiation = \"postgres\" or \"direct\"");
            false
        }
    };
    if mode == TlsMode::Disable {
        return ServerTls { mode, authorities: None, identity: None, is_direct: false };
    }
    let files = Files { section, directory };
    let authorities = files.authorities(&settings::SERVER_CA, mode);
    if let Some(value) = section.get(settings::SERVER_CA.key).filter(|_| mode < TlsMode::VerifyCa) {
        let message = "`server_ca` is there, and `server_tls` does not have servers verified";
        section.add(
            value.span().start,
            message,
            "server_tls = \"verify-full\" or \"verify-ca\", or no `server_ca`",
        );
    }
    let identity = files.identity(&settings::SERVER_CERT, &settings::SERVER_KEY);
    ServerTls { mode, authorities, identity, is_direct }
}

fn mode(section: &Section<'_>, setting: &Setting, fallback: TlsMode) -> TlsMode {
    let Some((text, offset)) = section.text(setting) else { return fallback };
    match TlsMode::ALL.into_iter().find(|it| it.label() == text) {
        Some(it) => it,
        None => {
            let names = TlsMode::ALL.map(|it| format!("\"{}\"", it.label())).join(", ");
            section.add(offset, format!("`{}` is \"{text}\"", setting.key), format!("one of {names}"));
            fallback
        }
    }
}

/// The files that a section names, beside the configuration unless their paths say otherwise.
struct Files<'a> {
    section: &'a Section<'a>,
    directory: &'a Path,
}

impl Files<'_> {
    fn identity(&self, cert: &Setting, key: &Setting) -> Option<Identity> {
        let (chain, private) = (self.certificates(cert), self.key(key));
        for (one, other) in [(cert, key), (key, cert)] {
            if let Some(value) = self.section.get(one.key).filter(|_| !self.section.has(other.key)) {
                let message = format!("`{}` is there without `{}`", one.key, other.key);
                self.section.add(value.span().start, message, format!("{} = \"FILE\" too", other.key));
            }
        }
        let (chain, (private, offset)) = (chain?, private?);
        match Identity::new(chain, private) {
            Ok(it) => Some(it),
            Err(rustls::Error::InconsistentKeys(_)) => {
                let message = format!("`{}` is not the key of `{}`", key.key, cert.key);
                let instead = "the key that the certificate was made with, the server's own certificate first in its file";
                self.section.add(offset, message, instead);
                None
            }
            Err(error) => {
                let message = format!("`{}` and `{}` cannot be used: {error}", cert.key, key.key);
                let instead = "a certificate of version 3 with an RSA (2048 bits or more), ECDSA (P-256, P-384) or Ed25519 key";
                self.section.add(offset, message, instead);
                None
            }
        }
    }

    fn authorities(&self, setting: &Setting, mode: TlsMode) -> Option<Arc<Authorities>> {
        if !self.section.has(setting.key) && mode >= TlsMode::VerifyCa {
            let message = format!("there is nothing to verify by: no `{}`", setting.key);
            self.section.add(self.section.offset, message, format!("{} = \"FILE\"", setting.key));
        }
        let offset = self.section.get(setting.key)?.span().start;
        match Authorities::new(self.certificates(setting)?) {
            Ok(it) => Some(Arc::new(it)),
            Err(error) => {
                let message = format!("`{}` has a certificate that is malformed: {error}", setting.key);
                self.section.add(offset, message, "certificates of authorities, as PEM");
                None
            }
        }
    }

    fn certificates(&self, setting: &Setting) -> Option<Vec<CertificateDer<'static>>> {
        let (bytes, offset) = self.bytes(setting)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match found {
            Ok(found) if !found.is_empty() => Some(found),
            _ => {
                let message = format!("the file of `{}` has no certificate", setting.key);
                self.section.add(offset, message, "a PEM file with -----BEGIN CERTIFICATE-----");
                None
            }
        }
    }

    fn key(&self, setting: &Setting) -> Option<(PrivateKeyDer<'static>, usize)> {
        let (bytes, offset) = self.bytes(setting)?;
        match PrivateKeyDer::from_pem_slice(&bytes) {
            Ok(key) => Some((key, offset)),
            Err(_) => {
                let message =
                    format!("the file of `{}` has no private key that is not encrypted", setting.key);
                let instead =
                    "a PEM file with -----BEGIN PRIVATE KEY-----, as `openssl pkey -in KEY` gives it";
                self.section.add(offset, message, instead);
                None
            }
        }
    }

    fn bytes(&self, setting: &Setting) -> Option<(zeroize::Zeroizing<Vec<u8>>, usize)> {
        let (path, offset) = self.section.text(setting)?;
        match read(&self.directory.join(path)) {
            Ok(bytes) => Some((bytes, offset)),
            Err(error) => {
                let message = format!("cannot read the file of `{}`, {path}: {error}", setting.key);
                self.section.add(offset, message, "the path of a readable file");
                None
            }
        }
    }
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
    let about = std::fs::metadata(path).map_err(|it| it.to_string())?;
    if !about.is_file() || about.len() > FILE_BYTES_MAX {
        return Err(format!("it is no file of at most {FILE_BYTES_MAX} bytes"));
    }
    std::fs::read(path).map(zeroize::Zeroizing::new).map_err(|it| it.to_string())
}
