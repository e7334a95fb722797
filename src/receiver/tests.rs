//! Whatever is said to the receiver, and however its octets come.

use proptest::prelude::*;

use super::dialogue::Dialogue;
use super::unstuff::Unstuff;
use super::*;

/// What came of octets heard in pieces: the answers, and the messages.
fn hear(octets: &[u8], pieces: &[usize]) -> (String, Vec<Mail>) {
    let limits = Limits { message: 2_000, kept: 500, recipients: 3, ..Limits::default() };
    let manners = Manners { name: "t.example".into(), words: "a test", limits };
    let mut dialogue = Dialogue::new(&manners);
    let (mut said, mut mails, mut rest) = (Vec::new(), Vec::new(), octets);
    let mut pieces = pieces.iter().copied().cycle();
    while !rest.is_empty() {
        let (mut piece, later) = rest.split_at(pieces.next().unwrap_or(usize::MAX).clamp(1, rest.len()));
        let takes = |to: &str| if to.contains("no") { Err("550 5.1.1 no".into()) } else { Ok(()) };
        while let Some(mail) = dialogue.hear(&mut piece, takes) {
            dialogue.taken(if mail.from.contains("later") { "451 4.3.0 later" } else { "250 2.0.0 taken" });
            mails.push(mail);
        }
        said.extend(dialogue.replies());
        if dialogue.is_over() {
            break;
        }
        rest = later;
    }
    said.extend(dialogue.replies());
    (String::from_utf8(said).unwrap(), mails)
}

/// The answers' codes; an answer of several lines counts once.
fn codes(said: &str) -> Vec<u16> {
    said.split_terminator("\r\n")
        .filter(|line| line.as_bytes()[3] == b' ')
        .map(|line| line[..3].parse().unwrap())
        .collect()
}

/// The same by another way: cut at the first CRLF dot CRLF, then line by line.
fn message_and_rest(octets: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let with_line_end: Vec<u8> = b"\r\n".iter().chain(octets).copied().collect();
    let at = with_line_end.windows(5).position(|window| window == b"\r\n.\r\n")?;
    let body = &octets[..at];
    let mut text = Vec::new();
    let mut line_begins = true;
    for (n, &octet) in body.iter().enumerate() {
        if !(line_begins && octet == b'.') {
            text.push(octet);
        }
        line_begins = octet == b'\n' && n > 0 && body[n - 1] == b'\r';
    }
    Some((text, &octets[at + 3..]))
}

#[test]
fn a_whole_talk_in_one_go_is_answered_in_order() {
    let talk = b"EHLO c\r\nMAIL FROM:<a@x.example> BODY=8BITMIME SIZE=9\r\nRCPT TO:<b@x.example>\r\nDATA\r\nx\r\n.\r\nNOOP\r\nQUIT\r\nNOOP\r\n";
    let (said, mails) = hear(talk, &[]);
    assert_eq!(codes(&said), [220, 250, 250, 250, 354, 250, 250, 221], "{said}");
    let [mail] = &mails[..] else { panic!("{mails:?}") };
    assert_eq!(
        (mail.from.as_str(), &mail.to[..], &mail.bytes[..]),
        ("a@x.example", &["b@x.example".to_owned()][..], &b"x\r\n"[..])
    );
    for offered in ["PIPELINING", "8BITMIME", "SIZE 2000", "ENHANCEDSTATUSCODES"] {
        assert!(said.contains(&format!("250-{offered}\r\n")) || said.contains(&format!("250 {offered}\r\n")));
    }
}

#[test]
fn lmtp_answers_a_message_for_each_of_its_recipients() {
    let to = "RCPT TO:<b@x.example>\r\nRCPT TO:<no@x.example>\r\nRCPT TO:<c@x.example>\r\n";
    for (from, answer) in [("a@x.example", 250), ("later@x.example", 451)] {
        let (said, mails) =
            hear(format!("LHLO c\r\nMAIL FROM:<{from}>\r\n{to}DATA\r\nx\r\n.\r\nNOOP\r\n").as_bytes(), &[]);
        assert_eq!(codes(&said), [220, 250, 250, 250, 550, 250, 354, answer, answer, 250], "{said}");
        assert_eq!(mails[0].to, ["b@x.example", "c@x.example"]);
    }
    let large = "x".repeat(2_001);
    let (said, mails) =
        hear(format!("LHLO c\r\nMAIL FROM:<>\r\n{to}DATA\r\n{large}\r\n.\r\n").as_bytes(), &[]);
    assert_eq!((&codes(&said)[6..], mails.len()), (&[354, 552, 552][..], 0));
}

#[test]
fn commands_out_of_turn_and_ones_that_are_not_offered_are_refused() {
    for (talk, code) in [
        ("MAIL FROM:<a@x.example>", 503),
        ("EHLO c\r\nRCPT TO:<a@x.example>", 503),
        ("EHLO c\r\nDATA", 503),
        ("EHLO c\r\nMAIL FROM:<a@x.example>\r\nDATA", 503),
        ("EHLO c\r\nMAIL FROM:<a@x.example>\r\nMAIL FROM:<a@x.example>", 503),
        ("EHLO c\r\nMAIL FROM:<a@x.example>\r\nRSET\r\nRCPT TO:<b@x.example>", 503),
        ("EHLO c\r\nMAIL FROM:<a@x.example>\r\nEHLO c\r\nRCPT TO:<b@x.example>", 503),
        ("EHLO c\r\nMAIL FROM:<a@x.example> SIZE=2001", 552),
        ("EHLO c\r\nMAIL FROM:<a@x.example> BODY=BINARYMIME", 555),
        ("EHLO c\r\nMAIL FROM:<a@x.example> RET=FULL", 555),
        ("EHLO c\r\nMAIL FROM:<a@x.example> FOO=BAR", 555),
        ("EHLO c\r\nMAIL FROM:<a b@x.example>", 501),
        ("EHLO c\r\nMAIL FROM:a@x.example", 501),
        ("EHLO", 501),
        ("STARTTLS", 502),
        ("AUTH PLAIN AGEAYg==", 502),
        ("BDAT 5 LAST", 502),
        ("EXPN x", 502),
        ("VRFY x", 252),
        ("HELP", 214),
        ("GET / HTTP/1.1", 500),
        ("NOOP\rNOOP", 500),
        ("NO\0OP", 500),
        ("", 500),
    ] {
        let (said, _) = hear(format!("{talk}\r\n").as_bytes(), &[]);
        assert_eq!(codes(&said).last(), Some(&code), "{talk:?}: {said}");
    }
}

#[test]
fn limits_on_lines_commands_mistakes_and_recipients_hold() {
    let (said, _) = hear(&[b"NOOP ".as_slice(), &[b'x'; 3_000], b"\r\nNOOP\r\n"].concat(), &[]);
    assert_eq!(codes(&said), [220, 500, 250], "{said}");
    let (said, _) = hear(&[b'x'; 100_000], &[1_000]);
    assert_eq!(codes(&said), [220, 500, 421], "{said}");
    let (said, _) = hear(b"NOOP\nNOOP\r\n", &[]);
    assert_eq!(codes(&said), [220, 500, 250], "{said}");
    let (said, _) = hear("FOO\r\n".repeat(100).as_bytes(), &[]);
    assert_eq!((codes(&said).len(), codes(&said).last()), (22, Some(&421)), "{said}");
    let (said, _) = hear("NOOP\r\n".repeat(1_000).as_bytes(), &[]);
    assert_eq!((codes(&said).len(), codes(&said).last()), (202, Some(&421)), "{said}");
    let to = "RCPT TO:<b@x.example>\r\n".repeat(4);
    let (said, mails) = hear(format!("HELO c\r\nMAIL FROM:<>\r\n{to}DATA\r\n.\r\n").as_bytes(), &[]);
    assert_eq!(codes(&said), [220, 250, 250, 250, 250, 250, 452, 354, 250], "{said}");
    assert_eq!((mails[0].to.len(), mails[0].bytes.len()), (3, 0));
    // Between messages everything is forgiven.
    let message = "MAIL FROM:<>\r\nRCPT TO:<b@x.example>\r\nDATA\r\nx\r\n.\r\nFOO\r\nNOOP\r\nRSET\r\n";
    let (said, mails) = hear(format!("HELO c\r\n{}", message.repeat(100)).as_bytes(), &[]);
    assert_eq!(mails.len(), 100, "{said}");
}

#[test]
fn of_a_long_message_no_more_than_asked_for_is_kept() {
    let talk =
        format!("HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n{}\r\n.\r\n", "x".repeat(1_500));
    assert_eq!(hear(talk.as_bytes(), &[]).1[0].bytes, [b'x'; 500]);
}

#[test]
fn nothing_that_only_looks_like_the_end_of_a_message_is_one() {
    for looks in [
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r.\r",
        "\r.\r\n",
        "\r\n.\r",
        "\n.\r",
        "\r\n.\r\r\n",
        "\r\n.\r\r\r\n",
        "\r\n.\0\r\n",
        "\r\n .\r\n",
        "\r\n.\r\0\n",
        "\r\r\n.\n",
        "\n\r\n.\n",
        "\r\n..\r\n",
        "\r\n.\n\r",
    ] {
        let smuggled = "MAIL FROM:<evil@x.example>\r\nRCPT TO:<victim@x.example>\r\nDATA\r\nevil";
        let talk = format!(
            "EHLO c\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\nx{looks}{smuggled}\r\n.\r\nQUIT\r\n"
        );
        for pieces in [&[][..], &[1], &[3]] {
            let (said, mails) = hear(talk.as_bytes(), pieces);
            assert_eq!(codes(&said), [220, 250, 250, 250, 354, 250, 221], "{looks:?}: {said}");
            assert!(mails.len() == 1 && mails[0].to == ["b@x.example"], "{looks:?}");
            assert!(mails[0].bytes.ends_with(format!("{smuggled}\r\n").as_bytes()), "{looks:?}");
        }
    }
}

/// What a client, a scanner or an attacker may say.
fn command() -> impl Strategy<Value = Vec<u8>> {
    const SAYINGS: &[&str] = &[
        "EHLO c",
        "HELO c",
        "LHLO c",
        "lhlo c",
        "MAIL FROM:<a@x.example>",
        "MAIL FROM:<>",
        "MAIL FROM:<later@x.example>",
        "mail from:<a@x.example> SIZE=1 BODY=8BITMIME",
        "MAIL FROM:<a@x.example> SIZE=99999999999999999999",
        "RCPT TO:<b@x.example>",
        "RCPT TO:<@r.example:b@x.example>",
        "RCPT TO:<no@x.example>",
        "RCPT TO:<>",
        "RCPT TO:<postmaster>",
        "RCPT TO:<\"a\\\"b\"@x.example>",
        "RSET",
        "NOOP",
        "NOOP x",
        "VRFY x",
        "EXPN x",
        "HELP",
        "AUTH LOGIN",
        "STARTTLS",
        "ETRN x",
        "FOO",
        "",
        " ",
        "MAIL",
        "RCPT",
        "MAIL FROM:",
        "RCPT TO:<",
    ];
    prop_oneof![
        9 => prop::sample::select(SAYINGS).prop_map(|said| said.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>().prop_filter("a line", |octet| *octet != b'\n'), 0..60),
    ]
}

/// What messages are made of that would like to be more.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    const FRAGMENTS: &[&str] = &[
        ".",
        "..",
        "\r",
        "\n",
        "\r\n",
        "\r\n.",
        "\r\n.\r",
        "\n.\n",
        "\r.\r",
        "\r\n.\n",
        "\n.\r\n",
        "x",
        "DATA\r\n",
        "QUIT\r\n",
        "MAIL FROM:<e@x.example>\r\n",
        "RCPT TO:<v@x.example>\r\n",
        "\0",
        "\u{fc}",
        "Subject: s\r\n\r\n",
    ];
    prop_oneof![
        9 => prop::sample::select(FRAGMENTS).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ]
}

proptest! {
    #[test]
    fn every_command_gets_one_answer_whatever_came_before(commands in prop::collection::vec(command(), 0..18)) {
        let talk: Vec<u8> = commands.iter().flat_map(|said| [said, &b"\r\n"[..]].concat()).collect();
        let (said, mails) = hear(&talk, &[]);
        prop_assert_eq!(codes(&said).len(), 1 + commands.len(), "{}", said);
        prop_assert!(mails.is_empty());
    }

    #[test]
    fn any_octets_in_any_pieces_are_answered_alike_and_in_clean_lines(
        octets in prop::collection::vec(prop_oneof![3 => command(), 3 => fragment(), 2 => Just(b"\r\n".to_vec()), 1 => Just(b"DATA\r\n".to_vec())], 0..40),
        pieces in prop::collection::vec(1_usize..20, 1..8),
    ) {
        let octets = octets.concat();
        let (said, mails) = hear(&octets, &pieces);
        prop_assert_eq!(&(said.clone(), mails), &hear(&octets, &[]));
        for line in said.split_terminator("\r\n") {
            prop_assert!(line.len() < 510 && line.is_ascii() && line[..3].parse::<u16>().is_ok(), "{:?}", line);
            prop_assert!(matches!(line.as_bytes()[3], b' ' | b'-') && !line.contains(char::is_control), "{:?}", line);
        }
    }

    #[test]
    fn a_message_ends_where_it_ends_and_arrives_octet_by_octet(
        fragments in prop::collection::vec(fragment(), 0..30),
        pieces in prop::collection::vec(1_usize..20, 1..8),
    ) {
        let sent = [fragments.concat(), b"\r\n.\r\n".to_vec()].concat();
        let (text, after) = message_and_rest(&sent).unwrap();
        let mut unstuff = Unstuff::new();
        let (mut read, mut rest, mut ended) = (Vec::new(), &sent[..], None);
        let mut pieces = pieces.iter().copied().cycle();
        while ended.is_none() {
            let (mut piece, later) = rest.split_at(pieces.next().unwrap().min(rest.len()));
            if unstuff.read(&mut piece, |octets| read.extend_from_slice(octets)) {
                ended = Some([piece, later].concat());
            }
            rest = later;
        }
        prop_assert_eq!((read, ended.unwrap()), (text, after.to_vec()));
    }

    #[test]
    fn what_is_stuffed_arrives_as_it_was(lines in prop::collection::vec("[.a\r\n\0]{0,6}", 0..8)) {
        let text: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let stuffed = format!("\r\n{text}").replace("\r\n.", "\r\n..");
        let mut sent = &[&stuffed.as_bytes()[2..], b".\r\n"].concat()[..];
        let (mut read, mut unstuff) = (Vec::new(), Unstuff::new());
        prop_assert!(unstuff.read(&mut sent, |octets| read.extend_from_slice(octets)));
        prop_assert_eq!((read, sent.len()), (text.into_bytes(), 0));
    }
}
