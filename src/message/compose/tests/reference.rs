//! Messages made the plain way: whole templates by Handlebars, each page read afresh, put together by lettre. What
//! [`Prepared`] makes must be the same, octet for octet.

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox as LettreMailbox, MultiPart, SinglePart};

use super::*;
use crate::message::headers;
use crate::message::shapes::afresh;

/// The message of one delivery.
pub(super) fn compose(
    content: &Compiled,
    sender: &Sender<'_>,
    addressee: &Addressee<'_>,
    delivery: DeliveryId,
    date: Timestamp,
) -> Result<Message, ComposeError> {
    let prepared = Prepared::new(content, sender)?;
    let footing = prepared.footing(addressee, delivery, date);
    let names = Names {
        email: addressee.address.as_str(),
        name: addressee.name.unwrap_or_default(),
        locale: addressee.locale.unwrap_or_default(),
        external_id: addressee.external_id.unwrap_or_default(),
        customer: addressee.customer,
        attributes: if addressee.attributes.is_object() { addressee.attributes } else { &json!({}) },
        own_data: addressee.data.and_then(Json::as_object),
        url: footing.url(),
        preferences_url: footing.preferences_url(),
        approve_url: footing.approve_url(),
    };
    let context = Context::from(prepared.seen_by_template(&names));
    let subject = one_line(&content.subject.render(&context, &[], MAX_SUBJECT)?);
    let mut locals = look::of_brand(sender);
    locals.extend(look::of_message(addressee, &subject).map(|(name, value)| (name, value.into_owned())));
    let html = content.html.render(&context, &locals, MAX_HTML)?;
    let must = prepared.terms.address().map(|address| Must {
        url: footing.url(),
        address,
        brand: sender.brand,
        topic: sender.topic,
        language: addressee.locale.and_then(Language::of_locale).unwrap_or_default(),
    });
    let html = afresh(html, must.as_ref())?;
    let mut text = content.text.render(&context, &[], MAX_TEXT)?;
    if let Some(must) = &must {
        let has = (text.contains(must.url), must.address.stands_in(&text));
        if has != (true, true) {
            let footer = must.footer(crate::message::Part::Text, must.url, has)?;
            text.truncate(text.trim_end().len());
            text = text + "\n" + &footer;
        }
    }
    let built = build(sender, addressee, content, &footing, Bodies { subject, text, html }, delivery, date);
    Ok(Message {
        envelope_from: prepared.head.envelope_from(delivery, sender.link_keys),
        envelope_to: addressee.address.to_wire(),
        message_id: prepared.head.message_id(delivery),
        bytes: sender.dkim.sign(built, prepared.head.domain_of_from(), date)?,
    })
}

fn mailbox(name: Option<&str>, address: &EmailAddress) -> (LettreMailbox, headers::Mailbox) {
    let ours = headers::Mailbox::new(name.unwrap_or_default(), address.to_wire()).unwrap();
    (LettreMailbox::new(ours.name.clone(), address.to_wire().parse().unwrap()), ours)
}

fn build(
    sender: &Sender<'_>,
    addressee: &Addressee<'_>,
    content: &Compiled,
    footing: &Footing,
    bodies: Bodies,
    delivery: DeliveryId,
    date: Timestamp,
) -> Vec<u8> {
    let brand = sender.brand;
    let from = match &brand.notice_from {
        Some(own) if !sender.topic.class.can_be_refused() => own,
        _ => &brand.from_mailbox,
    };
    let parse = |text: &str| {
        let parsed = crate::brand::Mailbox::parse(text).unwrap();
        (mailbox(Some(&parsed.name), &parsed.address), parsed.address.domain().to_owned())
    };
    let ((from, our_from), domain) = parse(from);
    let reply_to = content.frozen().reply_to.as_ref().or(brand.reply_to.as_ref()).map(|text| parse(text).0);
    let (to, our_to) = mailbox(addressee.name, addressee.address);
    let feedback_id = headers::feedback_id(sender, content.frozen(), &domain);
    let mut builder = lettre::Message::builder()
        .date(date.to_datetime().into())
        .from(from)
        .to(to)
        .message_id(Some(format!("<{delivery}@{domain}>")))
        .raw_header(exactly("Feedback-ID", feedback_id))
        .raw_header(subject(&bodies.subject));
    if let Some((reply_to, _)) = &reply_to {
        builder = builder.reply_to(reply_to.clone());
    }
    builder = match footing {
        Footing::Refusable(link) => builder
            .raw_header(exactly("List-Unsubscribe", link.header_value()))
            .raw_header(exactly("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".into()))
            .raw_header(exactly("List-Id", headers::list_id(sender, &domain))),
        Footing::Notice { .. } | Footing::ServiceSide => {
            builder.raw_header(exactly("Auto-Submitted", "auto-generated".into()))
        }
    };
    let parts = MultiPart::alternative()
        .boundary(format!("=_{}", delivery.0.simple()))
        .singlepart(SinglePart::plain(lines(&bodies.text)))
        .singlepart(SinglePart::html(lines(&bodies.html)));
    let mut message = builder.multipart(parts).unwrap();
    let ours = [("From", Some(our_from)), ("To", Some(our_to)), ("Reply-To", reply_to.map(|(_, ours)| ours))];
    for (name, who) in ours {
        if let Some(who) = who {
            message.headers_mut().insert_raw(exactly(name, headers::address_field(name, &who)));
        }
    }
    message.formatted()
}

fn lines(text: &str) -> String {
    let unix = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut clean: String = unix.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    clean.truncate(clean.trim_end().len());
    clean.push('\n');
    clean
}

fn exactly(name: &'static str, value: String) -> HeaderValue {
    HeaderValue::dangerous_new_pre_encoded(HeaderName::new_from_ascii_str(name), value.clone(), value)
}

fn subject(text: &str) -> HeaderValue {
    let name = HeaderName::new_from_ascii_str("Subject");
    if text.is_ascii() && !text.contains("=?") && text.split(' ').all(|word| word.len() < 70) {
        return HeaderValue::new(name, text.to_owned());
    }
    let encoded = headers::encoded_words(text, "Subject: ".len());
    HeaderValue::dangerous_new_pre_encoded(name, text.to_owned(), encoded)
}
