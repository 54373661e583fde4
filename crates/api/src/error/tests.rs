use super::*;

#[test]
fn the_table_maps_each_kind_once() {
    let rows: Vec<_> = [
        ErrorKind::Invalid,
        ErrorKind::Conflict,
        ErrorKind::Unavailable,
        ErrorKind::Internal,
    ]
    .map(|kind| {
        (
            kind.to_string(),
            kind.http_status(),
            kind.exit_code(),
            kind.cni_code(),
        )
    })
    .into();
    let expected = [
        ("invalid", 400, 2, 7),
        ("conflict", 409, 3, 101),
        ("unavailable", 503, 4, 11),
        ("internal", 500, 1, 100),
    ]
    .map(|(word, status, exit, cni)| (word.to_owned(), status, exit, cni));
    assert_eq!(rows, expected);
}

#[test]
fn codes_with_a_status_of_their_own() {
    let own: Vec<_> = ErrorCode::ALL
        .iter()
        .map(|&code| ApiError::new(code, ""))
        .filter(|error| error.http_status() != error.kind.http_status())
        .map(|error| (error.code.as_str(), error.http_status(), error.exit_code()))
        .collect();
    assert_eq!(
        own,
        [
            ("body_too_large", 413, 2),
            ("unknown_path", 404, 5),
            ("method_not_allowed", 405, 2),
            ("unknown_network", 404, 5),
            ("unknown_endpoint", 404, 5),
            ("unknown_sandbox", 404, 5),
            ("unknown_publication", 404, 5),
            ("unknown_link", 404, 5),
        ]
    );
}

#[test]
fn codes_are_distinct_words_that_survive_the_wire() {
    let mut words = std::collections::BTreeSet::new();
    for &code in ErrorCode::ALL {
        let word = code.as_str();
        assert!(words.insert(word), "{word} stands for two codes");
        assert!(
            word.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        );
        let json = serde_json::to_string(&code).unwrap();
        assert_eq!(json, format!("{word:?}"));
        assert_eq!(serde_json::from_str::<ErrorCode>(&json).unwrap(), code);
    }
}

#[test]
fn an_error_from_a_newer_daemon_keeps_its_kind() {
    let json = r#"{"kind":"conflict","code":"brand_new","message":"m","extra":1}"#;
    let error: ApiError = serde_json::from_str(json).unwrap();
    assert_eq!(error.code, ErrorCode::Unrecognised);
    assert_eq!(error.http_status(), 409);
    assert_eq!(error.exit_code(), 3);
}

#[test]
fn cni_codes_of_the_specification_win() {
    assert_eq!(ApiError::new(ErrorCode::UnknownSandbox, "").cni_code(), 3);
    assert_eq!(ApiError::new(ErrorCode::MalformedJson, "").cni_code(), 6);
    assert_eq!(ApiError::new(ErrorCode::UnknownOption, "").cni_code(), 7);
    assert_eq!(ApiError::new(ErrorCode::PoolExhausted, "").cni_code(), 101);
}

#[test]
fn an_error_on_the_wire() {
    let error = ApiError::new(ErrorCode::OverlappingSubnet, "subnet 10.0.0.0/8 overlaps")
        .on("web")
        .hint("choose another");
    assert_eq!(
        serde_json::to_string(&error).unwrap(),
        r#"{"kind":"conflict","code":"overlapping_subnet","object":"web","message":"subnet 10.0.0.0/8 overlaps","hint":"choose another"}"#
    );
    assert_eq!(error.to_string(), "subnet 10.0.0.0/8 overlaps");
}
