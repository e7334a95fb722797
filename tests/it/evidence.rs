//! The proof of a notice: what is recorded, what is exported, and that nobody changes it unnoticed.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tidings::access::rows::create_key;
use tidings::brand;
use tidings::db::{Db, Write};
use tidings::id::NoticeId;
use tidings::notice::evidence::Kind;
use tidings::notice::rows;
use tidings::web::Role;

use crate::harness::{Act, Database, LINK_KEYS, Stage, Tidings, eventually, run_in, said, tools, wait_until};
use crate::policies::{policy, version, with};

pub(crate) const PEOPLE: usize = 9;

fn hex(octets: &[u8]) -> String {
    hex::encode(octets)
}

/// A policy `privacy` of `acme` whose first version holds.
async fn baseline(tidings: &Tidings) {
    tidings.put("/policies/privacy", policy()).await.is(201);
    let baseline = json!({
        "body_markdown": "# Privacy\n\nWe keep data.", "change": "material", "summary": "The first text.",
        "effective_at": "2025-01-01T00:00:00Z",
    });
    tidings.post("/policies/privacy/versions", baseline).await.is(201);
    tidings.post_empty("/policies/privacy/versions/1/publish").await.ok();
}

/// Publishes the second version; gives the notice.
async fn publish(tidings: &Tidings) -> String {
    let answer = tidings.post_empty("/policies/privacy/versions/2/publish").await.ok();
    answer["notice"]["id"].as_str().unwrap().to_owned()
}

/// A change told to everyone of `acme`; gives the notice once some of it is in evidence.
pub(crate) async fn told_to_all(tidings: &Tidings) -> String {
    baseline(tidings).await;
    tidings.post("/policies/privacy/versions", version(tidings, "material", 60)).await.is(201);
    let notice = publish(tidings).await;
    eventually("evidence", async || {
        let lines = tidings.get(&format!("/notices/{notice}/evidence")).await;
        (!lines.is(200).text.is_empty()).then_some(())
    })
    .await;
    notice
}

/// An adverse change of `privacy`, told to nine people of whom one reads German, one is deferred first and one is refused,
/// by a relay that repeats addresses; gives the notice once all of it is in evidence.
pub(crate) async fn told(tidings: &Tidings) -> String {
    tidings.brand("acme").await;
    tidings.recipients(PEOPLE - 1).await;
    let german = json!({ "email": "grete@people.example.com", "name": "Grete", "locale": "de-DE" });
    tidings.post("/recipients", german).await.ok();
    baseline(tidings).await;
    let german =
        json!({ "de": { "title": "Datenschutz", "summary": "Anders.", "body_markdown": "# Datenschutz" } });
    let fields = with(version(tidings, "adverse", 60), json!({ "translations": german }));
    tidings.post("/policies/privacy/versions", fields).await.is(201);
    let later = "4.2.1 <p1@people.example.com>: mailbox p1=people.example.com busy".to_owned();
    tidings.smtp.on(Stage::Rcpt, Act::Reply(450, later)).to("p1@people.example.com").once();
    let never = "5.1.1 no user 'P2' at people; tell P2@people.example.com".to_owned();
    tidings.smtp.on(Stage::Rcpt, Act::Reply(550, never)).to("p2@people.example.com").once();
    let notice = publish(tidings).await;
    tidings.relay_has(PEOPLE - 2).await;
    evidence_of(tidings, &notice, PEOPLE - 1).await;
    tidings.advance(Duration::from_secs(3_600));
    evidence_of(tidings, &notice, PEOPLE).await;
    notice
}

/// Waits until this many people are in evidence; gives a line each.
pub(crate) async fn evidence_of(tidings: &Tidings, notice: &str, people: usize) -> Vec<Value> {
    eventually("people in evidence", async || {
        let answer = tidings.get(&format!("/notices/{notice}/evidence")).await;
        assert_eq!(answer.is(200).header("content-type"), "application/x-ndjson");
        let lines: Vec<Value> = answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.len() <= people, "{} people of {people}", lines.len());
        (lines.len() == people).then_some(lines)
    })
    .await
}

fn of_person<'a>(tidings: &Tidings, lines: &'a [Value], email: &str) -> &'a Value {
    let address = tidings::address::EmailAddress::parse(email).unwrap();
    let person = hex(&tidings.app().address_key.hash(&address).0);
    lines.iter().find(|line| line["person"] == json!(person)).unwrap()
}

/// What the program says on the database, as the command line gives it.
pub(crate) fn command(tidings: &Tidings, folder: &Path, arguments: &[&str]) -> std::process::Output {
    let url = tidings.database.url();
    run_in(folder, arguments, &[("TIDINGS_DATABASE_URL", &url), ("TIDINGS_LINK_KEYS", LINK_KEYS)])
}

pub(crate) async fn run_sql(tidings: &Tidings, statements: &[&str]) {
    let txn = tidings.app().db.begin().await.unwrap();
    for sql in statements {
        txn.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
    }
    txn.commit().await.unwrap();
}

pub(crate) type Files = Vec<(String, String)>;

/// Writes an archive of these files, with a manifest that holds their hashes, as a careful forger does.
fn forge(archive: &Path, files: &Files) {
    let mut tar =
        tar::Builder::new(GzEncoder::new(std::fs::File::create(archive).unwrap(), Compression::fast()));
    let sums: BTreeMap<&str, Value> = files
        .iter()
        .filter(|file| file.0 != "manifest.json")
        .map(|(name, text)| {
            (name.as_str(), json!({ "octets": text.len(), "sha256": hex(&Sha256::digest(text)) }))
        })
        .collect();
    for (name, text) in files {
        let mut text = text.clone();
        if let (Some(at), "manifest.json") = (text.find("\"files\": {"), name.as_str()) {
            let list = serde_json::to_string_pretty(&json!({ "files": sums })).unwrap();
            text = format!("{}{}\n", &text[..at], list.trim_start_matches("{\n  "));
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
}

pub(crate) fn files_of(archive: &Path) -> Files {
    let mut tar = tar::Archive::new(GzDecoder::new(std::fs::File::open(archive).unwrap()));
    let files = tar.entries().unwrap().map(|file| {
        let mut file = file.unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        (file.path().unwrap().display().to_string(), text)
    });
    files.collect()
}

on_both! {
    async fn every_person_has_a_line_that_says_what_they_were_told_and_what_the_relay_said(database: Database) {
        let tidings = Tidings::start(database).await;
        let notice = told(&tidings).await;
        let lines = evidence_of(&tidings, &notice, PEOPLE).await;
        let texts = tidings.get("/policies/privacy/versions/2").await.ok();
        for line in &lines {
            assert_eq!(line["deliveries"].as_array().unwrap().len(), 1, "{line}");
            let told = &line["deliveries"][0];
            let language = told["language"].as_str().unwrap();
            assert_eq!(told["text_sha256"], texts["texts"][language]["sha256"], "{line}");
            assert_eq!((&told["version"], &told["round_kind"]), (&json!(2), &json!("change")));
        }
        for n in (0..PEOPLE - 1).filter(|n| *n != 2) {
            let email = format!("p{n}@people.example.com");
            let told = &of_person(&tidings, &lines, &email)["deliveries"][0];
            let mail = tidings.smtp.messages_to(&email).into_iter().find(|mail| mail.answer == Some(250)).unwrap();
            assert_eq!(told["state"], "sent");
            assert_eq!(mail.header("Message-ID").unwrap(), format!("<{}>", told["message_id"].as_str().unwrap()));
            assert_eq!(told["message_sha256"], json!(hex(&Sha256::digest(&mail.data))));
            let last = told["attempts"].as_array().unwrap().last().unwrap();
            assert_eq!((&last["outcome"], &last["code"]), (&json!("sent"), &json!(250)), "{told}");
        }
        let deferred = &of_person(&tidings, &lines, "p1@people.example.com")["deliveries"][0]["attempts"];
        assert_eq!(deferred.as_array().unwrap().len(), 2, "{deferred}");
        assert_eq!((&deferred[0]["outcome"], &deferred[0]["enhanced"]), (&json!("deferred"), &json!("4.2.1")));
        assert!(deferred[0]["reply"].as_str().unwrap().contains("busy"), "{deferred}");
        let refused = &of_person(&tidings, &lines, "p2@people.example.com")["deliveries"][0];
        assert_eq!((&refused["state"], &refused["reason"]), (&json!("failed"), &json!("refused")), "{refused}");
        assert_eq!((&refused["attempts"][0]["code"], &refused["attempts"][0]["phase"]), (&json!(550), &json!("rcpt")));
        let german = of_person(&tidings, &lines, "grete@people.example.com");
        assert_eq!(german["deliveries"][0]["language"], "de");
        let all = serde_json::to_string(&lines).unwrap();
        assert!(!all.contains("people.example.com") && !all.contains("P2@"), "{all}");
        tidings.stop().await;
    }

    async fn an_export_verifies_in_an_empty_folder_and_names_nobody(database: Database) {
        let tidings = Tidings::start(database).await;
        let notice = told(&tidings).await;
        let mail = tidings.smtp.messages_to("grete@people.example.com").remove(0);
        let link = approval_link(&mail.parsed().body_text(0).unwrap());
        tidings.submit(&link, &[("decision", "approve")]).await.is(200);
        tidings.submit(&link, &[("decision", "decline")]).await.is(200);
        let lines = evidence_of(&tidings, &notice, PEOPLE).await;
        let german = of_person(&tidings, &lines, "grete@people.example.com");
        assert_eq!((&german["approval"]["decision"], &german["approval"]["language"]), (&json!("decline"), &json!("de")));

        let here = tempfile::tempdir().unwrap();
        let exported = command(&tidings, here.path(), &["evidence", "export", "--notice", &notice, "--json"]);
        assert!(exported.status.success(), "{}", said(&exported));
        let result: Value = serde_json::from_slice(&exported.stdout).unwrap();
        assert_eq!(result["file"], "evidence-privacy-2.tar.gz");
        assert_eq!((&result["counts"]["declined"], &result["counts"]["approved"]), (&json!(1), &json!(0)));
        assert_eq!(result["counts"]["answers"], 2);
        let ended = &result["counts"]["rounds"][0]["ended"];
        assert_eq!((&ended["sent"], &ended["failed"]), (&json!(PEOPLE - 1), &json!(1)), "{result}");
        let again = command(&tidings, here.path(), &["evidence", "export", "--notice", &notice]);
        assert_eq!(again.status.code(), Some(1));
        assert!(said(&again).contains("is there already"), "{}", said(&again));
        let audit = tidings.get("/audit").await.ok();
        assert!(audit["items"].as_array().unwrap().iter().any(|one| one["action"] == "notice.evidence"), "{audit}");

        // Nothing but the program and the archive, and whoever follows its README.txt.
        let empty = tempfile::tempdir().unwrap();
        let archive = empty.path().join("proof.tar.gz");
        std::fs::copy(here.path().join("evidence-privacy-2.tar.gz"), &archive).unwrap();
        let verified = run_in(empty.path(), &["evidence", "verify", "proof.tar.gz"], &[]);
        assert!(verified.status.success(), "{}", said(&verified));
        let head = result["head"]["hash"].as_str().unwrap();
        assert!(said(&verified).contains(&notice) && said(&verified).contains(head), "{}", said(&verified));
        assert!(said(&verified).contains("Nobody can see offline whether all of it was written anew"), "{}", said(&verified));
        assert!(audit["items"].as_array().unwrap().iter().any(|one| one["detail"]["head"] == head), "{audit}");
        let judged = tools::run_json(tools::python("evidence.py"), std::fs::read(&archive).unwrap());
        assert_eq!((&judged["head"], &judged["texts"]), (&json!(head), &json!(3)), "{judged}");

        let files = files_of(&archive);
        for (name, text) in &files {
            for n in 0..PEOPLE {
                assert!(!text.contains(&format!("p{n}@")) && !text.contains("grete@"), "{name} names a person");
            }
            assert!(!text.contains("@people."), "{name} holds an address");
        }
        let text = |name: &str| &files.iter().find(|file| file.0 == name).unwrap().1;
        assert_eq!(text("texts/2.de.md"), "# Datenschutz");
        let sample = mail_parser::MessageParser::default().parse(text("sample.eml").as_bytes()).unwrap();
        let words = sample.body_text(0).unwrap().into_owned();
        assert!(words.contains("We keep data for another time."), "{words}");
        tidings.page(&approval_link(&words)).await.is(404);
        assert!(text("summary.html").contains("Privacy policy"));

        let bad = archive.with_file_name("bad.tar.gz");
        let mut octets = std::fs::read(&archive).unwrap();
        octets.truncate(octets.len() / 2);
        std::fs::write(&bad, octets).unwrap();
        let cut = run_in(empty.path(), &["evidence", "verify", "bad.tar.gz"], &[]);
        assert_eq!(cut.status.code(), Some(1), "{}", said(&cut));
        tidings.stop().await;
    }

    async fn a_file_of_an_export_that_was_rewritten_removed_or_added_is_named(database: Database) {
        let tidings = Tidings::start(database).await;
        let notice = told(&tidings).await;
        let here = tempfile::tempdir().unwrap();
        for file in ["former.tar.gz", "proof.tar.gz"] {
            let exported = command(&tidings, here.path(), &["evidence", "export", "--notice", &notice, "--output", file]);
            assert!(exported.status.success(), "{}", said(&exported));
        }
        let files = files_of(&here.path().join("proof.tar.gz"));
        let former = files_of(&here.path().join("former.tar.gz"));
        let judge = |files: &Files| {
            forge(&here.path().join("forged.tar.gz"), files);
            run_in(here.path(), &["evidence", "verify", "forged.tar.gz"], &[])
        };
        let named = |files: &Files, words: &str| {
            let found = judge(files);
            assert!(found.status.code() == Some(1) && said(&found).contains(words), "{words}: {}", said(&found));
        };
        let whole = judge(&files);
        assert!(whole.status.success(), "the forger is careful: {}", said(&whole));
        for n in 0..files.len() {
            let name = files[n].0.clone();
            let mut without = files.clone();
            without.remove(n);
            named(&without, &format!("{name} is missing"));
            let mut other = files.clone();
            other[n].1.push(' ');
            match name.as_str() {
                "evidence.ndjson" => named(&other, "was changed"),
                "manifest.json" => {}
                _ => named(&other, &format!("{name} is not ")),
            }
        }
        let mut more = files.clone();
        more.insert(0, ("letter.txt".to_owned(), "We told them.".to_owned()));
        named(&more, "\"letter.txt\" does not belong into it");
        for (from, to, words) in [("\"title\": \"Privacy policy\"", "\"title\": \"Terms\"", "policy.title"), ("ACME", "Other", "brand.title")] {
            let mut other = files.clone();
            let manifest = other.iter_mut().find(|file| file.0 == "manifest.json").unwrap();
            assert!(manifest.1.contains(from), "{}", manifest.1);
            manifest.1 = manifest.1.replacen(from, to, 1);
            named(&other, words);
        }
        // The sample of another export is another one's.
        let mut other = files.clone();
        let sample = |files: &Files| files.iter().position(|file| file.0 == "sample.eml").unwrap();
        let at = sample(&other);
        other[at].1 = former[sample(&former)].1.clone();
        named(&other, "sample.eml is not the sample that entry");
        assert!(files.iter().any(|(name, text)| name.starts_with("parts/") && text.contains("{{data.words.subject}}")));
        tidings.stop().await;
    }

    async fn whoever_edits_deletes_inserts_or_reorders_a_row_is_found_out(database: Database) {
        let tidings = Tidings::start(database).await;
        let notice = told(&tidings).await;
        let here = tempfile::tempdir().unwrap();
        let whole = command(&tidings, here.path(), &["evidence", "verify"]);
        assert!(whole.status.success() && said(&whole).contains("Whole: "), "{}", said(&whole));
        let keep = ["CREATE TABLE kept AS SELECT * FROM evidence", "CREATE TABLE kept_heads AS SELECT * FROM evidence_heads",
            "CREATE TABLE kept_texts AS SELECT * FROM policy_texts"];
        run_sql(&tidings, &keep).await;
        let insert = "INSERT INTO evidence (notice_id, seq, at, kind, person, body, previous, hash) \
            SELECT notice_id, 5, at, kind, person, body, previous, hash FROM kept WHERE seq = 7";
        let cases: [(&[&str], &str); 10] = [
            (&["UPDATE evidence SET body = replace(body, '\"version\":2', '\"version\":3') WHERE seq = 4"], "entry 4 was changed"),
            (&["UPDATE evidence SET at = at + 1 WHERE seq = 1"], "entry 1 was changed"),
            (&["UPDATE evidence SET person = (SELECT person FROM kept WHERE seq = 6) WHERE seq = 5"], "entry 5 was changed"),
            (&["DELETE FROM evidence WHERE seq = 4"], "entry 4 is missing"),
            (&["DELETE FROM evidence WHERE seq = (SELECT MAX(seq) FROM kept)"], "is missing"),
            (&["UPDATE evidence SET seq = -seq WHERE seq >= 5", "UPDATE evidence SET seq = 1 - seq WHERE seq < 0", insert],
                "entry 5 "),
            (&["INSERT INTO evidence (notice_id, seq, at, kind, person, body, previous, hash) \
                SELECT notice_id, 900, at, kind, person, body, previous, hash FROM kept WHERE seq = 4"], "entry 900 was inserted"),
            (&["UPDATE evidence SET seq = -1 WHERE seq = 4", "UPDATE evidence SET seq = 4 WHERE seq = 6",
                "UPDATE evidence SET seq = 6 WHERE seq = -1"], "entry 4 is out of order"),
            (&["DELETE FROM evidence_heads"], "the head is missing"),
            (&["UPDATE policy_texts SET body_markdown = 'We may do anything.' WHERE language = 'de'"], "version 2 in \"de\""),
        ];
        for (tampering, words) in cases {
            run_sql(&tidings, tampering).await;
            let found = command(&tidings, here.path(), &["evidence", "verify"]);
            assert_eq!(found.status.code(), Some(1), "{tampering:?} {}", said(&found));
            let complaint = String::from_utf8_lossy(&found.stderr).into_owned();
            assert!(complaint.contains(&notice) && complaint.contains(words), "{tampering:?} {complaint}");
            assert_eq!(complaint.lines().count(), 1, "{complaint}");
            let exported = command(&tidings, here.path(), &["evidence", "export", "--notice", &notice]);
            assert_eq!(exported.status.code(), Some(1), "{tampering:?} {}", said(&exported));
            run_sql(&tidings, &[
                "DELETE FROM evidence", "INSERT INTO evidence SELECT * FROM kept",
                "DELETE FROM evidence_heads", "INSERT INTO evidence_heads SELECT * FROM kept_heads",
                "DELETE FROM policy_texts", "INSERT INTO policy_texts SELECT * FROM kept_texts",
            ]).await;
        }
        let whole = command(&tidings, here.path(), &["evidence", "verify", "--json"]);
        let result: Value = serde_json::from_slice(&whole.stdout).unwrap();
        assert_eq!(result["whole"], true, "{result}");
        tidings.stop().await;
    }

    async fn whoever_makes_the_hash_of_a_changed_row_anew_is_found_out_by_the_row_after_it(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.brand("acme").await;
        tidings.recipients(2).await;
        let notice: NoticeId = told_to_all(&tidings).await.parse().unwrap();
        let db = &tidings.app().db;
        assert!(rows::verify(db, notice).await.unwrap().is_ok());
        let mut entry = rows::entries(db.reads(), notice, 1, 1).await.unwrap().remove(0);
        let body = entry.body.replace("\"en\"", "\"fr\"");
        assert!(entry.seq == 2 && body != entry.body, "{entry:?}");
        entry.body = body;
        entry.hash = entry.hash_as(2);
        let sql = "UPDATE evidence SET body = $1, hash = $2 WHERE seq = 2";
        let values = [entry.body.into(), entry.hash.into()];
        let txn = db.begin().await.unwrap();
        txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await.unwrap();
        txn.commit().await.unwrap();
        let unfit = rows::verify(db, notice).await.unwrap().unwrap_err();
        assert_eq!(unfit.to_string(), "entry 2 was changed after it was written");
        tidings.stop().await;
    }

    async fn who_changes_a_notice_and_who_records_wait_for_each_other_in_one_order(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand("acme").await;
        baseline(&tidings).await;
        tidings.post("/policies/privacy/versions", version(&tidings, "material", 60)).await.is(201);
        let notice: NoticeId = publish(&tidings).await.parse().unwrap();
        let db = tidings.app().db.clone();
        let changing = db.begin().await.unwrap();
        rows::locked(&changing, notice).await.unwrap().unwrap();
        let append = async |txn: &Write, db: &Db| rows::append(txn, db, notice, Kind::Late, None, &json!({})).await;
        let recording = tokio::spawn({
            let db = db.clone();
            async move {
                let txn = db.begin().await?;
                rows::append(&txn, &db, notice, Kind::Late, None, &json!({})).await?;
                txn.commit().await
            }
        });
        if db.backend() == DbBackend::Postgres {
            let waits = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
            wait_until("somebody who waits for a lock", async || {
                let found = db.reads().query_all_raw(Statement::from_string(DbBackend::Postgres, waits)).await;
                !found.unwrap().is_empty()
            })
            .await;
        }
        append(&changing, &db).await.unwrap();
        changing.commit().await.unwrap();
        recording.await.unwrap().unwrap();
        let head = rows::verify(&db, notice).await.unwrap().unwrap();
        assert_eq!(head.seq, 4, "the publication, the round and two more");
        tidings.stop().await;
    }

    async fn evidence_is_for_admins_and_auditors_of_its_brand(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand("acme").await;
        tidings.brand("other").await;
        baseline(&tidings).await;
        tidings.post("/policies/privacy/versions", version(&tidings, "material", 60)).await.is(201);
        let path = format!("/notices/{}/evidence", publish(&tidings).await);
        let db = &tidings.app().db;
        let brand = async |slug: &str| brand::rows::find(db.reads(), slug).await.unwrap().unwrap().id;
        let (acme, other) = (brand("acme").await, brand("other").await);
        for (role, bound, status) in [
            (Role::Auditor, None, 200),
            (Role::Auditor, Some(acme), 200),
            (Role::Auditor, Some(other), 404),
            (Role::Admin, Some(other), 404),
            (Role::Operator, None, 403),
            (Role::Accounts, None, 403),
            (Role::Marketer, None, 403),
        ] {
            let made = create_key(db, "evidence", role, bound, "test").await.unwrap();
            tidings.with_key(made.key.expose_secret()).get(&path).await.is(status);
        }
        tidings.stop().await;
    }

    async fn where_there_is_no_notice_that_is_said(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let id = "01980000-0000-7000-8000-000000000001";
        tidings.get(&format!("/notices/{id}/evidence")).await.is(404);
        let here = tempfile::tempdir().unwrap();
        let none = command(&tidings, here.path(), &["evidence", "verify"]);
        assert!(none.status.success() && said(&none).contains("no notice yet"), "{}", said(&none));
        let none = command(&tidings, here.path(), &["evidence", "export", "--notice", id]);
        assert_eq!(none.status.code(), Some(1));
        assert!(said(&none).contains("there is no notice"), "{}", said(&none));
        tidings.stop().await;
    }
}

/// The link in a text under which people answer.
pub(crate) fn approval_link(words: &str) -> String {
    let at = words.find("/a/").unwrap_or_else(|| panic!("no link to answer:\n{words}"));
    let token: String = words[at..].chars().take_while(|c| !c.is_whitespace()).collect();
    token
}
