//! Files of people: streamed in, counted, each bad line with its number and reason.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use sea_orm::{ActiveModelTrait as _, ActiveValue, IntoActiveModel as _};
use serde_json::{Map, Value, json};
use tidings::address::{AddressKey, EmailAddress};
use tidings::brand;
use tidings::db::Db;
use tidings::decision::Standing;
use tidings::id::BrandId;
use tidings::recipient::import::Format;
use tidings::recipient::rows;
use tidings::recipient::{Membership, Outcome, Upsert};

use super::harness::{Database, Tidings};

fn counts(report: &Value) -> Vec<u64> {
    ["received", "created", "updated", "unchanged", "duplicates", "rejected"]
        .map(|name| report[name].as_u64().unwrap())
        .to_vec()
}

/// A line of a file and the same said through the API; lines of one address differ in how it is spelt.
fn line(random: &mut StdRng, brand: Option<BrandId>) -> (Value, Upsert) {
    let n = random.random_range(0..150);
    let email = match random.random_range(0..3) {
        0 => format!("Person.{n}@B\u{fc}cher.example"),
        1 => format!("person.{n}@xn--bcher-kva.example"),
        _ => format!("PERSON.{n}@bu\u{308}cher.example"),
    };
    let mut said = Upsert::new(EmailAddress::parse(&email).unwrap());
    let mut spelt = json!({ "email": email });
    for (field, cell) in
        [("name", &mut said.name), ("external_id", &mut said.external_id), ("locale", &mut said.locale)]
    {
        if random.random_bool(0.4) {
            let texts = if field == "locale" {
                ["de", "de-AT", "pt_BR"]
            } else {
                ["\"O'Neil\" \\ {x}, NULL", "null", "\u{1f600} \u{e4}"]
            };
            let text = texts[random.random_range(0..3)];
            spelt[field] = json!(text);
            *cell = Some(Some(text.to_owned()));
        }
    }
    if random.random_bool(0.3) {
        let tags: Vec<&str> = ["a", "b;c", "\"d\""].into_iter().take(random.random_range(0..4)).collect();
        spelt["tags"] = json!(tags);
        said.tags = Some(tags.into_iter().map(str::to_owned).collect());
    }
    if random.random_bool(0.5) {
        let mut attributes = Map::new();
        for _ in 0..random.random_range(0..4) {
            let values = [
                json!(null),
                json!(1),
                json!(1.5),
                json!("two\nlines\t\\"),
                json!(true),
                json!({ "x": [1, null, "y"] }),
            ];
            attributes.insert(
                format!("k{}", random.random_range(0..3)),
                values[random.random_range(0..values.len())].clone(),
            );
        }
        spelt["attributes"] = json!(attributes);
        said.attributes = attributes;
    }
    said.membership = brand.map_or(Membership::Unsaid, Membership::Join);
    (spelt, said)
}

/// Everybody, by address or, when erased, by its hash: all that is stored but ids and times.
async fn everybody(db: &Db) -> BTreeMap<String, Value> {
    let people = rows::list(db.reads(), None, None, 10_000).await.unwrap();
    let ids: Vec<_> = people.iter().map(|person| person.id).collect();
    let ties = rows::ties(db.reads(), &ids).await.unwrap();
    let tied = |id| {
        let ties = ties.get(&id).into_iter().flatten();
        ties.map(|tie| json!([tie.brand_id, tie.belongs, tie.customer])).collect::<Vec<_>>()
    };
    let people = people.into_iter().map(|person| {
        let all = json!([
            person.address,
            person.folded,
            person.name,
            person.external_id,
            person.locale,
            person.standing.to_string(),
            person.every_brand,
            person.tags,
            person.attributes,
            person.policies,
            person.created_at == person.updated_at,
            tied(person.id),
        ]);
        (person.address_hash.to_text(), all)
    });
    people.collect()
}

/// Takes from everybody who says so what erasure takes.
async fn erase(db: &Db, which: impl Fn(&str) -> bool) {
    let txn = db.begin().await.unwrap();
    for person in rows::list(&*txn, None, None, 10_000).await.unwrap() {
        if person.folded.as_deref().is_some_and(&which) {
            let mut row: rows::recipient::ActiveModel = person.into();
            row.address = ActiveValue::Set(None);
            row.folded = ActiveValue::Set(None);
            row.standing = ActiveValue::Set(Standing::Erased);
            row.update(&*txn).await.unwrap();
        }
    }
    txn.commit().await.unwrap();
}

/// What the lines of a file come to when each is stored in a transaction of its own, as [`counts`].
async fn one_at_a_time(db: &Db, key: &AddressKey, lines: &[Upsert]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    let mut counts = vec![lines.len() as u64, 0, 0, 0, 0, 0];
    for said in lines {
        if !seen.insert(said.address.folded()) {
            counts[4] += 1;
            continue;
        }
        let txn = db.begin().await.unwrap();
        let done = rows::upsert(&txn, db, key, said, rows::By::Keeper).await.unwrap().unwrap();
        txn.commit().await.unwrap();
        counts[match done.outcome {
            Outcome::Created => 1,
            Outcome::Updated => 2,
            Outcome::Unchanged => 3,
            Outcome::Erased => 5,
        }] += 1;
    }
    counts
}

on_both! {
    async fn a_file_says_to_which_brands_people_belong_and_what_they_accepted(database: Database) {
        let tidings = Tidings::start_web(database).await;
        for brand in ["acme", "beta", "gone"] {
            tidings.brand(brand).await;
        }
        tidings.delete("/brands/gone").await.is(204);
        tidings.published("acme", "privacy", 3).await;
        tidings.published("beta", "terms", 2).await;
        let of = async |who: &str| {
            let found = tidings.get(&format!("/recipients?email={who}@people.example.com")).await.ok();
            let person = &found["items"][0];
            (person["brands"].clone(), person["policies"].clone(), person["attributes"].clone())
        };
        let csv = "email,Brands,policies,city\n\
            a@people.example.com,acme; beta;acme,privacy=3;terms = 1,Ulm\n\
            b@people.example.com,,,\n\
            c@people.example.com,nowhere,,\n\
            d@people.example.com,gone,,\n\
            e@people.example.com,acme,privacy,\n\
            f@people.example.com,acme,privacy=0,\n\
            g@people.example.com,acme,Privacy=1,\n\
            h@people.example.com,acme,privacy=-1,\n";
        let report = tidings.post_text("/recipients/import", "text/csv", csv).await.ok();
        assert_eq!(counts(&report), [8, 2, 0, 0, 0, 6], "{report}");
        let lines: Vec<(u64, &str)> = report["errors"].as_array().unwrap().iter()
            .map(|error| (error["line"].as_u64().unwrap(), error["reason"].as_str().unwrap())).collect();
        assert_eq!(lines.iter().map(|line| line.0).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9], "{lines:?}");
        assert!(lines[..2].iter().all(|line| line.1.starts_with("`brands` names a brand")), "{lines:?}");
        assert!(lines[2..].iter().all(|line| line.1.starts_with("`policies` must name policies")), "{lines:?}");
        assert_eq!(of("a").await, (json!(["acme", "beta"]), json!({ "privacy": 3, "terms": 1 }), json!({ "city": "Ulm" })));
        assert_eq!(of("b").await, (json!(null), json!({}), json!({})));
        // The same file once more changes nothing, and what a later one leaves empty stays.
        let again = tidings.post_text("/recipients/import", "text/csv", csv).await.ok();
        assert_eq!(counts(&again), [8, 0, 0, 2, 0, 6], "{again}");
        let lines = "{\"email\": \"a@people.example.com\", \"brands\": [\"beta\"], \"policies\": {\"terms\": 2}}\n\
            {\"email\": \"b@people.example.com\", \"brands\": \"acme\"}\n\
            {\"email\": \"c@people.example.com\", \"policies\": [3]}\n\
            {\"email\": \"d@people.example.com\", \"brands\": null, \"policies\": null}\n";
        let report = tidings.post_text("/recipients/import", "application/x-ndjson", lines).await.ok();
        assert_eq!(counts(&report), [4, 1, 1, 0, 0, 2], "{report}");
        assert_eq!(of("a").await, (json!(["beta"]), json!({ "privacy": 3, "terms": 2 }), json!({ "city": "Ulm" })));
        // A key bound to one brand names that one alone.
        let db = &tidings.app().db;
        let own = brand::rows::find(db.reads(), "acme").await.unwrap().unwrap().id;
        let made = tidings::access::rows::create_key(db, "acme", tidings::web::Role::Admin, Some(own), "test").await.unwrap();
        let bound = tidings.with_key(secrecy::ExposeSecret::expose_secret(&made.key));
        let csv = "email,brands\nx@people.example.com,acme\ny@people.example.com,beta\nz@people.example.com,acme;beta\n";
        let report = bound.post_text("/recipients/import", "text/csv", csv).await.ok();
        assert_eq!(counts(&report), [3, 1, 0, 0, 0, 2], "{report}");
        assert_eq!(of("x").await.0, json!(["acme"]));
        // Nor does it say what people accepted of others' policies.
        let csv = "email,policies\nx@people.example.com,privacy=3\ny@people.example.com,privacy=3;terms=1\n";
        let report = bound.post_text("/recipients/import", "text/csv", csv).await.ok();
        assert_eq!(counts(&report), [2, 0, 1, 0, 0, 1], "{report}");
        assert_eq!(of("x").await.1, json!({ "privacy": 3 }));
        let one = json!({ "email": "x@people.example.com", "policies": { "terms": 1 } });
        let reason = bound.post("/recipients", one).await.refuses("/policies");
        assert!(reason.contains("\"terms\""), "{reason}");
        let id = bound.get("/recipients?email=x@people.example.com").await.ok()["items"][0]["id"].as_str().unwrap().to_owned();
        bound.patch(&format!("/recipients/{id}"), json!({ "policies": { "terms": 1 } })).await.refuses("/policies");
        // Of a campaign's recipients they are data as any other column.
        tidings.topic("acme", "offers", "marketing").await;
        tidings.template("hello").await;
        let campaign = tidings.draft("acme", "offers").await;
        let csv = "email,brands,policies\nk@people.example.com,Anything,goes\n";
        let report = tidings.post_text(&format!("/campaigns/{campaign}/recipients"), "text/csv", csv).await.ok();
        assert_eq!(report["added"], 1, "{report}");
        tidings.stop().await;
    }

    async fn a_file_does_what_its_lines_do_one_at_a_time(database: Database) {
        let other = database.empty_again().await;
        let single = Db::open(&other.url()).await.unwrap();
        single.migrate().await.unwrap();
        let tidings = Tidings::start_web(database).await;
        tidings.brand("acme").await;
        let (whole, key) = (&tidings.app().db, &tidings.app().address_key);
        let brand = brand::rows::find(whole.reads(), "acme").await.unwrap().unwrap();
        let txn = single.begin().await.unwrap();
        brand.clone().into_active_model().reset_all().insert(&*txn).await.unwrap();
        txn.commit().await.unwrap();
        let seed = rand::random();
        let mut random = StdRng::seed_from_u64(seed);
        for round in 0..4 {
            let (mut file, mut lines) = (String::new(), Vec::new());
            let brand = (round % 2 == 1).then_some(brand.id);
            let bound = brand.map(|brand| rows::Bound { brand, policies: Default::default() });
            for _ in 0..120 {
                let (spelt, said) = line(&mut random, brand);
                file += &format!("{spelt}\n");
                lines.push(said);
            }
            let report = rows::import_all(whole, key, file.as_bytes(), Format::Ndjson, bound, rows::By::Keeper, |_| {}).await.unwrap();
            let counted = counts(&serde_json::to_value(report).unwrap());
            assert_eq!(counted, one_at_a_time(&single, key, &lines).await, "round {round} of seed {seed}");
            assert_eq!(everybody(whole).await, everybody(&single).await, "round {round} of seed {seed}");
            for db in [whole, &single] {
                erase(db, |folded| folded.starts_with(&format!("person.{round}"))).await;
            }
        }
        single.close().await;
        tidings.stop().await;
    }

    async fn files_of_the_same_people_in_any_order_never_wait_for_one_another_in_a_circle(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let file = |random: &mut StdRng, round: usize| {
            let mut people: Vec<usize> = (0..900).filter(|_| random.random_bool(0.7)).collect();
            people.shuffle(random);
            let lines: String = people.iter().map(|n| format!("p{n}@people.example.com,{round}\n")).collect();
            format!("email,round\n{lines}")
        };
        let mut random = StdRng::seed_from_u64(7);
        for round in 0..4 {
            // Everybody is new, then some are, then nobody is.
            let files: Vec<String> = (0..6).map(|_| file(&mut random, round)).collect();
            let uploads = files.into_iter().map(|file| {
                let api = tidings.with_key("admin-key-of-the-tests");
                async move { api.post_text("/recipients/import", "text/csv", file).await.ok() }
            });
            for report in futures_util::future::join_all(uploads).await {
                assert_eq!(report["rejected"], 0, "{report}");
            }
        }
        tidings.stop().await;
    }

    async fn a_file_goes_in_but_for_its_bad_lines(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.post("/recipients", json!({ "email": "known@example.org", "name": "Old", "locale": "de" })).await.ok();
        tidings.post("/recipients", json!({ "email": "same@example.org", "name": "Same" })).await.ok();
        let mut file = b"\xef\xbb\xbfemail,name,external_id,locale,tags,city\r\n".to_vec();
        file.extend_from_slice(b"new@example.org,\"New, Person\",n-1,en,a;b,Graz\r\n");
        file.extend_from_slice(b"KNOWN@example.org,Known,,,,\r\n");
        file.extend_from_slice(b"same@example.org,Same,,,,\r\n");
        file.extend_from_slice(b"\r\n");
        file.extend_from_slice(b"New@Example.org,Other,,,,\r\n");
        file.extend_from_slice(b"not-an-address,X,,,,\r\n");
        file.extend_from_slice(b"bad@example.org,\xff,,,,\r\n");
        file.extend_from_slice(b"tabs@example.org,X,,,,\"two\r\nlines\"\r\n");
        file.extend_from_slice(b"short@example.org,X\r\n");
        file.extend_from_slice(b"last@example.org,Last,,,,");
        let report = tidings.post_text("/recipients/import", "text/csv; charset=utf-8", file.clone()).await.ok();
        assert_eq!(counts(&report), [9, 3, 1, 1, 1, 3]);
        assert_eq!(report["errors_left_out"], 0);
        assert_eq!(report["errors"], json!([
            { "line": 7, "reason": "`email`: the address is not of the form name@domain" },
            { "line": 8, "reason": "the column `name` is not UTF-8" },
            { "line": 11, "reason": "has 2 columns where the header has 6" },
        ]));
        let new = tidings.get("/recipients?email=new%40example.org").await.ok()["items"][0].clone();
        assert_eq!((&new["name"], &new["tags"]), (&json!("New, Person"), &json!(["a", "b"])));
        assert_eq!(new["attributes"], json!({ "city": "Graz" }));
        let known = tidings.get("/recipients?email=known%40example.org").await.ok()["items"][0].clone();
        assert_eq!((&known["name"], &known["locale"]), (&json!("Known"), &json!("de")));

        let again = tidings.post_text("/recipients/import", "text/csv", file).await.ok();
        assert_eq!(counts(&again), [9, 0, 0, 5, 1, 3], "the same file again changes nothing");
        tidings.stop().await;
    }

    async fn a_file_without_a_usable_header_or_type_is_refused_whole(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let post = async |kind: &str, text: &str| tidings.post_text("/recipients/import", kind, text.to_owned()).await;
        assert!(post("text/csv", "name\nAnn\n").await.refuses("").contains("no column `email`"));
        assert!(post("text/csv", "email,name,name\na@b.example,A,B\n").await.refuses("").contains("twice"));
        assert!(post("text/csv", "").await.refuses("").contains("empty"));
        post("application/json", "{}").await.problem(415);
        assert_eq!(counts(&post("application/x-ndjson", "").await.ok()), [0; 6]);
        assert_eq!(tidings.get("/recipients").await.ok()["items"], json!([]));
        tidings.stop().await;
    }

    async fn a_report_names_a_thousand_errors_and_counts_the_rest(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let file = format!("email\n{}ann@example.org\n", "nobody\n".repeat(1500));
        let report = tidings.post_text("/recipients/import", "text/csv", file).await.ok();
        assert_eq!(counts(&report), [1501, 1, 0, 0, 0, 1500]);
        assert_eq!(report["errors"].as_array().unwrap().len(), 1000);
        assert_eq!((&report["errors"][999]["line"], &report["errors_left_out"]), (&json!(1001), &json!(500)));
        tidings.stop().await;
    }

    async fn many_files_of_the_same_people_at_once_all_go_in(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let file = |shift: usize| {
            let mut lines: Vec<String> =
                (0..3000).map(|n| format!("p{}@people.example.com,Person {n},{shift}", (n * 7 + shift) % 3000)).collect();
            lines.insert(0, "email,name,file".to_owned());
            lines.join("\n")
        };
        let uploads = (0..4).map(|n| {
            let (api, file) = (tidings.with_key("admin-key-of-the-tests"), file(n * 500));
            async move { api.post_text("/recipients/import", "text/csv", file).await }
        });
        let reports = futures_util::future::join_all(uploads).await;
        let created: u64 = reports.iter().map(|report| report.ok()["created"].as_u64().unwrap()).sum();
        assert_eq!(created, 3000);
        for report in &reports {
            let counts = counts(&report.ok());
            assert_eq!(counts[0], 3000);
            assert_eq!(counts[1..4].iter().sum::<u64>(), 3000, "{counts:?}");
        }
        tidings.stop().await;
    }

    async fn a_file_larger_than_any_body_limit_streams_in(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let pad = "x".repeat(900);
        let file: String = (0..4000).map(|n| format!("{{\"email\":\"p{n}@people.example.com\",\"attributes\":{{\"pad\":\"{pad}\"}}}}\n")).collect();
        assert!(file.len() > 3_000_000);
        let report = tidings.post_text("/recipients/import", "application/x-ndjson", file).await.ok();
        assert_eq!(counts(&report), [4000, 4000, 0, 0, 0, 0]);
        tidings.stop().await;
    }
}
