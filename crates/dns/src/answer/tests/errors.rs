use hickory_proto::rr::DNSClass;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};

use super::*;

use RecordType as T;

fn raw(bytes: &[u8]) -> Decision {
    let settings = Settings::default();
    decide(&names(), &view(), &settings, bytes, Carrier::Datagram, 0)
}

fn code(decision: Decision) -> ResponseCode {
    answer_of(decision).metadata.response_code
}

/// The extended error of an answer.
fn extended(message: &Message) -> Option<u16> {
    let edns = message.edns.as_ref()?;
    match edns.option(EdnsCode::from(15))? {
        EdnsOption::Unknown(15, data) => Some(u16::from_be_bytes(data[..].try_into().unwrap())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn responses_and_scraps_are_not_answered() {
    let mut response = query("db.", T::A);
    response.metadata.message_type = MessageType::Response;
    assert_eq!(decide_as(&view(), &response, 0), Decision::Ignore);
    let bytes = query("db.", T::A).to_vec().unwrap();
    for length in 0..12 {
        assert_eq!(raw(&bytes[..length]), Decision::Ignore);
    }
}

#[test]
fn malformed_queries_are_told_so() {
    let bytes = with_edns(query("db.back.", T::A), 1232, false)
        .to_vec()
        .unwrap();
    assert_eq!(code(raw(&bytes)), ResponseCode::NoError);
    for length in 12..bytes.len() {
        let answer = answer_of(raw(&bytes[..length]));
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
        assert_eq!((answer.metadata.id, answer.queries.len()), (0x1234, 0));
    }
    for questions in [0, 2, u8::MAX] {
        let mut bytes = bytes.clone();
        bytes[5] = questions;
        assert_eq!(code(raw(&bytes)), ResponseCode::FormErr);
    }
    let mut two = query("db.", T::A);
    two.add_query(Query::query(Name::from_ascii("web.").unwrap(), T::A));
    assert_eq!(code(decide_as(&view(), &two, 0)), ResponseCode::FormErr);

    let question = |name: &[u8]| {
        let mut bytes = query(".", T::A).to_vec().unwrap()[..12].to_vec();
        bytes.extend(name);
        bytes.extend([0, 1, 0, 1]);
        code(raw(&bytes))
    };
    assert_eq!(question(b"\x02db\0"), ResponseCode::NoError);
    for name in [
        &b"\xc0\x0c"[..],
        b"\x02db\xc0\x0c",
        b"\x02db\xc0\x00",
        b"\x40db\0",
        b"\x80db\0",
        b"\x3fdb\0",
        &b"\x01a".repeat(128),
    ] {
        assert_eq!(question(name), ResponseCode::FormErr, "{name:?}");
    }
}

#[test]
fn names_are_as_long_as_they_may_be() {
    let name = |last: usize| {
        let mut bytes = query(".", T::MX).to_vec().unwrap()[..12].to_vec();
        for length in [63, 63, 63, last] {
            bytes.push(length as u8);
            bytes.extend(vec![b'a'; length]);
        }
        bytes.extend([0, 0, 15, 0, 1]);
        raw(&bytes)
    };
    let longest = question_of(name(61));
    assert_eq!(longest.name().to_ascii().len(), 254);
    assert_eq!(code(name(62)), ResponseCode::FormErr);
}

#[test]
fn messages_are_as_long_as_a_stream_carries() {
    let mut bytes = query("db.", T::A).to_vec().unwrap();
    bytes.resize(usize::from(crate::limits::STREAM_BYTES_MAX), 0);
    assert_eq!(code(raw(&bytes)), ResponseCode::NoError);
    bytes.push(0);
    assert_eq!(code(raw(&bytes)), ResponseCode::FormErr);
}

#[test]
fn only_queries_of_class_in_are_answered() {
    for opcode in [
        OpCode::Status,
        OpCode::Notify,
        OpCode::Update,
        OpCode::Unknown(15),
    ] {
        let mut message = query("db.", T::A);
        message.metadata.op_code = opcode;
        let answer = answer_of(decide_as(&view(), &message, 0));
        assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);
        assert_eq!(answer.metadata.op_code, opcode);
    }
    for class in [
        DNSClass::CH,
        DNSClass::HS,
        DNSClass::ANY,
        DNSClass::Unknown(7),
    ] {
        let mut message = query("version.bind.", T::TXT);
        message.queries[0].set_query_class(class);
        assert_eq!(code(decide_as(&view(), &message, 0)), ResponseCode::Refused);
    }
    for meta in [
        T::AXFR,
        T::IXFR,
        T::OPT,
        T::ZERO,
        T::TSIG,
        T::Unknown(128),
        T::Unknown(254),
    ] {
        for name in ["db.", "example.org."] {
            assert_eq!(
                ask(name, meta).metadata.response_code,
                ResponseCode::Refused
            );
        }
    }
    assert!(is_forwarded("example.org.", T::Unknown(127)));
    assert!(is_forwarded("example.org.", T::CAA));
}

#[test]
fn edns_is_answered_in_kind() {
    assert!(ask("db.", T::A).edns.is_none());
    for dnssec_ok in [false, true] {
        let message = with_edns(query("db.", T::A), 4096, dnssec_ok);
        let answer = answer_of(decide_as(&view(), &message, 0));
        let edns = answer.edns.unwrap();
        assert_eq!((edns.max_payload(), edns.version()), (1232, 0));
        assert_eq!(edns.flags().dnssec_ok, dnssec_ok);
        assert!(edns.options().as_ref().is_empty());
    }
    let mut message = with_edns(query("db.", T::A), 1232, false);
    message.edns.as_mut().unwrap().set_version(1);
    let answer = answer_of(decide_as(&view(), &message, 0));
    assert_eq!(u16::from(answer.metadata.response_code), 16);
    assert_eq!(answer.edns.unwrap().version(), 0);

    let twice = |name: &[u8]| {
        let mut bytes = with_edns(query("db.", T::A), 1232, false).to_vec().unwrap();
        let opt = [name, &[0, 41, 4, 208, 0, 0, 0, 0, 0, 0]].concat();
        bytes.extend(opt);
        bytes[11] += 1;
        code(raw(&bytes))
    };
    assert_eq!(twice(b"\0"), ResponseCode::FormErr);
    let mut named = query("db.", T::A).to_vec().unwrap();
    named.extend(b"\x01a\0\0\x29\x04\xd0\0\0\0\0\0\0");
    named[11] = 1;
    assert_eq!(code(raw(&named)), ResponseCode::FormErr);
}

#[test]
fn who_may_not_ask_outside_is_refused() {
    let internal = View {
        forwards: false,
        ..view()
    };
    let outside = query("example.org.", T::A);
    let answer = answer_of(decide_as(&internal, &outside, 0));
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    assert!(!answer.metadata.authoritative && answer.edns.is_none());
    let outside = with_edns(outside, 1232, false);
    let answer = answer_of(decide_as(&internal, &outside, 0));
    assert_eq!(extended(&answer), Some(18));
    let any = query("example.org.", T::ANY);
    assert_eq!(code(decide_as(&internal, &any, 0)), ResponseCode::Refused);
    let own = answer_of(decide_as(&internal, &query("db.", T::A), 0));
    assert_eq!(answers(&own), ["10.2.0.20"]);
}

#[test]
fn who_does_not_want_recursion_gets_own_names_only() {
    let mut own = query("db.", T::A);
    own.metadata.recursion_desired = false;
    let answer = answer_of(decide_as(&view(), &own, 0));
    assert_eq!(answers(&answer), ["10.2.0.20"]);
    assert!(!answer.metadata.recursion_desired);
    let mut outside = with_edns(query("example.org.", T::A), 1232, false);
    outside.metadata.recursion_desired = false;
    let answer = answer_of(decide_as(&view(), &outside, 0));
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    assert_eq!(extended(&answer), Some(20));
}

#[test]
fn failures_say_why() {
    let outside = with_edns(query("Example.ORG.", T::A), 1232, true);
    let question = question_of(decide_as(&view(), &outside, 0));
    let answer = Message::from_vec(&question.failed()).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(extended(&answer), Some(22));
    assert_eq!(answer.queries[0].name().to_ascii(), "Example.ORG.");
    assert_eq!(answer.metadata.id, 0x1234);
    let plain = question_of(decide_as(&view(), &query("example.org.", T::A), 0));
    assert!(Message::from_vec(&plain.failed()).unwrap().edns.is_none());
}
