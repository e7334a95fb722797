//! What a brand's own pages show of changes: the feed, and the banner that reads it.

use reqwest::Method;
use serde_json::{Value, json};
use tidings::notice::banner::SCRIPT;

use crate::approvals::{ADA, DAY, announced, scene};
use crate::harness::{Answer, Database, Tidings, tools};
use crate::policies::{policy, version, with};

const FEED: &str = "/notices/current.json?brand=acme";
const ORIGIN: &str = "https://www.acme.example";

async fn feed(tidings: &Tidings, more: &str) -> Vec<Value> {
    let answer = tidings.page(&format!("{FEED}{more}")).await.ok();
    assert_eq!(answer.as_object().unwrap().len(), 1, "{answer}");
    answer["notices"].as_array().unwrap().clone()
}

async fn from(tidings: &Tidings, method: Method, path: &str, origin: &str) -> Answer {
    Answer::of(tidings.anonymous().request(method, path).header("origin", origin)).await
}

async fn brand_with_origins(tidings: &Tidings, origins: Value) {
    let body = json!({
        "name": "ACME", "from": "acme <news@acme.example.com>", "postal_address": "1 Main Street", "origins": origins,
    });
    tidings.put("/brands/acme", body).await.ok();
}

on_both! {
    async fn a_change_is_named_from_its_publication_until_some_days_after_its_date(database: Database) {
        let tidings = scene(database).await;
        assert_eq!(feed(&tidings, "").await, [] as [Value; 0], "a baseline changes nothing");
        let german = json!({ "translations": { "de": { "title": "Datenschutz", "summary": "Kürzer.", "body_markdown": "# D" } } });
        let body = with(version(&tidings, "material", 40), german);
        let draft = tidings.post("/policies/privacy/versions", body.clone()).await.ok();
        assert!(feed(&tidings, "").await.is_empty(), "a draft is for nobody yet");
        let published = tidings.post_empty(&format!("/policies/privacy/versions/{}/publish", draft["number"])).await.ok();
        let base = &tidings.base;
        let shown = feed(&tidings, "").await;
        assert_eq!(shown, [json!({
            "policy": "privacy", "version": 2, "title": "Privacy policy", "change": "material", "asks": "nothing",
            "summary": "We keep data for another time.", "published_at": published["version"]["published_at"],
            "effective_at": body["effective_at"], "effective_date": body["effective_at"].as_str().unwrap()[..10],
            "url": format!("{}/policies/privacy/2", shown_base(&shown, base)),
            "changes_url": format!("{}/policies/privacy/2/changes", shown_base(&shown, base)),
            "placements": ["policy", "homepage"],
        })]);
        for (lang, title) in [("de", "Datenschutz"), ("de-AT", "Datenschutz"), ("fr", "Privacy policy")] {
            let told = feed(&tidings, &format!("&lang={lang}")).await[0].clone();
            assert_eq!(told["title"], title, "{lang}");
            // The links lead to what was named, in its language.
            let own = if title == "Datenschutz" { "de" } else { "en" };
            for (name, page) in [("url", "/2"), ("changes_url", "/2/changes")] {
                let url = told[name].as_str().unwrap();
                assert!(url.ends_with(&format!("/policies/privacy{page}?lang={own}")), "{lang}: {url}");
            }
        }
        // What people are told after a correction is what stands here, and a minor change is named without a place.
        let notice = published["notice"]["id"].as_str().unwrap();
        let german = json!({ "summary": null, "reason": "Eine falsche Zahl." });
        let correction =
            json!({ "summary": "We keep data for 40 days.", "reason": "A wrong number.", "translations": { "de": german } });
        tidings.post(&format!("/notices/{notice}/correct"), correction).await.ok();
        announced(&tidings, version(&tidings, "minor", 41)).await;
        let shown = feed(&tidings, "").await;
        assert_eq!(shown[0]["summary"], "We keep data for 40 days.");
        assert_eq!((&shown[1]["version"], &shown[1]["change"], &shown[1]["placements"]), (&json!(3), &json!("minor"), &json!([])));

        tidings.advance(DAY * 54);
        assert_eq!(feed(&tidings, "").await.len(), 2);
        tidings.advance(DAY);
        assert_eq!(feed(&tidings, "").await.len(), 1);
        tidings.advance(DAY);
        assert!(feed(&tidings, "").await.is_empty());
        tidings.stop().await;
    }

    async fn the_feed_asks_what_the_page_still_takes(database: Database) {
        let tidings = scene(database).await;
        let asks = async || {
            let shown = feed(&tidings, "").await;
            shown.iter().map(|change| change["asks"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        announced(&tidings, version(&tidings, "adverse", 40)).await;
        assert_eq!(asks().await, ["approval"]);
        announced(&tidings, version(&tidings, "adverse", 50)).await;
        assert_eq!(asks().await, ["nothing", "approval"], "one question at a time");
        tidings.topic("acme", "profiling", "marketing").await;
        announced(&tidings, with(version(&tidings, "new_use", 52), json!({ "topic": "profiling" }))).await;
        assert_eq!(asks().await, ["nothing", "approval", "use"]);
        tidings.advance(DAY * 53);
        assert_eq!(asks().await, ["nothing", "nothing", "use"]);
        tidings.stop().await;
    }

    async fn a_change_that_is_called_off_is_gone_and_one_put_off_names_its_new_date(database: Database) {
        let tidings = scene(database).await;
        let settings = with(policy(), json!({ "placements": ["footer"], "banner_days_after": 0 }));
        tidings.put("/policies/privacy", settings).await.ok();
        let notice = announced(&tidings, version(&tidings, "adverse", 40)).await;
        let shown = feed(&tidings, "").await;
        assert_eq!((&shown[0]["placements"], &shown[0]["asks"]), (&json!(["footer"]), &json!("approval")));
        let later = crate::policies::in_days(&tidings, 60);
        let put_off = json!({ "effective_at": later, "reason": "It takes longer." });
        tidings.post(&format!("/notices/{notice}/postpone"), put_off).await.ok();
        assert_eq!(feed(&tidings, "").await[0]["effective_at"], json!(later));
        tidings.post(&format!("/notices/{notice}/withdraw"), json!({ "reason": "Not at all." })).await.ok();
        assert!(feed(&tidings, "").await.is_empty());
        tidings.stop().await;
    }
}

/// What links of the program begin with.
fn shown_base(shown: &[Value], base: &str) -> String {
    let url = shown[0]["url"].as_str().unwrap();
    let (start, _) = url.split_once("/policies/").unwrap();
    assert!(start.starts_with("http://"), "{start} of {base}");
    start.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_pages_of_the_brands_own_origins_may_read_the_feed() {
    let tidings = scene(Database::sqlite()).await;
    brand_with_origins(&tidings, json!([ORIGIN, "http://localhost:3000"])).await;
    for (origin, may) in [
        (ORIGIN, true),
        ("http://localhost:3000", true),
        ("https://acme.example", false),
        ("https://www.acme.example.evil.example", false),
        ("http://www.acme.example", false),
        ("null", false),
    ] {
        let (get, asked) = (
            from(&tidings, Method::GET, FEED, origin).await,
            from(&tidings, Method::OPTIONS, FEED, origin).await,
        );
        get.is(200);
        asked.is(204);
        for answer in [&get, &asked] {
            assert_eq!(answer.header("access-control-allow-origin"), if may { origin } else { "" });
            assert_eq!(answer.header("vary"), "Origin");
            assert_eq!(answer.header("set-cookie"), "");
            assert_eq!(answer.header("access-control-allow-credentials"), "");
        }
        assert_eq!(asked.header("access-control-allow-methods"), if may { "GET, HEAD" } else { "" });
    }
    assert_eq!(tidings.page(FEED).await.is(200).header("access-control-allow-origin"), "");
    tidings.page("/notices/current.json?brand=nobody").await.problem(404);
    tidings.page("/notices/current.json").await.refuses("brand");
    let post = Answer::of(tidings.anonymous().request(Method::POST, FEED)).await;
    assert!(post.is(405).header("allow").contains("GET"), "{post:?}");
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_not_changed_is_not_sent_again_and_what_has_is_seen_a_minute_later() {
    let tidings = scene(Database::sqlite()).await;
    let again = async |path: &str, tag: &str| {
        Answer::of(tidings.anonymous().request(Method::GET, path).header("if-none-match", tag)).await
    };
    for (path, cache) in [(FEED, "public, max-age=60"), ("/notices/banner.js", "public, max-age=86400")] {
        let first = tidings.page(path).await;
        assert_eq!(first.is(200).header("cache-control"), cache);
        let tag = first.header("etag").to_owned();
        let second = again(path, &tag).await;
        assert!(second.is(304).text.is_empty());
        assert_eq!((second.header("etag"), second.header("cache-control")), (tag.as_str(), cache));
        again(path, "\"other\"").await.is(200);
    }
    let before = tidings.page(FEED).await.header("etag").to_owned();
    announced(&tidings, version(&tidings, "material", 40)).await;
    again(FEED, &before).await.is(200);
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_script_is_small_and_may_be_loaded_by_any_page() {
    let tidings = Tidings::start_web(Database::sqlite()).await;
    let script = tidings.page("/notices/banner.js").await;
    assert_eq!(script.is(200).header("content-type"), "text/javascript; charset=utf-8");
    assert_eq!(script.header("cross-origin-resource-policy"), "cross-origin");
    assert_eq!(script.header("set-cookie"), "");
    assert_eq!(script.text, *SCRIPT);
    assert!(script.text.len() < 4_096, "{} octets", script.text.len());
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_banner_is_shown_on_a_brands_page_to_everyone_and_leaves_nothing_behind() {
    let tidings = scene(Database::sqlite()).await;
    let arabic = json!({ "translations": {
        "ar": { "title": "سياسة الخصوصية", "summary": "نحتفظ بالبيانات مدة أقصر.", "body_markdown": "# سياسة" },
        "de": { "title": "Datenschutz", "summary": "<b>Kürzer</b> & knapper.", "body_markdown": "# D" },
    } });
    let long = format!("We keep data {}for a year.", "longer, ".repeat(40));
    let arabic = with(arabic, json!({ "summary": long }));
    announced(&tidings, with(version(&tidings, "adverse", 40), arabic)).await;
    announced(&tidings, version(&tidings, "minor", 41)).await;
    let given = json!({ "tidings": tidings.base, "script": format!("{}/notices/banner.js", tidings.base) });
    brand_with_origins(&tidings, json!(["http://localhost:3000"])).await;
    let look = async || {
        let given = given.to_string();
        let judge = move || tools::run_json(tools::node("banner.cjs"), given);
        let judged = tokio::task::spawn_blocking(judge).await.unwrap();
        assert_eq!(judged["findings"], json!([]));
        judged
    };
    let judged = look().await;
    let said = |name: &str| judged["said"][name].as_str().unwrap_or_default().to_owned();
    assert!(
        said("en").contains("Privacy policy\u{2069} changes on ") && said("en").contains("What changes"),
        "{judged}"
    );
    assert!(said("en").contains("longer,…") || said("en").contains("longer…"), "{judged}");
    assert!(said("en").chars().count() < 400 && said("en").contains("We ask you to agree"), "{judged}");
    assert_eq!(said("en").matches("We keep data").count(), 1, "a minor change has no banner: {judged}");
    assert!(said("de").contains("<b>Kürzer</b> & knapper.") && said("de").contains("Schließen"), "{judged}");
    assert!(said("ar").contains("سياسة الخصوصية"), "{judged}");
    for nothing in ["elsewhere", "unknown brand", "foreign origin", "broken feed", "dismissed"] {
        assert_eq!(judged["said"][nothing], Value::Null, "{nothing}: {judged}");
    }
    assert!(!judged.to_string().contains(ADA));
    // Of several changes each has one line.
    announced(&tidings, version(&tidings, "material", 42)).await;
    let several = look().await;
    let said = several["said"]["en"].as_str().unwrap();
    assert_eq!(
        (said.matches(" changes on ").count(), said.contains("We keep data")),
        (2, false),
        "{several}"
    );
    tidings.stop().await;
}
