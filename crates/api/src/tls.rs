//! Mutual TLS: each end shows a certificate and accepts only those that its authority has signed. Reading its files
//! is for other uses of TLS, too.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};

/// Where the files of one end are, all in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities whose word on the other end is taken.
    pub authority: PathBuf,
    /// Our certificate, followed by those between it and the authority.
    pub certificate: PathBuf,
    /// The private key of our certificate.
    pub key: PathBuf,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM section of the kind that it should.
    #[error("cannot read {what} from {}", path.display())]
    Read {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the reader said.
        source: pem::Error,
    },
    /// A file holds no certificate.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate cannot be one of an authority.
    #[error("cannot take a certificate of {} for an authority", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What the library said.
        source: rustls::Error,
    },
    /// The server cannot check clients against the authority.
    #[error("cannot check clients against {}", path.display())]
    Verifier {
        /// The file of the authority.
        path: PathBuf,
        /// What the library said.
        source: VerifierBuilderError,
    },
    /// The certificate and the key do not go together, or are of no known kind.
    #[error("cannot use certificate {} with key {}", certificate.display(), key.display())]
    Identity {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What the library said.
        source: rustls::Error,
    },
    /// The library lacks what it needs.
    #[error("cannot use the versions of TLS")]
    Versions(#[source] rustls::Error),
}

impl TlsFiles {
    /// What a client needs. Reads the files; blocks.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|source| self.identity_error(source))?;
        let config = builder
            .with_root_certificates(roots(&self.authority)?)
            .with_client_auth_cert(certificates(&self.certificate)?, private_key(&self.key)?)
            .map_err(|source| self.identity_error(source))?;
        Ok(Arc::new(config))
    }

    /// What a server needs; it turns away clients without a certificate. Reads the files; blocks.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let roots = Arc::new(roots(&self.authority)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|source| TlsError::Verifier {
                path: self.authority.clone(),
                source,
            })?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|source| self.identity_error(source))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&self.certificate)?, private_key(&self.key)?)
            .map_err(|source| self.identity_error(source))?;
        Ok(Arc::new(config))
    }

    fn identity_error(&self, source: rustls::Error) -> TlsError {
        TlsError::Identity {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificates of authorities in a PEM file. Fails if it cannot be read, holds none, or one that cannot be an
/// authority's. Blocks.
pub fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|source| TlsError::Authority {
                path: path.to_owned(),
                source,
            })?;
    }
    Ok(roots)
}

/// The first private key in a PEM file. Fails if it cannot be read or holds none. Blocks.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Read {
        what: "a private key",
        path: path.to_owned(),
        source,
    })
}

/// The certificates in a PEM file, in their order. Fails if it cannot be read or holds none. Blocks.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::Read {
        what: "certificates",
        path: path.to_owned(),
        source,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(error)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(error)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}
