use std::str::FromStr;

use hickory_proto::op::{Edns, OpCode, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record};
use proptest::prelude::*;

use super::*;

const T0: Duration = Duration::from_secs(5_000);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn name(text: &str) -> Name {
    Name::from_str(text).unwrap()
}

fn query(text: &str) -> Query {
    Query::query(name(text), RecordType::A)
}

fn key(text: &str) -> Key {
    Key::new(&query(text), false, false, 0)
}

/// An answer to the question for the addresses of a name, with nothing in it.
fn empty(text: &str, code: ResponseCode) -> Message {
    let mut message = Message::response(4_711, OpCode::Query);
    message.metadata.response_code = code;
    message.add_query(query(text));
    message
}

fn address(text: &str, ttl: u32) -> Record {
    Record::from_rdata(name(text), ttl, RData::A(A::new(192, 0, 2, 1)))
}

fn answer(text: &str, ttl: u32) -> Message {
    let mut message = empty(text, ResponseCode::NoError);
    message.add_answer(address(text, ttl));
    message
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let data = SOA::new(name("ns.example."), name("a.example."), 1, 2, 3, 4, minimum);
    Record::from_rdata(name("example."), ttl, RData::SOA(data))
}

fn nothing(code: ResponseCode, ttl: u32, minimum: u32) -> Message {
    let mut message = empty("a.example.", code);
    message.add_authority(soa(ttl, minimum));
    message
}

/// How long a cache keeps a message as the answer for `a.example.`.
fn kept(message: &Message) -> Option<u64> {
    let mut cache = Cache::default();
    let life = cache.insert(key("a.example."), message, T0);
    assert_eq!(cache.len(), usize::from(life.is_some()));
    life.map(|life| life.as_secs())
}

fn ttls(found: Option<Found>) -> Vec<u32> {
    match found {
        Some(Found::Answer(message)) => message.all_sections().map(|record| record.ttl).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn an_answer_lives_as_long_as_its_shortest_record() {
    let mut message = answer("a.example.", 300);
    assert_eq!(kept(&message), Some(300));
    message.add_answer(address("a.example.", 20));
    assert_eq!(kept(&message), Some(20));
    message.add_additional(address("ns.example.", 0));
    assert_eq!(kept(&message), None, "0 means now only");
    for (ttl, life) in [(86_400, 86_400), (86_401, 86_400), (u32::MAX, 86_400)] {
        assert_eq!(kept(&answer("a.example.", ttl)), Some(life));
    }
}

#[test]
fn nothing_lives_as_long_as_the_soa_record_says() {
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        assert_eq!(kept(&nothing(code, 600, 60)), Some(60));
        assert_eq!(kept(&nothing(code, 60, 600)), Some(60));
        assert_eq!(kept(&nothing(code, 86_400, 86_400)), Some(3 * 3_600));
        assert_eq!(kept(&nothing(code, 600, 0)), None);
        assert_eq!(kept(&empty("a.example.", code)), None, "no SOA record");
    }
}

#[test]
fn an_alias_of_nothing_is_nothing() {
    let alias = RData::CNAME(CNAME(name("b.example.")));
    let mut message = empty("a.example.", ResponseCode::NoError);
    message.add_answer(Record::from_rdata(name("a.example."), 300, alias));
    assert_eq!(kept(&message), None, "whether b has addresses is not said");
    message.add_authority(soa(600, 60));
    assert_eq!(kept(&message), Some(60));
    message.answers.push(address("b.example.", 100));
    message.authorities.clear();
    assert_eq!(kept(&message), Some(100));
    message.metadata.response_code = ResponseCode::NXDomain;
    assert_eq!(kept(&message), None);
}

#[test]
fn every_record_answers_a_question_for_any() {
    let mut message = answer("a.example.", 300);
    message.queries[0].query_type = RecordType::ANY;
    let key = Key::new(&message.queries[0], false, false, 0);
    assert!(Cache::default().insert(key, &message, T0).is_some());
    let other = RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    let mut message = empty("a.example.", ResponseCode::NoError);
    message.add_answer(Record::from_rdata(name("a.example."), 300, other));
    assert_eq!(kept(&message), None, "no record of the kind asked for");
}

#[test]
fn cut_and_failed_answers_change_nothing() {
    let mut cache = Cache::default();
    cache.insert(key("a.example."), &answer("a.example.", 60), T0);
    let mut cut = answer("a.example.", 60);
    cut.metadata.truncation = true;
    let mut failed = answer("a.example.", 60);
    failed.metadata.response_code = ResponseCode::ServFail;
    for message in [cut, failed] {
        assert_eq!(kept(&message), None);
        assert_eq!(cache.insert(key("a.example."), &message, T0), None);
        assert_eq!(ttls(cache.get(&key("a.example."), T0)), [60]);
    }
    // While this one says that what was known is no more.
    assert_eq!(
        cache.insert(key("a.example."), &answer("a.example.", 0), T0),
        None
    );
    assert_eq!(cache.get(&key("a.example."), T0), None);
    assert_eq!(cache.get_stale(&key("a.example."), T0), None);
}

#[test]
fn an_answer_that_its_server_stretched_is_kept_shortly() {
    for (code, life) in [(3_u16, 30), (19, 30), (4, 300)] {
        let mut message = answer("a.example.", 300);
        let mut edns = Edns::new();
        let data = [&code.to_be_bytes()[..], b"why"].concat();
        edns.options_mut().insert(EdnsOption::Unknown(15, data));
        message.set_edns(edns);
        assert_eq!(kept(&message), Some(life), "{code}");
    }
}

#[test]
fn an_answer_to_another_question_is_not_kept() {
    assert_eq!(kept(&answer("b.example.", 60)), None);
    assert_eq!(kept(&answer("aa.example.", 60)), None);
    let mut message = answer("a.example.", 60);
    message.queries[0].query_type = RecordType::AAAA;
    assert_eq!(kept(&message), None);
    message.queries.clear();
    assert_eq!(kept(&message), None);
}

#[test]
fn large_answers_are_not_kept() {
    let sized = |texts: usize| {
        let mut message = empty("a.example.", ResponseCode::NoError);
        message.queries[0].query_type = RecordType::TXT;
        let text = TXT::new(vec!["x".repeat(127); texts]);
        message.add_answer(Record::from_rdata(name("a.example."), 60, RData::TXT(text)));
        message
    };
    let base = sized(0).to_vec().unwrap().len();
    let mut largest = sized((limits::CACHE_ANSWER_BYTES_MAX - base) / 128);
    let key = Key::new(&largest.queries[0], false, false, 0);
    let mut cache = Cache::default();
    assert!(cache.insert(key.clone(), &largest, T0).is_some());
    let fill = limits::CACHE_ANSWER_BYTES_MAX - largest.to_vec().unwrap().len();
    largest.metadata.id = 0;
    // A record of the root takes eleven bytes and its data.
    let mut pad = |bytes: usize| {
        let text = RData::NULL(hickory_proto::rr::rdata::NULL::with(vec![0; bytes]));
        largest.additionals = vec![Record::from_rdata(Name::root(), 60, text)];
        let is_kept = cache.insert(key.clone(), &largest, T0).is_some();
        (largest.to_vec().unwrap().len(), is_kept)
    };
    assert_eq!(pad(fill - 11), (limits::CACHE_ANSWER_BYTES_MAX, true));
    assert_eq!(pad(fill - 10), (limits::CACHE_ANSWER_BYTES_MAX + 1, false));
}

#[test]
fn time_left_goes_down_to_a_second_and_then_the_answer_is_gone() {
    let mut cache = Cache::default();
    let mut message = answer("a.example.", 10);
    message.add_answer(address("a.example.", 500));
    cache.insert(key("a.example."), &message, T0);
    for (age_ms, ttl) in [(0, 10), (999, 10), (1_000, 9), (9_000, 1), (9_999, 1)] {
        let found = cache.get(&key("a.example."), T0 + Duration::from_millis(age_ms));
        assert_eq!(ttls(found), [ttl, ttl], "after {age_ms} ms");
    }
    assert_eq!(cache.get(&key("a.example."), T0 + secs(10)), None);
    assert_eq!(
        ttls(cache.get(&key("a.example."), T0 - secs(1))),
        [10, 10],
        "a clock went back"
    );
}

#[test]
fn what_belongs_to_one_exchange_is_not_kept() {
    let mut cache = Cache::default();
    let mut message = answer("A.eXample.", 10);
    message.set_edns(Edns::new());
    message.metadata.authentic_data = true;
    message.metadata.authoritative = true;
    cache.insert(key("a.example."), &message, T0);
    let Some(Found::Answer(found)) = cache.get(&key("a.EXAMPLE."), T0) else {
        panic!("case does not matter");
    };
    assert_eq!((found.id, &found.edns), (0, &None));
    assert_eq!(found.queries[0].name.to_ascii(), "a.example.");
    assert_eq!(found.answers[0].name.to_ascii(), "a.example.");
    assert!(found.authentic_data && !found.authoritative);
}

#[test]
fn every_part_of_a_question_tells_answers_apart() {
    let mut cache = Cache::default();
    cache.insert(key("a.example."), &answer("a.example.", 10), T0);
    let mut other = query("a.example.");
    other.set_query_type(RecordType::AAAA);
    for other in [
        Key::new(&other, false, false, 0),
        Key::new(&query("a.example."), true, false, 0),
        Key::new(&query("a.example."), false, true, 0),
        Key::new(&query("a.example."), false, false, 1),
        key("example."),
    ] {
        assert_eq!(cache.get(&other, T0), None, "{other:?}");
    }
}

#[test]
fn failures_in_a_row_are_kept_twice_as_long_each_time() {
    let mut cache = Cache::default();
    let mut now = T0;
    for wait in [1, 2, 4, 8, 16, 30, 30] {
        assert_eq!(cache.insert_failure(key("a.example."), now), secs(wait));
        let half = now + secs(wait) / 2;
        assert_eq!(
            cache.insert_failure(key("a.example."), half),
            secs(wait) / 2,
            "the same"
        );
        assert_eq!(cache.get(&key("a.example."), half), Some(Found::Failed));
        now += secs(wait);
        assert_eq!(cache.get(&key("a.example."), now), None);
    }
    // A run ends with time, or with an answer, also one that is not kept.
    now += limits::CACHE_FAILURE_MAX;
    assert_eq!(cache.insert_failure(key("a.example."), now), secs(1));
    now += secs(1);
    cache.insert(key("a.example."), &answer("a.example.", 0), now);
    assert_eq!(cache.insert_failure(key("a.example."), now), secs(1));
    assert_eq!(cache.len(), 1);
}

#[test]
fn an_ended_answer_serves_while_servers_fail() {
    let mut cache = Cache::default();
    cache.insert(key("a.example."), &answer("a.example.", 10), T0);
    let end = T0 + secs(10);
    let stale =
        |cache: &mut Cache, now| ttls(cache.get_stale(&key("a.example."), now).map(Found::Answer));
    assert_eq!(stale(&mut cache, T0 + secs(1)), [9], "not ended yet");
    assert_eq!(cache.get(&key("a.example."), end), None);
    cache.insert_failure(key("a.example."), end);
    assert_eq!(cache.get(&key("a.example."), end), Some(Found::Failed));
    assert_eq!(stale(&mut cache, end), [30]);
    let last = end + limits::CACHE_STALE_MAX;
    assert_eq!(stale(&mut cache, last - secs(1)), [30]);
    assert_eq!(stale(&mut cache, last), []);
    assert_eq!(cache.get(&key("a.example."), last), None);
    assert_eq!((cache.len(), cache.bytes()), (0, 0), "met and dropped");
}

#[test]
fn memory_is_bounded_and_the_least_recently_used_leaves() {
    let cost = ENTRY_BYTES
        + key("0.example.").name.len()
        + answer("0.example.", 9).to_vec().unwrap().len();
    let mut cache = Cache::new(3 * cost);
    let add = |cache: &mut Cache, text: &str| cache.insert(key(text), &answer(text, 9), T0);
    for text in ["0.example.", "1.example.", "2.example."] {
        add(&mut cache, text);
    }
    assert_eq!((cache.len(), cache.bytes()), (3, 3 * cost));
    assert!(cache.get(&key("0.example."), T0).is_some());
    add(&mut cache, "3.example.");
    assert_eq!((cache.len(), cache.bytes()), (3, 3 * cost));
    assert_eq!(cache.get(&key("1.example."), T0), None);
    assert!(cache.get(&key("0.example."), T0).is_some());
    cache.clear();
    assert!(cache.is_empty() && cache.bytes() == 0);

    let mut small = Cache::new(cost - 1);
    assert_eq!(add(&mut small, "0.example."), None);
    assert_eq!((small.len(), small.bytes()), (0, 0));
}

#[test]
fn ended_answers_leave_before_used_ones() {
    let cost = ENTRY_BYTES
        + key("0.example.").name.len()
        + answer("0.example.", 9).to_vec().unwrap().len();
    let mut cache = Cache::new(3 * cost);
    for (text, ttl) in [("0.example.", 90), ("1.example.", 20), ("2.example.", 10)] {
        cache.insert(key(text), &answer(text, ttl), T0);
    }
    cache.get(&key("2.example."), T0);
    cache.insert(key("3.example."), &answer("3.example.", 90), T0 + secs(10));
    assert_eq!(cache.get_stale(&key("2.example."), T0 + secs(10)), None);
    for text in ["0.example.", "1.example.", "3.example."] {
        assert!(cache.get(&key(text), T0 + secs(10)).is_some(), "{text}");
    }
}

#[test]
fn the_default_is_the_limit() {
    assert_eq!(Cache::default().bytes_max, limits::CACHE_BYTES);
}

/// The cache as a list: what is used moves to the end.
#[derive(Default)]
struct Model {
    entries: Vec<ModelEntry>,
}

#[derive(Clone)]
struct ModelEntry {
    name: String,
    bytes: usize,
    answer: Option<(Duration, u64)>,
    failure: Option<(Duration, u64)>,
}

impl ModelEntry {
    fn end(&self) -> Duration {
        let end = |(since, life): (Duration, u64)| since + secs(life);
        self.answer.map(end).max(self.failure.map(end)).unwrap()
    }
}

impl Model {
    const BYTES_MAX: usize = 2_000;

    fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }

    fn take(&mut self, name: &str) -> Option<ModelEntry> {
        let at = self.entries.iter().position(|entry| entry.name == name)?;
        Some(self.entries.remove(at))
    }

    fn put(&mut self, mut entry: ModelEntry, now: Duration) {
        let size = |ttl: u32| answer(&entry.name, ttl).to_vec().unwrap().len();
        entry.bytes = ENTRY_BYTES + key(&entry.name).name.len();
        entry.bytes += entry.answer.map_or(0, |_| size(1));
        while self.bytes() + entry.bytes > Self::BYTES_MAX {
            let ended = self.entries.iter().filter(|entry| entry.end() <= now);
            let first = ended.min_by_key(|entry| (entry.end(), key(&entry.name)));
            let name = first.unwrap_or(&self.entries[0]).name.clone();
            self.take(&name);
        }
        self.entries.push(entry);
    }

    fn insert(&mut self, name: &str, ttl: u32, now: Duration) {
        self.take(name);
        if ttl > 0 {
            let answer = Some((now, u64::from(ttl)));
            self.put(
                ModelEntry {
                    name: name.to_owned(),
                    bytes: 0,
                    answer,
                    failure: None,
                },
                now,
            );
        }
    }

    fn fail(&mut self, name: &str, now: Duration) {
        let old = self
            .entries
            .iter()
            .find(|entry| entry.name == name)
            .cloned();
        let wait = match old.as_ref().and_then(|old| old.failure) {
            Some((since, wait)) if now < since + secs(wait) => return,
            Some((since, wait)) if now < since + secs(wait + 30) => (wait * 2).min(30),
            _ => 1,
        };
        let answer = old.and_then(|old| old.answer);
        let answer = answer.filter(|(since, life)| now < *since + secs(life + 3_600));
        self.take(name);
        self.put(
            ModelEntry {
                name: name.to_owned(),
                bytes: 0,
                answer,
                failure: Some((now, wait)),
            },
            now,
        );
    }

    /// The time to live that is answered; 0 for a failure.
    fn get(&mut self, name: &str, now: Duration) -> Option<u64> {
        let entry = self
            .entries
            .iter()
            .find(|entry| entry.name == name)?
            .clone();
        let is_live = |(since, life): (Duration, u64), more: u64| now < since + secs(life + more);
        let found = match (entry.answer, entry.failure) {
            (Some(answer), _) if is_live(answer, 0) => answer.1 - (now - answer.0).as_secs(),
            (_, Some(failure)) if is_live(failure, 0) => 0,
            (answer, failure) => {
                let is_worth = answer.is_some_and(|answer| is_live(answer, 3_600))
                    || failure.is_some_and(|failure| is_live(failure, 30));
                if !is_worth {
                    self.take(name);
                }
                return None;
            }
        };
        self.take(name);
        self.entries.push(entry);
        Some(found)
    }
}

proptest! {
    #[test]
    fn a_cache_is_a_bounded_list(
        moves in prop::collection::vec((0_u8..3, 0_u8..9, 0_u32..40, 0_u64..6_000), 0..150),
    ) {
        let mut cache = Cache::new(Model::BYTES_MAX);
        let mut model = Model::default();
        let mut now = T0;
        for (what, which, ttl, later) in moves {
            now += Duration::from_millis(later);
            let text = format!("{}.example.", "x".repeat(usize::from(which)  + 1));
            match what {
                0 => {
                    cache.insert(key(&text), &answer(&text, ttl), now);
                    model.insert(&text, ttl, now);
                }
                1 => {
                    cache.insert_failure(key(&text), now);
                    model.fail(&text, now);
                }
                _ => {
                    let found = cache.get(&key(&text), now).map(|found| match found {
                        Found::Answer(message) => u64::from(message.answers[0].ttl),
                        Found::Failed => 0,
                    });
                    prop_assert_eq!(found, model.get(&text, now));
                }
            }
            prop_assert_eq!(cache.len(), model.entries.len());
            prop_assert_eq!(cache.bytes(), model.bytes());
            prop_assert!(cache.bytes() <= Model::BYTES_MAX);
            prop_assert_eq!(cache.by_use.len(), cache.len());
            prop_assert_eq!(cache.by_end.len(), cache.len());
        }
    }
}
