"""Reads messages with Python's `email`: a JSON array of base64 in, a JSON array of what each says out.

`flaws` holds every defect that the parser notes and every breach of RFC 5322 that it is silent about.
"""

import base64
import email
import email.header
import email.policy
import email.utils
import json
import re
import sys

# Kept as it came from here on, so that what is decoded has no line ends of the parser's own making.
POLICY = email.policy.default.clone(linesep="\r\n")
ONCE = ["date", "from", "sender", "reply-to", "to", "cc", "bcc", "message-id", "subject", "mime-version", "content-type",
        "list-id", "list-unsubscribe", "list-unsubscribe-post", "feedback-id", "auto-submitted"]


def addresses(raw, name):
    """Names and addresses by the older functions: before 3.13 the newer ones put a space between two encoded words."""
    fields = email.message_from_bytes(raw, policy=email.policy.compat32).get_all(name, [])
    unfolded = [str(field).replace("\r", "").replace("\n", "") for field in fields]
    decoded = lambda text: str(email.header.make_header(email.header.decode_header(text)))
    return [[decoded(shown), address] for shown, address in email.utils.getaddresses(unfolded)]


def read(raw):
    flaws = []
    lines = raw.split(b"\r\n")
    if any(len(line) > 998 for line in lines):
        flaws.append("a line is longer than 998 octets")
    if any(octet in b"\r\n\0" for line in lines for octet in line):
        flaws.append("a CR, LF or NUL stands by itself")
    for line in raw.split(b"\r\n\r\n", 1)[0].split(b"\r\n"):
        if b"=?" in line and len(line) > 76:
            flaws.append(f"a line with encoded words is longer than 76: {line!r}")
        for word in line.split():
            if word.startswith(b"=?") and len(word) > 75:
                flaws.append(f"an encoded word is longer than 75: {word!r}")
            if word.startswith(b"=?"):
                # Each word by itself is whole characters (RFC 2047 §5).
                try:
                    base64.b64decode(re.fullmatch(rb"=\?utf-8\?b\?([^?]+)\?=", word)[1], validate=True).decode()
                except (TypeError, ValueError) as error:
                    flaws.append(f"no encoded word: {word!r}: {error}")
    mail = email.message_from_bytes(raw, policy=POLICY)
    for part in mail.walk():
        flaws += [repr(defect) for defect in part.defects]
        for name, value in part.items():
            flaws += [f"{name}: {defect!r}" for defect in value.defects]
    names = [name.lower() for name in mail.keys()]
    flaws += [f"{names.count(name)} of {name}" for name in ONCE if names.count(name) > 1]
    parts = []
    for part in mail.iter_parts():
        body = part.get_payload(decode=True)
        declared = part["Content-Transfer-Encoding"]
        encoding = str(declared).lower() if declared else "7bit"
        if encoding == "7bit" and any(octet > 127 for octet in part.as_bytes()):
            flaws.append("a part that is not 7bit says that it is")
        parts.append({
            "type": part.get_content_type(),
            "charset": part.get_content_charset(),
            "encoding": encoding,
            "body": body.decode(part.get_content_charset() or "ascii").replace("\r\n", "\n"),
        })
    date = email.utils.parsedate_to_datetime(mail["Date"])
    return {
        "flaws": flaws,
        "names": sorted(names),
        "subject": str(mail["Subject"]),
        "from": addresses(raw, "From"),
        "to": addresses(raw, "To"),
        "reply_to": addresses(raw, "Reply-To"),
        "date": int(date.timestamp()),
        "message_id": str(mail["Message-ID"]),
        "type": mail.get_content_type(),
        "fields": {name.lower(): str(value) for name, value in mail.items()},
        "parts": parts,
    }


json.dump([read(base64.b64decode(one)) for one in json.load(sys.stdin)], sys.stdout)
