//! Which version of a policy stands for an account, since when and why. Pure.
//!
//! It promises: silence is never consent, so a version that needs approval stands for nobody who neither approved it nor
//! joined under it; and no later version smuggles it in. What stands for somebody depends on nothing but what is given
//! here, and changes only when the time, the versions or what the person did change.

use serde::Serialize;

use super::Decision;
use crate::clock::Timestamp;
use crate::policy::{Approval, Change, OnSilence, OnUntold};

/// The settings that decide, as the policy had them when the version was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What holds for who was asked to approve and does not answer.
    pub on_silence: OnSilence,
    /// What holds for who could not be told.
    pub on_untold: OnUntold,
}

/// The person, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Person {
    /// When they joined the brand.
    pub joined_at: Timestamp,
    /// The number of the version that was accepted at sign-up.
    pub accepted: Option<i64>,
}

/// A version that was published and not withdrawn, and what it has to do with the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Its number.
    pub number: i64,
    /// How it changes the policy.
    pub change: Change,
    /// Whether it needs approval.
    pub approval: Approval,
    /// Under which rules it was published.
    pub rules: Rules,
    /// From when it holds.
    pub effective_at: Timestamp,
    /// When the person was told of it, by mail, letter or telephone; none: not yet, or not reached.
    pub told_at: Option<Timestamp>,
    /// What the person answers.
    pub answer: Option<Decision>,
}

/// Why a version stands, or why no later one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = StandsBecause)]
pub enum Because {
    /// It is the policy's first version.
    Baseline,
    /// The person joined the brand when it held already.
    JoinedAfter,
    /// It, or a later one, was accepted at sign-up.
    AcceptedAtSignUp,
    /// It changes nothing that people must be told of.
    Minor,
    /// The person was told of it.
    Told,
    /// The person approved it.
    Approved,
    /// The person could not be told; the policy lets it take effect all the same.
    TookEffectUntold,
    /// The earlier one stands: the person could not be told of a later one.
    NotTold,
    /// The earlier one stands: the person declined a later one.
    Declined,
    /// The earlier one stands: the person did not answer.
    Silence,
    /// The earlier one stands: a later one takes for granted what the person never approved.
    EarlierNotApproved,
    /// No version is in effect yet.
    NotInEffect,
}

/// What stands for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The number of the version that stands; none before the first one takes effect.
    pub version: Option<i64>,
    /// Since when it stands for this person.
    pub since: Option<Timestamp>,
    /// Why it stands, or why it stands still though later ones are in effect.
    pub because: Because,
    /// Whether the account is to be seen to, since no answer came.
    pub flagged: bool,
}

/// What keeps later versions from standing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    Nothing,
    /// Somebody who was not told of one version is not bound by it through a minor one after it.
    Untold,
    Unapproved,
    /// Somebody who said no is no newcomer, whenever they come back.
    Declined,
}

/// Which version stands for a person at `now`. `versions` come by number.
pub fn stands(person: Person, versions: &[Offered], now: Timestamp) -> Standing {
    let mut standing = Standing { version: None, since: None, because: Because::NotInEffect, flagged: false };
    let mut held = Held::Nothing;
    for (n, version) in versions.iter().filter(|version| version.effective_at <= now).enumerate() {
        let (because, next) =
            if n == 0 { (Because::Baseline, Held::Nothing) } else { judge(person, version, held) };
        standing.because = because;
        held = next;
        standing.flagged = match because {
            Because::Silence => version.rules.on_silence == OnSilence::AccountFlagged,
            // Still unanswered.
            Because::EarlierNotApproved => standing.flagged,
            _ => false,
        };
        if because.binds() {
            standing.version = Some(version.number);
            let from = since(person, version, because);
            // A minor one holds no earlier than what it follows, of which somebody may have been told late.
            let waited = standing.since.filter(|_| because == Because::Minor);
            standing.since = waited.max(Some(from));
        }
    }
    standing
}

impl Because {
    /// Whether the version stands of which this is said.
    fn binds(self) -> bool {
        match self {
            Self::Baseline
            | Self::JoinedAfter
            | Self::AcceptedAtSignUp
            | Self::Minor
            | Self::Told
            | Self::Approved
            | Self::TookEffectUntold => true,
            Self::NotTold | Self::Declined | Self::Silence | Self::EarlierNotApproved | Self::NotInEffect => {
                false
            }
        }
    }
}

/// What is to be said of a version that is in effect and not the first one, and what that means for those after it.
fn judge(person: Person, version: &Offered, held: Held) -> (Because, Held) {
    // Their own no counts for more than what a company's system says of them.
    let asked = version.approval == Approval::Required;
    let declined = asked && version.answer == Some(Decision::Decline);
    if !declined && person.accepted.is_some_and(|accepted| accepted >= version.number) {
        return (Because::AcceptedAtSignUp, Held::Nothing);
    }
    // Whoever is known to have accepted an earlier version only was here before, whenever the account was stored; and so was
    // whoever declined one.
    let newcomer = person.accepted.is_none() && !declined && held != Held::Declined;
    if newcomer && person.joined_at >= version.effective_at {
        return (Because::JoinedAfter, Held::Nothing);
    }
    if asked {
        return match version.answer {
            Some(Decision::Approve) => (Because::Approved, Held::Nothing),
            Some(Decision::Decline) => (Because::Declined, Held::Declined),
            // Who was never asked is not silent.
            None if version.told_at.is_none() => (Because::NotTold, held.max(Held::Unapproved)),
            None => (Because::Silence, held.max(Held::Unapproved)),
        };
    }
    if held >= Held::Unapproved {
        return (Because::EarlierNotApproved, held);
    }
    if version.change == Change::Minor {
        let because = if held == Held::Untold { Because::NotTold } else { Because::Minor };
        return (because, held);
    }
    match (version.told_at, version.rules.on_untold) {
        (Some(_), _) => (Because::Told, Held::Nothing),
        (None, OnUntold::TakesEffect) => (Because::TookEffectUntold, Held::Nothing),
        (None, OnUntold::EarlierVersionStands) => (Because::NotTold, Held::Untold),
    }
}

/// Since when a version stands that binds the person.
fn since(person: Person, version: &Offered, because: Because) -> Timestamp {
    let from = version.effective_at.max(person.joined_at);
    match (because, version.told_at) {
        // Told afterwards, by letter or telephone.
        (Because::Told, Some(told)) if version.rules.on_untold == OnUntold::EarlierVersionStands => {
            from.max(told)
        }
        _ => from,
    }
}

/// The versions that do not hold yet.
pub fn pending(versions: &[Offered], now: Timestamp) -> impl Iterator<Item = &Offered> {
    versions.iter().filter(move |version| version.effective_at > now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STRICT: Rules =
        Rules { on_silence: OnSilence::EarlierVersionStands, on_untold: OnUntold::EarlierVersionStands };
    const EASY: Rules = Rules { on_silence: OnSilence::AccountFlagged, on_untold: OnUntold::TakesEffect };
    const EARLY: Person = Person { joined_at: Timestamp(50), accepted: None };

    fn version(number: i64, change: Change) -> Offered {
        let approval = if change == Change::Adverse { Approval::Required } else { Approval::None };
        let effective_at = Timestamp(number * 100);
        Offered { number, change, approval, rules: STRICT, effective_at, told_at: None, answer: None }
    }

    /// With all versions published under these rules.
    fn stands(rules: Rules, person: Person, versions: &[Offered], now: Timestamp) -> Standing {
        let versions: Vec<Offered> = versions.iter().map(|version| Offered { rules, ..*version }).collect();
        super::stands(person, &versions, now)
    }

    fn told(number: i64, change: Change, at: i64) -> Offered {
        Offered { told_at: Some(Timestamp(at)), ..version(number, change) }
    }

    fn answered(number: i64, answer: Decision) -> Offered {
        Offered { answer: Some(answer), ..told(number, Change::Adverse, number * 100 - 50) }
    }

    /// Version, since, why, flagged, at the end of time.
    fn of(rules: Rules, person: Person, versions: &[Offered]) -> (Option<i64>, Option<i64>, Because, bool) {
        let found = stands(rules, person, versions, Timestamp(10_000));
        (found.version, found.since.map(|since| since.0), found.because, found.flagged)
    }

    #[test]
    fn each_rule_of_one_change_after_the_baseline() {
        let first = version(1, Change::Material);
        let late = Person { joined_at: Timestamp(250), accepted: None };
        let accepted = |number| Person { accepted: Some(number), ..EARLY };
        let adverse = told(2, Change::Adverse, 150);
        for (rules, person, second, expected) in [
            (STRICT, EARLY, version(2, Change::Minor), (Some(2), Some(200), Because::Minor, false)),
            (STRICT, EARLY, told(2, Change::Material, 150), (Some(2), Some(200), Because::Told, false)),
            (STRICT, EARLY, told(2, Change::NewUse, 260), (Some(2), Some(260), Because::Told, false)),
            (EASY, EARLY, told(2, Change::Material, 260), (Some(2), Some(200), Because::Told, false)),
            (
                EASY,
                EARLY,
                version(2, Change::Material),
                (Some(2), Some(200), Because::TookEffectUntold, false),
            ),
            (STRICT, EARLY, version(2, Change::Material), (Some(1), Some(100), Because::NotTold, false)),
            (STRICT, EARLY, adverse, (Some(1), Some(100), Because::Silence, false)),
            (EASY, EARLY, adverse, (Some(1), Some(100), Because::Silence, true)),
            (EASY, EARLY, version(2, Change::Adverse), (Some(1), Some(100), Because::NotTold, false)),
            (EASY, EARLY, answered(2, Decision::Decline), (Some(1), Some(100), Because::Declined, false)),
            (STRICT, EARLY, answered(2, Decision::Approve), (Some(2), Some(200), Because::Approved, false)),
            (STRICT, late, adverse, (Some(2), Some(250), Because::JoinedAfter, false)),
            (STRICT, accepted(2), adverse, (Some(2), Some(200), Because::AcceptedAtSignUp, false)),
            (STRICT, accepted(3), adverse, (Some(2), Some(200), Because::AcceptedAtSignUp, false)),
            (STRICT, accepted(1), adverse, (Some(1), Some(100), Because::Silence, false)),
            // Stored late, and known to have accepted the earlier one.
            (
                STRICT,
                Person { accepted: Some(1), ..late },
                adverse,
                (Some(1), Some(250), Because::Silence, false),
            ),
        ] {
            assert_eq!(of(rules, person, &[first, second]), expected, "{rules:?} {person:?} {second:?}");
        }
    }

    #[test]
    fn what_a_policy_says_later_changes_nothing_about_what_was_published() {
        let untold = |number, rules| Offered { rules, ..version(number, Change::Material) };
        let versions = [version(1, Change::Material), untold(2, EASY), untold(3, STRICT)];
        let found = super::stands(EARLY, &versions, Timestamp(10_000));
        assert_eq!((found.version, found.because), (Some(2), Because::NotTold));
    }

    #[test]
    fn before_the_first_takes_effect_none_stands_and_what_comes_next_is_pending() {
        let versions = [version(1, Change::Material), version(2, Change::Adverse)];
        let none = stands(STRICT, EARLY, &versions, Timestamp(99));
        assert_eq!((none.version, none.because), (None, Because::NotInEffect));
        assert_eq!(pending(&versions, Timestamp(99)).map(|next| next.number).collect::<Vec<_>>(), [1, 2]);
        let first = stands(STRICT, EARLY, &versions, Timestamp(199));
        assert_eq!((first.version, first.because), (Some(1), Because::Baseline));
        assert_eq!(pending(&versions, Timestamp(199)).map(|next| next.number).collect::<Vec<_>>(), [2]);
        assert_eq!(pending(&versions, Timestamp(200)).count(), 0);
    }

    #[test]
    fn no_later_version_smuggles_in_what_was_not_approved() {
        let first = version(1, Change::Material);
        for blocked in [told(2, Change::Adverse, 150), answered(2, Decision::Decline)] {
            let mut versions =
                vec![first, blocked, version(3, Change::Minor), told(4, Change::Material, 350)];
            let flagged = blocked.answer.is_none();
            let expected = (Some(1), Some(100), Because::EarlierNotApproved, flagged);
            assert_eq!(of(EASY, EARLY, &versions), expected);
            // Until a later one is approved, or accepted at sign-up.
            versions.push(answered(5, Decision::Approve));
            versions.push(version(6, Change::Minor));
            assert_eq!(of(EASY, EARLY, &versions).0, Some(6));
            let accepted = Person { accepted: Some(4), ..EARLY };
            assert_eq!(
                of(EASY, accepted, &versions[..4]),
                (Some(4), Some(400), Because::AcceptedAtSignUp, false)
            );
        }
    }

    #[test]
    fn who_was_not_told_is_not_bound_by_a_minor_version_after_it_but_by_the_next_told_one() {
        let mut versions =
            vec![version(1, Change::Material), version(2, Change::Material), version(3, Change::Minor)];
        assert_eq!(of(STRICT, EARLY, &versions), (Some(1), Some(100), Because::NotTold, false));
        versions.push(told(4, Change::Material, 350));
        assert_eq!(of(STRICT, EARLY, &versions), (Some(4), Some(400), Because::Told, false));
    }

    #[test]
    fn what_somebody_declined_holds_no_more_when_they_leave_and_come_back() {
        let back = |at| Person { joined_at: Timestamp(at), accepted: None };
        let mut versions = vec![version(1, Change::Material), answered(2, Decision::Decline)];
        assert_eq!(of(STRICT, back(250), &versions), (Some(1), Some(250), Because::Declined, false));
        // Nor does a later one bring it in under which they come back, until they agree to one.
        versions.extend([told(3, Change::Material, 250), told(4, Change::Adverse, 350)]);
        assert_eq!(of(STRICT, back(350), &versions[..3]).2, Because::EarlierNotApproved);
        assert_eq!(of(STRICT, back(450), &versions), (Some(1), Some(450), Because::Silence, false));
        versions.push(answered(5, Decision::Approve));
        assert_eq!(of(STRICT, back(450), &versions), (Some(5), Some(500), Because::Approved, false));
        // What is said of a use alone is about the use.
        let refused = Offered { answer: Some(Decision::Decline), ..version(2, Change::NewUse) };
        let found = of(STRICT, back(250), &[version(1, Change::Material), refused]);
        assert_eq!((found.0, found.2), (Some(2), Because::JoinedAfter));
    }

    #[test]
    fn a_minor_version_holds_since_somebody_was_told_of_what_it_follows() {
        let mut versions =
            vec![version(1, Change::Material), told(2, Change::Material, 460), version(3, Change::Minor)];
        assert_eq!(of(STRICT, EARLY, &versions), (Some(3), Some(460), Because::Minor, false));
        // Whoever was told of the next one in time is bound by that, whenever they heard of the one before.
        versions.push(told(4, Change::Material, 350));
        versions.push(version(5, Change::Minor));
        assert_eq!(of(STRICT, EARLY, &versions[..4]), (Some(4), Some(400), Because::Told, false));
        assert_eq!(of(STRICT, EARLY, &versions), (Some(5), Some(500), Because::Minor, false));
    }

    fn any_versions() -> impl Strategy<Value = Vec<Offered>> {
        let one = (
            prop::sample::select(Change::ALL.to_vec()),
            prop::sample::select(Approval::ALL.to_vec()),
            0_i64..300,
            prop::option::of(0_i64..2_000),
            prop::option::of(prop::sample::select(Decision::ALL.to_vec())),
        );
        prop::collection::vec(one, 0..8).prop_map(|versions| {
            let mut at = 0;
            let numbered = versions.into_iter().zip(1_i64..);
            numbered
                .map(|((change, approval, gap, told, answer), number)| {
                    at += gap;
                    let (effective_at, told_at) = (Timestamp(at), told.map(Timestamp));
                    Offered { number, change, approval, rules: STRICT, effective_at, told_at, answer }
                })
                .collect()
        })
    }

    fn any_rules() -> impl Strategy<Value = Rules> {
        let silence = prop::sample::select(OnSilence::ALL.to_vec());
        let untold = prop::sample::select(OnUntold::ALL.to_vec());
        (silence, untold).prop_map(|(on_silence, on_untold)| Rules { on_silence, on_untold })
    }

    fn any_person() -> impl Strategy<Value = Person> {
        (0_i64..2_000, prop::option::of(1_i64..9))
            .prop_map(|(at, accepted)| Person { joined_at: Timestamp(at), accepted })
    }

    proptest! {
        #[test]
        fn nobody_is_bound_by_what_needs_approval_without_an_act_of_their_own(
            versions in any_versions(), rules in any_rules(), person in any_person(), now in 0_i64..3_000,
        ) {
            let found = stands(rules, person, &versions, Timestamp(now));
            let Some(number) = found.version else {
                prop_assert!(versions.first().is_none_or(|first| first.effective_at.0 > now));
                return Ok(());
            };
            // Everything between the baseline and what stands that needs approval was approved, or overtaken by an act
            // that covers it: an approval or a sign-up later on.
            let acted = |version: &Offered| {
                version.approval == Approval::Required && version.answer == Some(Decision::Approve)
                    || person.accepted.is_some_and(|accepted| accepted >= version.number)
                    || (person.accepted.is_none() && person.joined_at >= version.effective_at)
            };
            let after: Vec<&Offered> = versions.iter().skip(1).filter(|version| version.number <= number).collect();
            for (n, version) in after.iter().enumerate() {
                if version.approval == Approval::Required {
                    prop_assert!(after[n..].iter().any(|later| acted(later)), "{version:?} of {found:?}");
                }
            }
        }

        #[test]
        fn what_stands_is_in_effect_and_since_neither_before_it_nor_before_the_account(
            versions in any_versions(), rules in any_rules(), person in any_person(), now in 0_i64..3_000,
        ) {
            let found = stands(rules, person, &versions, Timestamp(now));
            if let Some(number) = found.version {
                let version = versions.iter().find(|version| version.number == number).unwrap();
                prop_assert!(version.effective_at.0 <= now);
                prop_assert!(found.since.unwrap() >= version.effective_at.max(person.joined_at));
            }
            prop_assert_eq!(found.version.is_some(), found.since.is_some());
            prop_assert!(!found.flagged || rules.on_silence == OnSilence::AccountFlagged);
        }

        #[test]
        fn what_lies_ahead_changes_nothing(
            versions in any_versions(), rules in any_rules(), person in any_person(), now in 0_i64..3_000,
        ) {
            let past: Vec<Offered> =
                versions.iter().copied().filter(|version| version.effective_at.0 <= now).collect();
            prop_assert_eq!(
                stands(rules, person, &versions, Timestamp(now)),
                stands(rules, person, &past, Timestamp(now))
            );
        }

        #[test]
        fn silence_is_worth_no_more_than_a_refusal(
            versions in any_versions(), rules in any_rules(), person in any_person(), now in 0_i64..3_000,
        ) {
            let with = |answer| {
                let versions: Vec<Offered> =
                    versions.iter().map(|version| Offered { answer, ..*version }).collect();
                stands(rules, person, &versions, Timestamp(now)).version
            };
            // But that what was accepted at sign-up goes on until somebody says no.
            prop_assert!(with(Some(Decision::Decline)) <= with(None));
            // And whoever says no is no newcomer.
            if person.accepted.is_none() && versions.iter().all(|version| version.effective_at > person.joined_at) {
                prop_assert_eq!(with(None), with(Some(Decision::Decline)));
            }
            prop_assert!(with(Some(Decision::Approve)) >= with(None));
        }
    }
}
