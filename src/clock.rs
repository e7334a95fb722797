//! Time: the database's clock for what is written and judged, a boot clock for deadlines inside a process.
//!
//! [`Timestamp`] is what the database stores and the API shows. Leases, due times and events take their time from the
//! database's own clock, through [`Clock::now_sql`], so that the clocks of several machines never have to agree.
//! [`Local`] is such a moment together with the clock on the wall where it was named, for the day that people read.
//! [`Instant`] counts a worker's own deadlines and runs on through suspend, which [`std::time::Instant`] does not.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Datelike as _, FixedOffset, NaiveDate, NaiveDateTime, SecondsFormat, Utc};
use sea_orm::{DbBackend, DeriveValueType};
use serde::{Deserialize, Serialize};

/// The years that RFC 3339 can write.
const YEARS: RangeInclusive<i32> = 0..=9999;

/// Microseconds since 1970-01-01T00:00:00Z; shown as RFC 3339 in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This moment by the process's clock. For what is only shown or signed into a link; what is stored and judged
    /// uses the database's clock.
    pub fn now() -> Self {
        Self(Utc::now().timestamp_micros())
    }

    /// The moment `by` later.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same moment for calendars and headers; the epoch when out of a calendar's range.
    pub fn to_datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_datetime().to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

/// As it is shown: microseconds mean nothing to whoever reads them.
impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(|local: Local| local.at)
    }
}

/// Whether it is a day, or a day and a time of day, of which nobody knows where.
fn without_zone(text: &str) -> bool {
    text.parse::<NaiveDateTime>().is_ok() || text.parse::<NaiveDate>().is_ok()
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for Timestamp {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::DateTime)))
            .into()
    }
}

impl utoipa::ToSchema for Timestamp {}

/// A moment as somebody named it, with the distance to UTC of the clock by which they did: the day on which it is there
/// may be another one than in UTC. Read from and shown as RFC 3339 with that distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// The moment.
    pub at: Timestamp,
    /// By how many minutes that clock is ahead of UTC; below zero where it is behind.
    pub east: i64,
}

impl Local {
    /// The day on which it is there.
    pub fn date(self) -> NaiveDate {
        self.shifted().date_naive()
    }

    /// Day and time of day there, for people, with the distance to UTC: `2027-01-31 00:00 UTC+01:00`.
    pub fn in_figures(self) -> String {
        let there = self.shifted().format("%Y-%m-%d %H:%M UTC");
        if self.east == 0 { there.to_string() } else { format!("{there}{}", self.distance()) }
    }

    /// What a clock in UTC would show at the moment at which that clock shows this.
    fn shifted(self) -> DateTime<Utc> {
        Timestamp(self.at.0.saturating_add(self.east.saturating_mul(60_000_000))).to_datetime()
    }

    /// `+01:00`.
    fn distance(self) -> String {
        let (sign, minutes) = (if self.east < 0 { '-' } else { '+' }, self.east.unsigned_abs());
        format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// By a clock in UTC.
impl From<Timestamp> for Local {
    fn from(at: Timestamp) -> Self {
        Self { at, east: 0 }
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let there = self.shifted().to_rfc3339_opts(SecondsFormat::AutoSi, true);
        if self.east == 0 {
            f.write_str(&there)
        } else {
            write!(f, "{}{}", there.trim_end_matches('Z'), self.distance())
        }
    }
}

impl FromStr for Local {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let local = DateTime::parse_from_rfc3339(text)
            .map(|named: DateTime<FixedOffset>| Self {
                at: Timestamp(named.timestamp_micros()),
                east: i64::from(named.offset().local_minus_utc() / 60),
            })
            .map_err(|_| match without_zone(text) {
                true => format!("{text:?} has no time zone: write 2027-01-31T00:00:00Z, or an offset such as +01:00 for the Z"),
                false => format!("{text:?} is not an RFC 3339 time such as 2027-01-31T00:00:00Z"),
            })?;
        // A leap second at the end of a year is kept as the first one of the next.
        if [local.at.to_datetime(), local.shifted()].iter().any(|there| !YEARS.contains(&there.year())) {
            return Err(format!(
                "{text:?} is outside the years 0000 to 9999 in UTC, which is all that RFC 3339 can write"
            ));
        }
        Ok(local)
    }
}

impl Serialize for Local {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Local {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for Local {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        Timestamp::schema()
    }
}

impl utoipa::ToSchema for Local {}

/// A duration in microseconds, saturating.
pub fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The database's clock, as an expression for statements.
///
/// A test shifts it to see what a day or two years later brings; the program never does.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// What is added to the time; the time itself for a clock that stands.
    shift_micros: Arc<AtomicI64>,
    stands: bool,
}

impl Clock {
    /// A clock that moves only when it is advanced: what hangs on it happens alike each time.
    pub fn standing(at: Timestamp) -> Self {
        Self { shift_micros: Arc::new(AtomicI64::new(at.0)), stands: true }
    }

    /// An SQL expression of type bigint: now, in microseconds since 1970.
    ///
    /// On PostgreSQL it is the start of the transaction, which errs on the safe side for leases.
    pub fn now_sql(&self, backend: DbBackend) -> String {
        let now = match backend {
            _ if self.stands => "CAST(0 AS bigint)",
            DbBackend::Sqlite => "CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
            _ => "CAST(extract(epoch FROM now()) * 1000000 AS bigint)",
        };
        format!("({now} + {})", self.shift_micros.load(Ordering::Relaxed))
    }

    /// As [`Clock::now_sql`], but the moment at which the statement runs, however long ago its transaction began: for what
    /// is decided under a lock that had to be waited for.
    pub fn moment_sql(&self, backend: DbBackend) -> String {
        self.now_sql(backend).replace("now()", "clock_timestamp()")
    }

    /// This process's time with the same shift.
    pub fn now(&self) -> Timestamp {
        let now = if self.stands { 0 } else { Timestamp::now().0 };
        Timestamp(now + self.shift_micros.load(Ordering::Relaxed))
    }

    /// Lets the database's time jump forward.
    pub fn advance(&self, by: Duration) {
        self.shift_micros.fetch_add(micros(by), Ordering::Relaxed);
    }
}

/// A moment on a clock that only moves forward and counts suspended time (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    /// This moment.
    pub fn now() -> Self {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(t.tv_nsec).unwrap_or(0);
        Self(Duration::new(seconds, nanos))
    }

    /// The moment `by` later.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// How long it is until then; zero when it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_sub(Self::now().0)
    }

    /// How long ago it was; zero when it lies ahead.
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }

    /// Whether this moment has come.
    pub fn has_passed(self) -> bool {
        Self::now() >= self
    }
}

/// A deadline that its holder can move while others watch it; cheap to clone, all clones move together.
#[derive(Clone, Debug)]
pub struct Deadline(Arc<AtomicI64>);

impl Deadline {
    /// A deadline at this moment.
    pub fn at(instant: Instant) -> Self {
        Self(Arc::new(AtomicI64::new(micros(instant.0))))
    }

    /// Moves it to this moment.
    pub fn move_to(&self, instant: Instant) {
        self.0.store(micros(instant.0), Ordering::SeqCst);
    }

    /// Whether it has passed. Ask right before a write that cannot be taken back.
    pub fn has_passed(&self) -> bool {
        micros(Instant::now().0) >= self.0.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_reads_what_it_writes() {
        let at: Timestamp = "2027-01-31T00:00:00.000001Z".parse().unwrap();
        assert_eq!(at.to_string(), "2027-01-31T00:00:00.000001Z");
        assert_eq!(
            "2027-01-31T01:00:00+01:00".parse::<Timestamp>().unwrap().to_string(),
            "2027-01-31T00:00:00Z"
        );
        assert!("yesterday".parse::<Timestamp>().unwrap_err().contains("RFC 3339"));
        for nowhere in ["2027-01-31T00:00:00", "2027-01-31T00:00:00.5", "2027-01-31"] {
            assert!(nowhere.parse::<Timestamp>().unwrap_err().contains("no time zone"), "{nowhere}");
        }
    }

    #[test]
    fn a_moment_that_cannot_be_written_is_refused() {
        for first_and_last in [
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999Z",
            "9999-12-31T23:59:59+14:00",
            "0000-01-01T00:00:00-14:00",
        ] {
            let local: Local = first_and_last.parse().unwrap();
            assert_eq!(local.to_string(), first_and_last);
            assert_eq!(local.at.to_string().parse(), Ok(local.at), "{first_and_last}");
        }
        for beyond in [
            "9999-12-31T23:59:59-14:00",
            "9999-12-31T23:59:59-00:01",
            "9999-12-31T23:59:60Z",
            "9999-12-31T23:59:60+14:00",
            "0000-01-01T00:00:00+00:01",
        ] {
            assert!(beyond.parse::<Local>().unwrap_err().contains("the years 0000 to 9999"), "{beyond}");
            assert!(beyond.parse::<Timestamp>().is_err(), "{beyond}");
        }
    }

    #[test]
    fn a_moment_is_on_the_day_of_the_clock_by_which_it_was_named() {
        for (named, day, figures) in [
            ("2027-01-31T00:00:00+01:00", "2027-01-31", "2027-01-31 00:00 UTC+01:00"),
            ("2027-01-30T23:00:00Z", "2027-01-30", "2027-01-30 23:00 UTC"),
            ("2027-01-30T22:30:00.5-09:30", "2027-01-30", "2027-01-30 22:30 UTC-09:30"),
            ("2028-02-29T23:59:59+14:00", "2028-02-29", "2028-02-29 23:59 UTC+14:00"),
        ] {
            let local: Local = named.parse().unwrap();
            assert_eq!((local.date().to_string().as_str(), local.in_figures().as_str()), (day, figures));
            assert_eq!(local.at, named.parse().unwrap(), "{named}");
            assert_eq!(local.to_string().parse(), Ok(local), "{named}");
        }
        assert_eq!(
            "2027-01-31T00:00:00+01:00".parse::<Local>().unwrap().to_string(),
            "2027-01-31T00:00:00+01:00"
        );
        assert_eq!(Local::from(Timestamp(0)).to_string(), "1970-01-01T00:00:00Z");
    }
}
