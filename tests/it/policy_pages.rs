//! The public pages of policies: what everyone may read of them, and nothing besides.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Database, Tidings};
use crate::policies::{in_days, policy, version, with};

const DAY: Duration = Duration::from_secs(86_400);
const VERSIONS: &str = "/policies/privacy/versions";

/// A text with all that Markdown has, in one language.
fn text(language: &str, days: u32) -> String {
    let rows = "| A kind of data | How long we keep it |\n|---|---|\n| What you bought | [ten years](https://acme.example.com/law) |\n\
                | Whom you wrote to | one year |\n";
    let keeps: String = (1..=6).map(|n| format!("Paragraph {n} ({language}) stays as it is.\n\n")).collect();
    match language {
        "ar" => format!("# الخصوصية\n\nنحتفظ ببياناتكم لمدة {days} يومًا.\n\n{keeps}- أولًا\n- ثانيًا\n"),
        _ => format!(
            "# Privacy ({language})\n\nWe keep your data for {days} days, see [our terms](/terms).\n\n{keeps}\
             ## What we keep\n\n{rows}\n1. First\n2. Second, see <https://acme.example.com/second>\n\n> Kept.\n\n`code`\n"
        ),
    }
}

/// Fields of a version in all five languages.
fn in_all_languages(tidings: &Tidings, change: &str, effective: u32, days: u32) -> Value {
    let translation = |language: &str| {
        let title = if language == "ar" { "سياسة الخصوصية" } else { "Privacy" };
        json!({ "title": format!("{title} ({language})"), "summary": format!("We keep data for {days} days ({language})."),
            "body_markdown": text(language, days) })
    };
    let translations: Value = ["de", "fr", "es", "ar"]
        .map(|language| (language.to_owned(), translation(language)))
        .into_iter()
        .collect::<serde_json::Map<_, _>>()
        .into();
    with(
        version(tidings, change, effective),
        json!({
            "body_markdown": text("en", days), "summary": format!("We keep data for {days} days.\nYou need do nothing."),
            "translations": translations,
        }),
    )
}

async fn publish(tidings: &Tidings, body: Value) -> Value {
    let made = tidings.post(VERSIONS, body).await.ok();
    tidings.post_empty(&format!("{VERSIONS}/{}/publish", made["number"])).await.ok()
}

/// A policy with a version that was replaced, one in force, one called off, and one that is to come.
pub(crate) async fn scene(database: Database) -> Tidings {
    let tidings = Tidings::start_web(database).await;
    tidings.brand("acme").await;
    tidings.put("/policies/privacy", policy()).await.is(201);
    let baseline = with(
        in_all_languages(&tidings, "material", 0, 30),
        json!({ "effective_at": "2025-01-01T00:00:00Z" }),
    );
    publish(&tidings, baseline).await;
    publish(&tidings, in_all_languages(&tidings, "material", 31, 60)).await;
    tidings.clock().advance(DAY * 32);
    let off = publish(&tidings, in_all_languages(&tidings, "adverse", 31, 90)).await;
    let notice = off["notice"]["id"].as_str().unwrap().to_owned();
    let why: serde_json::Map<String, Value> = ["de", "fr", "es", "ar"]
        .map(|tag| (tag.to_owned(), json!({ "reason": format!("We thought ({tag}).") })))
        .into_iter()
        .collect();
    let off = json!({ "reason": "We thought again.", "translations": why });
    tidings.post(&format!("/notices/{notice}/withdraw"), off).await.ok();
    publish(&tidings, in_all_languages(&tidings, "material", 40, 120)).await;
    tidings
}

async fn read(tidings: &Tidings, path: &str, languages: &str) -> Answer {
    Answer::of(tidings.anonymous().request(Method::GET, path).header("accept-language", languages)).await
}

on_both! {
    async fn everyone_reads_the_text_in_force_every_version_and_what_changed(database: Database) {
        let tidings = scene(database).await;
        let current = tidings.page("/policies/privacy").await;
        current.is(200);
        for words in ["<h1", "This text is in force.", "Last updated", "We keep your data for 60 days", "This text changes on", "All versions", "<table>",
            "This text was called off", "A newer version has replaced this text."] {
            assert!(current.text.contains(words), "{words}: {}", current.text);
        }
        let whole = tidings.get(&format!("{VERSIONS}/2")).await.ok();
        assert!(current.text.contains(whole["sha256"].as_str().unwrap()), "the hash is shown");
        for n in 1..=4 {
            let page = tidings.page(&format!("/policies/privacy/{n}")).await;
            let words = ["A newer version has replaced", "is in force.", "was called off", "is not in force yet"][n - 1];
            assert!(page.is(200).text.contains(words), "{n}: {}", page.text);
            assert!(page.text.contains(&format!("for {} days", [30, 60, 90, 120][n - 1])));
        }
        // Of two changes ahead it names the one that comes first.
        let comes = |page: &Answer| {
            let rest = page.text.split_once("This text changes on ").unwrap().1;
            rest.split("<h2>").next().unwrap().to_owned()
        };
        publish(&tidings, in_all_languages(&tidings, "material", 80, 150)).await;
        let later = tidings.page("/policies/privacy").await;
        assert_eq!(comes(&later).split_once('.').unwrap().0, comes(&current).split_once('.').unwrap().0);
        assert!(comes(&later).contains("for 120 days") && !comes(&later).contains("for 150 days"), "{}", comes(&later));
        // What changed is told against what was published and not called off.
        let changes = tidings.page("/policies/privacy/4/changes").await;
        let text = &changes.is(200).text;
        assert!(text.contains("<del><span class=\"off\" lang=\"en\">Removed: </span>60</del>"), "{text}");
        assert!(text.contains("<ins><span class=\"off\" lang=\"en\">Added: </span>120</ins>"), "{text}");
        assert!(text.contains("<details>") && text.contains("without a change"), "{text}");
        // The section is named by a heading, and the folded parts stand around it.
        assert!(text.contains("<h3>Privacy (en)</h3>") && !text.contains("class=\"heading\""), "{text}");
        let first = tidings.page("/policies/privacy/1/changes").await;
        assert!(first.is(200).text.contains("There is no earlier version"), "{}", first.text);
        // Every link between them leads somewhere.
        for page in [&current, &changes] {
            for link in page.text.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
                if link.starts_with("/policies") {
                    tidings.page(link).await.is(200);
                }
            }
        }
        tidings.stop().await;
    }

    async fn any_two_versions_can_be_compared(database: Database) {
        let tidings = scene(database).await;
        let usual = tidings.page("/policies/privacy/4/changes").await;
        assert!(usual.is(200).text.contains("<option value=\"2\" selected>Version 2</option>"), "{}", usual.text);
        let page = tidings.page("/policies/privacy/4/changes?from=1").await;
        for words in ["version <bdi>1</bdi> and version <bdi>4</bdi>", "30</del>", "120</ins>", "<option value=\"1\" selected>", "<option value=\"3\">",
            "We keep data for 60 days.", "We keep data for 120 days.", "name=\"from\""] {
            assert!(page.is(200).text.contains(words), "{words}: {}", page.text);
        }
        assert!(!page.text.contains("We keep data for 90 days."), "what was called off in between changed nothing: {}", page.text);
        assert_ne!(page.header("etag"), usual.header("etag"));
        assert_eq!(page.header("cache-control"), "public, max-age=300");
        let again = tidings.anonymous().request(Method::GET, "/policies/privacy/4/changes?from=1").header("if-none-match", page.header("etag"));
        Answer::of(again).await.is(304);
        // Which of the two is named first does not matter, and no choice is the usual one.
        assert_eq!(tidings.page("/policies/privacy/1/changes?from=4").await.is(200).text, page.text);
        assert_eq!(tidings.page("/policies/privacy/4/changes?from=").await.is(200).text, usual.text);
        // Named, the usual one is the same comparison; the links to other languages name it too.
        let named = tidings.page("/policies/privacy/4/changes?from=2").await;
        assert_eq!(named.is(200).text.replace("&amp;from&#x3D;2", ""), usual.text);
        for unknown in ["0", "4", "5", "-1", "x", "1.0"] {
            let page = tidings.page(&format!("/policies/privacy/4/changes?from={unknown}")).await;
            assert!(page.is(404).text.contains("There is no such page"), "{unknown}: {}", page.text);
        }
        let german = tidings.page("/policies/privacy/4/changes?from=1&lang=de").await;
        for words in ["(de)", "<input type=\"hidden\" name=\"lang\" value=\"de\">", "/changes?lang&#x3D;fr&amp;from&#x3D;1"] {
            assert!(german.is(200).text.contains(words), "{words}: {}", german.text);
        }
        tidings.stop().await;
    }

    async fn before_the_first_version_takes_effect_it_is_shown_with_its_date(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand("acme").await;
        tidings.put("/policies/privacy", policy()).await.is(201);
        tidings.page("/policies/privacy").await.is(404);
        let body = with(version(&tidings, "material", 3), json!({ "body_markdown": "The first text." }));
        tidings.post(VERSIONS, body).await.is(201);
        // A draft cannot be told from what is not there.
        for path in ["/policies/privacy", "/policies/privacy/1", "/policies/privacy/1/changes", "/policies/nothing", "/policies/privacy/x"] {
            let page = tidings.page(path).await;
            assert!(page.is(404).text.contains("There is no such page"), "{path}: {}", page.text);
            assert!(!page.text.contains("first text") && page.header("cache-control") == "no-store", "{path}");
        }
        tidings.post_empty(&format!("{VERSIONS}/1/publish")).await.ok();
        let page = tidings.page("/policies/privacy").await;
        assert!(page.is(200).text.contains("is not in force yet") && page.text.contains("The first text."));
        let date = tidings::language::Locale::default().day(in_days(&tidings, 3));
        assert!(page.text.contains(&date), "{date}: {}", page.text);
        tidings.clock().advance(DAY * 4);
        assert!(tidings.page("/policies/privacy").await.text.contains("This text is in force."));
        tidings.stop().await;
    }

    async fn the_language_is_that_of_the_address_then_of_the_browser_then_the_default(database: Database) {
        let tidings = scene(database).await;
        for (path, asked, is) in [
            ("/policies/privacy", "de-AT,en;q=0.5", "de"),
            ("/policies/privacy?lang=ar", "de", "ar"),
            ("/policies/privacy?lang=xx", "fr", "fr"),
            ("/policies/privacy", "pl, ja", "en"),
            ("/policies/privacy/4/changes?lang=es", "de", "es"),
        ] {
            let page = read(&tidings, path, asked).await;
            assert_eq!(page.is(200).header("content-language"), is, "{path} {asked}");
            assert_eq!(page.header("vary"), "Accept-Language");
            let dir = if is == "ar" { "rtl" } else { "ltr" };
            assert!(page.text.contains(&format!("<html lang=\"{is}\" dir=\"{dir}\"")), "{path}: {}", page.text);
            assert!(page.text.contains(&format!("lang=\"{is}\" dir=\"{dir}\">")), "{path}: {}", page.text);
        }
        let german = read(&tidings, "/policies/privacy?lang=de", "en").await;
        assert!(german.text.contains("/policies/privacy/4/changes?lang&#x3D;de"), "{}", german.text);
        assert!(german.text.contains("hreflang=\"fr\"") && german.text.contains("Français"), "{}", german.text);
        tidings.stop().await;
    }

    async fn pages_may_be_kept_for_a_while_and_hold_nothing_that_runs(database: Database) {
        let tidings = scene(database).await;
        let bad = "Hello <script>alert(1)</script><img src=x onerror=alert(1)> [x](javascript:alert(1)) <b style=\"color:red\" onclick=x>bold</b>";
        let body = with(version(&tidings, "minor", 41), json!({ "body_markdown": bad, "summary": "<script>2</script>" }));
        publish(&tidings, body).await;
        for path in ["/policies/privacy", "/policies/privacy/5", "/policies/privacy/5/changes"] {
            let page = tidings.page(path).await;
            page.is(200);
            for what in ["<script", "<img", "href=\"javascript", "<iframe", "<link", "<b style", "<b onclick"] {
                assert!(!page.text.contains(what), "{path} holds {what}: {}", page.text);
            }
            assert_eq!(page.header("cache-control"), "public, max-age=300");
            assert_eq!((page.header("set-cookie"), page.header("x-robots-tag")), ("", "all"));
            assert!(!page.text.contains("noindex"));
            assert!(page.header("content-security-policy").starts_with("default-src 'none'; style-src 'sha256-"));
            let tag = page.header("etag").to_owned();
            let again = tidings.anonymous().request(Method::GET, path).header("if-none-match", &tag);
            let again = Answer::of(again).await;
            assert_eq!((again.is(304).text.as_str(), again.header("etag")), ("", tag.as_str()));
            let head = Answer::of(tidings.anonymous().request(Method::HEAD, path)).await;
            assert_eq!(head.is(200).header("etag"), tag);
            let post = Answer::of(tidings.anonymous().request(Method::POST, path)).await;
            assert!(post.is(405).header("allow").contains("GET"));
        }
        // The tag is that of the page: another text, another tag.
        let tags = ["1", "2"].map(|n| format!("/policies/privacy/{n}"));
        assert_ne!(tidings.page(&tags[0]).await.header("etag"), tidings.page(&tags[1]).await.header("etag"));
        tidings.stop().await;
    }
}
