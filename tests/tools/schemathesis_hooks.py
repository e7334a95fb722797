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
    # What is named has to be there.
    (r"/?(brand|topic|template|scope(/brand|/topic)?)", r"there is no|has no (such )?topic|is archived|another brand"),
    (r"/(brands|customer_of)(/\d+)?", r"there is no such brand"),
    # Topics, templates and messages have classes, and not each goes with each.
    (r"/(topic|template)", r"class"),
    (r"/consent", r"is for topics of class marketing"),
    (r"/customers_keep", r"is for topics of class relationship"),
    # Times lie in an order, and some of them ahead or behind.
    (r"/(send_at|not_after)", r"must lie ahead|must be later|lies before"),
    (r"/(until|requested_at)", r"lies before since|future|ahead"),
    # Of some fields one excludes the other or asks for it.
    (r"", r"give email alone, or since and until"),
    (r"/audience", r"either \"all\"|can only be true|names no|at least one|condition"),
    # The same fields make a person and change one; who a person is does not change.
    (r"/standing", r"is changed by PATCH|must be active, restricted"),
    (r"/email", r"is missing|cannot be changed; store"),
    # Addresses, senders, domains and URLs have grammars of their own, and mail has to reach them.
    (r"/?(to/)?email|/to/\d+|/(from|notice_from|reply_to)", r"^the (address|domain|part before the @) (is|holds) "),
    (r"/(from|notice_from|reply_to)", r"^must be of the form Name <address>|^the name (shows|holds|ends|is longer)|^the domain mixes"),
    (r"/bounce_domain", r"domain name|is not aligned"),
    (r"/(website|base_url|origins(/\d+)?)", r"URL|https|origin|query|longer than"),
    # A logo is an image, and its URL one that is shown here.
    (r"/logo", r"^is not base64 after|^must be the image itself|^does not begin as|^is damaged"),
    # What a template says is Handlebars, and what it names has to be given.
    (r"/(subject|html|text)", r"line \d+|parse|block|helper|partial|nested|includes|variable|NUL|control"),
    (r"/data(/.*)?", r"is not there; give it"),
    # Bounds on a value as a whole.
    (r"/(data|attributes|tags|audience)(/.*)?", r"longer than|too deep|at most|control character|is empty"),
    # JSON Schema takes 1.0 for an integer; a version is 1.
    (r"/policies", r"must name policies by their slugs"),
    # A version's date lies ahead and in an order; what it asks hangs on its change; a translation is of another language.
    (r"/effective_at", r"is missing|lies in the past|comes before|is nearer than"),
    (r"/approval", r"nobody can be asked|say in override_reason"),
    (r"/topic", r"is missing|is for changes of kind new_use|nobody can refuse"),
    (r"/translations/.*", r"is there already|is no language tag"),
    (r"/language", r"must be a language tag"),
    (r"language", r"the version has no text in"),
    (r"/remind_days_before|/placements", r"names one twice"),
    # Whom a notice is for, and of what it told, stands in the notice.
    (r"/recipient", r"is nobody whom this notice is for|was erased|is not one of"),
    (r"/round", r"is the number of no round"),
    # A template of notices says all that a notice must.
    (r"/template", r"^it "),
    # A file of people begins with a header.
    (r"", r"the file is empty|the header |the title of column"),
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
