//! Calls over TLS.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tombolo_api::tls::TlsFiles;

use super::super::tls::client_config;
use super::*;
use crate::plugin::discovery::Tls;
use tombolo_api::tls::TlsError;

/// An authority of which the certificate is in a directory.
struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { directory, issuer }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A certificate and its key, of somebody at a host.
    fn issue(&self, name: &str, host: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = (
            self.file(&format!("{name}.pem")),
            self.file(&format!("{name}.key")),
        );
        fs::write(&files.0, certificate.pem()).unwrap();
        fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }

    /// Trusts this authority and shows no certificate.
    fn trusted(&self) -> Tls {
        Tls {
            authority: Some(self.file("ca.pem")),
            identity: None,
        }
    }
}

/// A plugin that shows a certificate and asks for none.
fn plain_config((certificate, key): &(PathBuf, PathBuf)) -> Arc<ServerConfig> {
    let certificates = CertificateDer::pem_file_iter(certificate).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            certificates.map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_file(key).unwrap(),
        );
    Arc::new(config.unwrap())
}

/// What comes of activating a plugin at 127.0.0.1.
async fn activate(config: Arc<ServerConfig>, tls: Tls) -> Result<Vec<String>, CallError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // Fails when one of both is not content with the other.
        if let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await {
            serve(&mut stream).await;
        }
    });
    let host = "127.0.0.1".to_owned();
    let client = Client::new(Address::Tls { host, port, tls });
    let activated = client.activate().await;
    served.await.unwrap();
    activated
}

async fn serve(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let request = read_request(stream).await;
    assert!(
        request.starts_with("POST /Plugin.Activate HTTP/1.1\r\n"),
        "{request}"
    );
    let answer = http(200, r#"{"Implements":["NetworkDriver"]}"#);
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

fn is_handshake(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Connect {
            source: ConnectError::Handshake(_),
            ..
        }
    )
}

#[tokio::test]
async fn a_plugin_is_checked() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let plugin = plain_config(&ours.issue("plugin", "127.0.0.1"));
    let names = activate(Arc::clone(&plugin), ours.trusted()).await.unwrap();
    assert_eq!(names, ["NetworkDriver"]);
    let error = activate(plugin, theirs.trusted()).await.unwrap_err();
    assert!(is_handshake(&error), "{error:?}");
    let elsewhere = plain_config(&ours.issue("elsewhere", "plugins.example"));
    let error = activate(elsewhere, ours.trusted()).await.unwrap_err();
    assert!(is_handshake(&error), "{error:?}");
}

#[tokio::test]
async fn anyone_is_taken_when_asked_for() {
    let theirs = Authority::new();
    let plugin = plain_config(&theirs.issue("plugin", "plugins.example"));
    let anyone = Tls {
        authority: None,
        identity: None,
    };
    activate(plugin, anyone).await.unwrap();
}

#[tokio::test]
async fn a_plugin_may_check_us() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (certificate, key) = ours.issue("plugin", "127.0.0.1");
    let authority = ours.file("ca.pem");
    let files = TlsFiles {
        authority,
        certificate,
        key,
    };
    let config = || files.server_config().unwrap();
    let shown = |identity| Tls {
        identity,
        ..ours.trusted()
    };
    let known = shown(Some(ours.issue("client", "client")));
    activate(config(), known).await.unwrap();
    // Those who are turned away learn of it in the handshake, or after it (RFC 8446, section 4.4.3).
    for identity in [None, Some(theirs.issue("stranger", "client"))] {
        let error = activate(config(), shown(identity)).await.unwrap_err();
        let turned_away = is_handshake(&error) || matches!(error, CallError::Closed { .. });
        assert!(turned_away, "{error:?}");
    }
}

#[tokio::test]
async fn files_are_read_for_each_call() {
    let ours = Authority::new();
    let files = ours.trusted();
    fs::remove_file(ours.file("ca.pem")).unwrap();
    let host = "127.0.0.1".to_owned();
    let client = Client::new(Address::Tls {
        host,
        port: 1,
        tls: files,
    });
    let error = client.activate().await.unwrap_err();
    let source = match error {
        CallError::Connect { source, .. } => source,
        error => panic!("{error:?}"),
    };
    assert!(
        matches!(source, ConnectError::Tls(TlsError::Read { .. })),
        "{source:?}"
    );
}

#[tokio::test]
async fn a_handshake_that_takes_long_is_given_up() {
    let ours = Authority::new();
    // Takes connections, by its kernel alone, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tls {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
        tls: ours.trusted(),
    };
    let bounds = Bounds {
        call: SHORT,
        ..Bounds::default()
    };
    let client = Client::new(address).with_bounds(bounds);
    let error = client.activate().await.unwrap_err();
    let CallError::Connect { source, .. } = error else {
        panic!("{error:?}");
    };
    assert!(
        matches!(source, ConnectError::Timeout { after: SHORT }),
        "{source:?}"
    );
}

#[tokio::test]
async fn a_host_must_be_one() {
    let ours = Authority::new();
    let host = "under score".to_owned();
    let client = Client::new(Address::Tls {
        host,
        port: 1,
        tls: ours.trusted(),
    });
    let error = client.activate().await.unwrap_err();
    let source = match error {
        CallError::Connect { source, .. } => source,
        error => panic!("{error:?}"),
    };
    assert!(
        matches!(source, ConnectError::ServerName { .. }),
        "{source:?}"
    );
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let ours = Authority::new();
    let (certificate, key) = ours.issue("client", "client");
    let (_, other) = ours.issue("other", "client");
    let empty = ours.file("empty.pem");
    fs::write(&empty, "").unwrap();
    let error = |authority: &Path, identity| {
        let authority = Some(authority.to_owned());
        client_config(&Tls {
            authority,
            identity,
        })
        .unwrap_err()
    };
    let ca = ours.file("ca.pem");
    let mixed = error(&ca, Some((certificate.clone(), other)));
    assert!(matches!(mixed, TlsError::Identity { .. }), "{mixed:?}");
    let keyless = error(&ca, Some((certificate.clone(), certificate)));
    assert!(
        matches!(
            keyless,
            TlsError::Read {
                what: "a private key",
                ..
            }
        ),
        "{keyless:?}"
    );
    assert!(matches!(
        error(&empty, None),
        TlsError::NoCertificate { .. }
    ));
    assert!(matches!(error(&key, None), TlsError::NoCertificate { .. }));
}
