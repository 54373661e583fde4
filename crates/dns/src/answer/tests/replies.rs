use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::rdata::{A, CNAME, NULL};

use super::*;

use RecordType as T;

/// A question for others, and what came of it: RD, and whether it carries AD, CD and DO.
fn question(name: &str, record_type: T) -> Question {
    question_of(decide_as(&view(), &query(name, record_type), 0))
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn address(owner: &str) -> Record {
    Record::from_rdata(name(owner), 300, RData::A(A::new(192, 0, 2, 1)))
}

fn unknown(owner: &str, code: T) -> Record {
    let rdata = NULL::with(vec![1, 2, 3]);
    Record::from_rdata(name(owner), 300, RData::Unknown { code, rdata })
}

/// As another server answers: its own id, the name in another case.
fn upstream(answers: &[Record]) -> Message {
    let mut message = Message::response(0xbeef, OpCode::Query);
    message.metadata.authoritative = true;
    message.metadata.recursion_available = false;
    message.metadata.authentic_data = true;
    message.add_query(Query::query(name("wWw.ExAmPlE.oRg."), T::A));
    message.add_answers(answers.iter().cloned());
    message
}

fn reply(question: &Question, message: &Message) -> Message {
    Message::from_vec(&question.reply(message)).unwrap()
}

#[test]
fn a_question_tells_what_the_client_wants() {
    let mut message = with_edns(query("Www.Example.ORG.", T::MX), 900, true);
    message.metadata.checking_disabled = true;
    message.metadata.authentic_data = true;
    let question = question_of(decide_as(&view(), &message, 0));
    assert_eq!(question.id(), 0x1234);
    assert_eq!(question.name().to_ascii(), "Www.Example.ORG.");
    assert_eq!(
        (question.record_type(), question.class()),
        (T::MX, DNSClass::IN)
    );
    assert!(question.recursion_desired() && question.checking_disabled());
    assert!(question.authentic_data() && question.dnssec_ok());
    assert_eq!(
        question.edns().map(|edns| (edns.size, edns.dnssec_ok)),
        Some((900, true))
    );
    assert_eq!(
        (question.carrier(), question.limit()),
        (Carrier::Datagram, 900)
    );
}

#[test]
fn a_reply_is_the_clients_own() {
    let alias = RData::CNAME(CNAME(name("Target.example.org.")));
    let records = [
        Record::from_rdata(name("www.EXAMPLE.org."), 300, alias),
        address("target.example.org."),
    ];
    let question = question("Www.Example.Org.", T::A);
    let answer = reply(&question, &upstream(&records));
    let metadata = &answer.metadata;
    assert_eq!(metadata.id, 0x1234);
    assert_eq!(metadata.message_type, MessageType::Response);
    assert!(metadata.recursion_desired && metadata.recursion_available);
    assert!(!metadata.authoritative && !metadata.authentic_data && !metadata.truncation);
    assert_eq!(answer.queries[0].name().to_ascii(), "Www.Example.Org.");
    assert_eq!(answer.queries[0].query_type(), T::A);
    assert_eq!(answer.answers[0].name.to_ascii(), "Www.Example.Org.");
    assert_eq!(answers(&answer), ["CNAME Target.example.org.", "192.0.2.1"]);
    assert!(answer.edns.is_none());
    // The names of records point to the question instead of being written again.
    let one = question.reply(&upstream(&[address("www.example.org.")]));
    assert_eq!(one.len(), 12 + 17 + 4 + 16);
}

#[test]
fn codes_and_flags_are_passed_on() {
    let question = question("www.example.org.", T::A);
    for code in [
        ResponseCode::NXDomain,
        ResponseCode::ServFail,
        ResponseCode::NotImp,
    ] {
        let mut message = upstream(&[]);
        message.metadata.response_code = code;
        message.metadata.truncation = true;
        let answer = reply(&question, &message);
        assert_eq!(answer.metadata.response_code, code);
        assert!(answer.metadata.truncation);
    }
    let mut message = upstream(&[]);
    message.metadata.response_code = ResponseCode::BADCOOKIE;
    let answer = reply(&question, &message);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let mut message = upstream(&[]);
    message.metadata.op_code = OpCode::Update;
    let answer = reply(&question, &message);
    assert_eq!(answer.metadata.op_code, OpCode::Query);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn only_who_asks_hears_that_data_was_validated() {
    let mut plain = query("www.example.org.", T::A);
    plain.metadata.checking_disabled = true;
    let mut asks = plain.clone();
    asks.metadata.authentic_data = true;
    let secure = with_edns(plain.clone(), 1232, true);
    for (message, expected) in [(plain, false), (asks, true), (secure, true)] {
        let question = question_of(decide_as(&view(), &message, 0));
        let answer = reply(&question, &upstream(&[]));
        assert_eq!(answer.metadata.authentic_data, expected);
        assert!(answer.metadata.checking_disabled);
    }
}

#[test]
fn records_of_dnssec_go_to_who_wants_them() {
    let owner = "www.example.org.";
    let mut message = upstream(&[address(owner), unknown(owner, T::RRSIG)]);
    message.add_authority(unknown(owner, T::NSEC));
    message.add_authority(unknown(owner, T::NSEC3));
    message.add_authority(unknown(owner, T::DS));
    message.add_additional(unknown(owner, T::DNSKEY));
    message.add_additional(unknown(owner, T::TSIG));
    let count = |answer: &Message| {
        [&answer.answers, &answer.authorities, &answer.additionals].map(|s| s.len())
    };
    let plain = reply(&question(owner, T::A), &message);
    assert_eq!(count(&plain), [1, 0, 0]);
    let secure = with_edns(query(owner, T::A), 1232, true);
    let secure = question_of(decide_as(&view(), &secure, 0));
    assert_eq!(count(&reply(&secure, &message)), [2, 3, 1]);
    let asked = reply(&question(owner, T::DNSKEY), &message);
    assert_eq!(count(&asked), [1, 0, 1]);
}

#[test]
fn reasons_are_passed_on_to_who_reads_them() {
    let mut message = upstream(&[]);
    let mut edns = Edns::new();
    let option = EdnsOption::Unknown(15, vec![0, 6, b'b', b'a', b'd']);
    edns.set_max_payload(4096).options_mut().insert(option);
    edns.options_mut()
        .insert(EdnsOption::Unknown(10, vec![1; 8]));
    message.set_edns(edns);
    let reads = with_edns(query("www.example.org.", T::A), 1232, false);
    let answer = reply(&question_of(decide_as(&view(), &reads, 0)), &message);
    let edns = answer.edns.unwrap();
    assert_eq!(edns.max_payload(), 1232);
    let [(code, EdnsOption::Unknown(_, data))] = edns.options().as_ref() else {
        panic!("{edns}");
    };
    assert_eq!((*code, &data[..]), (EdnsCode::from(15), &[0, 6][..]));
    assert!(
        reply(&question("www.example.org.", T::A), &message)
            .edns
            .is_none()
    );
}
