"""Does what a mail program does whose user unsubscribes by mail: reads a raw message on standard input, finds the mailto URI
with listunsub and writes, as JSON, to whom it would write and the message."""

import email
import email.policy
import json
import sys

import listunsub

mail = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
header = listunsub.parse_header(str(mail["List-Unsubscribe"]), strict=True)
[uri] = header.mailto
mailto = listunsub.parse_mailto(uri, strict=True)
[to] = mailto.to
message = mailto.to_message("someone@people.example.com")
json.dump({"to": to, "fields": mailto.fields, "message": message.as_string()}, sys.stdout)
