//! An archive is whole, or what is wrong with it is named.

use flate2::read::GzDecoder;

use super::*;
use crate::id::MailingId;
use crate::notice::RoundKind;
use crate::notice::evidence::body::{Exported, Published, Round, Text, ToldText, Version};
use crate::notice::evidence::{Account, Entry, Head, part_file};
use crate::policy::{Approval, Change};

type Files = Vec<(String, Vec<u8>)>;

const AT: Timestamp = Timestamp(1_800_000_000_000_000);
const SAMPLE: &str = "Subject: Privacy\r\n\r\nWe share less.\r\n";
/// What the messages are made from: the subject is twice in it.
const PARTS: [&str; 4] = ["{{data.words.subject}}", "<p>{{data.summary}}</p>", "{{data.summary}}", "{}"];

fn sum(octets: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(octets))
}

fn notice() -> NoticeId {
    "01980000-0000-7000-8000-000000000001".parse().unwrap()
}

fn version(number: i64, texts: &[(&str, &str)]) -> Version {
    let text = |(language, text): &(&str, &str)| Text {
        language: (*language).to_owned(),
        title: "Privacy".into(),
        summary: "We share less.".into(),
        sha256: sum(text),
    };
    Version { number, texts: texts.iter().map(text).collect() }
}

fn published() -> Published {
    Published {
        policy: "privacy".into(),
        title: "Privacy".into(),
        brand: "acme".into(),
        brand_name: "Acme".into(),
        version: version(2, &[("en", "# New\n"), ("de-CH", "# Neu\n")]),
        before: Some(version(1, &[("en", "# Old\n")])),
        change: Change::Material,
        approval: Approval::None,
        effective_at: AT,
        effective_offset: 0,
        complete_by: AT,
        on_silence: None,
        on_untold: None,
        two_person: None,
        override_reason: None,
        written_by: "a".into(),
        published_by: Some("a".into()),
        released_by: None,
    }
}

fn round() -> Round {
    let told = ToldText {
        language: "en".into(),
        newcomers: false,
        summary: "We share less.".into(),
        reason: None,
        subject_sha256: sum(PARTS[0]),
        html_sha256: sum(PARTS[1]),
        text_sha256: sum(PARTS[2]),
        partials_sha256: sum(PARTS[3]),
        data_sha256: sum(PARTS[3]),
    };
    Round {
        round: MailingId("01980000-0000-7000-8000-000000000002".parse().unwrap()),
        number: 1,
        kind: RoundKind::Change,
        reason: None,
        languages: vec!["en".into()],
        told: vec![told],
        by: "a".into(),
    }
}

/// A chain of five entries: published, a round, two more, exported.
fn chain(export: bool) -> (Account, String) {
    let later = "{\"effective_at\":\"2027-01-15T08:00:00Z\"}".to_owned();
    let exported =
        Exported { sample_sha256: Some(sum(SAMPLE)), program: "Tidings 1".into(), by: "cli:a".into() };
    let bodies = [
        ("published", serde_json::to_string(&published()).unwrap()),
        ("round", serde_json::to_string(&round()).unwrap()),
        ("in_effect", later.clone()),
        ("in_effect", later),
        ("exported", serde_json::to_string(&exported).unwrap()),
    ];
    let (mut head, mut account, mut lines) = (Head::start(), Account::new(notice()), String::new());
    for (kind, body) in bodies.into_iter().take(if export { 5 } else { 4 }) {
        let (entry, next) = head.follow(notice(), AT, kind, None, body);
        account.take(&entry);
        lines.push_str(&entry.to_line());
        lines.push('\n');
        head = next;
    }
    (account, lines)
}

/// An archive of it, as files; the manifest is the last one.
fn files() -> Files {
    let (account, lines) = chain(true);
    let mut writer = Writer::new(Vec::new(), AT);
    let mut files = vec![
        ("README.txt".to_owned(), README.to_owned()),
        ("summary.html".to_owned(), account.summary().unwrap()),
        ("texts/2.en.md".to_owned(), "# New\n".to_owned()),
        ("texts/2.de-CH.md".to_owned(), "# Neu\n".to_owned()),
        ("texts/1.en.md".to_owned(), "# Old\n".to_owned()),
    ];
    files.extend(PARTS.map(|part| (part_file(&sum(part)), part.to_owned())));
    files.push(("sample.eml".to_owned(), SAMPLE.to_owned()));
    files.push((CHAIN.to_owned(), lines));
    for (name, text) in files {
        writer.add(&name, text.len() as u64, text.as_bytes()).unwrap();
    }
    unpacked(&writer.finish(&account).unwrap())
}

fn unpacked(archive: &[u8]) -> Files {
    let mut tar = tar::Archive::new(GzDecoder::new(archive));
    let files = tar.entries().unwrap().map(|file| {
        let mut file = file.unwrap();
        let mut octets = Vec::new();
        file.read_to_end(&mut octets).unwrap();
        (file.path().unwrap().to_str().unwrap().to_owned(), octets)
    });
    files.collect()
}

/// These files as they are named, however strangely.
fn packed(files: &Files) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, octets) in files {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(octets.len() as u64);
        header.set_cksum();
        tar.append(&header, octets.as_slice()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// Makes the list of files in the manifest what it should be of these, as a careful forger does.
fn mended(mut files: Files) -> Files {
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for (name, octets) in files.iter().filter(|file| file.0 != MANIFEST) {
        sums.insert(name, Sum { octets: octets.len() as u64, sha256: sum(octets) });
    }
    let sums = serde_json::to_value(&sums).unwrap();
    if let Some(manifest) = files.iter_mut().find(|file| file.0 == MANIFEST) {
        let text = String::from_utf8(manifest.1.clone()).unwrap();
        // The fields before it keep their order and their form.
        let at = text.find("\"files\": {").unwrap();
        let list = serde_json::to_string_pretty(&serde_json::json!({ "files": sums })).unwrap();
        manifest.1 = format!("{}{}\n", &text[..at], list.trim_start_matches("{\n  ")).into_bytes();
    }
    files
}

/// Replaces words in a file.
fn changed(files: &Files, name: &str, from: &str, to: &str) -> Files {
    let mut files = files.clone();
    let file = files.iter_mut().find(|file| file.0 == name).unwrap();
    let text = String::from_utf8(file.1.clone()).unwrap();
    assert!(text.contains(from), "{name} has no {from}: {text}");
    file.1 = text.replacen(from, to, 1).into_bytes();
    files
}

#[track_caller]
fn says(files: &Files, words: &str) {
    let said = verify(packed(files).as_slice()).unwrap_err().to_string();
    assert!(said.contains(words), "{said}, not {words}");
}

#[test]
fn what_was_written_is_whole_in_any_order() {
    let mut files = files();
    assert_eq!(mended(files.clone()), files, "the forger is careful");
    for _ in 0..files.len() {
        let manifest = verify(packed(&files).as_slice()).unwrap();
        assert_eq!((manifest.notice, manifest.head.seq, manifest.counts.entries), (notice(), 5, 5));
        files.rotate_left(1);
    }
}

#[test]
fn a_changed_line_is_named_as_the_entry_that_it_is_whatever_the_manifest_says() {
    let files = files();
    let at = files.iter().find(|file| file.0 == CHAIN).unwrap();
    let third = String::from_utf8(at.1.clone()).unwrap().lines().nth(2).unwrap().to_owned();
    for (from, to, words) in [
        (
            third.as_str(),
            third.replace("2027-01-15T08:00:00Z\"}}", "2028-01-15T08:00:00Z\"}}"),
            "entry 3 was changed",
        ),
        ("\"seq\":3", "\"seq\": 3".to_owned(), "entry 3 was changed"),
        ("{\"notice\"", "garbage".to_owned(), "entry 1 was changed"),
        ("Acme", "Acne".to_owned(), "entry 1 was changed"),
    ] {
        let edited = changed(&files, CHAIN, from, &to);
        says(&edited, &format!("the evidence of notice {} breaks: {words}", notice()));
        says(&mended(edited), words);
    }
}

#[test]
fn a_removed_and_a_moved_line_are_named() {
    let files = files();
    let lines = String::from_utf8(files.iter().find(|file| file.0 == CHAIN).unwrap().1.clone()).unwrap();
    let lines: Vec<&str> = lines.split_inclusive('\n').collect();
    let [one, two, three, four, five] = lines[..] else { panic!() };
    for (order, words) in [
        ([one, two, four, five, ""], "entry 3 is missing"),
        ([one, two, three, four, ""], "entry 5 is missing"),
        ([one, three, two, four, five], "entry 2 is out of order"),
        ([one, two, two, three, four], "entry 2 was inserted"),
    ] {
        says(&mended(changed(&files, CHAIN, &lines.concat(), &order.concat())), words);
    }
}

#[test]
fn every_file_is_what_the_chain_says_and_no_manifest_helps_it() {
    let files = files();
    for (name, octets) in files.iter().filter(|file| file.0 != CHAIN && file.0 != MANIFEST) {
        let otherwise = match name.as_str() {
            "README.txt" => "is not what Tidings writes there",
            "summary.html" => "is not what the entries amount to",
            "sample.eml" => "is not the sample that entry 5 names",
            text if text.starts_with("texts/") => "is not the text that entry 1 names",
            _ => "is not what entry 2 names",
        };
        let mut rewritten = files.clone();
        let file = rewritten.iter_mut().find(|file| file.0 == *name).unwrap();
        file.1.push(b' ');
        says(&rewritten, &format!("notice {} breaks: {name} {otherwise}", notice()));
        says(&mended(rewritten), &format!("{name} {otherwise}"));

        let gone: Files = files.iter().filter(|file| file.0 != *name).cloned().collect();
        says(&gone, &format!("{name} is missing"));
        says(&mended(gone.clone()), &format!("{name} is missing"));

        for other in
            [format!("./{name}"), format!("/{name}"), format!("../{name}"), format!("more/../{name}")]
        {
            let mut moved = gone.clone();
            moved.insert(0, (other, octets.clone()));
            says(&mended(moved), &format!("{name} is missing"));
        }
        let mut twice = files.clone();
        twice.insert(0, (name.clone(), b"other".to_vec()));
        says(&mended(twice), &format!("{name:?} is in it twice"));
    }
    for name in [
        "more.txt",
        "./README.txt",
        "../README.txt",
        "texts/3.en.md",
        "parts/00.txt",
        "texts/2.en.md ",
        "evidence.NDJSON",
    ] {
        let mut more = files.clone();
        more.insert(3, (name.to_owned(), b"We told everyone by letter too.".to_vec()));
        says(&more, &format!("{name:?} does not belong into it"));
        says(&mended(more), &format!("{name:?} does not belong into it"));
    }
    for name in [CHAIN, MANIFEST] {
        let gone: Files = files.iter().filter(|file| file.0 != name).cloned().collect();
        says(&mended(gone), &format!("{name} is missing"));
        let mut twice = files.clone();
        twice.push(twice.iter().find(|file| file.0 == name).unwrap().clone());
        says(&twice, &format!("{name:?} is in it twice"));
    }
}

#[test]
fn every_field_of_the_manifest_is_what_the_chain_says() {
    let files = files();
    let text = String::from_utf8(files.last().unwrap().1.clone()).unwrap();
    let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut fields = Vec::new();
    leaves("", &whole, &mut fields);
    assert!(fields.len() > 40, "{fields:?}");
    for path in fields {
        let mut edited = whole.clone();
        let value = edited.pointer_mut(&path).unwrap();
        *value = match &*value {
            serde_json::Value::String(words) => format!("{words}x").into(),
            serde_json::Value::Number(n) => (n.as_i64().unwrap() + 1).into(),
            _ => "x".into(),
        };
        let mut forged = files.clone();
        forged.last_mut().unwrap().1 = serde_json::to_vec_pretty(&edited).unwrap();
        let said = verify(packed(&forged).as_slice()).unwrap_err().to_string();
        let field = path[1..].replace("~1", "/").replace('/', ".");
        let named = match path.as_str() {
            "/format" => "its form is 3".to_owned(),
            "/notice" => "cannot be read".to_owned(),
            "/head/seq" => "entry 6 is missing".to_owned(),
            "/head/hash" => "the head does not match".to_owned(),
            path if path.starts_with("/counts/") && path.contains("/rounds/") || path.contains("/acts/") => {
                "does not say what the entries say: counts.".to_owned()
            }
            _ => format!("does not say what the entries say: {}", field),
        };
        assert!(said.replace('/', ".").contains(&named), "{path}: {said}");
    }
    let another = changed(&files, MANIFEST, &notice().to_string(), &NoticeId::new().to_string());
    says(&another, "does not say what the entries say: notice");
    says(
        &changed(&files, MANIFEST, "\"format\"", "\"note\": \"all is well\", \"format\""),
        "the entries say: note",
    );
    let twice = changed(&files, MANIFEST, "\"policy\"", "\"policy\": 1, \"policy\"");
    says(&twice, "the entries say: how it is written");
    says(
        &changed(&files, MANIFEST, "\"version\": 2", "\"version\":  2"),
        "the entries say: how it is written",
    );
}

/// The paths of all values that hold no other.
fn leaves(path: &str, value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(all) => {
            for (key, value) in all {
                leaves(&format!("{path}/{}", key.replace('/', "~1")), value, found);
            }
        }
        serde_json::Value::Array(all) => {
            for (n, value) in all.iter().enumerate() {
                leaves(&format!("{path}/{n}"), value, found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn a_chain_that_ends_before_its_export_is_no_archive() {
    let (cut, lines) = chain(false);
    let head = format!("\"seq\": 4,\n    \"hash\": \"{}\"", hex::encode(&cut.head.hash));
    let (whole, _) = chain(true);
    let former = format!("\"seq\": 5,\n    \"hash\": \"{}\"", hex::encode(&whole.head.hash));
    let mut forged = changed(&files(), MANIFEST, &former, &head);
    forged.iter_mut().find(|file| file.0 == CHAIN).unwrap().1 = lines.into_bytes();
    says(&mended(forged), "entry 4, the last one, does not tell that it was exported");
}

#[test]
fn who_makes_all_of_it_anew_is_found_by_the_head_alone() {
    let (account, _) = chain(true);
    let whole = verify(packed(&files()).as_slice()).unwrap();
    assert_eq!(whole.head.hash, hex::encode(&account.head.hash));
    let mut lines: Vec<Entry> = Vec::new();
    let mut head = Head::start();
    for line in chain(true).1.lines() {
        let Entry { at, kind, person, body, .. } = Entry::from_line(line).unwrap();
        let (entry, next) = head.follow(notice(), at, &kind, person, body.replace("Acme", "Acne"));
        lines.push(entry);
        head = next;
    }
    let mut forged = Account::new(notice());
    lines.iter().for_each(|entry| forged.take(entry));
    let mut writer = Writer::new(Vec::new(), AT);
    for (name, octets) in files().iter().filter(|file| file.0 != MANIFEST) {
        let octets = match name.as_str() {
            CHAIN => lines.iter().map(|entry| entry.to_line() + "\n").collect::<String>().into_bytes(),
            "summary.html" => forged.summary().unwrap().into_bytes(),
            _ => octets.clone(),
        };
        writer.add(name, octets.len() as u64, octets.as_slice()).unwrap();
    }
    let other = verify(writer.finish(&forged).unwrap().as_slice()).unwrap();
    assert_eq!(other.brand.title, "Acne");
    assert_ne!(other.head.hash, whole.head.hash);
}

#[test]
fn what_is_no_plain_file_and_what_follows_the_last_one_are_named() {
    let files = files();
    let whole = packed(&files);
    for kind in
        [tar::EntryType::Directory, tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::XHeader]
    {
        let mut writer = Writer::new(Vec::new(), AT);
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_path("summary.html").unwrap();
        header.set_cksum();
        writer.tar.append(&header, io::empty()).unwrap();
        for (name, octets) in &files {
            writer.add(name, octets.len() as u64, octets.as_slice()).unwrap();
        }
        let archive = writer.tar.into_inner().unwrap().finish().unwrap();
        let said = verify(archive.as_slice()).unwrap_err().to_string();
        assert!(said.contains("\"summary.html\" is no plain file"), "{kind:?} {said}");
    }
    // Two archives, one after the other, in one compressed stream and in two.
    let mut tar = Vec::new();
    GzDecoder::new(whole.as_slice()).read_to_end(&mut tar).unwrap();
    let mut both = GzEncoder::new(Vec::new(), Compression::default());
    both.write_all(&[tar.clone(), tar].concat()).unwrap();
    for more in [both.finish().unwrap(), [whole.clone(), whole].concat()] {
        let said = verify(more.as_slice()).unwrap_err().to_string();
        assert!(said.contains("something follows the last file"), "{said}");
    }
}

#[test]
fn what_is_no_archive_is_an_error_and_no_panic() {
    let whole = packed(&files());
    for cut in (0..whole.len()).step_by(7) {
        assert!(verify(&whole[..cut]).is_err(), "cut at {cut}");
    }
    for at in (0..whole.len()).step_by(11) {
        let mut other = whole.clone();
        other[at] ^= 0x55;
        // What a reader passes over, such as the time in a header, may change and nothing else.
        let _ = verify(other.as_slice());
    }
    assert!(verify(&b"no archive"[..]).is_err());
}

/// Entries of every kind that tells of people and of what becomes of a notice.
fn much_happened() -> [(&'static str, String); 9] {
    let id = "01980000-0000-7000-8000-000000000003";
    let at = "2027-01-15T08:00:00Z";
    let told = format!(r#""delivery":"{id}","recipient":"{id}","round":1,"round_kind":"change""#);
    let changed = format!(
        r#"{{"reason":"A slip.","effective_at":"{at}","complete_by":"{at}","approvals_lapsed":1,"by":"a"}}"#
    );
    [
        (
            "delivery",
            format!(
                r#"{{{told},"version":2,"language":"en","text_sha256":null,"state":"sent","reason":null,"message_id":null,"message_sha256":null,"queued_at":"{at}","settled_at":null,"attempts":[]}}"#
            ),
        ),
        (
            "bounced",
            format!(r#"{{{told},"message_id":null,"bounced_at":"{at}","status":"5.1.1","words":null}}"#),
        ),
        ("told", format!(r#"{{"recipient":"{id}","told_by":"letter","has_note":false,"recorded_by":"b"}}"#)),
        (
            "approval",
            format!(
                r#"{{"approval":"{id}","recipient":"{id}","decision":"approve","before":"decline","version":2,"language":"en","sha256":"00","by":"phone"}}"#
            ),
        ),
        ("corrected", changed.clone()),
        ("postponed", changed.clone()),
        ("late", format!(r#"{{"complete_by":"{at}","projected_end":null}}"#)),
        ("withdrawn", changed),
        ("in_effect", format!(r#"{{"effective_at":"{at}"}}"#)),
    ]
}

/// Archives are verified years later: whoever changes what is written raises the form, keeps what verifies the former one and
/// only then puts other hashes here. Until a version was released that writes this form, other hashes are all it takes.
#[test]
fn what_archives_of_this_form_hold_stays_the_same() {
    let (_, lines) = chain(true);
    let mut lines: Vec<Entry> = lines.lines().filter_map(Entry::from_line).collect();
    let export = lines.pop().unwrap();
    let more = much_happened().into_iter().chain([("exported", export.body)]);
    let (mut head, mut account) = (Head::start(), Account::new(notice()));
    let before = lines.into_iter().map(|entry| (entry.kind, entry.body));
    for (kind, body) in before.chain(more.map(|(kind, body)| (kind.to_owned(), body))) {
        let (entry, next) = head.follow(notice(), AT, &kind, None, body);
        account.take(&entry);
        head = next;
    }
    let Summary { told_by_letter, answers, approved, declined, .. } = account.counts;
    assert_eq!((told_by_letter, answers, approved, declined), (1, 1, -2, -1), "each entry is read");
    let manifest = Manifest::new(&account, BTreeMap::new()).unwrap().to_file().unwrap();
    let page = include_str!("../../../../templates/evidence/summary.html.hbs");
    let sums = [README.as_bytes(), page.as_bytes(), account.summary().unwrap().as_bytes(), &manifest]
        .map(|octets| sum(octets)[..16].to_owned());
    assert_eq!(
        (FORMAT, sums.join(" ")),
        (2, "a7d2fa2000b9b989 1c6ff5c95db85fb3 23f919c630802c7c 41390dfd60e96efb".to_owned())
    );
}

#[test]
fn the_summary_escapes_what_it_shows() {
    let shown =
        super::super::summary::page(&serde_json::json!({ "policy": { "title": "<script>" } })).unwrap();
    assert!(shown.contains("&lt;script&gt;") && !shown.contains("<script>"));
}
