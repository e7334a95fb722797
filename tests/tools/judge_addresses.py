"""Judges addresses with PyPI's email-validator: a JSON array in, a JSON array of its normal form, or null and why, out."""

import json
import sys

from email_validator import EmailNotValidError, validate_email


def judge(text):
    try:
        valid = validate_email(text, check_deliverability=False, allow_smtputf8=True, strict=True)
    except EmailNotValidError as error:
        return {"why": str(error)}
    return {"local": valid.local_part, "domain": valid.ascii_domain}


json.dump([judge(one) for one in json.load(sys.stdin)], sys.stdout)
