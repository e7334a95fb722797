//! People: stored once under the folded address, seen by whom they belong to, never freed of an opt-out by an upsert.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};
use tidings::access::rows::create_key;
use tidings::address::EmailAddress;
use tidings::brand;
use tidings::db::Db;
use tidings::decision::Standing;
use tidings::id::{BrandId, RecipientId};
use tidings::recipient::{Audience, CustomerOf, Membership, Upsert, rows};
use tidings::web::Role;

use super::harness::{Answer, Api, Database, Tidings};

/// A key of this role, perhaps bound to a brand.
async fn key(tidings: &Tidings, role: Role, bound: Option<&str>) -> Api {
    use secrecy::ExposeSecret;
    let db = &tidings.app().db;
    let brand = match bound {
        Some(slug) => Some(brand::rows::find(db.reads(), slug).await.unwrap().unwrap().id),
        None => None,
    };
    let created = create_key(db, &format!("{role}"), role, brand, "tests").await.unwrap();
    tidings.with_key(created.key.expose_secret())
}

async fn by_email(api: &Api, email: &str) -> Answer {
    let query: String =
        url::form_urlencoded::Serializer::new(String::new()).append_pair("email", email).finish();
    api.get(&format!("/recipients?{query}")).await
}

/// Values that two databases and this program may tell apart in ways of their own.
fn values() -> Vec<Value> {
    vec![
        json!(1),
        json!(1.0),
        json!(1.5),
        json!(-3),
        json!(9_007_199_254_740_993_i64),
        json!("1"),
        json!("One"),
        json!(""),
        json!("a\"b\\c'\n"),
        json!("null"),
        json!(true),
        json!(false),
        json!([]),
        json!({}),
        json!([1, "x", null]),
        json!(["x", 1, null]),
        json!({ "b": 1, "a": { "c": [true] } }),
        json!({ "a": { "c": [false] } }),
    ]
}

/// A crowd of people of two brands or of every one.
async fn crowd(tidings: &Tidings, random: &mut StdRng, brands: [BrandId; 2]) {
    let app = tidings.app();
    let txn = app.db.begin().await.unwrap();
    for n in 0..120 {
        let mut said = Upsert::new(EmailAddress::parse(&format!("p{n}@people.example.com")).unwrap());
        let some = |random: &mut StdRng| brands.into_iter().filter(|_| random.random_bool(0.5)).collect();
        if random.random_bool(0.7) {
            said.membership = Membership::Only(some(random));
        }
        if random.random_bool(0.5) {
            said.customer_of = CustomerOf::Only(some(random));
        }
        let locale = [None, Some("de"), Some("DE_at"), Some("den"), Some("d"), Some("en-GB")]
            [random.random_range(0..6)];
        said.locale = Some(locale.map(str::to_owned));
        said.tags = Some(
            ["a", "A", "b;c", "%", "\"d\""]
                .into_iter()
                .filter(|_| random.random_bool(0.3))
                .map(str::to_owned)
                .collect(),
        );
        for key in ["k", "K", "a.b", "$[0]", "\"q\""] {
            let values = values();
            if random.random_bool(0.6) {
                said.attributes.insert(key.to_owned(), values[random.random_range(0..values.len())].clone());
            }
        }
        rows::upsert(&txn, &app.db, &app.address_key, &said, rows::By::Keeper).await.unwrap().unwrap();
    }
    txn.commit().await.unwrap();
}

async fn selected(
    db: &Db,
    audience: &Audience,
    brand: BrandId,
    after: Option<RecipientId>,
    upto: Option<RecipientId>,
) -> Vec<RecipientId> {
    let people = rows::meant(db.backend(), audience, brand, after, upto);
    let sql = format!("SELECT id FROM ({}) AS p ORDER BY id", people.sql);
    let found = db
        .reads()
        .query_all_raw(Statement::from_sql_and_values(db.backend(), sql, people.values))
        .await
        .unwrap();
    found.iter().map(|row| row.try_get("", "id").unwrap()).collect()
}

on_both! {
    async fn the_database_takes_an_audience_as_this_program_does(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let mut brands = Vec::new();
        for slug in ["acme", "bolt"] {
            tidings.brand(slug).await;
            brands.push(brand::rows::find(tidings.app().db.reads(), slug).await.unwrap().unwrap().id);
        }
        let brands = [brands[0], brands[1]];
        let seed = rand::random();
        crowd(&tidings, &mut StdRng::seed_from_u64(seed), brands).await;
        let mut audiences = vec![
            json!({ "all": true }), json!({ "customer": true }), json!({ "customer": false }),
            json!({ "tags": ["a"] }), json!({ "tags": ["none", "%", "\"d\""] }), json!({ "tags": [""] }),
            json!({ "tags": ["b;c"], "customer": true, "locale": "de", "attributes": { "k": 1 } }),
            json!({ "attributes": { "k": 1, "K": "1" } }), json!({ "attributes": { "none": null } }), json!({ "attributes": { "k": null } }),
        ];
        audiences.extend(["de", "DE", "de-at", "de_AT", "d", "e", "en_", "%", "\u{130}"].map(|locale| json!({ "locale": locale })));
        for key in ["k", "a.b", "$[0]", "\"q\"", "k.a"] {
            audiences.extend(values().into_iter().map(|value| json!({ "attributes": { key: value } })));
        }
        let db = &tidings.app().db;
        let mut met = 0;
        for spelt in audiences {
            let audience: Audience = serde_json::from_value(spelt.clone()).unwrap();
            for brand in brands {
                let people = rows::list(db.reads(), Some(brand), None, 1000).await.unwrap();
                let ids: Vec<RecipientId> = people.iter().map(|person| person.id).collect();
                let members: BTreeMap<_, _> = rows::people(db.reads(), &ids, brand).await.unwrap().into_iter().collect();
                let want: Vec<RecipientId> =
                    members.into_iter().filter(|(_, member)| audience.matches(member)).map(|(id, _)| id).collect();
                met += usize::from(!want.is_empty());
                assert_eq!(selected(db, &audience, brand, None, None).await, want, "{spelt} of seed {seed}");
                let (mut after, mut steps) = (None, Vec::new());
                loop {
                    let upto = rows::end_of_step(db.reads(), after, 50).await.unwrap();
                    steps.extend(selected(db, &audience, brand, after, upto).await);
                    let Some(end) = upto else { break };
                    after = Some(end);
                }
                assert_eq!(steps, want, "{spelt} in steps, of seed {seed}");
            }
        }
        assert!(met > 100, "hardly any audience means anybody");
        tidings.stop().await;
    }

    async fn one_address_is_one_recipient_however_it_is_spelt(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let first = tidings.post("/recipients", json!({ "email": "U@BÜCHER.example", "name": "Uta" })).await;
        let id = first.is(201).id();
        assert_eq!(first.json()["email"], "U@BÜCHER.example");
        assert_eq!(first.json()["standing"], "active");
        assert_eq!(first.json()["brands"], Value::Null);
        for spelling in ["u@xn--bcher-kva.EXAMPLE", "u@bu\u{308}cher.example", " U@Bücher.Example "] {
            let again = tidings.post("/recipients", json!({ "email": spelling })).await;
            assert_eq!(again.is(200).id(), id, "{spelling}");
            assert_eq!(again.json()["email"], "U@BÜCHER.example");
            assert_eq!(again.json()["name"], "Uta");
            assert_eq!(by_email(&tidings, spelling).await.ok()["items"][0]["id"], id, "{spelling}");
        }
        let all = tidings.get("/recipients").await.ok();
        assert_eq!(all["items"].as_array().unwrap().len(), 1);
        assert_eq!(by_email(&tidings, "nobody@example.org").await.ok(), json!({ "items": [], "next": null }));
        tidings.stop().await;
    }

    async fn absent_fields_leave_what_is_stored(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand("acme").await;
        tidings.brand("bolt").await;
        tidings.published("acme", "privacy", 3).await;
        tidings.published("bolt", "terms", 1).await;
        let full = json!({
            "email": "ann@example.org", "name": "Ann", "external_id": "crm-1", "locale": "de-AT",
            "brands": ["acme"], "customer_of": ["acme"], "tags": ["a", "b", "a"],
            "attributes": { "city": "Wien", "n": 3, "deep": { "x": [1, null] } }, "policies": { "privacy": 3 },
        });
        let first = tidings.post("/recipients", full).await.is(201).json();
        assert_eq!(first["tags"], json!(["a", "b"]));
        assert_eq!((&first["brands"], &first["customer_of"]), (&json!(["acme"]), &json!(["acme"])));
        let mut again = tidings.post("/recipients", json!({ "email": "ann@example.org" })).await.is(200).json();
        assert_eq!(again, first, "nothing was said, so nothing changed, not even the time of the last change");

        let id = first["id"].as_str().unwrap();
        again = tidings.patch(&format!("/recipients/{id}"), json!({
            "name": null, "brands": ["bolt"], "customer_of": [], "tags": [],
            "attributes": { "city": null, "n": 4 }, "policies": { "terms": 1 },
        })).await.ok();
        assert_eq!((&again["name"], &again["external_id"]), (&Value::Null, &json!("crm-1")));
        assert_eq!((&again["brands"], &again["customer_of"]), (&json!(["bolt"]), &json!([])));
        assert_eq!(again["attributes"], json!({ "n": 4, "deep": { "x": [1, null] } }));
        assert_eq!(again["policies"], json!({ "privacy": 3, "terms": 1 }));
        again = tidings.post("/recipients", json!({ "email": "ann@example.org", "brands": null })).await.ok();
        assert_eq!(again["brands"], Value::Null);
        tidings.stop().await;
    }

    async fn bad_fields_are_named(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let post = async |body: Value| tidings.post("/recipients", body).await;
        assert_eq!(post(json!({ "name": "Ann" })).await.refuses("/email"), "is missing");
        for bad in ["", "ann", "ann@localhost", "a\r\nb@example.org", "a\0@example.org", "ann@[127.0.0.1]"] {
            let reason = post(json!({ "email": bad })).await.refuses("/email");
            assert!(bad.is_empty() || !reason.contains(bad), "{reason}");
        }
        let with = async |field: &str, value: Value| post(json!({ "email": "ann@example.org", field: value })).await;
        for bad in ["a\rb", "a\nb", "a\0b"] {
            with("name", json!(bad)).await.refuses("/name");
            with("external_id", json!(bad)).await.refuses("/external_id");
            with("locale", json!(bad)).await.refuses("/locale");
            with("tags", json!([bad])).await.refuses(if bad.contains('\0') { "/tags/0" } else { "/tags" });
        }
        with("attributes", json!({ "x": "a\0b" })).await.refuses("/attributes/x");
        with("attributes", json!({ "a\nb": "x" })).await.refuses("/attributes");
        with("attributes", json!([])).await.refuses("/attributes");
        with("name", json!("n".repeat(201))).await.refuses("/name");
        with("policies", json!({ "privacy": "3" })).await.refuses("/policies");
        with("policies", json!({ "Privacy": 3 })).await.refuses("/policies");
        with("brands", json!(["nowhere"])).await.refuses("/brands/0");
        with("customer_of", json!(["nowhere"])).await.refuses("/customer_of/0");
        with("standing", json!("active")).await.refuses("/standing");
        with("nome", json!("x")).await.refuses("/nome");
        assert!(by_email(&tidings, "ann@example.org").await.ok()["items"].as_array().unwrap().is_empty());
        assert!(tidings.get("/recipients?email=a+b@example.org").await.refuses("email").contains("%2B"));

        let id = tidings.recipient("ann@example.org").await;
        let path = format!("/recipients/{id}");
        tidings.patch(&path, json!({ "email": "eve@example.org" })).await.refuses("/email");
        tidings.patch(&path, json!({ "standing": "erased" })).await.refuses("/standing");
        tidings.patch(&path, json!({ "standing": "gone" })).await.refuses("/standing");
        tidings.get("/recipients/0").await.problem(404);
        tidings.stop().await;
    }

    async fn what_was_accepted_is_published_when_it_is_stored(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand("acme").await;
        tidings.published("acme", "privacy", 1).await;
        let accepts = |email: &str, version: i64| json!({ "email": email, "policies": { "privacy": version } });
        let reason = tidings.post("/recipients", accepts("ann@example.org", 2)).await.refuses("/policies");
        assert!(reason.contains("version 2") && reason.contains("not published"), "{reason}");
        assert_eq!(by_email(&tidings, "ann@example.org").await.ok()["items"], json!([]));
        let id = tidings.post("/recipients", accepts("ann@example.org", 1)).await.is(201).json()["id"].clone();
        let path = format!("/recipients/{}", id.as_str().unwrap());
        let draft = json!({
            "body_markdown": "# T", "change": "adverse", "summary": "S.", "effective_at": tidings.in_days(40),
        });
        tidings.post("/policies/privacy/versions", draft).await.is(201);
        for unheard_of in [json!({ "privacy": 2 }), json!({ "nowhere": 1 })] {
            tidings.patch(&path, json!({ "policies": unheard_of })).await.refuses("/policies");
        }
        let file = "email,policies\nann@example.org,privacy=2\nbob@example.org,privacy=1\neve@example.org,privacy=2\n";
        let report = tidings.post_text("/recipients/import", "text/csv", file).await.ok();
        assert_eq!((&report["created"], &report["rejected"]), (&json!(1), &json!(2)), "{report}");
        assert_eq!((&report["errors"][0]["line"], &report["errors"][1]["line"]), (&json!(2), &json!(4)), "{report}");
        let published = tidings.post_empty("/policies/privacy/versions/2/publish").await.ok();
        tidings.patch(&path, json!({ "policies": { "privacy": 2 } })).await.ok();
        // What is stored already may be said again when the version was called off.
        let notice = published["notice"]["id"].as_str().unwrap();
        tidings.post(&format!("/notices/{notice}/withdraw"), json!({ "reason": "No." })).await.ok();
        tidings.post("/recipients", accepts("ann@example.org", 2)).await.is(200);
        tidings.post("/recipients", accepts("bob@example.org", 2)).await.refuses("/policies");
        let report = tidings.post_text("/recipients/import", "text/csv", file).await.ok();
        assert_eq!((&report["unchanged"], &report["rejected"]), (&json!(2), &json!(1)), "{report}");
        tidings.patch(&path, json!({ "policies": { "privacy": null } })).await.ok();
        tidings.patch(&path, json!({ "policies": { "privacy": 2 } })).await.refuses("/policies");
        tidings.stop().await;
    }

    async fn what_people_accepted_is_changed_by_no_marketer(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand("acme").await;
        tidings.published("acme", "privacy", 2).await;
        let marketer = key(&tidings, Role::Marketer, Some("acme")).await;
        let accounts = key(&tidings, Role::Accounts, None).await;
        let accepts = |version: i64| json!({ "email": "ann@example.org", "policies": { "privacy": version } });
        let id = marketer.post("/recipients", accepts(1)).await.is(201).json()["id"].clone();
        let path = format!("/recipients/{}", id.as_str().unwrap());
        let bob = tidings.recipient("bob@example.org").await;
        for answer in [
            marketer.post("/recipients", accepts(2)).await,
            marketer.patch(&path, json!({ "policies": { "privacy": 2 } })).await,
            marketer.patch(&path, json!({ "policies": { "privacy": null } })).await,
            marketer.patch(&format!("/recipients/{bob}"), json!({ "policies": { "privacy": 1 } })).await,
        ] {
            assert_eq!(answer.problem(403)["errors"][0]["pointer"], "/policies");
        }
        assert_eq!(marketer.post("/recipients", accepts(1)).await.is(200).json()["policies"], json!({ "privacy": 1 }));
        let file = "email,policies\nann@example.org,privacy=2\nbob@example.org,privacy=1\neve@example.org,privacy=2\n";
        let report = marketer.post_text("/recipients/import", "text/csv", file).await.ok();
        assert_eq!((&report["created"], &report["updated"], &report["rejected"]), (&json!(1), &json!(0), &json!(2)), "{report}");
        assert_eq!((&report["errors"][0]["line"], &report["errors"][1]["line"]), (&json!(2), &json!(3)), "{report}");
        let same = marketer.post_text("/recipients/import", "text/csv", "email,policies\nann@example.org,privacy=1\n").await;
        assert_eq!(same.ok()["unchanged"], 1);
        assert_eq!(accounts.patch(&path, json!({ "policies": { "privacy": 2 } })).await.ok()["policies"], json!({ "privacy": 2 }));
        tidings.stop().await;
    }

    async fn roles_set_what_is_theirs(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand("acme").await;
        let id = tidings.recipient("ann@example.org").await;
        let path = format!("/recipients/{id}");
        let accounts = key(&tidings, Role::Accounts, None).await;
        let marketer = key(&tidings, Role::Marketer, None).await;
        let operator = key(&tidings, Role::Operator, None).await;
        let auditor = key(&tidings, Role::Auditor, None).await;
        let sender = key(&tidings, Role::Sender, None).await;

        for (field, value) in [("standing", json!("restricted")), ("customer_of", json!(["acme"]))] {
            let problem = marketer.patch(&path, json!({ field: value })).await.problem(403);
            assert_eq!(problem["errors"][0]["pointer"], format!("/{field}"));
        }
        marketer.patch(&path, json!({ "tags": ["vip"] })).await.ok();
        let changed = accounts.patch(&path, json!({ "standing": "restricted", "customer_of": ["acme"] })).await.ok();
        assert_eq!((&changed["standing"], &changed["settled"]), (&json!("restricted"), &json!(true)));
        assert_eq!(changed["in_flight"], json!([]));
        assert_eq!(changed["customer_of"], json!(["acme"]));
        assert_eq!(marketer.post("/recipients", json!({ "email": "ann@example.org" })).await.ok()["standing"], "restricted");

        assert_eq!(by_email(&operator, "ann@example.org").await.ok()["items"][0]["id"], id);
        operator.get(&path).await.ok();
        operator.get("/recipients").await.problem(403);
        auditor.get("/recipients").await.ok();
        for reader in [&operator, &auditor, &sender] {
            reader.patch(&path, json!({ "name": "x" })).await.problem(403);
            reader.post("/recipients", json!({ "email": "x@example.org" })).await.problem(403);
            reader.post_text("/recipients/import", "text/csv", "email\n").await.problem(403);
        }
        sender.get(&path).await.problem(403);
        tidings.anonymous().get(&path).await.problem(401);
        tidings.stop().await;
    }

    async fn a_key_of_one_brand_sees_its_people_alone(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand("acme").await;
        tidings.brand("bolt").await;
        let acme = key(&tidings, Role::Accounts, Some("acme")).await;
        let theirs = json!({ "email": "bob@example.org", "brands": ["bolt"], "customer_of": ["bolt"] });
        let bob = tidings.post("/recipients", theirs).await.id();
        acme.get(&format!("/recipients/{bob}")).await.problem(404);
        acme.patch(&format!("/recipients/{bob}"), json!({ "name": "x" })).await.problem(404);
        assert_eq!(by_email(&acme, "bob@example.org").await.ok()["items"], json!([]));

        let ann = acme.post("/recipients", json!({ "email": "ann@example.org" })).await.is(201).json();
        assert_eq!(ann["brands"], json!(["acme"]));
        let everywhere = tidings.recipient("eve@example.org").await;
        let seen = acme.get("/recipients").await.ok();
        let seen: Vec<&Value> = seen["items"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
        assert_eq!(seen, [&ann["id"], &json!(everywhere)]);
        acme.post("/recipients", json!({ "email": "a@example.org", "brands": ["bolt"] })).await.refuses("/brands/0");
        acme.post("/recipients", json!({ "email": "a@example.org", "brands": [] })).await.refuses("/brands");
        acme.post("/recipients", json!({ "email": "a@example.org", "brands": null })).await.refuses("/brands");

        // What it says of its own brand leaves the others as they were.
        let joined = acme.post("/recipients", json!({ "email": "bob@example.org", "customer_of": ["acme"] })).await;
        assert_eq!((&joined.is(200).json()["brands"], &joined.json()["customer_of"]), (&json!(["acme"]), &json!(["acme"])));
        let bob = tidings.get(&format!("/recipients/{bob}")).await.ok();
        assert_eq!(bob["brands"], json!(["acme", "bolt"]));
        assert_eq!(bob["customer_of"], json!(["acme", "bolt"]));
        tidings.stop().await;
    }

    async fn many_calls_for_one_new_address_make_one_recipient_and_none_fails(database: Database) {
        let tidings = Tidings::start_web(database).await;
        for round in 0..5 {
            let calls = (0..12).map(|n| {
                let api = tidings.with_key("admin-key-of-the-tests");
                let body = json!({ "email": format!("ann{round}@example.org"), "attributes": { format!("k{n}"): n } });
                async move { api.post("/recipients", body).await }
            });
            let answers = futures_util::future::join_all(calls).await;
            let created = answers.iter().filter(|answer| answer.status.as_u16() == 201).count();
            assert_eq!(created, 1);
            assert!(answers.iter().all(|answer| answer.id() == answers[0].id()));
            let stored = by_email(&tidings, &format!("ann{round}@example.org")).await.ok();
            assert_eq!(stored["items"][0]["attributes"].as_object().unwrap().len(), 12, "none was lost");
        }
        tidings.stop().await;
    }

    async fn an_upsert_lifts_no_opt_out_and_changes_no_standing(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand_with_every_class("acme").await;
        let id = tidings.recipient("ann@example.org").await;
        tidings.post("/opt-outs", json!({ "email": "ann@example.org", "scope": "all", "channel": "phone" })).await.ok();
        tidings.patch(&format!("/recipients/{id}"), json!({ "standing": "contact_ban" })).await.ok();
        let explain = async || {
            tidings.get("/explain?email=ann%40example.org&brand=acme&topic=marketing").await.ok()
        };
        let before = explain().await;
        assert_eq!(before["decision"], "suppress");
        tidings.post("/recipients", json!({ "email": "Ann@Example.org", "brands": ["acme"], "customer_of": ["acme"] })).await.ok();
        tidings.post_text("/recipients/import", "text/csv", "email,name,tags\nANN@example.org,Ann,a;b\n").await.ok();
        let line = "{\"email\":\"ann@example.org\",\"attributes\":{\"x\":1}}\n";
        tidings.post_text("/recipients/import", "application/x-ndjson", line).await.ok();
        assert_eq!(explain().await["because"], before["because"]);
        assert_eq!(tidings.get(&format!("/recipients/{id}")).await.ok()["standing"], "contact_ban");
        tidings.stop().await;
    }

    async fn nothing_brings_an_erased_person_back(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let id = tidings.recipient("ann@example.org").await;
        let db = &tidings.app().db;
        let txn = db.begin().await.unwrap();
        // What erasure does: only the hash of the address stays.
        let person = rows::by_id(&*txn, id.parse().unwrap()).await.unwrap().unwrap();
        let mut row: rows::recipient::ActiveModel = person.clone().into();
        row.address = sea_orm::ActiveValue::Set(None);
        row.folded = sea_orm::ActiveValue::Set(None);
        row.name = sea_orm::ActiveValue::Set(None);
        row.standing = sea_orm::ActiveValue::Set(Standing::Erased);
        sea_orm::ActiveModelTrait::update(row, &*txn).await.unwrap();
        txn.commit().await.unwrap();

        tidings.post("/recipients", json!({ "email": "ann@example.org", "name": "Ann" })).await.problem(409);
        tidings.patch(&format!("/recipients/{id}"), json!({ "standing": "active" })).await.problem(409);
        let report = tidings.post_text("/recipients/import", "text/csv", "email,name\nann@example.org,Ann\n").await.ok();
        assert_eq!((&report["rejected"], &report["errors"][0]["line"]), (&json!(1), &json!(2)));
        let seen = tidings.get(&format!("/recipients/{id}")).await.ok();
        assert_eq!((&seen["email"], &seen["name"], &seen["standing"]), (&Value::Null, &Value::Null, &json!("erased")));
        tidings.stop().await;
    }

    async fn a_list_of_people_is_paged(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.recipients(7).await;
        let mut seen = Vec::new();
        let mut after = String::new();
        loop {
            let page = tidings.get(&format!("/recipients?limit=3&after={after}")).await.ok();
            seen.extend(page["items"].as_array().unwrap().iter().map(|one| one["email"].to_string()));
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(seen.len(), 7);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 7);
        tidings.stop().await;
    }
}
