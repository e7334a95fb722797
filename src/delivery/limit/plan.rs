//! Which limits the settings ask for, and to what each applies.

use std::collections::HashMap;

use super::{Limit, Name, Rate, WarmUp};
use crate::config::{LimitEntry, Limited};

/// The limits of the settings.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    relay: Option<Limit>,
    /// Connections to the relay over all workers.
    connections: Option<u32>,
    /// The name and limit that a domain shares, by the domain.
    domains: HashMap<String, usize>,
    shared: Vec<(String, Limit)>,
    others: Option<Limit>,
}

impl Plan {
    /// Reads the settings' entries.
    pub fn new(entries: &[LimitEntry]) -> Self {
        let mut plan = Self::default();
        for entry in entries {
            let mut limit = limit_of(entry);
            match &entry.limited {
                Limited::Relay => {
                    // Of the relay it is connections that are counted, whatever goes through them.
                    plan.connections = limit.at_once.take();
                    plan.relay = (limit != Limit::default()).then_some(limit);
                }
                Limited::OtherDomains => plan.others = Some(limit),
                Limited::Domains(names) => {
                    let place = plan.shared.len();
                    plan.domains.extend(names.iter().map(|name| (name.clone(), place)));
                    let called = names.first().cloned().unwrap_or_default();
                    plan.shared.push((called, limit));
                }
            }
        }
        plan
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.relay.is_none() && self.others.is_none() && self.shared.is_empty()
    }

    /// The limit of everything that goes to the relay.
    pub fn relay(&self) -> Option<&Limit> {
        self.relay.as_ref()
    }

    /// How many connections to the relay all workers may have together.
    pub fn connections(&self) -> Option<u32> {
        self.connections
    }

    /// Under which name a domain is limited, or backed off from: its own, or that of those that it shares a limit with.
    pub fn name_of<'a>(&'a self, domain: &'a str) -> &'a str {
        self.domains
            .get(domain)
            .and_then(|place| self.shared.get(*place))
            .map_or(domain, |(called, _)| called.as_str())
    }

    /// The limit set for a domain.
    pub fn domain(&self, domain: &str) -> Option<&Limit> {
        match self.domains.get(domain).and_then(|place| self.shared.get(*place)) {
            Some((_, limit)) => Some(limit),
            None => self.others.as_ref(),
        }
    }

    /// Whether a domain has a limit that says how many may go until when.
    pub fn times_domains(&self) -> bool {
        self.shared.iter().map(|(_, limit)| limit).chain(&self.others).any(Limit::tells_when)
    }

    /// The limit set under this name; a campaign's stands in the database.
    pub fn limit(&self, name: &Name) -> Option<&Limit> {
        match name {
            Name::Relay => self.relay.as_ref(),
            Name::Domain(domain) => self.domain(domain),
            Name::Content(_) => None,
        }
    }

    /// What a metric may call it: a name of the settings, and never a recipient's domain that they do not name.
    pub fn label(&self, name: &Name) -> String {
        match name {
            Name::Relay => "relay".to_owned(),
            Name::Content(_) => "campaign".to_owned(),
            Name::Domain(domain) if self.domains.contains_key(domain) => domain.clone(),
            Name::Domain(_) => "*".to_owned(),
        }
    }
}

fn limit_of(entry: &LimitEntry) -> Limit {
    let epoch = chrono::NaiveDate::default();
    Limit {
        rate: entry.rate.map(|(messages, window)| Rate { messages, window }),
        at_once: entry.connections,
        warm_up: entry.warm_up.as_ref().map(|(from, days)| WarmUp {
            from: from.signed_duration_since(epoch).num_days(),
            days: days.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(limited: Limited, connections: u32) -> LimitEntry {
        LimitEntry { limited, rate: None, connections: Some(connections), warm_up: None }
    }

    #[test]
    fn a_domain_has_the_limit_that_names_it_or_else_its_own_of_the_rest() {
        let plan = Plan::new(&[
            entry(Limited::Domains(vec!["outlook.com".into(), "hotmail.com".into()]), 5),
            entry(Limited::OtherDomains, 2),
            entry(Limited::Relay, 20),
        ]);
        assert_eq!(plan.name_of("hotmail.com"), "outlook.com");
        assert_eq!(plan.domain("hotmail.com").unwrap().at_once, Some(5));
        assert_eq!(plan.name_of("a.example"), "a.example");
        assert_eq!(plan.domain("a.example").unwrap().at_once, Some(2));
        // Its connections are no limit of messages.
        assert_eq!((plan.relay(), plan.connections()), (None, Some(20)));
        assert_eq!(plan.label(&Name::Domain("hotmail.com".into())), "hotmail.com");
        assert_eq!(plan.label(&Name::Domain("a.example".into())), "*");
        assert!(Plan::default().is_empty() && Plan::default().domain("a.example").is_none());
    }

    #[test]
    fn a_warm_up_counts_days_from_its_first() {
        let from = chrono::NaiveDate::from_ymd_opt(1970, 1, 11).unwrap();
        let plan = Plan::new(&[LimitEntry {
            limited: Limited::OtherDomains,
            rate: None,
            connections: None,
            warm_up: Some((from, vec![50, 100])),
        }]);
        let warm_up = plan.domain("a.example").unwrap().warm_up.clone().unwrap();
        let most = |day| warm_up.most(day);
        assert_eq!((most(3), most(10), most(11), most(12)), (Some(50), Some(50), Some(100), None));
    }
}
