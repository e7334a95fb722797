use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::id::{BrandId, ContentId, TopicId};
use crate::message::Partial;
use crate::notice::message::{HTML, NAME, SUBJECT, TEXT};

fn brand() -> Brand {
    let at = Timestamp(samples::NOW);
    Brand {
        id: BrandId::new(),
        slug: "acme".into(),
        name: "Acme & Söhne".into(),
        from_mailbox: "Acme <news@acme.example>".into(),
        notice_from: Some("Acme Notices <notices@acme.example>".into()),
        reply_to: Some("Help <help+us@acme.example>".into()),
        postal_address: "Acme GmbH\nHauptstraße 1\n12345 Berlin".into(),
        phone: Some("+49 30 1234567".into()),
        website: Some("https://acme.example".into()),
        base_url: None,
        bounce_domain: None,
        color: Some("#aa0000".into()),
        logo: None,
        origins: json!(["https://www.acme.example"]),
        one_click_scope: "all".into(),
        created_at: at,
        updated_at: at,
        archived_at: None,
    }
}

fn template(subject: &str, html: &str, text: &str) -> Frozen {
    Frozen {
        id: ContentId::new(),
        brand_id: BrandId::new(),
        topic_id: TopicId::new(),
        template: NAME.into(),
        subject: subject.into(),
        html: html.into(),
        text: text.into(),
        partials: BTreeMap::new(),
        data: json!({}),
        reply_to: None,
    }
}

fn look(template: &Frozen, brand: &Brand, asks: bool) -> Findings {
    check(template, brand, &Url::parse("https://mail.acme.example/").unwrap(), asks)
}

/// What is refused of this HTML with a text part that is as it should be.
fn refused(html: &str) -> Vec<String> {
    look(&template("{{data.policy}} changes", html, TEXT), &brand(), true).refused
}

/// The same where nobody is asked, which takes less time.
fn refused_of_plain(html: &str) -> Vec<String> {
    look(&template("{{data.policy}} changes", html, TEXT), &brand(), false).refused
}

const GOOD: &str = "<h1>{{data.policy}} changes</h1>{{#if name}}<p>Dear {{name}},</p>{{else}}<p>Hello,</p>{{/if}}
<table role=\"presentation\" width=\"100%\" cellpadding=\"0\"><tr><td bgcolor=\"#eeeeee\" style=\"padding:12px 24px;
font:16px/1.5 -apple-system,'Segoe UI',sans-serif;color:#333\"><p style=\"margin:0 auto 1em;font-size:.9em\">{{data.summary}}</p></td></tr></table>
<!-- the date --><p>From {{data.effective_date}} ({{data.effective_utc}}). <a href=\"{{data.url}}\">New</a>,
<a href='{{data.old_url}}' style=\"color:#00f;background:white\">old</a>, <a href=\"#rights\">rights</a>.</p>
{{#if data.approval}}<p><a class=\"button\" style=\"color:#fff\" href=\"{{approve_url}}\">Answer</a></p>{{/if}}
{{#if data.new_use}}<p><a href=\"{{approve_url}}\">Allow {{data.new_use}}</a></p>{{/if}}
<p id=\"rights\">{{data.rights}} <span>{{brand.postal_address}}</span>
<a href=\"mailto:help+us@acme.example?subject=Privacy\">Write</a> or <a href=\"tel:+49-30-1234567\">call</a>,
<a href=\"{{brand.website}}\">acme.example</a> <a href=\"{{preferences_url}}\">Other mail</a></p>";

#[test]
fn the_built_in_template_may_serve_in_all_languages_and_of_all_kinds() {
    let built_in = template(SUBJECT, HTML, TEXT);
    assert_eq!(look(&built_in, &brand(), true), Findings::default());
    let bare = Brand { phone: None, website: None, reply_to: None, postal_address: String::new(), ..brand() };
    assert_eq!(look(&built_in, &bare, true), Findings::default());
    assert_eq!(Case::all(true).len(), 70);
}

#[test]
fn a_plain_template_of_ones_own_may_serve() {
    assert_eq!(refused(GOOD), [""; 0]);
    let plain = GOOD.replace(" style=\"color:#fff\"", "");
    let whole = format!(
        "<!doctype html><html lang=\"{{{{locale}}}}\"><head><meta charset=\"utf-8\"><title>{{{{data.policy}}}}</title></head>\
         <body style=\"margin:0;background-color:#ffffff\">{plain}</body></html>"
    );
    assert_eq!(refused(&whole), [""; 0]);
    let mut parted = template("{{data.policy}}", "<p>Hello</p>{{> rest}}", "{{> rest}}");
    parted.partials.insert("rest".into(), Partial { html: GOOD.into(), text: TEXT.into() });
    assert_eq!(look(&parted, &brand(), true), Findings::default());
}

#[test]
fn each_thing_that_is_missing_is_named_whichever_part_lacks_it() {
    for (name, words) in [
        ("{{data.summary}}", "what changes"),
        ("{{data.effective_date}}", "the date from which"),
        ("{{data.effective_utc}}", "time zone"),
        ("{{data.url}}", "where the new text"),
        ("{{data.old_url}}", "where the old text"),
        ("{{data.rights}}", "rights"),
        ("{{approve_url}}", "where people answer"),
    ] {
        let html = refused(&GOOD.replace(name, "#x"));
        assert!(
            html.len() == 1 && html[0].contains(words) && html[0].contains("HTML part"),
            "{name}: {html:?}"
        );
        // What the built-in text says by a word of its own, said otherwise.
        let text = TEXT.replace("{{data.words.when_text}}", "{{data.effective_date}}");
        let text = text.replace("{{data.words.subject}}", "").replace(name, "");
        let text = look(&template(SUBJECT, HTML, &text), &brand(), true).refused;
        assert!(
            text.len() == 1 && text[0].contains(words) && text[0].contains("text part"),
            "{name}: {text:?}"
        );
    }
    let nameless = GOOD.replace("{{brand.postal_address}}", "").replace("acme.example</a>", "us</a>");
    let found = refused(&nameless);
    assert!(found.len() == 1 && found[0].contains("whom to ask"), "{found:?}");
    let found = look(&template("Up to 50 % off", HTML, TEXT), &brand(), true).refused;
    assert!(
        found.len() == 1 && found[0].contains("which policy") && found[0].contains("subject"),
        "{found:?}"
    );
    // Nobody is asked, so nobody needs to be led to an answer.
    let silent = GOOD.replace("{{approve_url}}", "{{data.url}}");
    assert!(look(&template(SUBJECT, &silent, TEXT), &brand(), false).refused.is_empty());
    // What one case lacks is lacking.
    let sometimes =
        GOOD.replace("{{data.summary}}", "{{#if (eq data.kind \"change\")}}{{data.summary}}{{/if}}");
    let found = refused(&sometimes);
    assert!(found.len() == 1 && found[0].contains("correction (en)"), "{found:?}");
    let unnamed = GOOD.replace("{{data.summary}}", "{{#if name}}{{data.summary}}{{/if}}");
    assert!(refused(&unnamed)[0].contains("what changes"));
}

#[test]
fn what_is_hidden_is_not_said() {
    for (before, after) in [
        ("<!-- ", " -->"),
        ("{{!-- ", " --}}"),
        ("{{#if data.never}}", "{{/if}}"),
        ("{{#unless data.policy}}", "{{/unless}}"),
        ("<div style=\"display:none\">", "</div>"),
        ("<div style=\"DISPLAY : NoNe !important\">", "</div>"),
        ("<div style=\"disp\\6cay:none\">", "</div>"),
        ("<div style=\"visibility:hidden\">", "</div>"),
        ("<div style=\"opacity:0\">", "</div>"),
        ("<div style=\"font-size:0\">", "</div>"),
        ("<div style=\"font-size:1px\">", "</div>"),
        ("<div style=\"font:0/0 a\">", "</div>"),
        ("<div style=\"font-size:.6em\"><div style=\"font-size:.6em\">", "</div></div>"),
        ("<div style=\"line-height:0\">", "</div>"),
        ("<div style=\"max-height:0;overflow:hidden\">", "</div>"),
        ("<div style=\"position:absolute;left:-9999px\">", "</div>"),
        ("<div style=\"margin-left:-9999px\">", "</div>"),
        ("<div style=\"padding-left:9999px\">", "</div>"),
        ("<div style=\"mso-hide:all\">", "</div>"),
        ("<div style=\"color:#fff\">", "</div>"),
        ("<div style=\"color:white;background:#fefefe\">", "</div>"),
        ("<div bgcolor=\"#1b212b\">", "</div>"),
        ("<font color=\"#fdfdfd\">", "</font>"),
        ("<div style=\"color:transparent\">", "</div>"),
        ("<div style=\"color:rgba(0,0,0,0)\">", "</div>"),
        ("<div style=\"color:var(--x)\">", "</div>"),
        ("<div hidden>", "</div>"),
        ("<div aria-hidden=\"true\">", "</div>"),
        ("<title>", "</title>"),
        ("<textarea>", "</textarea>"),
        ("<template>", "</template>"),
        ("<noscript>", "</noscript>"),
        ("<details>", "</details>"),
        ("<select><option>", "</option></select>"),
        ("<svg><desc>", "</desc></svg>"),
        ("<style>p{display:none}</style>", ""),
        ("<bdo dir=\"rtl\">", "</bdo>"),
        ("<!--[if mso]>", "<![endif]-->"),
        ("<a title=\"", "\"></a>"),
    ] {
        let found = refused_of_plain(&format!("{before}{GOOD}{after}"));
        assert!(!found.is_empty(), "{before}");
    }
}

#[test]
fn what_loads_tracks_or_runs_is_refused() {
    for bad in [
        "<img src=\"{{data.url}}\">",
        "<ImG src=//t>",
        "<{{#if data.summary}}img{{/if}} src=\"//t\">",
        "<i{{#if data.never}}mg{{else}}mg{{/if}} src=//t>",
        "{{#if data.never}}<img src=//t>{{/if}}",
        "{{#if (eq data.version 977)}}{{#unless name}}<img src=//t>{{/unless}}{{/if}}",
        "{{#if data.summary}}x{{else if (gt data.version 5)}}y{{else}}<img src=//t>{{/if}}",
        "{{#if attributes.vip}}<img src=//t>{{/if}}",
        "{{#if customer}}<b>Sale</b>{{/if}}",
        "{{#if (eq external_id \"7\")}}<img src=//t>{{/if}}",
        "<object data=\"//t\"></object>",
        "<embed src=//t>",
        "<input type=image src=\"//t\">",
        "<form action=//t></form>",
        "<svg><image href=\"//t\"></svg>",
        "<link rel=stylesheet href=\"//t\">",
        "<video poster=\"//t\"></video>",
        "<audio src=//t></audio>",
        "<iframe src=//t></iframe>",
        "<base href=//t>",
        "<meta http-equiv=refresh content=\"0;url=//t\">",
        "<style>@import '//t';</style>",
        "<script>1</script>",
        "<math href=//t></math>",
        "<p style=\"background:url(//t)\">x</p>",
        "<p style=\"background:ur\\l(//t)\">x</p>",
        "<p style=\"background:url /**/(//t)\">x</p>",
        "<p style=\"background:URL('//t')\">x</p>",
        "<p style=\"background:u&#114;l(//t)\">x</p>",
        "<p style=\"background-image:image-set('//t' 1x)\">x</p>",
        "<p style=\"list-style:url(//t)\">x</p>",
        "<p style=\"width:expression(alert(1))\">x</p>",
        "<p style=\"behavior:url(#t)\">x</p>",
        "<p style=\"font-family:x;@import '//t'\">x</p>",
        "<table background =\"//t\"><tr><td>x</td></tr></table>",
        "<p srcset =\"//t\">x</p>",
        "<p onclick=\"x()\">x</p>",
        "<a ping=\"//t\" href=\"{{data.url}}\">x</a>",
        "<p>{{{name}}}</p>",
        "<p>{{{data.reason}}}</p>",
        "<p>{{attributes.promo}}</p>",
        "{{#if attributes.promo}}{{attributes.promo}}{{/if}}",
        "{{#with this}}{{lookup this \"attributes\"}}{{/with}}",
        "<p>{{data.x}}</p>",
    ] {
        let found = refused_of_plain(&format!("{GOOD}{bad}"));
        assert!(!found.is_empty(), "{bad}");
        assert!(found.iter().all(|finding| finding.contains(';')), "what to do: {found:?}");
    }
    let found = refused_of_plain(&format!("{GOOD}<img src=x>"));
    assert!(found.len() == 1 && found[0].contains("<img>") && found[0].contains("images"), "{found:?}");
}

#[test]
fn every_link_is_one_of_the_notices_own() {
    for bad in [
        "https://shop.example/sale",
        "HTTPS://shop.example/sale",
        "//shop.example",
        "/\\shop.example",
        "https:\\\\shop.example",
        "ht\ntps://shop.example",
        " https://shop.example",
        "&#104;ttps://shop.example",
        "https&#58;//shop.example",
        "https&colon;//shop.example",
        "https://acme.example@shop.example/",
        "https://acme.example.shop.example/",
        "https://acme.example/sale",
        "https://mail.acme.example/policies/sample/3",
        "{{data.url}}&utm_source=mail",
        "{{data.url}}#sale",
        "{{data.url}}/../../sale",
        "{{brand.website}}/sale",
        "{{brand.website}}?utm_source=mail",
        "http://acme.example",
        "sale.html",
        "",
        "#",
        "{{unsubscribe_url}}",
        "{{attributes.promo}}",
        "{{name}}",
        "{{email}}",
        "{{data.summary}}",
        "{{data.x}}",
        "https://shop.example/{{name}}",
        "mailto:sales@shop.example",
        "mailto:help+us@acme.example,sales@shop.example",
        "mailto:help+us@acme.example?bcc=sales@shop.example",
        "MAILTO:?to=sales@shop.example",
        "tel:+4930999",
        "sms:+49301234567",
        "javascript:alert(1)",
        "data:text/html,x",
        "ftp://shop.example",
        "https://",
    ] {
        let found = refused_of_plain(&format!("{GOOD}<a href=\"{bad}\">x</a>"));
        assert!(!found.is_empty(), "{bad}");
    }
    let found = refused_of_plain(&format!("{GOOD}<a href=\"https://acme.example/sale\">x</a>"));
    assert!(found.len() == 1 && found[0].contains("promotional") && found[0].contains("/sale"), "{found:?}");
    // Mail programs make links of what looks like one.
    for bad in ["https://shop.example/sale", "HTTPS://shop.example", "www.shop.com", "shop.com/sale"] {
        assert!(!refused_of_plain(&format!("{GOOD}<p>Look: {bad}.</p>")).is_empty(), "{bad}");
        let text = look(&template(SUBJECT, HTML, &format!("{TEXT}\n({bad})\n")), &brand(), false);
        assert!(!text.refused.is_empty(), "{bad}");
    }
    let plain = format!(
        "{GOOD}<p>See https://acme.example, and/or e.g. 24/7 Acme.com; {{{{data.changes_url}}}}.</p>"
    );
    assert_eq!(refused_of_plain(&plain), [""; 0]);
}

#[test]
fn leaving_it_to_people_is_warned_of_in_each_language() {
    for words in [
        "For news on this, check back here.",
        "Please check this page often.",
        "Visit our website regularly.",
        "We ask you to review this policy from time to time.",
        "Bitte besuchen Sie diese Seite regelmäßig.",
        "Veuillez consulter régulièrement cette page.",
        "Consulte esta página periódicamente.",
    ] {
        let found = look(&template(SUBJECT, &format!("{GOOD}<p>{words}</p>"), TEXT), &brand(), true);
        assert!(found.refused.is_empty() && found.warnings.len() == 1, "{words}: {found:?}");
    }
}

#[test]
fn conditions_that_take_a_tag_apart_are_refused() {
    for torn in [
        "{{#if (eq name \"a\")}}<im{{/if}}{{#unless (eq name \"b\")}}g src=\"https://t.example\">{{/unless}}",
        "{{#if name}}<{{/if}}{{#if brand.phone}}img src=\"https://t.example\">{{/if}}",
        "{{#if name}}</{{/if}}p>",
        "<p {{#if name}}style=\"color:#333\"{{/if}}>x</p>",
        "<p lang=\"{{#if name}}en{{else}}de{{/if}}\">x</p>",
        "<!-- {{#if name}}-->{{/if}} -->",
        "{{#if name}}<!-{{/if}}- x -->",
        "<p>x</p><p title='{{#if name}}",
        "<p>x</p><!--{{#if name}}",
    ] {
        let found = refused_of_plain(&format!("{GOOD}{torn}"));
        assert!(
            found.iter().any(|finding| finding.contains("inside of an element's tag")),
            "{torn}: {found:?}"
        );
    }
    let whole =
        "{{#if name}}<p title=\"{{name}}\">1 < 2 <!-- 3 --></p>{{else if brand.phone}}<hr>{{else}} < {{/if}}";
    assert_eq!(refused_of_plain(&format!("{GOOD}{whole}")), [""; 0]);
}

#[test]
fn what_cannot_be_judged_is_refused() {
    let many = "{{#if name}}a{{/if}}".repeat(MAX_CONDITIONS + 1);
    assert!(refused(&format!("{GOOD}{many}"))[0].contains("simpler"));
    assert!(!refused("{{#if").is_empty());
    assert!(!refused(&format!("{GOOD}{{{{> gone}}}}")).is_empty());
    assert!(!refused("").is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_template_is_judged(html in proptest::collection::vec(proptest::sample::select(vec![
        "<p>", "</p>", "<a href=\"", "\">", "</a>", "<p style=\"", "color:", "#fff", ";", "é", "{{name}}", "{{#if data.x}}",
        "{{else}}", "{{/if}}", "{{data.url}}", "<!--", "-->", "<title>", "{{{data.summary}}}", "mailto:", "www.", "://",
    ]), 0..16)) {
        let html: String = html.concat();
        prop_assert!(!refused(&html).is_empty());
    }
}

proptest! {
    #[test]
    fn any_text_can_be_read(text in "[<>a-z\"'=/!&:@#;.(){}\\\\ é%0-9-]{0,60}", any in any::<String>()) {
        let ours = Ours::new(&brand(), [text.clone(), any.clone(), String::new()], &any, "");
        for text in [text, any] {
            let _ = page::read(&text, Some(&text));
            let _ = page::read(&format!("<p style=\"{text}\"><a href=\"{text}\">x"), None);
            let _ = (ours.refuses(&text), ours.refuses(&format!("mailto:{text}")), ours.refused_in_text(&text));
            let _ = (ours.leading(&text, &[&text]), words::left_to_people(&text));
        }
    }
}
