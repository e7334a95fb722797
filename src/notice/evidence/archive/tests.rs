//! An archive is whole, or what is wrong with it is named.

use super::*;
use crate::notice::evidence::body::Text;
use crate::policy::{Approval, Change};

type Files = Vec<(String, Vec<u8>)>;

fn version(number: i64, texts: &[(&str, &str)]) -> Version {
    let text = |(language, text): &(&str, &str)| Text {
        language: (*language).to_owned(),
        title: "Privacy".into(),
        summary: "We share less.".into(),
        sha256: hex(&Sha256::digest(text)),
    };
    Version { number, texts: texts.iter().map(text).collect() }
}

/// An archive of a chain of four entries, as files.
fn files() -> (NoticeId, Files) {
    let at = Timestamp(1_800_000_000_000_000);
    let published = Published {
        policy: "privacy".into(),
        title: "Privacy".into(),
        brand: "acme".into(),
        brand_name: "Acme".into(),
        version: version(2, &[("en", "# New\n"), ("de-CH", "# Neu\n")]),
        before: Some(version(1, &[("en", "# Old\n")])),
        change: Change::Material,
        approval: Approval::None,
        effective_at: at,
        complete_by: at,
        on_silence: None,
        on_untold: None,
        override_reason: None,
        written_by: "a".into(),
        published_by: Some("a".into()),
        released_by: None,
    };
    let notice = NoticeId::new();
    let (mut head, mut counts, mut lines) = (Head::start(), Summary::default(), String::new());
    let first = serde_json::to_string(&published).unwrap();
    let later = ["{\"effective_at\":\"2027-01-15T08:00:00Z\"}"; 3].map(str::to_owned);
    for (n, body) in [first].into_iter().chain(later).enumerate() {
        let kind = if n == 0 { "published" } else { "in_effect" };
        let (entry, next) = head.follow(notice, at, kind, None, body);
        counts.take(&entry);
        lines.push_str(&entry.to_line());
        lines.push('\n');
        head = next;
    }
    let mut writer = Writer::new(Vec::new(), at);
    for (name, text) in [
        ("README.txt", README),
        ("texts/2.en.md", "# New\n"),
        ("texts/2.de-CH.md", "# Neu\n"),
        ("texts/1.en.md", "# Old\n"),
        (CHAIN, &lines),
    ] {
        writer.add(name, text.len() as u64, text.as_bytes()).unwrap();
    }
    let about = About { notice, published, made_at: at, made_by: "Tidings".into(), head, counts };
    (notice, unpacked(&writer.finish(about).unwrap()))
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

fn packed(files: &Files) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), Timestamp(0));
    for (name, octets) in files {
        writer.add(name, octets.len() as u64, octets.as_slice()).unwrap();
    }
    writer.tar.into_inner().unwrap().finish().unwrap()
}

/// Replaces words in a file; with `told`, as somebody would who mends the manifest too.
fn changed(files: &Files, name: &str, from: &str, to: &str, told: bool) -> Files {
    let mut files = files.clone();
    let sum = |octets: &[u8]| hex(&Sha256::digest(octets));
    let file = files.iter_mut().find(|file| file.0 == name).unwrap();
    let text = String::from_utf8(file.1.clone()).unwrap();
    assert!(text.contains(from), "{name} has no {from}");
    let (before, new) = (sum(&file.1), text.replacen(from, to, 1).into_bytes());
    let (after, lengths) = (sum(&new), (file.1.len(), new.len()));
    file.1 = new;
    if told {
        let lengths = (format!("\"octets\": {}", lengths.0), format!("\"octets\": {}", lengths.1));
        let manifest = files.iter_mut().find(|file| file.0 == MANIFEST).unwrap();
        let text = String::from_utf8(manifest.1.clone()).unwrap();
        manifest.1 = text.replace(&before, &after).replace(&lengths.0, &lengths.1).into_bytes();
    }
    files
}

#[track_caller]
fn says(files: &Files, words: &str) {
    let said = verify(packed(files).as_slice()).unwrap_err().to_string();
    assert!(said.contains(words), "{said}");
}

#[test]
fn what_was_written_is_whole_in_any_order() {
    let (notice, mut files) = files();
    for _ in 0..files.len() {
        let manifest = verify(packed(&files).as_slice()).unwrap();
        assert_eq!((manifest.notice, manifest.head.seq, manifest.counts.entries), (notice, 4, 4));
        files.rotate_left(1);
    }
}

#[test]
fn a_changed_line_is_named_as_the_entry_that_it_is_whatever_the_manifest_says() {
    let (notice, files) = files();
    for told in [false, true] {
        let edited = changed(&files, CHAIN, "2027-01-15T08:00:00Z\"}}", "2028-01-15T08:00:00Z\"}}", told);
        says(&edited, &format!("the evidence of notice {notice} breaks: entry 2 was changed"));
        says(&changed(&files, CHAIN, "\"seq\":3", "\"seq\": 3", told), "entry 3 was changed");
        says(&changed(&files, CHAIN, "{\"notice\"", "garbage", told), "entry 1 was changed");
    }
}

#[test]
fn a_removed_and_a_moved_line_are_named() {
    let (_, files) = files();
    let lines = String::from_utf8(files.iter().find(|file| file.0 == CHAIN).unwrap().1.clone()).unwrap();
    let lines: Vec<&str> = lines.split_inclusive('\n').collect();
    let [one, two, three, four] = lines[..] else { panic!() };
    for (order, words) in [
        ([one, two, four, ""], "entry 3 is missing"),
        ([one, two, three, ""], "entry 4 is missing"),
        ([one, three, two, four], "entry 2 is out of order"),
        ([one, two, two, three], "entry 2 was inserted"),
    ] {
        says(&changed(&files, CHAIN, &lines.concat(), &order.concat(), true), words);
    }
}

#[test]
fn a_text_is_the_one_that_was_published() {
    let (notice, files) = files();
    for told in [false, true] {
        let edited = changed(&files, "texts/2.de-CH.md", "Neu", "Alt", told);
        says(
            &edited,
            &format!("notice {notice} breaks: texts/2.de-CH.md is not the text that entry 1 names"),
        );
    }
    let gone: Files = files.into_iter().filter(|file| file.0 != "texts/1.en.md").collect();
    says(&gone, "texts/1.en.md is not the text");
}

#[test]
fn every_other_file_is_what_the_manifest_says() {
    let (_, files) = files();
    says(
        &changed(&files, "README.txt", "EVIDENCE", "evidence", false),
        "README.txt is not what the manifest",
    );
    let mut more = files.clone();
    more.push(("sample.eml".into(), b"x".to_vec()));
    says(&more, "sample.eml is not in the manifest");
    let fewer: Files = files.iter().filter(|file| file.0 != "README.txt").cloned().collect();
    says(&fewer, "README.txt is missing");
    let none: Files = files.iter().filter(|file| file.0 != MANIFEST).cloned().collect();
    says(&none, "manifest.json is missing");
    says(&changed(&files, MANIFEST, "\"seq\": 4", "\"seq\": 5", false), "entry 5 is missing");
    says(&changed(&files, MANIFEST, "\"version\": 2", "\"version\": 3", false), "its version");
    says(&changed(&files, MANIFEST, "\"answers\": 0", "\"answers\": 9", false), "its counts");
    says(&changed(&files, MANIFEST, "\"format\": 1", "\"format\": 2", false), "its form is 2");
}

#[test]
fn what_is_no_archive_is_an_error_and_no_panic() {
    let (_, files) = files();
    let whole = packed(&files);
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

#[test]
fn the_summary_escapes_what_it_shows() {
    let shown =
        super::super::summary::page(&serde_json::json!({ "policy": { "title": "<script>" } })).unwrap();
    assert!(shown.contains("&lt;script&gt;") && !shown.contains("<script>"));
}
