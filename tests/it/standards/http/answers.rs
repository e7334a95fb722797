//! The page behind an approval link in every state that a person can meet it in.

use reqwest::Method;
use serde_json::json;

use super::states::{LANGUAGES, Shown};
use crate::approvals::{ADA, DAY, announced, link, scene, told};
use crate::harness::*;
use crate::policies::{version, with};

/// Meets a page in some languages.
async fn meets(
    shown: &mut Vec<Shown>,
    tidings: &Tidings,
    name: &str,
    languages: &[&'static str],
    path: &str,
    form: Option<&'static str>,
) {
    for lang in languages {
        let method = if form.is_some() { Method::POST } else { Method::GET };
        let request = tidings.anonymous().request(method, path).header("accept-language", *lang);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = Answer::of(request.body(form.unwrap_or_default())).await;
        shown.push(Shown { name: name.to_owned(), lang, answer, button: false });
    }
}

/// All states of the page.
pub(super) async fn approval_pages(database: Database) -> Vec<Shown> {
    let tidings = scene(database).await;
    tidings.topic_with("acme", "profiling", json!({ "class": "marketing" })).await;
    let few = ["en", "ar"];
    let mut shown = Vec::new();
    let all = &mut shown;
    let long = "We keep what you tell us for 60 days instead of 30.\n\nThe partners that carry our parcels \
        (Donaudampfschifffahrtsgesellschaftskapitänsmützenfabrik & sons) see your address from now on.";
    let body = with(version(&tidings, "adverse", 40), json!({ "summary": long }));
    let notice = announced(&tidings, body).await;
    told(&tidings, &notice, 2).await;
    let path = link(&tidings, ADA, 1).await;
    meets(all, &tidings, "approve-ask", &LANGUAGES, &path, None).await;
    meets(all, &tidings, "approve-unclear", &few, &path, Some("")).await;
    meets(all, &tidings, "approve-agreed", &LANGUAGES, &path, Some("decision=approve")).await;
    meets(all, &tidings, "approve-stands", &few, &path, None).await;
    meets(all, &tidings, "approve-declined", &few, &path, Some("decision=decline")).await;
    meets(all, &tidings, "approve-unknown", &few, "/a/unknown", None).await;

    let body = with(version(&tidings, "new_use", 41), json!({ "topic": "profiling" }));
    let notice = announced(&tidings, body).await;
    meets(all, &tidings, "approve-superseded", &few, &path, None).await;
    told(&tidings, &notice, 2).await;
    let choice = link(&tidings, ADA, 2).await;
    meets(all, &tidings, "use-ask", &LANGUAGES, &choice, None).await;
    meets(all, &tidings, "use-refused", &["de", "ar"], &choice, Some("decision=decline")).await;
    meets(all, &tidings, "use-allowed", &few, &choice, Some("decision=approve")).await;
    tidings.post(&format!("/notices/{notice}/withdraw"), json!({ "reason": "A mistake." })).await.ok();
    meets(all, &tidings, "use-withdrawn", &few, &choice, None).await;
    tidings.advance(DAY * 42);
    meets(all, &tidings, "approve-in-effect", &few, &path, None).await;
    tidings.stop().await;
    shown
}
