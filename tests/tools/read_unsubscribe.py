"""Reads raw messages (a JSON array of base64 on standard input) with Python's `email` and judges their unsubscribe fields
with listunsub. Writes a JSON array: the field names in order, both parts, what `audit` finds, and the requests that
listunsub would send."""

import base64
import email
import email.policy
import json
import sys

import listunsub

answers = []
for encoded in json.load(sys.stdin):
    raw = base64.b64decode(encoded)
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    for part in mail.walk():
        assert not part.defects, part.defects
        for name, value in part.items():
            assert not value.defects, (name, value.defects)
    signatures = [str(value) for value in mail.get_all("DKIM-Signature", [])]
    fields = [str(value) for value in mail.get_all("List-Unsubscribe", [])]
    posts = [str(value) for value in mail.get_all("List-Unsubscribe-Post", [])]
    found = listunsub.audit(fields, posts, dkim_signatures=signatures or None)
    clicks = []
    for uri in listunsub.parse_header(fields[0], strict=True).https if fields else []:
        for form in ("multipart", "urlencoded"):
            click = listunsub.one_click_request(uri, form=form)
            clicks.append({"url": click.url, "headers": click.headers, "body": click.body.decode()})
    answers.append({
        "names": [name.lower() for name in mail.keys()],
        "text": mail.get_body(("plain",)).get_content().replace("\r\n", "\n"),
        "html": mail.get_body(("html",)).get_content(),
        "problems": [f"{problem.code}: {problem.message}" for problem in found],
        "clicks": clicks,
    })
json.dump(answers, sys.stdout)
