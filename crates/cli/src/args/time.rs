//! Times as people give them.

/// A time, or how long ago it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Milliseconds since 1970-01-01 UTC.
    At(u64),
    /// Milliseconds before now.
    Ago(u64),
}

impl Moment {
    /// The time in milliseconds since 1970-01-01 UTC, seen from `now_ms`.
    pub(crate) fn at_ms(self, now_ms: u64) -> u64 {
        match self {
            Self::At(at_ms) => at_ms,
            Self::Ago(ago_ms) => now_ms.saturating_sub(ago_ms),
        }
    }
}

/// Reads RFC 3339 (a date alone is its midnight UTC), seconds since 1970, or an age such as `1h30m`.
pub(crate) fn moment(text: &str) -> Result<Moment, String> {
    let found = if text.is_empty() {
        None
    } else if text.contains('-') {
        date_time(text).map(Moment::At)
    } else if text.ends_with(|c: char| c.is_ascii_digit()) {
        decimal_ms(text).map(Moment::At)
    } else {
        age(text).map(Moment::Ago)
    };
    found.ok_or_else(|| {
        "write 2026-01-02T15:04:05Z, seconds since 1970, or an age such as 1h30m".to_owned()
    })
}

/// Seconds with up to any number of decimals, in milliseconds.
fn decimal_ms(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let padded: String = fraction.chars().chain("000".chars()).take(3).collect();
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(padded.parse().ok()?)
}

fn age(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let word = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(word);
        // `decimal_ms` gives thousandths of whatever the unit is.
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        if number.is_empty() {
            return None;
        }
        total_ms = total_ms.checked_add(decimal_ms(number)?.checked_mul(unit_ms)? / 1000)?;
        rest = tail;
    }
    Some(total_ms)
}

/// RFC 3339, section 5.6. Years before 1970 are none that a log could hold.
fn date_time(text: &str) -> Option<u64> {
    let (date, time) = text
        .split_once(['T', 't', ' '])
        .unwrap_or((text, "00:00:00Z"));
    let mut parts = date
        .split('-')
        .map(|part| number(part, if part.len() == 4 { 4 } else { 2 }));
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || year < 1970 || !(1..=12).contains(&month) {
        return None;
    }
    if !(1..=month_days(year, month)).contains(&day) {
        return None;
    }
    let (clock, offset_s) = offset(time)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':').map(|part| number(part, 2));
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let seconds = u64::try_from(seconds - offset_s).ok()?;
    decimal_ms(&format!("{seconds}.{fraction}"))
}

/// The time of day without its offset, and the offset in seconds east of UTC.
fn offset(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let Some(at) = time.rfind(['+', '-']) else {
        return Some((time, 0));
    };
    let (clock, offset) = time.split_at(at);
    let (hours, minutes) = offset[1..].split_once(':')?;
    let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    Some((clock, sign * (hours * 3600 + minutes * 60)))
}

fn number(text: &str, digits: usize) -> Option<i64> {
    let sound = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    if sound { text.parse().ok() } else { None }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let leaps = before / 4 - before / 100 + before / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    let months: i64 = (1..month).map(|month| month_days(year, month)).sum();
    (year - 1970) * 365 + leaps + months + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        let cases = [
            ("1970-01-01T00:00:00Z", Moment::At(0)),
            ("2026-11-20T13:26:58.5Z", Moment::At(1_795_181_218_500)),
            ("2026-11-20T14:26:58+01:00", Moment::At(1_795_181_218_000)),
            ("2024-02-29", Moment::At(1_709_164_800_000)),
            ("1795181218.25", Moment::At(1_795_181_218_250)),
            ("10m", Moment::Ago(600_000)),
            ("1h30m", Moment::Ago(5_400_000)),
            ("1.5s", Moment::Ago(1500)),
            ("250ms", Moment::Ago(250)),
        ];
        for (text, expected) in cases {
            assert_eq!(moment(text), Ok(expected), "{text}");
        }
        assert_eq!(Moment::Ago(5).at_ms(3), 0);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "m",
            "10",
            "tomorrow",
            "2026-13-01",
            "2026-02-30",
            "2023-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00+25:00",
            "1960-01-01",
            "5x",
            "-5m",
            "99999999999999999999s",
        ] {
            // Seconds since 1970 are a time too.
            assert_eq!(moment(text).is_ok(), text == "10", "{text}");
        }
    }
}
