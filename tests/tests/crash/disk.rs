//! The disk of the state directory is full.

use tombolo_api::{Client, EndpointCreate, ErrorCode};
use tombolo_tests::Stage;

use crate::scene::{
    Answer, assert_in_touch, code, furnish, make_network, make_sandbox, records, restart,
};

/// Requests until a full disk must have been noticed.
const TRIES: usize = 2_000;

fn make_endpoint(client: &mut Client) -> Answer {
    client
        .endpoint_create(EndpointCreate {
            network: "one".to_owned(),
            ..Default::default()
        })
        .map(drop)
}

#[test]
fn a_full_disk_refuses_requests_and_keeps_the_rest() {
    let Some(mut stage) = Stage::bare() else {
        return;
    };
    stage.shell("mkdir /var/lib/tombolo && mount -t tmpfs -o size=2m none /var/lib/tombolo");
    furnish(&mut stage);
    // tmpfs gives the last free page to whoever asks first.
    stage.shell("dd if=/dev/zero of=/var/lib/tombolo/ballast bs=4k 2>/dev/null; true");
    let mut client = stage.client();
    let refused = (0..TRIES)
        .find_map(|_| make_endpoint(&mut client).err())
        .expect("a refusal");
    assert_eq!(
        code(&refused),
        Some(ErrorCode::StoreUnavailable),
        "{refused}"
    );
    let (before, known) = (stage.traces().unwrap(), records(&stage));
    let refusals = [
        make_network(&mut client, "late"),
        make_sandbox(&mut client, "late", &["one", "two"]),
        client.sandbox_delete("p", false),
        client.sandbox_stop("p").map(drop),
        client.network_delete("bridge"),
    ];
    for refusal in &refusals[..4] {
        let error = refusal.as_ref().unwrap_err();
        assert_eq!(code(error), Some(ErrorCode::StoreUnavailable), "{error}");
    }
    assert_ne!(
        refusals[4].as_ref().map_err(code).unwrap_err(),
        Some(ErrorCode::StoreUnavailable)
    );
    stage.assert_traces(&before);
    assert_eq!(records(&stage), known);
    assert_in_touch(&stage, "p", "q");
    restart(&mut stage);
    stage.assert_traces(&before);
    assert_eq!(records(&stage), known);
    assert_in_touch(&stage, "p", "q");
    stage.shell("rm /var/lib/tombolo/ballast");
    let mut client = stage.client();
    make_network(&mut client, "late").unwrap();
    make_sandbox(&mut client, "later", &["one", "two"]).unwrap();
    assert_in_touch(&stage, "later", "p");
    let known = records(&stage);
    restart(&mut stage);
    assert_eq!(records(&stage), known);
    stage.assert_in_place();
}
