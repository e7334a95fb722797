//! Web pages and HTTP (H).
