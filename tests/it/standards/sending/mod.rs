//! T: what SMTP asks of whoever sends (RFC 5321 §4.5, RFC 2920, RFC 3461, RFC 8314).

mod dialogue;
mod envelope;
mod outcomes;
mod pace;
mod protection;
mod stop;
