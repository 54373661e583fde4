//! The API over TCP: mutual TLS from end to end, and nothing less off loopback.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tombolo_api::tls::TlsFiles;
use tombolo_api::{Address, Client, ClientError};
use tombolo_lab::node::NODE_V4;
use tombolo_tests::Stage;

/// Certificates of one authority.
struct Papers {
    authority: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

impl Papers {
    fn new(directory: PathBuf) -> Self {
        std::fs::create_dir_all(&directory).unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
        Self {
            authority,
            directory,
        }
    }

    /// Writes a key and a certificate for `name`, and names them with the authority.
    fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> TlsFiles {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let file = |end: &str| self.directory.join(format!("{name}.{end}"));
        std::fs::write(file("pem"), certificate.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        TlsFiles {
            authority: self.directory.join("ca.pem"),
            certificate: file("pem"),
            key: file("key"),
        }
    }
}

fn address(host: &str, tls: Option<TlsFiles>) -> Address {
    Address::Tcp {
        host: host.to_owned(),
        port: 7_979,
        tls,
    }
}

fn flags<'a>(listen: &'a str, files: &'a [String; 3]) -> Vec<&'a str> {
    let [ca, cert, key] = files.each_ref().map(String::as_str);
    vec![
        "--tcp",
        listen,
        "--tls-ca",
        ca,
        "--tls-cert",
        cert,
        "--tls-key",
        key,
    ]
}

fn as_text(files: &TlsFiles) -> [String; 3] {
    [&files.authority, &files.certificate, &files.key].map(|path| path.display().to_string())
}

#[test]
fn only_clients_of_the_authority_get_in() {
    let Some(mut stage) = Stage::bare() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { Path::join(directory.path(), name) };
    let (own, foreign) = (Papers::new(at("own")), Papers::new(at("foreign")));
    let server = own.issue(NODE_V4, ExtendedKeyUsagePurpose::ServerAuth);
    let client = own.issue("client", ExtendedKeyUsagePurpose::ClientAuth);
    let stranger = foreign.issue("stranger", ExtendedKeyUsagePurpose::ClientAuth);
    let listen = format!("{NODE_V4}:7979");
    stage
        .start_with(&flags(&listen, &as_text(&server)), &[])
        .unwrap();
    let ask = |files: Option<TlsFiles>| -> Result<String, ClientError> {
        // From the outside, over the wire.
        stage
            .far()
            .inside(|| Client::connect(address(NODE_V4, files))?.network_inspect("bridge"))
            .map(|n| n.name)
    };
    assert_eq!(ask(Some(client.clone())).unwrap(), "bridge");
    let mixed = TlsFiles {
        authority: client.authority.clone(),
        ..stranger.clone()
    };
    assert!(
        ask(Some(mixed)).is_err(),
        "a certificate of another authority is accepted"
    );
    assert!(
        ask(Some(stranger)).is_err(),
        "a server of another authority is trusted"
    );
    let as_server = TlsFiles {
        authority: client.authority.clone(),
        ..server
    };
    assert!(
        ask(Some(as_server)).is_err(),
        "a server's certificate is no client's"
    );
    assert!(
        matches!(ask(None), Err(ClientError::PlainTcp { .. })),
        "calls would travel in the clear"
    );
    let plain = stage.far().inside(|| plain_request(NODE_V4));
    assert!(
        !plain.starts_with("HTTP/"),
        "an answer in the clear: {plain}"
    );
    assert_eq!(ask(Some(client)).unwrap(), "bridge");
}

/// What comes back from a request without TLS.
fn plain_request(host: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect((host, 7_979)).unwrap();
    stream
        .set_read_timeout(Some(tombolo_tests::stage::PATIENCE))
        .unwrap();
    // The other side may hang up at any time; what it said before counts.
    drop(stream.write_all(b"GET /v1/version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn plain_tcp_is_for_loopback_alone() {
    let Some(mut stage) = Stage::bare() else {
        return;
    };
    for listen in ["192.0.2.10:7979", "0.0.0.0:7979", "[::]:7979"] {
        let error = stage
            .start_with(&["--tcp", listen], &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("without TLS"), "{listen}: {error}");
    }
    stage.start_with(&["--tcp", "127.0.0.1:7979"], &[]).unwrap();
    let here = stage.here();
    let name =
        here.inside(|| Client::connect(address("127.0.0.1", None))?.network_inspect("bridge"));
    assert_eq!(name.unwrap().name, "bridge");
}

#[test]
fn two_of_three_files_are_refused() {
    let Some(mut stage) = Stage::bare() else {
        return;
    };
    let words = [
        "--tcp",
        "127.0.0.1:7979",
        "--tls-ca",
        "/run/ca",
        "--tls-cert",
        "/run/cert",
    ];
    let error = stage.start_with(&words, &[]).unwrap_err().to_string();
    assert!(error.contains("tls-key"), "{error}");
}
