//! Reports as mail servers write them, and whatever else comes.

use proptest::prelude::*;

use super::*;

/// A report with these fields, which each mail server wraps alike.
fn report(fields: &str) -> String {
    format!(
        "From: MAILER-DAEMON@mx.example\r\nTo: b+1@acme.example\r\nSubject: Undelivered Mail\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"A/mx.example\"\r\n\r\n\
         This is a MIME-encapsulated message.\r\n\r\n--A/mx.example\r\nContent-Type: text/plain\r\n\r\n\
         Your message could not be delivered.\r\n\r\n--A/mx.example\r\nContent-Description: Delivery report\r\n\
         Content-Type: message/delivery-status\r\n\r\n{}\r\n\
         --A/mx.example\r\nContent-Type: message/rfc822\r\n\r\nFrom: news@acme.example\r\nSubject: News\r\n\r\nHello.\r\n\
         \r\n--A/mx.example--\r\n",
        fields.replace('\n', "\r\n")
    )
}

/// The failure to deliver to this person that a mail speaks of.
#[track_caller]
fn failure(mail: &str, own: &str) -> Failure {
    match read(mail.as_bytes()) {
        Said::Failed(failures) => failures.of(|address| address.eq_ignore_ascii_case(own), Some(own)),
        other => panic!("{other:?}: {mail}"),
    }
}

fn words(text: &str) -> Option<String> {
    Some(text.to_owned())
}

const POSTFIX: &str = "Reporting-MTA: dns; mx.example\nX-Postfix-Queue-ID: 4F1\n\
    X-Postfix-Sender: rfc822; b+1@acme.example\nArrival-Date: Sun, 22 Nov 2026 10:00:00 +0000 (UTC)\n\n\
    Final-Recipient: rfc822; ann@people.example\nOriginal-Recipient: rfc822;ann@people.example\nAction: failed\n\
    Status: 5.1.1\nRemote-MTA: dns; mail.people.example\nDiagnostic-Code: smtp; 550 5.1.1 <ann@people.example>: Recipient\n \
    address rejected: User unknown\n";
const EXIM: &str = "Reporting-MTA: dns; exim.example\n\nAction: failed\nFinal-Recipient: rfc822;ann@people.example\n\
    Status: 5.0.0\nRemote-MTA: dns; mail.people.example\nDiagnostic-Code: smtp; 550 5.2.1 Mailbox disabled\n";
const EXCHANGE: &str = "Reporting-MTA: dns;EXCH01.corp.example\nReceived-From-MTA: dns;mail.acme.example\n\
    Arrival-Date: Sun, 22 Nov 2026 10:00:00 +0000\n\nFinal-Recipient: RFC822;ann@people.example\nAction: failed\n\
    Status: 5.1.10\nDiagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient\n\
    \tann@people.example not found by SMTP address lookup\nX-Display-Name: Ann\n";
const SENDMAIL: &str = "Reporting-MTA: dns; sm.example\nReceived-From-MTA: DNS; acme.example\n\n\
    Final-Recipient: RFC822; ann@people.example\nX-Actual-Recipient: RFC822; ann@inner.example\nAction: failed\n\
    Status: 5.1.1 (bad destination mailbox address)\nDiagnostic-Code: SMTP; 550 5.1.1 <ann@inner.example>... User unknown\n\
    Last-Attempt-Date: Sun, 22 Nov 2026 10:00:01 GMT\n";

#[test]
fn what_each_mail_server_says_is_understood() {
    for (fields, status, said) in [
        (POSTFIX, "5.1.1", "550 5.1.1 <…>: Recipient address rejected: User unknown"),
        (EXIM, "5.2.1", "550 5.2.1 Mailbox disabled"),
        (
            EXCHANGE,
            "5.1.10",
            "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient … not found by SMTP address lookup",
        ),
        (SENDMAIL, "5.1.1", "550 5.1.1 <…>... User unknown"),
    ] {
        let found = failure(&report(fields), "ann@people.example");
        let status = Some(status.to_owned());
        assert_eq!(
            found,
            Failure { status, words: words(said), permanent: true, mailbox_gone: true },
            "{fields}"
        );
    }
}

#[test]
fn what_speaks_of_policy_size_room_or_time_says_nothing_of_the_mailbox() {
    for (status, diagnostic, shown, permanent) in [
        ("5.7.1", "smtp; 550 5.7.1 spam", Some("5.7.1"), true),
        ("5.3.4", "smtp; 552 5.3.4 too large", Some("5.3.4"), true),
        ("5.2.2", "smtp; 552 5.2.2 over quota", Some("5.2.2"), true),
        ("5.0.0", "smtp; 550 no", Some("5.0.0"), true),
        ("4.4.1", "X-Postfix; connect to mx.example: timed out", Some("4.4.1"), false),
        ("4.1.1", "smtp; 450 4.1.1 greylisted", Some("4.1.1"), false),
        // Where the two disagree, nobody is taken for gone.
        ("5.1.1", "smtp; 550 5.7.1 you are blocked", Some("5.1.1"), true),
        ("5.7.1", "smtp; 550 5.1.1 unknown", Some("5.7.1"), true),
        ("", "smtp; 550 no such user", None, true),
        ("", "smtp; 451 later", None, false),
        ("2.0.0", "", None, false),
        ("5.1", "x-unix; 550 5.1.1 no smtp", None, false),
    ] {
        let fields = format!(
            "Reporting-MTA: dns; x\n\nFinal-Recipient: rfc822; a@b.example\nAction: failed\nStatus: {status}\n\
             Diagnostic-Code: {diagnostic}\n"
        );
        let found = failure(&report(&fields), "a@b.example");
        let seen = (found.status.as_deref(), found.permanent, found.mailbox_gone);
        assert_eq!(seen, (shown, permanent, false), "{fields}");
    }
}

#[test]
fn the_more_telling_status_counts_however_the_reply_is_written() {
    for diagnostic in [
        "550 5.1.1 x",
        "550-5.1.1 The account",
        "550 #5.1.1 x",
        "550 (5.1.1) x",
        "550 [5.1.1] x",
        "5.1.1 x",
        "550 5.1.1: x",
    ] {
        for status in ["", "Status: 5.0.0\n"] {
            for kind in ["smtp; ", "SMTP;", ""] {
                let fields = format!(
                    "Final-Recipient: rfc822; a@b.example\nAction: failed\n{status}Diagnostic-Code: {kind}{diagnostic}\n"
                );
                let found = failure(&report(&fields), "a@b.example");
                let seen = (found.status.as_deref(), found.permanent, found.mailbox_gone);
                assert_eq!(seen, (Some("5.1.1"), true, true), "{fields}");
            }
        }
    }
}

#[test]
fn of_several_recipients_the_one_who_fits_counts_and_else_the_first_who_failed() {
    let fields = "Reporting-MTA: dns; x\n\n\
        Final-Recipient: rfc822; list@b.example\nAction: expanded\nStatus: 2.0.0\n\n\
        Final-Recipient: rfc822; one@b.example\nAction: Failed (gone)\nStatus: 5.7.1\n\n\n\
        FINAL-RECIPIENT: RFC822; two@c.example\nORIGINAL-RECIPIENT: rfc822; ann+2Blists@people.example\n\
        ACTION: FAILED\nSTATUS: 5.1.1\n\n\
        Final-Recipient: utf-8; j\\x{F6}rg@people.example\nAction: failed\nStatus: 5.1.6\n\n\
        Final-Recipient: utf-8; zoë@people.example\nAction: failed\nStatus: 5.2.1\n";
    for (own, status) in [
        ("two@c.example", "5.1.1"),
        ("ann+lists@people.example", "5.1.1"),
        ("jörg@people.example", "5.1.6"),
        ("zoë@people.example", "5.2.1"),
        ("one@b.example", "5.7.1"),
        ("nobody@b.example", "5.7.1"),
        ("list@b.example", "5.7.1"),
    ] {
        assert_eq!(failure(&report(fields), own).status.as_deref(), Some(status), "{own}");
    }
}

#[test]
fn reports_in_other_letters_are_read_as_others_are() {
    let global = report(POSTFIX)
        .replace("message/delivery-status", "message/global-delivery-status")
        .replace("rfc822; ann@", "utf-8; änn@")
        .replace("<ann@people.example>", "<änn@people.example>");
    let found = failure(&global, "änn@people.example");
    assert_eq!((found.status.as_deref(), found.mailbox_gone), (Some("5.1.1"), true));
    assert!(!found.words.unwrap().contains("änn"));
    // Encoded for a way that takes ASCII alone, without empty lines where they belong, with bare line ends.
    let encoded = report("Action: failed=0AStatus: 5.1.1=\n\n").replace(
        "message/delivery-status\r\n",
        "Message/Global-Delivery-Status\r\nContent-Transfer-Encoding: quoted-printable\r\n",
    );
    assert_eq!(failure(&encoded, "a@b.example").status.as_deref(), Some("5.1.1"));
    let one_group = report(
        "Reporting-MTA: dns; x\nFinal-Recipient: rfc822; a@b.example\nAction: failed\nStatus: 5.1.1\n",
    );
    assert!(failure(&one_group.replace("\r\n", "\n"), "a@b.example").mailbox_gone);
}

#[test]
fn nothing_that_is_kept_names_the_person_or_is_long() {
    let long = "x".repeat(3_000);
    for said in [
        "550 5.1.1 user Ann.Lee unknown",
        "550 5.1.1 <ann.lee@people.example> unknown",
        "550 5.1.1 inner@elsewhere.example unknown, was inner",
        "550 5.1.1 ann.lee=people.example@srs.example",
        &format!("550 5.1.1 {long} ann.lee"),
        &format!("550 5.1.1 {} ann.lee@people.example", "y ".repeat(240)),
    ] {
        let fields = format!(
            "Original-Recipient: rfc822; Ann.Lee@people.example\nFinal-Recipient: rfc822; inner@elsewhere.example\n\
             Action: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; {said}\n"
        );
        // The person's own address may be known from here alone, from the report alone, or from both.
        let without = fields.replace("Original-Recipient: rfc822; Ann.Lee@people.example\n", "");
        for (fields, own) in [
            (&fields, "ann.lee@people.example"),
            (&fields, "erased@x.example"),
            (&without, "ann.lee@people.example"),
        ] {
            let words = failure(&report(fields), own).words.unwrap();
            let small = words.to_lowercase();
            assert!(!small.contains("lee") && !small.contains("inner") && !small.contains('@'), "{words}");
            assert!(words.chars().count() <= MAX_WORDS, "{words}");
        }
    }
}

#[test]
fn what_is_no_failure_or_no_report_is_none() {
    for (action, expected) in [
        ("delayed", Action::Delayed),
        ("Delivered", Action::Delivered),
        ("relayed (to x)", Action::Relayed),
        ("expanded", Action::Expanded),
        ("failing", Action::Other),
        ("", Action::Other),
    ] {
        let fields = format!("Final-Recipient: rfc822; a@b.example\nAction: {action}\nStatus: 5.1.1\n");
        assert_eq!(read(report(&fields).as_bytes()), Said::NoFailure(expected), "{action}");
    }
    assert_eq!(read(report("Reporting-MTA: dns; x\n").as_bytes()), Said::NoFailure(Action::Other));
    let whole = report(POSTFIX);
    for other in [
        String::new(),
        "Subject: I am away\r\nAuto-Submitted: auto-replied\r\n\r\nBack on Monday. Action: failed\r\n"
            .to_owned(),
        "Subject: Re: News\r\nContent-Type: text/plain\r\n\r\nAction: failed\r\nStatus: 5.1.1\r\n".to_owned(),
        whole.replace("report-type=delivery-status", "report-type=disposition-notification"),
        whole.replace(" report-type=delivery-status;", ""),
        whole.replace("multipart/report", "multipart/mixed"),
        whole.replace("message/delivery-status", "text/plain"),
        // A report inside of a message that somebody passes on.
        format!("Subject: Fwd\r\nContent-Type: message/rfc822\r\n\r\n{whole}"),
    ] {
        assert_eq!(read(other.as_bytes()), Said::NoReport, "{other}");
    }
}

#[test]
fn what_is_huge_deep_or_cut_off_costs_little() {
    let many = "Final-Recipient: rfc822; a@b.example\nAction: failed\nStatus: 5.1.1\n\n".repeat(20_000);
    let Said::Failed(Failures(groups)) = read(report(&many).as_bytes()) else { panic!() };
    assert!(groups.len() <= MAX_RECIPIENTS);
    let folded = format!("Action: failed\nDiagnostic-Code: smtp; 550\n{}", " 5.1.1 x\n".repeat(100_000));
    assert!(failure(&report(&folded), "a@b.example").words.unwrap().len() <= MAX_WORDS);
    let mut deep = String::new();
    for n in 0..2_000 {
        deep.push_str(&format!(
            "Content-Type: multipart/report; report-type=delivery-status; boundary=b{n}\r\n\r\n--b{n}\r\n"
        ));
    }
    assert_eq!(read(deep.as_bytes()), Said::NoReport);
    let whole = report(POSTFIX);
    for cut in 0..whole.len() {
        read(&whole.as_bytes()[..cut]);
    }
    let upto = whole.find("--A/mx.example\r\nContent-Type: message/rfc822").unwrap();
    assert!(failure(&whole[..upto + 60], "ann@people.example").mailbox_gone);
}

proptest! {
    #[test]
    fn whatever_octets_come_are_read_to_an_answer(octets in prop::collection::vec(any::<u8>(), 0..2_000)) {
        read(&octets);
    }

    #[test]
    fn whatever_fields_come_what_is_kept_is_bounded_and_names_nobody(
        pieces in prop::collection::vec(prop_oneof![
            4 => prop::sample::select(&[
                "Action: failed", "Action: delayed", "Status: 5.1.1", "Status: 4.0.0", "\n", "\r\n", " ", "\t", ":", ";",
                "Diagnostic-Code: smtp; 550 5.1.1 ", "Diagnostic-Code:", "Final-Recipient: rfc822; ", "Original-Recipient:utf-8;",
                "ann@people.example", "+2B", "\\x{F6}", "\\x{", "}", "<", ">", "(", "\0", "\u{fc}", "--A/mx.example", "--A/mx.example--",
            ][..]).prop_map(str::to_owned),
            1 => any::<String>(),
        ], 0..60),
    ) {
        if let Said::Failed(failures) = read(report(&pieces.concat()).as_bytes()) {
            let found = failures.of(|address| address.contains('y'), Some("ann@people.example"));
            if let Some(words) = found.words {
                prop_assert!(words.chars().count() <= MAX_WORDS && !words.contains(char::is_control));
                prop_assert!(!words.contains("ann@"), "{words}");
            }
            prop_assert!(!found.mailbox_gone || found.permanent);
            prop_assert!(found.status.is_none_or(|status| is_status(&status)));
        }
    }

    #[test]
    fn a_report_that_is_changed_in_any_place_is_read_to_an_answer(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut mail = report(POSTFIX).into_bytes();
        for (at, octet) in changes {
            let at = at.index(mail.len());
            mail[at] = octet;
        }
        read(&mail);
    }
}
