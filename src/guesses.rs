//! Wrong guesses: how many links and keys that do not verify a client may send before it is told to slow down.
//!
//! It promises to know only of what did not verify: whoever holds a link or a key that counts is served however many
//! wrong ones came from the same address, since mailbox providers send thousands of people's clicks from a few. Its
//! memory is fixed at the start, whatever comes: clients share a table of slots by a keyed hash, which nobody outside can
//! steer, and two that share one share nothing but how soon their wrong guesses are answered with 429.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

/// Wrong guesses that a client may make at once.
pub const BURST: u32 = 100;
/// Wrong guesses that a client may make a second from then on.
const A_SECOND: u32 = 1;
/// Slots of eight octets that clients share.
const SLOTS: usize = 1 << 16;

/// Who asks, as far as the network tells: an IPv4 address, or the /64 that one IPv6 customer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        })
    }
}

impl Default for Client {
    /// Nobody knows who: everyone of whom that holds counts as one.
    fn default() -> Self {
        Self(Ipv4Addr::UNSPECIFIED.into())
    }
}

type Limiter<C> = RateLimiter<Client, Slots, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// What is known of the wrong guesses of every client.
pub struct Guesses<C: Clock = MonotonicClock> {
    limiter: Limiter<C>,
    clock: C,
}

impl Default for Guesses {
    fn default() -> Self {
        Self::new(MonotonicClock)
    }
}

impl<C: Clock + Clone> Guesses<C> {
    fn new(clock: C) -> Self {
        let each = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(each(A_SECOND)).allow_burst(each(BURST));
        Self { limiter: RateLimiter::new(quota, Slots::default(), clock.clone()), clock }
    }

    /// Counts a wrong guess of this client at `what`: a `link` or a `key`.
    ///
    /// # Errors
    /// It has made too many: how long until the next one is looked at, never less than a second.
    pub fn wrong(&self, client: Client, what: &'static str) -> Result<(), Duration> {
        let answer = self.limiter.check_key(&client).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            Duration::from_secs(wait.as_secs().saturating_add(1))
        });
        let limited = if answer.is_err() { "true" } else { "false" };
        metrics::counter!("tidings_wrong_guesses_total", "what" => what, "limited" => limited).increment(1);
        answer
    }
}

/// How far each slot's guesses reach into the future.
struct Slots {
    hasher: RandomState,
    slots: Box<[InMemoryState]>,
}

impl Default for Slots {
    fn default() -> Self {
        Self { hasher: RandomState::new(), slots: (0..SLOTS).map(|_| InMemoryState::default()).collect() }
    }
}

impl StateStore for Slots {
    type Key = Client;

    fn measure_and_replace<T, F, E>(&self, client: &Client, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let hash = self.hasher.hash_one(client);
        let slot = usize::try_from(hash % SLOTS as u64).unwrap_or_default();
        self.slots[slot].measure_and_replace(&NotKeyed::NonKey, decide)
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn client(address: &str) -> Client {
        Client::from(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_network() {
        assert_eq!(client("192.0.2.7"), client("::ffff:192.0.2.7"));
        assert_ne!(client("192.0.2.7"), client("192.0.2.8"));
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
    }

    #[test]
    fn after_a_burst_guesses_are_let_through_one_by_one_again() {
        let clock = FakeRelativeClock::default();
        let guesses = Guesses::new(clock.clone());
        let one = client("192.0.2.7");
        let burst = (0..BURST).filter(|_| guesses.wrong(one, "link").is_ok()).count();
        assert_eq!(burst, BURST as usize);
        let wait = guesses.wrong(one, "link").unwrap_err();
        assert!((1..=2).contains(&wait.as_secs()), "{wait:?}");
        clock.advance(wait);
        assert!(guesses.wrong(one, "link").is_ok());
        assert!(guesses.wrong(one, "link").is_err() || guesses.wrong(one, "link").is_err());
    }

    #[test]
    fn clients_without_number_take_no_memory_and_leave_most_others_alone() {
        let guesses = Guesses::new(FakeRelativeClock::default());
        for n in 0..200_000_u128 {
            let _ =
                guesses.wrong(IpAddr::from(Ipv6Addr::from((0x2001_0db8 << 96) | (n << 64))).into(), "link");
        }
        assert_eq!(guesses.limiter.into_state_store().slots.len(), SLOTS);
    }
}
