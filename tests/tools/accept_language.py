"""Negotiates as Werkzeug does: {"ours": [tags], "fields": [Accept-Language]} in, the best of ours for each field out, or null."""

import json
import sys

from werkzeug.datastructures import LanguageAccept
from werkzeug.http import parse_accept_header

asked = json.load(sys.stdin)
best = [parse_accept_header(field, LanguageAccept).best_match(asked["ours"]) for field in asked["fields"]]
json.dump(best, sys.stdout)
