//! Web pages and HTTP (H).

mod limits;
mod stalled;
