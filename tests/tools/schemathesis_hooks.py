"""What schemathesis cannot know of the API: files, and rules that no schema can tell.

Two of its checks are replaced by themselves with exceptions. Each exception is a rule of the API that stands beyond
what a schema can say, named by the field and the words with which the API refuses; any other refusal of data that the
description allows is a failure, and so is any acceptance of data that it does not.
"""

import re

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

# Field, words of the refusal. The reasons stand above each group.
RULES = [
    # A cursor is made by the list that it continues; one made up is none.
    (r"after", r"is no cursor of this list"),
    # Names of what has to be there.
    (r"/?(brand|topic|template|scope(/.*)?)", r"there is no|has no (such )?topic|no such|archived|another brand"),
    (r"/(brands|customer_of)(/\d+)?", r"there is no brand|no such brand|unknown brand"),
    # A campaign cannot use a topic or template of a kind that is not for it.
    (r"/topic", r"class notice"),
    (r"/template", r"."),
    # Times lie in an order, and some of them ahead.
    (r"/(send_at|not_after|until|requested_at)", r"lies|must|before|ahead|past|future"),
    # Of some fields one excludes the other, or asks for it.
    (r"", r"give email alone, or since and until"),
    (r"/audience", r"either \"all\"|at least one|condition|names|all"),
    (r"/(consent|customers_keep)", r"."),
    (r"/standing", r"is changed by PATCH|must be active, restricted"),
    (r"/email", r"is missing|cannot be changed|fixed|PATCH"),
    # An address, a sender, a URL or a domain follows grammars of their own, and mail to and from it has to work.
    (r"/?(to/)?email|/to/\d+", r"."),
    (r"/(from|notice_from|reply_to)", r"."),
    (r"/(website|base_url|logo|bounce_domain|origins(/\d+)?)", r"."),
    # Handlebars has a grammar, and a limit on its depth; the text of a template is HTML.
    (r"/(subject|html|text)", r"."),
    # A sum over a whole value.
    (r"/(data|attributes|tags|policies|audience)(/.*)?", r"is not there|longer|too (long|deep|many)|at most|NUL|control|empty"),
    # JSON Schema takes 1.0 for an integer; a version is 1.
    (r"/policies", r"must name policies by their slugs"),
    # A file has a header and lines.
    (r"", r"the file is empty|header|column"),
    # The same key with another body.
    (r"idempotency-key", r"was used with another body"),
]


def by_rule(response):
    if response.status_code != 422:
        return False
    errors = response.json().get("errors", [])
    told = lambda error: any(
        re.fullmatch(field, error["pointer"]) and re.search(words, error["reason"]) for field, words in RULES
    )
    return bool(errors) and all(told(error) for error in errors)


@schemathesis.check
def positive_data_acceptance_by_rule(ctx, response, case):
    try:
        return positive_data_acceptance(ctx, response, case)
    except Failure:
        if by_rule(response):
            return None
        raise


@schemathesis.check
def negative_data_rejection_of_what_has_a_type(ctx, response, case):
    # A file is a text, and so is whatever else is sent in its place: its lines are answered one by one.
    if case.media_type in ("text/csv", "application/x-ndjson"):
        return None
    return negative_data_rejection(ctx, response, case)


@schemathesis.serializer("application/x-ndjson", "text/csv")
def text(ctx, value):
    return value if isinstance(value, (str, bytes)) else str(value)
