//! Whatever is done to a chain is named.

use proptest::prelude::*;

use super::*;

fn chain(count: i64) -> (Vec<Entry>, Head) {
    let notice = NoticeId::new();
    let mut head = Head::start();
    let mut entries = Vec::new();
    for n in 0..count {
        let person = (n % 3 > 0).then(|| vec![u8::try_from(n % 250).unwrap(); 32]);
        let body = format!("{{\"n\":{n},\"words\":\"ünd,\\\"body\\\":{{}}\"}}");
        let (entry, next) =
            head.follow(notice, Timestamp(1_800_000_000_000_000 + n * 7), "delivery", person, body);
        entries.push(entry);
        head = next;
    }
    (entries, head)
}

fn verified(entries: &[Entry], head: Option<&Head>) -> Result<Head, Break> {
    let mut verifier = Verifier::default();
    for entry in entries {
        verifier.push(entry.clone());
    }
    verifier.finish(head)
}

#[track_caller]
fn breaks(entries: &[Entry], head: Option<&Head>, seq: i64, fault: Fault) {
    assert_eq!(verified(entries, head), Err(Break { seq, fault }));
}

/// Numbers the entries as they stand.
fn renumbered(mut entries: Vec<Entry>) -> Vec<Entry> {
    for (entry, seq) in entries.iter_mut().zip(1..) {
        entry.seq = seq;
    }
    entries
}

fn changed(entry: &mut Entry, field: usize, how: u8) {
    let flip = |octets: &mut Vec<u8>| octets[usize::from(how) % 32] ^= how | 1;
    match field {
        0 => entry.notice = NoticeId::new(),
        1 => entry.at.0 += i64::from(how) + 1,
        2 => entry.kind.push('x'),
        3 => match &mut entry.person {
            Some(person) if how.is_multiple_of(2) => flip(person),
            Some(_) => entry.person = None,
            None => entry.person = Some(vec![how; 32]),
        },
        4 => entry.body = entry.body.replacen(':', ": ", 1),
        5 => flip(&mut entry.previous),
        _ => flip(&mut entry.hash),
    }
}

#[test]
fn a_whole_chain_is_whole_and_an_empty_one_too() {
    for count in 0..5 {
        let (entries, head) = chain(count);
        assert_eq!(verified(&entries, Some(&head)), Ok(head));
    }
    assert_eq!(verified(&[], None), Ok(Head::start()));
}

#[test]
fn the_hash_is_what_the_documentation_says() {
    let (mut entries, _) = chain(1);
    let entry = &mut entries[0];
    entry.notice = "01980000-0000-7000-8000-000000000001".parse().unwrap();
    entry.body = "{}".into();
    let text = "18:tidings evidence 1,36:01980000-0000-7000-8000-000000000001,1:1,20:2027-01-15T08:00:00Z,\
                8:delivery,1:-,2:{},64:0000000000000000000000000000000000000000000000000000000000000000,";
    assert_eq!(entry.hash_as(1), Sha256::digest(text).to_vec());
}

#[test]
fn fields_do_not_run_into_each_other() {
    let (entries, _) = chain(1);
    let mut other = entries[0].clone();
    other.kind = "delivery,1:-".into();
    assert_ne!(other.hash_as(1), entries[0].hash_as(1));
    other = entries[0].clone();
    other.person = Some(Vec::new());
    assert_ne!(other.hash_as(1), entries[0].hash_as(1), "nobody is not an empty hash");
}

#[test]
fn what_happens_to_the_head_is_found() {
    let (entries, head) = chain(4);
    breaks(&entries, None, 4, Fault::NoHead);
    breaks(&entries, Some(&Head { seq: 6, ..head.clone() }), 5, Fault::Missing);
    breaks(&entries, Some(&Head { seq: 3, ..head.clone() }), 4, Fault::Inserted);
    breaks(&entries, Some(&Head { hash: vec![1; 32], ..head.clone() }), 4, Fault::Head);
    breaks(&entries[..3], Some(&head), 4, Fault::Missing);
    let far = Entry { seq: 900, ..entries[1].clone() };
    breaks(&[&entries[..], &[far]].concat(), Some(&head), 900, Fault::Inserted);
    breaks(&[], Some(&head), 1, Fault::Missing);
}

#[test]
fn the_last_entry_made_anew_does_not_match_the_head() {
    let (mut entries, head) = chain(4);
    entries[3].body = "{}".into();
    entries[3].hash = entries[3].hash_as(4);
    breaks(&entries, Some(&head), 4, Fault::Head);
}

#[test]
fn another_notices_chain_cannot_stand_in() {
    let (mine, head) = chain(4);
    let (other, _) = chain(4);
    breaks(&[&mine[..2], &other[2..]].concat(), Some(&head), 3, Fault::Changed);
}

#[test]
fn a_line_is_read_as_it_was_written_and_in_no_other_way() {
    for entry in chain(4).0 {
        let line = entry.to_line();
        assert_eq!(Entry::from_line(&line).as_ref(), Some(&entry));
        assert!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["body"]["n"].is_i64());
        for bad in [
            line.replacen("\"seq\":", "\"seq\": ", 1),
            line.replacen("Z\"", "+00:00\"", 1),
            format!("{line} "),
            line[..line.len() - 1].to_owned(),
            line.replacen("\"n\":", "", 1),
        ] {
            assert_eq!(Entry::from_line(&bad), None, "{bad}");
        }
    }
}

proptest! {
    #[test]
    fn a_changed_field_is_named(count in 1i64..30, at in 0usize..30, field in 0usize..7, how: u8) {
        let (mut entries, head) = chain(count);
        let at = at % entries.len();
        changed(&mut entries[at], field, how);
        let seq = at as i64 + 1;
        prop_assert_eq!(verified(&entries, Some(&head)), Err(Break { seq, fault: Fault::Changed }));
    }

    #[test]
    fn an_entry_that_was_made_anew_with_its_hash_is_named(count in 2i64..30, at in 0usize..30, field in 1usize..5, how: u8) {
        let (mut entries, head) = chain(count);
        let at = at % (entries.len() - 1);
        changed(&mut entries[at], field, how);
        let seq = at as i64 + 1;
        entries[at].hash = entries[at].hash_as(seq);
        prop_assert_eq!(verified(&entries, Some(&head)), Err(Break { seq, fault: Fault::Changed }));
    }

    #[test]
    fn a_removed_entry_is_named_whether_the_others_move_up_or_not(count in 1i64..30, at in 0usize..30, up: bool) {
        let (mut entries, head) = chain(count);
        let at = at % entries.len();
        entries.remove(at);
        let entries = if up { renumbered(entries) } else { entries };
        let seq = at as i64 + 1;
        prop_assert_eq!(verified(&entries, Some(&head)), Err(Break { seq, fault: Fault::Missing }));
    }

    #[test]
    fn an_inserted_entry_is_named_however_well_it_was_made(count in 1i64..30, at in 0usize..31, well: bool, copy: bool) {
        let (mut entries, head) = chain(count);
        let at = at % (entries.len() + 1);
        let seq = at as i64 + 1;
        let before = if at == 0 { Head::start() } else { Head { seq: seq - 1, hash: entries[at - 1].hash.clone() } };
        let mut new = before.follow(entries[0].notice, Timestamp(7), "told", None, "{}".into()).0;
        if !well {
            new.hash = vec![7; 32];
        }
        if copy && at > 0 {
            new = entries[at - 1].clone();
        }
        entries.insert(at, new);
        let found = verified(&renumbered(entries), Some(&head)).unwrap_err();
        prop_assert_eq!(found.fault, Fault::Inserted);
        // Of an entry that stands there twice nobody can say which is the copy.
        prop_assert!(found.seq == seq || copy && found.seq == seq - 1, "{:?}", found);
    }

    #[test]
    fn two_entries_that_changed_places_are_named(count in 2i64..30, one in 0usize..30, by in 1usize..30, numbers: bool) {
        let (mut entries, head) = chain(count);
        let one = one % (entries.len() - 1);
        let other = one + 1 + (by - 1) % (entries.len() - 1 - one);
        entries.swap(one, other);
        // In a table the numbers change places; in a file the lines do.
        let entries = if numbers { renumbered(entries) } else { entries };
        let found = verified(&entries, Some(&head)).unwrap_err();
        prop_assert_eq!(found.seq, one as i64 + 1);
        prop_assert!(matches!(found.fault, Fault::OutOfOrder { .. }), "{:?}", found);
    }

    #[test]
    fn an_entry_under_another_number_is_named(count in 2i64..30, at in 0usize..30, to in -3i64..60) {
        let (mut entries, head) = chain(count);
        let at = at % entries.len();
        let seq = at as i64 + 1;
        // Only a number that is free can be taken.
        prop_assume!(!(1..=count).contains(&to));
        entries[at].seq = to;
        entries.sort_by_key(|entry| entry.seq);
        prop_assert_eq!(verified(&entries, Some(&head)), Err(Break { seq, fault: Fault::OutOfOrder { stands_at: to } }));
    }

    #[test]
    fn nothing_that_is_read_as_a_line_panics(line in ".{0,200}") {
        let _ = Entry::from_line(&line);
    }
}
