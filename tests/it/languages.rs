//! Pages in the language of who reads them, over HTTP; dates, numbers and plural forms against ICU, and the choice of a
//! language against Werkzeug.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use tidings::clock::Timestamp;
use tidings::language::{Language, Locale};

use crate::harness::{Act, Answer, Database, Gate, Stage, Tidings, one_click_link, readers, tools};
use crate::unsubscribe_page::{ADA, link_made, path, set_up};

/// A locale of each language, as company systems spell them.
const LOCALES: [(&str, Language); 5] = [
    ("en_GB", Language::English),
    ("de-AT", Language::German),
    ("fr-CA", Language::French),
    ("ES", Language::Spanish),
    ("ar_EG", Language::Arabic),
];

async fn speaks(tidings: &Tidings, email: &str, locale: &str) {
    tidings.post("/recipients", json!({ "email": email, "locale": locale })).await.ok();
}

async fn asked(tidings: &Tidings, method: Method, path: &str, languages: &str) -> Answer {
    Answer::of(tidings.anonymous().request(method, path).header("accept-language", languages)).await
}

/// The answer is a page in this language, and says what that hangs on.
#[track_caller]
fn is_in(answer: &Answer, language: Language, by_request: bool) {
    let root = format!("<html lang=\"{}\" dir=\"{}\"", language.code(), language.direction());
    assert!(answer.text.contains(&root), "{language:?}: {}", answer.text);
    assert_eq!(answer.header("content-language"), language.code());
    assert_eq!(answer.header("vary"), if by_request { "Accept-Language" } else { "" }, "{language:?}");
}

/// What people read of a page.
fn read(answer: &Answer) -> String {
    bare(answer.text.split("</style>").nth(1).unwrap())
}

/// Text without markup.
fn bare(html: &str) -> String {
    html.split('<').map(|piece| piece.split_once('>').map_or(piece, |(_, after)| after)).collect()
}

#[track_caller]
fn says(answer: &Answer, language: Language, key: &str) {
    let words = language.text(key);
    assert!(!words.is_empty() && read(answer).contains(words), "{language:?}, {key}: {}", read(answer));
}

on_both! {
    async fn a_page_is_in_the_language_of_the_persons_locale_whatever_their_browser_asks_for(database: Database) {
        let tidings = set_up(database).await;
        for (n, (locale, language)) in LOCALES.into_iter().enumerate() {
            let email = format!("p{n}@example.org");
            speaks(&tidings, &email, locale).await;
            let path = path(&tidings, "marketing", &email).await;
            let other = if language == Language::French { "de" } else { "fr" };
            let ask = asked(&tidings, Method::GET, &path, other).await;
            is_in(ask.is(200), language, false);
            says(&ask, language, "ask.button");
            for named in ["<bdi class=\"whole\">p…", "<bdi>ACME", "<bdi>MARKETING"] {
                assert!(ask.text.contains(named), "{named}: {}", ask.text);
            }
            let done = asked(&tidings, Method::POST, &path, other).await;
            is_in(done.is(200), language, false);
            says(&done, language, "done.heading");
            says(&done, language, "done.undo");
            let undone = tidings.submit(&path, &[("page", "1"), ("undo", "1")]).await;
            is_in(undone.is(200), language, false);
            says(&undone, language, "undone.heading");
        }
        tidings.stop().await;
    }

    async fn a_page_for_whom_no_locale_of_ours_is_known_is_in_what_the_browser_asks_for_or_english(database: Database) {
        let tidings = set_up(database).await;
        speaks(&tidings, "pole@example.org", "pl-PL").await;
        for email in [ADA, "pole@example.org", "stranger@example.org"] {
            let path = path(&tidings, "marketing", email).await;
            for (field, language) in [
                ("ar, en;q=0.5", Language::Arabic),
                ("pl, de-CH;q=0.8, en;q=0.7", Language::German),
                ("en;q=0, *;q=0.1", Language::German),
                ("pl, cs;q=0.3", Language::English),
                (";;,q=1;;", Language::English),
            ] {
                let page = asked(&tidings, Method::GET, &path, field).await;
                is_in(page.is(200), language, true);
                says(&page, language, "ask.heading");
            }
            let none = Answer::of(tidings.anonymous().request(Method::GET, &path)).await;
            is_in(none.is(200), Language::English, true);
            // Several fields count as one.
            let request = tidings.anonymous().request(Method::GET, &path).header("accept-language", "de;q=0.1");
            let two = Answer::of(request.header("accept-language", "es;q=0.2")).await;
            is_in(two.is(200), Language::Spanish, true);
        }
        tidings.stop().await;
    }

    async fn the_page_for_a_bad_link_is_in_the_browsers_language_and_the_same_kilobyte_for_every_cause(database: Database) {
        let tidings = set_up(database).await;
        speaks(&tidings, ADA, "ar").await;
        let good = path(&tidings, "marketing", ADA).await;
        for language in Language::ALL {
            let first = asked(&tidings, Method::GET, "/u/x", language.code()).await;
            is_in(first.is(404), language, true);
            says(&first, language, "unknown.title");
            says(&first, language, "unknown.text");
            assert!(first.text.len() <= 1024, "{language:?}: {} octets", first.text.len());
            let changed = format!("{}{}", &good[..good.len() - 1], if good.ends_with('A') { 'B' } else { 'A' });
            for (method, path) in [(Method::POST, "/u/x"), (Method::GET, &*changed), (Method::POST, &*changed)] {
                let answer = asked(&tidings, method, path, language.code()).await;
                answer.is(404);
                assert_eq!(answer.text, first.text, "{path}");
            }
        }
        tidings.stop().await;
    }

    async fn when_nothing_could_be_saved_the_page_says_so_in_the_persons_language(database: Database) {
        let tidings = set_up(database).await;
        speaks(&tidings, ADA, "es-MX").await;
        let path = path(&tidings, "marketing", ADA).await;
        let rename = async |table: &str, from: &str, to: &str| {
            let txn = tidings.app().db.begin().await.unwrap();
            // SQLite alters what the connection remembers of the table; so it looks first.
            txn.execute_unprepared(&format!("SELECT count(*) FROM {table}")).await.unwrap();
            let statement = format!("ALTER TABLE {table} RENAME COLUMN {from} TO {to}");
            txn.execute_unprepared(&statement).await.unwrap();
            txn.commit().await.unwrap();
        };
        rename("opt_events", "channel", "away").await;
        let own = asked(&tidings, Method::POST, &path, "fr").await;
        is_in(own.is(503), Language::Spanish, false);
        says(&own, Language::Spanish, "unavailable.heading");
        says(&own, Language::Spanish, "unavailable.button");
        rename("opt_events", "away", "channel").await;
        // Where not even the person can be read, the browser is asked.
        rename("recipients", "locale", "away").await;
        for language in Language::ALL {
            let page = asked(&tidings, Method::GET, &path, language.code()).await;
            is_in(page.is(503), language, true);
            says(&page, language, "unavailable.text");
        }
        rename("recipients", "away", "locale").await;
        is_in(asked(&tidings, Method::POST, &path, "fr").await.is(200), Language::Spanish, false);
        tidings.stop().await;
    }

    async fn a_sign_up_again_is_dated_as_the_person_writes_dates(database: Database) {
        let tidings = set_up(database).await;
        for (locale, language) in LOCALES {
            speaks(&tidings, ADA, locale).await;
            let path = path(&tidings, "marketing", ADA).await;
            tidings.one_click(&path).await.is(200);
            let before = tidings.app().db.read_clock(tidings.app().db.reads()).await.unwrap();
            let again = json!({ "email": ADA, "scope": "all", "evidence": "asked for it at the fair, form 12" });
            tidings.post("/opt-ins", again).await.is(201);
            let page = tidings.page(&path).await;
            let after = tidings.app().db.read_clock(tidings.app().db.reads()).await.unwrap();
            let written = |at: Timestamp| format!("<bdi>{}</bdi>", Locale::of(locale).unwrap().day(at));
            let dated = [before, after].map(written).iter().any(|day| page.text.contains(day));
            assert!(dated, "{language:?}: {}", page.text);
        }
        tidings.stop().await;
    }

    async fn what_the_footer_of_mail_says_is_in_the_language_of_the_recipients_locale(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let others = [("pl-PL", Language::English), ("", Language::English)];
        let mut mails = Vec::new();
        for (n, (locale, language)) in LOCALES.into_iter().chain(others).enumerate() {
            let email = format!("p{n}@example.org");
            let body = if locale.is_empty() { json!({ "email": email }) } else { json!({ "email": email, "locale": locale }) };
            tidings.post("/recipients", body).await.ok();
            mails.push((locale, language, tidings.mail_of("acme", "marketing", &email).await));
        }
        let read = readers::read_all(mails.iter().map(|(_, _, mail)| mail.data.as_slice()));
        for ((locale, language, mail), read) in mails.iter().zip(read) {
            let values = [("topic", "MARKETING".into()), ("brand", "ACME".into())];
            let (words, link) = (Locale::from(*language), one_click_link(mail));
            let (html, text) = (read.html(), read.text());
            // The whole is in the person's locale, whatever its language; the footer is in one of ours.
            let tag = if locale.is_empty() { "en".to_owned() } else { locale.replace('_', "-") };
            let root = format!("<html lang=\"{tag}\" dir=\"{}\"", language.direction());
            assert!(html.contains(&root), "{locale}: {html}");
            let own = format!("class=\"t-foot\" lang=\"{}\" dir=\"{}\"", language.code(), language.direction());
            let foot = html.split_once(&own).unwrap_or_else(|| panic!("{locale}: {html}")).1;
            assert!(
                bare(foot).contains(&bare(&words.fill_html("mail.because", &values))) && foot.contains("<bdi"),
                "{locale}: {foot}"
            );
            assert!(foot.contains(&format!(">{}</a>", language.text("mail.unsubscribe"))), "{locale}: {foot}");
            assert!(text.contains(&words.fill("mail.because", &values)), "{locale}: {text}");
            // Nothing that a mail program would take for a part of the link.
            let line = format!("\n{} {link}\n", language.text("mail.unsubscribe.here"));
            assert!(text.replace('\r', "").contains(&line), "{locale}: {text}");
        }
        tidings.stop().await;
    }

    async fn messages_on_their_way_are_counted_in_the_plural_of_the_language(database: Database) {
        let tidings = Tidings::start_with(database, |settings| settings.opt_out_wait = Duration::from_millis(50)).await;
        tidings.ready_to_send().await;
        speaks(&tidings, ADA, "ar-EG").await;
        let link = one_click_link(&tidings.mail_of("acme", "marketing", ADA).await);
        let path = url::Url::parse(&link).unwrap().path().to_owned();
        let gate = Gate::new();
        tidings.smtp.on(Stage::FinalDot, Act::Stall(gate.clone())).once();
        tidings.message("acme", "marketing", ADA).await;
        gate.reached().await;
        let one = tidings.submit(&path, &[("page", "1")]).await;
        assert!(read(one.is(200)).contains("كانت رسالة واحدة من «"), "{}", read(&one));
        gate.open();
        tidings.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_asks_for_json_gets_the_same_words_in_every_language() {
    let tidings = set_up(Database::sqlite()).await;
    speaks(&tidings, ADA, "ar").await;
    let link = link_made(&tidings, "marketing", ADA, Duration::from_secs(60)).await;
    let path = format!("/u/{}", link.to_token(&tidings.app().link_keys));
    let request = tidings.anonymous().request(Method::POST, &path).header("accept", "application/json");
    let answer = Answer::of(request.header("accept-language", "de")).await;
    assert_eq!(answer.is(200).json()["scope"], "all");
    assert_eq!(answer.header("content-language"), "");
    for (method, body, status, key) in
        [(Method::DELETE, 0, 405, "method.text"), (Method::POST, 70_000, 413, "large.text")]
    {
        let request = tidings.anonymous().request(method, &path).header("accept-language", "de");
        let answer = Answer::of(request.body(vec![b'x'; body])).await;
        is_in(answer.is(status), Language::German, true);
        says(&answer, Language::German, key);
    }
    tidings.stop().await;
}

/// A locale of ours and the tag under which Intl knows it.
fn for_intl(locale: &str) -> &str {
    // English of no place is the world's English.
    if locale == "en" { "en-001" } else { locale }
}

#[test]
fn days_numbers_and_plural_forms_are_those_of_icu() {
    let locales = [
        "en", "en-US", "en-GB", "en-AU", "en-CA", "en-IN", "en-ZA", "de", "de-DE", "de-AT", "de-CH", "de-LI",
        "fr", "fr-FR", "fr-BE", "fr-CA", "fr-CH", "es", "es-ES", "es-MX", "es-AR", "es-419", "es-US", "ar",
        "ar-EG", "ar-SA", "ar-AE", "ar-MA", "ar-DZ", "ar-TN", "ar-LB", "ar-SY", "ar-JO", "ar-IQ", "ar-LY",
        "ar-SD",
    ];
    let months = (1..=12).flat_map(|month| [(2026, month, 1), (2027, month, 11 + month)]);
    let days: Vec<String> = months.map(|(y, m, d)| format!("{y}-{m:02}-{d:02}T23:30:00Z")).collect();
    let numbers: Vec<u64> =
        (0..=30).chain([99, 100, 101, 102, 103, 111, 200, 999, 1_000, 12_345, 1_000_000]).collect();
    let input: Vec<Value> = locales
        .iter()
        .map(|locale| json!({ "locale": for_intl(locale), "days": days, "numbers": numbers }))
        .collect();
    let judged = tools::run_json(tools::node("intl.cjs"), json!(input).to_string());
    for (name, judged) in locales.iter().zip(judged.as_array().unwrap()) {
        let locale = Locale::of(name).unwrap();
        for (day, is) in days.iter().zip(judged["days"].as_array().unwrap()) {
            let is = is.as_str().unwrap();
            let first = (locale.language() == Language::French).then(|| is.strip_prefix("1 ")).flatten();
            let is = first.map_or(is.to_owned(), |rest| format!("1er {rest}"));
            assert_eq!(locale.day(day.parse::<Timestamp>().unwrap()), is, "{name}: {day}");
        }
        let file = format!("templates/languages/{}.json", locale.language().code());
        let file = std::fs::read_to_string(crate::harness::source().join(file)).unwrap();
        let forms = serde_json::from_str::<Value>(&file).unwrap()["done.flight.other"].clone();
        for (n, is) in numbers.iter().zip(judged["numbers"].as_array().unwrap()) {
            let (form, written) = (is[0].as_str().unwrap(), is[1].as_str().unwrap());
            assert_eq!(locale.number(*n), written, "{name}: {n}");
            let said =
                locale.fill("done.flight.other", &[("n", (*n).into())]).replace(['\u{2068}', '\u{2069}'], "");
            assert_eq!(said, forms[form].as_str().unwrap().replace("{n}", written), "{name}: {n}, {form}");
        }
    }
}

#[test]
fn a_language_is_chosen_as_werkzeug_chooses_it() {
    let mut random = StdRng::seed_from_u64(1_254);
    let mut fields = Vec::new();
    for _ in 0..500 {
        // No weight twice and no regions: there servers may differ.
        let mut ranges = ["en", "de", "fr", "es", "ar", "pl", "zh", "*"];
        ranges.shuffle(&mut random);
        let mut weights: Vec<u16> = (0..=1_000).step_by(50).collect();
        weights.shuffle(&mut random);
        let some = random.random_range(1..=ranges.len());
        let written: Vec<String> = ranges[..some]
            .iter()
            .zip(weights)
            .map(|(range, weight)| {
                let space = ["", " "].choose(&mut random).unwrap();
                let weight = f64::from(weight) / 1_000.0;
                format!("{range}{space};{space}q={weight}")
            })
            .collect();
        fields.push(written.join([",", ", "].choose(&mut random).unwrap()));
    }
    let ours: Vec<&str> = Language::ALL.into_iter().map(Language::code).collect();
    let input = json!({ "ours": ours, "fields": fields });
    let judged = tools::run_json(tools::python("accept_language.py"), input.to_string());
    for (field, is) in fields.iter().zip(judged.as_array().unwrap()) {
        assert_eq!(Language::accepted(field).map(Language::code), is.as_str(), "{field}");
    }
}
