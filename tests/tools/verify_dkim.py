"""Verifies DKIM signatures with dkimpy and reads their tags.

In: `{"dns": {name: text}, "messages": [base64]}`. Out: for each message a list of its signatures from the top, each with
`pass`, `why`, the `tags`, and what PyPI's listunsub says of them: `covers`.
"""

import base64
import email
import json
import sys

import dkim
from dkim.util import parse_tag_value
from listunsub import dkim_covers


def verify(raw, dns):
    def ask(name, timeout=5):
        return dns.get(name.decode().rstrip(".").lower(), "").encode() or None

    judged = []
    for place, value in enumerate(email.message_from_bytes(raw).get_all("DKIM-Signature", [])):
        try:
            passes, why = dkim.DKIM(raw, minkey=1024).verify(place, dnsfunc=ask), ""
        except dkim.DKIMException as error:
            passes, why = False, str(error)
        tags = {key.decode(): text.decode() for key, text in parse_tag_value(value.encode()).items()}
        judged.append({"pass": passes, "why": why, "tags": tags, "covers": dkim_covers(value)})
    return judged


asked = json.load(sys.stdin)
json.dump([verify(base64.b64decode(one), asked["dns"]) for one in asked["messages"]], sys.stdout)
