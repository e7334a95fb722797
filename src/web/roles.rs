//! Which roles each call of the API takes, as the OpenAPI document tells.
//!
//! It only tells: the handlers refuse. `tests/it/roles.rs` calls everything with every role and compares.

use super::Role::{self, Accounts, Auditor, Marketer, Operator, Sender};

/// Every role; admin is never named, since it may do everything.
const ALL: &[Role] = &[Accounts, Marketer, Sender, Operator, Auditor];
const PEOPLE: &[Role] = &[Accounts, Marketer, Operator, Auditor];
const SEES_CAMPAIGNS: &[Role] = &[Marketer, Auditor];
const ASKS: &[Role] = &[Accounts, Operator, Auditor];
const READS_EVIDENCE: &[Role] = &[Auditor];
const SEES_NOTICES: &[Role] = &[Operator, Auditor];
const NONE: &[Role] = &[];

/// Method, path below `/api/v1`, the roles beside admin.
const ROLES: &[(&str, &str, &[Role])] = &[
    ("post", "/addresses/revive", &[Operator]),
    ("get", "/audit", &[Auditor]),
    ("get", "/brands", ALL),
    ("get", "/brands/{brand}", ALL),
    ("put", "/brands/{brand}", NONE),
    ("delete", "/brands/{brand}", NONE),
    ("get", "/brands/{brand}/topics", ALL),
    ("get", "/brands/{brand}/topics/{topic}", ALL),
    ("put", "/brands/{brand}/topics/{topic}", NONE),
    ("delete", "/brands/{brand}/topics/{topic}", NONE),
    ("get", "/campaigns", SEES_CAMPAIGNS),
    ("post", "/campaigns", &[Marketer]),
    ("get", "/campaigns/{id}", SEES_CAMPAIGNS),
    ("patch", "/campaigns/{id}", &[Marketer]),
    ("delete", "/campaigns/{id}", &[Marketer]),
    ("post", "/campaigns/{id}/recipients", &[Marketer]),
    ("post", "/campaigns/{id}/start", &[Marketer]),
    ("post", "/campaigns/{id}/pause", &[Marketer]),
    ("post", "/campaigns/{id}/resume", &[Marketer]),
    ("post", "/campaigns/{id}/cancel", &[Marketer]),
    ("post", "/campaigns/{id}/retry", &[Marketer]),
    ("post", "/campaigns/{id}/test", &[Marketer]),
    ("get", "/campaigns/{id}/preview", SEES_CAMPAIGNS),
    ("get", "/campaigns/{id}/deliveries", SEES_CAMPAIGNS),
    ("get", "/explain", ASKS),
    ("post", "/messages", &[Marketer, Sender]),
    ("get", "/messages/{id}", ALL),
    ("get", "/notices", SEES_NOTICES),
    ("get", "/notices/{id}", SEES_NOTICES),
    ("post", "/notices/{id}/postpone", NONE),
    ("post", "/notices/{id}/correct", NONE),
    ("post", "/notices/{id}/withdraw", NONE),
    ("post", "/notices/{id}/release", NONE),
    ("delete", "/notices/{id}/waiting", NONE),
    ("get", "/notices/{id}/evidence", READS_EVIDENCE),
    ("get", "/notices/{id}/unreachable", SEES_NOTICES),
    ("post", "/notices/{id}/told", &[Operator]),
    ("post", "/notices/{id}/answers", &[Operator]),
    ("post", "/opt-ins", &[Operator]),
    ("get", "/opt-outs", ASKS),
    ("post", "/opt-outs", &[Accounts, Operator]),
    ("get", "/opt-outs/export", &[Auditor]),
    ("post", "/opt-outs/import", &[Accounts]),
    ("get", "/policies", READS_EVIDENCE),
    ("get", "/policies/{policy}", READS_EVIDENCE),
    ("put", "/policies/{policy}", NONE),
    ("get", "/policies/{policy}/versions", READS_EVIDENCE),
    ("post", "/policies/{policy}/versions", NONE),
    ("get", "/policies/{policy}/versions/{n}", READS_EVIDENCE),
    ("delete", "/policies/{policy}/versions/{n}", NONE),
    ("get", "/policies/{policy}/versions/{n}/preview", READS_EVIDENCE),
    ("post", "/policies/{policy}/versions/{n}/publish", NONE),
    ("post", "/policies/{policy}/versions/{n}/release", NONE),
    ("get", "/recipients", PEOPLE),
    ("post", "/recipients", &[Accounts, Marketer]),
    ("post", "/recipients/import", &[Accounts, Marketer]),
    ("get", "/recipients/{id}", PEOPLE),
    ("patch", "/recipients/{id}", &[Accounts, Marketer]),
    ("get", "/recipients/{id}/deliveries", PEOPLE),
    ("get", "/recipients/{id}/policies", ASKS),
    ("get", "/templates", ALL),
    ("get", "/templates/{template}", ALL),
    ("put", "/templates/{template}", &[Marketer]),
    ("delete", "/templates/{template}", &[Marketer]),
];

/// The words of the roles that a call takes, admin first. `path` may begin with `/api/v1`. A call that is not in the table
/// takes admin alone, as far as the document says; a test fails then.
pub(super) fn of(method: &str, path: &str) -> Vec<&'static str> {
    let path = path.trim_start_matches("/api/v1");
    let named = ROLES.iter().find(|(m, p, _)| *m == method && *p == path).map_or(NONE, |(_, _, roles)| roles);
    [Role::Admin].iter().chain(named).map(|role| role.as_str()).collect()
}
