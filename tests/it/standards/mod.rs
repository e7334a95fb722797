//! What standards, mailbox providers and law ask of mail and pages: a test for each requirement, named by its id, with an
//! independent implementation as the judge wherever there is one. The table in `CONTRIBUTING.md` says which is where.

mod addresses;
mod dkim;
mod format;
mod http;
mod notices;
mod provider;
mod sending;
mod unsubscribe;
