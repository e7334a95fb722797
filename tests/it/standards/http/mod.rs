//! Web pages and HTTP (H).

mod headers;
mod limits;
mod links;
mod pages;
mod stalled;
mod states;
