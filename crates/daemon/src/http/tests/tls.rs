//! TCP with mutual TLS.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tombolo_api::tls::TlsFiles;
use tombolo_api::{AsyncClient, ClientError, ErrorKind};

use super::*;

/// An authority of which the certificate is in a directory.
struct Authority {
    directory: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(directory: &Path) -> Self {
        fs::create_dir(directory).unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(directory.join("ca.pem"), issuer.pem()).unwrap();
        Self {
            directory: directory.to_owned(),
            issuer,
        }
    }

    /// A certificate for 127.0.0.1, beside the authority that its holder trusts.
    fn issue(&self, name: &str, trusts: &Self) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![text("127.0.0.1")]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |end: &str| self.directory.join(format!("{name}.{end}"));
        fs::write(file("pem"), certificate.pem()).unwrap();
        fs::write(file("key"), key.serialize_pem()).unwrap();
        TlsFiles {
            authority: trusts.directory.join("ca.pem"),
            certificate: file("pem"),
            key: file("key"),
        }
    }
}

async fn serve(files: &TlsFiles) -> (Address, oneshot::Sender<()>, JoinHandle<()>) {
    let listener = listen::tcp("127.0.0.1:0".parse().unwrap(), Some(files))
        .await
        .unwrap();
    let port = listener.tcp_address().unwrap().port();
    let address = Address::Tcp {
        host: text("127.0.0.1"),
        port,
        tls: None,
    };
    let (stop, stopped) = oneshot::channel();
    let server = Server::new(router(Fake::default()));
    let task = tokio::spawn(server.serve(vec![listener], async { drop(stopped.await) }));
    (address, stop, task)
}

#[tokio::test]
async fn both_ends_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    let ours = Authority::new(&directory.path().join("ours"));
    let theirs = Authority::new(&directory.path().join("theirs"));
    let (address, stop, task) = serve(&ours.issue("server", &ours)).await;

    let trusted = address.clone().with_tls(ours.issue("client", &ours));
    let mut client = AsyncClient::connect(trusted).await.unwrap();
    assert_eq!(client.version().await.unwrap(), version());
    assert_eq!(client.prune().await.unwrap(), pruned());

    // A client that does not trust the server.
    let wary = address.clone().with_tls(ours.issue("wary", &theirs));
    let error = AsyncClient::connect(wary).await.unwrap_err();
    assert!(matches!(error, ClientError::Handshake { .. }), "{error:?}");

    // A client that the server does not trust learns of it at its first call (RFC 8446, section 4.4.3).
    let stranger = address.clone().with_tls(theirs.issue("stranger", &ours));
    let error = match AsyncClient::connect(stranger).await {
        Ok(mut client) => client.version().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");

    // A client that speaks in the clear.
    let mut plain = AsyncClient::connect(address).await.unwrap();
    plain.version().await.unwrap_err();

    assert!(
        client.version().await.is_ok(),
        "the others disturbed a trusted client"
    );
    stop.send(()).unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn a_client_without_a_certificate_is_turned_away() {
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    let directory = tempfile::tempdir().unwrap();
    let ours = Authority::new(&directory.path().join("ours"));
    let (address, stop, task) = serve(&ours.issue("server", &ours)).await;
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ours.directory.join("ca.pem")).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let Address::Tcp { port, .. } = address else {
        unreachable!()
    };
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    drop(
        stream
            .write_all(b"GET /v1/version HTTP/1.1\r\nHost: t\r\n\r\n")
            .await,
    );
    let mut answer = Vec::new();
    assert!(stream.read_to_end(&mut answer).await.is_err());
    assert_eq!(answer, b"");
    stop.send(()).unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn a_server_needs_a_key_that_fits() {
    let directory = tempfile::tempdir().unwrap();
    let ours = Authority::new(&directory.path().join("ours"));
    let mut files = ours.issue("server", &ours);
    files.key = ours.issue("other", &ours).key;
    let outcome = listen::tcp("127.0.0.1:0".parse().unwrap(), Some(&files)).await;
    assert!(
        matches!(outcome, Err(listen::ListenError::Tls { .. })),
        "{outcome:?}"
    );
}
