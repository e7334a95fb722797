use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use proptest::prelude::*;
use serde_json::json;
use tokio::io::{AsyncRead, ReadBuf};

use super::*;

/// Gives its bytes a few at a time, as a network does.
struct Drops<'a> {
    bytes: &'a [u8],
    size: usize,
}

impl AsyncRead for Drops<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n = self.size.min(self.bytes.len()).min(into.remaining());
        let (now, later) = self.bytes.split_at(n);
        into.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

fn read_in(bytes: &[u8], size: usize, format: Format, extra: Extra) -> Result<Vec<Line>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let source = Drops { bytes, size };
        let mut lines = Lines::open(source, format, extra).await.map_err(|error| error.to_string())?;
        let mut all = Vec::new();
        loop {
            let some = lines.next(3).await.map_err(|error| error.to_string())?;
            if some.is_empty() {
                return Ok(all);
            }
            all.extend(some);
        }
    })
}

fn csv(text: impl AsRef<[u8]>) -> Vec<Line> {
    read_in(text.as_ref(), 1 << 20, Format::Csv, Extra::Attributes).unwrap()
}

fn ndjson(text: impl AsRef<[u8]>) -> Vec<Line> {
    read_in(text.as_ref(), 1 << 20, Format::Ndjson, Extra::Attributes).unwrap()
}

/// The line, and the address or the reason.
fn short(lines: &[Line]) -> Vec<(u64, &str)> {
    lines
        .iter()
        .map(|line| match &line.record {
            Ok(record) => (line.number, record.email.as_str()),
            Err(reason) => (line.number, reason.as_str()),
        })
        .collect()
}

#[test]
fn a_line_is_read_with_all_its_columns() {
    let lines = csv("tags,email,Name,external_id,locale,city,plan\n\
                     a; b;;a,ann@example.org,\"Ann, \"\"the\"\" First\",crm-1,de-AT,\"Bad\nIschl\",\n");
    let record = lines[0].record.as_ref().unwrap();
    assert_eq!(record.email.as_str(), "ann@example.org");
    assert_eq!(record.name.as_deref(), Some("Ann, \"the\" First"));
    assert_eq!(record.external_id.as_deref(), Some("crm-1"));
    assert_eq!(record.locale.as_deref(), Some("de-AT"));
    assert_eq!(record.tags.as_deref(), Some(&["a".to_owned(), "b".to_owned()][..]));
    assert_eq!(Value::Object(record.extra.clone()), json!({ "city": "Bad\nIschl" }));
}

#[test]
fn an_empty_field_says_nothing_but_is_the_empty_text_in_data() {
    let text = "email,name,coupon\nann@example.org,,\n";
    let record = csv(text)[0].record.clone().unwrap();
    assert_eq!((record.name, record.extra.is_empty()), (None, true));
    let data = read_in(text.as_bytes(), 7, Format::Csv, Extra::Data).unwrap();
    assert_eq!(Value::Object(data[0].record.clone().unwrap().extra), json!({ "coupon": "" }));
}

#[test]
fn line_numbers_count_quoted_and_empty_lines_whatever_ends_a_line() {
    let text = "\u{feff}email,name\n\nann@example.org,\"A\nn\nn\"\n\n\nbob@example.org,Bob\nnobody,x\nlast@example.org,\"l\"";
    let expected = [
        (3, "ann@example.org"),
        (8, "bob@example.org"),
        (9, "`email`: the address is not of the form name@domain"),
        (10, "last@example.org"),
    ];
    // A name must be one line: ann's is not.
    let with = |text: &str| {
        for size in [1, 2, 3, 7, 64, 1 << 20] {
            let lines = read_in(text.as_bytes(), size, Format::Csv, Extra::Attributes).unwrap();
            let lines = short(&lines).iter().map(|(n, text)| (*n, (*text).to_owned())).collect::<Vec<_>>();
            assert_eq!(lines[0], (3, "`name` holds a line break or another control character".to_owned()));
            assert_eq!(
                lines[1..],
                expected[1..].iter().map(|(n, t)| (*n, (*t).to_owned())).collect::<Vec<_>>()
            );
        }
    };
    with(text);
    with(&text.replace('\n', "\r\n"));
    with(&text.replace('\n', "\r"));
}

#[test]
fn bad_lines_are_reported_and_the_rest_goes_in() {
    let mut text = b"email,name,external_id,locale,tags,note\n".to_vec();
    let mut line = |line: &[u8]| {
        text.extend_from_slice(line);
        text.push(b'\n');
    };
    line(b"ann@example.org,Ann,1,de,a,x");
    line(b"not an address,Ann,1,de,a,x");
    line(b"ann@example.org,Ann");
    line(b"ann@example.org,Ann,1,de,a,x,y");
    line(b"ann@example.org,\xff\xfe,1,de,a,x");
    line(format!("ann@example.org,{},1,de,a,x", "n".repeat(201)).as_bytes());
    line(format!("ann@example.org,A,{},de,a,x", "n".repeat(201)).as_bytes());
    line(format!("ann@example.org,A,1,{},a,x", "n".repeat(36)).as_bytes());
    line(b"ann@example.org,A,1,d e,a,x");
    line(format!("ann@example.org,A,1,de,{},x", "n".repeat(65)).as_bytes());
    let many: Vec<String> = (0..51).map(|n| n.to_string()).collect();
    line(format!("ann@example.org,A,1,de,{},x", many.join(";")).as_bytes());
    line(format!("ann@example.org,A,1,de,a,{}", "n".repeat(1001)).as_bytes());
    line(b"ann@example.org,A\x00,1,de,a,x");
    line(b"ann@example.org,A,1,de,a,x\x07");
    line(format!("ann@example.org,{},1,de,a,x", "n".repeat(70_000)).as_bytes());
    line(",".repeat(300).as_bytes());
    line(b",Ann,1,de,a,x");
    line(format!("{}@example.org,A,1,de,a,x", "n".repeat(65)).as_bytes());
    line(b"zoe@example.org,\"Zo\xc3\xab\",1,de,a,x");
    let lines = csv(&text);
    let found: Vec<(u64, &str)> = short(&lines);
    assert_eq!(
        found,
        [
            (2, "ann@example.org"),
            (3, "`email`: the address holds white space"),
            (4, "has 2 columns where the header has 6"),
            (5, "has 7 columns where the header has 6"),
            (6, "the column `name` is not UTF-8"),
            (7, "`name` is longer than 200 characters"),
            (8, "`external_id` is longer than 200 characters"),
            (9, "`locale` is longer than 35 characters"),
            (10, "`locale` must be a language tag such as de or pt-BR"),
            (11, "`tags` tag number 1: is longer than 64 characters"),
            (12, "`tags` has 51 tags; at most 50 are kept"),
            (13, "`attributes` the value of `note`: is longer than 1000 characters"),
            (14, "`name` holds a line break or another control character"),
            (15, "`attributes` the value of `note`: holds a control character"),
            (16, "the line is longer than 64 KB"),
            (17, "has more than 256 columns"),
            (18, "`email`: the address is empty"),
            (19, "`email`: the part before the @ is longer than 64 octets"),
            (20, "zoe@example.org"),
        ]
    );
}

#[test]
fn a_quote_that_is_never_closed_spoils_its_own_line_alone() {
    let unclosed = "a quote is opened and not closed, or the record is longer than 64 KB";
    let short_file = "email,name\nann@example.org,\"Ann\nbob@example.org,Bob\nzoe@example.org,Zoe\n";
    let lines = csv(short_file);
    assert_eq!(short(&lines), [(2, unclosed), (3, "bob@example.org"), (4, "zoe@example.org")]);
    let last = csv("email,name\nann@example.org,Ann\nbob@example.org,\"Bob");
    assert_eq!(short(&last), [(2, "ann@example.org"), (3, unclosed)]);
    // A quote in the middle of a field is a character.
    let inch = csv("email,name\nann@example.org,5\" pipe\nbob@example.org,\"x\" y\n");
    assert_eq!(inch[0].record.as_ref().unwrap().name.as_deref(), Some("5\" pipe"));
    assert_eq!(inch.len(), 2);

    let rest: String = (0..5000).map(|n| format!("p{n}@example.org,Person {n}\n")).collect();
    let lines = csv(format!("email,name\nann@example.org,\"Ann\n{rest}"));
    assert_eq!(short(&lines[..2]), [(2, unclosed), (3, "p0@example.org")]);
    assert_eq!(lines.len(), 5001);
    assert_eq!(lines[5000].number, 5002);
    assert!(lines[1..].iter().all(|line| line.record.is_ok()));
}

#[test]
fn a_file_of_unclosed_quotes_is_read_in_bounded_time() {
    let lines = csv(format!("email,name\n{}", "a\"b,\"c\n".repeat(20_000)));
    assert!(lines.iter().all(|line| line.record.is_err()));
    assert!(lines.len() > 200);
}

#[test]
fn a_header_that_cannot_be_used_refuses_the_file_and_says_why() {
    let refused = |text: &str| {
        read_in(text.as_bytes(), 5, Format::Csv, Extra::Attributes).expect_err("a header that cannot be used")
    };
    assert!(refused("").contains("empty"));
    assert!(refused("\n\n").contains("empty"));
    assert!(refused("name,mail\na,b\n").contains("no column `email`"));
    assert!(refused("email;name\na;b\n").contains("parted by commas"));
    assert!(refused("email,name,name\n").contains("`name` stands twice"));
    assert!(refused("email,Name,NAME\n").contains("`name` stands twice"));
    assert!(refused("email,\n").contains("column 2 is empty"));
    assert!(refused("email,\"na\nme\"\n").contains("column 2"));
    assert!(refused("email,\"name\n").contains("quote"));
    let no_header = refused("ann@example.org,ann@example.org\nbob@example.org,Bob\n");
    assert!(!no_header.contains("ann@") && no_header.contains("twice"), "{no_header}");
    let many: String = (0..101).map(|n| format!(",c{n}")).collect();
    assert!(refused(&format!("email{many}\n")).contains("at most 100"));
    assert!(read_in(b"email\n", 5, Format::Csv, Extra::Attributes).unwrap().is_empty());
}

#[test]
fn objects_are_read_line_by_line() {
    let text = concat!(
        "\u{feff}{\"email\":\"ann@example.org\",\"name\":\"Ann\",\"tags\":[\"a\",\"b\",\"a\"],\"attributes\":{\"n\":3,\"gone\":null}}\n",
        "\n",
        "{\"email\":\"bob@example.org\",\"name\":null,\"external_id\":\"\"}\r\n",
        "nonsense ann@example.org\n",
        "[1]\n",
        "{\"name\":\"Ann\"}\n",
        "{\"email\":3}\n",
        "{\"email\":\"a@b.example\",\"e_mail\":\"x\"}\n",
        "{\"email\":\"a@b.example\",\"tags\":\"a\"}\n",
        "{\"email\":\"a@b.example\",\"attributes\":{\"a\":\"\\u0000\"}}\n",
        "{\"email\":\"a@b.example\",\"data\":{\"a\":1}}\n",
        "{\"email\":\"zoe@example.org\"}",
    );
    for size in [1, 10, 1 << 20] {
        let lines = read_in(text.as_bytes(), size, Format::Ndjson, Extra::Attributes).unwrap();
        let ann = lines[0].record.clone().unwrap();
        assert_eq!(ann.tags.unwrap(), ["a", "b"]);
        assert_eq!(Value::Object(ann.extra), json!({ "n": 3, "gone": null }));
        assert_eq!(lines[1].record.as_ref().unwrap().external_id, None);
        assert_eq!(
            short(&lines),
            [
                (1, "ann@example.org"),
                (3, "bob@example.org"),
                (4, "is not JSON: look at column 2 of the line"),
                (5, "is not a JSON object"),
                (6, "has no email"),
                (7, "`email` must be a string"),
                (
                    8,
                    "has the unknown field `e_mail`; use email, name, external_id, locale, tags, brands, policies, attributes"
                ),
                (9, "`tags` must be an array of strings"),
                (10, "`attributes` the value of `a`: holds a control character"),
                (
                    11,
                    "has the unknown field `data`; use email, name, external_id, locale, tags, brands, policies, attributes"
                ),
                (12, "zoe@example.org"),
            ]
        );
    }
    let long = format!("{{\"email\":\"{}\"}}\n{{\"email\":\"a@b.example\"}}\n", "x".repeat(70_000));
    assert_eq!(short(&ndjson(long)), [(1, "the line is longer than 64 KB"), (2, "a@b.example")]);
    assert!(ndjson("").is_empty());
}

#[test]
fn content_types_name_formats() {
    assert_eq!(Format::from_content_type("Text/CSV; charset=utf-8"), Some(Format::Csv));
    assert_eq!(Format::from_content_type("application/x-ndjson"), Some(Format::Ndjson));
    assert_eq!(Format::from_content_type("application/json"), None);
}

proptest! {
    #[test]
    fn any_octets_are_read_to_their_end_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        header in any::<bool>(),
        size in 1usize..50,
    ) {
        let mut file = if header { b"email,x\n".to_vec() } else { Vec::new() };
        file.extend(bytes);
        let _ = read_in(&file, size, Format::Csv, Extra::Attributes);
        let _ = read_in(&file, size, Format::Ndjson, Extra::Data);
    }

    #[test]
    fn how_the_bytes_arrive_changes_nothing(
        text in "([a-c,\"\n\r]|a@b.example,){0,60}",
        size in 1usize..20,
    ) {
        let file = format!("email,name\n{text}");
        let whole = read_in(file.as_bytes(), 1 << 20, Format::Csv, Extra::Attributes);
        prop_assert_eq!(&whole, &read_in(file.as_bytes(), size, Format::Csv, Extra::Attributes));
        let lines = whole.unwrap();
        prop_assert!(lines.windows(2).all(|two| two[0].number < two[1].number));
        let most = 1 + file.matches('\n').count() + file.matches('\r').count();
        prop_assert!(lines.iter().all(|line| line.number <= most as u64));
    }

    #[test]
    fn what_a_writer_of_csv_writes_is_read_back(
        names in proptest::collection::vec("[ -~äß]{1,20}", 1..20),
    ) {
        let mut writer = ::csv::Writer::from_writer(Vec::new());
        writer.write_record(["email", "note"]).unwrap();
        for name in &names {
            writer.write_record(["a@b.example", name]).unwrap();
        }
        let file = writer.into_inner().unwrap();
        let lines = csv(file);
        prop_assert_eq!(lines.len(), names.len());
        for (n, (line, name)) in lines.iter().zip(&names).enumerate() {
            prop_assert_eq!(line.number, n as u64 + 2);
            prop_assert_eq!(&line.record.as_ref().unwrap().extra["note"], name);
        }
    }
}

#[test]
fn a_cell_of_nothing_but_semicolons_takes_nobody_out_of_their_brands() {
    let lines = csv("email,brands\na@x.org,;\nb@x.org, ; ; \nc@x.org,\nd@x.org,;acme; \n");
    for line in &lines[..2] {
        let reason = line.record.as_ref().unwrap_err();
        assert!(reason.starts_with("`brands` names no brand"), "{reason}");
    }
    let brands = |n: usize| lines[n].record.as_ref().unwrap().brands.clone();
    assert_eq!((brands(2), brands(3)), (None, Some(vec!["acme".to_owned()])));
}
